use sidetone_proto::{Outbound, Rate};
use uuid::Uuid;

use crate::noise::noise;

/// Bytes of a frame: 20 ms at 8 kHz.
pub(crate) const FRAME: usize = 320;
/// As many calls as a stamp can distinguish.
pub(crate) const MAX_CALLS: usize = 65_535;
/// Bytes of a message's header.
pub(crate) const HEADER: usize = 3;
const WORDS: usize = FRAME / 8;

/// What every part of a frame holds.
///
/// A frame is 40 words of 8 bytes. Each is the frame's identity (even words) or the time at which it was sent (odd
/// words), combined with noise that differs from word to word. So a frame with a part that is missing, moved or from
/// another frame is detected, and no frame looks like silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) call: CallId,
    pub(crate) sequence: u32,
    /// When it was sent, in nanoseconds since the load began.
    pub(crate) sent: u64,
}

/// The call a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallId(u32);

/// What a received frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Stamped(Stamp),
    Silence,
    Other,
}

impl CallId {
    /// The frames of [`clip`]. No run has a call of this number.
    pub(crate) const CLIP: Self = Self(u32::MAX);

    /// The call of this number in a run. With `run`, frames of another run are not taken for this one's.
    pub(crate) fn new(run: u16, call: usize) -> Self {
        debug_assert!(call < MAX_CALLS);
        Self(u32::from(run) << 16 | call as u32)
    }
}

impl Stamp {
    pub(crate) fn write(self, frame: &mut [u8; FRAME]) {
        let parts = [self.identity(), self.sent];
        let (words, _) = frame.as_chunks_mut::<8>();
        for (index, (word, noise)) in words.iter_mut().zip(&NOISE).enumerate() {
            *word = (parts[index % 2] ^ noise).to_le_bytes();
        }
    }

    fn identity(self) -> u64 {
        u64::from(self.call.0) << 32 | u64::from(self.sequence)
    }
}

impl Content {
    pub(crate) fn of(frame: &[u8; FRAME]) -> Self {
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
                call: CallId((identity >> 32) as u32),
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

/// Makes audio that never repeats and that [`Mode::Playout`](crate::Mode::Playout) verifies byte for byte: `frames` times
/// 20 ms at 8 kHz. A server may play it in a loop.
pub fn clip(frames: u32) -> Vec<i16> {
    let mut samples = Vec::with_capacity(frames as usize * FRAME / 2);
    let mut frame = [0; FRAME];
    for sequence in 0..frames {
        let stamp = Stamp {
            call: CallId::CLIP,
            sequence,
            sent: 0,
        };
        stamp.write(&mut frame);
        let (pairs, _) = frame.as_chunks::<2>();
        samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
    }
    samples
}

/// A message of audio, as Asterisk sends it for `c(slin)`.
pub(crate) fn audio_message() -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + FRAME);
    if let Ok(audio) = Outbound::audio(Rate::Slin, &[0; FRAME]) {
        audio.encode(&mut message);
    }
    message
}

/// A caller's first message.
pub(crate) fn uuid_message(uuid: Uuid) -> [u8; HEADER + 16] {
    let mut message = [0; HEADER + 16];
    message[..HEADER].copy_from_slice(&[0x01, 0, 16]);
    message[HEADER..].copy_from_slice(uuid.as_bytes());
    message
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
            call: CallId::new(7, call),
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
    fn a_frame_holds_its_stamp() {
        for stamp in [stamp(0, 0, 0), stamp(65_534, u32::MAX, u64::MAX)] {
            assert_eq!(Content::of(&frame(stamp)), Content::Stamped(stamp));
        }
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let whole = frame(stamp(3, 1000, 123_456_789));
        for bit in 0..FRAME * 8 {
            let mut flipped = whole;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Content::of(&flipped), Content::Other, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_mixed_from_two_is_detected_wherever_it_is_cut() {
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
    fn a_frame_moved_by_samples_is_detected() {
        let two = [frame(stamp(3, 0, 5)), frame(stamp(3, 1, 6))].concat();
        for shift in (2..FRAME).step_by(2) {
            let moved = two[shift..].first_chunk().unwrap();
            assert_eq!(Content::of(moved), Content::Other, "moved by {shift}");
        }
    }

    #[test]
    fn silence_is_distinguished_from_a_frame() {
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
