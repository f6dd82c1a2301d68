//! Marks and clears, as the caller hears them.

use serde_json::json;

use crate::support::{call_as, call_with, hearing, only, speech, twilio};

#[tokio::test]
async fn a_mark_on_an_empty_queue_is_answered_at_once() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        // Before the caller has heard anything, after speech, and one without a name to answer.
        bot.mark("first").await;
        assert_eq!(bot.reached().await, "first");
        bot.say(&speech(1, 800)).await;
        bot.mark("second").await;
        assert_eq!(bot.reached().await, "second");
        bot.send(json!({"event": "mark"})).await;
        bot.mark("third").await;
        assert_eq!(bot.reached().await, "third");
        bot.close(1000).await;
    })
    .await;
    let outcome = call_with(bot).await;
    assert_eq!(only(outcome.record.find(&speech(1, 800))).length, 800);
    assert_eq!(outcome.complaints(), [""; 0]);
    outcome.result.unwrap();
}

#[tokio::test]
async fn what_is_before_a_mark_was_heard_when_it_is_answered() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        bot.say(&speech(1, 2_345)).await;
        bot.mark("heard").await;
        bot.say(&speech(2, 80_000)).await;
        assert_eq!(bot.reached().await, "heard");
        bot.clear().await;
        bot.mark("over").await;
        assert_eq!(bot.reached().await, "over");
        bot.close(1000).await;
    })
    .await;
    let outcome = call_with(bot).await;
    assert_eq!(only(outcome.record.find(&speech(1, 2_345))).length, 2_345);
    // What was behind it was cut off within some frames.
    let rest: usize = outcome
        .record
        .find(&speech(2, 80_000))
        .iter()
        .map(|it| it.length)
        .sum();
    assert!(rest < 40_000, "{rest}");
}

#[tokio::test]
async fn a_clear_answers_twenty_marks_that_wait_and_silences_what_is_before_them() {
    let (settings, hearing) = hearing();
    let bot = twilio(move |mut bot| {
        let mut hearing = hearing.clone();
        async move {
            bot.event("start").await;
            for number in 0..20 {
                bot.say(&speech(number, 40_000)).await;
                bot.mark(&number.to_string()).await;
            }
            hearing.wait_for(|it| it.sounding > 1_600).await.unwrap();
            bot.clear().await;
            bot.say(&speech(50, 800)).await;
            bot.mark("after").await;
            for number in 0..20 {
                assert_eq!(bot.reached().await, number.to_string());
            }
            assert_eq!(bot.reached().await, "after");
            bot.close(1000).await;
        }
    })
    .await;
    let outcome = call_as(bot, settings).await;
    let first = only(outcome.record.find(&speech(0, 40_000)));
    assert!(first.source == 0 && first.length < 40_000, "{first:?}");
    assert_eq!(first.length % 160, 0, "to the slot");
    for number in 1..20 {
        assert!(outcome.record.find(&speech(number, 40_000)).is_empty());
    }
    let after = only(outcome.record.find(&speech(50, 800)));
    assert_eq!(after.length, 800);
    assert!(after.heard >= first.heard + first.length);
}
