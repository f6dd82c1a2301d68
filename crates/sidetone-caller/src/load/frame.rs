use crate::noise::noise;

/// Bytes of one frame: 20 ms at 8 kHz.
pub(super) const FRAME: usize = 320;
/// As many calls as a stamp can tell apart.
pub(super) const MOST_CALLS: usize = 65_535;
const WORDS: usize = FRAME / 8;

/// What a frame says in each of its parts.
///
/// A frame is 40 words of 8 bytes, each the frame's identity (even words) or the time when it left (odd ones),
/// combined with noise that differs from word to word. So no part can be missing, moved within the frame
/// or taken from another frame without being noticed, and no frame looks like silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) line: Line,
    pub(super) sequence: u32,
    /// When it left, on the load's clock.
    pub(super) sent: u64,
}

/// Whose frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line(u32);

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Stamped(Stamp),
    Silence,
    Other,
}

impl Line {
    /// What [`clip`] makes. No run has a call of this number.
    pub(super) const CLIP: Self = Self(u32::MAX);

    /// `run` keeps what is left over from another run from passing for this one's.
    pub(super) fn of_call(run: u16, call: usize) -> Self {
        debug_assert!(call < MOST_CALLS);
        Self(u32::from(run) << 16 | call as u32)
    }
}

impl Stamp {
    pub(super) fn write(self, frame: &mut [u8; FRAME]) {
        let parts = [self.identity(), self.sent];
        let (words, _) = frame.as_chunks_mut::<8>();
        for (index, (word, noise)) in words.iter_mut().zip(&NOISE).enumerate() {
            *word = (parts[index % 2] ^ noise).to_le_bytes();
        }
    }

    fn identity(self) -> u64 {
        u64::from(self.line.0) << 32 | u64::from(self.sequence)
    }
}

impl Content {
    pub(super) fn of(frame: &[u8; FRAME]) -> Self {
        let (words, _) = frame.as_chunks::<8>();
        let word = |index: usize| u64::from_le_bytes(words[index]) ^ NOISE[index];
        let parts = [word(0), word(1)];
        let mut difference = 0;
        for index in 2..WORDS {
            difference |= word(index) ^ parts[index % 2];
        }
        if difference == 0 {
            let [identity, sent] = parts;
            return Self::Stamped(Stamp {
                line: Line((identity >> 32) as u32),
                sequence: identity as u32,
                sent,
            });
        }
        if frame.iter().all(|byte| *byte == 0) {
            Self::Silence
        } else {
            Self::Other
        }
    }
}

/// Sound that never repeats and that [`Mode::Playout`](super::Mode::Playout) verifies byte for byte: `frames` times
/// 20 ms at 8 kHz. A server may play it in a loop.
pub fn clip(frames: u32) -> Vec<i16> {
    let mut samples = Vec::with_capacity(frames as usize * FRAME / 2);
    let mut frame = [0; FRAME];
    for sequence in 0..frames {
        let stamp = Stamp {
            line: Line::CLIP,
            sequence,
            sent: 0,
        };
        stamp.write(&mut frame);
        let (pairs, _) = frame.as_chunks::<2>();
        samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
    }
    samples
}

static NOISE: [u64; WORDS] = {
    let mut words = [0; WORDS];
    let mut index = 0;
    while index < WORDS {
        words[index] = noise(0x51de_707e, index as u64);
        index += 1;
    }
    words
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn stamp(call: usize, sequence: u32, sent: u64) -> Stamp {
        Stamp {
            line: Line::of_call(7, call),
            sequence,
            sent,
        }
    }

    fn frame(stamp: Stamp) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        stamp.write(&mut frame);
        frame
    }

    #[test]
    fn a_frame_says_what_was_stamped_on_it() {
        for stamp in [stamp(0, 0, 0), stamp(65_534, u32::MAX, u64::MAX)] {
            assert_eq!(Content::of(&frame(stamp)), Content::Stamped(stamp));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = frame(stamp(3, 1000, 123_456_789));
        for bit in 0..FRAME * 8 {
            let mut flipped = whole;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Content::of(&flipped), Content::Other, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_mixed_from_two_is_noticed_wherever_it_is_cut() {
        let one = frame(stamp(3, 1000, 20_000_000));
        let next = frame(stamp(3, 1001, 40_000_000));
        let other = frame(stamp(4, 1000, 20_000_000));
        for cut in 2..FRAME {
            for second in [next, other] {
                let mut mixed = one;
                mixed[cut..].copy_from_slice(&second[cut..]);
                // Parts that happen to be equal make no difference.
                if mixed != one && mixed != second {
                    assert_eq!(Content::of(&mixed), Content::Other, "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_frame_moved_by_samples_is_noticed() {
        let two = [frame(stamp(3, 0, 5)), frame(stamp(3, 1, 6))].concat();
        for shift in (2..FRAME).step_by(2) {
            let moved = two[shift..].first_chunk().unwrap();
            assert_eq!(Content::of(moved), Content::Other, "moved by {shift}");
        }
    }

    #[test]
    fn silence_is_told_from_a_frame() {
        assert_eq!(Content::of(&[0; FRAME]), Content::Silence);
        let mut nearly = [0; FRAME];
        nearly[200] = 1;
        assert_eq!(Content::of(&nearly), Content::Other);
    }

    #[test]
    fn no_two_frames_of_a_clip_are_alike() {
        let samples = clip(3000);
        assert_eq!(samples.len(), 3000 * 160);
        let mut frames: Vec<_> = samples.chunks_exact(160).collect();
        frames.sort_unstable();
        frames.dedup();
        assert_eq!(frames.len(), 3000);
    }
}
