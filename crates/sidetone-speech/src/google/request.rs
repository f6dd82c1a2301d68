use std::sync::atomic::{AtomicU8, Ordering};

use googleapis_tonic_google_cloud_speech_v2::google::cloud::speech::v2::{
    ExplicitDecodingConfig, PhraseSet, RecognitionConfig, RecognitionFeatures, SpeechAdaptation,
    StreamingRecognitionConfig, StreamingRecognitionFeatures, StreamingRecognizeRequest,
    explicit_decoding_config::AudioEncoding,
    phrase_set::Phrase,
    recognition_config::DecodingConfig,
    speech_adaptation::{AdaptationPhraseSet, adaptation_phrase_set},
    streaming_recognize_request::StreamingRequest,
};

use crate::{Format, Law};

/// The settings of requests.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) project: Option<String>,
    pub(super) region: String,
    pub(super) recognizer: String,
    pub(super) model: Option<String>,
    pub(super) languages: Vec<String>,
    pub(super) phrases: Vec<String>,
}

impl Settings {
    /// The recognizer's resource name.
    pub(super) fn name(&self, project: &str) -> String {
        let (region, id) = (&self.region, &self.recognizer);
        format!("projects/{project}/locations/{region}/recognizers/{id}")
    }

    /// The first request of a stream, with the whole configuration.
    pub(super) fn first(
        &self,
        name: String,
        format: Format,
        features: RecognitionFeatures,
    ) -> StreamingRecognizeRequest {
        let config = StreamingRecognitionConfig {
            config: Some(RecognitionConfig {
                model: self.model(format),
                language_codes: self.languages.clone(),
                features: Some(features),
                adaptation: self.adaptation(),
                decoding_config: Some(DecodingConfig::ExplicitDecodingConfig(
                    ExplicitDecodingConfig {
                        encoding: encoding(format).into(),
                        sample_rate_hertz: format.hz as i32,
                        audio_channel_count: 1,
                    },
                )),
                ..Default::default()
            }),
            streaming_features: Some(StreamingRecognitionFeatures {
                // Interim results also show that somebody speaks, so that no word is split between
                // streams.
                interim_results: true,
                ..Default::default()
            }),
            config_mask: None,
        };
        StreamingRecognizeRequest {
            recognizer: name,
            streaming_request: Some(StreamingRequest::StreamingConfig(config)),
        }
    }

    fn model(&self, format: Format) -> String {
        match &self.model {
            Some(model) => model.clone(),
            None if self.recognizer != "_" => String::new(),
            None if format.hz <= 8000 => "telephony".into(),
            None => "long".into(),
        }
    }

    fn adaptation(&self) -> Option<SpeechAdaptation> {
        let phrase = |value: &String| Phrase {
            value: value.clone(),
            boost: 0.0,
        };
        let set = PhraseSet {
            phrases: self.phrases.iter().map(phrase).collect(),
            ..Default::default()
        };
        (!self.phrases.is_empty()).then(|| SpeechAdaptation {
            phrase_sets: vec![AdaptationPhraseSet {
                value: Some(adaptation_phrase_set::Value::InlinePhraseSet(set)),
            }],
            ..Default::default()
        })
    }
}

/// The optional features to request. Not every model has all of them, and one that lacks a feature
/// refuses the whole request. Only the service knows which.
#[derive(Debug, Default)]
pub(super) struct Features {
    /// How often the service refused them.
    reduced: AtomicU8,
}

impl Features {
    pub(super) fn load(&self) -> RecognitionFeatures {
        let reduced = self.reduced.load(Ordering::Relaxed);
        RecognitionFeatures {
            enable_word_time_offsets: reduced < 2,
            enable_word_confidence: reduced < 1,
            enable_automatic_punctuation: reduced < 1,
            ..Default::default()
        }
    }

    /// Requests fewer features from now on. Returns false if none are left to drop.
    pub(super) fn reduce(&self) -> bool {
        self.reduced.fetch_add(1, Ordering::Relaxed) < 2
    }
}

fn encoding(format: Format) -> AudioEncoding {
    match format.law {
        None => AudioEncoding::Linear16,
        Some(Law::Ulaw) => AudioEncoding::Mulaw,
        Some(Law::Alaw) => AudioEncoding::Alaw,
    }
}

/// A request with audio. G.711 audio is sent unchanged.
pub(super) fn audio(samples: &[i16], format: Format) -> StreamingRecognizeRequest {
    let audio = match format.law {
        None => samples.iter().flat_map(|it| it.to_le_bytes()).collect(),
        Some(law) => {
            let mut codes = Vec::with_capacity(samples.len());
            law.encode(samples, &mut codes);
            codes
        }
    };
    StreamingRecognizeRequest {
        recognizer: String::new(),
        streaming_request: Some(StreamingRequest::Audio(audio)),
    }
}
