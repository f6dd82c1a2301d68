use std::sync::Arc;

use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::SpeechError;

/// Trusts the machine's certificates, so that a private authority works, too.
///
/// The crypto provider is set here, since rustls can't choose one if another crate enables a
/// second.
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, SpeechError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    if roots.add_parsable_certificates(found.certs).0 == 0 {
        return Err(SpeechError::Settings(
            "no trusted certificates found on this machine: install its ca-certificates, or name a file of \
             them in SSL_CERT_FILE"
                .into(),
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| SpeechError::Settings(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
