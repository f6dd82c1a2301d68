use thiserror::Error;

/// Why speech is not recognized. The texts never contain a credential.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpeechError {
    /// The settings can't work: an invalid address, a missing key, a file that can't be read.
    #[error("{0}")]
    Settings(String),
    /// The service refuses, and will refuse again: bad credentials, an unknown model or recognizer.
    #[error("{service} refuses: {reason}")]
    Refused {
        /// The service.
        service: &'static str,
        /// The reason it gave.
        reason: String,
    },
    /// The service is unavailable for now: no connection, too many requests, an exhausted quota.
    #[error("{service} is unavailable: {reason}")]
    Unavailable {
        /// The service.
        service: &'static str,
        /// What happened.
        reason: String,
    },
    /// The connection broke, or the service sent something that is not of its protocol.
    #[error("the connection to {service} broke: {reason}")]
    Broken {
        /// The service.
        service: &'static str,
        /// What happened.
        reason: String,
    },
}

impl SpeechError {
    /// Whether trying again is pointless.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Refused { .. })
    }
}
