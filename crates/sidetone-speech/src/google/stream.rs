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
    access::SharedChannel,
    handover,
    http_status::GrpcOnly,
    reply::{self, FinalResult},
    request,
};
use crate::{Audio, SpeechError, Transcripts};

/// The audio in one request, as long as Google advises. At 48 kHz it is 9600 bytes of the 15 kB
/// allowed.
const CHUNK: Duration = Duration::from_millis(100);
/// The least time between two requests: twice the speed of speech.
const MIN_SEND_INTERVAL: Duration = Duration::from_millis(50);
/// Requests that wait for the connection.
const REQUEST_QUEUE: usize = 4;
/// Without audio for this long the stream is closed. The service would do it after 10 s, with an
/// error.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a stream's last results may take.
const LAST_RESULTS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may have been dead before that is detected.
const MAX_DEAD_TIME: Duration = Duration::from_secs(15);
/// A stream that took this much audio was healthy, however it ended.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// The longest reply accepted, in bytes. It would hold the words of a quarter of an hour with their
/// times.
const MAX_REPLY_LEN: usize = 256 * 1024;
/// What tonic reports for a longer one.
const TOO_LONG_MESSAGE: &str = "message length too large";

/// One call of `StreamingRecognize`.
pub(super) struct Stream<'a> {
    google: &'a Google,
    audio: Audio,
    requests: Option<Sender<StreamingRecognizeRequest>>,
    replies: BoxStream<'static, Result<StreamingRecognizeResponse, Status>>,
    opened: Instant,
    /// Where the last final result ended.
    final_end: Duration,
    /// Whether an interim result came after that.
    has_interim: bool,
    /// Counts this stream among the connection's.
    _channel: Arc<SharedChannel>,
}

/// Why a stream takes no more audio.
pub(super) enum Ended {
    /// The call is over, or brings no audio for a while.
    NoAudio,
    /// It is near its time limit.
    TooLong,
    /// The service ended it without an error of this side.
    ByService,
}

impl<'a> Stream<'a> {
    pub(super) async fn open(google: &'a Google, audio: Audio) -> Result<Self, SpeechError> {
        let settings = &google.request;
        let caller = google.access.caller(settings.project.as_ref()).await?;
        let channel = google.access.channel(&settings.region)?;
        let name = settings.name(&caller.project);

        let (requests, mut waiting) = mpsc::channel(REQUEST_QUEUE);
        let first = settings.first(name.clone(), audio.format(), google.features.load());
        // The queue is empty.
        let _ = requests.try_send(first);
        let mut request = Request::new(stream::poll_fn(move |context| waiting.poll_recv(context)));
        caller.sign(&name, request.metadata_mut())?;
        let client = SpeechClient::new(GrpcOnly(channel.0.clone()));
        let mut client = client.max_decoding_message_size(MAX_REPLY_LEN);
        // The service may send nothing, not even headers, before it got audio.
        let replies = async move { Ok(client.streaming_recognize(request).await?.into_inner()) };
        Ok(Self {
            google,
            final_end: audio.call_time(Duration::ZERO),
            audio,
            requests: Some(requests),
            replies: replies.try_flatten_stream().boxed(),
            opened: Instant::now(),
            has_interim: false,
            _channel: channel,
        })
    }

    /// Sends audio and handles replies until the stream has to end.
    pub(super) async fn run(
        &mut self,
        transcripts: &mut Transcripts,
    ) -> Result<Ended, SpeechError> {
        let mut samples = Vec::new();
        let mut last = Instant::now();
        let mut due = last;
        while !self.should_hand_over() {
            select! {
                biased;
                reply = self.replies.next() => match reply {
                    Some(Ok(reply)) => self.handle_response(reply, transcripts).await,
                    Some(Err(status)) => {
                        if is_timeout(&status) {
                            self.replay_recent(transcripts);
                        }
                        return self.ended(&status);
                    }
                    None => return self.ended(&Status::aborted("it ended the stream without a result")),
                },
                Some(more) = send_next_chunk(&self.requests, due, &mut self.audio, &mut samples) => {
                    if !more {
                        return Ok(Ended::NoAudio);
                    }
                    last = Instant::now();
                    due = last + MIN_SEND_INTERVAL;
                }
                () = sleep_until(last + IDLE_TIMEOUT) => {
                    self.send_rest(&mut samples).await?;
                    return Ok(Ended::NoAudio);
                }
            }
        }
        Ok(Ended::TooLong)
    }

    /// True from 14/15 of the limit on in a pause, and at the limit in any case. Replayed audio
    /// counts, so the audio may be longer than the time.
    fn should_hand_over(&self) -> bool {
        let limit = self.google.stream_limit;
        let age = self.opened.elapsed().max(self.audio.delivered());
        age >= limit || !self.has_interim && age >= limit * 14 / 15
    }

    /// Sends what is less than a chunk.
    async fn send_rest(&mut self, samples: &mut Vec<i16>) -> Result<(), SpeechError> {
        let waiting = self.audio.available();
        if waiting >= CHUNK {
            return Err(broken("it takes no more audio"));
        }
        if let Some(requests) = &self.requests
            && !waiting.is_zero()
            && self.audio.read(Duration::ZERO, CHUNK, samples).await
        {
            let request = request::audio(samples, self.audio.format());
            let sent = requests.try_send(request);
            sent.map_err(|_| broken("it takes no more audio"))?;
        }
        Ok(())
    }

    async fn handle_response(
        &mut self,
        reply: StreamingRecognizeResponse,
        transcripts: &mut Transcripts,
    ) {
        let results = reply::read(reply, &self.audio, self.final_end);
        if let Some(final_result) = results.final_result {
            self.send_final(final_result, transcripts).await;
        }
        if let Some(interim) = results.interim {
            self.has_interim = true;
            transcripts.send(interim).await;
        }
    }

    async fn send_final(&mut self, final_result: FinalResult, transcripts: &mut Transcripts) {
        let FinalResult { transcript, until } = final_result;
        self.final_end = until;
        self.has_interim = false;
        transcripts.send(transcript).await;
        transcripts.ack(until);
    }

    /// Has the latest audio replayed, even if no interim result showed speech in it.
    fn replay_recent(&self, transcripts: &Transcripts) {
        let sent = self.audio.call_time(self.audio.delivered());
        let from = sent.saturating_sub(MAX_DEAD_TIME);
        if !self.has_interim && from > self.final_end {
            transcripts.ack(from);
        }
        transcripts.mark_pending(sent);
    }

    /// Ends the stream at the end of the audio, and sends its last results.
    pub(super) async fn finish(mut self, transcripts: &mut Transcripts) -> Result<(), SpeechError> {
        self.requests = None;
        let deadline = Instant::now() + LAST_RESULTS_TIMEOUT;
        loop {
            match timeout_at(deadline, self.replies.next()).await {
                Ok(Some(Ok(reply))) => self.handle_response(reply, transcripts).await,
                Ok(Some(Err(status))) => return Err(error(&status)),
                Ok(None) => return Ok(()),
                Err(_) => return Err(broken("its last results did not come")),
            }
        }
    }

    /// Ends the stream in the middle of the audio, and sends those of its last results that the
    /// next stream need not replay.
    pub(super) async fn hand_over(mut self, transcripts: &mut Transcripts) -> Audio {
        self.requests = None;
        let sent = self.audio.call_time(self.audio.delivered());
        let deadline = Instant::now() + LAST_RESULTS_TIMEOUT;
        let mut left_words = false;
        // Errors do no harm here: what has no final result is replayed.
        while let Ok(Some(Ok(reply))) = timeout_at(deadline, self.replies.next()).await {
            let results = reply::read(reply, &self.audio, self.final_end);
            let Some(final_result) = results.final_result.filter(|_| !left_words) else {
                continue;
            };
            let end = final_result.transcript.end;
            let kept = handover::whole_words(final_result, self.final_end, sent);
            left_words = kept.as_ref().is_none_or(|it| it.transcript.end < end);
            if let Some(kept) = kept {
                self.send_final(kept, transcripts).await;
            }
        }
        if left_words {
            // The words left out are still to come.
            transcripts.mark_pending(sent);
        }
        tracing::debug!(at = ?sent, from = ?transcripts.acked(), "opening the next stream");
        self.audio
    }

    pub(super) fn into_audio(self) -> Audio {
        self.audio
    }

    fn ended(&self, status: &Status) -> Result<Ended, SpeechError> {
        let harmless = match status.code() {
            // The service's limits. The next stream replays what has no final result.
            _ if status.message().contains(TOO_LONG_MESSAGE) => false,
            Code::Aborted | Code::OutOfRange => self.audio.delivered() >= HEALTHY_AFTER,
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

/// Sends a chunk once it is due, can be sent and is available. Returns false at the end of the
/// audio, and `None` if the service takes no more. Cancellation safe.
async fn send_next_chunk(
    requests: &Option<Sender<StreamingRecognizeRequest>>,
    due: Instant,
    audio: &mut Audio,
    samples: &mut Vec<i16>,
) -> Option<bool> {
    sleep_until(due).await;
    let permit = requests.as_ref()?.reserve().await.ok()?;
    let more = audio.read(CHUNK, CHUNK, samples).await;
    if more {
        permit.send(request::audio(samples, audio.format()));
        samples.clear();
    }
    Some(more)
}

/// Whether the connection had been dead for a while before that was detected.
fn is_timeout(status: &Status) -> bool {
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
