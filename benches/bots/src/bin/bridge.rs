//! A server that echoes, and gives calls whose UUIDs say so to a bot: `bridge ADDRESS BOT`.

use std::env::args;

use sidetone::{Call, Event, Server};
use sidetone_bench_bots::BRIDGED;
use sidetone_bot::{Bot, Endpoint, Session, dialect::Twilio};

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (address, bot) = (args().nth(1).unwrap(), args().nth(2).unwrap());
    let bot = Bot::new(Endpoint::new(&bot)?, Twilio::default());
    let server = Server::builder().bind(address).await?;
    let handler = move |call: Call| {
        let bot = bot.clone();
        async move {
            match call.id().as_bytes().starts_with(&BRIDGED) {
                true => bridge(call, bot).await,
                false => echo(call).await,
            }
        }
    };
    Ok(server.serve(handler).await?)
}

async fn bridge(mut call: Call, bot: Bot) {
    let session = Session::new(&call);
    if let Err(failure) = bot.run(&mut call, session).await {
        eprintln!("{failure}");
    }
}

async fn echo(mut call: Call) {
    let mut live = call.live();
    while let Some(event) = call.next().await {
        if let Event::Audio(frame) = event {
            live.push(frame.samples());
        }
    }
}
