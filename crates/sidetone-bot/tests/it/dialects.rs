//! The other dialects, over a socket.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use sidetone::{Codec, EndReason, Rate};
use sidetone_bot::{
    Bot, BotEnd,
    dialect::{Asterisk, AudioFormat, Plivo, Vonage},
};
use sidetone_caller::{CallRecord, Codec as CallerCodec, EndCause, Voice, exact_runs, ramp};
use tokio::sync::watch;
use tokio_websockets::{Config, Message, ServerBuilder};

use crate::support::{
    Calls, Hearing, Peer, assert_heard, bot, bot_at, call_as, hearing, listen, millis, only,
    sounding, speech,
};

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|it| it.to_le_bytes()).collect()
}

/// A bot for Asterisk's WebSocket channel: it takes one call, and does `script`.
async fn channel<F, Fut>(script: F) -> Bot
where
    F: FnOnce(Peer, Value) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let media = HeaderValue::from_static("media");
        let protocol = HeaderName::from_static("sec-websocket-protocol");
        let builder = ServerBuilder::new().add_header(protocol.clone(), media.clone());
        let (request, socket) = builder.unwrap().accept(stream).await.unwrap();
        assert_eq!(request.headers().get(&protocol), Some(&media));
        let mut bot = Peer(socket);
        let start = bot.next().await.unwrap();
        assert_eq!(start["event"], "MEDIA_START");
        assert_eq!(start["channel_variables"]["from"], "+4930123");
        script(bot, start).await;
    });
    bot_at(&address, Asterisk::default())
}

async fn command(bot: &mut Peer, command: &str) {
    bot.send(json!({"command": command})).await;
}

/// What a bot got and sent back.
type Echoed = Arc<Mutex<Vec<u8>>>;

/// Sends back what comes, `frames` times.
async fn echo(bot: &mut Peer, frames: usize, echoed: &Echoed) {
    let mut count = 0;
    while count < frames {
        let message = bot.0.next().await.unwrap().unwrap();
        if message.is_binary() {
            echoed
                .lock()
                .unwrap()
                .extend_from_slice(message.as_payload());
            bot.0
                .send(Message::binary(message.into_payload()))
                .await
                .unwrap();
            count += 1;
        }
    }
}

/// What the bot got is what the caller said, and what the caller heard first is what the bot sent. Silence may lie
/// between, where frames came late.
#[track_caller]
fn assert_echoed(record: &CallRecord, format: AudioFormat, echoed: &Echoed, frames: usize) {
    let mut samples = Vec::new();
    format.decode(&echoed.lock().unwrap(), &mut samples);
    assert_eq!(samples.len(), frames * format.hz as usize / 50);
    let echoed: Vec<i16> = sounding(&samples);
    assert!(echoed.len() > samples.len() / 2);
    let (heard, sent): (Vec<_>, Vec<_>) = (
        sounding(record.heard_samples()),
        sounding(record.sent_samples()),
    );
    assert_eq!(only(exact_runs(&sent, &echoed)).length, echoed.len());
    let back = only(exact_runs(&echoed, &heard));
    assert_eq!((back.source, back.heard, back.length), (0, 0, echoed.len()));
}

#[tokio::test]
async fn asterisk_speech_is_paused_flushed_and_marked_to_the_frame() {
    let (settings, mut hearing) = hearing();
    let bot = channel(move |mut bot, start| async move {
        assert_eq!(
            (&start["format"], &start["optimal_frame_size"]),
            (&json!("slin"), &json!(320))
        );
        command(&mut bot, "ANSWER").await;
        bot.send_binary(bytes(&speech(1, 8_000))).await;
        bot.send(json!({"command": "MARK_MEDIA", "correlation_id": "one"}))
            .await;
        hearing.wait_for(|it| it.sounding > 1_600).await.unwrap();
        command(&mut bot, "PAUSE_MEDIA").await;
        hearing.wait_for(|it| it.silent >= 8_000).await.unwrap();
        command(&mut bot, "CONTINUE_MEDIA").await;
        let mark = bot.event("MEDIA_MARK_PROCESSED").await;
        assert_eq!(mark["correlation_id"], "one");
        // In bulk, in pieces that are no frames.
        command(&mut bot, "START_MEDIA_BUFFERING").await;
        for piece in bytes(&speech(2, 4_000)).chunks(333) {
            bot.send_binary(piece.to_vec()).await;
        }
        bot.send(json!({"command": "STOP_MEDIA_BUFFERING", "correlation_id": "b1"}))
            .await;
        command(&mut bot, "REPORT_QUEUE_DRAINED").await;
        let completed = bot.event("MEDIA_BUFFERING_COMPLETED").await;
        assert_eq!(completed["correlation_id"], "b1");
        bot.event("QUEUE_DRAINED").await;
        // A flush drops marks and ends no pause.
        command(&mut bot, "PAUSE_MEDIA").await;
        bot.send_binary(bytes(&speech(3, 8_000))).await;
        bot.send(json!({"command": "MARK_MEDIA", "correlation_id": "flushed"}))
            .await;
        command(&mut bot, "FLUSH_MEDIA").await;
        bot.send_binary(bytes(&speech(4, 1_600))).await;
        bot.send(json!({"command": "MARK_MEDIA", "correlation_id": "kept"}))
            .await;
        let silent = hearing.borrow().silent;
        let later = hearing.wait_for(|it| it.silent >= silent + 1_600).await;
        later.map(drop).unwrap();
        command(&mut bot, "GET_STATUS").await;
        let status = bot.event("STATUS").await;
        assert_eq!(
            (&status["queue_length"], &status["media_paused"]),
            (&json!(10), &json!(true))
        );
        command(&mut bot, "CONTINUE_MEDIA").await;
        let mark = bot.event("MEDIA_MARK_PROCESSED").await;
        assert_eq!(mark["correlation_id"], "kept");
        command(&mut bot, "HANGUP").await;
        assert_eq!(bot.next().await, None);
    })
    .await;
    let outcome = call_as(bot, settings).await;
    assert_eq!(outcome.result, Ok(BotEnd::Call(EndReason::HungUp)));
    assert_eq!(outcome.record.ended.cause, EndCause::ServerHungUp);
    let [before, after] = outcome.record.find(&speech(1, 8_000))[..] else {
        panic!("{:?}", outcome.record.find(&speech(1, 8_000)));
    };
    assert_eq!((before.source, after.source), (0, before.length));
    assert_eq!(before.length + after.length, 8_000);
    assert!(after.heard - before.heard - before.length >= 8_000);
    assert_heard(&outcome.record, &speech(2, 4_000));
    assert!(outcome.record.find(&speech(3, 8_000)).is_empty());
    assert_eq!(only(outcome.record.find(&speech(4, 1_600))).length, 1_600);
    assert_eq!(outcome.complaints(), [""; 0]);
}

#[tokio::test]
async fn an_asterisk_bot_is_asked_to_wait_when_eighteen_seconds_are_queued() {
    let bot = channel(|mut bot, _| async move {
        // Nothing of it plays meanwhile.
        command(&mut bot, "PAUSE_MEDIA").await;
        for frame in bytes(&speech(1, 899 * 160)).chunks(320) {
            bot.send_binary(frame.to_vec()).await;
        }
        command(&mut bot, "GET_STATUS").await;
        let status = bot.next().await.unwrap();
        assert_eq!(
            (&status["queue_length"], &status["queue_full"]),
            (&json!(899), &json!(false))
        );
        bot.send_binary(vec![0; 320]).await;
        assert_eq!(bot.next().await.unwrap()["event"], "MEDIA_XOFF");
        command(&mut bot, "FLUSH_MEDIA").await;
        command(&mut bot, "CONTINUE_MEDIA").await;
        assert_eq!(bot.next().await.unwrap()["event"], "MEDIA_XON");
        bot.close(1000).await;
    })
    .await;
    let outcome = call_as(bot, |caller| caller).await;
    assert_eq!(outcome.result, Ok(BotEnd::Bot));
}

#[tokio::test]
async fn asterisk_audio_is_passed_through_at_the_call_s_rate_and_law() {
    let linear = |rate: Rate| (CallerCodec::Slin(rate), AudioFormat::linear(rate.hz()));
    let cases = [
        (linear(Rate::Slin16), "slin16"),
        (linear(Rate::Slin48), "slin48"),
        ((CallerCodec::Ulaw, AudioFormat::ULAW), "ulaw"),
        ((CallerCodec::Alaw, AudioFormat::ALAW), "alaw"),
    ];
    for ((codec, format), name) in cases {
        let echoed = Echoed::default();
        let noted = Arc::clone(&echoed);
        let bot = channel(move |mut bot, start| async move {
            assert_eq!(start["format"], name);
            echo(&mut bot, 50, &noted).await;
            bot.close(1000).await;
        })
        .await;
        let server_codec = match codec {
            CallerCodec::Ulaw => Codec::Ulaw,
            CallerCodec::Alaw => Codec::Alaw,
            CallerCodec::Slin(_) => Codec::Slin,
        };
        let calls = Calls::default().codec(server_codec);
        let calls = calls.with(bot, move |caller| caller.codec(codec).say(Voice::Ramp(1)));
        let outcome = calls.run().await.remove(0);
        assert_echoed(&outcome.record, format, &echoed, 50);
    }
}

#[tokio::test]
async fn vonage_hears_and_speaks_16_khz() {
    let echoed = Echoed::default();
    let noted = Arc::clone(&echoed);
    let (settings, hearing) = hearing();
    let script = |mut bot: Peer, noted: Echoed, mut hearing: watch::Receiver<Hearing>| async move {
        let connected = bot.next().await.unwrap();
        assert_eq!(connected["content-type"], "audio/l16;rate=16000");
        assert_eq!(connected["from"], "+4930123");
        echo(&mut bot, 50, &noted).await;
        bot.send(json!({"action": "notify", "payload": {"part": 1}}))
            .await;
        assert_eq!(
            bot.event("websocket:notify").await["payload"],
            json!({"part": 1})
        );
        assert_eq!(bot.event("websocket:dtmf").await["digit"], "7");
        // Cleared in the middle, with what waits to be told of.
        bot.send_binary(bytes(&ramp(2, 0, 160_000))).await;
        bot.send(json!({"action": "notify", "payload": "never"}))
            .await;
        // The echo, and the beginning of this.
        hearing
            .wait_for(|it| it.sounding > 50 * 320 + 3_200)
            .await
            .unwrap();
        bot.send(json!({"action": "clear"})).await;
        bot.send(json!({"action": "notify", "payload": "after"}))
            .await;
        assert_eq!(bot.next().await.unwrap()["event"], "websocket:cleared");
        assert_eq!(bot.next().await.unwrap()["payload"], "after");
        bot.close(1000).await;
    };
    let script = move |bot| script(bot, Arc::clone(&noted), hearing.clone());
    let bot = bot(Vonage::default(), Config::default(), script).await;
    let outcome = call_as(bot, |caller| {
        let caller = settings(caller).codec(CallerCodec::Slin(Rate::Slin16));
        caller.say(Voice::Ramp(1)).dtmf("7", millis(1_500))
    })
    .await;
    assert_echoed(&outcome.record, AudioFormat::linear(16_000), &echoed, 50);
    let cut = only(outcome.record.find(&ramp(2, 0, 160_000)));
    assert!(cut.source == 0 && cut.length < 160_000, "{cut:?}");
    assert_eq!(outcome.complaints(), [""; 0]);
    outcome.result.unwrap();
}

#[tokio::test]
async fn plivo_speaks_linear_and_companded_and_knows_what_was_played() {
    let bot = bot(Plivo::default(), Config::default(), |mut bot| async move {
        let start = bot.next().await.unwrap();
        let headers: Value = serde_json::from_str(start["extra_headers"].as_str().unwrap()).unwrap();
        assert_eq!(headers["from"], "+4930123");
        let id = start["start"]["streamId"].clone();
        let play = |kind: &str, hz: u32, audio: Vec<u8>| {
            let payload = STANDARD.encode(audio);
            json!({"event": "playAudio", "media": {"contentType": kind, "sampleRate": hz, "payload": payload}})
        };
        for piece in bytes(&ramp(1, 0, 16_000)).chunks(1_001) {
            bot.send(play("audio/x-l16", 16_000, piece.to_vec())).await;
        }
        bot.send(json!({"event": "checkpoint", "streamId": id, "name": "linear"})).await;
        assert_eq!(bot.event("playedStream").await["name"], "linear");
        let digit = bot.event("dtmf").await;
        assert_eq!((&digit["dtmf"]["digit"], &digit["streamId"]), (&json!("5"), &id));
        bot.send(play("audio/x-l16", 16_000, bytes(&ramp(2, 0, 160_000)))).await;
        bot.send(json!({"event": "checkpoint", "streamId": id, "name": "never"})).await;
        bot.event("media").await;
        bot.send(json!({"event": "clearAudio", "streamId": id})).await;
        bot.event("clearedAudio").await;
        bot.send(json!({"event": "checkpoint", "streamId": id, "name": "after"})).await;
        assert_eq!(bot.event("playedStream").await["name"], "after");
        bot.close(1000).await;
    })
    .await;
    let outcome = call_as(bot, |caller| {
        let codec = CallerCodec::Slin(Rate::Slin16);
        caller.codec(codec).dtmf("5", millis(1_500))
    })
    .await;
    assert_heard(&outcome.record, &ramp(1, 0, 16_000));
    assert!(
        outcome
            .record
            .find(&ramp(2, 0, 160_000))
            .iter()
            .map(|it| it.length)
            .sum::<usize>()
            < 160_000
    );
    assert_eq!(outcome.complaints(), [""; 0]);
    outcome.result.unwrap();
}
