//! Two callbacks and no async runtime: the style of the project that this one began from.
//!
//! One factory is called once per call, as soon as it begins, and returns what is called for everything that
//! happens on it, [`Input::Started`] first and [`Input::Ended`] last; the other callback hears of trouble. All of them run on one worker thread per media thread, so they must not
//! block: a slow one makes the other calls' *callbacks* late, though never their reads, their clock or what
//! they have queued.
//!
//! ```no_run
//! use sidetone::Clip;
//! use sidetone::callback::{self, CallInfo, Input, Reply};
//!
//! let greeting = Clip::open("greeting.wav")?;
//! let server = callback::start_server(
//!     move |call: &CallInfo| {
//!         println!("call {}", call.id);
//!         let greeting = greeting.clone();
//!         move |input: Input<'_>, reply: &mut Reply| match input {
//!             Input::Started => reply.play(&greeting),
//!             Input::Audio(samples) => reply.send(samples), // echo
//!             _ => {}
//!         }
//!     },
//!     |call: &CallInfo, error| eprintln!("call {}: {error}", call.id),
//!     "127.0.0.1:9092",
//! )?;
//! server.wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod worker;

use std::{net::ToSocketAddrs, time::Duration};

use sidetone_proto::{EndReason, Heard, Rate};

use crate::{
    clip::Clip,
    error::{CallError, ServeError},
    live::LiveAudio,
    media::{CallRef, EndWanted},
    playback::queue_clip,
    server::ServerBuilder,
};

pub use crate::admission::CallInfo;
pub use worker::CallbackServer;

/// What happens on a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// The call begins: always the first, and told at once, so a caller who says nothing can be greeted.
    Started,
    /// Audio from the caller: linear samples at [`Reply::rate`].
    Audio(&'a [i16]),
    /// For so long more no audio came; see [`Event::NoAudio`](crate::Event::NoAudio).
    NoAudio(Duration),
    /// The caller pressed a key.
    Dtmf(char),
    /// Everything queued with [`Reply::play`] and [`Reply::queue`] has been heard to its end. It comes once each time that
    /// nothing is left, and not when the last of it was cleared.
    PlaybackDrained,
    /// What was heard of everything that [`Reply::clear`] cut off, and what not. It comes once for each clear, or for several
    /// in a row.
    Cleared(Heard),
    /// The call is over; nothing more comes.
    Ended(EndReason),
}

/// What can be done with the call.
#[derive(Debug)]
pub struct Reply {
    shared: CallRef,
    line: LiveAudio,
    rate: Rate,
    /// The number of a clearing of which it has not been told what was heard.
    clearing: Option<u64>,
}

impl Reply {
    /// Plays live samples at [`rate`](Self::rate), as soon as possible: an echo, a relay, whatever is made while it plays.
    ///
    /// They are not kept for later: of more than 80 ms at once the oldest are dropped, and all that come while something
    /// queued plays. A whole sentence is for [`queue`](Self::queue).
    pub fn send(&mut self, samples: &[i16]) {
        self.line.push(samples);
    }

    /// Queues samples at [`rate`](Self::rate), as many as there are: a sentence, an announcement. They play at normal speed
    /// behind what is queued, and to their end unless they are [cleared](Self::clear).
    pub fn queue(&mut self, samples: &[i16]) {
        // A call's own rate is one that can be resampled.
        if let Ok(sentence) = Clip::from_samples(self.rate.hz(), samples) {
            self.play(&sentence);
        }
    }

    /// Queues a clip. If the variant for this call's rate has not been made yet, it is made here; before the caller's first
    /// audio has told that rate, the one for 8 kHz is.
    pub fn play(&mut self, clip: &Clip) {
        clip.shared().prepare(self.shared.rate());
        // After a clearing or the end nobody would hear it.
        let _ = queue_clip(&self.shared, self.shared.generation(), clip);
    }

    /// Throws everything queued away, at once. [`Input::Cleared`] says what was heard of it.
    pub fn clear(&mut self) {
        self.clearing = Some(self.shared.clear());
    }

    /// Ends the call when everything queued has been played.
    pub fn finish(&mut self) {
        self.shared.end(EndWanted::Finish);
    }

    /// Ends the call at once.
    pub fn hang_up(&mut self) {
        self.shared.end(EndWanted::HangUp);
    }

    /// The rate of the samples that come in: 8 kHz until audio of another rate has come.
    pub fn rate(&self) -> Rate {
        self.rate
    }
}

/// Starts a server that calls `on_call` once per call, the closure which that returns for everything that
/// happens on it, and `on_error` when there is trouble.
///
/// # Errors
///
/// As [`ServerBuilder::bind`]; for other settings than the defaults, use [`start`].
pub fn start_server<C, H, E>(
    on_call: C,
    on_error: E,
    address: impl ToSocketAddrs,
) -> Result<CallbackServer, ServeError>
where
    C: Fn(&CallInfo) -> H + Send + Sync + 'static,
    H: FnMut(Input<'_>, &mut Reply) + Send + 'static,
    E: Fn(&CallInfo, &CallError) + Send + Sync + 'static,
{
    start(ServerBuilder::default(), on_call, on_error, address)
}

/// As [`start_server`], with settings. The hooks `admit` and `on_call_end` belong to the async style and are
/// not asked here.
///
/// # Errors
///
/// As [`ServerBuilder::bind`].
pub fn start<C, H, E>(
    settings: ServerBuilder,
    on_call: C,
    on_error: E,
    address: impl ToSocketAddrs,
) -> Result<CallbackServer, ServeError>
where
    C: Fn(&CallInfo) -> H + Send + Sync + 'static,
    H: FnMut(Input<'_>, &mut Reply) + Send + 'static,
    E: Fn(&CallInfo, &CallError) + Send + Sync + 'static,
{
    let on_call = move |info: &CallInfo| Box::new(on_call(info)) as Box<worker::OnInput>;
    CallbackServer::start(settings, Box::new(on_call), Box::new(on_error), address)
}
