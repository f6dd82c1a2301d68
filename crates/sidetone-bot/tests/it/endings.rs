//! How bots end, break and fall silent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::SinkExt;
use sidetone::EndReason;
use sidetone_bot::{BotEnd, BotEvent, BotFailure, dialect::Twilio};
use sidetone_caller::EndCause;
use tokio::io::AsyncReadExt;
use tokio_websockets::{Message, ServerBuilder};

use crate::support::{
    Calls, Peer, bot_at, call_as, call_with, listen, millis, only, speech, twilio,
};

#[tokio::test]
async fn a_close_with_any_code_ends_the_call_or_leaves_it_to_its_handler() {
    // 0: no code, and 1: no close at all.
    let codes = [
        0, 1, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4000,
        4999,
    ];
    let mut calls = Calls::default();
    for code in codes {
        let bot = twilio(move |mut bot| async move {
            bot.event("start").await;
            bot.say(&speech(1, 3_000)).await;
            match code {
                0 => {
                    bot.0.send(Message::close(None, "")).await.unwrap();
                    bot.read_all().await;
                }
                1 => drop(bot),
                code => bot.close(code).await,
            }
        });
        calls = calls.with(bot.await, |caller| caller);
    }
    for (code, outcome) in codes.into_iter().zip(calls.run().await) {
        let expected = match code {
            0 | 1000 => {
                // Its last words are heard before the end.
                assert_eq!(only(outcome.record.find(&speech(1, 3_000))).length, 3_000);
                assert_eq!(outcome.result, Ok(BotEnd::Bot), "{code}");
                assert_eq!(outcome.record.ended.cause, EndCause::ServerHungUp);
                continue;
            }
            1 => "broken",
            _ => "closed",
        };
        assert_eq!(outcome.failure().kind(), expected, "{code}");
        if let BotFailure::Closed { code: told, reason } = outcome.failure() {
            assert_eq!((*told, reason.as_str()), (code, "enough"));
        }
    }
}

#[tokio::test]
async fn a_bot_is_told_when_its_caller_hangs_up() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ended);
    let bot = twilio(move |mut bot| {
        let counted = Arc::clone(&counted);
        async move {
            bot.event("start").await;
            bot.say(&speech(1, 80_000)).await;
            bot.event("stop").await;
            assert_eq!(bot.next().await, None);
            counted.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let outcome = call_as(bot, |caller| caller.hang_up_after(millis(500))).await;
    assert_eq!(outcome.result, Ok(BotEnd::Call(EndReason::CallerHungUp)));
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_bot_that_loses_its_connection_gets_the_call_again_and_is_told_so() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let bot = twilio(move |mut bot| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let start = bot.event("start").await;
            let told = &start["start"]["customParameters"];
            assert_eq!(told["from"], "+4930123");
            assert_eq!(told.get("reconnect").is_some(), number > 0);
            bot.say(&speech(number as u64, 1_600)).await;
            bot.mark("said").await;
            if number == 0 {
                bot.say(&speech(7, 1_600)).await;
                // What it had said is heard, and the mark is nobody's any more.
                return drop(bot);
            }
            assert_eq!(bot.reached().await, "said");
            bot.close(1011).await;
        }
    })
    .await
    .reconnects(1);
    let outcome = call_with(bot).await;
    let starts = [0, 7, 1].map(|seed| {
        let heard = only(outcome.record.find(&speech(seed, 1_600)));
        assert_eq!(heard.length, 1_600);
        heard.heard
    });
    assert!(starts.is_sorted(), "{starts:?}");
    let again = outcome
        .events
        .iter()
        .filter(|it| matches!(it, BotEvent::Reconnecting(_)));
    assert_eq!(again.count(), 1);
    assert_eq!(outcome.failure().kind(), "closed");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_a_bot_had_queued_is_dropped_when_it_can_not_be_reached_again() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        let (_, socket) = ServerBuilder::new().accept(stream).await.unwrap();
        let mut bot = Peer(socket);
        bot.event("start").await;
        bot.say(&speech(1, 80_000)).await;
        bot.listen(20).await;
    });
    let bot = bot_at(&address, Twilio::default()).reconnects(1);
    let outcome = call_with(bot).await;
    assert_eq!(outcome.failure().kind(), "unavailable");
    let heard = only(outcome.record.find(&speech(1, 80_000)));
    assert!(heard.length < 80_000, "{heard:?}");
}

/// Longer than the time between two pings, and not than twice that.
const PING_EVERY: Duration = Duration::from_secs(21);
/// The first byte of a ping.
const PING: u8 = 0x89;

#[tokio::test]
async fn a_bot_that_answers_no_ping_has_gone() {
    let bot = twilio(|bot| async move {
        // The WebSocket is open, and nobody answers on it.
        let mut socket = bot.0.into_inner();
        for _ in ["connected", "start"] {
            read_frame(&mut socket).await.unwrap();
        }
        tokio::time::pause();
        tokio::time::advance(PING_EVERY).await;
        while read_frame(&mut socket).await.unwrap() != PING {}
        tokio::time::advance(PING_EVERY).await;
        while read_frame(&mut socket).await.is_some() {}
        tokio::time::resume();
    })
    .await;
    assert_eq!(call_with(bot).await.failure(), &BotFailure::Silent);
}

#[tokio::test]
async fn a_bot_that_says_nothing_and_answers_pings_stays() {
    let bot = twilio(|mut bot| async move {
        bot.event("start").await;
        tokio::time::pause();
        for _ in 0..3 {
            tokio::time::advance(PING_EVERY).await;
            // The pong leaves while it listens.
            bot.listen(5).await;
        }
        tokio::time::resume();
        bot.close(1000).await;
    })
    .await;
    assert_eq!(call_with(bot).await.result, Ok(BotEnd::Bot));
}

/// The first byte of the next frame, which comes from a client. `None` at the end.
async fn read_frame(socket: &mut tokio::net::TcpStream) -> Option<u8> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).await.ok()?;
    let length = match head[1] & 0x7F {
        126 => usize::from(socket.read_u16().await.ok()?),
        length => usize::from(length),
    };
    let mut masked = vec![0; 4 + length];
    socket.read_exact(&mut masked).await.ok()?;
    Some(head[0])
}
