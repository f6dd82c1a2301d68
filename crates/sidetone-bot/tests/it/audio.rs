//! Audio of the bot, in pieces of all sizes and however fast.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::SinkExt;
use serde_json::json;
use sidetone_audio::g711::Law;
use sidetone_bot::{BotFailure, dialect::Twilio};
use sidetone_caller::exact_runs;
use tokio_websockets::{Config, Message};

use crate::support::{
    assert_heard, bot, call_as, call_with, hearing, millis, only, speech, twilio,
};

const MINUTE: usize = 60 * 8_000;

#[tokio::test]
async fn payloads_of_one_byte_are_heard() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        let said = speech(1, 4_000);
        for sample in &said {
            bot.say(&[*sample]).await;
        }
        bot.say(&[]).await;
        bot.mark("said").await;
        assert_eq!(bot.reached().await, "said");
        bot.close(1000).await;
    })
    .await;
    let outcome = call_with(bot).await;
    assert_heard(&outcome.record, &speech(1, 4_000));
}

#[tokio::test]
async fn ten_minutes_may_come_at_once_and_a_clear_takes_them_back() {
    let (settings, hearing) = hearing();
    let bot = twilio(move |mut bot| {
        let mut hearing = hearing.clone();
        async move {
            bot.event("start").await;
            bot.say(&speech(1, 10 * MINUTE)).await;
            hearing.wait_for(|it| it.sounding > 1_600).await.unwrap();
            bot.clear().await;
            bot.say(&speech(2, 800)).await;
            bot.close(1000).await;
        }
    })
    .await;
    let outcome = call_as(bot, settings).await;
    let heard = only(outcome.record.find(&speech(1, 2 * MINUTE)));
    assert!(heard.source == 0 && heard.length > 1_600, "{heard:?}");
    assert_eq!(only(outcome.record.find(&speech(2, 800))).length, 800);
    outcome.result.unwrap();
}

#[tokio::test]
async fn more_than_ten_minutes_end_the_bot_by_name() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        for minute in 0..11 {
            bot.say(&speech(minute, MINUTE)).await;
        }
        bot.read_all().await;
    })
    .await;
    let outcome = call_with(bot).await;
    assert_eq!(outcome.failure(), &BotFailure::Flooded);
}

#[tokio::test]
async fn audio_that_comes_fifty_times_too_fast_is_heard_at_its_own_speed() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        for piece in speech(1, 5 * 8_000).chunks(8_000) {
            // A second, after the caller has said 20 ms.
            bot.listen(1).await;
            for delta in piece.chunks(160) {
                bot.say(delta).await;
            }
        }
        bot.mark("said").await;
        assert_eq!(bot.reached().await, "said");
        bot.close(1000).await;
    })
    .await;
    let outcome = call_with(bot).await;
    let heard = only(outcome.record.find(&speech(1, 5 * 8_000)));
    assert_eq!((heard.source, heard.length), (0, 5 * 8_000));
}

#[tokio::test]
async fn messages_in_many_fragments_are_put_together() {
    let config = Config::default().frame_size(7);
    let bot = bot(Twilio::default(), config, |mut bot| async move {
        bot.event("start").await;
        bot.say(&speech(1, 1_600)).await;
        bot.mark("said").await;
        assert_eq!(bot.reached().await, "said");
        bot.close(1000).await;
    })
    .await;
    let outcome = call_with(bot).await;
    assert_eq!(only(outcome.record.find(&speech(1, 1_600))).length, 1_600);
    assert_eq!(outcome.complaints(), [""; 0]);
}

#[tokio::test]
async fn what_is_no_message_of_the_dialect_is_complained_about_and_ends_nothing() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        bot.send_binary(vec![0x7F; 160]).await;
        bot.0.send(Message::text("rubbish")).await.unwrap();
        bot.send(json!({"event": "sing"})).await;
        bot.send(json!({"event": "media", "media": {"payload": "§"}}))
            .await;
        bot.say(&speech(1, 1_600)).await;
        bot.close(1000).await;
    })
    .await;
    let outcome = call_with(bot).await;
    assert_eq!(only(outcome.record.find(&speech(1, 1_600))).length, 1_600);
    let complaints = outcome.complaints();
    let expected = ["binary", "no message", "\"sing\"", "base64"];
    assert_eq!(complaints.len(), expected.len(), "{complaints:?}");
    for (complaint, expected) in complaints.iter().zip(expected) {
        assert!(complaint.contains(expected), "{complaint}");
    }
    outcome.result.unwrap();
}

#[tokio::test]
async fn a_bot_that_says_nothing_but_rubbish_fails() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        for _ in 0..101 {
            bot.send(json!({"event": "sing"})).await;
        }
        bot.read_all().await;
    })
    .await;
    let outcome = call_with(bot).await;
    let failure = outcome.failure();
    assert!(
        matches!(failure, BotFailure::Protocol(text) if text.contains("sing")),
        "{failure}"
    );
    assert_eq!(outcome.complaints().len(), 100);
}

#[tokio::test]
async fn the_caller_is_heard_on_a_clock_without_gaps() {
    let heard = Arc::<Mutex<Vec<i16>>>::default();
    let noted = Arc::clone(&heard);
    let bot = twilio(move |mut bot| {
        let noted = Arc::clone(&noted);
        async move {
            bot.event("start").await;
            for frame in 0..100 {
                let media = bot.event("media").await;
                assert_eq!(media["media"]["timestamp"], (frame * 20).to_string());
                let payload = media["media"]["payload"].as_str().unwrap();
                let payload = STANDARD.decode(payload).unwrap();
                assert_eq!(payload.len(), 160);
                Law::Ulaw.decode(&payload, &mut noted.lock().unwrap());
            }
            bot.close(1000).await;
        }
    })
    .await;
    let said = speech(3, 8_000);
    let saying = said.clone();
    let outcome = call_as(bot, |caller| {
        caller.say(saying).mute_between(millis(600), millis(1_000))
    })
    .await;
    let heard = heard.lock().unwrap().clone();
    // All that it said after the connection, once and in order.
    let runs = exact_runs(&said, &heard);
    assert_eq!(runs[0].heard, 0);
    for two in runs.windows(2) {
        assert_eq!(two[0].source + two[0].length, two[1].source, "{runs:?}");
    }
    assert!(
        runs.last()
            .is_some_and(|it| it.source + it.length == said.len()),
        "{runs:?}"
    );
    // The first frame after the mute is with the others, and not alone in the silence.
    assert!(runs.iter().all(|it| it.length > 160), "{runs:?}");
    let last = runs.last().map_or(0, |it| it.heard + it.length);
    let voiced: usize = runs.iter().map(|it| it.length).sum();
    assert!(
        last - voiced >= 300 * 8,
        "it was muted for 400 ms: {runs:?}"
    );
    // And silence where it said nothing.
    let silent = heard.iter().filter(|it| **it == 0).count();
    assert!(silent >= heard.len() - voiced, "{silent}");
    outcome.result.unwrap();
}
