//! Standard output, written by one thread. No call waits for a slow terminal or pipe, and neither does the end of the
//! process.

pub(crate) mod captions;
mod queue;
pub(crate) mod table;

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    clock,
    event::{Event, json_line},
    failure::{Failure, print_error},
    sanitize::sanitize,
};
use queue::{Message, Queue};
use table::{RunningCalls, Table};

/// How often the running calls are drawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// How long the last lines may take. A process that reads takes all that can be queued in some milliseconds.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// One JSON line per event.
    Json,
    /// Sentences.
    Text,
    /// Sentences, with the running calls below them.
    Screen,
}

impl Style {
    /// For a person at a terminal, else for a program.
    pub(crate) fn of_stdout() -> Self {
        if io::stdout().is_terminal() {
            Self::Screen
        } else {
            Self::Json
        }
    }

    /// For a person in any case.
    pub(crate) fn for_people() -> Self {
        if io::stdout().is_terminal() {
            Self::Screen
        } else {
            Self::Text
        }
    }
}

/// Queues events for standard output. It never waits.
#[derive(Clone, Debug)]
pub(crate) struct Reporter(Arc<Queue>);

impl Reporter {
    pub(crate) fn report(&self, event: impl Event + 'static) {
        self.0.push(Message::Event(Box::new(event)));
    }

    /// Prints a line for people. It is left out of JSON output.
    pub(crate) fn print(&self, line: impl Into<String>) {
        self.0.push(Message::Line(line.into()));
    }
}

/// Events are missing at this place, because standard output did not take them in time.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "events_dropped")]
struct EventsDropped {
    events: u64,
}

impl Event for EventsDropped {
    fn to_json(&self) -> String {
        json_line(self)
    }

    fn text(&self) -> String {
        format!(
            "{} events are missing here: standard output was not read in time",
            self.events
        )
    }

    fn call(&self) -> Option<Uuid> {
        None
    }
}

/// The thread that writes standard output.
#[derive(Debug)]
pub(crate) struct Output {
    reporter: Reporter,
    calls: Arc<OnceLock<Arc<dyn RunningCalls>>>,
    /// It is closed when the thread has ended.
    thread: Receiver<()>,
}

impl Output {
    /// Starts the thread. The text leaves out the events of the call `hidden`, except [`Event::is_always_shown`].
    pub(crate) fn start(style: Style, hidden: Option<Uuid>) -> Result<Self, Failure> {
        let queue = Arc::<Queue>::default();
        let calls = Arc::default();
        let writer = Writer {
            style,
            hidden,
            calls: Arc::clone(&calls),
            table: Table::default(),
            dropped: 0,
            is_line_cut: false,
        };
        let (running, thread) = mpsc::channel();
        let (builder, messages) = (thread::Builder::new(), Arc::clone(&queue));
        builder
            .name("sidetone-output".into())
            .spawn(move || writer.run(&messages, running))
            .map_err(Failure::cant_start)?;
        Ok(Self {
            reporter: Reporter(queue),
            calls,
            thread,
        })
    }

    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Draws these calls from now on.
    pub(crate) fn show(&self, calls: Arc<dyn RunningCalls>) {
        // It is set once: a process has one server.
        let _ = self.calls.set(calls);
    }

    /// Writes what is queued, and ends. It gives up after [`FLUSH_TIMEOUT`] if nothing reads standard output.
    pub(crate) fn finish(self) {
        self.reporter.0.finish();
        if let Err(RecvTimeoutError::Timeout) = self.thread.recv_timeout(FLUSH_TIMEOUT) {
            print_error("standard output was not read, so the last events are missing there");
        }
    }
}

struct Writer {
    style: Style,
    hidden: Option<Uuid>,
    calls: Arc<OnceLock<Arc<dyn RunningCalls>>>,
    table: Table,
    /// Events that standard output did not take.
    dropped: u64,
    /// Standard output took only a part of the last line.
    is_line_cut: bool,
}

impl Writer {
    /// Dropping `_running` at the end closes [`Output`]'s channel.
    fn run(mut self, messages: &Queue, _running: Sender<()>) {
        let redraw = (self.style == Style::Screen).then_some(REDRAW_INTERVAL);
        let mut taken = Vec::new();
        loop {
            let goes_on = messages.take(&mut taken, redraw);
            let (mut text, mut events) = (String::new(), 0);
            if self.dropped > 0 {
                self.format(Message::Dropped(self.dropped), &mut text);
            }
            for message in taken.drain(..) {
                events += message.events();
                self.format(message, &mut text);
            }
            self.write(text, events, goes_on);
            if !goes_on {
                return;
            }
        }
    }

    /// Appends the lines of a message to `text`.
    fn format(&self, message: Message, text: &mut String) {
        let event = match message {
            Message::Line(line) if self.style != Style::Json => return push_line(text, &line),
            Message::Line(_) => return,
            Message::Dropped(events) => Box::new(EventsDropped { events }),
            Message::Event(event) => event,
        };
        if self.style == Style::Json {
            push_line(text, &event.to_json());
        } else if !self.is_hidden(&*event) {
            let time = clock::local();
            for (number, line) in event.lines().into_iter().enumerate() {
                let line = match number {
                    0 => format!("{time}  {line}"),
                    _ => line,
                };
                push_line(text, &line);
            }
        }
    }

    fn is_hidden(&self, event: &dyn Event) -> bool {
        let call = event.call();
        call.is_some() && call == self.hidden && !event.is_always_shown()
    }

    fn write(&mut self, text: String, events: u64, goes_on: bool) {
        let mut text = match (self.style, self.calls.get()) {
            (Style::Screen, Some(calls)) if goes_on => self.table.redraw(&text, &**calls),
            (Style::Screen, _) => self.table.erase() + &text,
            _ => text,
        };
        if text.is_empty() {
            return;
        }
        if self.is_line_cut {
            text.insert(0, '\n');
        }
        // A reader that has gone must not end the calls, and neither must a full disk.
        match write_all(text.as_bytes()) {
            Ok(()) => (self.dropped, self.is_line_cut) = (0, false),
            Err(written) => {
                self.dropped += events;
                if written > 0 {
                    self.is_line_cut = text.as_bytes()[written - 1] != b'\n';
                }
            }
        }
    }
}

/// Writes all of it to standard output. The error is the number of bytes that were written before the failure. It
/// bypasses the standard library's buffer, which would be flushed, and waited for, when the process exits.
fn write_all(bytes: &[u8]) -> Result<(), usize> {
    let stdout = io::stdout();
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(&stdout, &bytes[written..]) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            // Another process that shares standard output has made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None);
            }
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

/// Appends exactly one line.
fn push_line(text: &mut String, line: &str) {
    text.push_str(&sanitize(line));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recordings::Recorded;

    #[test]
    fn a_recording_with_control_characters_in_its_name_is_reported_in_one_line() {
        for failure in [None, Some("no room\r\nin \x7f".into())] {
            let event = Recorded {
                id: Uuid::nil(),
                files: vec!["dir/a\x1b[2J\u{9b}2J\nb.wav".into()],
                duration_ms: 1000,
                surplus_ms: 0,
                lost_frames: 0,
                failure,
            };
            let mut text = String::new();
            let lines = event.lines();
            lines.iter().for_each(|line| push_line(&mut text, line));
            push_line(&mut text, &event.to_json());
            assert_eq!(text.matches('\n').count(), 2, "{text:?}");
            let letters = text.replace('\n', "");
            assert!(!letters.contains(char::is_control), "{text:?}");
        }
    }
}
