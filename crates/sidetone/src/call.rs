use std::{
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use sidetone_audio::resample::UnsupportedRate;
use sidetone_proto::{EndReason, Rate, Time};
use uuid::Uuid;

mod stream;
pub use stream::EventStream;

use crate::{
    admission::{AnyData, CallData, CallInfo},
    error::PlayError,
    event::{ClosingNotice, Event},
    live::LiveAudio,
    media::{Batch, CallRef, EndWanted, Purpose, Side, Sides, Tap, clock},
    monitor::{Monitor, MonoMix},
    playback::{Clearing, wait_for},
    player::Player,
    stats::{CallStats, CallSummary},
    utterance::Utterance,
};

/// A running call: what happens on it, and what is played to it.
///
/// It lives while this value, or one of its [halves](Self::split), lives. Dropped by a handler that was
/// given to [`Server::serve`](crate::Server::serve), the call ends when everything queued has been played;
/// dropped otherwise, it is hung up at once.
#[derive(Debug)]
pub struct Call {
    reader: CallReader,
    writer: CallWriter,
}

/// The half of a call that hears.
pub struct CallReader {
    keep_alive: Arc<EndOnDrop>,
    batch: Batch,
    ended: bool,
}

/// The half of a call that speaks. Clones share the call.
#[derive(Clone, Debug)]
pub struct CallWriter {
    keep_alive: Arc<EndOnDrop>,
}

/// Knows a call without keeping it alive.
#[derive(Clone)]
pub struct CallHandle {
    shared: CallRef,
    data: CallData,
}

/// Keeps a call alive: both halves have it, and the last one to drop it ends the call.
struct EndOnDrop {
    handle: CallHandle,
    at_drop: EndWanted,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let wanted = if std::thread::panicking() {
            EndWanted::Fail
        } else {
            self.at_drop
        };
        self.handle.end(wanted);
        self.handle.shared.drop_preroll();
    }
}

/// About as much audio as was asked for, in one piece. See [`Call::audio`].
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    samples: Vec<i16>,
    rate: Rate,
    offset: Duration,
}

impl Chunk {
    /// The samples: signed 16-bit, mono.
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }

    /// The samples, without a copy.
    pub fn into_samples(self) -> Vec<i16> {
        self.samples
    }

    /// The sample rate.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The place of the first sample on the call's clock; see [`Frame::offset`](crate::Frame::offset).
    pub fn offset(&self) -> Duration {
        self.offset
    }

    /// How long the audio is.
    pub fn duration(&self) -> Duration {
        self.rate.duration(self.samples.len() as u64)
    }
}

impl Call {
    pub(crate) fn new(handle: CallHandle, at_drop: EndWanted) -> Self {
        let keep_alive = Arc::new(EndOnDrop { handle, at_drop });
        let reader = CallReader {
            keep_alive: Arc::clone(&keep_alive),
            batch: Batch::default(),
            ended: false,
        };
        Self {
            reader,
            writer: CallWriter { keep_alive },
        }
    }

    pub(crate) fn shared(&self) -> &CallRef {
        self.writer.shared()
    }

    /// Its handler begins with it.
    pub(crate) fn start_handler(self) -> Self {
        self.writer.shared().note_handler_started(clock::now());
        self
    }

    /// Waits for the next event. After [`Event::Ended`] there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn next(&mut self) -> Option<Event<'_>> {
        self.reader.next().await
    }

    /// Collects audio until there is `length` of it, or the call ends with less. Other events are passed
    /// over. `None` when the call is over.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it loses what it has collected.
    pub async fn audio(&mut self, length: Duration) -> Option<Chunk> {
        self.reader.audio(length).await
    }

    /// Separates hearing from speaking, for two tasks. The call lives while either half does.
    pub fn split(self) -> (CallReader, CallWriter) {
        (self.reader, self.writer)
    }

    /// Its events as a stream, for combinators. The call lives as long as the stream does; to speak meanwhile,
    /// [split](Self::split) it first or keep a [handle](Self::handle).
    pub fn into_stream(self) -> EventStream {
        self.reader.into_stream()
    }

    /// Plays everything queued, hangs up and waits for the end.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it hangs up at once, as dropping the call does.
    pub async fn finish(self) -> EndReason {
        self.writer.shared().end(EndWanted::Finish);
        self.closed().await
    }

    /// A player of `hz` samples per second, any rate from 4 to 384 kHz.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn player(&self, hz: u32) -> Result<Player, UnsupportedRate> {
        self.writer.player(hz)
    }

    /// Speech that comes in pieces, at `hz` samples per second, any rate from 4 to 384 kHz.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn utterance(&self, hz: u32) -> Result<Utterance, UnsupportedRate> {
        self.writer.utterance(hz)
    }

    /// A live source at the rate of the call's frames.
    pub fn live(&self) -> LiveAudio {
        self.writer.live()
    }

    /// A live source of `hz` samples per second, any rate from 4 to 384 kHz.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn live_at(&self, hz: u32) -> Result<LiveAudio, UnsupportedRate> {
        self.writer.live_at(hz)
    }

    /// Throws everything queued away; see [`Player::clear`].
    pub fn clear(&self) -> Clearing {
        self.writer.clear()
    }

    /// Ends the call at once: nothing queued is played any more.
    pub fn hang_up(&self) {
        self.writer.hang_up();
    }

    /// Waits for the end of the call, for those who read no events.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn closed(&self) -> EndReason {
        self.writer.handle().closed().await
    }

    /// Waits until this side is about to end the call, and says why and how much time is left: the grace time of a
    /// [shutdown](crate::ServerHandle::shutdown), or what is left before the
    /// [longest duration](crate::ServerBuilder::max_duration_warning). `None` when the call ends without that.
    ///
    /// [`Event::Closing`] reports the same, to those who read events, once for each of the two. This stays ready, with less
    /// time left each time.
    ///
    /// # Cancel safety
    ///
    /// This method is cancellation safe: it may be dropped and called again.
    ///
    /// ```no_run
    /// use sidetone::{Call, Clip, Event, PlayError};
    ///
    /// /// Says good-bye in time when the server is restarted.
    /// async fn wait_in_line(call: Call, music: Clip, good_bye: Clip) -> Result<(), PlayError> {
    ///     let mut player = call.player(8_000).expect("a rate that can be resampled");
    ///     let playback = player.play_clip(&music).await?;
    ///     tokio::select! {
    ///         _ = playback.finished() => {}
    ///         Some(notice) = call.closing() => {
    ///             println!("{} in {:?}", notice.reason, notice.remaining);
    ///             playback.stop().await;
    ///             player.play_clip(&good_bye).await?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub async fn closing(&self) -> Option<ClosingNotice> {
        self.writer.handle().closing().await
    }

    /// The UUID that the dialplan gave this call.
    pub fn id(&self) -> Uuid {
        self.writer.id()
    }

    /// The other side's address.
    pub fn peer(&self) -> SocketAddr {
        self.writer.shared().peer
    }

    /// The rate at which audio goes out; see [`Rate`].
    pub fn rate(&self) -> Rate {
        self.writer.shared().rate()
    }

    /// What was counted so far.
    pub fn stats(&self) -> CallStats {
        self.handle().stats()
    }

    /// What the [admission hook](crate::ServerBuilder::admit) attached to this call, if it is a `T`.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.writer.data()
    }

    /// A handle that doesn't keep the call alive.
    pub fn handle(&self) -> CallHandle {
        self.writer.handle()
    }
}

impl CallReader {
    /// Waits for the next event. After [`Event::Ended`] there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has taken nothing.
    pub async fn next(&mut self) -> Option<Event<'_>> {
        poll_fn(|context| self.poll_filled(context)).await;
        self.take()
    }

    /// Collects audio; see [`Call::audio`].
    pub async fn audio(&mut self, length: Duration) -> Option<Chunk> {
        let mut chunk: Option<Chunk> = None;
        while let Some(event) = self.next().await {
            let Event::Audio(frame) = event else { continue };
            let chunk = chunk.get_or_insert_with(|| Chunk {
                samples: Vec::new(),
                rate: frame.rate(),
                offset: frame.offset(),
            });
            chunk.samples.extend_from_slice(frame.samples());
            if chunk.duration() >= length {
                break;
            }
        }
        chunk
    }

    /// Its events as a stream; see [`Call::into_stream`].
    pub fn into_stream(self) -> EventStream {
        EventStream::new(self)
    }

    /// Waits until this side is about to end the call; see [`Call::closing`].
    ///
    /// # Cancel safety
    ///
    /// This method is cancellation safe: it may be dropped and called again.
    pub async fn closing(&self) -> Option<ClosingNotice> {
        self.handle().closing().await
    }

    /// The UUID that the dialplan gave this call.
    pub fn id(&self) -> Uuid {
        self.keep_alive.handle.shared.id
    }

    /// The other side's address.
    pub fn peer(&self) -> SocketAddr {
        self.keep_alive.handle.peer()
    }

    /// The rate at which audio goes out; see [`Rate`].
    pub fn rate(&self) -> Rate {
        self.keep_alive.handle.rate()
    }

    /// What has been counted so far.
    pub fn stats(&self) -> CallStats {
        self.keep_alive.handle.stats()
    }

    /// What the [admission hook](crate::ServerBuilder::admit) attached to this call, if it is a `T`.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.keep_alive.handle.data()
    }

    /// Plays everything queued, hangs up and waits for the end, whatever the other half does.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it drops this half. The call still ends when everything queued has been played, or at
    /// once if the other half is gone and the call was made by [`Server::accept`](crate::Server::accept).
    pub async fn finish(self) -> EndReason {
        self.keep_alive.handle.end(EndWanted::Finish);
        self.keep_alive.handle.closed().await
    }

    /// A handle that doesn't keep the call alive.
    pub fn handle(&self) -> CallHandle {
        self.keep_alive.handle.clone()
    }

    /// What comes next of what is there.
    fn take(&mut self) -> Option<Event<'_>> {
        if self.ended {
            return None;
        }
        let shared = &self.keep_alive.handle.shared;
        let (entry, samples) = shared.take_entry(&mut self.batch)?;
        let event = entry.into_event(samples, shared.began);
        self.ended = matches!(event, Event::Ended(_));
        Some(event)
    }

    /// Ready when there is an event, or never will be one again.
    fn poll_filled(&mut self, context: &Context<'_>) -> Poll<()> {
        if !self.batch.is_empty() || self.ended {
            return Poll::Ready(());
        }
        let waker = context.waker();
        let has_events = self
            .keep_alive
            .handle
            .shared
            .take_batch(&mut self.batch, |registered| match registered {
                Some(registered) => registered.clone_from(waker),
                None => *registered = Some(waker.clone()),
            });
        if has_events {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl CallWriter {
    /// A player of `hz` samples per second, any rate from 4 to 384 kHz.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn player(&self, hz: u32) -> Result<Player, UnsupportedRate> {
        Player::new(self.shared().clone(), hz)
    }

    /// Speech that comes in pieces, at `hz` samples per second, any rate from 4 to 384 kHz.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn utterance(&self, hz: u32) -> Result<Utterance, UnsupportedRate> {
        Utterance::new(self.shared().clone(), hz)
    }

    /// A live source at the rate of the call's frames.
    pub fn live(&self) -> LiveAudio {
        self.keep_alive.handle.live()
    }

    /// A live source of `hz` samples per second, any rate from 4 to 384 kHz.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn live_at(&self, hz: u32) -> Result<LiveAudio, UnsupportedRate> {
        self.keep_alive.handle.live_at(hz)
    }

    /// Throws everything queued away; see [`Player::clear`].
    pub fn clear(&self) -> Clearing {
        Clearing::new(self.shared().clone())
    }

    /// Ends the call at once: nothing queued is played any more.
    pub fn hang_up(&self) {
        self.shared().end(EndWanted::HangUp);
    }

    /// Waits until this side is about to end the call; see [`Call::closing`].
    ///
    /// # Cancel safety
    ///
    /// This method is cancellation safe: it may be dropped and called again.
    pub async fn closing(&self) -> Option<ClosingNotice> {
        self.handle().closing().await
    }

    /// The UUID that the dialplan gave this call.
    pub fn id(&self) -> Uuid {
        self.shared().id
    }

    /// The other side's address.
    pub fn peer(&self) -> SocketAddr {
        self.keep_alive.handle.peer()
    }

    /// The rate at which audio goes out; see [`Rate`].
    pub fn rate(&self) -> Rate {
        self.keep_alive.handle.rate()
    }

    /// What has been counted so far.
    pub fn stats(&self) -> CallStats {
        self.keep_alive.handle.stats()
    }

    /// What the [admission hook](crate::ServerBuilder::admit) attached to this call, if it is a `T`.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.keep_alive.handle.data()
    }

    /// Plays everything queued, hangs up and waits for the end, whatever the other half does.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it drops this half. The call still ends when everything queued has been played, or at
    /// once if the other half is gone and the call was made by [`Server::accept`](crate::Server::accept).
    pub async fn finish(self) -> EndReason {
        self.keep_alive.handle.end(EndWanted::Finish);
        self.keep_alive.handle.closed().await
    }

    /// A handle that doesn't keep the call alive.
    pub fn handle(&self) -> CallHandle {
        self.keep_alive.handle.clone()
    }

    fn shared(&self) -> &CallRef {
        &self.keep_alive.handle.shared
    }
}

impl CallHandle {
    pub(crate) fn new(shared: CallRef) -> Self {
        Self {
            shared,
            data: CallData::default(),
        }
    }

    /// Attaches what the admission hook gave.
    pub(crate) fn set_data(&self, data: Option<AnyData>) {
        self.data.set(data);
    }

    /// The UUID that the dialplan gave this call.
    pub fn id(&self) -> Uuid {
        self.shared.id
    }

    /// The other side's address.
    pub fn peer(&self) -> SocketAddr {
        self.shared.peer
    }

    /// The rate at which audio goes out; see [`Rate`].
    pub fn rate(&self) -> Rate {
        self.shared.rate()
    }

    /// What the [admission hook](crate::ServerBuilder::admit) attached to this call, if it is a `T`.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.data.any()?.downcast().ok()
    }

    /// What has been counted so far.
    pub fn stats(&self) -> CallStats {
        let now = clock::now();
        CallStats {
            duration: self.shared.duration(now),
            rate: self.shared.rate(),
            codec: self.shared.codec(),
            buffered: self.shared.buffered(),
            handler_lag: self.shared.handler_lag(),
            lagged: self.shared.lagged(),
            caller_dbfs: self.shared.level(Side::Caller, now),
            server_dbfs: self.shared.level(Side::Server, now),
            counters: self.shared.counters(),
        }
    }

    /// Holds everything queued on this call where it is, from the next slot on, until it is
    /// [resumed](Self::resume_playout): what players, clips and utterances play, and marks. The caller hears silence, or
    /// [live audio](Self::live). More may be queued meanwhile; a [clear](Call::clear) clears, and the pause goes on. The end of the
    /// call by [`finish`](Call::finish) ends it, so that what is queued is heard.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] after the end of the call.
    pub fn pause_playout(&self) -> Result<(), PlayError> {
        Ok(self.shared.command(|commands| commands.pause())?)
    }

    /// Goes on where the queue was [paused](Self::pause_playout).
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] after the end of the call.
    pub fn resume_playout(&self) -> Result<(), PlayError> {
        Ok(self.shared.command(|commands| commands.resume())?)
    }

    /// Why the call ended, if it has.
    pub fn ended(&self) -> Option<EndReason> {
        self.shared.ended()
    }

    /// Waits for the end of the call.
    ///
    /// # Cancel safety
    ///
    /// It may be dropped and called again.
    pub async fn closed(&self) -> EndReason {
        match wait_for(&self.shared, |shared| shared.ended()).await {
            Ok(reason) => reason,
            // It ended while this was registering, so the reason is there.
            Err(_) => self.shared.ended().unwrap_or(EndReason::ConnectionFailed),
        }
    }

    /// Waits until this side is about to end the call; see [`Call::closing`].
    ///
    /// # Cancel safety
    ///
    /// This method is cancellation safe: it may be dropped and called again.
    pub async fn closing(&self) -> Option<ClosingNotice> {
        let notice = |shared: &CallRef| shared.closing_notice();
        wait_for(&self.shared, notice).await.ok()
    }

    /// Ends the call at once.
    pub fn hang_up(&self) {
        self.shared.end(EndWanted::HangUp);
    }

    /// Throws everything queued away; see [`Player::clear`].
    pub fn clear(&self) -> Clearing {
        Clearing::new(self.shared.clone())
    }

    /// A player on this call, of any rate from 4 to 384 kHz, which doesn't keep it alive either.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn player(&self, hz: u32) -> Result<Player, UnsupportedRate> {
        Player::new(self.shared.clone(), hz)
    }

    /// Speech that comes in pieces, at `hz` samples per second, any rate from 4 to 384 kHz. It doesn't keep the
    /// call alive either.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn utterance(&self, hz: u32) -> Result<Utterance, UnsupportedRate> {
        Utterance::new(self.shared.clone(), hz)
    }

    /// A live source at the rate of the call's frames. It doesn't keep the call alive either.
    pub fn live(&self) -> LiveAudio {
        LiveAudio::new(self.shared.clone(), None)
    }

    /// A live source of `hz` samples per second, any rate from 4 to 384 kHz. It doesn't keep the call alive either.
    ///
    /// # Errors
    ///
    /// When `hz` is out of that range.
    pub fn live_at(&self, hz: u32) -> Result<LiveAudio, UnsupportedRate> {
        sidetone_audio::resample::Resampler::new(hz, Rate::Slin.hz())?;
        Ok(LiveAudio::new(self.shared.clone(), Some(hz)))
    }

    pub(crate) fn info(&self) -> CallInfo {
        CallInfo::new(&self.shared)
    }

    pub(crate) fn announce_shutdown(&self, at: Time) {
        self.shared.announce_shutdown(at);
    }

    pub(crate) fn end(&self, wanted: EndWanted) {
        self.shared.end(wanted);
    }

    /// A monitor of what the caller says, hears, or both, to transcribe or measure it.
    ///
    /// If the handler makes it before it reads an event, and within a second, it starts at the UUID, even if the call is over by
    /// then. Made later, it starts now.
    ///
    /// A call may have 16 monitors and [mixes](Self::listen) at a time. Recording goes on beside them.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] if the call is over and the handler has read something of it, [`PlayError::TooManyMonitors`].
    pub fn monitor(&self, sides: Sides) -> Result<Monitor, PlayError> {
        Monitor::new(self, sides)
    }

    /// What the caller says, hears, or both, from now on, as one stream of this rate to listen to.
    ///
    /// # Errors
    ///
    /// [`PlayError::Closed`] if the call is over, [`PlayError::TooManyMonitors`] if it has 16 monitors and mixes.
    pub fn listen(&self, sides: Sides, rate: Rate) -> Result<MonoMix, PlayError> {
        MonoMix::new(self, sides, rate)
    }

    pub(crate) fn recording_tap(&self) -> Result<Arc<Tap>, PlayError> {
        Ok(self.shared.add_tap(clock::now(), Purpose::Recording)?)
    }

    pub(crate) fn shared(&self) -> &CallRef {
        &self.shared
    }

    pub(crate) fn started_at(&self) -> Time {
        self.shared.began
    }

    pub(crate) fn summary(&self, reason: EndReason) -> CallSummary {
        let stats = self.stats();
        CallSummary {
            id: self.shared.id,
            peer: self.shared.peer,
            duration: stats.duration,
            rate: stats.rate,
            inbound_rate: self.shared.inbound_rate(),
            codec: stats.codec,
            lagged: stats.lagged,
            counters: stats.counters,
            reason,
            data: self.data.any(),
        }
    }
}

impl fmt::Debug for CallHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallHandle")
            .field("id", &self.shared.id)
            .field("ended", &self.ended())
            .finish()
    }
}

impl fmt::Debug for CallReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallReader")
            .field("id", &self.keep_alive.handle.shared.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EndOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndOnDrop")
            .field("id", &self.handle.shared.id)
            .finish_non_exhaustive()
    }
}
