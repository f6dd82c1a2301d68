use std::{fmt, time::Duration};

use sidetone_proto::{EndReason, Rate, Time};

use crate::error::CallError;

/// A place in a call's playout queue, made by [`Player::mark`](crate::Player::mark). [`Event::MarkReached`] reports it.
/// A mark that is cleared is never reported.
///
/// Marks of one call are ordered as they were queued. Only a player makes them:
///
/// ```compile_fail
/// let forged = sidetone::Mark(1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub(crate) u64);

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
    /// It comes once each time the queue becomes empty after it held audio. It does not come when the last item was stopped or
    /// cleared, nor when an open utterance has nothing to play. The samples that a [`Player`](crate::Player) writes count as
    /// ended after a second without further ones, unless a mark or another item follows sooner.
    PlaybackDrained,
    /// A live source had nothing when its slot was due; silence went out.
    Underrun,
    /// No audio came for this part of the call's clock: the caller is muted or on hold, or the phone suppresses silence.
    ///
    /// It is reported while it lasts: first 120 ms after the last audio, every 100 ms for a second, and then every second.
    /// Unread reports are merged. To a voice detector it is silence
    /// ([`VoiceDetector::push_silence`](sidetone_audio::vad::VoiceDetector::push_silence)). Audio that was only late may
    /// still come, with a place in a part that was reported.
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
    /// An error that does not end the call.
    Error(CallError),
    /// The server is about to end the call: it is shutting down, or the call nears its longest duration.
    /// [`Call::closing`](crate::Call::closing) is the same for handlers that read no events.
    Closing(ClosingNotice),
    /// The call is over.
    Ended(EndReason),
}

impl Event<'_> {
    /// Copies the audio, if there is any, so that the event outlives the next call of [`Call::next`](crate::Call::next).
    pub fn into_owned(self) -> OwnedEvent {
        self.into()
    }
}

impl From<Event<'_>> for OwnedEvent {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Audio(frame) => Self::Audio(frame.into_owned()),
            Event::Dtmf(digit) => Self::Dtmf(digit),
            Event::MarkReached(mark) => Self::MarkReached(mark),
            Event::PlaybackDrained => Self::PlaybackDrained,
            Event::Underrun => Self::Underrun,
            Event::NoAudio { offset, duration } => Self::NoAudio { offset, duration },
            Event::Lagged { frames } => Self::Lagged { frames },
            Event::Codec(notice) => Self::Codec(notice),
            Event::Error(error) => Self::Error(error),
            Event::Closing(notice) => Self::Closing(notice),
            Event::Ended(reason) => Self::Ended(reason),
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
    /// See [`Event::Closing`].
    Closing(ClosingNotice),
    /// See [`Event::Ended`].
    Ended(EndReason),
}

/// Why this side is about to end a call, and when. Until then the call goes on as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClosingNotice {
    /// [`EndReason::Shutdown`] or [`EndReason::MaxDuration`].
    pub reason: EndReason,
    /// How long the call can still last, counted from when this was read.
    pub remaining: Duration,
}

impl ClosingNotice {
    pub(crate) fn new(reason: EndReason, at: Time, now: Time) -> Self {
        Self {
            reason,
            remaining: at - now,
        }
    }
}

/// Audio from the caller, lent until the next event is asked for: signed 16-bit samples, mono.
///
/// [`into_owned`](Self::into_owned) copies it.
#[derive(Clone, Copy, PartialEq)]
pub struct Frame<'a> {
    pub(crate) samples: &'a [i16],
    /// The last sample is the payload's last byte alone.
    pub(crate) is_odd: bool,
    pub(crate) rate: Rate,
    pub(crate) offset: Duration,
    pub(crate) arrived: Duration,
}

impl<'a> Frame<'a> {
    /// The samples. Asterisk usually sends 20 ms of them, but a frame can have any number.
    pub fn samples(&self) -> &'a [i16] {
        self.samples
    }

    /// How many bytes the message had, where the codec is [`Codec::Raw`]; else two for each sample.
    pub fn payload_len(&self) -> usize {
        2 * self.samples.len() - usize::from(self.is_odd)
    }

    /// Writes these bytes to `to`, as they came where the codec is [`Codec::Raw`], else the samples in little endian. If `to` is
    /// shorter than [`payload_len`](Self::payload_len), the first of them.
    ///
    /// ```
    /// use sidetone::Frame;
    ///
    /// fn payload(frame: &Frame<'_>) -> Vec<u8> {
    ///     let mut bytes = vec![0; frame.payload_len()];
    ///     frame.write_payload(&mut bytes);
    ///     bytes
    /// }
    /// ```
    pub fn write_payload(&self, to: &mut [u8]) {
        for (pair, sample) in to.chunks_mut(2).zip(self.samples) {
            pair.copy_from_slice(&sample.to_le_bytes()[..pair.len()]);
        }
    }

    /// The sample rate, by Asterisk's name; [`Rate::hz`] gives the number.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The place of the first sample on the call's clock, which starts with the UUID. Dropped audio and pauses in which
    /// Asterisk sent none count.
    pub fn offset(&self) -> Duration {
        self.offset
    }

    /// When the frame arrived, as the time since the UUID arrived.
    pub fn arrived(&self) -> Duration {
        self.arrived
    }

    /// How long the audio is.
    pub fn duration(&self) -> Duration {
        self.rate.duration(self.samples.len() as u64)
    }

    /// Copies the samples, so that the frame can be kept.
    pub fn into_owned(self) -> OwnedFrame {
        self.into()
    }
}

impl From<Frame<'_>> for OwnedFrame {
    fn from(frame: Frame<'_>) -> Self {
        Self {
            samples: frame.samples.to_vec(),
            rate: frame.rate,
            offset: frame.offset,
            arrived: frame.arrived,
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
pub struct OwnedFrame {
    pub(crate) samples: Vec<i16>,
    pub(crate) rate: Rate,
    pub(crate) offset: Duration,
    pub(crate) arrived: Duration,
}

impl OwnedFrame {
    /// The samples: signed 16-bit, mono.
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }

    /// The samples, without a copy.
    pub fn into_samples(self) -> Vec<i16> {
        self.samples
    }

    /// See [`Frame::rate`].
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// See [`Frame::offset`].
    pub fn offset(&self) -> Duration {
        self.offset
    }

    /// See [`Frame::arrived`]. For a server's frame of a [`Monitor`](crate::Monitor) it is when the frame left.
    pub fn arrived(&self) -> Duration {
        self.arrived
    }

    /// How long the audio is.
    pub fn duration(&self) -> Duration {
        self.rate.duration(self.samples.len() as u64)
    }
}

/// What comes in under kind `0x10`, which says 8 kHz samples but carries whatever codec a dialplan leaves
/// in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
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
    /// Whatever comes, and not decoded: for programs that know the codec themselves, or pass it on.
    /// [`Frame::write_payload`](crate::Frame::write_payload) has the bytes; samples, levels and recordings take them for linear
    /// samples, whatever they are.
    Raw,
}

/// What was found out about a caller's codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecNotice {
    /// Under [`Codec::Auto`]: the caller's codec. Reported once per call.
    Decided(Codec),
    /// The audio is not in the codec that was set. It would be noise, so the handler gets silence instead.
    Mismatch {
        /// The codec that was set.
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
    /// Under [`Codec::Auto`]: there has been sound for 1.5 s, and its codec is still unknown. The handler gets silence until
    /// it is known. Reported once per call.
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
                    Codec::Slin | Codec::Auto | Codec::Raw => {
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
            Self::Raw => "raw",
        })
    }
}
