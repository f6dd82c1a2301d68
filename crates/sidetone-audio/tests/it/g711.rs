//! Every code and every sample of both laws, against an independent implementation.
#![allow(clippy::unwrap_used)]

use audio_codec_algorithms::{decode_alaw, decode_ulaw, encode_alaw, encode_ulaw};
use sidetone_audio::g711::Law;

#[test]
fn every_code_decodes_as_the_reference_does() {
    let codes: Vec<u8> = (0..=255).collect();
    for (law, oracle) in [
        (Law::Ulaw, decode_ulaw as fn(u8) -> i16),
        (Law::Alaw, decode_alaw),
    ] {
        let mut samples = vec![7];
        law.decode(&codes, &mut samples);
        assert_eq!(samples.remove(0), 7, "decode appends");
        for (&code, &sample) in codes.iter().zip(&samples) {
            assert_eq!(sample, oracle(code), "{law:?} {code:#04x}");
            assert_eq!(law.decode_byte(code), sample);
        }
    }
}

#[test]
fn every_sample_encodes_as_the_reference_does() {
    let samples: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    for (law, oracle) in [
        (Law::Ulaw, encode_ulaw as fn(i16) -> u8),
        (Law::Alaw, encode_alaw),
    ] {
        let mut codes = vec![7];
        law.encode(&samples, &mut codes);
        assert_eq!(codes.remove(0), 7, "encode appends");
        for (&sample, &code) in samples.iter().zip(&codes) {
            assert_eq!(code, oracle(sample), "{law:?} {sample}");
            assert_eq!(law.encode_sample(sample), code);
        }
    }
}

#[test]
fn decoding_and_encoding_again_changes_nothing() {
    for law in [Law::Ulaw, Law::Alaw] {
        for code in 0..=255 {
            let sample = law.decode_byte(code);
            assert_eq!(law.decode_byte(law.encode_sample(sample)), sample);
        }
    }
}
