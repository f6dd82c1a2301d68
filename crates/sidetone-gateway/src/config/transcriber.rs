//! `[transcriber.NAME]`: a recognizer from `sidetone-speech`.

use std::{path::Path, sync::Arc};

use serde::Deserialize;
use sidetone_speech::Recognizer;

use super::secret::Source;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    engine: Engine,
    endpoint: Option<String>,
    key: Option<Source>,
    model: Option<String>,
    #[serde(default)]
    language: Vec<String>,
    project: Option<String>,
    region: Option<String>,
    #[serde(default)]
    phrases: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Engine {
    Vosk,
    Google,
    Openai,
    Deepgram,
}

/// Builds it without a connection to the service.
pub(super) fn build(table: &Table, folder: &Path) -> Result<Arc<dyn Recognizer>, String> {
    refuse_foreign_keys(table)?;
    match table.engine {
        Engine::Vosk => vosk(table),
        Engine::Google => google(table, folder),
        Engine::Openai => openai(table, folder),
        Engine::Deepgram => deepgram(table, folder),
    }
}

/// A key that the engine doesn't have is an error, never ignored.
fn refuse_foreign_keys(table: &Table) -> Result<(), String> {
    let is = |engine| table.engine == engine;
    let refused = [
        ("project", table.project.is_some(), is(Engine::Google)),
        ("region", table.region.is_some(), is(Engine::Google)),
        ("key", table.key.is_some(), !is(Engine::Vosk)),
        ("model", table.model.is_some(), !is(Engine::Vosk)),
        ("language", !table.language.is_empty(), !is(Engine::Vosk)),
    ];
    match refused
        .iter()
        .find(|(_, given, allowed)| *given && !*allowed)
    {
        Some((key, ..)) => Err(format!("leave `{key}` out: this engine has none")),
        None => Ok(()),
    }
}

#[cfg(feature = "vosk")]
fn vosk(table: &Table) -> Result<Arc<dyn Recognizer>, String> {
    use sidetone_speech::vosk::Vosk;

    let endpoint = table.endpoint.as_deref().unwrap_or("ws://127.0.0.1:2700");
    let vosk = Vosk::new(endpoint).map_err(|error| error.to_string())?;
    Ok(Arc::new(vosk.phrases(table.phrases.clone())))
}

#[cfg(feature = "openai")]
fn openai(table: &Table, folder: &Path) -> Result<Arc<dyn Recognizer>, String> {
    use sidetone_speech::openai::{OPENAI, OpenAi};

    let endpoint = table.endpoint.as_deref().unwrap_or(OPENAI);
    let mut recognizer = OpenAi::new(endpoint).map_err(|error| error.to_string())?;
    match key(table, folder)? {
        Some(key) => recognizer = recognizer.key(&key).map_err(|error| error.to_string())?,
        None if table.endpoint.is_none() => return Err(no_key()),
        None => {}
    }
    if let Some(model) = &table.model {
        recognizer = recognizer.model(model);
    }
    if let Some(language) = one_language(table)? {
        recognizer = recognizer.language(language);
    }
    Ok(Arc::new(recognizer.phrases(table.phrases.clone())))
}

#[cfg(feature = "deepgram")]
fn deepgram(table: &Table, folder: &Path) -> Result<Arc<dyn Recognizer>, String> {
    use sidetone_speech::deepgram::Deepgram;

    let key = key(table, folder)?.ok_or_else(no_key)?;
    let recognizer = match &table.endpoint {
        Some(endpoint) => Deepgram::at(endpoint, &key),
        None => Deepgram::new(&key),
    };
    let mut recognizer = recognizer.map_err(|error| error.to_string())?;
    if let Some(model) = &table.model {
        recognizer = recognizer.model(model);
    }
    if let Some(language) = one_language(table)? {
        recognizer = recognizer.language(language);
    }
    Ok(Arc::new(recognizer.phrases(table.phrases.clone())))
}

#[cfg(feature = "google")]
fn google(table: &Table, folder: &Path) -> Result<Arc<dyn Recognizer>, String> {
    use sidetone_speech::google::Google;

    if table.language.is_empty() {
        return Err("name the callers' language, as in language = [\"en-US\"]".into());
    }
    let mut recognizer = Google::new(table.language.iter().map(String::as_str));
    if let Some(project) = &table.project {
        recognizer = recognizer.project(project);
    }
    if let Some(region) = &table.region {
        recognizer = recognizer.region(region);
    }
    if let Some(model) = &table.model {
        recognizer = recognizer.model(model);
    }
    if let Some(endpoint) = &table.endpoint {
        recognizer = recognizer.endpoint(endpoint);
    }
    if let Some(source) = &table.key {
        let file = source
            .path(folder)
            .ok_or("name the file with the credentials: key = { file = \"…\" }")?;
        recognizer = recognizer
            .credentials(&file)
            .map_err(|error| error.to_string())?;
    }
    Ok(Arc::new(recognizer.phrases(table.phrases.clone())))
}

#[cfg(not(feature = "vosk"))]
fn vosk(_: &Table) -> Result<Arc<dyn Recognizer>, String> {
    Err(not_built("vosk"))
}

#[cfg(not(feature = "openai"))]
fn openai(_: &Table, _: &Path) -> Result<Arc<dyn Recognizer>, String> {
    Err(not_built("openai"))
}

#[cfg(not(feature = "deepgram"))]
fn deepgram(_: &Table, _: &Path) -> Result<Arc<dyn Recognizer>, String> {
    Err(not_built("deepgram"))
}

#[cfg(not(feature = "google"))]
fn google(_: &Table, _: &Path) -> Result<Arc<dyn Recognizer>, String> {
    Err(not_built("google"))
}

#[cfg(not(all(
    feature = "deepgram",
    feature = "google",
    feature = "openai",
    feature = "vosk"
)))]
fn not_built(name: &str) -> String {
    format!(
        "this sidetone was built without {name}: build it with cargo build --release --features {name}"
    )
}

#[cfg(any(feature = "deepgram", feature = "openai"))]
fn key(table: &Table, folder: &Path) -> Result<Option<String>, String> {
    let Some(source) = &table.key else {
        return Ok(None);
    };
    let secret = source.read(folder)?;
    match std::str::from_utf8(secret.expose()) {
        Ok(key) => Ok(Some(key.to_owned())),
        Err(_) => Err("the key is not text".into()),
    }
}

#[cfg(any(feature = "deepgram", feature = "openai"))]
fn no_key() -> String {
    "say where the key is: key = { env = \"NAME\" } or key = { file = \"PATH\" }".into()
}

#[cfg(any(feature = "deepgram", feature = "openai"))]
fn one_language(table: &Table) -> Result<Option<&str>, String> {
    match table.language.as_slice() {
        [] => Ok(None),
        [language] => Ok(Some(language)),
        _ => Err("name one language, or leave it out: this engine takes one, or detects it".into()),
    }
}
