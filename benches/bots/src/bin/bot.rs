//! A bot that gives every payload back at once, or with `sounds` those that are not silence: `bot ADDRESS [sounds]`. At the end of its
//! input it prints when each sound came: CALL NANOSECONDS.

use std::{env::args, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use sidetone_bench_bots::now;
use tokio::{
    io::{AsyncReadExt, stdin},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_websockets::{Message, ServerBuilder};

/// How silence begins in base64: µ-law, and linear.
const SILENCE: [&str; 2] = ["/////", "AAAAA"];

type Sounds = Mutex<Vec<(String, u128)>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = TcpListener::bind(args().nth(1).unwrap()).await.unwrap();
    let sounds = Arc::<Sounds>::default();
    let heard = Arc::clone(&sounds);
    let is_quiet = args().nth(2).is_some();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&heard), is_quiet));
        }
    });
    let _ = stdin().read_to_end(&mut Vec::new()).await;
    for (call, at) in sounds.lock().await.iter() {
        println!("{call} {at}");
    }
}

async fn answer(stream: TcpStream, sounds: Arc<Sounds>, is_quiet: bool) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (_, mut socket) = ServerBuilder::new().accept(stream).await.ok()?;
    let mut call = String::new();
    while let Some(Ok(message)) = socket.next().await {
        let text = message.as_text()?;
        if let Some(rest) = text.split("\"callSid\":\"CA").nth(1) {
            call = rest.split('"').next()?.to_owned();
        }
        let Some(rest) = text.split("\"payload\":\"").nth(1) else {
            continue;
        };
        let payload = rest.split('"').next()?;
        let is_sound = !SILENCE.iter().any(|silence| payload.starts_with(silence));
        if is_sound {
            sounds.lock().await.push((call.clone(), now()));
        }
        if is_quiet && !is_sound {
            continue;
        }
        let reply = format!("{{\"event\":\"media\",\"media\":{{\"payload\":\"{payload}\"}}}}");
        socket.send(Message::text(reply)).await.ok()?;
    }
    Some(())
}
