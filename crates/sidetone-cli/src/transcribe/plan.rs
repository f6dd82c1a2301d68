//! What the command does with every call.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sidetone::{Clip, Rate};
use sidetone_audio::tone;
use sidetone_speech::Recognizer;

use super::{
    files::{self, StalledWrites},
    options::{Format, Options},
};
use crate::failure::Failure;

/// The time limit of a call without one.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) struct Plan {
    pub(super) recognizer: Arc<dyn Recognizer>,
    /// Transcribe what the caller hears, too.
    pub(super) both: bool,
    /// Played to the caller first, one after the other.
    pub(super) prompts: Vec<Clip>,
    /// One of the prompts announces the transcription, so nothing is transcribed before their end.
    pub(super) announces: bool,
    /// In lower case.
    pub(super) stop_word: Option<String>,
    pub(super) time_limit: Duration,
    pub(super) interim: bool,
    pub(super) json: bool,
    /// The directory for transcripts.
    pub(super) output: Option<PathBuf>,
    pub(super) formats: Vec<Format>,
    pub(super) stalled_writes: StalledWrites,
}

impl Plan {
    pub(super) async fn new(
        options: &Options,
        recognizer: Arc<dyn Recognizer>,
    ) -> Result<Self, Failure> {
        let (call, result) = (&options.call, &options.result);
        let mut prompts = Vec::new();
        if let Some(path) = &call.greeting {
            prompts.push(Clip::open(path).map_err(Failure::new)?);
        }
        match &call.announce {
            Some(Some(path)) => prompts.push(Clip::open(path).map_err(Failure::new)?),
            Some(None) => prompts.push(two_notes()?),
            None => {}
        }
        for clip in &prompts {
            // Most calls are 8 kHz. They need not wait for the resampler.
            clip.prepare(Rate::Slin).await;
        }
        if let Some(directory) = &result.output {
            files::prepare(directory)?;
        }
        Ok(Self {
            recognizer,
            both: call.both,
            prompts,
            announces: call.announce.is_some(),
            stop_word: call.stop_word.clone(),
            time_limit: call.time_limit.unwrap_or(NO_LIMIT),
            interim: result.interim,
            json: result.json,
            output: result.output.clone(),
            formats: result.format.clone(),
            stalled_writes: StalledWrites::default(),
        })
    }
}

/// The announcement without a file. It only tells the caller that something happens.
fn two_notes() -> Result<Clip, Failure> {
    let hz = Rate::Slin.hz();
    Clip::from_samples(hz, tone::greeting(hz)).map_err(Failure::new)
}
