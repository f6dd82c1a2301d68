//! Secrets, which come from the environment or a file and are never printed.

use std::{fmt, path::Path};

use serde::Deserialize;
use subtle::ConstantTimeEq;

/// A token's or a hook's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Where the file says that a secret is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    env: Option<String>,
    file: Option<String>,
}

/// Secrets that are shorter can be guessed.
const SHORTEST: usize = 16;
/// More is a mistake: the wrong file, or a disk.
const LONGEST: u64 = 4096;

impl Secret {
    /// One that was made here.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The secret itself, for a computation that keeps it to itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether `text` is this secret. It takes as long for a near miss as for any other text of that length.
    pub fn is(&self, text: &[u8]) -> bool {
        self.0.ct_eq(text).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Source {
    /// The file that it is in, if it is in one.
    pub(super) fn path(&self, folder: &Path) -> Option<std::path::PathBuf> {
        self.file.as_ref().map(|file| folder.join(file))
    }

    /// Reads a secret that is made for the gateway, and has to be one.
    pub(super) fn read(&self, folder: &Path) -> Result<Secret, String> {
        let secret = self.read_key(folder)?;
        match secret.0.len() {
            length if length < SHORTEST => Err(format!(
                "the secret has {length} characters: give it at least {SHORTEST}, for example by `openssl rand -hex 32`"
            )),
            _ => Ok(secret),
        }
    }

    /// Reads a key that a service has given out, whatever it is. White space around it is not part of it.
    pub(super) fn read_key(&self, folder: &Path) -> Result<Secret, String> {
        let text = match (&self.env, &self.file) {
            (Some(name), None) => from_environment(name)?,
            (None, Some(file)) => from_file(&folder.join(file))?,
            _ => {
                return Err(
                    "say where the secret is: { env = \"NAME\" } or { file = \"PATH\" }".into(),
                );
            }
        };
        match text.trim() {
            "" => Err("there is no secret in it: put the secret there, and nothing else".into()),
            text => Ok(Secret(text.into())),
        }
    }
}

fn from_environment(name: &str) -> Result<String, String> {
    std::env::var(name)
        .map_err(|_| format!("the environment variable {name} is not set: set it to the secret"))
}

fn from_file(path: &Path) -> Result<String, String> {
    let cant =
        |error: &dyn fmt::Display| format!("can't read the secret in {}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(|error| cant(&error))?.len();
    if size > LONGEST {
        return Err(cant(&format_args!(
            "it is longer than {LONGEST} bytes, so it is not a secret"
        )));
    }
    std::fs::read_to_string(path).map_err(|error| cant(&error))
}
