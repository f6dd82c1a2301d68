use std::{error::Error, sync::Arc, time::Duration};

use futures_util::{
    StreamExt, TryFutureExt,
    stream::{self, BoxStream},
};
use googleapis_tonic_google_cloud_speech_v2::google::cloud::speech::v2::{
    StreamingRecognizeRequest, StreamingRecognizeResponse, speech_client::SpeechClient,
};
use tokio::{
    select,
    sync::mpsc::{self, Sender},
    time::{Instant, sleep_until, timeout_at},
};
use tonic::{Code, Request, Status};

use super::{
    Google, SERVICE,
    access::Lane,
    ending,
    plain::Plain,
    reply::{self, Settled},
    request,
};
use crate::{Audio, SpeechError, Transcripts};

/// As long as Google advises; at 48 kHz it is 9600 bytes of the 15 kB that a request may have.
const PIECE: Duration = Duration::from_millis(100);
/// The pause after a piece where more is waiting: twice as fast as it is spoken.
const HASTE: Duration = Duration::from_millis(50);
/// Pieces that wait for the connection to take them.
const WAITING: usize = 4;
/// Without audio for so long the stream is closed. The service would do it after 10 s, with an error.
const QUIET: Duration = Duration::from_secs(3);
/// How long the last results of a stream may take.
const LAST_RESULTS: Duration = Duration::from_secs(5);
/// For so long a connection may have been dead when it is found out.
const UNNOTICED: Duration = Duration::from_secs(15);
/// A stream that took so much audio was a good one, however it ended.
const GOOD: Duration = Duration::from_secs(5);

/// No reply is longer, in bytes: it is a quarter of an hour of words with their times.
const LONGEST_REPLY: usize = 256 * 1024;
/// What tonic says of one that is.
const TOO_LONG: &str = "message length too large";

/// One call of `StreamingRecognize`.
pub(super) struct Stream<'a> {
    google: &'a Google,
    audio: Audio,
    requests: Option<Sender<StreamingRecognizeRequest>>,
    replies: BoxStream<'static, Result<StreamingRecognizeResponse, Status>>,
    opened: Instant,
    /// Where the last final result ended.
    settled: Duration,
    /// Whether there was an interim result after that.
    speech: bool,
    /// Held so that others see how many use it.
    _lane: Arc<Lane>,
}

/// Why a stream is spoken to no more.
pub(super) enum Ended {
    /// The call is over, or no audio comes for a while.
    NoAudio,
    /// It has nearly lasted as long as it may.
    TooLong,
    /// The service has ended it, and there is no harm in that.
    ByService,
}

impl<'a> Stream<'a> {
    pub(super) async fn open(google: &'a Google, audio: Audio) -> Result<Self, SpeechError> {
        let settings = &google.request;
        let sender = google.access.sender(settings.project.as_ref()).await?;
        let lane = google.access.lane(&settings.region)?;
        let name = settings.name(&sender.project);

        let (requests, mut waiting) = mpsc::channel(WAITING);
        let first = settings.first(name.clone(), audio.format(), google.features.load());
        // There is room for it.
        let _ = requests.try_send(first);
        let mut request = Request::new(stream::poll_fn(move |context| waiting.poll_recv(context)));
        sender.sign(&name, request.metadata_mut())?;
        let client = SpeechClient::new(Plain(lane.0.clone()));
        let mut client = client.max_decoding_message_size(LONGEST_REPLY);
        // The service may answer nothing at all before it has heard something.
        let replies = async move { Ok(client.streaming_recognize(request).await?.into_inner()) };
        Ok(Self {
            google,
            settled: audio.on_call(Duration::ZERO),
            audio,
            requests: Some(requests),
            replies: replies.try_flatten_stream().boxed(),
            opened: Instant::now(),
            speech: false,
            _lane: lane,
        })
    }

    /// Sends audio and tells what comes of it.
    pub(super) async fn speak(
        &mut self,
        transcripts: &mut Transcripts,
    ) -> Result<Ended, SpeechError> {
        let mut samples = Vec::new();
        let mut last = Instant::now();
        let mut due = last;
        while !self.is_long_enough() {
            select! {
                biased;
                reply = self.replies.next() => match reply {
                    Some(Ok(reply)) => self.hear(reply, transcripts).await,
                    Some(Err(status)) => {
                        if died_unnoticed(&status) {
                            self.doubt(transcripts);
                        }
                        return self.ended(&status);
                    }
                    None => return self.ended(&Status::aborted("it ended the stream at once")),
                },
                Some(more) = next_piece(&self.requests, due, &mut self.audio, &mut samples) => {
                    if !more {
                        return Ok(Ended::NoAudio);
                    }
                    last = Instant::now();
                    due = last + HASTE;
                }
                () = sleep_until(last + QUIET) => {
                    self.send_rest(&mut samples).await?;
                    return Ok(Ended::NoAudio);
                }
            }
        }
        Ok(Ended::TooLong)
    }

    /// From 14/15 of the limit on whenever nobody speaks, at the latest at the limit. What was heard again counts
    /// as audio, so the audio can be longer than the time.
    fn is_long_enough(&self) -> bool {
        let limit = self.google.stream_limit;
        let age = self.opened.elapsed().max(self.audio.taken());
        age >= limit || !self.speech && age >= limit * 14 / 15
    }

    /// Sends what is less than a piece.
    async fn send_rest(&mut self, samples: &mut Vec<i16>) -> Result<(), SpeechError> {
        let waiting = self.audio.waiting();
        if waiting >= PIECE {
            return Err(broken("it takes no more audio"));
        }
        if let Some(requests) = &self.requests
            && !waiting.is_zero()
            && self.audio.read(Duration::ZERO, PIECE, samples).await
        {
            let piece = request::piece(samples, self.audio.format());
            let sent = requests.try_send(piece);
            sent.map_err(|_| broken("it takes no more audio"))?;
        }
        Ok(())
    }

    async fn hear(&mut self, reply: StreamingRecognizeResponse, transcripts: &mut Transcripts) {
        let heard = reply::read(reply, &self.audio, self.settled);
        if let Some(settled) = heard.settled {
            self.settle(settled, transcripts).await;
        }
        if let Some(interim) = heard.interim {
            self.speech = true;
            transcripts.tell(interim).await;
        }
    }

    async fn settle(&mut self, settled: Settled, transcripts: &mut Transcripts) {
        let Settled { transcript, until } = settled;
        self.settled = until;
        self.speech = false;
        transcripts.tell(transcript).await;
        transcripts.settle(until);
    }

    /// Has the latest audio heard again, although nothing told of speech in it.
    fn doubt(&self, transcripts: &Transcripts) {
        let sent = self.audio.on_call(self.audio.taken());
        let from = sent.saturating_sub(UNNOTICED);
        if !self.speech && from > self.settled {
            transcripts.settle(from);
        }
        transcripts.expect(sent);
    }

    /// Ends the stream where nothing follows, and tells its last results.
    pub(super) async fn finish(mut self, transcripts: &mut Transcripts) -> Result<(), SpeechError> {
        self.requests = None;
        let deadline = Instant::now() + LAST_RESULTS;
        loop {
            match timeout_at(deadline, self.replies.next()).await {
                Ok(Some(Ok(reply))) => self.hear(reply, transcripts).await,
                Ok(Some(Err(status))) => return Err(error(&status)),
                Ok(None) => return Ok(()),
                Err(_) => return Err(broken("its last results do not come")),
            }
        }
    }

    /// Ends the stream in the middle of the call, and tells of its last results what the next one need not hear
    /// again.
    pub(super) async fn hand_over(mut self, transcripts: &mut Transcripts) -> Audio {
        self.requests = None;
        let sent = self.audio.on_call(self.audio.taken());
        let deadline = Instant::now() + LAST_RESULTS;
        let mut cut = false;
        // Trouble does no harm here: what has no final result is heard again.
        while let Ok(Some(Ok(reply))) = timeout_at(deadline, self.replies.next()).await {
            let heard = reply::read(reply, &self.audio, self.settled);
            let Some(settled) = heard.settled.filter(|_| !cut) else {
                continue;
            };
            let end = settled.transcript.end;
            let kept = ending::whole(settled, self.settled, sent);
            cut = kept.as_ref().is_none_or(|it| it.transcript.end < end);
            if let Some(kept) = kept {
                self.settle(kept, transcripts).await;
            }
        }
        if cut {
            // There is speech behind that.
            transcripts.expect(sent);
        }
        tracing::debug!(at = ?sent, again = ?transcripts.settled(), "the next stream");
        self.audio
    }

    pub(super) fn into_audio(self) -> Audio {
        self.audio
    }

    fn ended(&self, status: &Status) -> Result<Ended, SpeechError> {
        let harmless = match status.code() {
            // Its limits. The next stream goes on where this one has no final result.
            _ if status.message().contains(TOO_LONG) => false,
            Code::Aborted | Code::OutOfRange => self.audio.taken() >= GOOD,
            Code::InvalidArgument if status.message().contains("does not support feature") => {
                self.google.features.reduce()
            }
            _ => false,
        };
        match harmless {
            true => Ok(Ended::ByService),
            false => Err(error(status)),
        }
    }
}

/// Sends a piece when it may go, can go and is there; false where no more will come, none if nobody takes it.
/// Cancel safe.
async fn next_piece(
    requests: &Option<Sender<StreamingRecognizeRequest>>,
    due: Instant,
    audio: &mut Audio,
    samples: &mut Vec<i16>,
) -> Option<bool> {
    sleep_until(due).await;
    let room = requests.as_ref()?.reserve().await.ok()?;
    let more = audio.read(PIECE, PIECE, samples).await;
    if more {
        room.send(request::piece(samples, audio.format()));
        samples.clear();
    }
    Some(more)
}

/// Whether a connection had been dead for a while when it was found out.
fn died_unnoticed(status: &Status) -> bool {
    let mut error: Option<&(dyn Error + 'static)> = Some(status);
    while let Some(it) = error {
        if it.to_string().contains("timed out") {
            return true;
        }
        error = it.source();
    }
    false
}

fn error(status: &Status) -> SpeechError {
    let reason = match status.message() {
        "" => status.code().description().into(),
        message => message.into(),
    };
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented => SpeechError::Refused {
            service: SERVICE,
            reason,
        },
        Code::ResourceExhausted | Code::Unavailable => SpeechError::Unavailable {
            service: SERVICE,
            reason,
        },
        _ => broken(reason),
    }
}

fn broken(reason: impl Into<String>) -> SpeechError {
    SpeechError::Broken {
        service: SERVICE,
        reason: reason.into(),
    }
}
