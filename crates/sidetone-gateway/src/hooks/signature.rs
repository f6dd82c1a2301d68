//! Signatures as [Standard Webhooks](https://www.standardwebhooks.com) has them.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

/// What the base64 form of a secret starts with.
const PREFIX: &str = "whsec_";

/// The secret that an endpoint checks signatures with. It never shows in `Debug` output.
#[derive(Clone, Debug)]
pub struct SigningKey(hmac::Key);

/// A secret that starts with `whsec_`, and what follows is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secret starts with whsec_, but what follows is not base64: copy all of it, or leave out whsec_ to \
     use its bytes as they are"
)]
pub struct InvalidSecret;

impl SigningKey {
    /// The key from a secret: `whsec_` and base64, or any other bytes, which are used as they are.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret`] if `whsec_` is not followed by base64.
    pub fn from_secret(secret: &[u8]) -> Result<Self, InvalidSecret> {
        let decoded;
        let bytes = match secret.strip_prefix(PREFIX.as_bytes()) {
            Some(base64) => {
                decoded = STANDARD.decode(base64).map_err(|_| InvalidSecret)?;
                match decoded.is_empty() {
                    true => return Err(InvalidSecret),
                    false => &decoded,
                }
            }
            None => secret,
        };
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// The value of the header `webhook-signature`. `timestamp` is in seconds since 1970.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body.as_bytes());
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn sign(secret: &[u8]) -> String {
        let key = SigningKey::from_secret(secret).unwrap();
        key.sign(ID, 1_614_265_330, r#"{"test": 2432232314}"#)
    }

    #[test]
    fn the_published_example_has_the_published_signature() {
        let published = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(SECRET.as_bytes()), published);
    }

    #[test]
    fn a_secret_without_the_prefix_is_used_as_it_is() {
        let raw = STANDARD.decode(&SECRET[PREFIX.len()..]).unwrap();
        assert_eq!(sign(&raw), sign(SECRET.as_bytes()));
        assert_ne!(sign(&SECRET.as_bytes()[PREFIX.len()..]), sign(&raw));
    }

    #[test]
    fn a_secret_that_was_cut_is_refused_and_not_quoted() {
        for secret in ["whsec_MfKQ9", "whsec_", "whsec_ü"] {
            let error = SigningKey::from_secret(secret.as_bytes()).unwrap_err();
            assert!(!error.to_string().contains("MfKQ9"));
        }
        let key = SigningKey::from_secret(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert!(!format!("{key:?}").contains("MfKQ9"));
    }
}
