//! The protocols that bots speak, as state machines. Call events and messages of the bot go in; messages to the bot and other
//! actions come out. None has a socket or a clock.
//!
//! A [`Dialect`] is what a bot is set up with; a [`Conversation`] is one connection of it.

mod asterisk;
mod json_audio;
pub mod openai;
mod plivo;
mod twilio;
mod vonage;
mod whole_samples;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use sidetone::Heard;
use sidetone_audio::g711::Law;
pub use sidetone_websocket::Message;

use crate::{failure::BotFailure, session::Session};

pub use asterisk::Asterisk;
pub use openai::OpenAi;
pub use plivo::Plivo;
pub use twilio::Twilio;
pub use vonage::Vonage;

/// A protocol between phone calls and a bot.
pub trait Dialect: fmt::Debug + Send + Sync + 'static {
    /// Its name, as files and metrics have it.
    fn name(&self) -> &'static str;

    /// What the request for a connection to `address` holds besides the address.
    fn upgrade(&self, _address: &str, _session: &Session) -> Upgrade {
        Upgrade::default()
    }

    /// Begins a conversation, for a connection that has just been made.
    ///
    /// `caller` says at which rate and in which law the caller's audio comes.
    fn start(&self, session: &Session, caller: AudioFormat) -> Box<dyn Conversation>;

    /// Whether a bot can go on with a call after its connection broke.
    fn can_reconnect(&self) -> bool {
        false
    }
}

/// What the request for a connection holds.
#[derive(Clone, Debug, Default)]
pub struct Upgrade {
    /// Added to the address's query, percent-encoded.
    pub query: String,
    /// Headers, which may hold secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The WebSocket subprotocol that is asked for.
    pub subprotocol: Option<&'static str>,
}

/// One connection of a bot.
///
/// Its owner calls [`handle_event`](Self::handle_event) and [`handle_message`](Self::handle_message) in the order in which things
/// happen, and carries out all actions in their order after each. The first event is [`CallEvent::Connected`].
pub trait Conversation: Send {
    /// How the bot wants the caller's audio. It does not change.
    fn caller_format(&self) -> AudioFormat;

    /// Something happened on the call. `queued` is how much bot audio has not been heard yet.
    fn handle_event(&mut self, event: CallEvent<'_>, queued: Duration, actions: &mut Vec<Action>);

    /// The bot sent a message.
    ///
    /// # Errors
    ///
    /// What the conversation can't go on after. A message that is merely wrong is [complained](Action::Complaint) about instead.
    fn handle_message(
        &mut self,
        message: Received<'_>,
        queued: Duration,
        actions: &mut Vec<Action>,
    ) -> Result<(), BotFailure>;

    /// Whether a message that was [sent](Action::Send) is audio of the caller: that may be dropped when the bot takes nothing.
    fn is_caller_audio(&self, message: &Message) -> bool;

    /// Whether the bot has taken its settings, in dialects in which it has any. One that does not within 10 s has failed.
    fn is_settled(&self) -> bool {
        true
    }

    /// Whether the bot ends the call by closing the connection with the code of a normal end. Otherwise that is a failure.
    fn ends_by_closing(&self) -> bool {
        true
    }
}

/// A message from the bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// Text.
    Text(&'a str),
    /// Anything else.
    Binary(&'a [u8]),
}

/// What happens on a call.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CallEvent<'a> {
    /// The connection has been made: the first messages are due.
    Connected,
    /// 20 ms of the caller, in [`Conversation::caller_format`].
    Audio {
        /// Where it begins, counted from the first frame. It advances by 20 ms from frame to frame, but where frames were dropped
        /// because the bot did not take them.
        timestamp: Duration,
        /// The samples, encoded.
        payload: &'a [u8],
    },
    /// The caller pressed a key: one of `0-9 * # A-D`.
    Digit(char),
    /// All bot audio before this mark has been heard.
    MarkReached(&'a str),
    /// A [clear](Action::Clear) has taken effect, and this is what it cut off.
    Cleared(&'a Cleared),
    /// All bot audio has been heard.
    Drained,
    /// What came of a [call of a tool](Action::CallTool).
    ToolResult {
        /// The call's own name.
        id: &'a str,
        /// What the tool returned, or why it did not.
        output: Result<&'a str, &'a str>,
    },
    /// The call is over: the last messages are due.
    Ended,
}

/// What a clear cut off.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cleared {
    /// The marks that were not reached, in their order.
    pub marks: Vec<String>,
    /// The items that had not been heard to their end, with what was heard of each, in their order.
    pub items: Vec<(ItemName, Heard)>,
}

/// The bot's name for a piece of its speech.
pub type ItemName = Arc<str>;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Sends the bot a message.
    Send(Message),
    /// Queues audio for the caller.
    Play {
        /// The piece of speech that it is of, if the bot names it. Consecutive audio of one name is one item.
        item: Option<ItemName>,
        /// How it is encoded.
        format: AudioFormat,
        /// The samples, encoded. What is left behind a whole sample is dropped.
        audio: Vec<u8>,
    },
    /// Nothing more comes of this item.
    EndItem(ItemName),
    /// Puts a mark behind all audio queued so far. Reached at once if there is none.
    Mark(String),
    /// Drops all audio and marks that were queued and not heard.
    Clear,
    /// Holds what is queued back, until it is [resumed](Self::Resume). The caller hears silence.
    Pause,
    /// Goes on with what was held back.
    Resume,
    /// Has a tool of the [session](crate::Session::tools) do something. A [result](CallEvent::ToolResult) follows.
    CallTool {
        /// The call's own name.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments, as JSON.
        arguments: String,
    },
    /// Something that was said, in words.
    Transcript(Transcript),
    /// The bot has ended the conversation: what it has said is heard, and then the call ends.
    End,
    /// Hangs up, at once.
    HangUp,
    /// The bot did something wrong that ends nothing.
    Complaint(Cow<'static, str>),
}

/// Something that was said, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// Who said it.
    pub speaker: Speaker,
    /// The words.
    pub text: String,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The caller.
    Caller,
    /// The bot.
    Bot,
}

/// The longest complaint, in characters. Complaints repeat what a bot sent, of any length.
const MAX_COMPLAINT_LEN: usize = 160;

/// Complains about something that ends nothing.
fn complain(
    actions: &mut Vec<Action>,
    complaint: impl Into<Cow<'static, str>>,
) -> Result<(), BotFailure> {
    let mut complaint = complaint.into();
    if let Some((end, _)) = complaint.char_indices().nth(MAX_COMPLAINT_LEN) {
        complaint = format!("{}…", &complaint[..end]).into();
    }
    actions.push(Action::Complaint(complaint));
    Ok(())
}

/// How audio is encoded, one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AudioFormat {
    /// The encoding.
    pub encoding: Encoding,
    /// The rate, in samples a second.
    pub hz: u32,
}

/// How a sample is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Signed 16-bit, little endian.
    Linear16,
    /// G.711, one byte a sample.
    G711(Law),
}

impl AudioFormat {
    /// µ-law at 8 kHz.
    pub const ULAW: Self = Self {
        encoding: Encoding::G711(Law::Ulaw),
        hz: 8_000,
    };

    /// A-law at 8 kHz.
    pub const ALAW: Self = Self {
        encoding: Encoding::G711(Law::Alaw),
        hz: 8_000,
    };

    /// Linear samples at `hz`.
    pub const fn linear(hz: u32) -> Self {
        Self {
            encoding: Encoding::Linear16,
            hz,
        }
    }

    /// The length of one sample, in bytes.
    pub const fn sample_len(self) -> usize {
        match self.encoding {
            Encoding::Linear16 => 2,
            Encoding::G711(_) => 1,
        }
    }

    /// Appends samples, encoded.
    pub fn encode(self, samples: &[i16], bytes: &mut Vec<u8>) {
        match self.encoding {
            Encoding::Linear16 => {
                bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
            }
            Encoding::G711(law) => law.encode(samples, bytes),
        }
    }

    /// Appends the samples of `bytes`. What is left behind a whole sample is dropped.
    pub fn decode(self, bytes: &[u8], samples: &mut Vec<i16>) {
        match self.encoding {
            Encoding::Linear16 => {
                let whole = bytes.as_chunks::<2>().0;
                samples.extend(whole.iter().map(|sample| i16::from_le_bytes(*sample)));
            }
            Encoding::G711(law) => law.decode(bytes, samples),
        }
    }
}
