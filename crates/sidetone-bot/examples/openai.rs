//! A voice model of OpenAI that answers the phone: it greets the caller, can be interrupted, and hangs up when the caller is done.
//! Both sides are printed in words.
//!
//!     OPENAI_API_KEY=… cargo run -p sidetone-bot --example openai
//!
//! Another service that speaks like OpenAI's Realtime API is named by its address as an argument.
#![allow(clippy::print_stdout, reason = "this is a program for a terminal")]

use std::{env, error::Error};

use sidetone::{Call, Server};
use sidetone_bot::{Bot, BotEvent, Endpoint, Session, dialect::OpenAi};

fn bot() -> Result<Bot, Box<dyn Error>> {
    let key = env::var("OPENAI_API_KEY").map_err(|_| "set OPENAI_API_KEY to a key of OpenAI's")?;
    let address = env::args().nth(1);
    let address = address.unwrap_or_else(|| "wss://api.openai.com/v1/realtime".into());
    let model = OpenAi::new(&key, "gpt-realtime")?
        .voice("marin")
        .instructions("You answer the phone of {company}. Be brief. When the caller is done, say goodbye and hang up.")
        .speaks_first(true)
        .allow_hang_up()
        .transcribe("gpt-4o-mini-transcribe", None);
    Ok(Bot::new(Endpoint::new(&address)?, model))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bot = bot()?;
    let server = Server::builder().bind("127.0.0.1:9092").await?;
    println!("Listening on {}", server.local_addr());
    server
        .serve(move |mut call: Call| {
            let bot = bot.clone();
            async move {
                let session = Session::new(&call)
                    .param("company", "Sidetone")
                    .on_event(|event| match event {
                        BotEvent::Transcript(said) => println!("{:?}: {}", said.speaker, said.text),
                        BotEvent::Complaint(text) => println!("The service: {text}"),
                        _ => {}
                    });
                match bot.run(&mut call, session).await {
                    Ok(end) => println!("The call ended: {end:?}"),
                    Err(failure) => println!("The bot failed: {failure}"),
                }
            }
        })
        .await?;
    Ok(())
}
