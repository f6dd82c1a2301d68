//! The recognizer that was asked for.

use std::{path::Path, sync::Arc};

use sidetone_speech::Recognizer;

use super::options::{EngineName, RecognizerOptions};
use crate::failure::Failure;

/// Makes it, without asking the service anything: one that is away now may be back for the first call.
pub(crate) fn build(
    options: &RecognizerOptions,
) -> Result<(EngineName, Arc<dyn Recognizer>), Failure> {
    let Some(engine) = options.engine else {
        return Err(Failure::new(
            "say which service gets the callers' voices: --engine google, vosk, openai or deepgram",
        ));
    };
    let google_only = "it is for --engine google";
    if engine != EngineName::Google {
        refuse(options.project.is_some(), "--project", google_only)?;
        refuse(options.region.is_some(), "--region", google_only)?;
    }
    let recognizer = match engine {
        EngineName::Google => google(options),
        EngineName::Vosk => vosk(options),
        EngineName::Openai => openai(options),
        EngineName::Deepgram => deepgram(options),
    };
    Ok((engine, recognizer?))
}

#[cfg(feature = "vosk")]
fn vosk(options: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    use sidetone_speech::vosk::Vosk;

    let of_the_server = "a Vosk server has the one that it was started with";
    refuse(options.model.is_some(), "--model", of_the_server)?;
    refuse(!options.language.is_empty(), "--language", of_the_server)?;
    refuse(
        options.credentials.is_some(),
        "--credentials",
        "a Vosk server asks for none",
    )?;
    let endpoint = options.endpoint.as_deref().unwrap_or("ws://127.0.0.1:2700");
    let engine = Vosk::new(endpoint).map_err(Failure::new)?;
    Ok(Arc::new(engine.phrases(phrases(options)?)))
}

#[cfg(feature = "openai")]
fn openai(options: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    use sidetone_speech::openai::{OPENAI, OpenAi};

    let key = key(options, "OPENAI_API_KEY")?;
    if key.is_none() && options.endpoint.is_none() {
        return Err(no_key("OpenAI", "OPENAI_API_KEY"));
    }
    let endpoint = options.endpoint.as_deref().unwrap_or(OPENAI);
    let mut engine = OpenAi::new(endpoint).map_err(Failure::new)?;
    if let Some(key) = key {
        engine = engine.key(&key).map_err(Failure::new)?;
    }
    if let Some(model) = &options.model {
        engine = engine.model(model);
    }
    if let Some(language) = one_language(options)? {
        engine = engine.language(language);
    }
    Ok(Arc::new(engine.phrases(phrases(options)?)))
}

#[cfg(feature = "deepgram")]
fn deepgram(options: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    use sidetone_speech::deepgram::Deepgram;

    let variable = "DEEPGRAM_API_KEY";
    let key = key(options, variable)?.ok_or_else(|| no_key("Deepgram", variable))?;
    let engine = match &options.endpoint {
        Some(endpoint) => Deepgram::at(endpoint, &key),
        None => Deepgram::new(&key),
    };
    let mut engine = engine.map_err(Failure::new)?;
    if let Some(model) = &options.model {
        engine = engine.model(model);
    }
    if let Some(language) = one_language(options)? {
        engine = engine.language(language);
    }
    Ok(Arc::new(engine.phrases(phrases(options)?)))
}

#[cfg(feature = "google")]
fn google(options: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    use sidetone_speech::google::Google;

    let in_the_clear = options
        .endpoint
        .as_ref()
        .is_some_and(|it| it.starts_with("http:"));
    refuse(
        in_the_clear && options.credentials.is_some(),
        "--credentials",
        "they are not sent in the clear, to an address with http:",
    )?;
    if options.language.is_empty() {
        return Err(Failure::new(
            "say what is spoken with --language, such as --language en-US",
        ));
    }
    let mut engine = Google::new(options.language.iter().map(String::as_str));
    if let Some(project) = &options.project {
        engine = engine.project(project);
    }
    if let Some(region) = &options.region {
        engine = engine.region(region);
    }
    if let Some(model) = &options.model {
        engine = engine.model(model);
    }
    if let Some(endpoint) = &options.endpoint {
        engine = engine.endpoint(endpoint);
    }
    if let Some(file) = &options.credentials {
        engine = engine.credentials(file).map_err(Failure::new)?;
    }
    Ok(Arc::new(engine.phrases(phrases(options)?)))
}

#[cfg(not(feature = "vosk"))]
fn vosk(_: &Recognizer) -> Result<Arc<dyn Recognizer>, Failure> {
    Err(not_built(EngineName::Vosk))
}

#[cfg(not(feature = "openai"))]
fn openai(_: &Recognizer) -> Result<Arc<dyn Recognizer>, Failure> {
    Err(not_built(EngineName::Openai))
}

#[cfg(not(feature = "google"))]
fn google(_: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    Err(not_built(EngineName::Google))
}

#[cfg(not(feature = "deepgram"))]
fn deepgram(_: &Recognizer) -> Result<Arc<dyn Recognizer>, Failure> {
    Err(not_built(EngineName::Deepgram))
}

#[cfg(not(all(
    feature = "deepgram",
    feature = "google",
    feature = "openai",
    feature = "vosk"
)))]
fn not_built(engine: EngineName) -> Failure {
    let name = engine.name();
    Failure::new(format_args!(
        "this sidetone was built without {name}: build it with cargo build --release --features {name}"
    ))
}

/// An option that this engine can't follow is better refused than passed over.
fn refuse(given: bool, option: &str, why: &str) -> Result<(), Failure> {
    match given {
        true => Err(Failure::new(format_args!("leave {option} out: {why}"))),
        false => Ok(()),
    }
}

fn one_language(options: &RecognizerOptions) -> Result<Option<&str>, Failure> {
    match options.language.as_slice() {
        [] => Ok(None),
        [language] => Ok(Some(language)),
        _ => Err(Failure::new(
            "give --language once, or not at all: this service takes one, or finds it out",
        )),
    }
}

/// What is in the file, else in the variable. Neither is ever shown.
fn key(options: &RecognizerOptions, variable: &str) -> Result<Option<String>, Failure> {
    let key = match &options.credentials {
        Some(path) => read(path)?,
        None => match std::env::var(variable) {
            Ok(key) => key,
            Err(std::env::VarError::NotPresent) => String::new(),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(Failure::new(format_args!(
                    "what is in {variable} is no text, so it is no key: set it to the key, or name a file with --credentials"
                )));
            }
        },
    };
    let key = key.trim().to_owned();
    match (&options.credentials, key.is_empty()) {
        (Some(path), true) => Err(Failure::new(format_args!(
            "there is no key in {}: put nothing but the key there",
            path.display()
        ))),
        (None, true) => Ok(None),
        (_, false) => Ok(Some(key)),
    }
}

fn no_key(service: &str, variable: &str) -> Failure {
    Failure::new(format_args!(
        "{service} wants a key: put it into {variable}, or into a file and name that with --credentials"
    ))
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
            "there is nothing in {}: put one phrase on each line",
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
