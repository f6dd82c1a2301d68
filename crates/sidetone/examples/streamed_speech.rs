//! Speech that arrives in pieces, as from a text-to-speech service: now faster than real time and now slower. A prebuffer
//! keeps each sentence whole. A key ends it at once, and the program knows how much of it was heard. `#` hangs up.
//!
//!     cargo run -p sidetone --example streamed_speech
//!     cargo run --release -- call 127.0.0.1:9092 --dtmf 1@1.5 --seconds 12 --record heard.wav
#![allow(clippy::print_stdout, reason = "this is a program for a terminal")]

use std::{error::Error, time::Duration};

use sidetone::{Call, Event, PlayError, Playback, Server, Utterance};
use sidetone_audio::tone;
use tokio::time::sleep;

/// What speech services usually send.
const HZ: u32 = 24_000;
const SENTENCES: u64 = 3;

/// Queues a sentence piece by piece, as a network delivers it, unless it is stopped before its end.
async fn stream(mut sentence: Utterance, number: u64) -> Result<(), PlayError> {
    let samples = tone::caller_voice(HZ, Duration::from_secs(2), number);
    let mut rest = &samples[..];
    // Milliseconds of sound, and how long they take to arrive.
    for (sound, takes) in [(400, 50), (80, 200), (600, 100), (40, 150)]
        .into_iter()
        .cycle()
    {
        if rest.is_empty() {
            break;
        }
        let length = rest.len().min(sound * HZ as usize / 1_000);
        sleep(Duration::from_millis(takes)).await;
        sentence.play(&rest[..length]).await?;
        rest = &rest[length..];
    }
    sentence.end();
    Ok(())
}

pub(crate) async fn tell(mut call: Call) -> Result<(), Box<dyn Error + Send + Sync>> {
    for number in 0..SENTENCES {
        let mut sentence = call.utterance(HZ)?;
        sentence.set_prebuffer(Duration::from_millis(300));
        let playing = sentence.playback();
        tokio::spawn(stream(sentence, number));
        if !heard_out(&mut call, &playing).await {
            break;
        }
    }
    Ok(())
}

/// Waits until the sentence was heard, or is ended by a key. False when the caller wants no more.
async fn heard_out(call: &mut Call, playing: &Playback) -> bool {
    loop {
        tokio::select! {
            _ = playing.finished() => return true,
            event = call.next() => match event {
                Some(Event::Dtmf(key)) => {
                    let stopped = playing.stop().await;
                    println!("{}: {key} after {:?}", call.id(), stopped.heard);
                    return key != '#';
                }
                Some(_) => {}
                None => return false,
            },
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), sidetone::ServeError> {
    let server = Server::builder().bind("127.0.0.1:9092").await?;
    server.serve(tell).await
}
