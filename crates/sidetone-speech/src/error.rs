use thiserror::Error;

/// Why a recognizer does not recognise. The texts never contain a credential.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpeechError {
    /// The settings can't work: an address that is none, a missing key, a file that can't be read.
    #[error("{0}")]
    Settings(String),
    /// The service says no, and will say so again: bad credentials, an unknown model or recognizer.
    #[error("{service} refuses: {reason}")]
    Refused {
        /// Who.
        service: &'static str,
        /// What it said.
        reason: String,
    },
    /// The service can't be had right now: nobody there, too many requests, a quota used up for the moment.
    #[error("{service} can't be had: {reason}")]
    Unavailable {
        /// Who.
        service: &'static str,
        /// What happened.
        reason: String,
    },
    /// The connection broke, or what came over it makes no sense.
    #[error("the connection to {service} broke: {reason}")]
    Broken {
        /// Who.
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
