//! Where one sound lies in another, and how much of it is there.

/// A place where a sound was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    /// The sample at which it begins.
    pub(crate) at: usize,
    /// 1 for the very sound at whatever loudness, 0 for nothing like it.
    pub(crate) correlation: f64,
}

/// Samples that are compared at every place, before the whole sound is at the best one.
const PROBE: usize = 500;

/// Where in `heard` all of `sound` lies best. `None` if there is no room for it, or it is silence.
pub(crate) fn find(sound: &[i16], heard: &[i16]) -> Option<Found> {
    let last = heard.len().checked_sub(sound.len())?;
    let (from, probe) = loudest(sound);
    let energies = running_energies(heard);
    let likeness = |place: usize| {
        let (begin, end) = (place + from, place + from + probe.len());
        let energy = (energies[end] - energies[begin]) as f64;
        product(probe, &heard[begin..end]) / energy.sqrt().max(1.0)
    };
    let likenesses = (0..=last).map(|place| (place, likeness(place)));
    let (at, _) = likenesses.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let heard = &heard[at..][..sound.len()];
    let scale = (product(sound, sound) * product(heard, heard)).sqrt();
    // Pearson's, without the means: telephone sound has none.
    let correlation = product(sound, heard) / scale.max(1.0);
    (product(sound, sound) > 0.0).then_some(Found { at, correlation })
}

fn product(a: &[i16], b: &[i16]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| i64::from(*a) * i64::from(*b));
    products.sum::<i64>() as f64
}

/// The energy of everything before each place.
fn running_energies(samples: &[i16]) -> Vec<i64> {
    let energies = samples.iter().scan(0, |sum, sample| {
        *sum += i64::from(*sample).pow(2);
        Some(*sum)
    });
    std::iter::once(0).chain(energies).collect()
}

/// The loudest stretch of a probe's length, and where it begins.
fn loudest(sound: &[i16]) -> (usize, &[i16]) {
    let length = PROBE.min(sound.len()).max(1);
    let stretches = sound.chunks_exact(length).enumerate();
    let loudest = stretches.max_by(|(_, a), (_, b)| product(a, a).total_cmp(&product(b, b)));
    loudest.map_or((0, sound), |(place, stretch)| (place * length, stretch))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sidetone_audio::tone;

    use super::*;

    #[test]
    fn a_sound_is_found_where_it_lies_however_loud() {
        let sound = tone::greeting(8000);
        let quieter: Vec<i16> = sound.iter().map(|sample| sample / 4).collect();
        let heard = [&[0; 777][..], &quieter, &[0; 500]].concat();
        let found = find(&sound, &heard).unwrap();
        assert_eq!(found.at, 777);
        assert!(found.correlation > 0.99, "{found:?}");
    }

    #[test]
    fn half_a_sound_is_not_the_sound() {
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
