//! A handler that has its call written down.

use std::time::{Duration, Instant};

use sidetone::{Call, Event, Frame};
use sidetone_speech::{Format, Recognizer, SpeechEvent, transcribe};

/// What came of a call.
pub(crate) struct Written {
    /// All that the recognizer told, and when.
    pub(crate) events: Vec<(Instant, SpeechEvent)>,
    pub(crate) gaps: Gaps,
}

/// Where on the call's clock frames do not follow each other: the caller, Asterisk or the machine stood still.
#[derive(Default)]
pub(crate) struct Gaps {
    all: Vec<Duration>,
    /// Those that a recognizer gets to hear as silence.
    silent: Vec<(Duration, Duration)>,
    /// Where the last frame ended.
    end: Duration,
    /// Where the next one would begin if nothing but silent gaps were missing before it.
    due: Duration,
}

/// What a session passes over, taken together since the last silent gap.
const TOLERATED: Duration = Duration::from_millis(60);

/// What is missing is found out so late, at most, if it is little.
const FOUND_OUT: Duration = Duration::from_secs(1);

impl Gaps {
    /// Whether a recognizer hears silence in this part of the call that was not sent.
    pub(crate) fn silence(&self, from: Duration, to: Duration) -> bool {
        self.silent
            .iter()
            .any(|(begin, end)| *begin < to && from < *end)
    }

    /// Whether frames may be missing in this part of the call.
    pub(crate) fn may_touch(&self, from: Duration, to: Duration) -> bool {
        self.all
            .iter()
            .any(|at| from <= *at && *at <= to + FOUND_OUT)
    }

    fn hear(&mut self, frame: &Frame<'_>) {
        let at = frame.offset();
        if at > self.end {
            self.all.push(at);
        }
        if at.saturating_sub(self.due) > TOLERATED {
            self.silent.push((self.due, at));
            self.due = at;
        }
        self.end = at + frame.duration();
        self.due += frame.duration();
    }
}

/// Writes the call down to its end; `hear` gets every frame as well.
pub(crate) async fn write_down(
    call: &mut Call,
    recognizer: impl Recognizer,
    mut hear: impl FnMut(&Frame<'_>),
) -> Written {
    let (mut input, mut told) = transcribe(recognizer, Format::linear(8_000));
    let (mut events, mut gaps) = (Vec::new(), Gaps::default());
    loop {
        tokio::select! {
            event = call.next() => match event {
                Some(Event::Audio(frame)) => {
                    input.push(frame.offset(), frame.samples());
                    gaps.hear(&frame);
                    hear(&frame);
                }
                Some(_) => {}
                None => break,
            },
            Some(event) = told.next() => events.push((Instant::now(), event)),
        }
    }
    input.finish();
    while let Some(event) = told.next().await {
        events.push((Instant::now(), event));
    }
    Written { events, gaps }
}
