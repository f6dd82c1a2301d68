//! Connects callers in pairs: the first one hears music until the second one calls, then they talk. When one hangs up, the other
//! one waits again.
//!
//!     cargo run -p sidetone --example bridge
#![allow(clippy::print_stdout, reason = "this is a program for a terminal")]

use std::{error::Error, sync::Arc, time::Duration};

use sidetone::{
    Call, Clip, Event, Server,
    ivr::{Left, bridge},
};
use sidetone_audio::tone;
use tokio::sync::{Mutex, oneshot};

/// Where the caller who waits takes the next one from.
pub(crate) type Waiting = Arc<Mutex<Option<oneshot::Sender<Call>>>>;

pub(crate) async fn pair(
    mut call: Call,
    waiting: Waiting,
    music: Clip,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    loop {
        if let Some(partner) = waiting.lock().await.take() {
            match partner.send(call) {
                Ok(()) => return Ok(()),
                // The one who waited has hung up.
                Err(returned) => call = returned,
            }
        }
        let (sender, mut partner) = oneshot::channel();
        *waiting.lock().await = Some(sender);
        call.player(8_000)?.play_clip(&music.looped()).await?;
        let mut partner = loop {
            tokio::select! {
                partner = &mut partner => break partner?,
                event = call.next() => if let None | Some(Event::Ended(_)) = event {
                    return Ok(());
                },
            }
        };
        let left = bridge(&mut call, &mut partner).await;
        println!("{} and {}: {left:?}", call.id(), partner.id());
        if let Left::First(_) = left {
            call = partner;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let music = Clip::from_samples(8_000, tone::caller_voice(8_000, Duration::from_secs(5), 1))?;
    let waiting = Waiting::default();
    let server = Server::builder().bind("127.0.0.1:9092").await?;
    server
        .serve(move |call| pair(call, Arc::clone(&waiting), music.clone()))
        .await?;
    Ok(())
}
