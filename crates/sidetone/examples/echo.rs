//! Plays to every caller what they say. `#` hangs up.
//!
//!     cargo run --example echo

use sidetone::{Call, Event, ServeError, Server};

async fn echo(mut call: Call) {
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
