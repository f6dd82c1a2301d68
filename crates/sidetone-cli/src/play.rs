//! `sidetone play`: everybody hears the same file, from its beginning.

use sidetone::{Call, Clip, PlayError, Playback, Rate};

use crate::{
    args::Play,
    board::Watch,
    failure::{Failure, Verdict},
    service::{Manner, Service},
};

pub(crate) async fn run(options: Play) -> Result<Verdict, Failure> {
    let clip = Clip::open(&options.file).map_err(Failure::new)?;
    // Most calls are 8 kHz; they need not wait for the resampler.
    clip.prepare(Rate::Slin).await;
    let manner = Manner {
        record: options.recording.dir,
        ..Manner::default()
    };
    let service = Service::open(&options.serving, manner).await?;
    service.announce();
    let looped = options.looped;
    service
        .run(move |call, watch| play(call, watch, clip.clone(), looped))
        .await
}

/// Returning ends the call when all has been played.
async fn play(mut call: Call, mut watch: Watch, clip: Clip, looped: bool) -> Result<(), PlayError> {
    let mut player = match call.player(Rate::Slin.hz()) {
        Ok(player) => player,
        Err(_) => return Ok(()),
    };
    let mut playing: Playback = player.play_clip(&clip).await?;
    while looped {
        // The next one is queued while this one plays, so that there is no pause between them.
        let next = player.play_clip(&clip).await?;
        listen_until_finished(&mut call, &mut watch, &playing).await?;
        playing = next;
    }
    listen_until_finished(&mut call, &mut watch, &playing).await
}

async fn listen_until_finished(
    call: &mut Call,
    watch: &mut Watch,
    playing: &Playback,
) -> Result<(), PlayError> {
    loop {
        tokio::select! {
            () = playing.finished() => return Ok(()),
            event = watch.next(call) => if event.is_none() {
                return Err(PlayError::Closed);
            },
        }
    }
}
