use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};

use crate::{Audio, Format, Recognizer, SpeechError, Transcript, tape::Tape};

/// Events that wait for a slow reader; after that the recognizer is read no further.
const WAITING: usize = 64;
/// The pause before a second try, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// A connection that held for so long was a good one, though nobody may have spoken: the next trouble is a new one.
const GOOD: Duration = Duration::from_secs(10);
/// How long after the end of the call transcripts may still come.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// So much text a second is read from a recognizer, in bytes: many times what anybody says, interim words and
/// times included. And so much time's worth may come at once.
const FASTEST: (usize, Duration) = (64 * 1024, Duration::from_secs(16));
/// What the place and the confidence of a word count for in that.
const WORD: usize = 64;

/// Starts to transcribe one call: samples go into the first half, transcripts come out of the second.
///
/// It runs as a task of its own on the tokio runtime it is called on, and ends when both the audio is finished
/// and the last transcript is read, or when the [`SpeechEvents`] are dropped. A recognizer that is slow, away or broken costs
/// transcripts, which is said, and never anything else: the last 30 s of audio are kept for it, and what
/// it had not given a final transcript for is sent again to the next connection.
///
/// ```
/// use std::time::Duration;
/// use futures_util::future::BoxFuture;
/// use sidetone_speech::{Audio, Format, Recognizer, SpeechError, SpeechEvent, Transcript, Transcripts, transcribe};
///
/// /// Tells how long a call was.
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
///             let end = audio.on_call(audio.taken());
///             transcripts.tell(Transcript::new(format!("{end:?}"), true, Duration::ZERO, end)).await;
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
    let tape = Arc::new(Tape::new(format));
    let (events, receiver) = mpsc::channel(WAITING);
    let session = Session {
        recognizer,
        tape: Arc::clone(&tape),
        events,
    };
    tokio::spawn(session.run());
    (SpeechInput { tape }, SpeechEvents { receiver })
}

/// Where the audio of a call goes in. Dropping it is its end.
#[derive(Debug)]
pub struct SpeechInput {
    tape: Arc<Tape>,
}

impl SpeechInput {
    /// Adds samples whose first is at `at` on the call's clock. Never waits and never fails: see [`transcribe`].
    ///
    /// Where audio is missing before them, the recognizer hears a short silence, and its times are right
    /// again after it.
    pub fn push(&mut self, at: Duration, samples: &[i16]) {
        self.tape.write(at, samples);
    }

    /// No audio came from `at` on the call's clock on for so long: the caller is muted. To be called while that
    /// lasts, as [`push`](Self::push) only hears of it with the next audio; before the first audio it does nothing.
    ///
    /// The recognizer hears it as silence, so that it ends what was being said: from 600 ms on, as audio may be
    /// late, and for 2.5 s at most, as services count silence as speech when they count the seconds. Its times stay right.
    pub fn push_silence(&mut self, at: Duration, duration: Duration) {
        self.tape.write_silence(at, duration);
    }

    /// The call is over: the last transcripts come, for at most 10 s.
    pub fn finish(self) {}
}

impl Drop for SpeechInput {
    fn drop(&mut self) {
        self.tape.end();
    }
}

/// What comes of the audio of a call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SpeechEvent {
    /// Somebody said something.
    Transcript(Transcript),
    /// The recognizer is away.
    Trouble {
        /// Why.
        error: SpeechError,
        /// When it will be tried again.
        retry_in: Duration,
    },
    /// It is back.
    Recovered,
    /// This part of the call is not transcribed.
    Lost {
        /// Where it begins on the call's clock.
        from: Duration,
        /// Where it ends.
        to: Duration,
    },
    /// The recognizer refuses for good. No more transcripts will come; at the end of the call all of it that has
    /// none is told as lost.
    Failed(SpeechError),
}

/// Where the transcripts of a call come out.
#[derive(Debug)]
pub struct SpeechEvents {
    receiver: mpsc::Receiver<SpeechEvent>,
}

impl SpeechEvents {
    /// Waits for the next one; `None` when the call is over and everything is said. Cancel safe.
    pub async fn next(&mut self) -> Option<SpeechEvent> {
        self.receiver.recv().await
    }
}

/// Where a recognizer's connection tells what it understood.
#[derive(Clone, Debug)]
pub struct Transcripts {
    tape: Arc<Tape>,
    news: mpsc::Sender<News>,
    contact: Arc<Contact>,
}

impl Transcripts {
    /// Tells one. A final transcript settles everything up to its end: that will not be asked for again.
    /// One without any text only does that.
    ///
    /// Waits while the application has not read those before it, and while there is more text than anybody can
    /// say: a recognizer that floods is read no faster than 64 KiB/s. Cancel safe: one that is dropped was not
    /// told, and has settled nothing.
    pub async fn tell(&mut self, transcript: Transcript) {
        let (is_final, end) = (transcript.is_final, transcript.end);
        let due = self.contact.due(weight(&transcript));
        sleep_until(due).await;
        if is_final {
            // Whoever gets that far is not in the trouble that was before.
            self.contact.reset_pause();
        }
        if !transcript.text.is_empty() {
            self.alive();
            // Nobody listens any more: the session is about to end.
            let _ = self.news.send(News::Transcript(transcript)).await;
        }
        match is_final {
            true => self.tape.settle(end),
            false => self.tape.note_speech(end),
        }
    }

    /// Tells of trouble after which the engine goes on by itself, where only a part of what it has asked the
    /// service is concerned. Answers how long to wait before that is asked again; when it was answered,
    /// [`alive`](Self::alive) says so.
    ///
    /// Trouble that ends the connection is what `run` answers.
    pub async fn trouble(&mut self, error: SpeechError) -> Duration {
        // Signs of life until now were of the time before.
        self.contact.was_alive();
        let retry_in = self.contact.next_pause();
        let _ = self.news.send(News::Trouble { error, retry_in }).await;
        retry_in
    }

    /// Gives up a part of the call, on its clock, for which there will be no transcript: that is said, and what is
    /// before its end is not asked for again.
    pub fn give_up(&self, from: Duration, to: Duration) {
        self.tape.give_up(from, to);
    }

    /// Says that the service listens, though there may be nothing to tell: after trouble it is back.
    pub fn alive(&self) {
        self.contact.alive.notify_one();
    }

    /// Settles everything up to here, on the call's clock, where an engine knows without its service that
    /// there is nothing more to come.
    pub fn settle(&self, until: Duration) {
        self.tape.settle(until);
    }

    /// Says that final transcripts of speech up to here are still to come, where an engine knows that without
    /// its service.
    pub fn expect(&self, until: Duration) {
        self.tape.note_speech(until);
    }

    /// Up to here, on the call's clock, everything has its final transcript.
    pub fn settled(&self) -> Duration {
        self.tape.settled()
    }
}

struct Session<R> {
    recognizer: R,
    tape: Arc<Tape>,
    events: mpsc::Sender<SpeechEvent>,
}

impl<R: Recognizer> Session<R> {
    async fn run(self) {
        let listened_to = self.events.clone();
        tokio::select! {
            () = self.transcribe() => {}
            () = listened_to.closed() => {}
        }
    }

    async fn transcribe(&self) {
        let mut deadline = std::pin::pin!(self.deadline());
        let contact = Arc::new(Contact::default());
        let mut away = false;
        while self.tape.has_more().await {
            let began = Instant::now();
            let ended = self.connection(&contact, &mut away, deadline.as_mut());
            let wait = match ended.await {
                Ended::Late => break,
                Ended::Orderly => {
                    self.tape.settle_read();
                    if self.tape.is_over() {
                        break;
                    }
                    // A service that takes nothing is not asked again and again.
                    BACK_OFF.0.saturating_sub(began.elapsed())
                }
                Ended::Trouble(error) if error.is_final() => {
                    self.tell(SpeechEvent::Failed(error)).await;
                    self.refused().await;
                    break;
                }
                Ended::Trouble(error) => {
                    if began.elapsed() > GOOD {
                        contact.reset_pause();
                    }
                    let retry_in = contact.next_pause();
                    self.tell_trouble(error, retry_in, &mut away).await;
                    retry_in
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = &mut deadline => break,
            }
        }
        self.tape.abandon();
        self.tell_losses().await;
    }

    /// Waits for the end of a call of which nothing more is transcribed: all of that is lost, in one piece.
    async fn refused(&self) {
        self.tell_losses().await;
        self.tape.refuse();
        self.tape.ended().await;
    }

    async fn tell_losses(&self) {
        while let Some(lost) = self.tape.take_loss() {
            self.tell_loss(lost).await;
        }
    }

    /// Runs one connection, and tells meanwhile what is lost.
    async fn connection(
        &self,
        contact: &Arc<Contact>,
        away: &mut bool,
        mut deadline: Pin<&mut impl Future<Output = ()>>,
    ) -> Ended {
        let (news, mut told) = mpsc::channel(1);
        // Whether the one before was alive at its end was asked then.
        contact.was_alive();
        let transcripts = Transcripts {
            tape: Arc::clone(&self.tape),
            news,
            contact: Arc::clone(contact),
        };
        let audio = Audio::resume(Arc::clone(&self.tape));
        let mut running = self.recognizer.run(audio, transcripts);
        let ended = loop {
            tokio::select! {
                biased;
                () = contact.alive.notified(), if *away => {
                    *away = false;
                    self.tell(SpeechEvent::Recovered).await;
                }
                Some(news) = told.recv() => self.tell_news(news, away).await,
                lost = self.tape.next_loss() => self.tell_loss(lost).await,
                ended = &mut running => break match ended {
                    Ok(()) => Ended::Orderly,
                    Err(error) => Ended::Trouble(error),
                },
                () = deadline.as_mut() => break Ended::Late,
            }
        };
        self.tape.resume();
        let answered = contact.was_alive();
        if *away && (answered || matches!(ended, Ended::Orderly)) {
            *away = false;
            self.tell(SpeechEvent::Recovered).await;
        }
        // What was told has settled its audio, so it has to be said.
        while let Ok(news) = told.try_recv() {
            self.tell_news(news, away).await;
        }
        ended
    }

    /// The time when the audio has been over for too long.
    async fn deadline(&self) {
        self.tape.ended().await;
        sleep_until(Instant::now() + AFTERWARDS).await;
    }

    async fn tell(&self, event: SpeechEvent) {
        // Nobody listens any more: the session is about to end.
        let _ = self.events.send(event).await;
    }

    async fn tell_news(&self, news: News, away: &mut bool) {
        match news {
            News::Transcript(transcript) => self.tell(SpeechEvent::Transcript(transcript)).await,
            News::Trouble { error, retry_in } => self.tell_trouble(error, retry_in, away).await,
        }
    }

    async fn tell_trouble(&self, error: SpeechError, retry_in: Duration, away: &mut bool) {
        tracing::debug!(%error, "speech recognition");
        *away = true;
        self.tell(SpeechEvent::Trouble { error, retry_in }).await;
    }

    async fn tell_loss(&self, (from, to): (Duration, Duration)) {
        self.tell(SpeechEvent::Lost { from, to }).await;
    }
}

/// What a connection has to say while it runs.
#[derive(Debug)]
enum News {
    Transcript(Transcript),
    Trouble {
        error: SpeechError,
        retry_in: Duration,
    },
}

/// How it goes with the recognizer, from one connection to the next.
#[derive(Debug)]
struct Contact {
    alive: Notify,
    /// Before the next try, at most.
    pause: Mutex<Duration>,
    /// When all that was told would have been told at the pace that is allowed.
    told: Mutex<Instant>,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            alive: Notify::new(),
            pause: Mutex::new(BACK_OFF.0),
            told: Mutex::new(Instant::now()),
        }
    }
}

impl Contact {
    /// Whether there was a sign of life since that was asked or seen last.
    fn was_alive(&self) -> bool {
        self.alive.notified().now_or_never().is_some()
    }

    /// How long to wait before the next try; the one after it waits for longer.
    fn next_pause(&self) -> Duration {
        let mut pause = self.pause.lock();
        // Many calls lose the same recognizer at once and should not come back all at once.
        let next = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        *pause = (*pause * 2).min(BACK_OFF.1);
        next
    }

    /// When so much text may be told.
    fn due(&self, weight: usize) -> Instant {
        let mut told = self.told.lock();
        let now = Instant::now();
        *told = (*told).max(now) + Duration::from_secs_f64(weight as f64 / FASTEST.0 as f64);
        match told.checked_duration_since(now + FASTEST.1) {
            Some(wait) => now + wait,
            None => now,
        }
    }

    fn reset_pause(&self) {
        *self.pause.lock() = BACK_OFF.0;
    }
}

fn weight(transcript: &Transcript) -> usize {
    let words = transcript.words.iter().map(|it| WORD + it.text.len());
    transcript.text.len() + words.sum::<usize>()
}

/// How a connection ended.
enum Ended {
    /// Everything it has read is dealt with.
    Orderly,
    Trouble(SpeechError),
    /// The call is over, and it had time enough.
    Late,
}
