//! The table of `CallMachine::handle_received`, a test per row.
#![allow(clippy::unwrap_used)]

use sidetone_proto::{CallConfig, Counters, EndReason, Kind, OtherProtocol, Phase, Rate};

use crate::support::{Event, World, frame, message, ms, ramp, uuid_message};

fn silent() -> World {
    World::silent(CallConfig::default())
}

fn counted(change: impl FnOnce(&mut Counters)) -> Counters {
    let mut counters = Counters::default();
    change(&mut counters);
    counters
}

#[test]
fn the_uuid_starts_the_schedule_with_a_slot_due_at_once() {
    let mut world = silent();
    world.run(ms(500));
    assert!(world.wire.is_empty(), "nothing goes out before the UUID");
    world.receive(&uuid_message());
    assert_eq!(world.events, [Event::Identified]);
    assert_eq!(world.call.phase(), Phase::Running);
    assert_eq!(world.call.poll_timeout(), world.now);
    world.poll();
    assert_eq!(world.heard().len(), 1);
}

#[test]
fn another_protocol_is_recognized_by_its_first_bytes_and_ends_the_connection() {
    use OtherProtocol::*;
    for (first, protocol) in [
        (&b"GET / HTTP/1.1\r\nHost: pbx\r\n\r\n"[..], Http),
        (b"OPTIONS /health HTTP/1.0\r\n\r\n", Http),
        (
            b"GET /media HTTP/1.1\r\nUPGRADE: WebSocket\r\n\r\n",
            WebSocket,
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Tls),
        (b"OPTIONS sip:pbx SIP/2.0\r\n\r\n", Sip),
        (b"INVITE sips:100@pbx SIP/2.0\r\n\r\n", Sip),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 9092\r\n", Proxy),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Proxy),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Text),
        (b"G", Text),
    ] {
        let mut world = silent();
        world.receive(first);
        assert_eq!(world.events, []);
        assert_eq!(world.reason(), Some(EndReason::OtherProtocol(protocol)));
        assert!(matches!(world.call.phase(), Phase::Closed(_)), "at once");
    }
    // Only the first bytes are examined.
    let mut world = World::new();
    world.receive(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(world.call.phase(), Phase::Running);
}

#[test]
fn a_second_uuid_is_ignored_and_counted() {
    let mut world = World::new();
    world.run(ms(50));
    let before = world.call.poll_timeout();
    world.receive(&uuid_message());
    assert_eq!(world.events, []);
    assert_eq!(world.call.poll_timeout(), before, "the schedule stays");
    assert_eq!(world.call.counters().second_uuids, 1);
}

#[test]
fn audio_and_digits_before_the_uuid_are_dropped_and_counted() {
    let mut world = silent();
    world.receive(&frame(&[1; 160]));
    world.receive(&message(0x03, b"5"));
    world.receive(&uuid_message());
    assert_eq!(world.events, [Event::Identified]);
    assert_eq!(world.call.counters(), counted(|c| c.before_uuid = 2));
}

#[test]
fn digits_come_before_any_audio() {
    let mut world = World::new();
    world.run(ms(30));
    world.receive(&message(0x03, b"#"));
    let offset = ms(30);
    assert_eq!(world.events, [Event::Dtmf { digit: '#', offset }]);
    assert_eq!(world.call.counters().digits, 1);
}

#[test]
fn audio_of_length_0_is_ignored_and_counted() {
    let mut world = World::new();
    world.receive(&message(0x10, &[]));
    world.receive(&message(0x12, &[]));
    assert_eq!(world.events, []);
    assert_eq!(world.call.counters(), counted(|c| c.empty_audio = 2));
    assert_eq!(world.call.rate(), Rate::Slin, "it names no rate");
}

#[test]
fn audio_of_any_other_length_is_one_frame() {
    for length in [1, 2, 321, 65_535] {
        let mut world = World::new();
        let payload = vec![7; length];
        world.receive(&message(0x10, &payload));
        let [Event::Audio { rate, bytes, .. }] = world.events.as_slice() else {
            panic!("{:?}", world.events);
        };
        assert_eq!((*rate, bytes), (Rate::Slin, &payload));
        let counters = world.call.counters();
        assert_eq!(counters.frames_in, 1);
        assert_eq!(counters.odd_lengths, length as u64 % 2);
    }
}

#[test]
fn odd_lengths_are_nothing_special_when_companded() {
    let mut world = World::new();
    world.call.set_companded(true);
    world.receive(&message(0x10, &[0xff; 161]));
    assert_eq!(world.call.counters().odd_lengths, 0);
}

#[test]
fn an_unknown_kind_is_skipped_and_counted() {
    let mut world = World::new();
    let mut bytes = message(0x42, &[0x10; 700]);
    bytes.extend(message(0x03, b"1"));
    for piece in bytes.chunks(100) {
        world.receive(piece);
    }
    assert_eq!(world.events.len(), 1);
    assert_eq!(
        world.call.counters(),
        counted(|c| {
            c.unknown = 1;
            c.digits = 1;
        })
    );
}

#[test]
fn a_known_kind_of_impossible_length_is_skipped_reported_and_counted() {
    let mut world = World::new();
    world.receive(&message(0x03, b"12"));
    let (kind, length) = (Kind::Dtmf, 2);
    assert_eq!(world.events, [Event::Malformed { kind, length }]);
    assert_eq!(world.call.counters(), counted(|c| c.malformed = 1));
    assert_eq!(world.call.phase(), Phase::Running);
}

#[test]
fn a_first_uuid_of_impossible_length_ends_the_call() {
    let mut world = silent();
    world.receive(&message(0x01, &[1; 15]));
    let (kind, length) = (Kind::Uuid, 15);
    assert_eq!(world.events, [Event::Malformed { kind, length }]);
    assert_eq!(world.reason(), Some(EndReason::MalformedIdentity));
    world.run(ms(1));
    assert_eq!(world.wire, [0, 0, 0]);
}

#[test]
fn a_later_uuid_of_impossible_length_does_not() {
    let mut world = World::new();
    world.receive(&message(0x01, &[1; 15]));
    assert_eq!(world.call.phase(), Phase::Running);
    assert_eq!(world.call.counters(), counted(|c| c.malformed = 1));
}

#[test]
fn an_error_is_reported_and_ends_the_call_only_with_the_hangup_bit() {
    let mut world = World::new();
    world.receive(&message(0xff, &[0x06]));
    assert_eq!(world.events, [Event::PeerErrors(6)]);
    assert_eq!(world.call.phase(), Phase::Running);
    world.receive(&message(0xff, &[0x01]));
    assert_eq!(world.reason(), Some(EndReason::HangupMessage));
    assert_eq!(world.call.counters(), counted(|c| c.peer_errors = 2));
}

#[test]
fn a_hangup_ends_the_call_and_what_follows_is_discarded() {
    let mut world = World::new();
    let mut bytes = message(0x00, &[1, 2, 3, 4]);
    bytes.extend(frame(&[1; 160]));
    world.receive(&bytes);
    world.receive(&frame(&[2; 160]));
    assert_eq!(world.events, []);
    assert_eq!(world.reason(), Some(EndReason::HangupMessage));
    let after = 4 + 323 + 323;
    assert_eq!(
        world.call.counters(),
        counted(|c| c.bytes_after_end = after)
    );
    world.run(ms(1));
    assert!(world.wire.is_empty(), "it needs no answer");
    assert!(world.shut.is_some());
}

#[test]
fn everything_in_one_read_is_the_same_as_byte_by_byte() {
    let mut bytes = uuid_message();
    bytes.extend(message(0x03, b"A"));
    bytes.extend(message(0x77, &[1, 2]));
    bytes.extend(frame(&ramp(0, 160)));
    bytes.extend(message(0x12, &[5; 640]));
    bytes.extend(message(0xff, &[2]));
    bytes.extend(message(0x00, &[]));
    let (mut whole, mut cut) = (silent(), silent());
    whole.receive(&bytes);
    for byte in bytes.chunks(1) {
        cut.receive(byte);
    }
    assert_eq!(whole.events.len(), 5);
    assert_eq!(whole.events, cut.events);
    assert_eq!(whole.call.counters(), cut.call.counters());
    assert_eq!(whole.call.phase(), cut.call.phase());
}
