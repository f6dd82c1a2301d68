//! The crate `audiosocket` with tokio and a codec.
//!
//!     rust-audiosocket echo PORT
//!     rust-audiosocket play PORT CLIP      CLIP: headerless 16-bit samples at 8 kHz

use std::{error::Error, io, sync::Arc, time::Duration};

use audiosocket::{Message, RawMessage};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{MissedTickBehavior, interval},
};
use tokio_util::codec::{Decoder, Encoder, Framed};

const HEADER: usize = 3;
const FRAME: usize = 320;

/// Cuts the stream into messages.
struct Codec;

impl Decoder for Codec {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let Some(&[_, high, low]) = source.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
        if source.len() < length {
            source.reserve(length - source.len());
            return Ok(None);
        }
        Ok(Some(source.split_to(length).freeze()))
    }
}

impl Encoder<Message<'_>> for Codec {
    type Error = io::Error;

    fn encode(&mut self, message: Message<'_>, out: &mut BytesMut) -> io::Result<()> {
        let bytes = Vec::try_from(message).map_err(io::Error::other)?;
        out.extend_from_slice(&bytes);
        Ok(())
    }
}

fn message(bytes: &Bytes) -> io::Result<Message<'_>> {
    let raw = RawMessage::try_from(&bytes[..]).map_err(io::Error::other)?;
    Message::try_from(raw).map_err(io::Error::other)
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut framed = Framed::new(stream, Codec);
    while let Some(bytes) = framed.next().await {
        let bytes = bytes?;
        match message(&bytes)? {
            Message::Audio(audio) => framed.send(Message::Audio(audio)).await?,
            Message::Terminate => break,
            _ => {}
        }
    }
    Ok(())
}

async fn play(stream: TcpStream, clip: Arc<[u8]>) -> io::Result<()> {
    let mut framed = Framed::new(stream, Codec);
    let mut tick = interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut frames = clip.chunks_exact(FRAME).cycle();
    loop {
        tokio::select! {
            bytes = framed.next() => match bytes {
                Some(bytes) => drop(bytes?),
                None => return Ok(()),
            },
            _ = tick.tick() => framed.send(Message::Audio(frames.next())).await?,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(mode), Some(port)) = (words.next(), words.next()) else {
        return Err("usage: rust-audiosocket echo|play PORT [CLIP]".into());
    };
    let clip: Option<Arc<[u8]>> = match (mode.as_str(), words.next()) {
        ("play", Some(path)) => Some(std::fs::read(path)?.into()),
        _ => None,
    };
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port.parse()?).into())?;
    let listener = socket.listen(4096)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match clip.clone() {
            Some(clip) => drop(tokio::spawn(play(stream, clip))),
            None => drop(tokio::spawn(echo(stream))),
        }
    }
}
