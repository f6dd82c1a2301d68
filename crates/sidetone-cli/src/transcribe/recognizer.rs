//! The recognizer that the options choose.

use std::{path::Path, sync::Arc};

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
    let google_only = "it is only for --engine google";
    if provider != Provider::Google {
        refuse(options.project.is_some(), "--project", google_only)?;
        refuse(options.region.is_some(), "--region", google_only)?;
    }
    let recognizer = match provider {
        Provider::Google => google(options),
        Provider::Vosk => vosk(options),
        Provider::Openai => openai(options),
        Provider::Deepgram => deepgram(options),
    };
    Ok((provider, recognizer?))
}

#[cfg(feature = "vosk")]
fn vosk(options: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    use sidetone_speech::vosk::Vosk;

    let of_the_server = "a Vosk server uses the one that it was started with";
    refuse(options.model.is_some(), "--model", of_the_server)?;
    refuse(!options.language.is_empty(), "--language", of_the_server)?;
    refuse(
        options.credentials.is_some(),
        "--credentials",
        "a Vosk server needs none",
    )?;
    let endpoint = options.endpoint.as_deref().unwrap_or("ws://127.0.0.1:2700");
    let recognizer = Vosk::new(endpoint).map_err(Failure::new)?;
    Ok(Arc::new(recognizer.phrases(phrases(options)?)))
}

#[cfg(feature = "openai")]
fn openai(options: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    use sidetone_speech::openai::{OPENAI, OpenAi};

    let key = key(options, "OPENAI_API_KEY")?;
    if key.is_none() && options.endpoint.is_none() {
        return Err(no_key("OpenAI", "OPENAI_API_KEY"));
    }
    let endpoint = options.endpoint.as_deref().unwrap_or(OPENAI);
    let mut recognizer = OpenAi::new(endpoint).map_err(Failure::new)?;
    if let Some(key) = key {
        recognizer = recognizer.key(&key).map_err(Failure::new)?;
    }
    if let Some(model) = &options.model {
        recognizer = recognizer.model(model);
    }
    if let Some(language) = one_language(options)? {
        recognizer = recognizer.language(language);
    }
    Ok(Arc::new(recognizer.phrases(phrases(options)?)))
}

#[cfg(feature = "deepgram")]
fn deepgram(options: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    use sidetone_speech::deepgram::Deepgram;

    let variable = "DEEPGRAM_API_KEY";
    let key = key(options, variable)?.ok_or_else(|| no_key("Deepgram", variable))?;
    let recognizer = match &options.endpoint {
        Some(endpoint) => Deepgram::at(endpoint, &key),
        None => Deepgram::new(&key),
    };
    let mut recognizer = recognizer.map_err(Failure::new)?;
    if let Some(model) = &options.model {
        recognizer = recognizer.model(model);
    }
    if let Some(language) = one_language(options)? {
        recognizer = recognizer.language(language);
    }
    Ok(Arc::new(recognizer.phrases(phrases(options)?)))
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
        "credentials are not sent unencrypted, to an address with http:",
    )?;
    if options.language.is_empty() {
        return Err(Failure::new(
            "name the callers' language with --language, such as --language en-US",
        ));
    }
    let mut recognizer = Google::new(options.language.iter().map(String::as_str));
    if let Some(project) = &options.project {
        recognizer = recognizer.project(project);
    }
    if let Some(region) = &options.region {
        recognizer = recognizer.region(region);
    }
    if let Some(model) = &options.model {
        recognizer = recognizer.model(model);
    }
    if let Some(endpoint) = &options.endpoint {
        recognizer = recognizer.endpoint(endpoint);
    }
    if let Some(file) = &options.credentials {
        recognizer = recognizer.credentials(file).map_err(Failure::new)?;
    }
    Ok(Arc::new(recognizer.phrases(phrases(options)?)))
}

#[cfg(not(feature = "vosk"))]
fn vosk(_: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    Err(not_built(Provider::Vosk))
}

#[cfg(not(feature = "openai"))]
fn openai(_: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    Err(not_built(Provider::Openai))
}

#[cfg(not(feature = "google"))]
fn google(_: &RecognizerOptions) -> Result<Arc<dyn Recognizer>, Failure> {
    Err(not_built(Provider::Google))
}

#[cfg(not(feature = "deepgram"))]
fn deepgram(_: &Recognizer) -> Result<Arc<dyn Recognizer>, Failure> {
    Err(not_built(Provider::Deepgram))
}

#[cfg(not(all(
    feature = "deepgram",
    feature = "google",
    feature = "openai",
    feature = "vosk"
)))]
fn not_built(provider: Provider) -> Failure {
    let name = provider.name();
    Failure::new(format_args!(
        "this sidetone was built without {name}: build it with cargo build --release --features {name}"
    ))
}

/// Refuses an option that the service does not have.
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
            "give --language once, or leave it out: this service takes one language, or detects it",
        )),
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

fn no_key(service: &str, variable: &str) -> Failure {
    Failure::new(format_args!(
        "{service} needs a key: set {variable} to it, or put it into a file and name the file with --credentials"
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
