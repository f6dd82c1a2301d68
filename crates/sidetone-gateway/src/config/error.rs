//! What is wrong with a file, and where.

use std::{fmt, io, ops::Range, path::Path};

/// All that is wrong with a file.
#[derive(Debug)]
pub struct ConfigErrors(Vec<ConfigError>);

/// One thing that is wrong, as a line: `FILE:LINE:COLUMN: what, and what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    text: String,
}

/// Names that are this similar are probably meant.
const SIMILAR: f64 = 0.75;

impl ConfigErrors {
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self(vec![ConfigError {
            path: path.display().to_string(),
            place: None,
            text: format!("can't read it: {error}"),
        }])
    }

    /// The errors, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index > 0 { "\n" } else { "" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Collects the errors of one file.
pub(super) struct Collector<'a> {
    path: &'a Path,
    text: &'a str,
    errors: Vec<(usize, ConfigError)>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            errors: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, span: Range<usize>, text: impl fmt::Display) {
        let error = error_at(self.path, self.text, Some(span.start), &text.to_string());
        self.errors.push((span.start, error));
    }

    /// The value, or its error, which is collected.
    pub(super) fn take<T>(
        &mut self,
        span: Range<usize>,
        result: Result<T, impl fmt::Display>,
    ) -> Option<T> {
        result.map_err(|error| self.add(span, error)).ok()
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        match self.errors.is_empty() {
            true => Ok(value),
            false => Err(self.into_errors()),
        }
    }

    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.errors.sort_by_key(|(place, _)| *place);
        ConfigErrors(self.errors.into_iter().map(|(_, error)| error).collect())
    }
}

/// What the TOML parser says, with the name that was probably meant.
pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigErrors {
    let mut message = error.message().replace('\n', ", ");
    if let Some((wrong, expected)) = unknown_name(&message) {
        let known = expected.join(", ");
        message = match suggest(wrong, expected.iter().copied()) {
            Some(meant) => {
                format!("unknown key `{wrong}`: did you mean `{meant}`? (known here: {known})")
            }
            None => format!("unknown key `{wrong}` (known here: {known})"),
        };
    }
    let place = error.span().map(|span| span.start);
    ConfigErrors(vec![error_at(path, text, place, &message)])
}

/// The name in serde's message on an unknown field or variant, and those that it expected.
fn unknown_name(message: &str) -> Option<(&str, Vec<&str>)> {
    if !message.starts_with("unknown field") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    Some((names.next()?, names.collect()))
}

/// The one of `known` that `name` was probably meant to be.
pub(super) fn suggest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, known)| known)
}

fn error_at(path: &Path, text: &str, place: Option<usize>, message: &str) -> ConfigError {
    let place = place.map(|place| {
        let before = text.get(..place).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
        (line, column)
    });
    ConfigError {
        path: path.display().to_string(),
        place,
        text: message.into(),
    }
}
