//! A mailbox: greets the caller, records until #, 3 s of silence or 2 minutes, plays the message back, and hangs up. The message
//! stays as `UUID.wav`, also if the caller hangs up in the middle.
//!
//!     cargo run -p sidetone --example voicemail
//!     cargo run --release -- call 127.0.0.1:9092 --play speech.wav --seconds 30
#![allow(clippy::print_stdout, reason = "this is a program for a terminal")]

use std::{error::Error, path::PathBuf, time::Duration};

use sidetone::{
    Call, Clip, Server,
    ivr::{Interrupt, Ivr},
};
use sidetone_audio::tone;

pub(crate) async fn mailbox(
    call: Call,
    greeting: Clip,
    directory: PathBuf,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let file = directory.join(format!("{}.wav", call.id()));
    let mut ivr = Ivr::new(call);
    ivr.prompt(&greeting)
        .interrupted_by(Interrupt::KEYS)
        .await?;
    let message = ivr
        .message()
        .until_key('#')
        .until_silence(Duration::from_secs(3))
        .longest(Duration::from_secs(120))
        .await;
    message.write_wav(&file)?;
    println!(
        "{}: {:?}, {:?}",
        file.display(),
        message.duration(),
        message.ended_by
    );
    let message = Clip::from_samples(message.rate.hz(), message.samples)?;
    ivr.prompt(&message).interrupted_by(Interrupt::KEYS).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let greeting = Clip::from_samples(8_000, tone::greeting(8_000))?;
    let server = Server::builder().bind("127.0.0.1:9092").await?;
    server
        .serve(move |call| mailbox(call, greeting.clone(), PathBuf::from(".")))
        .await?;
    Ok(())
}
