//! Two callbacks and no async runtime: a sound in slices, each call at its own place in it, and a hang-up at
//! its end. It answers each slice of the caller's audio with one of the sound, so it is for calls at 8 kHz,
//! as `AudioSocket()` makes them, whose callers are not muted; for others, and for sounds that are known whole,
//! there is `Reply::play`, from `Input::Started` on.
//!
//!     cargo run -p sidetone --example playback [FILE.wav]
//!     cargo run --release -- call 127.0.0.1:9092 --record heard.wav
#![allow(clippy::print_stderr, reason = "this is a program for a terminal")]

use std::{env, error::Error, sync::Arc};

use sidetone::{
    ServeError,
    callback::{self, CallInfo, CallbackServer, Input, Reply},
};
use sidetone_audio::{resample::resample_clip, sound::Sound, tone};

const HZ: u32 = 8_000;

/// Plays `sound`, samples at 8 kHz, to every caller.
pub(crate) fn serve(sound: Arc<[i16]>, address: &str) -> Result<CallbackServer, ServeError> {
    callback::start_server(
        move |_: &CallInfo| {
            // Once per call: its state lives and ends here.
            let (sound, mut position) = (Arc::clone(&sound), 0);
            move |input: Input<'_>, reply: &mut Reply| {
                let Input::Audio(frame) = input else { return };
                let end = (position + frame.samples().len()).min(sound.len());
                reply.send(&sound[position..end]);
                position = end;
                if position == sound.len() {
                    reply.finish();
                }
            }
        },
        |call: &CallInfo, error| eprintln!("call {} from {}: {error}", call.id, call.peer),
        address,
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let sound = match env::args().nth(1) {
        Some(path) => {
            let sound = Sound::open(path)?;
            resample_clip(&sound.samples, sound.rate, HZ)?
        }
        None => tone::greeting(HZ),
    };
    let server = serve(sound.into(), "127.0.0.1:9092")?;
    server.wait();
    Ok(())
}
