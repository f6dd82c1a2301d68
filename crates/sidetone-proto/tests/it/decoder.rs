//! A byte stream decodes to the same messages however TCP cuts it.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use sidetone_proto::{Decoder, Kind, Message, PeerErrors, Rate};

use crate::support::message;

/// A message, kept.
#[derive(Clone, Debug, PartialEq)]
enum Kept {
    Audio(Rate, Vec<u8>),
    Other(String),
}

/// Feeds `pieces` to a decoder. Returns its messages, whether it stopped within a message, and the most memory it held.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Kept>, bool, usize) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    let mut memory = 0;
    for piece in pieces {
        let mut rest = piece;
        loop {
            let decoded = decoder.decode(rest);
            assert!(decoded.consumed <= rest.len());
            rest = &rest[decoded.consumed..];
            match decoded.message {
                Some(Message::Audio(audio)) => {
                    messages.push(Kept::Audio(audio.rate, audio.bytes.to_vec()));
                }
                Some(other) => messages.push(Kept::Other(format!("{other:?}"))),
                None => break,
            }
            memory = memory.max(decoder.memory());
        }
        assert!(rest.is_empty(), "no message means that all is consumed");
        memory = memory.max(decoder.memory());
    }
    (messages, decoder.is_mid_message(), memory)
}

fn one(bytes: &[u8]) -> Vec<Kept> {
    decode([bytes]).0
}

fn other(message: Message<'_>) -> Kept {
    Kept::Other(format!("{message:?}"))
}

/// The same by the book: the whole stream at once, one header after the other.
fn reference(mut stream: &[u8]) -> (Vec<Kept>, bool) {
    let mut messages = Vec::new();
    while stream.len() >= 3 {
        let (kind, length) = (stream[0], u16::from_be_bytes([stream[1], stream[2]]));
        let payload = stream.get(3..3 + usize::from(length));
        let kept = match (Kind::from(kind), payload) {
            (Kind::Hangup, _) => other(Message::Hangup),
            (Kind::Unknown(kind), _) => other(Message::Unknown { kind, length }),
            (kind @ (Kind::Dtmf | Kind::Error), _) if length != 1 => {
                other(Message::Malformed { kind, length })
            }
            (kind @ Kind::Uuid, _) if length != 16 => other(Message::Malformed { kind, length }),
            (_, None) => return (messages, true),
            (Kind::Audio(rate), Some(payload)) => Kept::Audio(rate, payload.to_vec()),
            (Kind::Uuid, Some(payload)) => {
                other(Message::Uuid(uuid::Uuid::from_slice(payload).unwrap()))
            }
            (Kind::Error, Some(payload)) => other(Message::Error(PeerErrors(payload[0]))),
            (Kind::Dtmf, Some(payload)) => {
                let digit = char::from(payload[0]);
                if "0123456789*#ABCDabcd".contains(digit) {
                    other(Message::Dtmf(digit.to_ascii_uppercase()))
                } else {
                    other(Message::Malformed {
                        kind: Kind::Dtmf,
                        length,
                    })
                }
            }
        };
        messages.push(kept);
        if payload.is_none() {
            return (messages, true);
        }
        stream = &stream[3 + usize::from(length)..];
    }
    (messages, !stream.is_empty())
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![
        4 => 0x10..=0x18u8,
        1 => Just(0x00u8),
        1 => Just(0x01u8),
        1 => Just(0x03u8),
        1 => Just(0xffu8),
        1 => any::<u8>(),
    ];
    let length = prop_oneof![
        3 => Just(0usize),
        3 => Just(1usize),
        2 => Just(2usize),
        3 => Just(16usize),
        3 => 3..400usize,
        1 => 4000..9000usize,
    ];
    (kind, length, any::<u8>()).prop_map(|(kind, length, seed)| {
        let payload: Vec<u8> = (0..length).map(|n| seed.wrapping_add(n as u8)).collect();
        message(kind, &payload)
    })
}

/// Whole messages, then perhaps garbage, then perhaps cut short.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    (
        prop::collection::vec(any_message(), 0..12),
        prop::collection::vec(any::<u8>(), 0..200),
        any::<prop::sample::Index>(),
        any::<bool>(),
    )
        .prop_map(|(messages, garbage, end, is_cut)| {
            let mut stream = messages.concat();
            stream.extend(garbage);
            if is_cut {
                stream.truncate(end.index(stream.len() + 1));
            }
            stream
        })
}

proptest! {
    #![proptest_config(crate::support::cases(400))]
    #[test]
    fn any_cut_of_any_stream_gives_the_same_messages(
        stream in any_stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (expected, is_mid_message) = reference(&stream);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
        let (messages, stopped_within, memory) = decode(pieces);
        prop_assert_eq!(messages, expected.clone());
        prop_assert_eq!(stopped_within, is_mid_message);
        prop_assert!(memory <= 65_535);

        let (messages, ..) = decode(stream.chunks(1));
        prop_assert_eq!(messages, expected);
    }
}

#[test]
fn every_kind_has_its_message() {
    assert_eq!(one(&message(0x00, &[])), [other(Message::Hangup)]);
    let id = uuid::Uuid::from_bytes(crate::support::ID);
    assert_eq!(
        one(&crate::support::uuid_message()),
        [other(Message::Uuid(id))]
    );
    for digit in "0123456789*#ABCD".chars() {
        assert_eq!(
            one(&message(0x03, &[digit as u8])),
            [other(Message::Dtmf(digit))]
        );
    }
    for rate in Rate::ALL {
        assert_eq!(
            one(&message(rate.code(), &[1, 2])),
            [Kept::Audio(rate, vec![1, 2])]
        );
    }
    assert_eq!(
        one(&message(0xff, &[0x05])),
        [other(Message::Error(PeerErrors(5)))]
    );
    for kind in [0x02, 0x04, 0x0f, 0x19, 0x20, 0xfe] {
        assert_eq!(
            one(&message(kind, &[0; 9])),
            [other(Message::Unknown { kind, length: 9 })]
        );
    }
}

#[test]
fn audio_of_every_length_is_one_message() {
    for length in [0, 1, 2, 320, 321, 7680, 65_535] {
        let payload: Vec<u8> = (0..length).map(|n: u32| n as u8).collect();
        let bytes = message(0x10, &payload);
        let expected = [Kept::Audio(Rate::Slin, payload)];
        assert_eq!(one(&bytes), expected, "{length} at once");
        let (messages, _, memory) = decode(bytes.chunks(1448));
        assert_eq!(messages, expected, "{length} in segments");
        assert!(memory <= 65_535);
    }
}

#[test]
fn lower_case_digits_are_digits_and_letters_are_not() {
    assert_eq!(one(&message(0x03, b"d")), [other(Message::Dtmf('D'))]);
    for byte in [b'E', b'x', b' ', 0, 0xff] {
        assert_eq!(
            one(&message(0x03, &[byte])),
            [other(Message::Malformed {
                kind: Kind::Dtmf,
                length: 1
            })]
        );
    }
}

#[test]
fn an_impossible_length_is_skipped_and_the_next_message_is_whole() {
    for (kind, lengths) in [
        (Kind::Uuid, [0, 15, 17]),
        (Kind::Dtmf, [0, 2, 300]),
        (Kind::Error, [0, 2, 65_535]),
    ] {
        for length in lengths {
            let mut bytes = message(kind.code(), &vec![0x55; usize::from(length)]);
            bytes.extend(message(0x10, &[1, 2]));
            assert_eq!(
                one(&bytes),
                [
                    other(Message::Malformed { kind, length }),
                    Kept::Audio(Rate::Slin, vec![1, 2])
                ]
            );
        }
    }
}

#[test]
fn what_is_skipped_is_not_kept() {
    let mut bytes = message(0x42, &[7; 65_535]);
    bytes.extend(message(0x00, &[7; 65_535]));
    bytes.extend(message(0x01, &[7; 65_535]));
    let (messages, is_mid_message, memory) = decode(bytes.chunks(1000));
    assert_eq!(messages.len(), 3);
    assert!(!is_mid_message);
    assert_eq!(memory, 0);
}

#[test]
fn memory_for_a_long_message_is_freed_and_for_an_ordinary_frame_kept() {
    for (length, is_kept) in [(7680, true), (65_535, false)] {
        let bytes = message(0x18, &vec![1; length]);
        let mut decoder = Decoder::new();
        let first = decoder.decode(&bytes[..100]);
        assert_eq!((first.consumed, first.message), (100, None));
        assert_eq!(decoder.memory(), length, "one buffer of the right size");
        assert!(decoder.decode(&bytes[100..]).message.is_some());
        assert_eq!(decoder.decode(&[]).message, None);
        assert_eq!(decoder.memory() > 0, is_kept);
    }
}

#[test]
fn a_whole_message_is_borrowed_and_not_copied() {
    let bytes = message(0x10, &[1; 320]);
    let mut decoder = Decoder::new();
    let Some(Message::Audio(audio)) = decoder.decode(&bytes).message else {
        panic!("it is whole");
    };
    assert!(std::ptr::eq(audio.bytes, &bytes[3..]));
}
