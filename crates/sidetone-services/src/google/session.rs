use std::{sync::Arc, time::Duration};

use audio_codec_algorithms::{decode_alaw, decode_ulaw};
use googleapis_tonic_google_cloud_speech_v2::google::cloud::speech::v2::{
    RecognitionConfig, SpeechRecognitionAlternative, StreamingRecognitionConfig,
    StreamingRecognitionResult, StreamingRecognizeRequest, StreamingRecognizeResponse, WordInfo,
    explicit_decoding_config::AudioEncoding, recognition_config::DecodingConfig,
    speech_adaptation::adaptation_phrase_set, streaming_recognize_request::StreamingRequest,
};
use tokio::{
    select,
    sync::mpsc::UnboundedSender,
    time::{Instant, sleep_until},
};
use tonic::{Request, Status, Streaming, metadata::MetadataMap};

use super::{Call, Rules, State};
use crate::{Recognized, ToneDecoder, Word, text};

/// A reply, and when it is due.
pub(super) type Reply = (Instant, Result<StreamingRecognizeResponse, Status>);

/// One stream, from the service's side.
pub(super) struct Session {
    state: Arc<State>,
    replies: UnboundedSender<Reply>,
    /// The index of its call.
    index: usize,
}

/// What the first request sets.
struct Config {
    encoding: AudioEncoding,
    hz: u32,
    interim: bool,
    offsets: bool,
    confidence: bool,
    language: String,
}

impl Session {
    pub(super) fn new(state: Arc<State>, replies: UnboundedSender<Reply>) -> Self {
        let mut calls = state.calls.lock();
        calls.push(Call::default());
        let index = calls.len() - 1;
        drop(calls);
        Self {
            state,
            replies,
            index,
        }
    }

    pub(super) async fn run(self, request: Request<Streaming<StreamingRecognizeRequest>>) {
        let refusal = select! {
            done = self.handle_requests(request) => done.err(),
            () = self.replies.closed() => Some(Status::cancelled("the client went away")),
        };
        self.note(|call| {
            call.ended = true;
            call.refusal = refusal.as_ref().map(|it| it.message().into());
        });
        if let Some(status) = refusal {
            let _ = self.replies.send((Instant::now(), Err(status)));
        }
    }

    async fn handle_requests(
        &self,
        request: Request<Streaming<StreamingRecognizeRequest>>,
    ) -> Result<(), Status> {
        let opened = Instant::now();
        authenticate(request.metadata(), &self.rules())?;
        let mut requests = request.into_inner();
        let config = self.configure(self.next(&mut requests, opened).await?)?;
        let mut decoder = ToneDecoder::new(config.hz);
        // How much audio may come now.
        let mut allowance = self.rules().max_burst;
        let mut last = opened;
        while let Some(request) = self.next(&mut requests, opened).await? {
            let audio = audio(request)?;
            let rules = self.rules();
            if audio.len() > rules.max_request_len {
                return Err(Status::invalid_argument(format!(
                    "Audio chunk can be of a maximum of {} bytes. Received audio of {} bytes instead.",
                    rules.max_request_len,
                    audio.len()
                )));
            }
            self.note(|call| call.audio.extend(&audio));
            let samples = decode(&audio, config.encoding)?;
            let length = Duration::from_secs_f64(samples.len() as f64 / f64::from(config.hz));
            allowance += last.elapsed().mul_f64(rules.speed);
            last = Instant::now();
            // Audio slower than speech earns no credit for faster audio later.
            allowance = allowance.min(rules.max_burst).checked_sub(length).ok_or_else(|| {
                Status::out_of_range(
                    "Audio data is being streamed too fast. Please stream audio data approximately at \
                     real time.",
                )
            })?;
            let results = decoder.push(&samples);
            if decoder.position() > rules.max_stream {
                return Err(too_long());
            }
            for result in results {
                self.send_result(result, &config, decoder.position());
            }
        }
        if let Some(words) = decoder.finish() {
            self.send_result(Recognized::Final(words), &config, decoder.position());
        }
        Ok(())
    }

    /// Waits for the next request. Returns `None` when the client has ended the stream.
    async fn next(
        &self,
        requests: &mut Streaming<StreamingRecognizeRequest>,
        opened: Instant,
    ) -> Result<Option<StreamingRecognizeRequest>, Status> {
        let rules = self.rules();
        select! {
            biased;
            request = requests.message() => request,
            () = sleep_until(opened + rules.max_stream) => Err(too_long()),
            () = sleep_until(Instant::now() + rules.max_pause) => Err(Status::aborted(
                "Stream timed out after receiving no more client requests.",
            )),
        }
    }

    fn configure(&self, first: Option<StreamingRecognizeRequest>) -> Result<Config, Status> {
        let invalid = |message: &str| Status::invalid_argument(message);
        let rules = self.rules();
        let Some(StreamingRecognizeRequest {
            recognizer,
            streaming_request: Some(StreamingRequest::StreamingConfig(streaming)),
        }) = first
        else {
            return Err(invalid(
                "The first request must have a recognizer and a streaming_config.",
            ));
        };
        self.note(|call| call.recognizer.clone_from(&recognizer));
        find(&recognizer, &rules)?;
        let implicit = recognizer.ends_with("/_");
        let StreamingRecognitionConfig {
            config: Some(config),
            streaming_features,
            ..
        } = streaming
        else {
            return Err(invalid("Config is missing."));
        };
        if implicit && !(1..=3).contains(&config.language_codes.len()) {
            return Err(invalid("One to three language codes are needed."));
        }
        if implicit && config.model.is_empty() {
            return Err(invalid("A model is needed."));
        }
        if !config.model.is_empty() && !rules.models.contains(&config.model) {
            let (model, location) = (&config.model, &rules.location);
            return Err(invalid(&format!(
                "The model \"{model}\" does not exist in the location named \"{location}\"."
            )));
        }
        let features = config.features.clone().unwrap_or_default();
        if features.enable_word_confidence && !rules.word_confidence {
            return Err(invalid(
                "Recognizer does not support feature: word_level_confidence",
            ));
        }
        let (encoding, hz) = decoding(&config)?;
        let mut calls = self.state.calls.lock();
        if calls.iter().filter(|it| !it.ended).count() > rules.streams {
            return Err(Status::resource_exhausted(
                "Quota exceeded for quota metric 'Concurrent streaming sessions' of service \
                 'speech.googleapis.com'.",
            ));
        }
        let call = &mut calls[self.index];
        call.encoding = encoding.as_str_name().into();
        call.hz = hz;
        call.phrases = phrases(&config);
        call.model = config.model;
        Ok(Config {
            encoding,
            hz,
            interim: streaming_features.is_some_and(|it| it.interim_results),
            offsets: features.enable_word_time_offsets,
            confidence: features.enable_word_confidence,
            language: config.language_codes.first().cloned().unwrap_or_default(),
        })
    }

    fn send_result(&self, result: Recognized, config: &Config, until: Duration) {
        let rules = self.rules();
        let (words, is_final) = match result {
            Recognized::Interim(words) => (words, false),
            Recognized::Final(words) => (words, true),
        };
        if !is_final && !config.interim {
            return;
        }
        let transcript = text(&words) + &"x".repeat(rules.padding);
        let time = |time: Duration| {
            let step = rules.precision.as_nanos() as u64;
            let steps = (time.as_nanos() as u64 + step / 2) / step;
            Duration::from_nanos(steps * step).try_into().ok()
        };
        let word = |word: Word| WordInfo {
            start_offset: time(word.start).filter(|_| config.offsets),
            end_offset: time(word.end).filter(|_| config.offsets),
            confidence: if config.confidence { 0.9 } else { 0.0 },
            word: word.text,
            speaker_label: String::new(),
        };
        // Interim results have no words with times.
        let words = words.into_iter().filter(|_| is_final).map(word).collect();
        let result = StreamingRecognitionResult {
            alternatives: vec![SpeechRecognitionAlternative {
                transcript,
                confidence: if is_final { 0.95 } else { 0.0 },
                words,
            }],
            is_final,
            stability: if is_final { 0.0 } else { 0.8 },
            result_end_offset: until.try_into().ok(),
            channel_tag: 0,
            language_code: config.language.to_lowercase(),
        };
        let reply = StreamingRecognizeResponse {
            results: vec![result],
            ..Default::default()
        };
        let _ = self.replies.send((Instant::now() + rules.delay, Ok(reply)));
    }

    fn rules(&self) -> Rules {
        self.state.rules.lock().clone()
    }

    fn note(&self, note: impl FnOnce(&mut Call)) {
        note(&mut self.state.calls.lock()[self.index]);
    }
}

fn too_long() -> Status {
    Status::aborted("Max duration of 5 minutes reached for stream.")
}

fn authenticate(metadata: &MetadataMap, rules: &Rules) -> Result<(), Status> {
    let Some(token) = &rules.token else {
        return Ok(());
    };
    let authorization = metadata
        .get("authorization")
        .and_then(|it| it.to_str().ok());
    match authorization.is_some_and(|it| it == format!("Bearer {token}")) {
        true => Ok(()),
        false => Err(Status::unauthenticated(
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or \
             other valid authentication credential.",
        )),
    }
}

fn find(name: &str, rules: &Rules) -> Result<(), Status> {
    let parts: Vec<&str> = name.split('/').collect();
    let [
        "projects",
        project,
        "locations",
        location,
        "recognizers",
        id,
    ] = parts[..]
    else {
        return Err(Status::invalid_argument(format!(
            "Invalid resource field value in the request: {name}"
        )));
    };
    if project != rules.project {
        return Err(Status::permission_denied(format!(
            "Permission 'speech.recognizers.recognize' denied on resource (or it may not exist): {name}"
        )));
    }
    if location != rules.location {
        return Err(Status::invalid_argument(format!(
            "Expected resource location to be {}, but found {location} in resource name.",
            rules.location
        )));
    }
    if id != "_" && !rules.recognizers.iter().any(|it| it == id) {
        return Err(Status::not_found(format!(
            "Unable to find Recognizer {name}"
        )));
    }
    Ok(())
}

fn decoding(config: &RecognitionConfig) -> Result<(AudioEncoding, u32), Status> {
    let Some(DecodingConfig::ExplicitDecodingConfig(decoding)) = &config.decoding_config else {
        return Err(Status::invalid_argument(
            "The audio has no header to find its encoding in.",
        ));
    };
    let known = [
        AudioEncoding::Linear16,
        AudioEncoding::Mulaw,
        AudioEncoding::Alaw,
    ];
    let hz = decoding.sample_rate_hertz;
    if !known.contains(&decoding.encoding())
        || !(8000..=48_000).contains(&hz)
        || decoding.audio_channel_count != 1
    {
        return Err(Status::invalid_argument(format!(
            "Invalid decoding config: {decoding:?}"
        )));
    }
    Ok((decoding.encoding(), hz as u32))
}

fn phrases(config: &RecognitionConfig) -> Vec<String> {
    let sets = config.adaptation.iter().flat_map(|it| &it.phrase_sets);
    let inline = sets.filter_map(|it| match &it.value {
        Some(adaptation_phrase_set::Value::InlinePhraseSet(set)) => Some(set),
        _ => None,
    });
    inline
        .flat_map(|it| &it.phrases)
        .map(|it| it.value.clone())
        .collect()
}

fn audio(request: StreamingRecognizeRequest) -> Result<Vec<u8>, Status> {
    match request {
        StreamingRecognizeRequest {
            recognizer,
            streaming_request: Some(StreamingRequest::Audio(audio)),
        } if recognizer.is_empty() => Ok(audio),
        _ => Err(Status::invalid_argument(
            "All but the first request must have audio only.",
        )),
    }
}

fn decode(audio: &[u8], encoding: AudioEncoding) -> Result<Vec<i16>, Status> {
    let mut samples = Vec::new();
    match encoding {
        AudioEncoding::Mulaw => samples.extend(audio.iter().map(|it| decode_ulaw(*it))),
        AudioEncoding::Alaw => samples.extend(audio.iter().map(|it| decode_alaw(*it))),
        _ if !audio.len().is_multiple_of(2) => {
            return Err(Status::invalid_argument(
                "Half a sample at the end of the audio.",
            ));
        }
        _ => samples.extend(
            audio
                .chunks_exact(2)
                .map(|it| i16::from_le_bytes([it[0], it[1]])),
        ),
    }
    Ok(samples)
}
