//! Callbacks, for programs without an async runtime.
//!
//! The first callback is called once for each call, as soon as it starts. It returns a closure that is called for everything
//! that happens on the call, [`Input::Started`] first and [`Input::Ended`] last. The second callback gets errors.
//!
//! All of them run on one worker thread per media thread, so they must not block. A slow one delays the callbacks of other
//! calls, but never their reads, their timing or what they have queued.
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
//!             Input::Audio(frame) => reply.send(frame.samples()), // echo
//!             _ => {}
//!         }
//!     },
//!     |call: &CallInfo, error| eprintln!("call {}: {error}", call.id),
//!     "127.0.0.1:9092",
//! )?;
//! server.wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Settings, hooks and a shutdown
//!
//! It is the same server as [`Server`](crate::Server), with a handler that calls the callbacks: every setting of
//! [`ServerBuilder`] holds, [`admit`](ServerBuilder::admit) and [`on_call_end`](ServerBuilder::on_call_end) with it. Hooks
//! run on a thread of the server's own, which has a tokio runtime with time and I/O for them; the program needs none. Data
//! from the admission is at [`Reply::data`], and [`CallbackServer::handle`] shuts down, counts and finds calls.
//!
//! A callback that panics ends its call. The error callback gets that as [`CallError::Handler`], and
//! [`on_handler_error`](ServerBuilder::on_handler_error) gets it too, if it is set; nothing is logged.
//!
//! ```no_run
//! use sidetone::{Admission, Server};
//! use sidetone::callback::{self, CallInfo, Input, Reply};
//! use std::time::Duration;
//!
//! let settings = Server::builder()
//!     .max_calls(50)
//!     .admit(async |_| Admission::accept_with("a guest".to_owned()))
//!     .on_call_end(|summary| println!("{} ended: {}", summary.id, summary.reason));
//! let on_call = |_: &CallInfo| {
//!     |input: Input<'_>, reply: &mut Reply| match input {
//!         Input::Started => {
//!             println!("here is {:?}", reply.data::<String>());
//!             reply.tick_after(Duration::from_secs(30));
//!         }
//!         // Half a minute has passed and no key was pressed.
//!         Input::Tick => reply.finish(),
//!         Input::Dtmf(_) => reply.cancel_tick(),
//!         _ => {}
//!     }
//! };
//! let server = callback::start(settings, on_call, |_, error| eprintln!("{error}"), "127.0.0.1:9092")?;
//! let handle = server.handle(); // for a signal handler: handle.shutdown(Duration::from_secs(60))
//! server.wait();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod poller;
mod worker;

use std::{
    net::{TcpListener, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use sidetone_proto::{EndReason, Heard, Rate, Time};

use crate::{
    call::{Call, CallHandle},
    clip::Clip,
    error::{CallError, ServeError},
    event::{ClosingNotice, CodecNotice, Frame, Mark},
    live::LiveAudio,
    media::{CallRef, EndWanted, clock},
    playback::queue_clip,
    server::ServerBuilder,
    stats::CallStats,
};

pub use crate::admission::CallInfo;
pub use poller::Poller;
pub use worker::CallbackServer;

/// What happens on a call.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// The call starts. This is always the first input, and comes at once, so that a silent caller can be greeted.
    Started,
    /// Audio from the caller, with its rate and its place on the call's clock.
    Audio(Frame<'a>),
    /// For this long no audio came; see [`Event::NoAudio`](crate::Event::NoAudio).
    NoAudio {
        /// Where it begins on the call's clock.
        offset: Duration,
        /// How long it is.
        duration: Duration,
    },
    /// Audio was dropped because a callback of this worker took too long; see [`Event::Lagged`](crate::Event::Lagged).
    Lagged {
        /// How many frames.
        frames: u64,
    },
    /// The caller pressed a key.
    Dtmf(char),
    /// Everything queued before this mark has been heard. It does not come for a mark that was cleared.
    MarkReached(Mark),
    /// Everything queued with [`Reply::play`] and [`Reply::queue`] has been heard to its end. It comes once each time that
    /// nothing is left, and not when the last of it was cleared.
    PlaybackDrained,
    /// What was heard of everything that [`Reply::clear`] cut off, and what not. It comes once for each clear, or for several
    /// in a row.
    Cleared(Heard),
    /// Live audio had nothing when its slot was due; silence went out.
    Underrun,
    /// What was found out about the caller's codec.
    Codec(CodecNotice),
    /// The time that [`Reply::tick_after`] asked for has passed.
    Tick,
    /// This side is about to end the call; see [`Event::Closing`](crate::Event::Closing).
    Closing(ClosingNotice),
    /// The call is over; nothing more comes.
    Ended(EndReason),
}

/// What can be done with the call. Nothing here waits or blocks, and after the end of the call it has no effect.
#[derive(Debug)]
pub struct Reply {
    call: Call,
    line: LiveAudio,
    rate: Rate,
    /// The number of a clearing of which it has not been told what was heard.
    clearing: Option<u64>,
    /// When a tick is due.
    tick: Option<Time>,
}

impl Reply {
    fn new(call: Call) -> Self {
        Self {
            line: call.live(),
            rate: call.rate(),
            call,
            clearing: None,
            tick: None,
        }
    }

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
        let shared = self.shared();
        clip.shared().prepare(shared.rate());
        // After a clearing or the end nobody would hear it.
        let _ = queue_clip(shared, shared.generation(), clip);
    }

    /// Queues a mark behind everything queued so far: [`Input::MarkReached`] says when all that has been heard.
    pub fn mark(&mut self) -> Mark {
        let shared = self.shared();
        let id = shared.next_item();
        // After the end it is never reached.
        let _ = shared.submit(shared.generation(), Duration::ZERO, |commands| {
            commands.mark(id, None);
        });
        Mark(id.0)
    }

    /// Throws everything queued away, at once. [`Input::Cleared`] says what was heard of it.
    pub fn clear(&mut self) {
        self.clearing = Some(self.shared().clear());
    }

    /// Asks for [`Input::Tick`] once, when `delay` has passed; with zero, as soon as this callback has returned. A call has one
    /// tick: asking again replaces it. For one that repeats, ask again at each.
    ///
    /// It comes some tens of microseconds late, and later where other callbacks of its worker are at work.
    pub fn tick_after(&mut self, delay: Duration) {
        self.tick = Some(clock::now() + delay);
    }

    /// Asks for no tick any more.
    pub fn cancel_tick(&mut self) {
        self.tick = None;
    }

    /// Ends the call when everything queued has been played.
    pub fn finish(&mut self) {
        self.shared().end(EndWanted::Finish);
    }

    /// Ends the call at once.
    pub fn hang_up(&mut self) {
        self.call.hang_up();
    }

    /// The rate of the samples that come in: 8 kHz until audio of another rate has come.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// What the admission hook gave to this call.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.call.data()
    }

    /// What was counted so far.
    pub fn stats(&self) -> CallStats {
        self.call.stats()
    }

    /// A handle that can be sent to other threads, to speak from there: through its [`player`](CallHandle::player), its
    /// [`utterance`](CallHandle::utterance), or by [clearing](CallHandle::clear). It doesn't keep the call alive.
    ///
    /// Its [`monitor`](CallHandle::monitor) made at [`Input::Started`] begins with the UUID.
    pub fn handle(&self) -> CallHandle {
        self.call.handle()
    }

    fn shared(&self) -> &CallRef {
        self.call.shared()
    }
}

/// Starts a server that calls `on_call` once per call, the closure which that returns for everything that
/// happens on it, and `on_error` when there is an error.
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

/// As [`start_server`], with settings, all of which hold. It blocks while a host name is looked up.
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
    let listener = settings.listen(address)?;
    from_listener(settings, on_call, on_error, listener)
}

/// As [`start`], from a listener that was bound elsewhere; see [`ServerBuilder::from_listener`].
///
/// # Errors
///
/// As [`ServerBuilder::bind`].
pub fn from_listener<C, H, E>(
    settings: ServerBuilder,
    on_call: C,
    on_error: E,
    listener: TcpListener,
) -> Result<CallbackServer, ServeError>
where
    C: Fn(&CallInfo) -> H + Send + Sync + 'static,
    H: FnMut(Input<'_>, &mut Reply) + Send + 'static,
    E: Fn(&CallInfo, &CallError) + Send + Sync + 'static,
{
    CallbackServer::start(settings, callbacks(on_call, on_error), listener)
}

/// Starts a server whose callbacks run where the program calls [`Poller::poll`], and on no thread of its own: for programs
/// with an event loop.
///
/// `notify` is called when there is something to poll. It runs on threads of the server and must not wait, so let it make the
/// event loop's file descriptor readable, say, or set a flag. It may be called again before the program has polled.
///
/// ```no_run
/// use sidetone::Server;
/// use sidetone::callback::{self, CallInfo, Input, Reply};
/// use std::{net::TcpListener, sync::mpsc};
///
/// let listener = TcpListener::bind("127.0.0.1:9092")?;
/// let (notify, notified) = mpsc::sync_channel(1);
/// let echo = |_: &CallInfo| {
///     |input: Input<'_>, reply: &mut Reply| if let Input::Audio(frame) = input {
///         reply.send(frame.samples());
///     }
/// };
/// let tell = move || {
///     // A notification that waits already is enough.
///     let _ = notify.try_send(());
/// };
/// let mut poller = callback::poller(Server::builder(), echo, |_, _| {}, listener, tell)?;
/// while !poller.has_ended() {
///     notified.recv()?;
///     poller.poll();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`ServerBuilder::bind`].
pub fn poller<C, H, E>(
    settings: ServerBuilder,
    on_call: C,
    on_error: E,
    listener: TcpListener,
    notify: impl Fn() + Send + Sync + 'static,
) -> Result<Poller, ServeError>
where
    C: Fn(&CallInfo) -> H + Send + Sync + 'static,
    H: FnMut(Input<'_>, &mut Reply) + Send + 'static,
    E: Fn(&CallInfo, &CallError) + Send + Sync + 'static,
{
    let callbacks = callbacks(on_call, on_error);
    Poller::start(settings, callbacks, listener, Box::new(notify))
}

fn callbacks<C, H, E>(on_call: C, on_error: E) -> worker::Callbacks
where
    C: Fn(&CallInfo) -> H + Send + Sync + 'static,
    H: FnMut(Input<'_>, &mut Reply) + Send + 'static,
    E: Fn(&CallInfo, &CallError) + Send + Sync + 'static,
{
    let on_call = move |info: &CallInfo| Box::new(on_call(info)) as Box<worker::OnInput>;
    worker::Callbacks {
        on_call: Box::new(on_call),
        on_error: Box::new(on_error),
    }
}
