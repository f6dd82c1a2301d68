//! Whether a client's message is one that the service takes.

use serde_json::{Map, Value};

/// Why a message is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) param: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
        }
    }

    pub(super) fn of(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..Self::new("invalid_value", message)
        }
    }
}

/// The format of audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Pcm,
    Pcmu,
    Pcma,
}

impl Format {
    pub(super) const fn bytes_per_ms(self) -> usize {
        match self {
            Self::Pcm => 48,
            Self::Pcmu | Self::Pcma => 8,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pcm => "audio/pcm",
            Self::Pcmu => "audio/pcmu",
            Self::Pcma => "audio/pcma",
        }
    }

    fn read(path: &str, value: &Value) -> Result<Self, Refusal> {
        let object = fields(path, value, &["type", "rate"])?;
        let rate = object.get("rate");
        match (object.get("type").and_then(Value::as_str), rate) {
            (Some("audio/pcm"), Some(rate)) if rate.as_u64() == Some(24_000) => Ok(Self::Pcm),
            (Some("audio/pcm"), _) => Err(Refusal::of(
                &format!("{path}.rate"),
                "The rate has to be 24000.",
            )),
            (Some("audio/pcmu"), None) => Ok(Self::Pcmu),
            (Some("audio/pcma"), None) => Ok(Self::Pcma),
            (Some("audio/pcmu" | "audio/pcma"), _) => Err(unknown(&format!("{path}.rate"))),
            _ => Err(Refusal::of(&format!("{path}.type"), "No such format.")),
        }
    }
}

/// What a client sets of a session that matters here.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) input: Option<Format>,
    pub(super) output: Option<Format>,
    pub(super) voice: Option<String>,
    pub(super) interrupt_response: Option<bool>,
    pub(super) create_response: Option<bool>,
    pub(super) transcription: Option<bool>,
    pub(super) tools: Option<Vec<String>>,
}

/// The fields of the messages that are known, by type.
const MESSAGES: &[(&str, &[&str])] = &[
    ("session.update", &["session"]),
    ("input_audio_buffer.append", &["audio"]),
    ("input_audio_buffer.commit", &[]),
    ("input_audio_buffer.clear", &[]),
    ("conversation.item.create", &["previous_item_id", "item"]),
    ("conversation.item.delete", &["item_id"]),
    (
        "conversation.item.truncate",
        &["item_id", "content_index", "audio_end_ms"],
    ),
    ("response.create", &["response"]),
    ("response.cancel", &["response_id"]),
];

/// The type of a message whose fields are all known.
pub(super) fn message(message: &Value) -> Result<&str, Refusal> {
    let Some(kind) = message["type"].as_str() else {
        return Err(Refusal::new(
            "missing_required_parameter",
            "Missing required parameter: 'type'.",
        ));
    };
    let Some((_, names)) = MESSAGES.iter().find(|(it, _)| *it == kind) else {
        return Err(Refusal::of("type", format!("Invalid value: '{kind}'.")));
    };
    let names: Vec<&str> = names.iter().copied().chain(["type", "event_id"]).collect();
    fields("", message, &names)?;
    if message
        .get("event_id")
        .is_some_and(|it| it.as_str().is_none_or(|it| it.len() > 512))
    {
        return Err(Refusal::of(
            "event_id",
            "It has to be a string of at most 512 characters.",
        ));
    }
    Ok(kind)
}

/// An object without fields that are not known.
fn fields<'a>(
    path: &str,
    value: &'a Value,
    names: &[&str],
) -> Result<&'a Map<String, Value>, Refusal> {
    let Some(object) = value.as_object() else {
        return Err(Refusal::new(
            "invalid_type",
            format!("Invalid type for '{path}': expected an object."),
        ));
    };
    match object.keys().find(|it| !names.contains(&it.as_str())) {
        Some(name) if path.is_empty() => Err(unknown(name)),
        Some(name) => Err(unknown(&format!("{path}.{name}"))),
        None => Ok(object),
    }
}

fn unknown(path: &str) -> Refusal {
    Refusal {
        code: "unknown_parameter",
        message: format!("Unknown parameter: '{path}'."),
        param: Some(path.into()),
    }
}

/// The settings of a `session.update`.
pub(super) fn settings(session: &Value) -> Result<Settings, Refusal> {
    const NAMES: [&str; 13] = [
        "type",
        "model",
        "output_modalities",
        "instructions",
        "audio",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "max_output_tokens",
        "tracing",
        "truncation",
        "prompt",
        "include",
    ];
    let object = fields("session", session, &NAMES)?;
    if session["type"] != "realtime" {
        return Err(Refusal::of("session.type", "It has to be 'realtime'."));
    }
    if object.get("instructions").is_some_and(|it| !it.is_string()) {
        return Err(Refusal::of(
            "session.instructions",
            "It has to be a string.",
        ));
    }
    let modalities = object.get("output_modalities").map(Value::to_string);
    if modalities.is_some_and(|it| ![r#"["audio"]"#, r#"["text"]"#].contains(&it.as_str())) {
        return Err(Refusal::of(
            "session.output_modalities",
            "It has to be ['audio'] or ['text'].",
        ));
    }
    let mut settings = Settings::default();
    if let Some(tools) = object.get("tools") {
        settings.tools = Some(tool_names(tools)?);
    }
    if let Some(audio) = object.get("audio") {
        let audio = fields("session.audio", audio, &["input", "output"])?;
        if let Some(input) = audio.get("input") {
            read_input(input, &mut settings)?;
        }
        if let Some(output) = audio.get("output") {
            read_output(output, &mut settings)?;
        }
    }
    Ok(settings)
}

fn read_input(input: &Value, settings: &mut Settings) -> Result<(), Refusal> {
    const PATH: &str = "session.audio.input";
    let names = [
        "format",
        "noise_reduction",
        "transcription",
        "turn_detection",
    ];
    let input = fields(PATH, input, &names)?;
    if let Some(format) = input.get("format") {
        settings.input = Some(Format::read(&format!("{PATH}.format"), format)?);
    }
    if let Some(transcription) = input.get("transcription") {
        if !transcription.is_null() {
            let path = format!("{PATH}.transcription");
            let it = fields(&path, transcription, &["model", "language", "prompt"])?;
            if !it.get("model").is_some_and(Value::is_string) {
                return Err(Refusal::of(
                    &format!("{path}.model"),
                    "It has to be a string.",
                ));
            }
        }
        settings.transcription = Some(!transcription.is_null());
    }
    if let Some(detection) = input.get("turn_detection") {
        let path = format!("{PATH}.turn_detection");
        let both = ["type", "create_response", "interrupt_response"];
        let more: &[&str] = match detection["type"].as_str() {
            Some("server_vad") => &[
                "threshold",
                "prefix_padding_ms",
                "silence_duration_ms",
                "idle_timeout_ms",
            ],
            Some("semantic_vad") => &["eagerness"],
            _ => {
                return Err(Refusal::of(
                    &format!("{path}.type"),
                    "No such turn detection.",
                ));
            }
        };
        let names: Vec<&str> = both.iter().chain(more).copied().collect();
        let detection = fields(&path, detection, &names)?;
        let flag = |name: &str| {
            detection
                .get(name)
                .is_none_or(|it| *it == Value::Bool(true))
        };
        settings.create_response = Some(flag("create_response"));
        settings.interrupt_response = Some(flag("interrupt_response"));
    }
    Ok(())
}

fn read_output(output: &Value, settings: &mut Settings) -> Result<(), Refusal> {
    const PATH: &str = "session.audio.output";
    let output = fields(PATH, output, &["format", "voice", "speed"])?;
    if let Some(format) = output.get("format") {
        settings.output = Some(Format::read(&format!("{PATH}.format"), format)?);
    }
    if let Some(voice) = output.get("voice") {
        const VOICES: [&str; 10] = [
            "alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar",
        ];
        match voice.as_str() {
            Some(voice) if VOICES.contains(&voice) => settings.voice = Some(voice.into()),
            _ => return Err(Refusal::of(&format!("{PATH}.voice"), "No such voice.")),
        }
    }
    Ok(())
}

fn tool_names(tools: &Value) -> Result<Vec<String>, Refusal> {
    let Some(tools) = tools.as_array() else {
        return Err(Refusal::new(
            "invalid_type",
            "Invalid type for 'session.tools': expected an array.",
        ));
    };
    let mut names = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let path = format!("session.tools[{index}]");
        fields(&path, tool, &["type", "name", "description", "parameters"])?;
        match (tool["type"].as_str(), tool["name"].as_str()) {
            (Some("function"), Some(name)) if !name.is_empty() => names.push(name.into()),
            _ => return Err(Refusal::of(&path, "It has to be a function with a name.")),
        }
    }
    Ok(names)
}

/// An item that a client may create: what it is, and of a function's result its call.
pub(super) fn item(item: &Value) -> Result<Option<&str>, Refusal> {
    if item
        .get("id")
        .is_some_and(|it| it.as_str().is_none_or(|it| it.is_empty() || it.len() > 32))
    {
        return Err(Refusal::of(
            "item.id",
            "It has to be a string of 1 to 32 characters.",
        ));
    }
    match item["type"].as_str() {
        Some("message") => {
            fields(
                "item",
                item,
                &["id", "type", "role", "content", "status", "object"],
            )?;
            let kind = match item["role"].as_str() {
                Some("user" | "system") => "input_text",
                Some("assistant") => "output_text",
                _ => return Err(Refusal::of("item.role", "No such role.")),
            };
            let contents = item["content"].as_array();
            let is_text = |it: &Value| it["type"] == kind && it["text"].is_string();
            match contents.is_some_and(|it| !it.is_empty() && it.iter().all(is_text)) {
                true => Ok(None),
                false => Err(Refusal::of(
                    "item.content",
                    format!("It has to be of '{kind}'."),
                )),
            }
        }
        Some("function_call_output") => {
            fields(
                "item",
                item,
                &["id", "type", "call_id", "output", "status", "object"],
            )?;
            match (item["call_id"].as_str(), item["output"].as_str()) {
                (Some(call_id), Some(_)) => Ok(Some(call_id)),
                _ => Err(Refusal::of(
                    "item",
                    "It has to have a call_id and an output.",
                )),
            }
        }
        _ => Err(Refusal::of("item.type", "No such item.")),
    }
}
