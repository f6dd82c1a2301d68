//! `sidetone play`: everybody hears the same file, from its beginning.

use std::time::Duration;

use sidetone::{Call, Clip, Event, PlayError, Playback, Rate};
use tokio::time::timeout;

use crate::{
    args::Play,
    board::Watch,
    failure::{Failure, Verdict},
    service::{Manner, Service},
    sound_file,
};

/// A caller that sends audio has begun by then; one that sends none is not to wait longer.
const RATE_KNOWN: Duration = Duration::from_millis(100);

pub(crate) async fn run(options: Play) -> Result<Verdict, Failure> {
    let sound = sound_file::open(&options.file)?;
    let clip = Clip::from_samples(sound.rate, sound.samples).map_err(Failure::new)?;
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
    let Ok(mut player) = call.player(Rate::Slin.hz()) else {
        return Ok(());
    };
    // What is queued before the rate is known would be heard at 8 kHz.
    let _ = timeout(RATE_KNOWN, first_audio(&mut call, &mut watch)).await;
    let mut playing = player.play_clip(&clip).await?;
    loop {
        let next = match looped {
            // It is queued while the other one plays, so that there is no pause between them.
            true => Some(player.play_clip(&clip).await?),
            false => None,
        };
        listen_until_finished(&mut call, &mut watch, &playing).await?;
        match next {
            Some(next) => playing = next,
            None => return Ok(()),
        }
    }
}

async fn first_audio(call: &mut Call, watch: &mut Watch) {
    while let Some(event) = watch.next(call).await {
        if let Event::Audio(_) = event {
            return;
        }
    }
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
