//! One call's session: runs a recognizer's connections one after the other, and reports what comes of
//! them.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};

use crate::{Audio, Format, Recognizer, SpeechError, Transcript, replay_buffer::ReplayBuffer};

/// Events that wait for a slow application. When the queue is full, the session stops reading from the
/// recognizer.
const EVENT_QUEUE: usize = 64;
/// The backoff before the second attempt.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
/// The longest backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A connection that lasted this long was healthy, even if nobody spoke: the next error starts a new
/// backoff.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// How long after the end of the call transcripts may still come.
const LAST_TRANSCRIPTS_TIMEOUT: Duration = Duration::from_secs(10);

/// How much text is accepted from a recognizer, in bytes per second: many times what anybody says,
/// interim words and times included.
const MAX_TEXT_RATE: usize = 64 * 1024;
/// How much may come at once, as time at that rate.
const MAX_TEXT_BURST: Duration = Duration::from_secs(16);
/// What the time and the confidence of a word count for, in bytes.
const WORD_OVERHEAD: usize = 64;

/// Starts to transcribe one call: samples go into the first half, transcripts come out of the second.
///
/// The session is a task on the current tokio runtime. It ends once the audio has ended and the last
/// transcript was read, or when the [`SpeechEvents`] are dropped. A slow or unavailable recognizer costs
/// transcripts, which is reported, and never blocks the call. The last 30 s of audio are kept, and what
/// has no final transcript is replayed to the next connection.
///
/// # Panics
///
/// Outside a tokio runtime.
///
/// ```
/// use std::time::Duration;
/// use futures_util::future::BoxFuture;
/// use sidetone_speech::{Audio, Format, Recognizer, SpeechError, SpeechEvent, Transcript, Transcripts, transcribe};
///
/// /// Transcribes a call as its length.
/// struct Clock;
///
/// impl Recognizer for Clock {
///     fn destination(&self) -> String {
///         "this process".into()
///     }
///
///     fn run<'a>(&'a self, mut audio: Audio, mut transcripts: Transcripts) -> BoxFuture<'a, Result<(), SpeechError>> {
///         Box::pin(async move {
///             let mut samples = Vec::new();
///             while audio.read(Duration::ZERO, Duration::MAX, &mut samples).await {}
///             let end = audio.call_time(audio.delivered());
///             transcripts.send(Transcript::new(format!("{end:?}"), true, Duration::ZERO, end)).await;
///             Ok(())
///         })
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (mut input, mut events) = transcribe(Clock, Format::linear(8000));
/// for frame in 0..50 {
///     input.push(Duration::from_millis(20) * frame, &[0; 160]);
/// }
/// input.finish();
/// let Some(SpeechEvent::Transcript(transcript)) = events.next().await else { panic!() };
/// assert_eq!(transcript.text, "1s");
/// assert!(events.next().await.is_none());
/// # });
/// ```
pub fn transcribe(recognizer: impl Recognizer, format: Format) -> (SpeechInput, SpeechEvents) {
    let buffer = Arc::new(ReplayBuffer::new(format));
    let (events, receiver) = mpsc::channel(EVENT_QUEUE);
    let session = Session {
        recognizer,
        buffer: Arc::clone(&buffer),
        events,
    };
    tokio::spawn(session.run());
    (SpeechInput { buffer }, SpeechEvents { receiver })
}

/// The half that takes the audio of a call. Dropping it ends the audio.
#[derive(Debug)]
pub struct SpeechInput {
    buffer: Arc<ReplayBuffer>,
}

impl SpeechInput {
    /// Adds samples. The first is at `at` on the call's clock. Never waits and never fails: see
    /// [`transcribe`].
    ///
    /// If audio is missing before them, the recognizer gets a short silence, and its times are right
    /// again after it.
    pub fn push(&mut self, at: Duration, samples: &[i16]) {
        self.buffer.write(at, samples);
    }

    /// Reports that no audio came for `duration` from `at` on the call's clock: the caller is muted.
    /// Before the first audio this does nothing.
    ///
    /// Call it while the gap lasts, since [`push`](Self::push) learns of a gap only with the next audio.
    /// The recognizer gets silence, so that it ends the utterance: from 600 ms on, as audio may be late,
    /// and 2.5 s at most, as services bill silence as speech. Its times stay right.
    pub fn push_silence(&mut self, at: Duration, duration: Duration) {
        self.buffer.write_silence(at, duration);
    }

    /// Ends the audio, as the call is over. The last transcripts come within 10 s.
    pub fn finish(self) {}
}

impl Drop for SpeechInput {
    fn drop(&mut self) {
        self.buffer.finish();
    }
}

/// What comes of the audio of a call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SpeechEvent {
    /// Something was said.
    Transcript(Transcript),
    /// The recognizer failed, and is tried again.
    Retrying {
        /// Why it failed.
        error: SpeechError,
        /// When the next attempt starts.
        retry_in: Duration,
    },
    /// The recognizer works again.
    Recovered,
    /// A part of the call that gets no transcript.
    Lost {
        /// Where it begins on the call's clock.
        from: Duration,
        /// Where it ends.
        to: Duration,
    },
    /// The recognizer failed for good. No more transcripts come. At the end of the call everything
    /// without a transcript is reported as lost.
    Failed(SpeechError),
}

/// The half that gives the transcripts of a call.
#[derive(Debug)]
pub struct SpeechEvents {
    receiver: mpsc::Receiver<SpeechEvent>,
}

impl SpeechEvents {
    /// Waits for the next event. Returns `None` once the call is over and everything was reported.
    ///
    /// This method is cancellation safe: if its future is dropped, no event was lost.
    pub async fn next(&mut self) -> Option<SpeechEvent> {
        self.receiver.recv().await
    }
}

/// Where a recognizer's connection sends what it recognized.
#[derive(Clone, Debug)]
pub struct Transcripts {
    buffer: Arc<ReplayBuffer>,
    reports: mpsc::Sender<Report>,
    status: Arc<Status>,
}

impl Transcripts {
    /// Sends a transcript. A final one acknowledges the audio up to its end, which is not replayed then.
    /// A final one without text does only that.
    ///
    /// Waits while the application has not read the earlier ones, and while there is more text than
    /// anybody can say: 64 KiB/s are accepted.
    ///
    /// This method is cancellation safe: if its future is dropped, the transcript was not sent and
    /// nothing was acknowledged.
    pub async fn send(&mut self, transcript: Transcript) {
        let (is_final, end) = (transcript.is_final, transcript.end);
        let due = self.status.reserve_text(text_cost(&transcript));
        sleep_until(due).await;
        if is_final {
            // A final transcript shows that the last error is over.
            self.status.reset_backoff();
        }
        if !transcript.text.is_empty() {
            self.mark_alive();
            // This fails only when the session is about to end.
            let _ = self.reports.send(Report::Transcript(transcript)).await;
        }
        match is_final {
            true => self.buffer.ack(end),
            false => self.buffer.mark_pending(end),
        }
    }

    /// Reports an error after which the connection goes on, since only one of its requests failed.
    /// Returns how long to wait before that request is sent again. When it succeeds, call
    /// [`mark_alive`](Self::mark_alive).
    ///
    /// An error that ends the connection is what `run` returns.
    pub async fn report_error(&mut self, error: SpeechError) -> Duration {
        // Replies until now came before the error.
        self.status.take_alive();
        let retry_in = self.status.next_backoff();
        let _ = self.reports.send(Report::Error { error, retry_in }).await;
        retry_in
    }

    /// Reports a part of the call, by its clock, as lost: no transcript of it will come. Everything
    /// before its end counts as acknowledged.
    pub fn mark_lost(&self, from: Duration, to: Duration) {
        self.buffer.mark_lost(from, to);
    }

    /// Records that the service replies, even if with no transcript: after an error it has recovered.
    pub fn mark_alive(&self) {
        self.status.alive.notify_one();
    }

    /// Acknowledges everything up to `until` on the call's clock, where the recognizer knows without its
    /// service that no transcript is to come.
    pub fn ack(&self, until: Duration) {
        self.buffer.ack(until);
    }

    /// Records that final transcripts of speech up to `until` are still to come, where the recognizer
    /// knows it without its service.
    pub fn mark_pending(&self, until: Duration) {
        self.buffer.mark_pending(until);
    }

    /// Where final transcripts end, on the call's clock.
    pub fn acked(&self) -> Duration {
        self.buffer.acked()
    }
}

struct Session<R> {
    recognizer: R,
    buffer: Arc<ReplayBuffer>,
    events: mpsc::Sender<SpeechEvent>,
}

impl<R: Recognizer> Session<R> {
    async fn run(self) {
        let events = self.events.clone();
        tokio::select! {
            () = self.transcribe() => {}
            () = events.closed() => {}
        }
    }

    async fn transcribe(&self) {
        let mut deadline = std::pin::pin!(self.deadline());
        let status = Arc::new(Status::default());
        let mut is_down = false;
        while self.buffer.wait_for_audio().await {
            let opened = Instant::now();
            let connection = self.run_connection(&status, &mut is_down, deadline.as_mut());
            let wait = match connection.await {
                ConnectionEnd::DeadlinePassed => break,
                ConnectionEnd::Done => {
                    self.buffer.ack_delivered();
                    if self.buffer.is_drained() {
                        break;
                    }
                    // Does not reconnect in a loop to a service that takes no audio.
                    MIN_BACKOFF.saturating_sub(opened.elapsed())
                }
                ConnectionEnd::Failed(error) if error.is_final() => {
                    self.send(SpeechEvent::Failed(error)).await;
                    self.discard_rest().await;
                    break;
                }
                ConnectionEnd::Failed(error) => {
                    if opened.elapsed() > HEALTHY_AFTER {
                        status.reset_backoff();
                    }
                    let retry_in = status.next_backoff();
                    self.send_retrying(error, retry_in, &mut is_down).await;
                    retry_in
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = &mut deadline => break,
            }
        }
        self.buffer.abandon();
        self.send_losses().await;
    }

    /// Waits for the end of a call of which nothing more is transcribed. The rest is lost, as one part.
    async fn discard_rest(&self) {
        self.send_losses().await;
        self.buffer.discard_rest();
        self.buffer.ended().await;
    }

    async fn send_losses(&self) {
        while let Some(lost) = self.buffer.take_loss() {
            self.send_loss(lost).await;
        }
    }

    /// Runs one connection, and reports losses meanwhile.
    async fn run_connection(
        &self,
        status: &Arc<Status>,
        is_down: &mut bool,
        mut deadline: Pin<&mut impl Future<Output = ()>>,
    ) -> ConnectionEnd {
        let (reports, mut receiver) = mpsc::channel(1);
        // What the last connection notified was taken into account at its end.
        status.take_alive();
        let transcripts = Transcripts {
            buffer: Arc::clone(&self.buffer),
            reports,
            status: Arc::clone(status),
        };
        let audio = Audio::resume(Arc::clone(&self.buffer));
        let mut running = self.recognizer.run(audio, transcripts);
        let end = loop {
            tokio::select! {
                biased;
                () = status.alive.notified(), if *is_down => {
                    *is_down = false;
                    self.send(SpeechEvent::Recovered).await;
                }
                Some(report) = receiver.recv() => self.send_report(report, is_down).await,
                lost = self.buffer.next_loss() => self.send_loss(lost).await,
                ended = &mut running => break match ended {
                    Ok(()) => ConnectionEnd::Done,
                    Err(error) => ConnectionEnd::Failed(error),
                },
                () = deadline.as_mut() => break ConnectionEnd::DeadlinePassed,
            }
        };
        self.buffer.resume();
        let was_alive = status.take_alive();
        if *is_down && (was_alive || matches!(end, ConnectionEnd::Done)) {
            *is_down = false;
            self.send(SpeechEvent::Recovered).await;
        }
        // Their audio is acknowledged, so they have to be delivered.
        while let Ok(report) = receiver.try_recv() {
            self.send_report(report, is_down).await;
        }
        end
    }

    /// Completes when the audio has been over for too long.
    async fn deadline(&self) {
        self.buffer.ended().await;
        sleep_until(Instant::now() + LAST_TRANSCRIPTS_TIMEOUT).await;
    }

    async fn send(&self, event: SpeechEvent) {
        // This fails only when the session is about to end.
        let _ = self.events.send(event).await;
    }

    async fn send_report(&self, report: Report, is_down: &mut bool) {
        match report {
            Report::Transcript(transcript) => self.send(SpeechEvent::Transcript(transcript)).await,
            Report::Error { error, retry_in } => self.send_retrying(error, retry_in, is_down).await,
        }
    }

    async fn send_retrying(&self, error: SpeechError, retry_in: Duration, is_down: &mut bool) {
        tracing::debug!(%error, ?retry_in, "speech recognition failed; retrying");
        *is_down = true;
        self.send(SpeechEvent::Retrying { error, retry_in }).await;
    }

    async fn send_loss(&self, (from, to): (Duration, Duration)) {
        self.send(SpeechEvent::Lost { from, to }).await;
    }
}

/// What a connection reports while it runs.
#[derive(Debug)]
enum Report {
    Transcript(Transcript),
    Error {
        error: SpeechError,
        retry_in: Duration,
    },
}

/// How a connection ended.
enum ConnectionEnd {
    /// Everything it has read is acknowledged.
    Done,
    Failed(SpeechError),
    /// The call has been over for too long.
    DeadlinePassed,
}

/// The state of the recognizer, kept from one connection to the next.
#[derive(Debug)]
struct Status {
    /// Notified when the service replies.
    alive: Notify,
    /// The next backoff, before its jitter.
    backoff: Mutex<Duration>,
    /// When all the text sent so far would be due at [`MAX_TEXT_RATE`].
    text_due: Mutex<Instant>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            alive: Notify::new(),
            backoff: Mutex::new(MIN_BACKOFF),
            text_due: Mutex::new(Instant::now()),
        }
    }
}

impl Status {
    /// Whether the service has replied since the last call.
    fn take_alive(&self) -> bool {
        self.alive.notified().now_or_never().is_some()
    }

    /// How long to wait before the next attempt. Each call returns a longer time.
    fn next_backoff(&self) -> Duration {
        let mut backoff = self.backoff.lock();
        // Many calls may lose the same recognizer at once; jitter spreads their attempts.
        let next = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        *backoff = (*backoff * 2).min(MAX_BACKOFF);
        next
    }

    fn reset_backoff(&self) {
        *self.backoff.lock() = MIN_BACKOFF;
    }

    /// Reserves `cost` bytes of text. Returns when they may be sent.
    fn reserve_text(&self, cost: usize) -> Instant {
        let mut due = self.text_due.lock();
        let now = Instant::now();
        *due = (*due).max(now) + Duration::from_secs_f64(cost as f64 / MAX_TEXT_RATE as f64);
        match due.checked_duration_since(now + MAX_TEXT_BURST) {
            Some(wait) => now + wait,
            None => now,
        }
    }
}

fn text_cost(transcript: &Transcript) -> usize {
    let words = transcript.words.iter();
    let words = words.map(|it| WORD_OVERHEAD + it.text.len());
    transcript.text.len() + words.sum::<usize>()
}
