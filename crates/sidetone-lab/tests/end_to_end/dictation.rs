//! A recognizer fed files, by its protocol and nothing else: what calls are compared with.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Message};

use crate::wire::to_bytes;

/// A word, with its times in seconds.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) text: String,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

impl AsRef<str> for Heard {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// What a Vosk server understands of samples of 8 kHz; times count from the first of them.
pub(crate) async fn dictate(
    server: SocketAddr,
    phrases: &[String],
    samples: &[i16],
) -> anyhow::Result<Vec<Heard>> {
    let uri = format!("ws://{server}/").parse()?;
    let stream = TcpStream::connect(server).await?;
    let (mut socket, _) = ClientBuilder::from_uri(uri).connect_on(stream).await?;
    let config =
        json!({ "config": { "sample_rate": 8_000, "words": true, "phrase_list": phrases } });
    socket.send(Message::text(config.to_string())).await?;
    let pieces = samples
        .chunks(1_600)
        .map(|piece| Message::binary(to_bytes(piece)));
    let mut words = Vec::new();
    for message in pieces.chain([Message::text(r#"{"eof" : 1}"#.to_owned())]) {
        socket.send(message).await?;
        let reply = socket.next().await.context("it hung up")??;
        let reply: Value = serde_json::from_str(reply.as_text().context("no text")?)?;
        for word in reply["result"].as_array().into_iter().flatten() {
            let (Some(text), Some(start), Some(end)) = (
                word["word"].as_str(),
                word["start"].as_f64(),
                word["end"].as_f64(),
            ) else {
                bail!("a word without its time: {word}");
            };
            words.push(Heard {
                text: text.to_owned(),
                start,
                end,
            });
        }
    }
    Ok(words)
}
