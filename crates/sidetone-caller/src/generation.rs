use std::time::Duration;

/// Asterisk releases whose AudioSocket code behaves alike.
///
/// ```
/// use sidetone_caller::{Generation, Rules};
///
/// let rules: Rules = Generation::G.into();
/// assert_eq!(rules.payload_wait.as_millis(), 5);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Generation {
    /// 20.20, 22.10 and 23.4.
    #[default]
    G,
}

/// How a generation behaves: one field for each difference between generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// How the three bytes of a header are read.
    pub header_read: HeaderRead,
    /// How long Asterisk waits for more of a payload. Each byte restarts the wait.
    pub payload_wait: Duration,
    /// What a message of a kind other than hang-up and audio does.
    pub unknown_kind: OnForbidden,
    /// Whether the kinds `0x11` to `0x18` exist. Without them, audio of any rate is sent as `0x10`, and their messages are of
    /// an unknown kind.
    pub wideband: bool,
    /// What audio of length 0 does.
    pub zero_length: OnForbidden,
    /// What the server's end of stream does.
    pub remote_fin: OnFin,
    /// What a hang-up message does.
    pub zero_hangup: OnHangup,
    /// How long neither side may send a message, in [`Mode::Application`].
    pub app_silence: Option<Duration>,
    /// Whether digits are sent.
    pub dtmf: bool,
    /// Whether Nagle's algorithm is off (`TCP_NODELAY`).
    pub nodelay: bool,
}

/// How the three bytes of a header are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderRead {
    /// Until all three have come, without a timeout: a part of a header freezes the call in both directions.
    Endless,
}

/// What Asterisk does after a message that it does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnForbidden {
    /// Drops the call and leaves the payload unread, so that the server sees a reset.
    Drop,
}

/// What Asterisk does at the end of the server's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFin {
    /// Treats it as a hang-up.
    HangUp,
}

/// What Asterisk does after a hang-up message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnHangup {
    /// Closes the connection without a reset; the application succeeds.
    Close,
}

impl Generation {
    /// The rules of this generation.
    pub const fn rules(self) -> Rules {
        match self {
            Self::G => Rules {
                header_read: HeaderRead::Endless,
                payload_wait: Duration::from_millis(5),
                unknown_kind: OnForbidden::Drop,
                wideband: true,
                zero_length: OnForbidden::Drop,
                remote_fin: OnFin::HangUp,
                zero_hangup: OnHangup::Close,
                app_silence: Some(Duration::from_secs(2)),
                dtmf: true,
                nodelay: true,
            },
        }
    }
}

impl From<Generation> for Rules {
    fn from(generation: Generation) -> Self {
        generation.rules()
    }
}

/// How the dialplan calls AudioSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The application, `AudioSocket(uuid,host:port)`. It drops the call after 2 s without a message of either side.
    #[default]
    Application,
    /// The channel driver, `Dial(AudioSocket/…)` or ARI externalMedia. It has no such limit.
    Channel,
}
