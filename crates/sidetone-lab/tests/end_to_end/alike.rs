//! How alike two sounds are, wherever in the second the first begins: for what was resampled on its way.

use sidetone_audio::resample::resample_clip;

/// At this rate the place is searched; speech on a telephone has nothing beyond it.
const COARSE: u32 = 8_000;

/// The best normalised correlation of `said` with any stretch of `heard`, both at `hz`. From −1 to 1; 1 is the same sound at
/// whatever level.
pub(crate) fn alike(said: &[i16], heard: &[i16], hz: u32) -> f64 {
    place_of(said, heard, hz).0
}

/// The same for quarters of a second, each wherever it fits best: the median, which a gap here and there does not move.
pub(crate) fn alike_in_pieces(said: &[i16], heard: &[i16], hz: u32) -> f64 {
    let pieces = said.chunks_exact(hz as usize / 4);
    let sounding = pieces.filter(|piece| piece.iter().any(|sample| sample.abs() > 500));
    let mut alike: Vec<f64> = sounding.map(|piece| place_of(piece, heard, hz).0).collect();
    alike.sort_by(f64::total_cmp);
    alike.get(alike.len() / 2).copied().unwrap_or_default()
}

/// The best correlation, and the sample in `heard` where the stretch begins that has it.
pub(crate) fn place_of(said: &[i16], heard: &[i16], hz: u32) -> (f64, usize) {
    let slow = |sound: &[i16]| resample_clip(sound, hz, COARSE).unwrap();
    let (slow_said, slow_heard) = (slow(said), slow(heard));
    let last = slow_heard.len().saturating_sub(slow_said.len());
    // Every third sample is plenty to find the place.
    let coarse = best(&slow_said, &slow_heard, 0..=last, 3).1;
    let middle = coarse * hz as usize / COARSE as usize;
    let around = 2 * (hz / COARSE).max(1) as usize;
    let first = middle.saturating_sub(around);
    let last = (middle + around).min(heard.len().saturating_sub(said.len()));
    best(
        said,
        heard,
        first..=last.max(first),
        (hz / 16_000).max(1) as usize,
    )
}

fn best(
    said: &[i16],
    heard: &[i16],
    places: std::ops::RangeInclusive<usize>,
    step: usize,
) -> (f64, usize) {
    let scored = places.map(|place| {
        (
            correlation(said, heard.get(place..).unwrap_or(&[]), step),
            place,
        )
    });
    scored
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .unwrap_or((0.0, 0))
}

fn correlation(said: &[i16], heard: &[i16], step: usize) -> f64 {
    if heard.len() < said.len() {
        return 0.0;
    }
    let (mut both, mut one, mut other) = (0i64, 0i64, 0i64);
    let mut place = 0;
    while place < said.len() {
        let (said, heard) = (i32::from(said[place]), i32::from(heard[place]));
        both += i64::from(said * heard);
        one += i64::from(said * said);
        other += i64::from(heard * heard);
        place += step;
    }
    let power = one as f64 * other as f64;
    if power == 0.0 {
        0.0
    } else {
        both as f64 / power.sqrt()
    }
}
