//! Takes down what the recognizers of one call understand.

use std::{collections::HashSet, sync::Arc, time::Duration};

use sidetone::CallHandle;
use sidetone_speech::SpeechEvent;
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use super::{
    Plan,
    files::Files,
    line::{Line, Side, one_line},
    tally::Tally,
    words,
};
use crate::{board::Row, events::Event, prose::short, report::Teller};

/// What one side's recognizer says.
pub(super) type Said = (Side, SpeechEvent);

/// Writes one call's transcript. It stays a little longer than the call, for the last words.
pub(super) struct Scribe {
    pub(super) plan: Arc<Plan>,
    pub(super) teller: Teller,
    pub(super) call: CallHandle,
    /// Keeps the end of the call from being told before the last transcript.
    pub(super) row: Arc<Row>,
    /// When the UUID came.
    pub(super) began: Instant,
}

impl Scribe {
    /// Writes until nobody says anything any more.
    pub(super) async fn write(self, mut said: mpsc::Receiver<Said>) {
        let plan = &self.plan;
        let mut files = match &plan.output {
            Some(directory) => {
                let (disk, formats) = (plan.disk.clone(), &plan.formats);
                Files::create(disk, directory, formats, plan.both, self.id()).await
            }
            None => Files::default(),
        };
        let mut tally = Tally::default();
        let mut away = HashSet::new();
        while let Some((side, event)) = said.recv().await {
            match event {
                SpeechEvent::Transcript(transcript) => {
                    let line = Line::new(self.id(), side, transcript);
                    self.take_down(line, &mut files, &mut tally).await;
                }
                SpeechEvent::Lost { from, to } => {
                    tally.lose(to.saturating_sub(from));
                    self.say_lost(side, from, to, &mut files).await;
                }
                // That the next try fails, too, is no news.
                SpeechEvent::Retrying { error, .. } if away.insert(side) => {
                    let (id, text) = (self.id(), one_line(&error.to_string()));
                    self.teller.tell(Event::RecognizerAway { id, side, text });
                }
                SpeechEvent::Recovered => {
                    away.remove(&side);
                    let id = self.id();
                    self.teller.tell(Event::RecognizerBack { id, side });
                }
                SpeechEvent::Failed(error) => {
                    let (id, text) = (self.id(), one_line(&error.to_string()));
                    self.teller
                        .tell(Event::RecognizerRefused { id, side, text });
                }
                _ => {}
            }
        }
        for (side, text) in self.row.captions().texts() {
            let id = short(self.id());
            self.teller.say(format!("{id}  {}: {text}", side.name()));
        }
        let (paths, failure) = files.finish().await;
        let duration = self.call.stats().duration;
        let summary = tally.summary(self.id(), duration, paths, failure);
        self.teller.tell(Event::Transcribed(summary));
    }

    fn id(&self) -> Uuid {
        self.call.id()
    }

    async fn take_down(&self, line: Line, files: &mut Files, tally: &mut Tally) {
        if !line.is_final && !self.plan.interim {
            return;
        }
        self.row.captions().show(&line);
        if self.plan.json {
            self.teller.tell(Event::Transcript(line.clone()));
        }
        if !line.is_final || line.text.is_empty() {
            return;
        }
        tally.add(&line, self.began.elapsed());
        if line.side == Side::Caller && self.is_stop_word_in(&line.text) {
            self.hang_up("stop_word", "the stop word was said");
        }
        files.add(move |writer| writer.transcript(&line)).await;
    }

    async fn say_lost(&self, side: Side, from: Duration, to: Duration, files: &mut Files) {
        let event = Event::NotTranscribed {
            id: self.id(),
            side,
            from_ms: from.as_millis() as u64,
            to_ms: to.as_millis() as u64,
        };
        self.teller.tell(event.clone());
        files
            .add(move |writer| writer.lost(&event, side, from, to))
            .await;
    }

    fn is_stop_word_in(&self, text: &str) -> bool {
        let stop = self.plan.stop_word.as_deref();
        stop.is_some_and(|stop| words(&text.to_lowercase()).any(|word| word == stop))
    }

    fn hang_up(&self, reason: &'static str, text: &'static str) {
        hang_up(&self.call, &self.teller, reason, text);
    }
}

/// Ends a call, unless it is over.
pub(super) fn hang_up(
    call: &CallHandle,
    teller: &Teller,
    reason: &'static str,
    text: &'static str,
) {
    if call.ended().is_none() {
        let id = call.id();
        teller.tell(Event::HangingUp { id, reason, text });
        call.hang_up();
    }
}
