//! `sidetone echo`: callers hear themselves.

use clap::Args;
use sidetone::{Call, Event, PlayError};

use crate::{
    failure::{Failure, Outcome},
    options::{RecordOptions, ServeOptions},
    registry::CallObserver,
    service::{Service, Settings},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    recording: RecordOptions,
    #[command(flatten)]
    serving: ServeOptions,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let settings = Settings {
        record: options.recording.dir,
        ..Settings::default()
    };
    let service = Service::open(&options.serving, settings).await?;
    service.report_listening();
    service.run(echo).await
}

async fn echo(mut call: Call, mut observer: CallObserver) -> Result<(), PlayError> {
    let mut live = call.live();
    while let Some(event) = observer.next(&mut call).await {
        if let Event::Audio(frame) = event {
            live.push(frame.samples());
        }
    }
    Ok(())
}
