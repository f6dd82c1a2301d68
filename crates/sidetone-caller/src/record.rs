use std::time::Duration;

use sidetone_proto::{AudioPayload, Rate};
use uuid::Uuid;

use crate::{Caller, Codec, Ended, codec::decode_linear};

/// The record of a call, from the caller's side. All times count from the sending of the UUID.
///
/// With [`counts_only`](Caller::counts_only), `heard`, `sent`, `digits` and the samples are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallRecord {
    /// The call's UUID.
    pub uuid: Uuid,
    /// The codec of the caller's audio.
    pub codec: Codec,
    /// The duration of the caller's frames.
    pub ptime: Duration,
    /// How it ended.
    pub ended: Ended,
    /// Every message of audio that was received, in order.
    pub heard: Vec<Heard>,
    /// Every frame that was sent, in order.
    pub sent: Vec<Sent>,
    /// Every digit that was sent.
    pub digits: Vec<SentDigit>,
    /// The counts, which every record has.
    pub counts: Counts,
    heard_samples: Vec<i16>,
    sent_samples: Vec<i16>,
}

/// A message of audio that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When it was read.
    pub at: Duration,
    /// The rate that its kind names.
    pub rate: Rate,
    /// Bytes of payload.
    pub bytes: u16,
}

/// A frame that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When it was written.
    pub at: Duration,
    /// Samples in it.
    pub samples: usize,
}

/// A digit that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentDigit {
    /// When it was written.
    pub at: Duration,
    /// `0-9`, `*`, `#` or `A-D`.
    pub digit: char,
}

/// The counts of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Messages of audio that were received.
    pub frames_heard: u64,
    /// Bytes of payload in them.
    pub bytes_heard: u64,
    /// Messages that had come in part only when the caller read the socket. Asterisk accepts those whose rest comes quickly,
    /// but a server that writes each message at once causes none on loopback.
    pub in_pieces: u64,
    /// Frames that were sent.
    pub frames_sent: u64,
    /// Digits that were sent.
    pub digits_sent: u64,
    /// When the first audio was received.
    pub first_audio_at: Option<Duration>,
    /// The longest time between two messages of audio.
    pub longest_gap: Duration,
}

impl Heard {
    /// How many samples it has. Asterisk takes every payload for linear samples.
    pub const fn samples(&self) -> usize {
        self.bytes as usize / 2
    }

    /// How long it plays.
    pub const fn duration(&self) -> Duration {
        self.rate.duration(self.samples() as u64)
    }
}

impl CallRecord {
    /// All samples that were heard, one message after another. [`frames`](Self::frames) tells the rate of each message.
    pub fn heard_samples(&self) -> &[i16] {
        &self.heard_samples
    }

    /// All samples that were sent, one frame after another, as the codec decodes them.
    pub fn sent_samples(&self) -> &[i16] {
        &self.sent_samples
    }

    /// Every message of audio that was received, with its samples.
    pub fn frames(&self) -> impl Iterator<Item = (Heard, &[i16])> {
        let mut rest = self.heard_samples();
        self.heard.iter().map(move |heard| {
            let (samples, behind) = rest.split_at(heard.samples());
            rest = behind;
            (*heard, samples)
        })
    }

    /// When the first audio was received.
    pub fn first_audio_at(&self) -> Option<Duration> {
        self.counts.first_audio_at
    }
}

/// Makes the record of a call while it runs.
#[derive(Debug)]
pub(crate) struct Recorder {
    record: CallRecord,
    keeps_frames: bool,
    /// Samples of the frame that is being sent.
    sending: usize,
    last_heard: Option<Duration>,
}

impl Recorder {
    pub(crate) fn new(caller: &Caller) -> Self {
        Self {
            record: CallRecord {
                uuid: caller.uuid,
                codec: caller.codec,
                ptime: caller.ptime,
                ended: Ended {
                    at: Duration::ZERO,
                    cause: crate::EndCause::HungUp,
                },
                heard: Vec::new(),
                sent: Vec::new(),
                digits: Vec::new(),
                counts: Counts::default(),
                heard_samples: Vec::new(),
                sent_samples: Vec::new(),
            },
            keeps_frames: caller.keeps_frames,
            sending: 0,
            last_heard: None,
        }
    }

    /// Records a message of audio and returns its samples.
    pub(crate) fn frame_received(&mut self, at: Duration, audio: AudioPayload<'_>) -> &[i16] {
        let record = &mut self.record;
        let counts = &mut record.counts;
        counts.frames_heard += 1;
        counts.bytes_heard += audio.bytes.len() as u64;
        counts.first_audio_at.get_or_insert(at);
        if let Some(last) = self.last_heard.replace(at) {
            counts.longest_gap = counts.longest_gap.max(at - last);
        }
        if self.keeps_frames {
            record.heard.push(Heard {
                at,
                rate: audio.rate,
                bytes: audio.bytes.len() as u16,
            });
        } else {
            record.heard_samples.clear();
        }
        let from = record.heard_samples.len();
        decode_linear(audio.bytes, &mut record.heard_samples);
        &record.heard_samples[from..]
    }

    /// Counts a message that has come in part only.
    pub(crate) fn message_in_pieces(&mut self) {
        self.record.counts.in_pieces += 1;
    }

    /// Records the payload that is sent next.
    pub(crate) fn frame_encoded(&mut self, payload: &[u8]) {
        let samples = &mut self.record.sent_samples;
        if !self.keeps_frames {
            samples.clear();
        }
        let from = samples.len();
        self.record.codec.decode(payload, samples);
        self.sending = samples.len() - from;
    }

    /// Records that the frame was sent, and returns its samples.
    pub(crate) fn frame_sent(&mut self, at: Duration) -> &[i16] {
        self.record.counts.frames_sent += 1;
        let samples = std::mem::take(&mut self.sending);
        if self.keeps_frames {
            self.record.sent.push(Sent { at, samples });
        }
        let all = &self.record.sent_samples;
        &all[all.len() - samples..]
    }

    pub(crate) fn digit_sent(&mut self, at: Duration, digit: char) {
        self.record.counts.digits_sent += 1;
        if self.keeps_frames {
            self.record.digits.push(SentDigit { at, digit });
        }
    }

    pub(crate) fn finish(mut self, ended: Ended) -> CallRecord {
        if !self.keeps_frames {
            self.record.heard_samples = Vec::new();
            self.record.sent_samples = Vec::new();
            self.sending = 0;
        }
        // A frame that the socket did not take whole was not sent.
        let sent = self.record.sent_samples.len() - self.sending;
        self.record.sent_samples.truncate(sent);
        self.record.ended = ended;
        self.record
    }
}
