//! AudioSocket by hand: a listener and its lines, for trying the lab itself without the library that is tested with it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

pub(crate) const HANG_UP: u8 = 0x00;
pub(crate) const ID: u8 = 0x01;
pub(crate) const DTMF: u8 = 0x03;
pub(crate) const SLIN: u8 = 0x10;

/// Samples of a frame of 20 ms at 8 kHz.
pub(crate) const FRAME: usize = 160;
/// Frames of silence before what is said: 200 ms.
const LEAD: usize = 10;

/// Far longer than anything takes that is going to happen.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Where Asterisk connects to.
pub(crate) struct Listener {
    listener: TcpListener,
}

/// One connection of Asterisk's.
pub(crate) struct Line {
    pub(crate) id: Uuid,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

impl Listener {
    pub(crate) async fn bind() -> anyhow::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind("127.0.0.1:0").await?,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection.
    pub(crate) async fn connection(&self) -> anyhow::Result<TcpStream> {
        let (stream, _) = timeout(SOON, self.listener.accept())
            .await
            .context("Asterisk does not connect")??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// The next connection, once it has said its UUID.
    pub(crate) async fn line(&self) -> anyhow::Result<Line> {
        Line::of(self.connection().await?).await
    }
}

impl Line {
    pub(crate) async fn of(stream: TcpStream) -> anyhow::Result<Self> {
        let (mut reader, writer) = stream.into_split();
        match read(&mut reader).await? {
            Some((ID, id)) => Ok(Self {
                id: Uuid::from_slice(&id)?,
                reader,
                writer,
            }),
            other => bail!("a UUID comes first, not {other:?}"),
        }
    }

    /// The next message, or nothing once Asterisk has closed.
    pub(crate) async fn read(&mut self) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
        read(&mut self.reader).await
    }

    /// The next message of that kind; others are passed over.
    pub(crate) async fn read_kind(&mut self, kind: u8) -> anyhow::Result<Vec<u8>> {
        loop {
            match self.read().await? {
                Some((is, payload)) if is == kind => return Ok(payload),
                Some(_) => {}
                None => bail!("the line closed before a message of kind {kind:#x}"),
            }
        }
    }

    /// Reads until Asterisk closes.
    pub(crate) async fn read_to_end(&mut self) -> anyhow::Result<()> {
        while self.read().await?.is_some() {}
        Ok(())
    }

    pub(crate) async fn write(&mut self, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
        write(&mut self.writer, kind, payload).await
    }

    /// Ends the call the way that is safe on every version of Asterisk.
    pub(crate) async fn hang_up(mut self) -> anyhow::Result<()> {
        self.write(HANG_UP, &[]).await?;
        self.writer.shutdown().await?;
        self.read_to_end().await
    }

    /// Says all the samples in frames of 20 ms, then silence, and hears until `enough`; answers all that was heard.
    pub(crate) async fn talk(
        &mut self,
        samples: &[i16],
        enough: impl Fn(&[i16]) -> bool,
    ) -> anyhow::Result<Vec<i16>> {
        let (reader, writer) = (&mut self.reader, &mut self.writer);
        let satisfied = AtomicBool::new(false);
        let listening = async {
            let mut heard = Vec::new();
            while !enough(&heard) {
                match read(reader).await? {
                    Some((SLIN, payload)) => heard.extend(from_bytes(&payload)),
                    Some(_) => {}
                    None => bail!("the line closed after {} samples", heard.len()),
                }
            }
            satisfied.store(true, Ordering::Relaxed);
            Ok(heard)
        };
        let talking = async {
            let mut clock = interval(Duration::from_millis(20));
            clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
            // What comes before both legs are bridged may be dropped: that is the dialplan's business.
            let lead = std::iter::repeat_n(&[0; FRAME][..], LEAD);
            let mut frames = lead.chain(samples.chunks(FRAME));
            loop {
                let frame = match frames.next() {
                    Some(frame) => frame,
                    None if satisfied.load(Ordering::Relaxed) => return anyhow::Ok(()),
                    None => &[0; FRAME],
                };
                clock.tick().await;
                write(writer, SLIN, &to_bytes(frame)).await?;
            }
        };
        let (heard, ()) = tokio::try_join!(listening, talking)?;
        Ok(heard)
    }
}

/// `count` samples that never repeat within 65536, so that a frame lost, doubled or moved shows.
pub(crate) fn ramp(count: usize) -> Vec<i16> {
    (1..=count)
        .map(|n| {
            u16::try_from(n % 65_536)
                .unwrap()
                .wrapping_mul(40_503)
                .cast_signed()
        })
        .collect()
}

/// Whether `whole` is in `heard`, uninterrupted and bit for bit.
pub(crate) fn contains(heard: &[i16], whole: &[i16]) -> bool {
    heard.windows(whole.len()).any(|window| window == whole)
}

pub(crate) fn from_bytes(payload: &[u8]) -> impl Iterator<Item = i16> {
    payload
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
}

pub(crate) fn to_bytes(samples: &[i16]) -> Vec<u8> {
    samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

/// The next message, or nothing at the end of the call: a FIN, a reset if Asterisk had unread audio, a message cut short.
async fn read(reader: &mut OwnedReadHalf) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
    let message = async {
        let mut header = [0; 3];
        reader.read_exact(&mut header).await?;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([header[1], header[2]]))];
        reader.read_exact(&mut payload).await?;
        std::io::Result::Ok((header[0], payload))
    };
    match timeout(SOON, message)
        .await
        .context("Asterisk says nothing")?
    {
        Ok(message) => Ok(Some(message)),
        Err(error)
            if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn write(writer: &mut OwnedWriteHalf, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
    let mut message = vec![kind];
    message.extend(u16::try_from(payload.len())?.to_be_bytes());
    message.extend(payload);
    Ok(writer.write_all(&message).await?)
}
