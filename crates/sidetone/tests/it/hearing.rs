//! What a handler hears: linear samples, whatever the line carries.
#![allow(clippy::unwrap_used)]

use crate::support::{IoBackend, builder, call, millis, over_each_back_end, serve};
use futures_util::StreamExt;
use macro_rules_attribute::apply;
use sidetone::{Call, Chunk, Codec, CodecNotice, EndReason, Event, OwnedEvent, Rate};
use sidetone_audio::{
    tone::caller_voice,
    vad::{VoiceDetector, VoiceEvent},
};
use sidetone_caller::{Caller, Codec as Sends, Generation, Voice, exact_runs, ramp};
use tokio::sync::mpsc::unbounded_channel;

/// A handler under `codec` hears, bit by bit, what a caller that sends `sends` said.
async fn hears(io: IoBackend, codec: Codec, sends: Sends) {
    hears_from(io, codec, sends, |caller| caller).await;
}

/// The same from a caller with a peculiarity; what was noticed about it.
async fn hears_from(
    io: IoBackend,
    codec: Codec,
    sends: Sends,
    peculiar: impl FnOnce(Caller) -> Caller,
) -> Vec<CodecNotice> {
    let (told, mut heard) = unbounded_channel();
    // Whatever else the machine does, nothing is dropped because this handler comes to it late.
    let settings = builder(io).codec(codec).receive_buffer(millis(5000));
    let server = serve(settings, move |mut call: Call| {
        let told = told.clone();
        async move {
            let (mut all, mut notices) = (Vec::new(), Vec::new());
            let mut end = millis(0);
            while let Some(event) = call.next().await {
                match event {
                    Event::Audio(frame) => {
                        assert_eq!(frame.rate(), sends.rate());
                        assert!(frame.offset() >= end, "{end:?}: {frame:?}");
                        end = frame.offset() + frame.duration();
                        all.extend_from_slice(frame.samples());
                    }
                    Event::Codec(notice) => notices.push(notice),
                    _ => {}
                }
            }
            told.send((all, notices)).unwrap();
        }
    })
    .await;
    let caller = server
        .caller()
        .codec(sends)
        .say(Voice::Ramp(1))
        .hang_up_after(millis(600));
    let record = call(peculiar(caller)).await;
    let (heard, notices) = heard.recv().await.unwrap();
    let runs = exact_runs(record.sent_samples(), &heard);
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0].length, record.sent_samples().len());
    let summary = server.end().await.remove(0);
    assert_eq!((summary.codec, summary.lagged), (codec, 0));
    assert_eq!(summary.inbound_rate, sends.rate());
    notices
}

/// As Asterisk up to the releases that have kinds for more than 8 kHz.
fn without_wideband_kinds(caller: Caller) -> Caller {
    let mut rules = Generation::G.rules();
    rules.wideband = false;
    caller.rules(rules)
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn wideband_under_the_kind_of_8_khz_is_heard_at_its_rate(io: IoBackend) {
    for rate in [Rate::Slin12, Rate::Slin16, Rate::Slin48] {
        let notices = hears_from(io, Codec::Slin, Sends::Slin(rate), without_wideband_kinds).await;
        assert_eq!(notices, [CodecNotice::Wideband { rate }]);
        let text = notices[0].to_string();
        let (name, hz) = (rate.name(), rate.hz().to_string());
        for part in [name, &hz, "UUID/c(slin)", "20.17, 21.12, 22.7, 23.1"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn long_frames_of_8_khz_are_not_taken_for_wideband(io: IoBackend) {
    for length in [30, 40, 60] {
        let long = |caller: Caller| caller.ptime(millis(length));
        let notices = hears_from(io, Codec::Slin, Sends::Slin(Rate::Slin), long).await;
        assert_eq!(notices, []);
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_back_of_a_short_call_is_heard(io: IoBackend) {
    let short = |caller: Caller| caller.ptime(millis(40)).hang_up_after(millis(90));
    let notices = hears_from(io, Codec::Slin, Sends::Slin(Rate::Slin), short).await;
    assert_eq!(notices, []);
}

/// What a server of `codec` notices about a caller, and how much audio its handler gets after the first notice.
async fn noticed(
    io: IoBackend,
    codec: Codec,
    caller: impl FnOnce(Caller) -> Caller,
) -> (Vec<CodecNotice>, usize) {
    let (told, mut heard) = unbounded_channel();
    let server = serve(builder(io).codec(codec), move |mut call: Call| {
        let told = told.clone();
        async move {
            let (mut notices, mut after) = (Vec::new(), 0);
            while let Some(event) = call.next().await {
                match event {
                    Event::Codec(notice) => notices.push(notice),
                    Event::Audio(_) if !notices.is_empty() => after += 1,
                    _ => {}
                }
            }
            told.send((notices, after)).unwrap();
        }
    })
    .await;
    call(caller(server.caller())).await;
    server.end().await;
    heard.recv().await.unwrap()
}

/// White noise, which no codec makes more likely than another.
fn noise(milliseconds: u64) -> Vec<i16> {
    let mut state = 1_u64;
    let samples = (0..milliseconds * 8).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 48) as i16) / 4
    });
    samples.collect()
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn audio_that_is_known_to_be_wrong_is_not_heard(io: IoBackend) {
    for (set, sends) in [
        (Codec::Slin, Sends::Ulaw),
        (Codec::Slin, Sends::Alaw),
        (Codec::Ulaw, Sends::Slin(Rate::Slin)),
        (Codec::Alaw, Sends::Slin(Rate::Slin)),
    ] {
        let said = |caller: Caller| {
            let voice = caller.codec(sends).say(Voice::Ramp(1));
            voice.hang_up_after(millis(1_500))
        };
        let (notices, heard) = noticed(io, set, said).await;
        let [CodecNotice::Mismatch { expected, .. }] = notices[..] else {
            panic!("{set} and {sends:?}: {notices:?}");
        };
        assert_eq!((expected, heard), (set, 0));
        let text = notices[0].to_string();
        assert!(text.contains(&format!("c({set})")), "{text}");
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn sound_that_tells_no_codec_is_told_within_two_seconds(io: IoBackend) {
    let said = |caller: Caller| {
        let caller = caller.codec(Sends::Ulaw).say(noise(2_000));
        caller.hang_up_after(millis(2_000))
    };
    let (notices, heard) = noticed(io, Codec::Auto, said).await;
    assert_eq!((notices, heard), (vec![CodecNotice::Undecided], 0));
    // Silence is none.
    let silent = |caller: Caller| caller.codec(Sends::Ulaw).hang_up_after(millis(2_500));
    assert_eq!(noticed(io, Codec::Auto, silent).await, (vec![], 0));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn wideband_under_the_kind_of_8_khz_is_found_by_auto_too(io: IoBackend) {
    for rate in [Rate::Slin12, Rate::Slin16, Rate::Slin48] {
        let said = |caller: Caller| {
            let caller = caller.codec(Sends::Slin(rate)).say(Voice::Ramp(1));
            without_wideband_kinds(caller).hang_up_after(millis(1_200))
        };
        let (notices, heard) = noticed(io, Codec::Auto, said).await;
        assert_eq!(notices, [CodecNotice::Wideband { rate }]);
        assert!(heard > 0);
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn slin_is_heard_as_it_was_said(io: IoBackend) {
    hears(io, Codec::Slin, Sends::Slin(Rate::Slin)).await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn mu_law_is_heard_as_linear_samples(io: IoBackend) {
    hears(io, Codec::Ulaw, Sends::Ulaw).await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_law_is_heard_as_linear_samples(io: IoBackend) {
    hears(io, Codec::Alaw, Sends::Alaw).await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn audio_comes_in_chunks_of_the_length_asked_for_and_the_last_is_shorter(io: IoBackend) {
    let (told, mut chunks) = unbounded_channel();
    let settings = builder(io).receive_buffer(millis(5_000));
    let server = serve(settings, move |mut call: Call| {
        let told = told.clone();
        async move {
            while let Some(chunk) = call.audio(millis(100)).await {
                told.send(chunk).unwrap();
            }
        }
    })
    .await;
    let caller = server
        .caller()
        .say(Voice::Ramp(1))
        .hang_up_after(millis(570));
    let record = call(caller).await;
    server.end().await;
    let mut all: Vec<Chunk> = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        all.push(chunk);
    }
    let whole = all
        .iter()
        .take_while(|chunk| chunk.samples().len() == 800)
        .count();
    assert_eq!(whole, record.sent_samples().len() / 800);
    assert!(whole + 1 >= all.len(), "{whole} of {}", all.len());
    let samples: Vec<i16> = all
        .iter()
        .flat_map(|chunk| chunk.samples().to_vec())
        .collect();
    assert_eq!(samples, record.sent_samples());
    for pair in all.windows(2) {
        assert!(pair[1].offset() >= pair[0].offset() + millis(100));
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn one_half_hears_while_the_other_speaks_and_the_call_lives_with_the_last(io: IoBackend) {
    let server = serve(builder(io), |call: Call| async {
        let (mut reader, writer) = call.split();
        let speaking = tokio::spawn(async move {
            let mut player = writer.player(8_000).unwrap();
            player.play(&ramp(9, 0, 4_000)).await.unwrap();
            player.drained().await.unwrap();
            writer
        });
        let mut heard = Vec::new();
        while heard.len() < 1_600 {
            let chunk = reader.audio(millis(20)).await.unwrap();
            heard.extend(chunk.into_samples());
        }
        drop(reader);
        let writer = speaking.await.unwrap();
        assert_eq!(
            writer.handle().ended(),
            None,
            "it lives with its other half"
        );
        writer.player(8_000).unwrap().play(&heard).await.unwrap();
    })
    .await;
    let record = call(
        server
            .caller()
            .say(Voice::Ramp(1))
            .hang_up_after(millis(20_000)),
    )
    .await;
    assert_eq!(record.find(&ramp(9, 0, 4_000))[0].length, 4_000);
    assert_eq!(record.echo()[0].length, 1_600);
    assert_eq!(server.end().await[0].reason, EndReason::Finished);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn digits_come_in_order_among_the_audio(io: IoBackend) {
    let (told, mut digits) = unbounded_channel();
    let server = serve(builder(io), move |mut call: Call| {
        let told = told.clone();
        async move {
            while let Some(event) = call.next().await {
                if let Event::Dtmf(digit) = event {
                    told.send(digit).unwrap();
                    if digit == 'D' {
                        return;
                    }
                }
            }
        }
    })
    .await;
    let caller: Caller = server.caller().say(Voice::Ramp(1));
    let caller = caller.dtmf("0123456789*#ABCD", millis(100));
    call(caller.hang_up_after(millis(60_000))).await;
    server.end().await;
    let mut all = String::new();
    while let Some(digit) = digits.recv().await {
        all.push(digit);
    }
    assert_eq!(all, "0123456789*#ABCD");
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_every_event_and_ends_after_the_end_of_the_call(io: IoBackend) {
    let (told, mut events) = unbounded_channel();
    let settings = builder(io).receive_buffer(millis(5_000));
    let server = serve(settings, move |call: Call| {
        let told = told.clone();
        async move {
            told.send(call.into_stream().collect::<Vec<_>>().await)
                .unwrap()
        }
    })
    .await;
    let caller = server.caller().say(Voice::Ramp(1)).dtmf("12", millis(100));
    let record = call(caller.hang_up_after(millis(600))).await;
    let (mut samples, mut digits, mut others) = (Vec::new(), String::new(), Vec::new());
    for event in events.recv().await.unwrap() {
        match event {
            OwnedEvent::Audio(frame) => samples.extend(frame.into_samples()),
            OwnedEvent::Dtmf(digit) => digits.push(digit),
            other => others.push(other),
        }
    }
    let pressed: String = record.digits.iter().map(|sent| sent.digit).collect();
    assert_eq!(
        (samples.as_slice(), digits),
        (record.sent_samples(), pressed)
    );
    let reason = server.end().await[0].reason;
    assert_eq!(others.last(), Some(&OwnedEvent::Ended(reason)));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_lives_as_long_as_its_stream(io: IoBackend) {
    let server = serve(builder(io), |call: Call| async {
        let handle = call.handle();
        let mut events = call.into_stream();
        events.next().await;
        assert_eq!(handle.ended(), None);
        drop(events);
        assert_eq!(handle.closed().await, EndReason::Finished);
    })
    .await;
    call(server.caller().say(Voice::Ramp(1))).await;
    assert_eq!(server.end().await[0].reason, EndReason::Finished);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_mutes_the_phone_has_ceased_to_speak(io: IoBackend) {
    let (told, mut ended) = unbounded_channel();
    let server = serve(builder(io), move |mut call: Call| {
        let told = told.clone();
        async move {
            let mut detector = VoiceDetector::new(8000).unwrap();
            while let Some(event) = call.next().await {
                let heard: Vec<_> = match event {
                    Event::Audio(frame) => detector.push(frame.samples()).collect(),
                    Event::NoAudio { duration, .. } => detector.push_silence(duration).collect(),
                    _ => continue,
                };
                for voice in heard {
                    let ends = matches!(voice, VoiceEvent::SpeechEnded { .. });
                    told.send(ends).unwrap();
                }
            }
        }
    })
    .await;
    // Two seconds of speech, and not a frame more.
    let speech = caller_voice(8000, millis(2000), 7);
    let voice = Voice::made(move |frame, payload| {
        let samples = speech.chunks(160).nth(frame as usize).unwrap_or_default();
        payload.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    });
    let caller = server.caller().say(voice).hang_up_after(millis(3500));
    let record = call(caller).await;
    assert_eq!(record.sent_samples().len(), 16_000);
    server.end().await;
    let mut last = None;
    while let Some(ends) = ended.recv().await {
        last = Some(ends);
    }
    assert_eq!(last, Some(true));
}
