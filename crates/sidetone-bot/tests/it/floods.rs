//! Bots that take nothing, and bots that send too much.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use sidetone_bot::{
    Bot, BotEvent, BotFailure, Budget, Session,
    dialect::{Action, AudioFormat, CallEvent, Conversation, Dialect, Message, Received},
};
use tokio::sync::Notify;
use tokio_websockets::{Config, Message as Frame};

use crate::support::{Calls, bot, call_with, only, speech, twilio};

/// A dialect in which 20 ms of the caller are so long that a bot that does not read soon gets no more.
#[derive(Clone, Debug, Default)]
struct Heavy {
    /// How many frames there were.
    frames: Arc<AtomicU32>,
}

const HEAVY_LEN: usize = 100_000;

impl Dialect for Heavy {
    fn name(&self) -> &'static str {
        "heavy"
    }

    fn start(&self, _session: &Session, _caller: AudioFormat) -> Box<dyn Conversation> {
        Box::new(self.clone())
    }
}

impl Conversation for Heavy {
    fn caller_format(&self) -> AudioFormat {
        AudioFormat::ULAW
    }

    fn handle_event(&mut self, event: CallEvent<'_>, _queued: Duration, actions: &mut Vec<Action>) {
        match event {
            CallEvent::Audio { .. } => {
                let number = self.frames.fetch_add(1, Ordering::SeqCst);
                let mut frame = vec![0; HEAVY_LEN];
                frame[..4].copy_from_slice(&number.to_le_bytes());
                actions.push(Action::Send(Message::Binary(frame)));
            }
            CallEvent::Digit(digit) => actions.push(Action::Send(Message::Text(digit.into()))),
            _ => {}
        }
    }

    fn handle_message(
        &mut self,
        message: Received<'_>,
        _queued: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure> {
        if let Received::Binary(bytes) = message {
            actions.push(Action::Play {
                item: None,
                format: AudioFormat::linear(8_000),
                audio: bytes.to_vec(),
            });
        }
        Ok(())
    }

    fn is_caller_audio(&self, message: &Message) -> bool {
        matches!(message, Message::Binary(_))
    }
}

#[tokio::test]
async fn a_bot_that_does_not_read_loses_the_oldest_audio_of_its_caller_and_nothing_else() {
    let dropping = Arc::new(Notify::new());
    let heavy = Heavy::default();
    // The number of each frame that it got, how many there were when it began to read, and the digits.
    let got = Arc::<Mutex<(Vec<u32>, u32, String)>>::default();
    let script = {
        let (dropping, frames) = (Arc::clone(&dropping), Arc::clone(&heavy.frames));
        let got = Arc::clone(&got);
        move |mut bot: crate::support::Peer| {
            let (dropping, frames) = (Arc::clone(&dropping), Arc::clone(&frames));
            let got = Arc::clone(&got);
            async move {
                let said = speech(1, 16_000);
                let bytes = said.iter().flat_map(|it| it.to_le_bytes()).collect();
                bot.send_binary(bytes).await;
                dropping.notified().await;
                let began = frames.load(Ordering::SeqCst);
                let (mut numbers, mut digits) = (Vec::new(), String::new());
                while numbers.last().is_none_or(|last| *last < began + 20) {
                    let message = bot.0.next().await.unwrap().unwrap();
                    if let Some(text) = message.as_text() {
                        digits.push_str(text);
                    } else if message.is_binary() {
                        let number = message.as_payload()[..4].try_into().unwrap();
                        numbers.push(u32::from_le_bytes(number));
                    }
                }
                *got.lock().unwrap() = (numbers, began, digits);
                bot.close(1000).await;
            }
        }
    };
    let bot = bot(heavy, Config::default(), script).await;
    let calls = Calls::default().with(bot, |caller| caller.dtmf("42", Duration::from_secs(4)));
    let watched = calls.watch(move |event| {
        if matches!(event, BotEvent::Dropped { .. }) {
            dropping.notify_one();
        }
    });
    let outcome = watched.run().await.remove(0);
    assert_eq!(only(outcome.record.find(&speech(1, 16_000))).length, 16_000);
    let dropped = outcome.events.iter().map(|event| match event {
        BotEvent::Dropped { frames } => *frames,
        _ => 0,
    });
    let (numbers, began, digits) = std::mem::take(&mut *got.lock().unwrap());
    assert_eq!(digits, "42");
    // What had left by then, and the newest: there is one gap, and it is as long as was reported.
    assert_eq!(numbers[0], 0);
    let gaps: Vec<_> = numbers.windows(2).filter(|it| it[1] != it[0] + 1).collect();
    let [[before, after]] = gaps[..] else {
        panic!("{gaps:?}");
    };
    assert_eq!(u64::from(after - before - 1), dropped.sum::<u64>());
    assert!(
        began - after <= 250,
        "more than 5 s of it waited: {after} to {began}"
    );
    outcome.result.unwrap();
}

#[tokio::test]
async fn a_bot_that_asks_for_answers_and_reads_none_fails() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        // Nobody reads the marks that come back.
        let name = "x".repeat(2_000);
        for _ in 0..20_000 {
            bot.mark(&name).await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let outcome = call_with(bot).await;
    let failure = outcome.failure();
    assert!(
        matches!(failure, BotFailure::Broken(text) if text.contains("read")),
        "{failure}"
    );
}

#[tokio::test]
async fn names_of_marks_are_bounded() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        bot.say(&speech(1, 80_000)).await;
        bot.mark(&"x".repeat(1 << 20)).await;
        bot.mark("short").await;
        bot.clear().await;
        assert_eq!(bot.reached().await, "short");
        bot.close(1000).await;
    })
    .await;
    let outcome = call_with(bot).await;
    let complaints = outcome.complaints();
    assert!(
        complaints.len() == 1 && complaints[0].contains("name"),
        "{complaints:?}"
    );
    outcome.result.unwrap();
}

#[tokio::test]
async fn a_bot_that_clears_without_end_fails() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        let clears = vec![Frame::text(r#"{"event":"clear"}"#); 200_000];
        for clear in clears {
            if bot.0.feed(clear).await.is_err() {
                break;
            }
        }
        bot.read_all().await;
    })
    .await;
    let outcome = call_with(bot).await;
    let failure = outcome.failure();
    assert!(
        matches!(failure, BotFailure::Protocol(text) if text.contains("clear")),
        "{failure}"
    );
}

#[tokio::test]
async fn a_message_of_a_hundred_megabytes_ends_the_bot_and_not_the_call() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        bot.say(&speech(1, 800)).await;
        bot.send_binary(vec![0; 100_000_000]).await;
        bot.read_all().await;
    })
    .await;
    let outcome = call_with(bot).await;
    let failure = outcome.failure();
    assert!(
        matches!(failure, BotFailure::Broken(text) if text.contains("limit")),
        "{failure}"
    );
}

#[tokio::test]
async fn a_hundred_megabytes_in_messages_end_the_bot_and_not_the_call() {
    let rubbish = twilio(|mut bot| async move {
        bot.event("start").await;
        for _ in 0..101 {
            bot.send(json!({"event": "x".repeat(1_000_000)})).await;
        }
        bot.read_all().await;
    });
    let audio = twilio(|mut bot| async move {
        bot.event("start").await;
        for _ in 0..100 {
            bot.say(&vec![1_000; 750_000]).await;
        }
        bot.read_all().await;
    });
    let calls = Calls::default()
        .with(rubbish.await, |caller| caller)
        .with(audio.await, |caller| caller);
    let outcomes = calls.run().await;
    let failure = outcomes[0].failure();
    assert!(matches!(failure, BotFailure::Protocol(_)), "{failure}");
    let longest = outcomes[0].complaints().iter().map(|it| it.len()).max();
    assert!(longest.unwrap() < 300);
    assert_eq!(outcomes[1].failure(), &BotFailure::Flooded);
}

#[tokio::test]
async fn who_goes_beyond_the_budget_of_all_fails_and_the_others_go_on() {
    // 10 s at 8 kHz.
    let budget = Budget::new(160_000);
    let modest = {
        twilio(|mut bot: crate::support::Peer| async move {
            bot.event("start").await;
            bot.say(&speech(1, 4 * 8_000)).await;
            bot.mark("said").await;
            assert_eq!(bot.reached().await, "said");
            bot.close(1000).await;
        })
        .await
    };
    let greedy = twilio(|mut bot| async move {
        bot.event("start").await;
        bot.say(&speech(2, 20 * 8_000)).await;
        bot.read_all().await;
    })
    .await;
    let with_budget = |bot: Bot| bot.budget(&budget);
    let calls = Calls::default()
        .with(with_budget(modest), |caller| caller)
        .with(with_budget(greedy), |caller| caller);
    let outcomes = calls.run().await;
    assert_eq!(
        only(outcomes[0].record.find(&speech(1, 4 * 8_000))).length,
        4 * 8_000
    );
    assert_eq!(outcomes[1].failure(), &BotFailure::OverBudget);
    assert_eq!(budget.used(), 0);
}
