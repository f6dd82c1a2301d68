//! `sidetone play`: every caller hears the same file, from its beginning.

use std::path::PathBuf;

use clap::Args;
use sidetone::{Call, Clip, PlayError, Playback, Rate};

use crate::{
    failure::{Failure, Outcome},
    options::{RecordOptions, ServeOptions},
    registry::CallObserver,
    service::{Service, Settings},
    sound_file,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[cfg_attr(
        feature = "compressed",
        doc = "The sound: WAV, AU, mp3, FLAC, Ogg Vorbis, or a headerless format of Asterisk's, known by its extension (sln, sln16, ulaw, alaw …)"
    )]
    #[cfg_attr(
        not(feature = "compressed"),
        doc = "The sound: WAV, AU, or a headerless format of Asterisk's, known by its extension (sln, sln16, ulaw, alaw …)"
    )]
    file: PathBuf,
    /// Repeat the file until the caller hangs up
    #[arg(long = "loop")]
    looped: bool,
    #[command(flatten)]
    recording: RecordOptions,
    #[command(flatten)]
    serving: ServeOptions,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let sound = sound_file::open(&options.file)?;
    let mut clip = Clip::from_samples(sound.rate, sound.samples).map_err(Failure::new)?;
    if options.looped {
        clip = clip.looped();
    }
    // Most calls are 8 kHz. They need not wait for the resampler.
    clip.prepare(Rate::Slin).await;
    let settings = Settings {
        record: options.recording.dir,
        ..Settings::default()
    };
    let service = Service::open(&options.serving, settings).await?;
    service.report_listening();
    service
        .run(move |call, observer| play(call, observer, clip.clone()))
        .await
}

/// Returns when all is played, which ends the call.
async fn play(mut call: Call, mut observer: CallObserver, clip: Clip) -> Result<(), PlayError> {
    let Ok(mut player) = call.player(Rate::Slin.hz()) else {
        return Ok(());
    };
    let playback = player.play_clip(&clip).await?;
    wait_until_finished(&mut call, &mut observer, &playback).await
}

async fn wait_until_finished(
    call: &mut Call,
    observer: &mut CallObserver,
    playback: &Playback,
) -> Result<(), PlayError> {
    loop {
        tokio::select! {
            _ = playback.finished() => return Ok(()),
            event = observer.next(call) => if event.is_none() {
                return Err(PlayError::Closed);
            },
        }
    }
}
