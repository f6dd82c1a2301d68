//! What the messages of kind 0x10 hold: slin, µ-law, A-law, or something else.
//!
//! Asterisk sends every codec other than slin under this kind, and does not say which (measured on
//! Asterisk 22.10). 8 kHz slin is 16 kB/s, µ-law and A-law are 8 kB/s, but so is G.722, and other
//! codecs have other rates. [`Detector`] distinguishes them in two steps, which must agree:
//!
//! 1. the byte rate, from arrival times, never from the length of a message: 160 bytes are 20 ms of
//!    µ-law and 10 ms of slin;
//! 2. at 8 kB/s, how predictable the sound is under either law. Speech takes 2 to 6 bits per code
//!    under its own law and at least one more under the other. G.722 takes 8 under both.
//!
//! It stays undecided rather than be wrong: silence and plain tones fit both laws, white noise
//! above −40 dBFS nearly so, and bytes that arrive all at once have no rate. Of 52 920 decisions
//! over Asterisk's English prompts (unchanged, at −45 and −16 dBFS, after 5 s of silence, after
//! comfort noise; slin, both laws and G.722; frames of 10 to 60 ms; with bursts and gaps) none was
//! wrong and 0.3 % stayed undecided. Without bursts or gaps, each stream of slin, µ-law or A-law
//! was recognized within 200 ms of sound, half of them within 90 ms.
//!
//! Until the verdict a frame of 160 bytes costs about 75 000 instructions, some 8 to 12 µs.
//! Afterwards it costs nothing.
mod arrivals;
mod law_model;

use std::time::Duration;

pub use self::arrivals::RateMeter;
use self::arrivals::{ByteRate, nominal};
use self::law_model::Model;
use crate::g711::Law;

/// What a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not known yet. More sound may tell.
    Undecided,
    /// Linear samples at 8 kHz, 16 bits little-endian.
    Slin,
    /// G.711 µ-law.
    Ulaw,
    /// G.711 A-law.
    Alaw,
    /// Linear samples at a higher rate. Asterisk releases that have no kinds for higher rates send
    /// them under the kind of 8 kHz.
    Wideband {
        /// Samples per second.
        hz: u32,
    },
    /// A compressed codec other than G.711. `c(slin)` in the dialplan's `Dial` makes Asterisk send
    /// slin.
    Unsupported {
        /// About how many bytes it sends per second: 8000 is mostly G.722, 1000 G.729.
        bytes_per_second: u32,
    },
}

/// Detects the codec of one call from its payloads.
///
/// ```
/// use std::time::Duration;
/// use sidetone_audio::detect::{Detector, Verdict};
/// use sidetone_audio::{g711::Law, tone::caller_voice};
///
/// let voice = caller_voice(8000, Duration::from_secs(1), 1);
/// let mut codes = Vec::new();
/// Law::Alaw.encode(&voice, &mut codes);
///
/// let mut detector = Detector::new();
/// let mut at = Duration::ZERO;
/// for payload in codes.chunks(160) {
///     detector.push(at, payload);
///     at += Duration::from_millis(20);
/// }
/// assert_eq!(detector.verdict(), Verdict::Alaw);
/// ```
#[derive(Debug, Clone)]
pub struct Detector {
    arrivals: RateMeter,
    ulaw: Model,
    alaw: Model,
    linear: LinearModel,
    sound: SoundTimer,
    verdict: Verdict,
}

/// The least time, in seconds, over which a known rate has to be measured.
const KNOWN_RATE_AFTER: f64 = 0.1;
/// The same for any other rate, which a gap or sparse messages can imitate for longer.
const OTHER_RATE_AFTER: f64 = 0.5;
/// The least number of bursts for that.
const OTHER_RATE_BURSTS: usize = 20;
const COMPANDED_RATE: std::ops::Range<f64> = 6_400.0..9_800.0;
const SLIN_RATE: std::ops::Range<f64> = 12_800.0..19_600.0;
/// Above this a rate that was measured briefly may be that of 12 kHz.
const SLIN_AT_ONCE_BELOW: f64 = 18_000.0;

/// Codes of sound before a law is decided: 60 ms.
const LAW_AFTER: usize = 480;
/// Speech takes fewer bits per code under its own law.
const SPEECH_BELOW: f64 = 6.6;
/// By how many bits one law must beat the other. G.722 never leads by more than 0.4 where it is
/// below 7 at all.
const LEAD: f64 = 0.9;
/// Codes of sound before both laws are ruled out: 200 ms.
const NEITHER_AFTER: usize = 1600;
/// Speech and noise take fewer bits per code under their own law.
const NEITHER_ABOVE: f64 = 7.8;

/// How much of a burst is scored, in bytes, which bounds the cost of one event-loop iteration.
const MAX_SCORED_BURST: usize = 1600;
/// Bytes that are scored or skipped together: 10 ms of codes.
const CHUNK: usize = 80;

impl Detector {
    /// A detector without any input.
    pub fn new() -> Self {
        Self {
            arrivals: RateMeter::default(),
            ulaw: Model::new(Law::Ulaw),
            alaw: Model::new(Law::Alaw),
            linear: LinearModel::default(),
            sound: SoundTimer::default(),
            verdict: Verdict::Undecided,
        }
    }

    /// Takes the payload of one message that arrived at `at`, on any clock of the call, and returns
    /// the verdict. The first verdict other than [`Verdict::Undecided`] is final.
    pub fn push(&mut self, at: Duration, payload: &[u8]) -> Verdict {
        if self.verdict != Verdict::Undecided {
            return self.verdict;
        }
        if self.arrivals.push(at, payload.len()) <= MAX_SCORED_BURST {
            self.score(payload);
        }
        self.sound.push(at, payload);
        if let Some(rate) = self.arrivals.rate() {
            self.verdict = self.judge(rate);
        }
        self.verdict
    }

    /// The verdict so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// For how long, at `at`, there has been sound without a verdict. It counts from the start of
    /// the sound if at least half of the messages since then had sound. Silence and comfort noise
    /// do not count.
    pub fn sound_undecided(&self, at: Duration) -> Duration {
        match self.verdict {
            Verdict::Undecided => self.sound.duration(at),
            _ => Duration::ZERO,
        }
    }

    fn score(&mut self, payload: &[u8]) {
        for chunk in payload.chunks(CHUNK) {
            self.linear.score(chunk);
            if !is_uninformative(chunk) {
                self.ulaw.score(chunk);
                self.alaw.score(chunk);
            }
        }
    }

    fn judge(&self, rate: ByteRate) -> Verdict {
        let ByteRate {
            bytes_per_second,
            seconds,
            bursts,
        } = rate;
        let bits = [&self.ulaw, &self.alaw].map(Model::bits_per_code);
        let scored = self.ulaw.codes();
        let best = bits[0].min(bits[1]);
        let unsupported = |bytes_per_second| Verdict::Unsupported { bytes_per_second };
        if seconds < KNOWN_RATE_AFTER {
            Verdict::Undecided
        } else if SLIN_RATE.contains(&bytes_per_second) {
            // A burst of G.711 can imitate the rate, but only briefly.
            let is_linear = |linear| scored == 0 || linear < best;
            let is_stable = seconds > OTHER_RATE_AFTER && bursts > OTHER_RATE_BURSTS;
            let is_near = bytes_per_second < SLIN_AT_ONCE_BELOW;
            match is_stable || is_near && self.linear.bits_per_byte().is_some_and(is_linear) {
                true => Verdict::Slin,
                false => Verdict::Undecided,
            }
        } else if let Some(hz) = wideband_hz(nominal(bytes_per_second)) {
            // No other codec has such a rate, but a burst may, for a while.
            match seconds > OTHER_RATE_AFTER && bursts > OTHER_RATE_BURSTS {
                true => Verdict::Wideband { hz },
                false => Verdict::Undecided,
            }
        } else if COMPANDED_RATE.contains(&bytes_per_second) {
            let linear = self.linear.bits_per_byte().unwrap_or(8.0);
            if scored >= NEITHER_AFTER && best > NEITHER_ABOVE {
                unsupported(8_000)
            } else if scored < LAW_AFTER || best > SPEECH_BELOW.min(linear) {
                Verdict::Undecided
            } else if bits[0] + LEAD < bits[1] {
                Verdict::Ulaw
            } else if bits[1] + LEAD < bits[0] {
                Verdict::Alaw
            } else {
                Verdict::Undecided
            }
        } else if seconds > OTHER_RATE_AFTER
            && bursts > OTHER_RATE_BURSTS
            && scored >= LAW_AFTER
            && best > NEITHER_ABOVE
        {
            unsupported(nominal(bytes_per_second))
        } else {
            Verdict::Undecided
        }
    }
}

/// What headerless bytes are, if that is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    /// Not certain.
    Unknown,
    /// Linear samples of 16 bits, little-endian, at any rate.
    Slin,
    Ulaw,
    Alaw,
}

/// By how many bits one encoding must beat the others before a file is taken for misnamed.
const SURE_LEAD: f64 = 1.2;
/// Codes of either law never take fewer bits per byte as linear samples. Near silence, linear
/// samples may look like codes.
const CODES_ABOVE: f64 = 6.8;
/// How many codes or samples are scored before.
const SURE_AFTER: usize = 480;

/// The part of a file that is judged on its own, in bytes; even. Near silence linear samples may
/// look like codes, so loud parts have to outvote quiet ones.
const WINDOW: usize = 4000;
/// How many windows must agree for each that disagrees.
const AGREEING: usize = 5;

/// Guesses the encoding of a file by its sound alone, as there is no byte rate.
pub(crate) fn guess(bytes: &[u8]) -> Guess {
    let kinds = [Guess::Slin, Guess::Ulaw, Guess::Alaw];
    let mut votes = [0; 3];
    for window in bytes.chunks(WINDOW) {
        let guess = guess_window(window);
        if let Some(kind) = kinds.iter().position(|kind| *kind == guess) {
            votes[kind] += 1;
        }
    }
    let all: usize = votes.iter().sum();
    let is_it = |kind: &usize| votes[*kind] > 0 && (all - votes[*kind]) * AGREEING <= votes[*kind];
    (0..3)
        .find(is_it)
        .map_or(Guess::Unknown, |kind| kinds[kind])
}

fn guess_window(bytes: &[u8]) -> Guess {
    let mut detector = Detector::new();
    detector.score(bytes);
    let [ulaw, alaw] = [&detector.ulaw, &detector.alaw].map(Model::bits_per_code);
    let linear = detector.linear.bits_per_byte().unwrap_or(8.0);
    if detector.ulaw.codes() < SURE_AFTER {
        guess_of_repeated(bytes)
    } else if linear + SURE_LEAD < ulaw.min(alaw) {
        Guess::Slin
    } else if linear < CODES_ABOVE {
        Guess::Unknown
    } else if ulaw + SURE_LEAD < alaw.min(linear) && ulaw < SPEECH_BELOW {
        Guess::Ulaw
    } else if alaw + SURE_LEAD < ulaw.min(linear) && alaw < SPEECH_BELOW {
        Guess::Alaw
    } else {
        Guess::Unknown
    }
}

/// Of a periodic sound, such as a test tone, only linear samples can be told from codes: by the
/// steps between samples, relative to their size.
fn guess_of_repeated(bytes: &[u8]) -> Guess {
    let (pairs, _) = bytes.as_chunks();
    let steps_as = |law: Law| steps(bytes.iter().map(|code| law.decode_byte(*code)));
    let linear = steps(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
    let is_linear = bytes.len() >= 2 * SURE_AFTER && linear > 0.0 && linear < 0.9;
    // A high tone has larger steps than noise.
    let is_noise = |law| (1.1..1.7).contains(&steps_as(law));
    match is_linear && is_noise(Law::Ulaw) && is_noise(Law::Alaw) {
        true => Guess::Slin,
        false => Guess::Unknown,
    }
}

/// The mean step between samples over the mean sample: below 1 for a tone up to a sixth of its
/// rate, and 1.4 for noise.
fn steps(samples: impl Iterator<Item = i16>) -> f64 {
    let (mut step, mut size, mut last) = (0, 0, 0);
    for sample in samples {
        step += u64::from(sample.abs_diff(last));
        size += u64::from(sample.unsigned_abs());
        last = sample;
    }
    step as f64 / size.max(1) as f64
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

/// Asterisk's sample rates beyond 8 kHz.
const WIDEBAND: [u32; 8] = [
    12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000,
];

/// The rate of linear samples beyond 8 kHz that have this byte rate: the nearest one, if it is
/// within a seventh.
///
/// ```
/// use sidetone_audio::detect::wideband_hz;
///
/// assert_eq!(wideband_hz(31_500), Some(16_000));
/// assert_eq!(wideband_hz(16_000), None, "8 kHz");
/// assert_eq!(wideband_hz(20_000), None);
/// ```
pub fn wideband_hz(bytes_per_second: u32) -> Option<u32> {
    let off = |hz: u32| (hz * 2).abs_diff(bytes_per_second) as f64 / f64::from(hz * 2);
    let nearest = WIDEBAND
        .into_iter()
        .min_by(|a, b| off(*a).total_cmp(&off(*b)))?;
    (off(nearest) < 1.0 / 7.0).then_some(nearest)
}

/// How long there has been sound of any kind.
#[derive(Debug, Clone, Default)]
struct SoundTimer {
    began: Option<Duration>,
    latest: Duration,
    /// Messages since it began, and how many of them had sound.
    messages: u32,
    loud: u32,
}

/// The mean sample above which a message has sound, about −44 dBFS. Comfort noise is below.
const LOUD: u32 = 200;
/// After a longer pause, sound starts anew.
const PAUSE: Duration = Duration::from_secs(2);

impl SoundTimer {
    fn push(&mut self, at: Duration, payload: &[u8]) {
        if at.saturating_sub(self.latest) > PAUSE {
            *self = Self::default();
        }
        let is_loud = is_loud(payload);
        if is_loud {
            self.began.get_or_insert(at);
            self.latest = at;
        }
        if self.began.is_some() {
            self.messages += 1;
            self.loud += u32::from(is_loud);
        }
    }

    fn duration(&self, at: Duration) -> Duration {
        match self.began {
            Some(began) if self.loud * 2 >= self.messages => at.saturating_sub(began),
            _ => Duration::ZERO,
        }
    }
}

/// Whether there is sound under both laws: the idle codes of one are sound under the other.
fn is_loud(codes: &[u8]) -> bool {
    [Law::Ulaw, Law::Alaw].into_iter().all(|law| {
        let level = |code: &u8| u32::from(law.decode_byte(*code).unsigned_abs());
        let sum: u32 = codes.iter().map(level).sum();
        codes.len() as u32 * LOUD < sum
    })
}

/// Whether these bytes are a law's idle codes, or periodic as a 1 kHz test tone is. What is
/// periodic is predictable under any law.
fn is_uninformative(bytes: &[u8]) -> bool {
    let idle = |code: u8| bytes.iter().all(|byte| byte & 0x7F == code);
    let repeats = |period: usize| bytes[period..] == bytes[..bytes.len() - period];
    idle(0x7F) || idle(0x55) || (1..=bytes.len() / 2).any(repeats)
}

/// How well the bytes fit linear samples.
#[derive(Debug, Clone, Default)]
struct LinearModel {
    last: i16,
    samples: u32,
    /// The sum of the differences between adjacent samples.
    sum: u64,
}

impl LinearModel {
    fn score(&mut self, bytes: &[u8]) {
        // A constant byte is silence under some law. Zeros are silence as linear samples, and only
        // as these.
        if bytes.iter().all(|&byte| byte == bytes[0] && byte != 0) {
            return;
        }
        let (pairs, _) = bytes.as_chunks();
        for &pair in pairs {
            let sample = i16::from_le_bytes(pair);
            self.sum += u64::from(sample.abs_diff(self.last));
            self.last = sample;
        }
        self.samples += pairs.len() as u32;
    }

    /// The counterpart of [`Model::bits_per_code`], from the size of the differences. `None` before
    /// 20 ms were scored.
    fn bits_per_byte(&self) -> Option<f64> {
        let mean = self.sum as f64 / f64::from(self.samples);
        (self.samples >= 160).then(|| (1.0 + 2.0 * std::f64::consts::E * mean).log2() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: u32, amplitude: f64, phase: f64) -> Vec<i16> {
        let step = f64::from(hertz) * std::f64::consts::TAU / 8000.0;
        (0..8000)
            .map(|n| ((f64::from(n) * step + phase).sin() * amplitude) as i16)
            .collect()
    }

    #[test]
    fn no_tone_is_taken_for_another_encoding() {
        let mut known = 0;
        for hertz in (50..4000).step_by(50) {
            for (amplitude, phase) in [
                (50.0, 0.1),
                (1000.0, 0.0),
                (8000.0, 0.7),
                (16_000.0, 0.0),
                (32_000.0, 0.3),
            ] {
                let sound = tone(hertz, amplitude, phase);
                let bytes: Vec<u8> = sound.iter().flat_map(|s| s.to_le_bytes()).collect();
                let at = format!("{hertz} Hz of {amplitude}");
                let as_linear = guess(&bytes);
                assert!(
                    [Guess::Slin, Guess::Unknown].contains(&as_linear),
                    "{at}: {as_linear:?}"
                );
                known += usize::from(as_linear == Guess::Slin);
                for (law, right) in [(Law::Ulaw, Guess::Ulaw), (Law::Alaw, Guess::Alaw)] {
                    let mut codes = Vec::new();
                    law.encode(&sound, &mut codes);
                    let guess = guess(&codes);
                    assert!(
                        [right, Guess::Unknown].contains(&guess),
                        "{at}, {law:?}: {guess:?}"
                    );
                }
            }
        }
        assert!(known > 100, "{known}");
    }
}
