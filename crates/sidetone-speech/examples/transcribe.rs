//! Prints what a caller says, live, by Google. One call at a time, which ends when the caller says "stop", or after 30 seconds.
//!
//!     gcloud auth application-default login
//!     GOOGLE_CLOUD_PROJECT=… cargo run -p sidetone-speech --features google --example transcribe
//!
//! It takes calls from `Dial(AudioSocket/127.0.0.1:9092/${UUID()}/c(slin))`.
#![allow(clippy::print_stdout, reason = "this is a program for a terminal")]

use std::{error::Error, sync::Arc, time::Duration};

use sidetone::{Call, Event, Server, ServerBuilder};
use sidetone_speech::{Format, SpeechEvent, google::Google, transcribe};

const STOP_WORD: &str = "stop";
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Transcribes a call until it ends, or the stop word ends it.
pub(crate) async fn transcribe_call(mut call: Call, google: Arc<Google>) {
    println!("{}: say \"{STOP_WORD}\", or hang up", call.id());
    // The caller's rate is known with the first frame.
    let Some(first) = call.audio(Duration::ZERO).await else {
        return;
    };
    let (mut input, mut events) = transcribe(google, Format::linear(first.rate().hz()));
    input.push(first.offset(), first.samples());
    loop {
        tokio::select! {
            event = call.next() => match event {
                Some(Event::Audio(frame)) => input.push(frame.offset(), frame.samples()),
                Some(Event::NoAudio { offset, duration }) => input.push_silence(offset, duration),
                Some(_) => {}
                None => break,
            },
            event = events.next() => match event {
                Some(event) if print(&event) => {}
                _ => break,
            },
        }
    }
    call.hang_up();
    input.finish();
    while let Some(event) = events.next().await {
        print(&event);
    }
}

/// Prints an event. Returns false if the call is to end.
fn print(event: &SpeechEvent) -> bool {
    match event {
        SpeechEvent::Transcript(transcript) => {
            let mark = if transcript.is_final { '.' } else { '…' };
            println!("{:>6.1?} {}{mark}", transcript.start, transcript.text);
            !(transcript.is_final && has_stop_word(&transcript.text))
        }
        other => {
            println!("{other:?}");
            !matches!(other, SpeechEvent::Failed(_))
        }
    }
}

fn has_stop_word(text: &str) -> bool {
    let mut words = text.split(|letter: char| !letter.is_alphanumeric());
    words.any(|word| word.eq_ignore_ascii_case(STOP_WORD))
}

pub(crate) fn settings() -> ServerBuilder {
    Server::builder().max_calls(1).max_duration(TIME_LIMIT)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let google = Arc::new(Google::new(["en-US"]));
    let server = settings().bind("127.0.0.1:9092").await?;
    server
        .serve(move |call| transcribe_call(call, Arc::clone(&google)))
        .await?;
    Ok(())
}
