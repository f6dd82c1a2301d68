//! A SIP phone: dials, talks and listens over RTP, presses keys, hangs up. Loopback and UDP only.

mod reception;
mod rtp;
mod sip;

use std::net::Ipv4Addr;
use std::time::Duration;

use sidetone_audio::g711::Law;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::asterisk::Asterisk;
pub use reception::Reception;
use rtp::Media;
pub use rtp::Packet;
use sip::{Dialog, Message};

/// How long Asterisk may take to answer a request.
const ANSWER: Duration = Duration::from_secs(10);

/// What kind of phone it is.
#[derive(Clone, Debug)]
pub struct PhoneOptions {
    /// Its codec, the only one it offers.
    pub law: Law,
    /// How much sound a packet holds, in milliseconds: 10, 20 or 30. Offered as `ptime`, so that Asterisk's packets are as long.
    pub ptime: u32,
    /// Which share of its packets gets lost on the way to Asterisk, from 0 to 1.
    pub loss: f64,
    /// Which packets those are: the same ones for the same number.
    pub seed: u64,
    /// Sends no RTP at all. Otherwise it sends silence when it has nothing to say.
    pub muted: bool,
}

/// A phone in a call. Dropped, it falls silent without a word, as one whose battery died; [`hang_up`](Self::hang_up) is the polite
/// way.
///
/// ```no_run
/// # async fn example(asterisk: &sidetone_lab::Asterisk) -> Result<(), sidetone_lab::phone::PhoneError> {
/// use sidetone_lab::phone::{Phone, PhoneOptions};
///
/// let phone = Phone::call(asterisk, "echo", PhoneOptions::default()).await?;
/// phone.say(&[1000; 8000]);
/// phone.press("12#");
/// phone.quiet().await;
/// let heard = phone.hang_up().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Phone {
    dialog: Dialog,
    media: Media,
    over: watch::Receiver<bool>,
    signalling: AbortHandle,
}

impl Default for PhoneOptions {
    fn default() -> Self {
        Self {
            law: Law::Ulaw,
            ptime: 20,
            loss: 0.0,
            seed: 1,
            muted: false,
        }
    }
}

impl Phone {
    /// Dials a number of the lab's dialplan and answers when the call is taken.
    ///
    /// `app-PORT-UUID`, `dial_CODEC-PORT-UUID` and `plain-PORT-UUID` reach the AudioSocket server at that port of 127.0.0.1 by the
    /// application, by Dial with and by Dial without a codec; `echo` and `tone` are what they say; all else is a recipe.
    ///
    /// # Errors
    ///
    /// [`PhoneError::Refused`] with the SIP status, such as `486 Busy Here`; [`PhoneError::Late`] after 10 s.
    pub async fn call(
        asterisk: &Asterisk,
        number: &str,
        options: PhoneOptions,
    ) -> Result<Self, PhoneError> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(asterisk.sip()).await?;
        let rtp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut dialog = Dialog::new(number, asterisk.sip(), socket.local_addr()?);
        let offer = rtp::offer(rtp.local_addr()?.port(), &options);
        socket.send(dialog.invite(&offer).as_bytes()).await?;
        let answer = timeout(ANSWER, accepted(&socket, &mut dialog))
            .await
            .map_err(|_| PhoneError::Late)??;
        let port = rtp::port(&answer.body).ok_or_else(|| PhoneError::Strange {
            said: answer.body.clone(),
        })?;
        rtp.connect((Ipv4Addr::LOCALHOST, port))?;
        let media = Media::start(rtp, options)?;
        let (tell, over) = watch::channel(false);
        let signalling = tokio::spawn(signalling(socket, dialog.clone(), tell)).abort_handle();
        Ok(Self {
            dialog,
            media,
            over,
            signalling,
        })
    }

    /// Says samples of 8 kHz, after what it is still saying. Never waits: they are sent at the pace of the phone's own clock.
    pub fn say(&self, samples: &[i16]) {
        self.media.say(samples);
    }

    /// Presses keys, after what it is still saying: RFC 4733 events of 100 ms with 100 ms of silence after each. What is no key
    /// is passed over.
    pub fn press(&self, keys: &str) {
        self.media.press(keys);
    }

    /// Mutes it after what it is still saying: it sends no RTP until it has something more to say.
    pub fn mute(&self) {
        self.media.mute();
    }

    /// Waits until all it had to say has been said, keys included. Cancel safe.
    pub async fn quiet(&self) {
        while !self.media.is_quiet() && !*self.over.borrow() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Every RTP packet that has come so far, in the order of coming.
    #[must_use]
    pub fn heard(&self) -> Vec<Packet> {
        self.media.heard()
    }

    /// Waits until the other end hangs up, and answers what was heard. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`PhoneError::Late`] if it doesn't within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Result<Vec<Packet>, PhoneError> {
        // The other side of the channel only goes together with this phone, or with its socket.
        let over = timeout(limit, self.over.wait_for(|over| *over)).await;
        over.map_err(|_| PhoneError::Late)?
            .map_err(|_| PhoneError::Late)?;
        Ok(self.heard())
    }

    /// Hangs up and answers what was heard.
    ///
    /// # Errors
    ///
    /// [`PhoneError::Io`] if the hanging up couldn't be sent.
    pub async fn hang_up(mut self) -> Result<Vec<Packet>, PhoneError> {
        self.signalling.abort();
        if !*self.over.borrow() {
            self.say_bye().await?;
        }
        Ok(self.heard())
    }

    async fn say_bye(&mut self) -> Result<(), PhoneError> {
        // The signalling task owns the socket; any other of this machine will do for a request that needs no answer.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect(self.dialog.peer()).await?;
        socket
            .send(self.dialog.bye(socket.local_addr()?).as_bytes())
            .await?;
        Ok(())
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.signalling.abort();
    }
}

/// Waits for the final answer to the INVITE and confirms it.
async fn accepted(socket: &UdpSocket, dialog: &mut Dialog) -> Result<Message, PhoneError> {
    loop {
        let message = receive(socket).await?;
        let Some(status) = message.status() else {
            continue;
        };
        if status < 200 {
            continue;
        }
        dialog.answered(&message);
        socket.send(dialog.ack(status).as_bytes()).await?;
        if status < 300 {
            return Ok(message);
        }
        return Err(PhoneError::Refused {
            status: message.first_line.trim_start_matches("SIP/2.0 ").to_owned(),
        });
    }
}

/// Answers what Asterisk asks for in the course of a call, until it hangs up.
async fn signalling(socket: UdpSocket, dialog: Dialog, over: watch::Sender<bool>) {
    while let Ok(message) = receive(&socket).await {
        let reply = match message.method() {
            // Our confirmation of the answer went missing.
            None if message.status() == Some(200) => dialog.ack(200),
            None | Some("ACK") => continue,
            Some(_) => message.ok(),
        };
        // Nobody is there to be told; Asterisk asks again.
        let _ = socket.send(reply.as_bytes()).await;
        if message.method() == Some("BYE") {
            over.send_replace(true);
        }
    }
}

async fn receive(socket: &UdpSocket) -> Result<Message, PhoneError> {
    let mut datagram = vec![0; 65_536];
    let length = socket.recv(&mut datagram).await?;
    Ok(Message::parse(&String::from_utf8_lossy(
        &datagram[..length],
    )))
}

/// What can go wrong with a phone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhoneError {
    /// A socket failed.
    #[error("the phone's socket failed: {0}")]
    Io(#[from] std::io::Error),
    /// The call was not taken.
    #[error("the call was refused: {status}")]
    Refused {
        /// Number and words of SIP.
        status: String,
    },
    /// What was waited for did not come.
    #[error("Asterisk said nothing in time; its log says what happened instead")]
    Late,
    /// The answer names no port for sound.
    #[error("Asterisk's answer has no audio: {said}")]
    Strange {
        /// The session description.
        said: String,
    },
}
