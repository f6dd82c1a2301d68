//! One clip, shared by all calls and played to each again and again.
//!
//!     play_clip PORT CLIP [CALLS]
//!
//! CLIP is headerless 16-bit samples at 8 kHz. With CALLS, all workers of the runtime are blocked for ever once so
//! many calls play.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread::{available_parallelism, sleep},
    time::Duration,
};

use sidetone::{Call, Clip, PlayError, Server};

static PLAYING: AtomicUsize = AtomicUsize::new(0);

async fn play(call: Call, clip: Clip, block_at: usize) -> Result<(), PlayError> {
    let Ok(mut player) = call.player(8000) else {
        return Ok(());
    };
    let mut playing = player.play_clip(&clip).await?;
    loop {
        // Queued while the other one plays, so that there is no pause between them.
        let next = player.play_clip(&clip).await?;
        if PLAYING.fetch_add(1, Ordering::Relaxed) + 1 == block_at {
            block_workers();
        }
        playing.finished().await;
        playing = next;
    }
}

fn block_workers() {
    // One more than there are, for the one that runs this.
    for _ in 0..=available_parallelism().map_or(1, usize::from) {
        tokio::spawn(async { sleep(Duration::from_secs(3600)) });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(port), Some(path)) = (words.next(), words.next()) else {
        return Err("usage: play_clip PORT CLIP [CALLS]".into());
    };
    let block_at = words.next().map_or(Ok(usize::MAX), |count| count.parse())?;
    let bytes = std::fs::read(path)?;
    let (pairs, _) = bytes.as_chunks();
    let samples: Vec<i16> = pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    let clip = Clip::from_samples(8000, samples)?;
    let server = Server::builder()
        .bind(("127.0.0.1", port.parse::<u16>()?))
        .await?;
    server
        .serve(move |call| play(call, clip.clone(), block_at))
        .await?;
    Ok(())
}
