//! The recognizer that a file or a command line chooses.

use std::{path::PathBuf, sync::Arc};

use serde::Deserialize;
use sidetone_speech::Recognizer;

/// Who turns voices into text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// A Vosk server of one's own.
    Vosk,
    /// OpenAI, or a server with its protocol.
    Openai,
    /// Deepgram.
    Deepgram,
    /// Google Cloud Speech-to-Text v2.
    Google,
}

impl Engine {
    /// As it is written in a file or on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vosk => "vosk",
            Self::Openai => "openai",
            Self::Deepgram => "deepgram",
            Self::Google => "google",
        }
    }

    /// Whether a key is its credential; else it is a file, or there is none.
    pub const fn takes_key(self) -> bool {
        matches!(self, Self::Openai | Self::Deepgram)
    }
}

/// An engine, and what is said of it.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Which one.
    pub engine: Engine,
    /// Its address, if not the usual one.
    pub endpoint: Option<String>,
    /// The key, for engines that [take one](Engine::takes_key).
    pub key: Option<String>,
    /// The file with the credentials, for Google.
    pub credentials: Option<PathBuf>,
    /// The model, by the engine's name for it.
    pub model: Option<String>,
    /// The callers' languages, such as `en-US`.
    pub languages: Vec<String>,
    /// Google's project.
    pub project: Option<String>,
    /// Google's region.
    pub region: Option<String>,
    /// Words and names that callers may say.
    pub phrases: Vec<String>,
}

/// What can be set, for those who name it: each front end has its own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// [`Choice::key`] or [`Choice::credentials`].
    Credentials,
    /// [`Choice::model`].
    Model,
    /// [`Choice::languages`].
    Languages,
    /// [`Choice::project`].
    Project,
    /// [`Choice::region`].
    Region,
}

/// Why there is no such recognizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChoiceError {
    /// The program was built without it.
    NotBuilt(Engine),
    /// It needs a key.
    NoKey(Engine),
    /// Google needs the callers' language.
    NoLanguage,
    /// The engine takes one language.
    OneLanguage,
    /// The engine does not have this setting, and why.
    Unwanted(Setting, &'static str),
    /// What the engine says itself.
    Engine(String),
}

impl ChoiceError {
    /// What is wrong and what to do, with the front end's name for each setting.
    pub fn describe(&self, name: impl Fn(Setting) -> &'static str) -> String {
        match self {
            Self::NotBuilt(engine) => format!(
                "this sidetone was built without {0}: build it with cargo build --release --features {0}",
                engine.name()
            ),
            Self::NoKey(engine) => {
                let credentials = name(Setting::Credentials);
                format!("{} needs a key: set {credentials}", engine.name())
            }
            Self::NoLanguage => format!(
                "name the callers' language, such as en-US, with {}",
                name(Setting::Languages)
            ),
            Self::OneLanguage => format!(
                "give {} once, or leave it out: this service takes one language, or detects it",
                name(Setting::Languages)
            ),
            Self::Unwanted(setting, why) => format!("leave {} out: {why}", name(*setting)),
            Self::Engine(text) => text.clone(),
        }
    }
}

/// Builds it without a connection to the service, which may be unavailable now and work for the first call.
///
/// # Errors
///
/// A setting that is missing, wrong, or of another engine.
pub fn build(choice: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    refuse_settings_of_others(choice)?;
    match choice.engine {
        Engine::Vosk => vosk(choice),
        Engine::Openai => openai(choice),
        Engine::Deepgram => deepgram(choice),
        Engine::Google => google(choice),
    }
}

/// A setting that the engine does not have is an error, never ignored.
fn refuse_settings_of_others(choice: &Choice) -> Result<(), ChoiceError> {
    let (is_google, is_vosk) = (
        choice.engine == Engine::Google,
        choice.engine == Engine::Vosk,
    );
    let (of_google, of_the_server) = (
        "it is only for google",
        "a Vosk server uses the one that it was started with",
    );
    let has_credentials = choice.key.is_some() || choice.credentials.is_some();
    let refused = [
        (
            Setting::Project,
            choice.project.is_some() && !is_google,
            of_google,
        ),
        (
            Setting::Region,
            choice.region.is_some() && !is_google,
            of_google,
        ),
        (
            Setting::Model,
            choice.model.is_some() && is_vosk,
            of_the_server,
        ),
        (
            Setting::Languages,
            !choice.languages.is_empty() && is_vosk,
            of_the_server,
        ),
        (
            Setting::Credentials,
            has_credentials && is_vosk,
            "a Vosk server needs none",
        ),
    ];
    match refused.into_iter().find(|(_, is_refused, _)| *is_refused) {
        Some((setting, _, why)) => Err(ChoiceError::Unwanted(setting, why)),
        None => Ok(()),
    }
}

#[cfg(any(
    feature = "deepgram",
    feature = "google",
    feature = "openai",
    feature = "vosk"
))]
fn of_engine(error: sidetone_speech::SpeechError) -> ChoiceError {
    ChoiceError::Engine(error.to_string())
}

#[cfg(feature = "vosk")]
fn vosk(choice: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    use sidetone_speech::vosk::Vosk;

    let endpoint = choice.endpoint.as_deref().unwrap_or("ws://127.0.0.1:2700");
    let vosk = Vosk::new(endpoint).map_err(of_engine)?;
    Ok(Arc::new(vosk.phrases(choice.phrases.clone())))
}

#[cfg(feature = "openai")]
fn openai(choice: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    use sidetone_speech::openai::{OPENAI, OpenAi};

    if choice.key.is_none() && choice.endpoint.is_none() {
        return Err(ChoiceError::NoKey(Engine::Openai));
    }
    let endpoint = choice.endpoint.as_deref().unwrap_or(OPENAI);
    let mut openai = OpenAi::new(endpoint).map_err(of_engine)?;
    if let Some(key) = &choice.key {
        openai = openai.key(key).map_err(of_engine)?;
    }
    if let Some(model) = &choice.model {
        openai = openai.model(model);
    }
    if let Some(language) = one_language(choice)? {
        openai = openai.language(language);
    }
    Ok(Arc::new(openai.phrases(choice.phrases.clone())))
}

#[cfg(feature = "deepgram")]
fn deepgram(choice: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    use sidetone_speech::deepgram::Deepgram;

    let key = choice.key.as_deref();
    let key = key.ok_or(ChoiceError::NoKey(Engine::Deepgram))?;
    let deepgram = match &choice.endpoint {
        Some(endpoint) => Deepgram::at(endpoint, key),
        None => Deepgram::new(key),
    };
    let mut deepgram = deepgram.map_err(of_engine)?;
    if let Some(model) = &choice.model {
        deepgram = deepgram.model(model);
    }
    if let Some(language) = one_language(choice)? {
        deepgram = deepgram.language(language);
    }
    Ok(Arc::new(deepgram.phrases(choice.phrases.clone())))
}

#[cfg(feature = "google")]
fn google(choice: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    use sidetone_speech::google::Google;

    let endpoint = choice.endpoint.as_deref();
    if endpoint.is_some_and(|it| it.starts_with("http:")) && choice.credentials.is_some() {
        return Err(ChoiceError::Unwanted(
            Setting::Credentials,
            "credentials are not sent unencrypted, to an address with http:",
        ));
    }
    if choice.languages.is_empty() {
        return Err(ChoiceError::NoLanguage);
    }
    let mut google = Google::new(choice.languages.iter().map(String::as_str));
    if let Some(project) = &choice.project {
        google = google.project(project);
    }
    if let Some(region) = &choice.region {
        google = google.region(region);
    }
    if let Some(model) = &choice.model {
        google = google.model(model);
    }
    if let Some(endpoint) = endpoint {
        google = google.endpoint(endpoint);
    }
    if let Some(file) = &choice.credentials {
        google = google.credentials(file).map_err(of_engine)?;
    }
    Ok(Arc::new(google.phrases(choice.phrases.clone())))
}

#[cfg(any(feature = "deepgram", feature = "openai"))]
fn one_language(choice: &Choice) -> Result<Option<&str>, ChoiceError> {
    match choice.languages.as_slice() {
        [] => Ok(None),
        [language] => Ok(Some(language)),
        _ => Err(ChoiceError::OneLanguage),
    }
}

#[cfg(not(feature = "vosk"))]
fn vosk(_: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    Err(ChoiceError::NotBuilt(Engine::Vosk))
}

#[cfg(not(feature = "openai"))]
fn openai(_: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    Err(ChoiceError::NotBuilt(Engine::Openai))
}

#[cfg(not(feature = "deepgram"))]
fn deepgram(_: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    Err(ChoiceError::NotBuilt(Engine::Deepgram))
}

#[cfg(not(feature = "google"))]
fn google(_: &Choice) -> Result<Arc<dyn Recognizer>, ChoiceError> {
    Err(ChoiceError::NotBuilt(Engine::Google))
}
