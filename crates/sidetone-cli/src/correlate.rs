//! Finds a sound in a recording.

/// A place where a sound was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// The sample at which it begins.
    pub(crate) at: usize,
    /// 1 for the same sound at any volume, 0 for an unrelated one.
    pub(crate) correlation: f64,
}

/// The first search looks for this many of the loudest samples of the sound …
const PROBE: usize = 500;
/// … and compares one in four of them.
const STEP: usize = 4;
/// The whole sound is then compared at this many places on either side of the best one.
const NEIGHBORHOOD: usize = 8;

/// The place in `heard` that is most like `sound`. `None` if `heard` is shorter than `sound`, or `sound` is silence.
pub(crate) fn find(sound: &[i16], heard: &[i16]) -> Option<Found> {
    let last = heard.len().checked_sub(sound.len())?;
    let (from, probe) = loudest(sound);
    let probe: Vec<i16> = probe.iter().step_by(STEP).copied().collect();
    let energies = running_energies(heard);
    let likeness = |place: usize| {
        let begin = place + from;
        let energy = energies[begin + probe.len() * STEP - (STEP - 1)] - energies[begin];
        let heard = heard[begin..].iter().step_by(STEP);
        product(probe.iter().zip(heard)) / (energy as f64).sqrt().max(1.0)
    };
    let likenesses = (0..=last).map(|place| (place, likeness(place)));
    let (rough, _) = likenesses.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let around = rough.saturating_sub(NEIGHBORHOOD)..=(rough + NEIGHBORHOOD).min(last);
    let found = around.map(|at| Found {
        at,
        correlation: correlation(sound, &heard[at..][..sound.len()]),
    });
    let best = found.max_by(|a, b| a.correlation.total_cmp(&b.correlation))?;
    (energy(sound) > 0.0).then_some(best)
}

/// Pearson's correlation without the means, which are zero in telephone audio.
fn correlation(a: &[i16], b: &[i16]) -> f64 {
    product(a.iter().zip(b)) / (energy(a) * energy(b)).sqrt().max(1.0)
}

fn energy(samples: &[i16]) -> f64 {
    product(samples.iter().zip(samples))
}

fn product<'a>(pairs: impl Iterator<Item = (&'a i16, &'a i16)>) -> f64 {
    pairs
        .map(|(a, b)| i64::from(*a) * i64::from(*b))
        .sum::<i64>() as f64
}

/// For each place, the energy of all samples before it.
fn running_energies(samples: &[i16]) -> Vec<i64> {
    let energies = samples.iter().scan(0, |sum, sample| {
        *sum += i64::from(*sample).pow(2);
        Some(*sum)
    });
    std::iter::once(0).chain(energies).collect()
}

/// The loudest part of the length of a probe, and where it begins.
fn loudest(sound: &[i16]) -> (usize, &[i16]) {
    let length = PROBE.min(sound.len()).max(1);
    let parts = sound.chunks_exact(length).enumerate();
    let loudest = parts.max_by(|(_, a), (_, b)| energy(a).total_cmp(&energy(b)));
    loudest.map_or((0, sound), |(place, part)| (place * length, part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sidetone_audio::tone;

    use super::*;

    #[test]
    fn a_sound_is_found_at_its_place_at_any_volume() {
        let sound = tone::greeting(8000);
        let quieter: Vec<i16> = sound.iter().map(|sample| sample / 4).collect();
        let heard = [&[0; 777][..], &quieter, &[0; 500]].concat();
        let found = find(&sound, &heard).unwrap();
        assert_eq!(found.at, 777);
        assert!(found.correlation > 0.99, "{found:?}");
    }

    #[test]
    fn a_part_of_a_sound_is_not_the_sound() {
        let sound = tone::greeting(8000);
        let mut heard = [&[0; 100][..], &sound].concat();
        heard[100..100 + sound.len() / 4].fill(0);
        assert!(find(&sound, &heard).unwrap().correlation < 0.9);
        let other = tone::caller_voice(8000, std::time::Duration::from_secs(3), 9);
        assert!(find(&sound, &other).unwrap().correlation < 0.5);
    }

    #[test]
    fn silence_is_found_nowhere() {
        assert_eq!(find(&[0; 100], &[0; 200]), None);
        assert_eq!(find(&[1; 100], &[1; 99]), None);
    }
}
