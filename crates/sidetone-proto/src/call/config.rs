use std::time::Duration;

/// The limits of a call.
///
/// ```
/// let config = sidetone_proto::CallConfig::default();
/// assert_eq!(config.identity_timeout.as_secs(), 60);
/// assert_eq!(config.idle_timeout, None);
/// ```
#[derive(Clone, Debug)]
pub struct CallConfig {
    /// How long a connection may stay without a UUID. 60 s by default.
    ///
    /// It is long because Asterisk's channel driver connects when the channel is *requested* and sends the UUID when it
    /// is *called*: with ARI's create and dial, seconds or minutes lie between.
    pub identity_timeout: Duration,
    /// Ends a call after this time without inbound audio or digits. Off by default: silence from Asterisk is legal. A
    /// muted caller, or a phone with silence suppression, sends nothing.
    pub idle_timeout: Option<Duration>,
    /// Ends a call this long after its UUID. Off by default.
    pub max_duration: Option<Duration>,
}

impl Default for CallConfig {
    fn default() -> Self {
        Self {
            identity_timeout: Duration::from_secs(60),
            idle_timeout: None,
            max_duration: None,
        }
    }
}
