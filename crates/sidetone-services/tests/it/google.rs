//! The stand-in's refusals, tested with a client that sends anything.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::stream;
use googleapis_tonic_google_cloud_speech_v2::google::cloud::speech::v2::{
    ExplicitDecodingConfig, RecognitionConfig, StreamingRecognitionConfig,
    StreamingRecognizeRequest, explicit_decoding_config::AudioEncoding,
    recognition_config::DecodingConfig, speech_client::SpeechClient,
    streaming_recognize_request::StreamingRequest,
};
use sidetone_services::{
    google::{Rules, Service},
    synthesize,
};
use tokio::time::sleep;
use tonic::{Code, Status};

fn config() -> StreamingRecognizeRequest {
    let config = RecognitionConfig {
        model: "telephony".into(),
        language_codes: vec!["en-US".into()],
        decoding_config: Some(DecodingConfig::ExplicitDecodingConfig(
            ExplicitDecodingConfig {
                encoding: AudioEncoding::Linear16.into(),
                sample_rate_hertz: 8000,
                audio_channel_count: 1,
            },
        )),
        ..Default::default()
    };
    StreamingRecognizeRequest {
        recognizer: "projects/test/locations/global/recognizers/_".into(),
        streaming_request: Some(StreamingRequest::StreamingConfig(
            StreamingRecognitionConfig {
                config: Some(config),
                ..Default::default()
            },
        )),
    }
}

fn changed(change: impl FnOnce(&mut RecognitionConfig)) -> StreamingRecognizeRequest {
    let mut request = config();
    if let Some(StreamingRequest::StreamingConfig(streaming)) = &mut request.streaming_request {
        change(streaming.config.as_mut().unwrap());
    }
    request
}

fn audio(samples: &[i16]) -> StreamingRecognizeRequest {
    StreamingRecognizeRequest {
        recognizer: String::new(),
        streaming_request: Some(StreamingRequest::Audio(
            samples.iter().flat_map(|it| it.to_le_bytes()).collect(),
        )),
    }
}

type Requests = Vec<(Duration, StreamingRecognizeRequest)>;

/// Sends these requests, each after a pause, and returns the final transcripts or the refusal.
async fn recognize(rules: Rules, requests: Requests) -> Result<Vec<String>, Status> {
    let service = Service::new(rules);
    let requests = stream::unfold(requests.into_iter(), |mut requests| async {
        let (pause, request) = requests.next()?;
        sleep(pause).await;
        Some((request, requests))
    });
    let mut client = SpeechClient::new(service.channel());
    let mut replies = client.streaming_recognize(requests).await?.into_inner();
    let mut finals = Vec::new();
    while let Some(reply) = replies.message().await? {
        let results = reply.results.into_iter().filter(|it| it.is_final);
        finals.extend(results.map(|it| it.alternatives[0].transcript.clone()));
    }
    Ok(finals)
}

async fn refusal(requests: Requests) -> (Code, String) {
    let status = recognize(Rules::default(), requests).await.unwrap_err();
    (status.code(), status.message().into())
}

fn at_once(request: StreamingRecognizeRequest) -> (Duration, StreamingRecognizeRequest) {
    (Duration::ZERO, request)
}

/// The configuration, and the samples in chunks of this length at this multiple of their speed.
fn paced(samples: &[i16], chunk: usize, speed: f64) -> Requests {
    let pause = Duration::from_secs_f64(chunk as f64 / 8000.0 / speed);
    let chunks = samples.chunks(chunk).map(|it| (pause, audio(it)));
    [at_once(config())].into_iter().chain(chunks).collect()
}

#[tokio::test(start_paused = true)]
async fn words_in_real_time_are_recognized() {
    let samples = synthesize(&["hello", "world"], 8000);
    let finals = recognize(Rules::default(), paced(&samples, 800, 1.0)).await;
    assert_eq!(finals.unwrap(), ["hello world"]);
}

#[tokio::test(start_paused = true)]
async fn the_configuration_has_to_come_first_and_once() {
    for requests in [
        vec![at_once(audio(&[0; 800]))],
        vec![at_once(config()), at_once(config())],
        vec![],
    ] {
        assert_eq!(refusal(requests).await.0, Code::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_resources_are_refused() {
    let named = |name: &str| {
        let mut request = config();
        request.recognizer = name.into();
        request
    };
    let of_project = |project: &str, location: &str, id: &str| {
        named(&format!(
            "projects/{project}/locations/{location}/recognizers/{id}"
        ))
    };
    for (request, code) in [
        (named("_"), Code::InvalidArgument),
        (of_project("other", "global", "_"), Code::PermissionDenied),
        (of_project("test", "eu", "_"), Code::InvalidArgument),
        (of_project("test", "global", "mine"), Code::NotFound),
        (
            changed(|it| it.model = "nonsense".into()),
            Code::InvalidArgument,
        ),
        (
            changed(|it| it.language_codes.clear()),
            Code::InvalidArgument,
        ),
        (
            changed(|it| it.decoding_config = None),
            Code::InvalidArgument,
        ),
    ] {
        let (found, message) = refusal(vec![at_once(request)]).await;
        assert_eq!(found, code, "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn too_much_audio_in_a_request_is_refused() {
    let requests = vec![at_once(config()), at_once(audio(&[0; 7501]))];
    let (code, message) = refusal(requests).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("15002 bytes"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn audio_much_faster_than_speech_is_refused() {
    let samples = vec![0; 8000 * 20];
    for (speed, is_accepted) in [(1.0, true), (2.0, true), (2.5, false), (100.0, false)] {
        let result = recognize(Rules::default(), paced(&samples, 800, speed)).await;
        let code = result.map_or_else(|it| it.code(), |_| Code::Ok);
        let expected = if is_accepted {
            Code::Ok
        } else {
            Code::OutOfRange
        };
        assert_eq!(code, expected, "{speed} times");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_after_ten_seconds_without_a_request() {
    let late = |seconds| {
        let audio = audio(&[0; 800]);
        vec![at_once(config()), (Duration::from_secs(seconds), audio)]
    };
    recognize(Rules::default(), late(9)).await.unwrap();
    let (code, message) = refusal(late(11)).await;
    assert_eq!(code, Code::Aborted);
    assert!(message.contains("no more client requests"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_after_five_minutes() {
    for (seconds, expected) in [(299, Code::Ok), (302, Code::Aborted)] {
        let samples = vec![0; 8000 * seconds];
        let result = recognize(Rules::default(), paced(&samples, 2400, 1.0)).await;
        let code = result.map_or_else(|it| it.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_the_token_is_refused() {
    let rules = Rules {
        token: Some("secret".into()),
        ..Rules::default()
    };
    let status = recognize(rules, vec![at_once(config())]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_is_refused() {
    let rules = Rules {
        streams: 0,
        ..Rules::default()
    };
    let status = recognize(rules, vec![at_once(config())]).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}
