//! One thread says everything on standard output, so that no call waits for a slow terminal or pipe, and neither
//! does the end of the process.

mod queue;

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
use uuid::Uuid;

use crate::{
    board::Board,
    clock,
    events::{Event, json_line},
    failure::{Failure, complain},
    plain::plain,
    prose,
    terminal::Table,
};
use queue::{Message, Queue};

/// How often the live calls are drawn.
const REDRAW: Duration = Duration::from_millis(250);

/// How long the last words may take. A reader that is there is done with all that can wait in some milliseconds.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How things are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// One JSON line per event.
    Json,
    /// Sentences.
    Prose,
    /// Sentences, and below them the live calls.
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
    pub(crate) fn readable() -> Self {
        if io::stdout().is_terminal() {
            Self::Screen
        } else {
            Self::Prose
        }
    }
}

/// Passes on what is to be said. Never waits.
#[derive(Clone, Debug)]
pub(crate) struct Teller(Arc<Queue>);

impl Teller {
    pub(crate) fn tell(&self, event: Event) {
        self.0.push(Message::Event(event));
    }

    /// A line of its own making; nothing for programs.
    pub(crate) fn say(&self, line: impl Into<String>) {
        self.0.push(Message::Line(line.into()));
    }
}

/// The thread that says it.
#[derive(Debug)]
pub(crate) struct Reporter {
    teller: Teller,
    board: Arc<OnceLock<Arc<Board>>>,
    /// It is closed when the thread has ended.
    thread: Receiver<()>,
}

impl Reporter {
    /// `unreported`: the call of which nothing is said, since its story is told in other words.
    pub(crate) fn start(style: Style, unreported: Option<Uuid>) -> Result<Self, Failure> {
        let queue = Arc::<Queue>::default();
        let board = Arc::<OnceLock<Arc<Board>>>::default();
        let mouth = Mouth {
            style,
            unreported,
            board: Arc::clone(&board),
            table: Table::default(),
            lost: 0,
            is_cut: false,
        };
        let (running, thread) = mpsc::channel();
        let (builder, messages) = (thread::Builder::new(), Arc::clone(&queue));
        builder
            .name("sidetone-report".into())
            .spawn(move || mouth.run(&messages, running))
            .map_err(|error| Failure::new(format_args!("can't start: {error}")))?;
        Ok(Self {
            teller: Teller(queue),
            board,
            thread,
        })
    }

    pub(crate) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// From now on these calls are shown.
    pub(crate) fn show(&self, board: &Arc<Board>) {
        // A server has one board.
        let _ = self.board.set(Arc::clone(board));
    }

    /// Says what is still to be said, and ends. It does not wait for a reader who is not there.
    pub(crate) fn finish(self) {
        self.teller.0.finish();
        if let Err(RecvTimeoutError::Timeout) = self.thread.recv_timeout(LAST_WORDS) {
            complain("standard output was not read, so the last events are missing there");
        }
    }
}

struct Mouth {
    style: Style,
    unreported: Option<Uuid>,
    board: Arc<OnceLock<Arc<Board>>>,
    table: Table,
    /// Events that standard output did not take.
    lost: u64,
    /// Nor did it take the last line whole.
    is_cut: bool,
}

impl Mouth {
    /// `_running` goes when this does.
    fn run(mut self, messages: &Queue, _running: Sender<()>) {
        let redraw = (self.style == Style::Screen).then_some(REDRAW);
        let mut taken = Vec::new();
        loop {
            let goes_on = messages.take(&mut taken, redraw);
            let (mut text, mut events) = (String::new(), 0);
            if self.lost > 0 {
                self.put(Message::Dropped(self.lost), &mut text);
            }
            for message in taken.drain(..) {
                events += message.events();
                self.put(message, &mut text);
            }
            self.show(text, events, goes_on);
            if !goes_on {
                return;
            }
        }
    }

    /// Adds what is to be said.
    fn put(&self, message: Message, text: &mut String) {
        let event = match message {
            Message::Line(line) if self.style != Style::Json => return push_line(text, &line),
            Message::Line(_) => return,
            Message::Dropped(events) => Event::EventsDropped { events },
            Message::Event(event) => event,
        };
        if self.style == Style::Json {
            push_line(text, &json_line(&event));
        } else if !self.is_unreported(&event) {
            let time = clock::local();
            for (place, line) in prose::lines(&event).iter().enumerate() {
                let line = if place == 0 {
                    format!("{time}  {line}")
                } else {
                    line.clone()
                };
                push_line(text, &line);
            }
        }
    }

    fn is_unreported(&self, event: &Event) -> bool {
        let recorded = matches!(event, Event::Recorded { .. });
        event.call().is_some() && event.call() == self.unreported && !recorded
    }

    fn show(&mut self, text: String, events: u64, goes_on: bool) {
        let mut text = match (self.style, self.board.get()) {
            (Style::Screen, Some(board)) if goes_on => self.table.redraw(&text, &board.rows()),
            (Style::Screen, _) => self.table.erase() + &text,
            _ => text,
        };
        if text.is_empty() {
            return;
        }
        if self.is_cut {
            text.insert(0, '\n');
        }
        // A reader that has gone away must not end the calls, nor must a full disk.
        match write(text.as_bytes()) {
            Ok(()) => (self.lost, self.is_cut) = (0, false),
            Err(written) => {
                self.lost += events;
                if written > 0 {
                    self.is_cut = text.as_bytes()[written - 1] != b'\n';
                }
            }
        }
    }
}

/// Writes all of it to standard output, or says how much of it went there before it failed. What is written past the
/// standard library's buffer can't be waited for once more when the process ends.
fn write(bytes: &[u8]) -> Result<(), usize> {
    let stdout = io::stdout();
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(&stdout, &bytes[written..]) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            // Somebody who shares it has made it one that does not wait.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None);
            }
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

/// Adds a line, and no more than that.
fn push_line(text: &mut String, line: &str) {
    text.push_str(&plain(line));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_whose_name_is_made_to_look_like_more_is_told_in_one_line() {
        for failure in [None, Some("no room\r\nin \x7f".into())] {
            let event = Event::Recorded {
                id: Uuid::nil(),
                files: vec!["dir/a\x1b[2J\u{9b}2J\nb.wav".into()],
                duration_ms: 1000,
                surplus_ms: 0,
                lost_frames: 0,
                failure,
            };
            let mut text = String::new();
            let lines = prose::lines(&event);
            lines.iter().for_each(|line| push_line(&mut text, line));
            push_line(&mut text, &json_line(&event));
            assert_eq!(text.matches('\n').count(), 2, "{text:?}");
            let letters = text.replace('\n', "");
            assert!(!letters.contains(char::is_control), "{text:?}");
        }
    }
}
