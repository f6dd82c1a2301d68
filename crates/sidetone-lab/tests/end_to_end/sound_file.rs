//! Sounds that programs play from files.

use std::fs::File;
use std::path::Path;

use sidetone_audio::wav::{Channels, Writer};

/// Writes samples at 8 kHz into a WAV file.
pub(crate) fn write(file: &Path, samples: &[i16]) -> anyhow::Result<()> {
    let mut writer = Writer::new(File::create(file)?, 8_000, Channels::Mono)?;
    writer.write(samples)?;
    writer.finish()?;
    Ok(())
}
