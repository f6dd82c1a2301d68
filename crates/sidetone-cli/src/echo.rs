//! `sidetone echo`: everybody hears themselves.

use sidetone::{Call, Event, PlayError};

use crate::{
    args::Echo,
    board::Watch,
    failure::{Failure, Verdict},
    service::{Manner, Service},
};

pub(crate) async fn run(options: Echo) -> Result<Verdict, Failure> {
    let manner = Manner {
        record: options.recording.dir,
        ..Manner::default()
    };
    let service = Service::open(&options.serving, manner).await?;
    service.announce();
    service.run(echo).await
}

async fn echo(mut call: Call, mut watch: Watch) -> Result<(), PlayError> {
    let mut line = call.live();
    while let Some(event) = watch.next(&mut call).await {
        if let Event::Audio(frame) = event {
            line.push(frame.samples());
        }
    }
    Ok(())
}
