//! Takes calls and reads nothing of what they say.
//!
//!     never_reads PORT

use sidetone::{Call, Server};

async fn hold(call: Call) {
    std::future::pending::<()>().await;
    drop(call);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args()
        .nth(1)
        .ok_or("usage: never_reads PORT")?
        .parse()?;
    Server::builder()
        .bind(("127.0.0.1", port))
        .await?
        .serve(hold)
        .await?;
    Ok(())
}
