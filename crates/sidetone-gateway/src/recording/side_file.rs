//! What is known of a recorded call, in a file beside its sound.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use serde_json::{Value, json};
use sidetone::record::Report;

use crate::{call::RunningCall, event::recorded};

/// `UUID.json`.
pub(super) struct SideFile {
    name: String,
    content: Value,
}

impl SideFile {
    pub(super) fn of(call: &RunningCall, reports: &[Report], transcript: Option<&str>) -> Self {
        let mut content = call.context.to_json();
        let reports: Vec<Value> = reports.iter().map(recorded).collect();
        content.insert("minted_by".into(), json!(call.context.minted_by));
        content.insert("recordings".into(), reports.into());
        if let Some(file) = transcript {
            content.insert("transcript".into(), file.into());
        }
        Self {
            name: call.context.id.to_string(),
            content: Value::Object(content),
        }
    }

    /// Replaces the file as a whole. Only its owner can read it.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let (file, part) = (
            dir.join(format!("{}.json", self.name)),
            dir.join(format!("{}.json.part", self.name)),
        );
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut writer = options.open(&part)?;
        writeln!(writer, "{:#}", self.content)?;
        drop(writer);
        fs::rename(&part, &file)
    }
}
