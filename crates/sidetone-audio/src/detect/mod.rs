//! What is in the messages of kind 0x10: slin, µ-law, A-law, or something else.
//!
//! Asterisk sends every codec that is not slin under this kind, without a word about which
//! (measured on Asterisk 22.10): 8 kHz slin is 16 kB/s, µ-law and A-law are 8 kB/s, but so is G.722,
//! and others have rates of their own. [`Detector`] tells them apart in two steps, and both must agree:
//!
//! 1. the byte rate over the time the bytes came in, never the length of a message: 160 bytes are
//!    20 ms of µ-law, and 10 ms of slin;
//! 2. at 8 kB/s, how predictable the sound is under either law. Speech needs 2 to 6 bits a code under
//!    its own law, at least one more under the other, and G.722 needs 8 under both.
//!
//! It would rather stay undecided than be wrong: silence and plain tones say nothing, white noise above
//! −40 dBFS too little, and bytes that all come at once have no rate. In 52 920 decisions over
//! Asterisk's English prompts (as they are, at −45 and −16 dBFS, after 5 s of silence, after comfort
//! noise; slin, both laws and G.722; frames of 10 to 60 ms; with bursts and gaps) none was wrong, 0.3 %
//! stayed undecided, and without bursts or gaps each stream of slin, µ-law or A-law was known after
//! at most 200 ms of sound, half of them after 90 ms.
//!
//! Listening costs about 75 000 instructions, some 8 to 12 µs, for a frame of 160 bytes until the verdict, and
//! nothing afterwards.
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
    /// Not known yet; more sound may tell.
    Undecided,
    /// LinearModel samples at 8 kHz, 16 bits little-endian.
    Slin,
    /// G.711 µ-law.
    Ulaw,
    /// G.711 A-law.
    Alaw,
    /// LinearModel samples of a higher rate, which Asterisk sends under the kind of 8 kHz up to the releases that have kinds
    /// for more.
    Wideband {
        /// Samples a second.
        hz: u32,
    },
    /// A compressed codec that is neither; `c(slin)` in the dialplan's `Dial` mends it.
    Unsupported {
        /// About how many bytes it sends a second: 8000 is mostly G.722, 1000 G.729.
        bytes_per_second: u32,
    },
}

/// Listens to the payloads of one call until it knows what they are.
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

/// The shortest time of arrivals that a known rate is believed after, in seconds.
const KNOWN_RATE_AFTER: f64 = 0.1;
/// The same for a rate that is nobody's, which a gap or a trickle can feign for longer.
const OTHER_RATE_AFTER: f64 = 0.5;
/// And in so many bursts of bytes.
const OTHER_RATE_BURSTS: usize = 20;
const COMPANDED_RATE: std::ops::Range<f64> = 6_400.0..9_800.0;
const SLIN_RATE: std::ops::Range<f64> = 12_800.0..19_600.0;
/// Of a rate that has not lasted: above it, it may be that of 12 kHz.
const SLIN_AT_ONCE_BELOW: f64 = 18_000.0;

/// Codes of sound before a law is decided upon: 60 ms.
const LAW_AFTER: usize = 480;
/// Speech under its own law takes less, in bits per code.
const SPEECH_BELOW: f64 = 6.6;
/// By so much one law must beat the other. G.722 never comes beyond 0.4, where it is below 7 at all.
const LEAD: f64 = 0.9;
/// Codes of sound before it is said to be none of the laws: 200 ms.
const NEITHER_AFTER: usize = 1600;
/// No speech or noise under its own law takes as much.
const NEITHER_ABOVE: f64 = 7.8;

/// Bytes that came at once are listened to up to here: what comes late in a burst need not be
/// understood in one turn.
const MAX_SCORED_BURST: usize = 1600;
/// Bytes that are listened to or passed over as one, 10 ms of codes.
const CHUNK: usize = 80;

impl Detector {
    /// A detector that has heard nothing.
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

    /// Takes the payload of one message and the time it came, on any clock of the call's. The first
    /// verdict that is not [`Verdict::Undecided`] is the last.
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

    /// What is known so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// For how long, at `at`, sound has come that tells nothing: from its beginning, if at least half of what came since
    /// was sound. Silence and comfort noise are none.
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
        let heard = self.ulaw.codes();
        let best = bits[0].min(bits[1]);
        let unsupported = |bytes_per_second| Verdict::Unsupported { bytes_per_second };
        if seconds < KNOWN_RATE_AFTER {
            Verdict::Undecided
        } else if SLIN_RATE.contains(&bytes_per_second) {
            // A burst of G.711 can feign the rate, but not for long.
            let is_linear = |linear| heard == 0 || linear < best;
            let is_lasting = seconds > OTHER_RATE_AFTER && bursts > OTHER_RATE_BURSTS;
            let is_near = bytes_per_second < SLIN_AT_ONCE_BELOW;
            match is_lasting || is_near && self.linear.bits_per_byte().is_some_and(is_linear) {
                true => Verdict::Slin,
                false => Verdict::Undecided,
            }
        } else if let Some(hz) = wideband_hz(nominal(bytes_per_second)) {
            // Nothing else comes at so many, but a burst does, for a while.
            match seconds > OTHER_RATE_AFTER && bursts > OTHER_RATE_BURSTS {
                true => Verdict::Wideband { hz },
                false => Verdict::Undecided,
            }
        } else if COMPANDED_RATE.contains(&bytes_per_second) {
            let linear = self.linear.bits_per_byte().unwrap_or(8.0);
            if heard >= NEITHER_AFTER && best > NEITHER_ABOVE {
                unsupported(8_000)
            } else if heard < LAW_AFTER || best > SPEECH_BELOW.min(linear) {
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
            && heard >= LAW_AFTER
            && best > NEITHER_ABOVE
        {
            unsupported(nominal(bytes_per_second))
        } else {
            Verdict::Undecided
        }
    }
}

/// What headerless bytes most certainly are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    /// Anything, as far as can be told.
    Unknown,
    /// LinearModel samples of 16 bits, little-endian, of whatever rate.
    Slin,
    Ulaw,
    Alaw,
}

/// By so much one encoding must beat the others before a file is said not to be what its name says.
const SURE_LEAD: f64 = 1.2;
/// Codes of either law never come below this, in bits per byte, as linear samples; near silence these may look like
/// codes.
const CODES_ABOVE: f64 = 6.8;
/// So much sound, in codes or samples, is heard before.
const SURE_AFTER: usize = 480;

/// Pieces of a file that are judged on their own, of even length: near silence linear samples may look like codes, and
/// what is loud tells the truth.
const WINDOW: usize = 4000;
/// So many windows agree for each that says otherwise.
const AGREEING: usize = 5;

/// Tells what the bytes of a file are by the sound alone, for there is no rate to tell it by.
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

/// Of what repeats itself, as a test tone does, only linear samples can be told from codes: by the steps between
/// samples, in parts of their size.
fn guess_of_repeated(bytes: &[u8]) -> Guess {
    let (pairs, _) = bytes.as_chunks();
    let steps_as = |law: Law| steps(bytes.iter().map(|code| law.decode_byte(*code)));
    let linear = steps(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
    let is_linear = bytes.len() >= 2 * SURE_AFTER && linear > 0.0 && linear < 0.9;
    // A high tone has larger ones than noise.
    let is_noise = |law| (1.1..1.7).contains(&steps_as(law));
    match is_linear && is_noise(Law::Ulaw) && is_noise(Law::Alaw) {
        true => Guess::Slin,
        false => Guess::Unknown,
    }
}

/// The mean step from a sample to the next over the mean sample: below 1 for a tone up to a sixth of its rate, and
/// 1.4 for noise.
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

/// The sample rates that Asterisk has beyond 8 kHz.
const WIDEBAND: [u32; 8] = [
    12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000,
];

/// The rate of linear samples, beyond 8 kHz, that come at so many bytes a second: the nearest one, if it is within a
/// seventh.
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

/// How long there has been sound, whatever it is.
#[derive(Debug, Clone, Default)]
struct SoundTimer {
    began: Option<Duration>,
    latest: Duration,
    /// Messages since it began, and those of them in which there was sound.
    messages: u32,
    loud: u32,
}

/// The mean of the samples above which a message is sound, about −44 dBFS: comfort noise is below.
const LOUD: u32 = 200;
/// After so long without any, sound begins anew.
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

/// Whether it is sound under both laws: the idle codes of one are sound under the other.
fn is_loud(codes: &[u8]) -> bool {
    [Law::Ulaw, Law::Alaw].into_iter().all(|law| {
        let level = |code: &u8| u32::from(law.decode_byte(*code).unsigned_abs());
        let sum: u32 = codes.iter().map(level).sum();
        codes.len() as u32 * LOUD < sum
    })
}

/// Whether these bytes are a law's idle codes, or repeat themselves, as a test tone of 1 kHz does:
/// what repeats can be foretold under any law.
fn is_uninformative(bytes: &[u8]) -> bool {
    let idle = |code: u8| bytes.iter().all(|byte| byte & 0x7F == code);
    let repeats = |period: usize| bytes[period..] == bytes[..bytes.len() - period];
    idle(0x7F) || idle(0x55) || (1..=bytes.len() / 2).any(repeats)
}

/// What linear samples would make of the bytes.
#[derive(Debug, Clone, Default)]
struct LinearModel {
    last: i16,
    samples: u32,
    /// The sum of the differences between neighbours.
    sum: u64,
}

impl LinearModel {
    fn score(&mut self, bytes: &[u8]) {
        // The same byte throughout is silence in some law; zeros are it here, and only here.
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

    /// As [`Model::bits_per_code`], by the size of the differences; `None` before 20 ms were heard.
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
    fn no_tone_is_guessed_to_be_what_it_is_not() {
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
