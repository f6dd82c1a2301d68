//! `sidetone record`: records calls, and plays nothing to them.

use std::path::PathBuf;

use clap::Args;
use sidetone::{Call, PlayError};

use crate::{
    failure::{Failure, Outcome},
    options::ServeOptions,
    registry::CallObserver,
    service::{Service, Settings},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The directory for the recordings: one stereo WAV file per call, the caller on the left
    dir: PathBuf,
    #[command(flatten)]
    serving: ServeOptions,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let settings = Settings {
        record: Some(options.dir),
        ..Settings::default()
    };
    let service = Service::open(&options.serving, settings).await?;
    service.report_listening();
    service.run(listen).await
}

async fn listen(mut call: Call, mut observer: CallObserver) -> Result<(), PlayError> {
    while observer.next(&mut call).await.is_some() {}
    Ok(())
}
