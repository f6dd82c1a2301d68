//! `bot.openai`: what a bot of OpenAI's is to be and to do.

use std::{path::PathBuf, sync::Arc};

use serde::Deserialize;
use sidetone_bot::dialect::openai::{Eagerness, Interruption, OpenAi, SettingError, TurnDetection};
use toml::Spanned;

use super::{file::Resolver, secret::Source};
use crate::functions::FunctionService;

/// The service's own address.
pub(super) const ADDRESS: &str = "wss://api.openai.com/v1/realtime";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenAiTable {
    key: Spanned<Source>,
    model: Spanned<String>,
    voice: Option<String>,
    instructions: Option<String>,
    #[serde(default)]
    speaks_first: bool,
    #[serde(default)]
    answers_digits: bool,
    turn_detection: Option<TurnDetectionName>,
    interruption: Option<InterruptionName>,
    #[serde(default)]
    hang_up: bool,
    transfer: Option<String>,
    functions: Option<Spanned<FunctionsTable>>,
    transcribe: Option<String>,
    language: Option<String>,
}

/// How the service notices that the caller has finished.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TurnDetectionName {
    Silence,
    Meaning,
    MeaningPatient,
    MeaningEager,
}

/// Who interrupts the bot when the caller speaks.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InterruptionName {
    Service,
    Gateway,
    Never,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionsTable {
    file: Spanned<PathBuf>,
    url: Spanned<String>,
    secret: Option<Spanned<Source>>,
}

/// What is built of a table.
pub(super) struct Built {
    pub(super) dialect: OpenAi,
    pub(super) functions: Option<Arc<FunctionService>>,
}

impl OpenAiTable {
    pub(super) fn build(self, resolver: &mut Resolver<'_>) -> Option<Built> {
        let key = self.key.get_ref().read_key(resolver.folder);
        let key = resolver.errors.take(self.key.span(), key);
        let key = key.map(|key| String::from_utf8_lossy(key.expose()).into_owned());
        let dialect = OpenAi::new(&key?, self.model.get_ref());
        let mut dialect = resolver.errors.take(self.model.span(), dialect)?;
        if let Some(voice) = self.voice {
            dialect = dialect.voice(voice);
        }
        if let Some(instructions) = self.instructions {
            dialect = dialect.instructions(instructions);
        }
        if let Some(name) = self.turn_detection {
            let set = dialect.turn_detection(name.turn_detection());
            dialect = resolver.errors.take(self.model.span(), set)?;
        }
        if let Some(name) = self.interruption {
            dialect = dialect.interruption(name.interruption());
        }
        if self.hang_up {
            dialect = dialect.allow_hang_up();
        }
        if let Some(destinations) = self.transfer {
            dialect = dialect.allow_transfer(destinations);
        }
        if let Some(model) = self.transcribe {
            dialect = dialect.transcribe(model, self.language);
        }
        dialect = dialect
            .speaks_first(self.speaks_first)
            .answers_digits(self.answers_digits);
        let Some(table) = self.functions.map(Spanned::into_inner) else {
            return Some(Built {
                dialect,
                functions: None,
            });
        };
        let dialect = table.declare(resolver, dialect);
        let functions = table.service(resolver);
        Some(Built {
            dialect: dialect?,
            functions: Some(Arc::new(functions?)),
        })
    }
}

impl FunctionsTable {
    fn declare(&self, resolver: &mut Resolver<'_>, dialect: OpenAi) -> Option<OpenAi> {
        let path = resolver.folder.join(self.file.get_ref());
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("can't read the functions in {}: {error}", path.display()));
        let declared = text.and_then(|text| {
            let declared = dialect.tools(&text);
            declared.map_err(|error: SettingError| error.to_string())
        });
        resolver.errors.take(self.file.span(), declared)
    }

    fn service(&self, resolver: &mut Resolver<'_>) -> Option<FunctionService> {
        let url = super::file::hook_url(self.url.get_ref());
        let url = resolver.errors.take(self.url.span(), url);
        let key = resolver.signing_key(self.secret.as_ref());
        let service = FunctionService::new(url?, key?);
        resolver.errors.take(self.url.span(), service)
    }
}

impl TurnDetectionName {
    fn turn_detection(self) -> TurnDetection {
        let meaning = |eagerness| TurnDetection::Meaning { eagerness };
        match self {
            Self::Silence => TurnDetection::default(),
            Self::Meaning => meaning(None),
            Self::MeaningPatient => meaning(Some(Eagerness::Low)),
            Self::MeaningEager => meaning(Some(Eagerness::High)),
        }
    }
}

impl InterruptionName {
    const fn interruption(self) -> Interruption {
        match self {
            Self::Service => Interruption::ByService,
            Self::Gateway => Interruption::ByClient,
            Self::Never => Interruption::Never,
        }
    }
}
