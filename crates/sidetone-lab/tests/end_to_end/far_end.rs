//! The caller's end of a call, held by the test: an AudioSocket channel of Asterisk's, of which there can be hundreds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use crate::wire::{FRAME, HANG_UP, ID, SLIN, SOON, from_bytes, to_bytes};

const FRAME_TIME: Duration = Duration::from_millis(20);

/// A header's length.
const HEADER: usize = 3;

/// Where the callers' channels connect, told apart by their UUIDs.
pub(crate) struct Exchange {
    address: SocketAddr,
    expected: Expected,
    accepting: AbortHandle,
}

type Expected = Arc<Mutex<HashMap<Uuid, oneshot::Sender<TcpStream>>>>;

/// A caller that has been announced to Asterisk and will connect.
pub(crate) struct Coming(oneshot::Receiver<TcpStream>);

/// A caller in a call.
pub(crate) struct FarEnd {
    stream: TcpStream,
}

/// How long a caller stays.
#[derive(Clone, Copy)]
pub(crate) struct Stay {
    /// Until all has been said, and so many samples have been heard from the first sound on.
    pub(crate) until_heard: usize,
    /// But no longer than this.
    pub(crate) at_most: Duration,
}

impl Stay {
    /// Until the other side ends the call.
    pub(crate) const TO_THE_END: Self = Self {
        until_heard: usize::MAX,
        at_most: Duration::from_secs(60),
    };
}

/// What a caller heard.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) samples: Vec<i16>,
    /// Each message that came: when, and its first sample's place.
    messages: Vec<(Instant, usize)>,
    /// Whether the other side ended the call.
    pub(crate) was_hung_up: bool,
}

impl Exchange {
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let expected = Expected::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&expected))).abort_handle();
        Ok(Self {
            address,
            expected,
            accepting,
        })
    }

    /// A new caller: the channel that Asterisk has to make for it, and the caller to come of that.
    pub(crate) fn caller(&self) -> (String, Coming) {
        let id = Uuid::new_v4();
        let (tell, coming) = oneshot::channel();
        self.expected.lock().unwrap().insert(id, tell);
        let channel = format!("AudioSocket/{}/{id}/c(slin)", self.address);
        (channel, Coming(coming))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, expected: Expected) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let expected = Arc::clone(&expected);
        tokio::spawn(async move {
            let mut message = [0; HEADER + 16];
            stream.set_nodelay(true)?;
            stream.read_exact(&mut message).await?;
            let id = Uuid::from_bytes(*message.last_chunk().unwrap());
            let caller = expected.lock().unwrap().remove(&id);
            if let Some(caller) = caller.filter(|_| message[0] == ID) {
                // The scenario may have failed meanwhile.
                let _ = caller.send(stream);
            }
            anyhow::Ok(())
        });
    }
}

impl Coming {
    pub(crate) async fn answered(self) -> anyhow::Result<FarEnd> {
        let stream = timeout(SOON, self.0)
            .await
            .context("Asterisk does not call the caller")??;
        Ok(FarEnd { stream })
    }
}

impl FarEnd {
    /// Stays in the call until the other side ends it, or as long as `stay` says. Says `said` from the moment the first sound is
    /// heard, for what is said while the call is still being set up is heard by nobody; else says silence.
    pub(crate) async fn talk(mut self, said: &[i16], stay: Stay) -> anyhow::Result<Heard> {
        let mut first_sound = None;
        let (mut heard, mut bytes, mut taken) = (Heard::default(), Vec::new(), 0);
        let mut rest = said.chunks(FRAME);
        let mut clock = interval(FRAME_TIME);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let leaves = Instant::now() + stay.at_most;
        while !heard.was_hung_up {
            tokio::select! {
                read = self.stream.read_buf(&mut bytes) => match read {
                    // Closing with unread audio, Asterisk resets.
                    Ok(0) | Err(_) => heard.was_hung_up = true,
                    Ok(_) => {
                        taken += heard.take(&bytes[taken..])?;
                        if taken > 1 << 16 {
                            bytes.drain(..std::mem::take(&mut taken));
                        }
                        first_sound = first_sound.or_else(|| heard.samples.iter().position(|sample| *sample != 0));
                    }
                },
                _ = clock.tick() => {
                    let has_heard = first_sound.map_or(0, |first| heard.samples.len() - first);
                    let has_said = rest.len() == 0;
                    if has_said && has_heard >= stay.until_heard || Instant::now() >= leaves {
                        break;
                    }
                    let frame = first_sound.and_then(|_| rest.next());
                    let mut message = vec![SLIN, 0, 0];
                    message.extend(to_bytes(frame.unwrap_or(&[0; FRAME])));
                    let length = u16::try_from(message.len() - HEADER)?.to_be_bytes();
                    message[1..HEADER].copy_from_slice(&length);
                    // If the call is over, the next read says so.
                    let _ = self.stream.write_all(&message).await;
                }
            }
        }
        Ok(heard)
    }
}

impl Heard {
    /// Takes the whole messages at the front of `bytes`, and answers how many bytes they are.
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<usize> {
        let at = Instant::now();
        let mut taken = 0;
        while let Some((&[kind, high, low], rest)) = bytes[taken..].split_first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let Some(payload) = rest.get(..length) else {
                break;
            };
            match kind {
                SLIN => {
                    self.messages.push((at, self.samples.len()));
                    self.samples.extend(from_bytes(payload));
                }
                HANG_UP => self.was_hung_up = true,
                other => bail!("a message of kind {other:#x}"),
            }
            taken += HEADER + length;
        }
        Ok(taken)
    }

    /// Whether there was nothing but silence.
    pub(crate) fn is_silent(&self) -> bool {
        self.samples.iter().all(|sample| *sample == 0)
    }

    /// By how much each message that holds some of `sound` came later than the most punctual one did, most punctual first.
    ///
    /// # Errors
    ///
    /// If `sound` is not there uninterrupted and bit for bit.
    pub(crate) fn lateness(&self, sound: &[i16]) -> anyhow::Result<Lateness> {
        let begin = self
            .samples
            .windows(sound.len())
            .position(|window| window == sound);
        let Some(begin) = begin else {
            let runs = sidetone_caller::exact_runs(sound, &self.samples);
            bail!("not heard whole, but in these pieces: {runs:?}");
        };
        let inside = |place: &usize| (begin..begin + sound.len()).contains(place);
        let messages = self.messages.iter().filter(|(_, place)| inside(place));
        let ideal = |place: usize| Duration::from_micros(125) * u32::try_from(place).unwrap();
        // Against an ideal clock that starts with the call's first message.
        let first = self
            .messages
            .first()
            .map_or_else(Instant::now, |(at, _)| *at);
        let offsets: Vec<i128> = messages
            .map(|(at, place)| {
                (*at - first).as_nanos().cast_signed() - ideal(*place).as_nanos().cast_signed()
            })
            .collect();
        let earliest = offsets.iter().min().copied().unwrap_or_default();
        let mut late: Vec<Duration> = offsets
            .iter()
            .map(|offset| Duration::from_nanos(u64::try_from(offset - earliest).unwrap()))
            .collect();
        ensure!(!late.is_empty(), "no message begins in it");
        late.sort_unstable();
        Ok(Lateness(late))
    }
}

/// How late the content of each message was, in rising order.
pub(crate) struct Lateness(Vec<Duration>);

impl Lateness {
    /// Of several calls, as if they were one.
    pub(crate) fn of_all(all: impl IntoIterator<Item = Self>) -> Self {
        let mut late: Vec<Duration> = all.into_iter().flat_map(|one| one.0).collect();
        late.sort_unstable();
        Self(late)
    }

    /// The lateness that so many of 1000 messages do not exceed.
    pub(crate) fn at(&self, thousandths: usize) -> Duration {
        self.0[(self.0.len() - 1) * thousandths / 1000]
    }
}
