//! Both sides of a call as its caller lived through it, side by side in one WAV file.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sidetone_audio::{
    resample::resample_clip,
    wav::{Channels, Writer},
};
use sidetone_caller::CallRecord;

use crate::failure::Failure;

/// A pause shorter than this is jitter that nothing made up for yet.
const PAUSE: Duration = Duration::from_millis(20);

/// A WAV file that was made before the call, so that nobody calls in vain.
#[derive(Debug)]
pub(crate) struct TrackFile {
    file: File,
    path: PathBuf,
}

impl TrackFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        // What is there stays until there is something better.
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let file = options.open(path).map_err(|error| {
            Failure::new(format_args!(
                "can't write {} ({error}): choose another place",
                path.display()
            ))
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Writes what was said left and what was heard right, both on the caller's clock: a frame lies where it
    /// was sent or came.
    pub(crate) fn write(self, record: &CallRecord) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::new(format_args!(
                "can't write {} ({error}): is the disk full?",
                self.path.display()
            ))
        };
        let rate = record.codec.rate().hz();
        let mut rest = record.sent_samples();
        let said: Vec<Piece<'_>> = record
            .sent
            .iter()
            .map(|sent| {
                let (samples, behind) = rest.split_at(sent.samples);
                rest = behind;
                Piece::new(sent.at, rate, samples)
            })
            .collect();
        let heard: Vec<Piece<'_>> = record
            .frames()
            .map(|(message, samples)| Piece::new(message.at, message.rate.hz(), samples))
            .collect();
        let (mut left, mut right) = (lay_out(&said, rate), lay_out(&heard, rate));
        let length = left.len().max(right.len());
        left.resize(length, 0);
        right.resize(length, 0);
        let pairs: Vec<i16> = left
            .iter()
            .zip(&right)
            .flat_map(|(left, right)| [*left, *right])
            .collect();
        self.file.set_len(0).map_err(failed)?;
        let mut wav = Writer::new(self.file, rate, Channels::Stereo).map_err(failed)?;
        wav.write(&pairs).map_err(failed)?;
        wav.finish().map_err(failed)?;
        Ok(())
    }
}

/// A frame of one side.
struct Piece<'a> {
    at: Duration,
    rate: u32,
    samples: &'a [i16],
}

impl<'a> Piece<'a> {
    fn new(at: Duration, rate: u32, samples: &'a [i16]) -> Self {
        Self { at, rate, samples }
    }

    fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate.max(1))
    }
}

/// Lays pieces out in time, at `rate` samples a second.
///
/// They lie back to back, so that jitter leaves no holes. A piece that came late leaves a pause before it
/// only as far as the following ones did not make up for that.
fn lay_out(pieces: &[Piece<'_>], rate: u32) -> Vec<i16> {
    let mut track = Vec::new();
    let mut run: Vec<i16> = Vec::new();
    let (mut run_rate, mut shift) = (rate, f64::NEG_INFINITY);
    for (piece, lateness) in pieces.iter().zip(lasting_lateness(pieces)) {
        let pauses = lateness > shift + PAUSE.as_secs_f64();
        if pauses || piece.rate != run_rate {
            track.extend(resampled(&run, run_rate, rate));
            run.clear();
            run_rate = piece.rate;
        }
        if pauses {
            let pause = if track.is_empty() {
                lateness
            } else {
                lateness - shift
            };
            let silence = (pause.max(0.0) * f64::from(rate)).round() as usize;
            track.resize(track.len() + silence, 0);
            shift = lateness;
        }
        run.extend_from_slice(piece.samples);
    }
    track.extend(resampled(&run, run_rate, rate));
    track
}

/// For each piece, how many seconds after its place in a track without any pause it lies: the least
/// lateness of all that come from there on.
fn lasting_lateness(pieces: &[Piece<'_>]) -> Vec<f64> {
    let mut sounded = 0.0;
    let mut lateness: Vec<f64> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        lateness.push(piece.at.as_secs_f64() - sounded);
        sounded += piece.seconds();
    }
    let mut least = f64::INFINITY;
    for late in lateness.iter_mut().rev() {
        least = least.min(*late);
        *late = least;
    }
    lateness
}

fn resampled(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    // The nine rates can all be resampled into each other.
    resample_clip(samples, from, to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [i16; 160] = [7; 160];

    fn laid_out(at: &[u64]) -> Vec<i16> {
        let piece = |at: &u64| Piece::new(Duration::from_millis(*at), 8000, &FRAME);
        lay_out(&at.iter().map(piece).collect::<Vec<_>>(), 8000)
    }

    /// Where sound begins and ends, in milliseconds.
    fn borders(track: &[i16]) -> Vec<usize> {
        let borders = (1..track.len()).filter(|at| (track[*at] == 0) != (track[at - 1] == 0));
        borders.map(|at| at / 8).collect()
    }

    #[test]
    fn a_track_begins_when_its_first_piece_came() {
        assert_eq!(borders(&laid_out(&[40, 60, 80])), [40]);
    }

    #[test]
    fn jitter_and_a_burst_after_a_stall_leave_no_hole() {
        assert_eq!(borders(&laid_out(&[20, 45, 60, 83, 100])), [20]);
        assert_eq!(
            borders(&laid_out(&[
                20, 40, 300, 300, 300, 301, 302, 303, 304, 304, 304, 304, 305, 305, 305, 320
            ])),
            [20]
        );
    }

    #[test]
    fn what_nothing_made_up_for_is_a_pause() {
        assert_eq!(borders(&laid_out(&[20, 40, 160, 180])), [20, 60, 160]);
    }

    #[test]
    fn another_rate_is_resampled_in_its_place() {
        let wide = [7; 320];
        let pieces = [
            Piece::new(Duration::ZERO, 8000, &FRAME),
            Piece::new(Duration::from_millis(20), 16_000, &wide),
        ];
        assert_eq!(lay_out(&pieces, 16_000).len(), 640);
    }
}
