//! `sidetone record`: what callers say goes into files, and they hear nothing.

use sidetone::{Call, PlayError};

use crate::{
    args::Record,
    board::Watch,
    failure::{Failure, Verdict},
    service::{Manner, Service},
};

pub(crate) async fn run(options: Record) -> Result<Verdict, Failure> {
    let manner = Manner {
        record: Some(options.dir),
        ..Manner::default()
    };
    let service = Service::open(&options.serving, manner).await?;
    service.announce();
    service.run(listen).await
}

async fn listen(mut call: Call, mut watch: Watch) -> Result<(), PlayError> {
    while watch.next(&mut call).await.is_some() {}
    Ok(())
}
