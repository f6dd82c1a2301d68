use sidetone_audio::resample::Resampler;
use sidetone_proto::Rate;

/// Audio that comes this much later than the audio before it ended is looked at twice: time may be missing,
/// or it may only be late. The usual jitter of Asterisk stays below half of it.
const GAP_MS: u64 = 30;

/// For so long after a gap audio is held back, to see whether the missing time comes as well: a backlog
/// comes at once.
const GAP_DECISION_MS: u64 = 100;

/// A gap is filled when at least so much of it is left at the end of the doubt; less than a frame is jitter.
const MIN_FILL_MS: u64 = 20;

/// Late audio still finds its place if it is this late, and audio that comes faster than real time is kept
/// up to here.
const MAX_LATENESS_MS: u64 = 5_000;

/// A track is corrected when it is off by this much: once a minute at 200 ppm. The slot schedule may move by nearly
/// as much when a call begins, which is nothing to correct.
const TOLERANCE_MS: u64 = 12;

/// How far a track is off is the least lateness of any piece in this time: jitter only ever adds to it.
const WINDOW_MS: u64 = 1_000;

/// Nobody hears a correction in audio below this, −54 dBFS.
const INAUDIBLE: u16 = 64;

/// In audio that can be heard, one sample in so many milliseconds is repeated or left out.
const CORRECT_EVERY_MS: u64 = 20;

/// One side of a recording, placed sample by sample on the recording's clock.
///
/// All places are counted in samples of the file's rate since the beginning of the recording.
#[derive(Debug)]
pub(super) struct Track {
    hz: u32,
    /// What has been placed and is still needed, from `begin` on, without gaps.
    samples: Vec<i16>,
    begin: u64,
    /// The first audio placed since somebody asked.
    modified: Option<u64>,
    /// Anything came yet.
    started: bool,
    undecided: Option<UndecidedGap>,
    window: Option<Window>,
    /// Samples to insert, or, below zero, to leave out.
    correction: i64,
    converter: Option<(Rate, Resampler)>,
    converted: Vec<i16>,
    counts: Counts,
}

/// What has been done to one track, in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Silence in place of time in which nothing came.
    pub(super) missing: u64,
    /// Inserted against drift.
    pub(super) added: u64,
    /// Left out against drift.
    pub(super) removed: u64,
    /// Came so much faster than real time that there was no place for it.
    pub(super) discarded: u64,
}

/// Audio behind a gap, held back until it is clear how much of the gap it fills.
#[derive(Debug)]
struct UndecidedGap {
    since: u64,
    samples: Vec<i16>,
    /// Where the first of them belongs if the earliest of the pieces is on time.
    start: i64,
}

/// The least lateness in a stretch of pieces.
#[derive(Debug)]
struct Window {
    end: u64,
    least: i64,
}

impl Track {
    pub(super) fn new(hz: u32) -> Self {
        Self {
            hz,
            samples: Vec::new(),
            begin: 0,
            modified: None,
            started: false,
            undecided: None,
            window: None,
            correction: 0,
            converter: None,
            converted: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Takes a piece that came at `place`.
    pub(super) fn put(&mut self, place: u64, rate: Rate, samples: &[i16]) {
        self.update(place);
        let converted = std::mem::take(&mut self.converted);
        let mut converted = self.convert(rate, samples, converted);
        let piece = if rate.hz() == self.hz {
            samples
        } else {
            converted.as_slice()
        };
        self.place(place, piece);
        converted.clear();
        self.converted = converted;
    }

    /// The time is `now`: decides what can be decided.
    pub(super) fn update(&mut self, now: u64) {
        if let Some(undecided) = &self.undecided
            && now >= undecided.since + self.ms(GAP_DECISION_MS)
        {
            self.resolve_gap();
        }
        // Audio that is later than this is not waited for.
        let expired = now.saturating_sub(self.ms(MAX_LATENESS_MS));
        if self.undecided.is_none() {
            self.extend_to(expired);
        }
    }

    /// The end of the recording: nothing more is waited for.
    pub(super) fn resolve_gap(&mut self) {
        let Some(undecided) = self.undecided.take() else {
            return;
        };
        let gap = u64::try_from(undecided.start)
            .unwrap_or(0)
            .saturating_sub(self.end());
        if gap >= self.ms(MIN_FILL_MS) || !self.started {
            self.fill(gap);
            // The two sides begin up to a frame apart, and nothing is missing then.
            if self.started || gap >= self.ms(GAP_MS) {
                self.counts.missing += gap;
            }
        }
        self.started = true;
        self.window = None;
        self.correction = 0;
        self.append(&undecided.samples);
    }

    /// Makes the track at least so long, with silence that counts as missing.
    pub(super) fn extend_to(&mut self, end: u64) {
        let missing = end.saturating_sub(self.end());
        self.fill(missing);
        self.counts.missing += missing;
    }

    /// The place behind the last sample.
    pub(super) fn end(&self) -> u64 {
        self.begin + self.samples.len() as u64
    }

    /// Puts what has been placed from `first` on into `slots`, as far as it goes.
    pub(super) fn copy<'a>(&self, first: u64, slots: impl Iterator<Item = &'a mut i16>) {
        let skipped = first.saturating_sub(self.begin) as usize;
        let samples = self.samples.get(skipped..).unwrap_or_default();
        for (slot, sample) in slots.zip(samples) {
            *slot = *sample;
        }
    }

    /// Forgets what lies before `place`.
    pub(super) fn discard_before(&mut self, place: u64) {
        let length = place.saturating_sub(self.begin) as usize;
        let length = length.min(self.samples.len());
        self.samples.drain(..length);
        self.begin += length as u64;
        // What a long gap on the other side has taken is given back.
        let second = self.hz as usize;
        if self.samples.len() < second {
            self.samples.shrink_to(second);
        }
    }

    /// The first place at which audio was put since the last time.
    pub(super) fn take_modified(&mut self) -> Option<u64> {
        self.modified.take()
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    #[cfg(test)]
    pub(super) fn samples_held(&self) -> usize {
        self.samples.len()
    }

    fn place(&mut self, place: u64, piece: &[i16]) {
        let (end, max_lateness) = (self.end() as i64, self.ms(MAX_LATENESS_MS) as i64);
        if let Some(undecided) = &mut self.undecided {
            let start = undecided
                .start
                .min(place as i64 - undecided.samples.len() as i64);
            if end - start > max_lateness {
                self.counts.discarded += piece.len() as u64;
            } else {
                undecided.start = start;
                undecided.samples.extend_from_slice(piece);
            }
            return;
        }
        let late = place as i64 - end;
        if !self.started || late >= self.ms(GAP_MS) as i64 {
            self.undecided = Some(UndecidedGap {
                since: place,
                samples: piece.to_vec(),
                start: place as i64,
            });
        } else if -late > max_lateness {
            self.counts.discarded += piece.len() as u64;
        } else {
            self.measure(place, late);
            self.append_corrected(piece);
        }
    }

    fn measure(&mut self, place: u64, late: i64) {
        if self.correction != 0 {
            return;
        }
        let end = place + self.ms(WINDOW_MS);
        let window = self.window.get_or_insert(Window { end, least: late });
        window.least = window.least.min(late);
        if place >= window.end {
            if window.least.unsigned_abs() >= self.hz as u64 * TOLERANCE_MS / 1_000 {
                self.correction = window.least;
            }
            self.window = None;
        }
    }

    fn append_corrected(&mut self, piece: &[i16]) {
        if self.correction == 0 {
            return self.append(piece);
        }
        if piece
            .iter()
            .all(|sample| sample.unsigned_abs() <= INAUDIBLE)
        {
            if self.correction > 0 {
                self.append(piece);
                let added = std::mem::take(&mut self.correction) as u64;
                self.fill(added);
                self.counts.added += added;
            } else {
                let removed = self.correction.unsigned_abs().min(piece.len() as u64);
                self.append(&piece[removed as usize..]);
                self.correction += removed as i64;
                self.counts.removed += removed;
            }
            return;
        }
        for part in piece.chunks(self.ms(CORRECT_EVERY_MS) as usize) {
            let (before, behind) = part.split_at(least_audible_cut(part));
            match self.correction.signum() {
                1 => {
                    self.append(before);
                    self.append(&behind[..1]);
                    self.append(behind);
                    self.counts.added += 1;
                }
                -1 => {
                    self.append(before);
                    self.append(&behind[1..]);
                    self.counts.removed += 1;
                }
                _ => self.append(part),
            }
            self.correction -= self.correction.signum();
        }
    }

    fn append(&mut self, samples: &[i16]) {
        if !samples.is_empty() {
            self.modified.get_or_insert(self.end());
        }
        self.samples.extend_from_slice(samples);
    }

    fn fill(&mut self, silence: u64) {
        self.samples
            .resize(self.samples.len() + silence as usize, 0);
    }

    /// Appends `samples` at the file's rate to `out`, if theirs is another.
    fn convert(&mut self, rate: Rate, samples: &[i16], mut out: Vec<i16>) -> Vec<i16> {
        if rate.hz() == self.hz {
            return out;
        }
        if self
            .converter
            .as_ref()
            .is_none_or(|(from, _)| *from != rate)
        {
            // All nine rates can be resampled.
            self.converter = Resampler::new(rate.hz(), self.hz)
                .ok()
                .map(|converter| (rate, converter));
        }
        if let Some((_, converter)) = &mut self.converter {
            converter.process(samples, &mut out);
        }
        out
    }

    fn ms(&self, milliseconds: u64) -> u64 {
        u64::from(self.hz) * milliseconds / 1_000
    }
}

/// Where one sample more or less is heard least: the second of the two neighbours that differ least.
fn least_audible_cut(samples: &[i16]) -> usize {
    let differences = samples.windows(2).map(|pair| pair[0].abs_diff(pair[1]));
    let least = differences.enumerate().min_by_key(|(_, by)| *by);
    least.map_or(0, |(index, _)| index + 1)
}
