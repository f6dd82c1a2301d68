use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use sidetone_proto::{Counters, EndReason, Heard, ItemId, Rate, Time};
use uuid::Uuid;

use super::{
    MediaHandle, Token,
    batch::{Batch, Entry},
    clock,
    closing::Closing,
    commands::CommandQueue,
    tap::{Purpose, Tap, TapBuffer, Taps},
};
use crate::event::{ClosingNotice, Codec};

/// What a media thread and the handler of a call share.
///
/// The media thread only ever tries the locks, and goes on without when it does not get one.
#[derive(Debug)]
pub(crate) struct CallShared {
    pub(crate) id: Uuid,
    pub(crate) peer: SocketAddr,
    pub(crate) began: Time,
    pub(crate) receive_buffer: Duration,
    pub(crate) playback_buffer: Duration,
    pub(crate) closing: Closing,
    media: MediaHandle,
    token: Token,
    inbox: Mutex<Inbox>,
    outbox: Mutex<Commands>,
    outbox_filled: AtomicBool,
    /// Counts the calls of `clear`; what was queued under a lower number is void at once.
    generation: AtomicU64,
    clearing: Mutex<(u64, Heard)>,
    /// Audio in the outbox, in nanoseconds, and audio that the media thread has taken from there and not
    /// played yet.
    unclaimed: AtomicU64,
    queued: AtomicU64,
    /// The code of the call's own rate; 0 while that is not known.
    rate: AtomicU8,
    codec: AtomicU8,
    /// The rate of what comes in under kind `0x10`.
    linear_rate: AtomicU8,
    /// Somebody waits for room in the playback buffer.
    room_wanted: AtomicBool,
    end_wanted: AtomicU8,
    ended: OnceLock<(EndReason, Time)>,
    waiters: Mutex<Vec<Waker>>,
    /// The media thread has been told to look, and has not looked yet.
    attention: AtomicBool,
    /// The media thread has been told of the call's first live audio.
    live_noted: AtomicBool,
    /// Until when the beginning of the call is kept, in nanoseconds.
    beginning_until: AtomicU64,
    counters: Mutex<Counters>,
    lagged: AtomicU64,
    next_item: AtomicU64,
}

/// What waits for the handler.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) batch: Batch,
    pub(crate) waker: Option<Waker>,
}

/// What the handler asks for.
#[derive(Debug, Default)]
struct Commands {
    outbox: CommandQueue,
    /// The call is over: nobody comes for commands any more.
    is_sealed: bool,
    /// What was kept of its beginning until then: all of the call, for whoever comes too late to listen in.
    beginning: Option<Box<TapBuffer>>,
}

/// How long the start of a call is kept after its handler has started, unless the handler reads an event before that. A
/// recorder or monitor created within this time has the call from its UUID on.
const KEPT_FOR_HANDLER: Duration = Duration::from_secs(1);

/// How the program wants its call to end. A later variant overrules an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum EndWanted {
    No,
    /// When everything queued has played.
    Finish,
    HangUp,
    Fail,
    Refuse,
    Shutdown,
}

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
            media,
            token,
            inbox: Mutex::default(),
            outbox: Mutex::default(),
            outbox_filled: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            clearing: Mutex::default(),
            unclaimed: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            rate: AtomicU8::new(0),
            codec: AtomicU8::new(Codec::Auto as u8),
            linear_rate: AtomicU8::new(Rate::default().code()),
            room_wanted: AtomicBool::new(false),
            end_wanted: AtomicU8::new(EndWanted::No as u8),
            ended: OnceLock::new(),
            waiters: Mutex::default(),
            attention: AtomicBool::new(false),
            live_noted: AtomicBool::new(false),
            beginning_until: AtomicU64::new(u64::MAX),
            counters: Mutex::default(),
            lagged: AtomicU64::new(0),
            next_item: AtomicU64::new(0),
        }
    }
}

/// The handler's side. It may wait for a lock, which the media thread holds for a copy of a frame at most.
impl CallShared {
    /// Swaps what has come in with `batch`, which has been read to its end; false if that is nothing. Whom
    /// `register` puts there is woken when more comes.
    pub(crate) fn fill(
        &self,
        batch: &mut Batch,
        register: impl FnOnce(&mut Option<Waker>),
    ) -> bool {
        self.end_beginning();
        batch.clear();
        let mut inbox = self.inbox.lock();
        std::mem::swap(batch, &mut inbox.batch);
        register(&mut inbox.waker);
        !batch.is_empty()
    }

    /// Queues something to be played, unless the call is over or `generation` has been cleared.
    pub(crate) fn submit(
        &self,
        generation: u64,
        audio: Duration,
        fill: impl FnOnce(&mut CommandQueue),
    ) -> Result<(), NotSubmitted> {
        if self.ended().is_some() {
            return Err(NotSubmitted::Closed);
        }
        let mut commands = self.outbox.lock();
        if commands.is_sealed {
            return Err(NotSubmitted::Closed);
        }
        if self.generation() != generation {
            return Err(NotSubmitted::Cleared);
        }
        commands.outbox.begin(generation, audio);
        fill(&mut commands.outbox);
        if !audio.is_zero() {
            self.unclaimed
                .fetch_add(audio.as_nanos() as u64, Ordering::AcqRel);
        }
        self.outbox_filled.store(true, Ordering::Release);
        Ok(())
    }

    /// Commands something that no clearing concerns, unless the call is over.
    pub(crate) fn command(&self, fill: impl FnOnce(&mut CommandQueue)) -> Result<(), NotSubmitted> {
        if self.ended().is_some() {
            return Err(NotSubmitted::Closed);
        }
        let mut commands = self.outbox.lock();
        if commands.is_sealed {
            return Err(NotSubmitted::Closed);
        }
        fill(&mut commands.outbox);
        self.outbox_filled.store(true, Ordering::Release);
        Ok(())
    }

    /// Has somebody listen in: from the beginning of the call while that is kept, after that from now on. A call that is
    /// over is heard whole if its handler has not begun with it, else not at all.
    pub(crate) fn listen_in(&self, now: Time, purpose: Purpose) -> Result<Arc<Tap>, NotSubmitted> {
        let from_beginning = !self.is_beginning_over(now);
        let mut commands = self.outbox.lock();
        if commands.is_sealed {
            let whole = commands.beginning.as_deref();
            let whole = whole.filter(|_| self.is_beginning_wanted());
            let whole = whole.ok_or(NotSubmitted::Closed)?;
            return Ok(Arc::new(Tap::whole(whole.clone())));
        }
        let tap = Arc::new(Tap::default());
        commands
            .outbox
            .tap(purpose, Arc::clone(&tap), from_beginning);
        self.outbox_filled.store(true, Ordering::Release);
        Ok(tap)
    }

    /// A handler begins with the call. The beginning is kept for it a while longer.
    pub(crate) fn hand_over(&self, now: Time) {
        let until = (now + KEPT_FOR_HANDLER).as_nanos();
        self.beginning_until.store(until, Ordering::Release);
    }

    /// Nobody listens in from the beginning any more: the handler reads, or there is none.
    pub(crate) fn end_beginning(&self) {
        if self.is_beginning_wanted() {
            self.beginning_until.store(0, Ordering::Release);
        }
    }

    /// The handler is done with the call.
    pub(crate) fn forget_beginning(&self) {
        self.end_beginning();
        if self.ended().is_some() {
            self.outbox.lock().beginning = None;
        }
    }

    /// Voids everything queued so far and returns the number of this clearing.
    pub(crate) fn clear(&self) -> u64 {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake_waiters();
        self.call_for_attention();
        generation
    }

    /// What was heard of what clearing number `generation`, or one after it, cut off; `None` before it is done.
    pub(crate) fn cleared(&self, generation: u64) -> Option<Heard> {
        let (done, cleared) = *self.clearing.lock();
        (done >= generation).then_some(cleared)
    }

    /// Something was stopped.
    pub(crate) fn note_stop(&self) {
        self.wake_waiters();
        self.call_for_attention();
    }

    pub(crate) fn end(&self, wanted: EndWanted) {
        // Most calls are over before their handlers are.
        if self.ended().is_some() {
            return;
        }
        self.end_wanted.fetch_max(wanted as u8, Ordering::AcqRel);
        self.call_for_attention();
    }

    /// Reports that the server ends the call then, if it is not over before.
    pub(crate) fn announce_shutdown(&self, at: Time) {
        self.closing.set_shutdown(at);
        let waker = {
            let mut inbox = self.inbox.lock();
            // Nothing comes after the end, which is noted before it is put here.
            if self.ended().is_some() {
                return;
            }
            inbox.batch.push(Entry::Closing {
                reason: EndReason::Shutdown,
                at,
            });
            inbox.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        self.wake_waiters();
    }

    /// What has been reported of the end that this side brings about, while there is still time.
    pub(crate) fn closing_notice(&self) -> Option<ClosingNotice> {
        let notice = self.closing.notice(self.began, clock::now());
        notice.filter(|_| self.ended().is_none())
    }

    /// Live audio was queued. The first of it can't wait for the call's next slot: it says when that is due.
    pub(crate) fn note_live(&self) {
        if !self.live_noted.load(Ordering::Relaxed)
            && !self.live_noted.swap(true, Ordering::Relaxed)
        {
            self.call_for_attention();
        }
    }

    /// However often it is asked for, one command is under way: no handler fills a media thread's mailbox.
    fn call_for_attention(&self) {
        if !self.attention.swap(true, Ordering::AcqRel) {
            self.media.attend(self.token);
        }
    }

    /// Registers interest in any progress: audio played, a clearing done, the end.
    pub(crate) fn wait(&self, waker: &Waker) {
        let mut waiters = self.waiters.lock();
        if !waiters.iter().any(|waiting| waiting.will_wake(waker)) {
            waiters.push(waker.clone());
        }
    }

    /// Nobody waits any more.
    pub(crate) fn forget_waiters(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        drop(waiters);
    }

    /// Those who wait are to be woken when a quarter of the playback buffer is free.
    pub(crate) fn want_room(&self) {
        self.room_wanted.store(true, Ordering::Release);
    }

    pub(crate) fn next_item(&self) -> ItemId {
        ItemId(self.next_item.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.counters.lock()
    }
}

/// Either side.
impl CallShared {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn rate(&self) -> Rate {
        self.known_rate().unwrap_or_default()
    }

    /// The call's own rate, once the other side's first audio has told it.
    pub(crate) fn known_rate(&self) -> Option<Rate> {
        Rate::from_code(self.rate.load(Ordering::Relaxed))
    }

    /// The rate of what comes in: [`rate`](Self::rate), unless Asterisk sends another one under kind `0x10`.
    pub(crate) fn inbound_rate(&self) -> Rate {
        match self.rate() {
            Rate::Slin => {
                Rate::from_code(self.linear_rate.load(Ordering::Relaxed)).unwrap_or_default()
            }
            wideband => wideband,
        }
    }

    /// What comes in under kind `0x10`; `Auto` while that is not known.
    pub(crate) fn codec(&self) -> Codec {
        let codec = self.codec.load(Ordering::Relaxed);
        [Codec::Slin, Codec::Ulaw, Codec::Alaw]
            .into_iter()
            .find(|known| *known as u8 == codec)
            .unwrap_or(Codec::Auto)
    }

    pub(crate) fn ended(&self) -> Option<EndReason> {
        self.ended.get().map(|(reason, _)| *reason)
    }

    /// How long the call has been going on, or went on.
    pub(crate) fn duration(&self, now: Time) -> Duration {
        self.ended.get().map_or(now, |(_, at)| *at) - self.began
    }

    /// Audio that was queued and is neither played nor thrown away.
    pub(crate) fn buffered(&self) -> Duration {
        let unclaimed = self.unclaimed.load(Ordering::Acquire);
        Duration::from_nanos(unclaimed + self.queued.load(Ordering::Acquire))
    }

    pub(crate) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }

    fn wake_waiters(&self) {
        // The lock is free again before anything wakes: whoever does may come straight back.
        let waiters = std::mem::take(&mut *self.waiters.lock());
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// The media thread's side. Nothing here waits.
impl CallShared {
    pub(crate) fn try_inbox(&self) -> Option<MutexGuard<'_, Inbox>> {
        self.inbox.try_lock()
    }

    /// Swaps the outbox with `emptied`, if there is something in it and nobody is just putting more in, and says
    /// which generation it was at. What is in it is worked on when the lock is free again.
    pub(crate) fn try_take_outbox(&self, emptied: &mut CommandQueue) -> Option<u64> {
        if !self.has_outbox() {
            return None;
        }
        let mut commands = self.outbox.try_lock()?;
        self.outbox_filled.store(false, Ordering::Release);
        commands.outbox.swap_with(emptied);
        Some(self.generation())
    }

    /// Takes the outbox for the last time, for the call is over; false if somebody is just putting more in. Who comes after
    /// that to listen in finds what `taps` had of the beginning.
    pub(crate) fn try_seal_outbox(
        &self,
        emptied: &mut CommandQueue,
        taps: &mut Taps,
        empty: impl FnOnce(&mut CommandQueue, &mut Taps),
    ) -> bool {
        let Some(mut commands) = self.outbox.try_lock() else {
            return false;
        };
        self.outbox_filled.store(false, Ordering::Release);
        commands.outbox.swap_with(emptied);
        empty(emptied, taps);
        if !commands.is_sealed {
            commands.is_sealed = true;
            let beginning = taps.end_beginning();
            commands.beginning = beginning.filter(|_| self.is_beginning_wanted());
        }
        true
    }

    /// Whether somebody may still come to listen in from the beginning, if the call does not go on meanwhile.
    fn is_beginning_wanted(&self) -> bool {
        self.beginning_until.load(Ordering::Acquire) > 0
    }

    /// To be asked before looking into the outbox: then whoever was in time to listen in from the beginning is there.
    pub(crate) fn is_beginning_over(&self, now: Time) -> bool {
        now.as_nanos() >= self.beginning_until.load(Ordering::Acquire)
    }

    /// To be called before looking at what attention was called for: a call after that is a new one.
    pub(crate) fn note_attention(&self) {
        if self.attention.load(Ordering::Acquire) {
            self.attention.swap(false, Ordering::AcqRel);
        }
    }

    pub(crate) fn has_outbox(&self) -> bool {
        self.outbox_filled.load(Ordering::Acquire)
    }

    /// Publishes what was heard of what a clearing cut off; false if the handler is just looking.
    pub(crate) fn try_set_cleared(&self, generation: u64, cleared: Heard) -> bool {
        match self.clearing.try_lock() {
            Some(mut clearing) => {
                *clearing = (generation, cleared);
                true
            }
            None => false,
        }
    }

    /// The media thread took `claimed` out of the outbox and has `queued` in its own queue now.
    pub(crate) fn set_queued(&self, claimed: Duration, queued: Duration) {
        // In this order: audio that is on its way between the two counts twice for a moment, never not.
        self.queued
            .store(queued.as_nanos() as u64, Ordering::Release);
        if !claimed.is_zero() {
            self.unclaimed
                .fetch_sub(claimed.as_nanos() as u64, Ordering::AcqRel);
        }
    }

    pub(crate) fn max_duration(&self) -> Option<Duration> {
        self.closing.max_duration()
    }

    /// When the call reaches its longest duration, once: when that is to be reported.
    pub(crate) fn take_max_duration_warning(&self, now: Time) -> Option<Time> {
        self.closing.take_warning(self.began, now)
    }

    pub(crate) fn set_rate(&self, rate: Rate) {
        self.rate.store(rate.code(), Ordering::Relaxed);
    }

    pub(crate) fn end_wanted(&self) -> EndWanted {
        match self.end_wanted.load(Ordering::Acquire) {
            1 => EndWanted::Finish,
            2 => EndWanted::HangUp,
            3 => EndWanted::Fail,
            4 => EndWanted::Refuse,
            5 => EndWanted::Shutdown,
            _ => EndWanted::No,
        }
    }

    pub(crate) fn set_linear_rate(&self, rate: Rate) {
        self.linear_rate.store(rate.code(), Ordering::Relaxed);
    }

    pub(crate) fn set_codec(&self, codec: Codec) {
        self.codec.store(codec as u8, Ordering::Relaxed);
    }

    /// Whether somebody waits for room, and now there is enough of it to be worth a wake-up.
    pub(crate) fn has_wanted_room(&self) -> bool {
        self.room_wanted.load(Ordering::Acquire)
            && self.buffered() + self.playback_buffer / 4 <= self.playback_buffer
            && self.room_wanted.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn set_ended(&self, reason: EndReason, at: Time) {
        // A second end is not one.
        let _ = self.ended.set((reason, at));
    }

    pub(crate) fn note_lagged(&self, frames: u64) {
        self.lagged.fetch_add(frames, Ordering::Relaxed);
    }

    pub(crate) fn try_set_counters(&self, counters: Counters) -> bool {
        match self.counters.try_lock() {
            Some(mut published) => {
                *published = counters;
                true
            }
            None => false,
        }
    }

    /// Moves those who wait for progress to `wakes`; false if one is just registering.
    pub(crate) fn try_take_waiters(&self, wakes: &mut Vec<Waker>) -> bool {
        // Only the lock itself orders this after what has happened: a flag beside it could be read too early.
        match self.waiters.try_lock() {
            Some(mut waiters) => {
                wakes.append(&mut waiters);
                true
            }
            None => false,
        }
    }
}

/// Why something was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSubmitted {
    Closed,
    Cleared,
}

pub(crate) type CallRef = Arc<CallShared>;
