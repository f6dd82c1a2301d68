//! Reports, shows, counts and writes what the recognizers of one call return.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sidetone::CallHandle;
use sidetone_speech::SpeechEvent;
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use super::{
    events::TranscribeEvent,
    files::Files,
    hang_up::{HangUpReason, hang_up},
    plan::Plan,
    summary::TranscriptStats,
    track::RecognizerEvent,
    transcript::{CallTranscript, Side, one_line},
    words::words,
};
use crate::{format::short_id, output::Reporter, registry::CallEntry};

/// Writes one call's transcript. It may outlast the call, until the last transcripts come.
pub(super) struct TranscriptWriter {
    pub(super) plan: Arc<Plan>,
    pub(super) reporter: Reporter,
    pub(super) call: CallHandle,
    /// It delays the report of the call's end until the last transcript is reported.
    pub(super) entry: Arc<CallEntry>,
    /// When the UUID came.
    pub(super) started: Instant,
}

impl TranscriptWriter {
    /// Writes until all recognizers of the call have ended.
    pub(super) async fn run(self, mut events: mpsc::Receiver<RecognizerEvent>) {
        let mut files = self.create_files().await;
        let mut stats = TranscriptStats::default();
        let mut unavailable = HashSet::new();
        let id = self.call.id();
        while let Some((side, event)) = events.recv().await {
            match event {
                SpeechEvent::Transcript(transcript) => {
                    let transcript = CallTranscript::new(id, side, transcript);
                    self.add(transcript, &mut files, &mut stats).await;
                }
                SpeechEvent::Lost { from, to } => {
                    stats.add_lost(to.saturating_sub(from));
                    self.report_not_transcribed(side, from, to, &mut files)
                        .await;
                }
                // Further attempts that fail are not reported.
                SpeechEvent::Retrying { error, .. } if unavailable.insert(side) => {
                    let text = one_line(&error.to_string());
                    self.reporter
                        .report(TranscribeEvent::RecognizerUnavailable { id, side, text });
                }
                SpeechEvent::Recovered => {
                    unavailable.remove(&side);
                    self.reporter
                        .report(TranscribeEvent::RecognizerRecovered { id, side });
                }
                SpeechEvent::Failed(error) => {
                    let text = one_line(&error.to_string());
                    self.reporter
                        .report(TranscribeEvent::RecognizerRefused { id, side, text });
                }
                _ => {}
            }
        }
        for (speaker, text) in self.entry.captions().texts() {
            let id = short_id(id);
            self.reporter.print(format!("{id}  {speaker}: {text}"));
        }
        let (paths, failure) = files.finish().await;
        let duration = self.call.stats().duration;
        let summary = stats.summary(id, duration, paths, failure);
        self.reporter.report(TranscribeEvent::Transcribed(summary));
    }

    async fn create_files(&self) -> Files {
        let plan = &self.plan;
        match &plan.output {
            Some(directory) => {
                let stalled = plan.stalled_writes.clone();
                Files::create(stalled, directory, &plan.formats, plan.both, self.call.id()).await
            }
            None => Files::default(),
        }
    }

    async fn add(
        &self,
        transcript: CallTranscript,
        files: &mut Files,
        stats: &mut TranscriptStats,
    ) {
        if !transcript.is_final && !self.plan.interim {
            return;
        }
        let CallTranscript {
            side,
            ref text,
            is_final,
            ..
        } = transcript;
        self.entry.captions().add(side.name(), text, is_final);
        if self.plan.json {
            self.reporter
                .report(TranscribeEvent::Transcript(transcript.clone()));
        }
        if !is_final || text.is_empty() {
            return;
        }
        stats.add(&transcript, self.started.elapsed());
        if side == Side::Caller && self.has_stop_word(text) {
            hang_up(&self.call, &self.reporter, HangUpReason::StopWord);
        }
        files
            .add(move |formatter| formatter.transcript(&transcript))
            .await;
    }

    async fn report_not_transcribed(
        &self,
        side: Side,
        from: Duration,
        to: Duration,
        files: &mut Files,
    ) {
        let id: Uuid = self.call.id();
        let (from_ms, to_ms) = (from.as_millis() as u64, to.as_millis() as u64);
        self.reporter.report(TranscribeEvent::NotTranscribed {
            id,
            side,
            from_ms,
            to_ms,
        });
        files
            .add(move |formatter| formatter.not_transcribed(id, side, from_ms, to_ms))
            .await;
    }

    fn has_stop_word(&self, text: &str) -> bool {
        let stop_word = self.plan.stop_word.as_deref();
        stop_word.is_some_and(|stop| words(&text.to_lowercase()).any(|word| word == stop))
    }
}
