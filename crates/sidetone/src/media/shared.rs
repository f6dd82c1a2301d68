//! The state that the media thread and the handler of one call share, in three groups. The module of each group
//! says who writes and who reads each value, with which memory ordering and why:
//!
//! - [`Inbox`]: events from the media thread to the handler.
//! - [`Commands`]: requests from the handler to the media thread.
//! - [`Status`]: values that the media thread publishes.
//!
//! The media thread never blocks on a lock of these. It tries, and retries soon if the handler holds it.

mod commands;
mod inbox;
mod status;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use sidetone_proto::{Counters, EndReason, Heard, ItemId, Rate, Time};
use uuid::Uuid;

use super::{
    MediaHandle, Token,
    batch::{Batch, Entry},
    clock,
    closing::Closing,
    commands::CommandQueue,
    playing::NextItem,
    tap::{Purpose, Side, Tap},
};
use crate::event::{ClosingNotice, Codec};
use commands::Commands;
pub(crate) use commands::{EndWanted, SubmitError};
use inbox::Inbox;
use status::Status;

/// What the media thread and the handler of a call share.
#[derive(Debug)]
pub(crate) struct CallShared {
    pub(crate) id: Uuid,
    pub(crate) peer: SocketAddr,
    pub(crate) began: Time,
    pub(crate) receive_buffer: Duration,
    pub(crate) playback_buffer: Duration,
    pub(crate) closing: Closing,
    pub(super) inbox: Inbox,
    pub(super) commands: Commands,
    pub(super) status: Status,
    media: MediaHandle,
    token: Token,
    next_item: NextItem,
    monitors: AtomicUsize,
}

/// What listens in on a call at the same time at most. Each costs the media thread a copy of every frame.
const MAX_MONITORS: usize = 16;

pub(crate) type CallRef = Arc<CallShared>;

impl CallShared {
    #[allow(
        clippy::too_many_arguments,
        reason = "one place makes it, of what it has at hand"
    )]
    pub(crate) fn new(
        id: Uuid,
        peer: SocketAddr,
        began: Time,
        receive_buffer: Duration,
        playback_buffer: Duration,
        closing: Closing,
        media: MediaHandle,
        token: Token,
    ) -> Self {
        Self {
            id,
            peer,
            began,
            receive_buffer,
            playback_buffer,
            closing,
            inbox: Inbox::default(),
            commands: Commands::default(),
            status: Status::default(),
            media,
            token,
            next_item: NextItem::default(),
            monitors: AtomicUsize::new(0),
        }
    }
}

/// The handler's side. It may block on a lock, which the media thread holds for a swap or a copy at most.
impl CallShared {
    /// Swaps the unread events with `batch`, which must have been read to its end. Returns false if there are none.
    /// The waker that `register` stores is woken by the next event.
    pub(crate) fn take_batch(
        &self,
        batch: &mut Batch,
        register: impl FnOnce(&mut Option<Waker>),
    ) -> bool {
        self.end_preroll();
        self.inbox.take_batch(batch, register)
    }

    /// Takes the next entry, with its samples, of the batch that was swapped out.
    pub(crate) fn take_entry<'a>(&self, batch: &'a mut Batch) -> Option<(Entry, &'a [i16])> {
        self.inbox.set_taken(batch.buffered_after_next());
        batch.take()
    }

    /// Registers interest in any progress: audio played, a clear completed, the end of the call. Check the
    /// condition after registering.
    pub(crate) fn register_waiter(&self, waker: &Waker) {
        self.inbox.register_waiter(waker);
    }

    /// Drops all registered wakers without waking them.
    pub(crate) fn clear_waiters(&self) {
        self.inbox.clear_waiters();
    }

    /// Queues audio, unless the call is over or `generation` has been cleared.
    pub(crate) fn submit(
        &self,
        generation: u64,
        audio: Duration,
        fill: impl FnOnce(&mut CommandQueue),
    ) -> Result<(), SubmitError> {
        self.check_open()?;
        self.commands.submit(generation, audio, fill)
    }

    /// Queues a command that no clear concerns, unless the call is over.
    pub(crate) fn command(&self, fill: impl FnOnce(&mut CommandQueue)) -> Result<(), SubmitError> {
        self.check_open()?;
        self.commands.push(fill)
    }

    fn check_open(&self) -> Result<(), SubmitError> {
        match self.ended() {
            Some(_) => Err(SubmitError::Closed),
            None => Ok(()),
        }
    }

    /// Adds a tap. It starts with the preroll while that is kept, else with the next frame. After the end of
    /// the call it succeeds only if the handler has not read yet, and has the whole call.
    pub(crate) fn add_tap(&self, now: Time, purpose: Purpose) -> Result<Arc<Tap>, SubmitError> {
        self.commands.add_tap(now, purpose)
    }

    /// Counts a monitor, unless there are too many. [`forget_monitor`](Self::forget_monitor) takes it back.
    pub(crate) fn count_monitor(&self) -> bool {
        // It guards nothing but itself.
        let more = |monitors| (monitors < MAX_MONITORS).then_some(monitors + 1);
        let counted = self
            .monitors
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.is_ok()
    }

    pub(crate) fn forget_monitor(&self) {
        self.monitors.fetch_sub(1, Ordering::Relaxed);
    }

    /// A handler starts. The preroll is kept a while longer, for the tap that it may add.
    pub(crate) fn note_handler_started(&self, now: Time) {
        self.commands.note_handler_started(now);
    }

    /// No tap will start with the preroll any more: the handler reads events, or there is no handler.
    pub(crate) fn end_preroll(&self) {
        self.commands.end_preroll();
    }

    /// The handler has dropped the call.
    pub(crate) fn drop_preroll(&self) {
        self.end_preroll();
        if self.ended().is_some() {
            self.commands.free_preroll();
        }
    }

    /// Discards everything queued so far. Returns the generation that starts, which identifies this clear.
    pub(crate) fn clear(&self) -> u64 {
        let generation = self.commands.clear();
        self.inbox.wake_waiters();
        self.request_poll();
        generation
    }

    /// What was heard of the audio that the clear `generation`, or a later one, cut off. `None` until it is complete.
    pub(crate) fn cleared(&self, generation: u64) -> Option<Heard> {
        self.status.cleared(generation)
    }

    /// A playback or utterance was stopped.
    pub(crate) fn note_stop(&self) {
        self.inbox.wake_waiters();
        self.request_poll();
    }

    /// Requests the end of the call. No effect if it is over.
    pub(crate) fn end(&self, wanted: EndWanted) {
        // Most calls are over before their handlers are.
        if self.ended().is_some() {
            return;
        }
        self.commands.want_end(wanted);
        self.request_poll();
    }

    /// Reports that the server ends the call at `at`, unless it ends before.
    pub(crate) fn announce_shutdown(&self, at: Time) {
        self.closing.set_shutdown(at);
        let closing = Entry::Closing {
            reason: EndReason::Shutdown,
            at,
        };
        // The end is published before it is reported, and nothing follows its report.
        if self.inbox.push_unless(closing, || self.ended().is_some()) {
            self.inbox.wake_waiters();
        }
    }

    /// What has been reported of the end that the server brings about, while the call runs.
    pub(crate) fn closing_notice(&self) -> Option<ClosingNotice> {
        let notice = self.closing.notice(self.began, clock::now());
        notice.filter(|_| self.ended().is_none())
    }

    /// Live audio was queued. Its first frame sets the call's schedule, so it can't wait for the next slot.
    pub(crate) fn note_live(&self) {
        if self.commands.note_live() {
            self.request_poll();
        }
    }

    fn request_poll(&self) {
        if self.commands.request_poll() {
            self.media.request_poll(self.token);
        }
    }

    /// Has the waiters woken when a quarter of the playback buffer is free.
    pub(crate) fn request_capacity_wake(&self) {
        self.commands.want_capacity();
    }

    pub(crate) fn next_item(&self) -> ItemId {
        self.next_item.next()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.status.counters()
    }
}

/// Either side.
impl CallShared {
    pub(crate) fn generation(&self) -> u64 {
        self.commands.generation()
    }

    /// The call's own rate, or the default rate while that is not known.
    pub(crate) fn rate(&self) -> Rate {
        self.known_rate().unwrap_or_default()
    }

    /// The call's own rate. The peer's first audio determines it.
    pub(crate) fn known_rate(&self) -> Option<Rate> {
        self.status.rate()
    }

    /// The rate of inbound audio: [`rate`](Self::rate), unless Asterisk sends another one under kind `0x10`.
    pub(crate) fn inbound_rate(&self) -> Rate {
        match self.rate() {
            Rate::Slin => self.status.linear_rate().unwrap_or_default(),
            wideband => wideband,
        }
    }

    /// The codec of inbound audio of kind `0x10`; `Auto` while that is not known.
    pub(crate) fn codec(&self) -> Codec {
        self.status.codec()
    }

    pub(crate) fn ended(&self) -> Option<EndReason> {
        self.status.ended().map(|(reason, _)| reason)
    }

    /// How loud a side is, in dBFS.
    pub(crate) fn level(&self, side: Side, now: Time) -> f32 {
        self.status.level(side).dbfs(now)
    }

    /// How long the call has lasted, or lasted if it is over.
    pub(crate) fn duration(&self, now: Time) -> Duration {
        self.status.ended().map_or(now, |(_, at)| at) - self.began
    }

    /// Audio that is queued and neither played nor discarded.
    pub(crate) fn buffered(&self) -> Duration {
        // In this order, see `status`.
        let unclaimed = self.commands.unclaimed();
        unclaimed + self.status.queued()
    }

    /// Inbound audio that waits to be read.
    pub(crate) fn handler_lag(&self) -> Duration {
        self.inbox.lag()
    }

    /// Inbound frames that were dropped because the handler did not read them.
    pub(crate) fn lagged(&self) -> u64 {
        self.status.lagged()
    }
}

/// The media thread's side, where it concerns more than one group. Nothing here blocks.
impl CallShared {
    /// The media thread took `claimed` out of the command queue, and has `queued` in its playout queue now.
    pub(super) fn set_queued(&self, claimed: Duration, queued: Duration) {
        // In this order, see `status`.
        self.status.set_queued(queued);
        self.commands.claim(claimed);
    }

    /// Whether a writer waits for capacity and enough is free to be worth a wake-up. Resets the request if so.
    pub(super) fn take_capacity_request(&self) -> bool {
        self.commands.is_capacity_wanted()
            && self.buffered() + self.playback_buffer / 4 <= self.playback_buffer
            && self.commands.reset_capacity_wanted()
    }
}
