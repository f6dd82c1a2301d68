use std::time::Duration;

/// A span of Asterisk releases whose AudioSocket code behaves alike.
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

/// How one generation behaves, as data: one field for each thing in which generations differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// How the three bytes of a header are read.
    pub header_read: HeaderRead,
    /// How long Asterisk waits for more of a payload; any progress starts the wait anew.
    pub payload_wait: Duration,
    /// What a kind other than hang-up and audio does.
    pub unknown_kind: OnForbidden,
    /// Whether the kinds `0x11` to `0x18` exist. Without them audio of any rate leaves as `0x10`, and one
    /// that comes in is an unknown kind.
    pub wideband: bool,
    /// What audio of length 0 does.
    pub zero_length: OnForbidden,
    /// What the server's end of stream does.
    pub remote_fin: OnFin,
    /// What a hang-up message does.
    pub zero_hangup: OnHangup,
    /// In the application: for how long both sides may be silent.
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
    /// Until all three are there, however long that takes: a part of a header freezes the call both ways.
    Endless,
}

/// What Asterisk does about a message that it does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnForbidden {
    /// Drops the call and leaves the payload unread, so that the server sees a reset.
    Drop,
}

/// What Asterisk does about the end of the server's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFin {
    /// Takes it for a hang-up.
    HangUp,
}

/// What Asterisk does about a hang-up message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnHangup {
    /// Reads all of it and closes in order; the application succeeds.
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

/// The way from the dialplan to AudioSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The application, `AudioSocket(uuid,host:port)`: dropped after 2 s in which neither side sends
    /// anything.
    #[default]
    Application,
    /// The channel driver, `Dial(AudioSocket/…)` or ARI externalMedia: silence may last for ever.
    Channel,
}
