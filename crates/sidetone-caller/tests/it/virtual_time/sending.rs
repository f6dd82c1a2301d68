//! What a caller sends and when, in virtual time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sidetone_caller::{CallerError, Codec, Event, Leg, Voice, ramp};
use sidetone_proto::{Rate, Time};
use uuid::Uuid;

use super::support::{Virtual, caller, frame, ms, us};

#[test]
fn the_uuid_is_the_first_message() {
    let uuid = Uuid::from_u128(0x1234);
    let call = Virtual::new(caller().uuid(uuid));
    let (at, message) = &call.sent[0];
    assert_eq!(*at, Duration::ZERO);
    assert_eq!(message[..3], [0x01, 0x00, 0x10]);
    assert_eq!(message[3..], *uuid.as_bytes());
}

#[test]
fn an_hour_of_frames_is_sent_every_20_ms() {
    let mut call = Virtual::new(caller().say(Voice::Nothing));
    assert!(call.times_of(0x10).is_empty());
    call = Virtual::new(caller());
    call.until(Duration::from_secs(3600));
    let times = call.times_of(0x10);
    assert_eq!(times.len(), 180_000);
    for (n, at) in (1..).zip(times) {
        assert_eq!(at, ms(20) * n);
    }
}

#[test]
fn jitter_keeps_the_mean_and_stays_within_asterisks_spread() {
    let mut call = Virtual::new(caller().jitter(3));
    call.until(Duration::from_secs(200));
    let times = call.times_of(0x10);
    assert!((9_999..=10_000).contains(&times.len()));
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (least, most) = (*gaps.iter().min().unwrap(), *gaps.iter().max().unwrap());
    assert!(least >= us(14_500) && least < us(16_000), "{least:?}");
    assert!(most <= us(25_500) && most > us(24_000), "{most:?}");

    let mut again = Virtual::new(caller().jitter(3));
    again.until(Duration::from_secs(200));
    assert_eq!(
        again.times_of(0x10),
        times,
        "the same seed gives the same spacing"
    );
}

#[test]
fn every_codec_has_its_kind_and_length() {
    let rates = [320, 480, 640, 960, 1280, 1764, 1920, 3840, 7680];
    for (rate, length) in Rate::ALL.into_iter().zip(rates) {
        check(Codec::Slin(rate), rate.code(), length, [0, 0]);
    }
    check(Codec::Ulaw, 0x10, 160, [0xff, 0xff]);
    check(Codec::Alaw, 0x10, 160, [0xd5, 0xd5]);

    fn check(codec: Codec, kind: u8, length: usize, silence: [u8; 2]) {
        let mut call = Virtual::new(caller().codec(codec));
        call.until(ms(20));
        let message = &call.sent[1].1;
        assert_eq!(message.len(), 3 + length, "{codec:?}");
        assert_eq!(message[0], kind);
        assert_eq!(
            usize::from(u16::from_be_bytes([message[1], message[2]])),
            length
        );
        assert_eq!(message[3..5], silence);
    }
}

#[test]
fn another_ptime_changes_spacing_and_length() {
    let mut call = Virtual::new(caller().codec(Codec::Ulaw).ptime(ms(30)));
    call.until(ms(300));
    assert_eq!(call.times_of(0x10).len(), 10);
    assert_eq!(call.sent[1].1.len(), 3 + 240);
}

#[test]
fn samples_are_sent_once_and_then_silence() {
    let samples = ramp(5, 0, 250);
    let mut call = Virtual::new(caller().say(samples.clone()));
    call.until(ms(60));
    let record = call.leg.into_record(Time::ZERO + ms(60));
    assert_eq!(record.sent_samples()[..250], samples);
    assert_eq!(record.sent_samples()[250..], vec![0; 480 - 250]);
    assert_eq!(record.counts.frames_sent, 3);
}

#[test]
fn the_ramp_runs_on_across_frames_without_an_end() {
    let mut call = Virtual::new(
        caller()
            .say(Voice::Ramp(9))
            .codec(Codec::Slin(Rate::Slin16)),
    );
    call.until(ms(1000));
    let record = call.leg.into_record(Time::ZERO + ms(1000));
    assert_eq!(record.sent_samples(), ramp(9, 0, 16_000));
}

#[test]
fn companded_audio_is_recorded_as_the_codec_decodes_it() {
    let mut call = Virtual::new(caller().say(vec![32124; 160]).codec(Codec::Ulaw));
    call.until(ms(20));
    assert_eq!(call.sent[1].1[3..], [0x80; 160]);
    let record = call.leg.into_record(Time::ZERO + ms(20));
    assert_eq!(record.sent_samples(), [32124; 160]);
}

#[test]
fn payloads_go_out_as_they_are_and_empty_ones_leave_their_frame_out() {
    let payloads = vec![vec![1], vec![], vec![2; 65535], vec![3; 33]];
    let mut call = Virtual::new(caller().say(payloads));
    call.until(ms(80));
    let lengths: Vec<_> = call.sent[1..]
        .iter()
        .map(|(at, sent)| (*at, sent.len() - 3))
        .collect();
    assert_eq!(lengths, [(ms(20), 1), (ms(60), 65535), (ms(80), 33)]);
}

#[test]
fn a_closure_makes_each_frame() {
    let voice = Voice::made(|frame, payload| payload.resize(2 + frame as usize, 7));
    let mut call = Virtual::new(caller().say(voice));
    call.until(ms(60));
    let lengths: Vec<_> = call.sent[1..]
        .iter()
        .map(|(_, sent)| sent.len() - 3)
        .collect();
    assert_eq!(lengths, [2, 3, 4]);
}

#[test]
fn a_mute_leaves_frames_out_and_no_samples() {
    let caller = caller().say(Voice::Ramp(2)).mute_between(ms(100), ms(200));
    let mut call = Virtual::new(caller);
    call.until(ms(300));
    let times = call.times_of(0x10);
    assert_eq!(times[3..6], [ms(80), ms(200), ms(220)]);
    let record = call.leg.into_record(Time::ZERO + ms(300));
    assert_eq!(record.sent_samples(), ramp(2, 0, times.len() * 160));
}

#[test]
fn a_mute_without_an_end_is_skipped_at_once() {
    let caller = caller().jitter(1).mute_between(ms(100), Duration::MAX);
    let mut call = Virtual::new(caller);
    call.until(ms(2000));
    assert_eq!(call.times_of(0x10).len(), 4);
}

#[test]
fn digits_are_messages_250_ms_apart_between_the_frames() {
    let caller = caller().dtmf("12#", ms(505)).dtmf("D", ms(100));
    let mut call = Virtual::new(caller);
    call.until(ms(1500));
    assert_eq!(call.times_of(0x03), [ms(100), ms(505), ms(755), ms(1005)]);
    let digits: Vec<_> = call
        .sent
        .iter()
        .filter(|(_, sent)| sent[0] == 0x03)
        .collect();
    assert_eq!(digits[1].1, [0x03, 0, 1, b'1']);
    assert_eq!(digits[3].1, [0x03, 0, 1, b'#']);
    assert_eq!(call.times_of(0x10).len(), 75, "no frame is missing");
    let record = call.leg.into_record(Time::ZERO + ms(1500));
    let row: String = record.digits.iter().map(|sent| sent.digit).collect();
    assert_eq!(row, "D12#");
}

#[test]
fn a_call_is_hung_up_when_its_time_is_over() {
    let mut call = Virtual::new(caller().hang_up_after(ms(1000)));
    call.until(ms(5000));
    assert_eq!(call.ended_at(), Some(ms(1000)));
    assert_eq!(
        call.times_of(0x10).len(),
        49,
        "the hang-up comes before the frame that is due at the same time"
    );
}

#[test]
fn a_delayed_driver_sends_what_is_overdue() {
    let mut call = Virtual::new(caller());
    call.until(ms(100));
    call.now = ms(200);
    call.until(ms(200));
    let times = call.times_of(0x10);
    assert_eq!(times.len(), 10);
    assert_eq!(times[5..], [ms(200); 5]);
}

#[test]
fn counts_only_keeps_counts() {
    let mut call = Virtual::new(caller().counts_only().dtmf("1", ms(30)));
    for n in 1..=3 {
        call.server(ms(20) * n, &frame(0x10, 320));
    }
    call.server(ms(100), &frame(0x10, 320));
    let record = call.leg.into_record(Time::ZERO + ms(100));
    assert!(record.heard.is_empty() && record.sent.is_empty() && record.digits.is_empty());
    assert!(record.heard_samples().is_empty() && record.sent_samples().is_empty());
    let counts = record.counts;
    assert_eq!((counts.frames_heard, counts.bytes_heard), (4, 1280));
    assert_eq!((counts.frames_sent, counts.digits_sent), (5, 1));
    assert_eq!(counts.first_audio_at, Some(ms(20)));
    assert_eq!(counts.longest_gap, ms(40));
}

#[test]
fn an_observer_sees_the_call_in_order() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let caller = caller()
        .dtmf("7", ms(30))
        .hang_up_after(ms(50))
        .observe(move |event| {
            log.lock().unwrap().push(match event {
                Event::Connected { .. } => "connected".to_owned(),
                Event::Heard { at, rate, samples } => {
                    format!("heard {} {} {}", at.as_millis(), rate.name(), samples.len())
                }
                Event::Sent { at, bytes, .. } => format!("sent {} {bytes}", at.as_millis()),
                Event::Digit { at, digit } => format!("digit {} {digit}", at.as_millis()),
                Event::Ended(ended) => format!("ended {} {:?}", ended.at.as_millis(), ended.cause),
                other => panic!("{other:?}"),
            });
        });
    let mut call = Virtual::new(caller);
    call.server(ms(25), &frame(0x12, 640));
    call.until(ms(100));
    assert_eq!(
        *events.lock().unwrap(),
        [
            "connected",
            "sent 20 320",
            "heard 25 slin16 320",
            "digit 30 7",
            "sent 40 320",
            "ended 50 HungUp"
        ]
    );
}

#[test]
fn a_caller_with_an_invalid_digit_or_frame_makes_no_leg() {
    let digit = Leg::new(caller().dtmf("1x", ms(0)));
    assert!(matches!(digit, Err(CallerError::InvalidDigit('x'))));
    for ptime in [us(124), Duration::from_secs(5)] {
        let frame = Leg::new(caller().ptime(ptime));
        assert!(matches!(frame, Err(CallerError::InvalidFrame(_))));
    }
}
