//! A message to one endpoint, and the file that keeps it.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest body of a message, in bytes. Events are far shorter.
pub(super) const LONGEST_BODY: usize = 256 << 10;
/// The longest file. Escaped, a byte of the body takes at most six.
pub(super) const LONGEST_FILE: u64 = 6 * LONGEST_BODY as u64 + (8 << 10);

/// What orders messages, and names their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// When the message was made, in milliseconds since 1970.
    pub(super) created_ms: u64,
    /// Unique in this process.
    pub(super) number: u64,
}

/// A message to one endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) key: Key,
    /// Stays the same, however often it is sent.
    pub(super) id: Arc<str>,
    pub(super) endpoint: Fingerprint,
    /// The endpoint's host and path.
    pub(super) shown: Arc<str>,
    /// Messages of a call are sent in order.
    pub(super) call: Option<Uuid>,
    pub(super) body: Arc<str>,
}

/// Names an endpoint by a digest of its URL, which may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(Arc<str>);

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    id: Cow<'a, str>,
    endpoint: Cow<'a, str>,
    shown: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<Uuid>,
    body: Cow<'a, str>,
}

impl Key {
    const SUFFIX: &str = ".json";

    pub(super) fn file_name(self) -> String {
        format!(
            "{:013}-{:010}{}",
            self.created_ms,
            self.number,
            Self::SUFFIX
        )
    }

    pub(super) fn from_file_name(name: &str) -> Option<Self> {
        let (created_ms, number) = name.strip_suffix(Self::SUFFIX)?.split_once('-')?;
        let number_of = |digits: &str| {
            let is_number = digits.bytes().all(|it| it.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten()
        };
        Some(Self {
            created_ms: number_of(created_ms)?,
            number: number_of(number)?,
        })
    }
}

impl Fingerprint {
    pub(super) fn of(url: &http::Uri) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, url.to_string().as_bytes());
        let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Self(digits.collect::<String>().into())
    }
}

impl Message {
    /// What its file holds.
    pub(super) fn to_file(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Record {
            id: (&*self.id).into(),
            endpoint: (&*self.endpoint.0).into(),
            shown: (&*self.shown).into(),
            call: self.call,
            body: (&*self.body).into(),
        })
    }

    /// Reads a file's content. A file that was cut anywhere is an error.
    pub(super) fn from_file(key: Key, content: &[u8]) -> Result<Self, String> {
        let record: Record<'_> =
            serde_json::from_slice(content).map_err(|error| error.to_string())?;
        let is_id = |it: &str| {
            it.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if record.id.is_empty() || !is_id(&record.id) {
            return Err("its id is none".into());
        }
        Ok(Self {
            key,
            id: record.id.into(),
            endpoint: Fingerprint(record.endpoint.into()),
            shown: record.shown.into(),
            call: record.call,
            body: record.body.into(),
        })
    }
}

#[cfg(test)]
pub(super) fn sample(number: u64, call: Option<Uuid>, body: &str) -> Message {
    Message {
        key: Key {
            created_ms: 1_614_265_330_000 + number,
            number,
        },
        id: format!("msg_{number}").into(),
        endpoint: Fingerprint("ab".into()),
        shown: "crm.example/calls".into(),
        call,
        body: body.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_read_back_and_a_cut_one_is_an_error() {
        let message = sample(7, Some(Uuid::from_u128(1)), "{\"text\":\"\u{0}\n é } {\"}");
        let content = message.to_file().unwrap();
        assert_eq!(Message::from_file(message.key, &content).unwrap(), message);
        for length in 0..content.len() {
            Message::from_file(message.key, &content[..length]).unwrap_err();
            // What some file systems leave after a power cut.
            let mut zeros = content.clone();
            zeros[length..].fill(0);
            Message::from_file(message.key, &zeros).unwrap_err();
        }
    }

    #[test]
    fn names_order_as_keys_do_and_no_other_name_is_one() {
        let key = sample(7, None, "").key;
        assert_eq!(key.file_name(), "1614265330007-0000000007.json");
        assert_eq!(Key::from_file_name(&key.file_name()), Some(key));
        for name in [
            "",
            ".json",
            "-.json",
            "1-2",
            "1-2.json.tmp",
            "+1-2.json",
            "a-b.json",
        ] {
            assert_eq!(Key::from_file_name(name), None, "{name}");
        }
        let long = format!("{}-1.json", "9".repeat(30));
        assert_eq!(Key::from_file_name(&long), None);
    }

    #[test]
    fn a_longest_body_fits_into_a_file() {
        let message = sample(7, None, &"\u{1}".repeat(LONGEST_BODY));
        assert!(message.to_file().unwrap().len() as u64 <= LONGEST_FILE);
    }

    #[test]
    fn a_file_does_not_show_the_url() {
        let url = "https://crm.example/calls?key=topsecret".parse().unwrap();
        let message = Message {
            endpoint: Fingerprint::of(&url),
            ..sample(7, None, "{}")
        };
        let content = String::from_utf8(message.to_file().unwrap()).unwrap();
        assert!(!content.contains("topsecret"));
    }
}
