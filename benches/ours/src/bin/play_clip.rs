//! One clip, shared by all calls and played to each again and again.
//!
//!     play_clip PORT CLIP        CLIP: headerless 16-bit samples at 8 kHz

use sidetone::{Call, Clip, PlayError, Server};

async fn play(call: Call, clip: Clip) -> Result<(), PlayError> {
    let Ok(mut player) = call.player(8000) else {
        return Ok(());
    };
    let mut playing = player.play_clip(&clip).await?;
    loop {
        // Queued while the other one plays, so that there is no pause between them.
        let next = player.play_clip(&clip).await?;
        playing.finished().await;
        playing = next;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(port), Some(path)) = (words.next(), words.next()) else {
        return Err("usage: play_clip PORT CLIP".into());
    };
    let bytes = std::fs::read(path)?;
    let (pairs, _) = bytes.as_chunks();
    let samples: Vec<i16> = pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
    let clip = Clip::from_samples(8000, samples)?;
    let server = Server::builder()
        .bind(("127.0.0.1", port.parse::<u16>()?))
        .await?;
    server.serve(move |call| play(call, clip.clone())).await?;
    Ok(())
}
