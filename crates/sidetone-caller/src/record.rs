use {
    crate::{Caller, Codec, Ended, codec::decode_linear},
    sidetone_proto::{AudioPayload, Rate},
    std::time::Duration,
    uuid::Uuid,
};

/// A call as its caller lived through it. All times count from the moment the UUID was sent.
///
/// Of a call with [`counts_only`](Caller::counts_only) only `counts` and the head are there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallRecord {
    /// Which call.
    pub uuid: Uuid,
    /// What its audio was made of.
    pub codec: Codec,
    /// How long its frames were.
    pub ptime: Duration,
    /// How it ended.
    pub ended: Ended,
    /// Every message of audio that came, in order.
    pub heard: Vec<Heard>,
    /// Every frame that was sent, in order.
    pub sent: Vec<Sent>,
    /// Every digit that was sent.
    pub digits: Vec<SentDigit>,
    /// What is counted whether or not the rest is kept.
    pub counts: Counts,
    heard_samples: Vec<i16>,
    sent_samples: Vec<i16>,
}

/// A message of audio that came.
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

/// What is counted of every call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Messages of audio that came.
    pub frames_heard: u64,
    /// Bytes of payload in them.
    pub bytes_heard: u64,
    /// Messages that were not there whole when they were looked at. Asterisk forgives the quick ones among
    /// them, but a server that writes each message at once causes none on loopback.
    pub in_pieces: u64,
    /// Frames that were sent.
    pub frames_sent: u64,
    /// Digits that were sent.
    pub digits_sent: u64,
    /// When the first audio came.
    pub first_audio_at: Option<Duration>,
    /// The longest time between two messages of audio.
    pub longest_gap: Duration,
}

impl Heard {
    /// Samples in it, taken for linear ones as Asterisk takes them.
    pub const fn samples(&self) -> usize {
        self.bytes as usize / 2
    }

    /// How long it sounds.
    pub const fn duration(&self) -> Duration {
        self.rate.duration(self.samples() as u64)
    }
}

impl CallRecord {
    /// All samples that were heard, end to end. Where messages of several rates came,
    /// [`frames`](Self::frames) tells them apart.
    pub fn heard_samples(&self) -> &[i16] {
        &self.heard_samples
    }

    /// All samples that were sent, end to end, as the far end of the codec has them.
    pub fn sent_samples(&self) -> &[i16] {
        &self.sent_samples
    }

    /// Every message of audio that came, with its samples.
    pub fn frames(&self) -> impl Iterator<Item = (Heard, &[i16])> {
        let mut rest = self.heard_samples();
        self.heard.iter().map(move |heard| {
            let (samples, behind) = rest.split_at(heard.samples());
            rest = behind;
            (*heard, samples)
        })
    }

    /// When the first audio came.
    pub fn first_audio_at(&self) -> Option<Duration> {
        self.counts.first_audio_at
    }
}

/// Writes the record of a call while it runs.
#[derive(Debug)]
pub(crate) struct Recorder {
    record: CallRecord,
    keeps: bool,
    /// Samples of the frame that is being sent.
    speaking: usize,
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
                    why: crate::Why::HungUp,
                },
                heard: Vec::new(),
                sent: Vec::new(),
                digits: Vec::new(),
                counts: Counts::default(),
                heard_samples: Vec::new(),
                sent_samples: Vec::new(),
            },
            keeps: caller.records,
            speaking: 0,
            last_heard: None,
        }
    }

    /// Takes note of audio that came, and lends its samples.
    pub(crate) fn heard(&mut self, at: Duration, audio: AudioPayload<'_>) -> &[i16] {
        let record = &mut self.record;
        let counts = &mut record.counts;
        counts.frames_heard += 1;
        counts.bytes_heard += audio.bytes.len() as u64;
        counts.first_audio_at.get_or_insert(at);
        if let Some(last) = self.last_heard.replace(at) {
            counts.longest_gap = counts.longest_gap.max(at - last);
        }
        if self.keeps {
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

    /// A message is not there whole.
    pub(crate) fn in_pieces(&mut self) {
        self.record.counts.in_pieces += 1;
    }

    /// This payload is about to be sent.
    pub(crate) fn speaking(&mut self, payload: &[u8]) {
        let samples = &mut self.record.sent_samples;
        if !self.keeps {
            samples.clear();
        }
        let from = samples.len();
        self.record.codec.decode(payload, samples);
        self.speaking = samples.len() - from;
    }

    /// It was sent: lends its samples.
    pub(crate) fn said(&mut self, at: Duration) -> &[i16] {
        self.record.counts.frames_sent += 1;
        let samples = std::mem::take(&mut self.speaking);
        if self.keeps {
            self.record.sent.push(Sent { at, samples });
        }
        let all = &self.record.sent_samples;
        &all[all.len() - samples..]
    }

    pub(crate) fn pressed(&mut self, at: Duration, digit: char) {
        self.record.counts.digits_sent += 1;
        if self.keeps {
            self.record.digits.push(SentDigit { at, digit });
        }
    }

    pub(crate) fn finish(mut self, ended: Ended) -> CallRecord {
        if !self.keeps {
            self.record.heard_samples = Vec::new();
            self.record.sent_samples = Vec::new();
            self.speaking = 0;
        }
        // A frame that the socket did not take whole was never said.
        let said = self.record.sent_samples.len() - self.speaking;
        self.record.sent_samples.truncate(said);
        self.record.ended = ended;
        self.record
    }
}
