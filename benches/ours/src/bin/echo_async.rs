//! Echo as an async function of a call.
//!
//!     echo_async PORT

use sidetone::{Call, Event, Server};

async fn echo(mut call: Call) {
    let mut line = call.live();
    while let Some(event) = call.next().await {
        if let Event::Audio(frame) = event {
            line.push(frame.samples());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args()
        .nth(1)
        .ok_or("usage: echo_async PORT")?
        .parse()?;
    sidetone_bench_servers::tell_allocations();
    Server::builder()
        .bind(("127.0.0.1", port))
        .await?
        .serve(echo)
        .await?;
    Ok(())
}
