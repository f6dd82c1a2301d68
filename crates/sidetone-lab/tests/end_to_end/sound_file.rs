//! Sounds that programs play from files.

use std::fs::File;
use std::path::Path;

use sidetone_audio::wav::{Channels, Writer};

/// Writes samples at `hz` into a WAV file.
pub(crate) fn write(file: &Path, hz: u32, samples: &[i16]) -> anyhow::Result<()> {
    let mut writer = Writer::new(File::create(file)?, hz, Channels::Mono)?;
    writer.write(samples)?;
    writer.finish()?;
    Ok(())
}
