//! Speech that is made while it plays, as from a voice model: pieces of any length, now faster than real
//! time and now slower. A prebuffer keeps a sentence whole, and a key ends it at once for the next, of which as
//! much is known as was heard. `#` hangs up.
//!
//!     cargo run -p sidetone --example streamed_speech
//!     cargo run --release -- call 127.0.0.1:9092 --dtmf 1 --seconds 12 --record heard.wav
#![allow(clippy::print_stdout, reason = "this is a program for a terminal")]

use std::{error::Error, time::Duration};

use sidetone::{Call, Event, PlayError, Playback, Server, Utterance};
use sidetone_audio::tone;
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::sleep,
};

/// What voice models usually speak at.
const HZ: u32 = 24_000;
const SENTENCES: u64 = 3;

/// Synthesises a sentence and gives it away in pieces, in the rhythm of a network.
fn synthesise(number: u64) -> Receiver<Vec<i16>> {
    let (pieces, receiver) = channel(4);
    tokio::spawn(async move {
        let sentence = tone::caller_voice(HZ, Duration::from_secs(2), number);
        let mut rest = &sentence[..];
        // Milliseconds of sound, and how long they take to come.
        for (sound, takes) in [(400, 50), (80, 200), (600, 100), (40, 150)]
            .into_iter()
            .cycle()
        {
            let length = rest.len().min(sound * HZ as usize / 1_000);
            let (piece, behind) = rest.split_at(length);
            rest = behind;
            sleep(Duration::from_millis(takes)).await;
            if pieces.send(piece.to_vec()).await.is_err() || rest.is_empty() {
                return;
            }
        }
    });
    receiver
}

/// Says a sentence, unless it is stopped before its end.
async fn say(mut sentence: Utterance, number: u64) -> Result<(), PlayError> {
    let mut pieces = synthesise(number);
    while let Some(piece) = pieces.recv().await {
        sentence.play(&piece).await?;
    }
    sentence.end();
    Ok(())
}

pub(crate) async fn tell(mut call: Call) -> Result<(), Box<dyn Error + Send + Sync>> {
    for number in 0..SENTENCES {
        let mut sentence = call.utterance(HZ)?;
        sentence.set_prebuffer(Duration::from_millis(300));
        let playing = sentence.playback();
        tokio::spawn(say(sentence, number));
        if !heard_out(&mut call, &playing).await {
            return Ok(());
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
    Server::builder()
        .bind("127.0.0.1:9092")
        .await?
        .serve(tell)
        .await
}
