//! `[transcriber.NAME]`: the recognizer of routes.

use std::{path::Path, sync::Arc};

use serde::Deserialize;
use sidetone_speech::Recognizer;

use super::secret::Source;
use crate::recognizer::{self, Choice, Engine, Setting};

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

pub(super) fn build(table: &Table, folder: &Path) -> Result<Arc<dyn Recognizer>, String> {
    let mut choice = Choice {
        engine: table.engine,
        endpoint: table.endpoint.clone(),
        key: None,
        credentials: None,
        model: table.model.clone(),
        languages: table.language.clone(),
        project: table.project.clone(),
        region: table.region.clone(),
        phrases: table.phrases.clone(),
    };
    if let Some(source) = &table.key {
        match table.engine.takes_key() {
            true => {
                let secret = source.read_key(folder)?;
                choice.key = Some(String::from_utf8_lossy(secret.expose()).into_owned());
            }
            false => {
                let file = source.path(folder);
                choice.credentials = Some(file.ok_or("name the file: key = { file = \"…\" }")?);
            }
        }
    }
    recognizer::build(&choice).map_err(|error| error.describe(name))
}

/// The key of the file that is each setting.
fn name(setting: Setting) -> &'static str {
    match setting {
        Setting::Credentials => "`key`, as in { file = \"PATH\" }",
        Setting::Model => "`model`",
        Setting::Languages => "`language`",
        Setting::Project => "`project`",
        Setting::Region => "`region`",
    }
}
