//! `sidetone play`: everybody hears the same file, from its beginning.

use sidetone::{Call, Clip, PlayError, Playback, Rate};

use crate::{
    args::Play,
    board::Watch,
    failure::{Failure, Verdict},
    service::{Manner, Service},
    sound_file,
};

pub(crate) async fn run(options: Play) -> Result<Verdict, Failure> {
    let sound = sound_file::open(&options.file)?;
    let mut clip = Clip::from_samples(sound.rate, sound.samples).map_err(Failure::new)?;
    if options.looped {
        clip = clip.looped();
    }
    // Most calls are 8 kHz; they need not wait for the resampler.
    clip.prepare(Rate::Slin).await;
    let manner = Manner {
        record: options.recording.dir,
        ..Manner::default()
    };
    let service = Service::open(&options.serving, manner).await?;
    service.announce();
    service
        .run(move |call, watch| play(call, watch, clip.clone()))
        .await
}

/// Returning ends the call when all has been played.
async fn play(mut call: Call, mut watch: Watch, clip: Clip) -> Result<(), PlayError> {
    let Ok(mut player) = call.player(Rate::Slin.hz()) else {
        return Ok(());
    };
    let playing = player.play_clip(&clip).await?;
    listen_until_finished(&mut call, &mut watch, &playing).await
}

async fn listen_until_finished(
    call: &mut Call,
    watch: &mut Watch,
    playing: &Playback,
) -> Result<(), PlayError> {
    loop {
        tokio::select! {
            _ = playing.finished() => return Ok(()),
            event = watch.next(call) => if event.is_none() {
                return Err(PlayError::Closed);
            },
        }
    }
}
