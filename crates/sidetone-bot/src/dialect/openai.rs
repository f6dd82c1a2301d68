//! OpenAI's Realtime API: a voice model without any program in between.
//!
//! Protocol: OpenAI's "Realtime API" (general availability), WebSocket: JSON in text messages, audio in base64.

mod conversation;
mod message;
mod speeches;
mod template;
#[cfg(test)]
mod tests;
mod tools;

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderValue, header::AUTHORIZATION};
use serde_json::{Value, json};

use super::{AudioFormat, Conversation, Dialect, Encoding, Upgrade};
use crate::session::Session;
use tools::ToolSet;

/// The Realtime API, towards OpenAI or a service that speaks like it.
///
/// One setting is not here: the address, such as `wss://api.openai.com/v1/realtime`. The model is added to its query.
#[derive(Clone)]
pub struct OpenAi {
    key: Arc<str>,
    authorization: HeaderValue,
    model: String,
    voice: Option<String>,
    instructions: String,
    turn_detection: TurnDetection,
    interruption: Interruption,
    tools: ToolSet,
    transcription: Option<Transcription>,
    speaks_first: bool,
    answers_digits: bool,
}

/// What is wrong with a setting, and what it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingError(String);

/// How the service notices that the caller has finished a sentence. What is `None` is the service's choice.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum TurnDetection {
    /// By silence.
    Silence {
        /// How loud speech is, from 0 to 1. More is for lines with noise.
        threshold: Option<f64>,
        /// How much audio before the speech belongs to it.
        prefix_padding: Option<Duration>,
        /// How much silence is an end.
        silence: Option<Duration>,
        /// After this much silence the bot speaks again without having been spoken to.
        idle_timeout: Option<Duration>,
    },
    /// By what is said.
    Meaning {
        /// How soon the bot answers.
        eagerness: Option<Eagerness>,
    },
}

/// How soon a bot answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eagerness {
    /// It lets the caller think.
    Low,
    /// Between the others.
    Medium,
    /// As soon as it can.
    High,
}

/// What happens when the caller speaks while the bot does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interruption {
    /// The service stops its response by itself (`interrupt_response`), and what is queued is dropped.
    #[default]
    ByService,
    /// The service leaves that to its client: the response is cancelled from here, and what is queued is dropped.
    ByClient,
    /// The bot speaks on.
    Never,
}

#[derive(Clone, Debug)]
struct Transcription {
    model: String,
    language: Option<String>,
}

impl Default for TurnDetection {
    fn default() -> Self {
        Self::Silence {
            threshold: None,
            prefix_padding: None,
            silence: None,
            idle_timeout: None,
        }
    }
}

impl OpenAi {
    /// A bot of this model, such as `gpt-realtime`, paid for with this API key.
    ///
    /// # Errors
    ///
    /// The key can't be a header's value, or the model has no name.
    pub fn new(key: &str, model: &str) -> Result<Self, SettingError> {
        let key = key.trim();
        let mut authorization = HeaderValue::try_from(format!("Bearer {key}"))
            .ok()
            .filter(|_| !key.is_empty())
            .ok_or_else(|| {
                // Without the key: the text is logged.
                SettingError("the API key has to be one line of visible characters".into())
            })?;
        authorization.set_sensitive(true);
        if model.trim().is_empty() {
            let text =
                "the model has no name; write one that the service has, such as gpt-realtime";
            return Err(SettingError(text.into()));
        }
        Ok(Self {
            key: key.into(),
            authorization,
            model: model.trim().into(),
            voice: None,
            instructions: String::new(),
            turn_detection: TurnDetection::default(),
            interruption: Interruption::default(),
            tools: ToolSet::default(),
            transcription: None,
            speaks_first: false,
            answers_digits: false,
        })
    }

    /// The voice, by the service's name. The service chooses unless set.
    #[must_use]
    pub fn voice(mut self, voice: impl Into<String>) -> Self {
        self.voice = Some(voice.into());
        self
    }

    /// What the bot is told to be and to do. `{name}` stands for the value of that name in the call's data, as in
    /// `The caller's number is {from}.`
    ///
    /// Braces around anything else are left as they are, since the data differ from call to call, and instructions may hold
    /// braces of their own. Control characters in a value become spaces: it may come from the caller.
    #[must_use]
    pub fn instructions(mut self, template: impl Into<String>) -> Self {
        self.instructions = template.into();
        self
    }

    /// How the service notices that the caller has finished. By silence unless set.
    ///
    /// # Errors
    ///
    /// The threshold is not from 0 to 1.
    pub fn turn_detection(mut self, turn_detection: TurnDetection) -> Result<Self, SettingError> {
        if let TurnDetection::Silence {
            threshold: Some(threshold),
            ..
        } = turn_detection
            && !(0.0..=1.0).contains(&threshold)
        {
            let text =
                format!("the threshold of turn detection has to be from 0 to 1, not {threshold}");
            return Err(SettingError(text));
        }
        self.turn_detection = turn_detection;
        Ok(self)
    }

    /// What happens when the caller speaks while the bot does. The service interrupts the bot unless set.
    #[must_use]
    pub fn interruption(mut self, interruption: Interruption) -> Self {
        self.interruption = interruption;
        self
    }

    /// Declares functions that the bot can call, as a JSON array in the service's form:
    /// `[{"type": "function", "name": …, "description": …, "parameters": {JSON Schema}}]`.
    ///
    /// The [session's tools](Session::tools) carry them out.
    ///
    /// # Errors
    ///
    /// It is no such array, two functions have one name, or one has that of a built-in function: `hang_up` or `transfer`.
    pub fn tools(mut self, declarations: &str) -> Result<Self, SettingError> {
        self.tools.declare(declarations).map_err(SettingError)?;
        Ok(self)
    }

    /// Lets the bot hang up, with a function `hang_up`. What it has said by then is heard before the call ends.
    #[must_use]
    pub fn allow_hang_up(mut self) -> Self {
        self.tools.hang_up = true;
        self
    }

    /// Lets the bot transfer the caller, with a function `transfer` and its argument `to`. `destinations` tells it, in words, where
    /// to: `100 is sales, 200 is support`.
    ///
    /// The [session's tools](Session::tools) are called by the name `transfer`. When that succeeds, the bot's part of the call
    /// is over. They have to check `to`: a caller can talk a model into anything.
    #[must_use]
    pub fn allow_transfer(mut self, destinations: impl Into<String>) -> Self {
        self.tools.transfer = Some(destinations.into());
        self
    }

    /// Has what the caller says transcribed, too, by this model of the service, such as `gpt-4o-mini-transcribe`. A language is an
    /// ISO 639-1 code. Otherwise only what the bot says is reported in words.
    ///
    /// What the bot says is reported when the service has made it, all of it, even if the caller interrupts before hearing it.
    #[must_use]
    pub fn transcribe(mut self, model: impl Into<String>, language: Option<String>) -> Self {
        self.transcription = Some(Transcription {
            model: model.into(),
            language,
        });
        self
    }

    /// Whether the bot speaks first. It waits for the caller unless set.
    #[must_use]
    pub fn speaks_first(mut self, speaks_first: bool) -> Self {
        self.speaks_first = speaks_first;
        self
    }

    /// Whether a key that the caller presses interrupts the bot and is answered at once. Unless set the bot learns of it and says
    /// nothing until the caller speaks.
    #[must_use]
    pub fn answers_digits(mut self, answers_digits: bool) -> Self {
        self.answers_digits = answers_digits;
        self
    }

    /// The format of both directions.
    fn format(caller: AudioFormat) -> AudioFormat {
        match caller.encoding {
            Encoding::G711(_) => caller,
            Encoding::Linear16 if caller.hz <= 8_000 => AudioFormat::ULAW,
            Encoding::Linear16 => AudioFormat::linear(24_000),
        }
    }

    /// The object of `session.update`.
    fn session(&self, session: &Session, format: AudioFormat) -> Value {
        let format = message::format(format);
        let mut input = json!({"format": format, "turn_detection": self.turn_detection_object()});
        if let Some(transcription) = &self.transcription {
            input["transcription"] = json!({"model": transcription.model});
            if let Some(language) = &transcription.language {
                input["transcription"]["language"] = json!(language);
            }
        }
        let mut output = json!({"format": format});
        if let Some(voice) = &self.voice {
            output["voice"] = json!(voice);
        }
        let mut settings = json!({
            "type": "realtime",
            "output_modalities": ["audio"],
            "audio": {"input": input, "output": output},
        });
        if !self.instructions.is_empty() {
            settings["instructions"] = json!(template::fill(&self.instructions, session));
        }
        let tools = self.tools.declarations();
        if !tools.is_empty() {
            settings["tools"] = Value::Array(tools);
            settings["tool_choice"] = json!("auto");
        }
        settings
    }

    fn turn_detection_object(&self) -> Value {
        let mut object = match self.turn_detection {
            TurnDetection::Silence {
                threshold,
                prefix_padding,
                silence,
                idle_timeout,
            } => {
                let mut object = json!({"type": "server_vad"});
                if let Some(threshold) = threshold {
                    object["threshold"] = json!(threshold);
                }
                let times = [
                    ("prefix_padding_ms", prefix_padding),
                    ("silence_duration_ms", silence),
                    ("idle_timeout_ms", idle_timeout),
                ];
                for (name, time) in times {
                    if let Some(time) = time {
                        object[name] = json!(time.as_millis() as u64);
                    }
                }
                object
            }
            TurnDetection::Meaning { eagerness } => {
                let eagerness = match eagerness {
                    None => "auto",
                    Some(Eagerness::Low) => "low",
                    Some(Eagerness::Medium) => "medium",
                    Some(Eagerness::High) => "high",
                };
                json!({"type": "semantic_vad", "eagerness": eagerness})
            }
        };
        object["create_response"] = json!(true);
        object["interrupt_response"] = json!(self.interruption == Interruption::ByService);
        object
    }
}

impl Dialect for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn upgrade(&self, address: &str, _session: &Session) -> Upgrade {
        let query = address.split_once('?').map_or("", |(_, query)| query);
        let names_model = form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "model");
        let mut model = form_urlencoded::Serializer::new(String::new());
        if !names_model {
            model.append_pair("model", &self.model);
        }
        Upgrade {
            query: model.finish(),
            headers: vec![(AUTHORIZATION, self.authorization.clone())],
            ..Upgrade::default()
        }
    }

    fn start(&self, session: &Session, caller: AudioFormat) -> Box<dyn Conversation> {
        Box::new(conversation::Realtime::new(
            self,
            session,
            Self::format(caller),
        ))
    }

    /// What was said before is lost: the bot is told so, and goes on with the caller.
    fn can_reconnect(&self) -> bool {
        true
    }
}

/// Without the key.
impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi")
            .field("model", &self.model)
            .field("voice", &self.voice)
            .field("turn_detection", &self.turn_detection)
            .field("interruption", &self.interruption)
            .finish_non_exhaustive()
    }
}
