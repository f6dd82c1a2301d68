//! The caller as a test owns one: the far end of an AudioSocket channel that Asterisk rings. What it hears is the judge of a server.
//!
//! It talks and listens on threads of its own, so that nothing the runtime is busy with moves its clock or its time stamps.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use sidetone_audio::g711::Law;
use sidetone_caller::Codec;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::wire::{HANG_UP, ID, SOON, from_bytes, to_bytes};

/// How long its frames are.
const PTIME: Duration = Duration::from_millis(20);

/// A caller in a call. Dropped, it is gone without a word.
pub(crate) struct Person {
    socket: TcpStream,
    life: Arc<Mutex<Life>>,
    progress: watch::Receiver<Progress>,
}

/// What it said, or heard, in one message.
#[derive(Clone)]
pub(crate) struct Sound {
    pub(crate) at: Instant,
    pub(crate) kind: u8,
    pub(crate) samples: Vec<i16>,
}

#[derive(Default)]
struct Life {
    to_say: VecDeque<i16>,
    muted: bool,
    said: Vec<Sound>,
    heard: Vec<Sound>,
    ended: Option<Instant>,
}

/// How far its hearing is: enough to know when to look closer.
#[derive(Clone, Copy, Default)]
struct Progress {
    heard: usize,
    over: bool,
}

impl Person {
    /// Takes a call that Asterisk has made, and says silence until told otherwise.
    pub(crate) async fn answer(
        stream: tokio::net::TcpStream,
        codec: Codec,
    ) -> anyhow::Result<Self> {
        let socket = stream.into_std()?;
        socket.set_nonblocking(false)?;
        let life = Arc::<Mutex<Life>>::default();
        let (tell, progress) = watch::channel(Progress::default());
        let (mut reader, listening) = (socket.try_clone()?, Arc::clone(&life));
        std::thread::spawn(move || {
            while let Some((kind, payload)) = read(&mut reader) {
                if kind == ID {
                    continue;
                }
                let sound = Sound {
                    at: Instant::now(),
                    kind,
                    samples: decode(codec, &payload),
                };
                let mut life = listening.lock().unwrap();
                life.heard.push(sound);
                tell.send_modify(|progress| progress.heard = life.heard.len());
            }
            listening.lock().unwrap().ended = Some(Instant::now());
            tell.send_modify(|progress| progress.over = true);
        });
        let (mut writer, talking) = (socket.try_clone()?, Arc::clone(&life));
        std::thread::spawn(move || {
            let start = Instant::now();
            for slot in 1.. {
                std::thread::sleep(
                    (start + PTIME * slot).saturating_duration_since(Instant::now()),
                );
                if !talk(&mut writer, codec, &talking) {
                    return;
                }
            }
        });
        Ok(Self {
            socket,
            life,
            progress,
        })
    }

    /// Says samples of the rate of its codec, after what it is still saying.
    pub(crate) fn say(&self, samples: &[i16]) {
        self.life.lock().unwrap().to_say.extend(samples);
    }

    /// From now on sends nothing, not even silence, while it has nothing to say.
    pub(crate) fn mute(&self) {
        self.life.lock().unwrap().muted = true;
    }

    /// Everything heard so far, silence included.
    pub(crate) fn heard(&self) -> Vec<Sound> {
        self.life.lock().unwrap().heard.clone()
    }

    /// Everything said so far, silence included.
    pub(crate) fn said(&self) -> Vec<Sound> {
        self.life.lock().unwrap().said.clone()
    }

    /// When the call was over for this end.
    pub(crate) fn over_at(&self) -> Option<Instant> {
        self.life.lock().unwrap().ended
    }

    /// Waits until so many messages have been heard, which is at once if they have been.
    pub(crate) async fn has_heard(&self, messages: usize) -> anyhow::Result<()> {
        let mut progress = self.progress.clone();
        let heard = progress.wait_for(|progress| progress.heard >= messages || progress.over);
        let progress = *timeout(SOON, heard).await.context("nothing is heard")??;
        anyhow::ensure!(
            progress.heard >= messages,
            "the call was over after {} messages",
            progress.heard
        );
        Ok(())
    }

    /// Waits until it has said everything.
    pub(crate) async fn quiet(&self) {
        while !self.life.lock().unwrap().to_say.is_empty() && self.over_at().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until Asterisk ends the call.
    pub(crate) async fn ended(&self, limit: Duration) -> anyhow::Result<()> {
        let mut progress = self.progress.clone();
        timeout(limit, progress.wait_for(|progress| progress.over))
            .await
            .context("the caller's call does not end")??;
        Ok(())
    }

    /// Hangs up and waits for the end.
    pub(crate) async fn hang_up(&self) -> anyhow::Result<()> {
        {
            // The lock keeps the hang-up from falling into the middle of a frame.
            let _life = self.life.lock().unwrap();
            (&self.socket).write_all(&[HANG_UP, 0, 0])?;
            self.socket.shutdown(Shutdown::Write)?;
        }
        self.ended(SOON).await
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // Already closed is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// All the samples, end to end.
pub(crate) fn samples(sounds: &[Sound]) -> Vec<i16> {
    sounds
        .iter()
        .flat_map(|sound| &sound.samples)
        .copied()
        .collect()
}

/// Says the next frame, if there is one; false once nobody listens.
fn talk(writer: &mut TcpStream, codec: Codec, life: &Mutex<Life>) -> bool {
    let mut life = life.lock().unwrap();
    if life.ended.is_some() {
        return false;
    }
    if life.to_say.is_empty() && life.muted {
        return true;
    }
    let length = codec.frame_samples(PTIME);
    let ready = life.to_say.len().min(length);
    let mut samples: Vec<i16> = life.to_say.drain(..ready).collect();
    samples.resize(length, 0);
    // Whatever Asterisk sends, this is the only way it takes audio.
    let kind = codec.kind().code();
    let mut message = vec![kind];
    message.extend(u16::try_from(length * 2).unwrap().to_be_bytes());
    message.extend(to_bytes(&samples));
    life.said.push(Sound {
        at: Instant::now(),
        kind,
        samples,
    });
    writer.write_all(&message).is_ok()
}

/// The next message, or nothing once the call is over, however it ended.
fn read(reader: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 3];
    reader.read_exact(&mut header).ok()?;
    let mut payload = vec![0; usize::from(u16::from_be_bytes([header[1], header[2]]))];
    reader.read_exact(&mut payload).ok()?;
    Some((header[0], payload))
}

fn decode(codec: Codec, payload: &[u8]) -> Vec<i16> {
    let mut samples = Vec::new();
    match codec {
        Codec::Slin(_) => samples.extend(from_bytes(payload)),
        Codec::Ulaw => Law::Ulaw.decode(payload, &mut samples),
        Codec::Alaw => Law::Alaw.decode(payload, &mut samples),
    }
    samples
}
