//! TLS as a client: which certificates are trusted.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;
pub use tokio_rustls::rustls;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Why TLS can't be set up.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// The machine has no trusted certificates.
    #[error(
        "no trusted certificates found on this machine: install its ca-certificates, or name a file of them \
         in SSL_CERT_FILE"
    )]
    NoCertificates,
    /// A file of certificates can't be used.
    #[error("the certificates in {} can't be used: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// rustls refuses its settings.
    #[error("TLS can't be set up: {0}")]
    Setup(String),
}

/// The certificates that the machine trusts, among them those of a private authority that was added
/// to it.
///
/// This reads files.
///
/// # Errors
///
/// [`TlsError::NoCertificates`] if there are none.
pub fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    match roots.add_parsable_certificates(found.certs) {
        (0, _) => Err(TlsError::NoCertificates),
        _ => Ok(roots),
    }
}

/// The certificates in a file in PEM format, and no others.
///
/// # Errors
///
/// [`TlsError::File`] if the file can't be read, holds no certificate or one that can't be used.
pub fn roots_in(file: &Path) -> Result<RootCertStore, TlsError> {
    let unusable = |reason: String| TlsError::File {
        file: file.into(),
        reason,
    };
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable(
            "it holds none; they begin with -----BEGIN CERTIFICATE-----".into(),
        )),
        false => Ok(roots),
    }
}

/// The settings of a client that trusts `roots` and shows no certificate itself.
///
/// The crypto provider is set here, since rustls can't choose one if another crate enables a
/// second.
///
/// # Errors
///
/// [`TlsError::Setup`] if rustls refuses the settings.
pub fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    Ok(Arc::new(
        config.with_root_certificates(roots).with_no_client_auth(),
    ))
}
