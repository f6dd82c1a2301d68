//! Plays to every caller what they say. `#` hangs up.
//!
//!     cargo run -p sidetone --example echo
//!     cargo run --release -- call 127.0.0.1:9092 --seconds 5 --expect-audio

use sidetone::{Call, Event, ServeError, Server};

pub(crate) async fn echo(mut call: Call) {
    let mut line = call.live();
    while let Some(event) = call.next().await {
        match event {
            Event::Audio(frame) => line.push(frame.samples()),
            Event::Dtmf('#') => break,
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), ServeError> {
    Server::builder()
        .bind("127.0.0.1:9092")
        .await?
        .serve(echo)
        .await
}
