//! The recognizer that the options choose.

use std::{path::Path, sync::Arc};

use sidetone_gateway::recognizer::{self, Choice, ChoiceError, Engine, Setting};
use sidetone_speech::Recognizer;

use super::options::{Provider, RecognizerOptions};
use crate::failure::Failure;

/// Builds the recognizer without a connection to the service, which may be unavailable now and work for the first call.
pub(super) fn build(
    options: &RecognizerOptions,
) -> Result<(Provider, Arc<dyn Recognizer>), Failure> {
    let Some(provider) = options.provider else {
        return Err(Failure::new(
            "choose the service that gets the callers' voices: --engine google, vosk, openai or deepgram",
        ));
    };
    let engine = Engine::from(provider);
    let choice = Choice {
        engine,
        endpoint: options.endpoint.clone(),
        key: match variable(engine) {
            Some(variable) => key(options, variable)?,
            None => None,
        },
        credentials: match engine.takes_key() {
            true => None,
            false => options.credentials.clone(),
        },
        model: options.model.clone(),
        languages: options.language.clone(),
        project: options.project.clone(),
        region: options.region.clone(),
        phrases: phrases(options)?,
    };
    match recognizer::build(&choice) {
        Ok(recognizer) => Ok((provider, recognizer)),
        Err(error) => Err(describe(&error)),
    }
}

impl From<Provider> for Engine {
    fn from(provider: Provider) -> Self {
        match provider {
            Provider::Google => Self::Google,
            Provider::Vosk => Self::Vosk,
            Provider::Openai => Self::Openai,
            Provider::Deepgram => Self::Deepgram,
        }
    }
}

/// The variable with the engine's key, if it takes one.
fn variable(engine: Engine) -> Option<&'static str> {
    match engine {
        Engine::Openai => Some("OPENAI_API_KEY"),
        Engine::Deepgram => Some("DEEPGRAM_API_KEY"),
        Engine::Vosk | Engine::Google => None,
    }
}

fn describe(error: &ChoiceError) -> Failure {
    match error {
        ChoiceError::NoKey(engine) => Failure::new(format_args!(
            "{} needs a key: set {} to it, or put it into a file and name the file with --credentials",
            engine.name(),
            variable(*engine).unwrap_or_default()
        )),
        other => Failure::new(other.describe(option)),
    }
}

/// The option that is each setting.
fn option(setting: Setting) -> &'static str {
    match setting {
        Setting::Credentials => "--credentials",
        Setting::Model => "--model",
        Setting::Languages => "--language",
        Setting::Project => "--project",
        Setting::Region => "--region",
    }
}

/// The key from the file of `--credentials`, or else from the variable. It is never printed.
fn key(options: &RecognizerOptions, variable: &str) -> Result<Option<String>, Failure> {
    let key = match &options.credentials {
        Some(path) => read(path)?,
        None => match std::env::var(variable) {
            Ok(key) => key,
            Err(std::env::VarError::NotPresent) => String::new(),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(Failure::new(format_args!(
                    "the value of {variable} is not text: set it to the key, or name a file with --credentials"
                )));
            }
        },
    };
    let key = key.trim().to_owned();
    match (&options.credentials, key.is_empty()) {
        (Some(path), true) => Err(Failure::new(format_args!(
            "there is no key in {}: put the key there, and nothing else",
            path.display()
        ))),
        (None, true) => Ok(None),
        (_, false) => Ok(Some(key)),
    }
}

fn phrases(options: &RecognizerOptions) -> Result<Vec<String>, Failure> {
    let Some(path) = &options.phrases else {
        return Ok(Vec::new());
    };
    let text = read(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let phrases: Vec<String> = lines.map(str::to_owned).collect();
    match phrases.is_empty() {
        true => Err(Failure::new(format_args!(
            "{} is empty: put one phrase on each line",
            path.display()
        ))),
        false => Ok(phrases),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format_args!(
            "can't read {} ({error}): name a text file that this user may read",
            path.display()
        ))
    })
}
