//! What ends a call and what does not, in virtual time.

use std::io;

use sidetone_caller::{EndCause, EndedBy, Generation, Mode, Voice};
use sidetone_proto::{Kind, Rate, Time};

use super::support::{Virtual, caller, frame, ms, us};

fn call() -> Virtual {
    Virtual::new(caller())
}

#[test]
fn whole_messages_of_every_allowed_kind_and_length_are_heard() {
    let mut call = call();
    let mut at = ms(1);
    for kind in 0x10..=0x18 {
        for length in [1, 2, 321, 65535] {
            call.server(at, &frame(kind, length));
            at += ms(1);
        }
    }
    assert_eq!(call.cause(), None);
    let record = call.leg.into_record(Time::ZERO + at);
    assert_eq!(record.heard.len(), 36);
    assert_eq!(record.heard[4].rate, Rate::Slin12);
    assert_eq!(record.heard[35].bytes, 65535);
    assert_eq!(record.heard[2].at, ms(3));
    assert_eq!(
        record.frames().map(|(_, samples)| samples.len()).nth(2),
        Some(160)
    );
}

#[test]
fn a_payload_4_ms_behind_its_header_is_accepted() {
    let mut call = call();
    let message = frame(0x10, 320);
    call.server(ms(100), &message[..3]);
    call.server(ms(104), &message[3..]);
    call.until(ms(150));
    assert_eq!(call.cause(), None);
    assert_eq!(call.leg.into_record(Time::ZERO + ms(150)).heard.len(), 1);
}

#[test]
fn a_payload_6_ms_behind_its_header_ends_the_call() {
    let mut call = call();
    call.server(ms(101), &frame(0x10, 320)[..3]);
    call.until(ms(107));
    assert_eq!(
        call.cause(),
        Some(EndCause::LatePayload { got: 0, of: 320 })
    );
    assert_eq!(call.ended_at(), Some(ms(106)));
}

#[test]
fn each_byte_of_a_payload_restarts_the_wait() {
    let mut call = call();
    let message = frame(0x10, 320);
    call.server(ms(100), &message[..3]);
    for (step, byte) in (1..).zip(&message[3..83]) {
        call.server(ms(100) + us(4900) * step, &[*byte]);
    }
    assert_eq!(call.cause(), None);
    call.until(ms(1000));
    assert_eq!(
        call.cause(),
        Some(EndCause::LatePayload { got: 80, of: 320 })
    );
    assert_eq!(call.ended_at(), Some(ms(100) + us(4900) * 80 + ms(5)));
}

#[test]
fn messages_that_come_in_pieces_are_counted_once_each() {
    let mut call = call();
    let message = frame(0x10, 320);
    call.server(ms(31), &message);
    for start in [ms(41), ms(71)] {
        call.server(start, &message[..3]);
        call.server(start + ms(1), &message[3..100]);
        call.server(start + ms(2), &message[100..]);
    }
    // Cut by the reader's own buffer, and whole before the next poll.
    call.server(ms(91), &message[..3]);
    call.leg.handle_received(Time::ZERO + ms(91), &message[3..]);
    call.until(ms(100));
    let counts = call.leg.into_record(Time::ZERO + ms(100)).counts;
    assert_eq!((counts.frames_heard, counts.in_pieces), (4, 2));
}

#[test]
fn a_header_that_comes_with_another_message_still_needs_its_payload() {
    let mut call = call();
    let mut bytes = frame(0x10, 320);
    bytes.extend_from_slice(&frame(0x10, 320)[..100]);
    call.server(ms(101), &bytes);
    call.until(ms(120));
    assert_eq!(
        call.cause(),
        Some(EndCause::LatePayload { got: 97, of: 320 })
    );
}

#[test]
fn a_last_read_is_asked_for_before_a_payload_counts_as_late() {
    let mut call = call();
    let message = frame(0x10, 320);
    call.server(ms(101), &message[..3]);
    assert!(!call.leg.is_timing_out(Time::ZERO + ms(105)));
    assert!(call.leg.is_timing_out(Time::ZERO + ms(106)));
    // A delayed driver finds that the payload has come.
    call.leg
        .handle_received(Time::ZERO + ms(130), &message[3..]);
    assert!(!call.leg.is_timing_out(Time::ZERO + ms(130)));
}

#[test]
fn header_and_payload_as_two_writes_at_once_are_accepted() {
    let mut call = call();
    let message = frame(0x10, 320);
    call.server(ms(100), &message[..3]);
    call.server(ms(100), &message[3..]);
    call.until(ms(200));
    assert_eq!(call.cause(), None);
}

#[test]
fn a_header_split_by_50_ms_is_accepted_and_delays_the_callers_frames() {
    for cut in [1, 2] {
        let mut call = Virtual::new(caller().hang_up_after(ms(400)));
        let message = frame(0x10, 320);
        call.server(ms(105), &message[..cut]);
        call.server(ms(155), &message[cut..]);
        call.until(ms(400));
        assert_eq!(call.cause(), Some(EndCause::HungUp), "cut after {cut}");
        let sent = call.times_of(0x10);
        assert_eq!(sent.len(), 19);
        assert_eq!(sent[4..8], [ms(100), ms(155), ms(155), ms(160)]);
        assert_eq!(call.leg.into_record(Time::ZERO + ms(400)).heard.len(), 1);
    }
}

#[test]
fn a_header_byte_without_the_rest_freezes_the_call_until_it_hangs_up() {
    let mut call = Virtual::new(caller().hang_up_after(ms(10_000)));
    call.server(ms(105), &[0x10]);
    call.until(ms(9_999));
    assert_eq!(call.cause(), None, "not even 2 s of silence end it");
    assert_eq!(call.times_of(0x10).len(), 5);
    call.until(ms(10_000));
    assert_eq!(call.cause(), Some(EndCause::Frozen { got: 1 }));
}

#[test]
fn a_stop_of_a_frozen_call_reports_that_it_was_frozen() {
    let mut call = call();
    call.server(ms(105), &[0x10, 0x01]);
    call.leg.hang_up(Time::ZERO + ms(200));
    assert_eq!(call.cause(), Some(EndCause::Frozen { got: 2 }));
}

#[test]
fn every_kind_but_hangup_and_audio_ends_the_call() {
    for kind in (0x01..=0x0f).chain(0x19..=0xff) {
        let mut call = call();
        call.server(ms(50), &frame(kind, 16));
        assert_eq!(
            call.cause(),
            Some(EndCause::ForbiddenKind(Kind::from(kind)))
        );
        assert_eq!(call.ended_at(), Some(ms(50)));
        assert!(call.leg.has_unread(), "the server sees a reset");
    }
}

#[test]
fn audio_of_length_zero_ends_the_call() {
    for kind in 0x10..=0x18 {
        let mut call = call();
        call.server(ms(50), &[kind, 0, 0]);
        assert_eq!(call.cause(), Some(EndCause::EmptyAudio));
        assert!(!call.leg.has_unread());
    }
}

#[test]
fn audio_before_a_fatal_message_is_still_heard() {
    let mut call = call();
    let bytes = [frame(0x10, 320), vec![0x03, 0, 1, b'5']].concat();
    call.server(ms(50), &bytes);
    assert_eq!(call.cause(), Some(EndCause::ForbiddenKind(Kind::Dtmf)));
    assert_eq!(call.leg.into_record(Time::ZERO + ms(50)).heard.len(), 1);
}

#[test]
fn a_hangup_message_ends_the_call_for_the_server() {
    let mut call = call();
    call.server(ms(50), &[0, 0, 0]);
    assert_eq!(call.cause(), Some(EndCause::ServerHungUp));
    assert_eq!(call.leg.ended().unwrap().by(), EndedBy::Server);
    assert!(!call.cause().unwrap().is_fault());
    assert!(!call.leg.has_unread());
    let sent = call.sent.len();
    call.until(ms(100));
    assert_eq!(call.sent.len(), sent, "nothing leaves after the end");
    let record = call.leg.into_record(Time::ZERO + ms(100));
    assert_eq!(record.counts.in_pieces, 0, "it came whole");
    assert_eq!(record.ended.at, ms(50));
}

#[test]
fn bytes_after_a_hangup_message_stay_unread() {
    let mut call = call();
    call.server(ms(50), &[0, 0, 0, 0x10]);
    assert_eq!(call.cause(), Some(EndCause::ServerHungUp));
    assert!(call.leg.has_unread());
}

#[test]
fn the_end_of_the_stream_is_a_hangup_between_messages_and_a_fault_inside_a_payload() {
    let mut between = call();
    between.leg.handle_fin(Time::ZERO + ms(30));
    assert_eq!(between.cause(), Some(EndCause::ServerClosed));

    let mut header = call();
    header.server(ms(30), &[0x10]);
    header.leg.handle_fin(Time::ZERO + ms(30));
    assert_eq!(header.cause(), Some(EndCause::ServerClosed));

    let mut payload = call();
    payload.server(ms(30), &frame(0x10, 320)[..10]);
    payload.leg.handle_fin(Time::ZERO + ms(31));
    assert_eq!(
        payload.cause(),
        Some(EndCause::CutPayload { got: 7, of: 320 })
    );
}

#[test]
fn a_reset_is_distinguished_from_other_errors() {
    for (error, cause) in [
        (io::ErrorKind::ConnectionReset, EndCause::ServerReset),
        (io::ErrorKind::BrokenPipe, EndCause::ServerReset),
        (
            io::ErrorKind::HostUnreachable,
            EndCause::ConnectionFailed(io::ErrorKind::HostUnreachable),
        ),
    ] {
        let mut call = call();
        call.leg.handle_error(Time::ZERO + ms(10), error);
        assert_eq!(call.cause(), Some(cause));
        assert_eq!(call.leg.ended().unwrap().by(), EndedBy::Connection);
    }
}

#[test]
fn a_write_of_less_than_a_whole_message_ends_the_call() {
    for taken in [0, 169, 322] {
        let mut call = call();
        call.until(ms(39));
        let mut wire = Vec::new();
        let now = Time::ZERO + ms(40);
        call.leg.poll(now, &mut wire);
        assert_eq!(wire.len(), 323);
        call.leg.handle_written(now, taken);
        let (written, of) = (taken, 323);
        assert_eq!(call.cause(), Some(EndCause::ShortWrite { written, of }));
        let record = call.leg.into_record(now);
        assert_eq!(record.counts.frames_sent, 1);
        assert_eq!(record.sent_samples().len(), 160);
    }
}

#[test]
fn two_seconds_of_silence_both_ways_end_the_call_in_the_application() {
    let mut call = Virtual::new(caller().say(Voice::Nothing));
    call.until(ms(1999));
    assert_eq!(call.cause(), None);
    call.until(ms(2000));
    assert_eq!(call.cause(), Some(EndCause::Silence));
    assert!(
        call.cause()
            .unwrap()
            .asterisk_log()
            .unwrap()
            .contains("2000 ms")
    );
}

#[test]
fn one_frame_of_the_server_every_1900_ms_keeps_a_silent_caller() {
    let mut call = Virtual::new(caller().say(Voice::Nothing));
    for n in 1..=5 {
        call.server(ms(1900) * n, &frame(0x10, 320));
    }
    assert_eq!(call.cause(), None);
    call.until(ms(60_000));
    assert_eq!(call.ended_at(), Some(ms(5 * 1900 + 2000)));
}

#[test]
fn the_callers_own_frames_keep_a_call_with_a_silent_server() {
    let mut call = call();
    call.until(ms(10_000));
    assert_eq!(call.cause(), None);
}

#[test]
fn a_digit_counts_against_the_silence() {
    let mut call = Virtual::new(caller().say(Voice::Nothing).dtmf("5", ms(1500)));
    call.until(ms(60_000));
    assert_eq!(call.ended_at(), Some(ms(3500)));
}

#[test]
fn the_channel_driver_has_no_silence_limit() {
    let mut call = Virtual::new(caller().mode(Mode::Channel).say(Voice::Nothing));
    call.until(ms(3_600_000));
    assert_eq!(call.cause(), None);
}

#[test]
fn nothing_is_read_before_the_uuid_is_sent() {
    let mut call = Virtual::new(caller().uuid_after(ms(5000)));
    assert!(call.sent.is_empty());
    assert!(!call.leg.wants_to_read(Time::ZERO + ms(4999)));
    call.until(ms(5000));
    assert_eq!(call.times_of(0x01), [ms(5000)]);
    assert!(call.leg.wants_to_read(Time::ZERO + ms(5000)));
    // Times count from the UUID.
    call.until(ms(5020));
    assert_eq!(call.times_of(0x10), [ms(5020)]);
}

#[test]
fn a_caller_that_stops_reading_goes_on_sending_and_reads_again() {
    let caller = caller().stop_reading_between(ms(1000), ms(11_000));
    let mut call = Virtual::new(caller);
    call.until(ms(10_999));
    assert!(!call.leg.wants_to_read(Time::ZERO + ms(10_999)));
    assert_eq!(call.times_of(0x10).len(), 549);
    assert!(call.leg.wants_to_read(Time::ZERO + ms(11_000)));
    assert_eq!(call.cause(), None);
}

#[test]
fn without_wideband_its_kinds_are_unknown_and_its_audio_leaves_as_0x10() {
    let mut rules = Generation::G.rules();
    rules.wideband = false;
    let codec = sidetone_caller::Codec::Slin(Rate::Slin16);
    let mut call = Virtual::new(caller().rules(rules).codec(codec));
    call.until(ms(20));
    assert_eq!(call.sent[1].1[..3], [0x10, 0x02, 0x80]);
    call.server(ms(30), &frame(0x12, 640));
    assert_eq!(
        call.cause(),
        Some(EndCause::ForbiddenKind(Kind::Audio(Rate::Slin16)))
    );
}

#[test]
fn without_dtmf_digits_are_not_sent() {
    let mut rules = Generation::G.rules();
    rules.dtmf = false;
    let mut call = Virtual::new(caller().rules(rules).dtmf("12", ms(100)));
    call.until(ms(1000));
    assert!(call.times_of(0x03).is_empty());
    assert_eq!(call.times_of(0x10).len(), 50);
}

#[test]
fn the_wait_for_a_payload_is_a_rule_of_the_generation() {
    let mut rules = Generation::G.rules();
    rules.payload_wait = ms(50);
    let mut call = Virtual::new(caller().rules(rules));
    call.server(ms(101), &frame(0x10, 320)[..3]);
    call.until(ms(150));
    assert_eq!(call.cause(), None);
    call.until(ms(151));
    assert!(matches!(call.cause(), Some(EndCause::LatePayload { .. })));
}
