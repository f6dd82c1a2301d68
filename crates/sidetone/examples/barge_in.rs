//! A prompt that stops as soon as the caller speaks or presses a key, and begins anew when they have
//! spoken. `#` hangs up.
//!
//!     cargo run -p sidetone --example barge_in
//!     cargo run --release -- call 127.0.0.1:9092 --play speech.wav --seconds 10
#![allow(clippy::print_stdout, reason = "this is a program for a terminal")]

use std::error::Error;

use sidetone::{Call, Clip, Event, Server};
use sidetone_audio::{
    tone,
    vad::{VoiceDetector, VoiceEvent},
};

/// Plays `prompt` until the caller has something to say.
pub(crate) async fn prompt(
    mut call: Call,
    prompt: Clip,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut player = call.player(8_000)?;
    let mut playing = player.play_clip(&prompt).await?;
    // The rate of what the caller says is known with its first frame.
    let mut listening: Option<VoiceDetector> = None;
    while let Some(event) = call.next().await {
        let (interrupted, begins_anew) = match event {
            Event::Dtmf('#') => break,
            Event::Dtmf(_) => (true, false),
            Event::Audio(frame) => {
                let detector = match &mut listening {
                    Some(detector) => detector,
                    None => listening.insert(VoiceDetector::new(frame.rate().hz())?),
                };
                turns(detector.push(frame.samples()))
            }
            // Whoever mutes the phone has ceased to speak.
            Event::NoAudio { duration, .. } => match &mut listening {
                Some(detector) => turns(detector.push_silence(duration)),
                None => (false, false),
            },
            _ => (false, false),
        };
        if interrupted && !playing.is_finished() {
            let stopped = playing.stop().await;
            println!("{}: interrupted after {:?}", call.id(), stopped.heard);
        }
        if begins_anew && playing.is_finished() {
            playing = player.play_clip(&prompt).await?;
        }
    }
    // Nobody listens to the rest of a prompt that they have ended with #.
    call.hang_up();
    Ok(())
}

/// Whether the caller has begun to speak, and whether they have ceased to.
fn turns(heard: impl Iterator<Item = VoiceEvent>) -> (bool, bool) {
    heard.fold((false, false), |(started, ended), event| match event {
        VoiceEvent::SpeechStarted { .. } => (true, ended),
        VoiceEvent::SpeechEnded { .. } => (started, true),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let sound = tone::greeting(8_000).repeat(3);
    let clip = Clip::from_samples(8_000, sound)?;
    let server = Server::builder().bind("127.0.0.1:9092").await?;
    server.serve(move |call| prompt(call, clip.clone())).await?;
    Ok(())
}
