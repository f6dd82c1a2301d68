//! Audio whose messages end in the middle of a sample.

use super::AudioFormat;

/// Keeps the first byte of a sample whose second one comes with the next message.
///
/// Without it, one odd message would turn all that follows into noise.
#[derive(Debug, Default)]
pub(super) struct WholeSamples {
    rest: Vec<u8>,
}

impl WholeSamples {
    /// The whole samples up to the end of `bytes`.
    pub(super) fn take(&mut self, format: AudioFormat, bytes: &[u8]) -> Vec<u8> {
        let mut whole = std::mem::take(&mut self.rest);
        whole.extend_from_slice(bytes);
        let left = whole.len() % format.sample_len();
        self.rest = whole.split_off(whole.len() - left);
        whole
    }

    /// What comes next begins with a whole sample.
    pub(super) fn clear(&mut self) {
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_may_come_in_two_messages() {
        let mut samples = WholeSamples::default();
        let linear = AudioFormat::linear(16_000);
        assert!(samples.take(linear, &[1]).is_empty());
        assert_eq!(samples.take(linear, &[2, 3, 4, 5]), [1, 2, 3, 4]);
        assert!(samples.take(linear, &[]).is_empty());
        assert_eq!(samples.take(linear, &[6]), [5, 6]);
        assert!(samples.take(linear, &[7]).is_empty());
        samples.clear();
        assert_eq!(samples.take(linear, &[8, 9]), [8, 9]);
        assert_eq!(samples.take(AudioFormat::ULAW, &[1, 2, 3]), [1, 2, 3]);
    }
}
