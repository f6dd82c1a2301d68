//! The least that a bridge can do: base64 both ways, no schedule, no marks, no checks: `relay ADDRESS BOT`.

use std::env::args;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_websockets::{ClientBuilder, Message};

const ID: u8 = 0x01;
const AUDIO: u8 = 0x10;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let (address, bot) = (args().nth(1).unwrap(), args().nth(2).unwrap());
    let listener = TcpListener::bind(address).await.unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let bot = bot.clone();
        tokio::spawn(async move { relay(stream, &bot).await });
    }
}

async fn relay(stream: TcpStream, bot: &str) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (reader, mut writer) = stream.into_split();
    let (socket, _) = ClientBuilder::new().uri(bot).ok()?.connect().await.ok()?;
    let (mut to_bot, mut from_bot) = socket.split();
    tokio::spawn(async move {
        while let Some(Ok(message)) = from_bot.next().await {
            let text = message.as_text()?;
            let payload = text.split("\"payload\":\"").nth(1)?.split('"').next()?;
            let audio = STANDARD.decode(payload).ok()?;
            let mut frame = vec![AUDIO];
            frame.extend((audio.len() as u16).to_be_bytes());
            frame.extend(audio);
            writer.write_all(&frame).await.ok()?;
        }
        Some(())
    });
    let mut reader = BufReader::new(reader);
    let mut payload = Vec::new();
    loop {
        let kind = reader.read_u8().await.ok()?;
        payload.resize(reader.read_u16().await.ok()?.into(), 0);
        reader.read_exact(&mut payload).await.ok()?;
        // The bot tells calls apart.
        if kind == ID {
            let id: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            let text = format!("{{\"event\":\"start\",\"start\":{{\"callSid\":\"CA{id}\"}}}}");
            to_bot.send(Message::text(text)).await.ok()?;
        }
        if kind == AUDIO {
            let payload = STANDARD.encode(&payload);
            let text = format!("{{\"event\":\"media\",\"media\":{{\"payload\":\"{payload}\"}}}}");
            to_bot.send(Message::text(text)).await.ok()?;
        }
    }
}
