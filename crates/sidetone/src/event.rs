use std::{fmt, time::Duration};

use sidetone_proto::{EndReason, Rate};

use crate::error::CallError;

/// A place in what is queued on a call, of which [`Event::MarkReached`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub u64);

/// What happens on a call, in order. `Ended` is always the last.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Audio from the caller.
    Audio(Frame<'a>),
    /// The caller pressed a key: one of `0-9 * # A-D`, reported at its release.
    ///
    /// Asterisk sends digits from 20.14, 21.9 and 22.4 on. None is dropped, however long it waits to be read: a
    /// call on which more than 4096 digits and reports of [errors](Self::Error) wait is ended as
    /// [flooded](EndReason::Flooded) instead.
    Dtmf(char),
    /// Everything queued before this mark has been heard, or was stopped.
    MarkReached(Mark),
    /// Everything queued has been heard to its end: nothing is left, neither a clip nor a mark nor an open
    /// [`Utterance`](crate::Utterance).
    ///
    /// It comes once each time the queue becomes empty, if there was any audio in it. It does not come when the last of it was
    /// stopped or cleared, nor each time that an utterance has nothing to play before it is ended. What a
    /// [`Player`](crate::Player) writes, and nothing says that more won't come, is taken for ended after a second.
    PlaybackDrained,
    /// A live source had nothing when its slot was due; silence went out.
    Underrun,
    /// No audio came for this stretch of the call's clock: the caller is muted or on hold, or the phone sends nothing
    /// where nobody speaks.
    ///
    /// It is told while it lasts, first 120 ms after the last audio came, 100 ms at a time for a second and then a
    /// second at a time; what waits unread is told as one. For the end of speech it counts as
    /// silence ([`VoiceDetector::push_silence`](sidetone_audio::vad::VoiceDetector::push_silence)). Should audio that was
    /// only late come after all, its place may lie in a stretch that was told.
    NoAudio {
        /// Where it begins on the call's clock.
        offset: Duration,
        /// How long it is.
        duration: Duration,
    },
    /// Audio was dropped here because this handler did not read it in time, or because it came many times faster than
    /// real time while its codec was not known.
    Lagged {
        /// How many frames.
        frames: u64,
    },
    /// What was found out about the caller's codec.
    Codec(CodecNotice),
    /// Trouble that does not end the call.
    Error(CallError),
    /// The call is over.
    Ended(EndReason),
}

impl Event<'_> {
    /// A copy that can be kept.
    pub fn to_owned(&self) -> OwnedEvent {
        match self {
            Self::Audio(frame) => OwnedEvent::Audio(frame.to_owned()),
            Self::Dtmf(digit) => OwnedEvent::Dtmf(*digit),
            Self::MarkReached(mark) => OwnedEvent::MarkReached(*mark),
            Self::PlaybackDrained => OwnedEvent::PlaybackDrained,
            Self::Underrun => OwnedEvent::Underrun,
            Self::NoAudio { offset, duration } => OwnedEvent::NoAudio {
                offset: *offset,
                duration: *duration,
            },
            Self::Lagged { frames } => OwnedEvent::Lagged { frames: *frames },
            Self::Codec(notice) => OwnedEvent::Codec(*notice),
            Self::Error(error) => OwnedEvent::Error(error.clone()),
            Self::Ended(reason) => OwnedEvent::Ended(*reason),
        }
    }
}

/// An [`Event`] whose audio, if any, is its own.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OwnedEvent {
    /// See [`Event::Audio`].
    Audio(OwnedFrame),
    /// See [`Event::Dtmf`].
    Dtmf(char),
    /// See [`Event::MarkReached`].
    MarkReached(Mark),
    /// See [`Event::PlaybackDrained`].
    PlaybackDrained,
    /// See [`Event::Underrun`].
    Underrun,
    /// See [`Event::NoAudio`].
    NoAudio {
        /// Where it begins on the call's clock.
        offset: Duration,
        /// How long it is.
        duration: Duration,
    },
    /// See [`Event::Lagged`].
    Lagged {
        /// How many frames.
        frames: u64,
    },
    /// See [`Event::Codec`].
    Codec(CodecNotice),
    /// See [`Event::Error`].
    Error(CallError),
    /// See [`Event::Ended`].
    Ended(EndReason),
}

/// Audio from the caller: linear samples, lent until the next event is asked for.
#[derive(Clone, Copy, PartialEq)]
pub struct Frame<'a> {
    pub(crate) samples: &'a [i16],
    pub(crate) rate: Rate,
    pub(crate) offset: Duration,
    pub(crate) arrived: Duration,
}

impl<'a> Frame<'a> {
    /// The samples: signed 16-bit, mono. Usually 20 ms of them, but any number can come.
    pub fn samples(&self) -> &'a [i16] {
        self.samples
    }

    /// Samples per second, by the name that Asterisk has for it; [`Rate::hz`] says the number.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The place of its first sample on the call's own clock, which begins with the UUID. Audio that was
    /// dropped, or pauses in which Asterisk sent none, are counted in.
    pub fn offset(&self) -> Duration {
        self.offset
    }

    /// When it came, as the time since the UUID did.
    pub fn arrived(&self) -> Duration {
        self.arrived
    }

    /// How long it is.
    pub fn duration(&self) -> Duration {
        self.rate.duration(self.samples.len() as u64)
    }

    /// A copy that can be kept.
    pub fn to_owned(&self) -> OwnedFrame {
        OwnedFrame {
            samples: self.samples.to_vec(),
            rate: self.rate,
            offset: self.offset,
            arrived: self.arrived,
        }
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("samples", &self.samples.len())
            .field("rate", &self.rate)
            .field("offset", &self.offset)
            .finish()
    }
}

/// A [`Frame`] that owns its samples.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OwnedFrame {
    /// The samples.
    pub samples: Vec<i16>,
    /// Samples per second.
    pub rate: Rate,
    /// Its place on the call's own clock.
    pub offset: Duration,
    /// When it came, as the time since the UUID did.
    pub arrived: Duration,
}

/// What comes in under kind `0x10`, which says 8 kHz samples but carries whatever codec a dialplan leaves
/// in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Linear samples, as `AudioSocket()` and `Dial(…/c(slin))` send them.
    #[default]
    Slin,
    /// µ-law, as `Dial(…/c(ulaw))` sends it.
    Ulaw,
    /// A-law, as `Dial(…/c(alaw))` sends it.
    Alaw,
    /// Found out from the first sound of each call.
    Auto,
}

/// What was found out about a caller's codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecNotice {
    /// Under [`Codec::Auto`]: this is what it is. Said once per call.
    Decided(Codec),
    /// The audio is not what the server was told to expect. It would be noise, so the application gets none of it.
    Mismatch {
        /// What the server was told.
        expected: Codec,
        /// About how many bytes a second came.
        bytes_per_second: u32,
    },
    /// Kind `0x10`, which says 8 kHz, carries another rate: Asterisk does so with `c(slin16)` and the like up to the
    /// releases that have kinds for them. Frames have their real rate; what goes out is 8 kHz.
    Wideband {
        /// The rate of what comes in.
        rate: Rate,
    },
    /// Under [`Codec::Auto`]: there is sound, and for 1.5 s it has not told what it is. Nothing of it is heard until it
    /// does. Said once per call.
    Undecided,
    /// Under [`Codec::Auto`]: it is compressed, which is not supported.
    Unsupported {
        /// About how many bytes a second came.
        bytes_per_second: u32,
    },
}

impl fmt::Display for CodecNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REMEDY: &str = "put c(slin) into Dial, like Dial(AudioSocket/HOST:PORT/UUID/c(slin))";
        match self {
            Self::Decided(codec) => write!(f, "the caller's audio is {codec}"),
            Self::Mismatch {
                expected,
                bytes_per_second,
            } => {
                write!(
                    f,
                    "the audio comes at {bytes_per_second} bytes a second, which is not {expected}, so nothing of it is heard: "
                )?;
                match expected {
                    Codec::Ulaw | Codec::Alaw => write!(
                        f,
                        "put c({expected}) into Dial, or start the server with the codec auto"
                    ),
                    Codec::Slin | Codec::Auto => {
                        write!(f, "{REMEDY}, or start the server with the codec auto")
                    }
                }
            }
            Self::Wideband { rate } => write!(
                f,
                "this Asterisk sends {} as if it were 8 kHz; it is heard at its {} Hz, and what is played stays 8 kHz: {REMEDY}, for only 20.17, 21.12, 22.7, 23.1 and later have messages for more",
                rate.name(),
                rate.hz()
            ),
            Self::Undecided => write!(
                f,
                "the caller is not heard so far, for the sound does not tell which codec it is: start the server with the codec that Dial has in c(…), or {REMEDY}"
            ),
            Self::Unsupported { bytes_per_second } => write!(
                f,
                "the audio comes at {bytes_per_second} bytes a second: compressed, not supported: {REMEDY}"
            ),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slin => "slin",
            Self::Ulaw => "ulaw",
            Self::Alaw => "alaw",
            Self::Auto => "auto",
        })
    }
}
