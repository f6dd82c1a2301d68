//! What every voice menu needs: prompts that the caller can interrupt, digits, a spoken message, and a bridge between two
//! calls.
//!
//! [`Ivr`] wraps a [`Call`] and remembers the keys that the caller types ahead. Each operation reads the call's events until it
//! is done; events that it has no use for are passed over. When the call ends, operations fail with [`PlayError::Closed`],
//! which a handler may pass on with `?`: it is a normal end.
//!
//! ```no_run
//! use sidetone::{Call, Clip, PlayError, Server, ivr::{Interrupt, Ivr}};
//!
//! async fn menu(call: Call, prompt: Clip, thanks: Clip) -> Result<(), PlayError> {
//!     let mut ivr = Ivr::new(call);
//!     ivr.prompt(&prompt).interrupted_by(Interrupt::KEYS | Interrupt::SPEECH).await?;
//!     let account = ivr.digits(8).end('#').await?;
//!     println!("account {}", account.digits);
//!     ivr.prompt(&thanks).await?;
//!     Ok(())
//! }
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (prompt, thanks) = (Clip::open("prompt.wav")?, Clip::open("thanks.wav")?);
//! let server = Server::builder().bind("127.0.0.1:9092").await?;
//! server.serve(move |call| menu(call, prompt.clone(), thanks.clone())).await?;
//! # Ok(())
//! # }
//! ```

mod bridge;
mod digits;
mod message;
mod prompt;
mod speech;

use std::collections::VecDeque;

pub use bridge::{Left, bridge};
pub use digits::{CollectDigits, Digits, DigitsEnd};
pub use message::{Message, MessageEnd, RecordMessage};
pub use prompt::{Interrupt, InterruptedBy, PlayPrompt, Prompted};

use crate::{Call, Clip, Event, PlayError};

/// Keys that are remembered until something asks for them. Further ones are dropped: nobody types that far ahead.
const MAX_TYPED_AHEAD: usize = 1024;

/// A call that is led through a menu.
#[derive(Debug)]
pub struct Ivr {
    call: Call,
    typed_ahead: VecDeque<char>,
}

impl Ivr {
    /// Leads this call.
    pub fn new(call: Call) -> Self {
        Self {
            call,
            typed_ahead: VecDeque::new(),
        }
    }

    /// The call.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Gives the call back. Keys that were typed ahead are dropped.
    pub fn into_call(self) -> Call {
        self.call
    }

    /// Drops the keys that the caller has typed ahead.
    pub fn forget_keys(&mut self) {
        self.typed_ahead.clear();
    }

    /// Plays a prompt to its end, or until the caller [interrupts](PlayPrompt::interrupted_by) it. Await it.
    pub fn prompt<'a>(&'a mut self, clip: &'a Clip) -> PlayPrompt<'a> {
        PlayPrompt::new(self, clip)
    }

    /// Collects up to `max` digits, those that were typed ahead first. Await it.
    pub fn digits(&mut self, max: usize) -> CollectDigits<'_> {
        CollectDigits::new(self, max)
    }

    /// Records what the caller says, until a key, silence or a limit ends it, and never ends the call. Await it.
    pub fn message(&mut self) -> RecordMessage<'_> {
        RecordMessage::new(self)
    }

    /// The next event, which is never the end.
    async fn next(&mut self) -> Result<Event<'_>, PlayError> {
        match self.call.next().await {
            None | Some(Event::Ended(_)) => Err(PlayError::Closed),
            Some(event) => Ok(event),
        }
    }

    fn remember_key(&mut self, key: char) {
        if self.typed_ahead.len() < MAX_TYPED_AHEAD {
            self.typed_ahead.push_back(key);
        }
    }
}
