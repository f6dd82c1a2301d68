//! One thread says everything on standard output, so that no call waits for a slow terminal or pipe.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc, OnceLock,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    board::Board,
    clock,
    events::{Event, json_line},
    prose,
    terminal::Table,
};

/// How often the live calls are drawn.
const REDRAW: Duration = Duration::from_millis(250);

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
pub(crate) struct Teller(mpsc::Sender<Message>);

#[derive(Debug)]
enum Message {
    Event(Event),
    Line(String),
    Finish,
}

impl Teller {
    pub(crate) fn tell(&self, event: Event) {
        // After the end nobody listens any more.
        let _ = self.0.send(Message::Event(event));
    }

    /// A line of its own making; nothing for programs.
    pub(crate) fn say(&self, line: impl Into<String>) {
        let _ = self.0.send(Message::Line(line.into()));
    }
}

/// The thread that says it.
#[derive(Debug)]
pub(crate) struct Reporter {
    teller: Teller,
    board: Arc<OnceLock<Arc<Board>>>,
    thread: JoinHandle<()>,
}

impl Reporter {
    /// `untold`: the call of which nothing is said, since its story is told in other words.
    pub(crate) fn start(style: Style, untold: Option<Uuid>) -> Self {
        let (sender, messages) = mpsc::channel();
        let board = Arc::<OnceLock<Arc<Board>>>::default();
        let mouth = Mouth {
            style,
            untold,
            board: Arc::clone(&board),
            table: Table::default(),
        };
        Self {
            teller: Teller(sender),
            board,
            thread: thread::spawn(move || mouth.run(&messages)),
        }
    }

    pub(crate) fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// From now on these calls are shown.
    pub(crate) fn show(&self, board: &Arc<Board>) {
        // A server has one board.
        let _ = self.board.set(Arc::clone(board));
    }

    /// Says what is still to be said, and ends.
    pub(crate) fn finish(self) {
        let _ = self.teller.0.send(Message::Finish);
        // If it panicked there is nothing more to say.
        let _ = self.thread.join();
    }
}

struct Mouth {
    style: Style,
    untold: Option<Uuid>,
    board: Arc<OnceLock<Arc<Board>>>,
    table: Table,
}

impl Mouth {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let message = match self.style {
                Style::Screen => messages.recv_timeout(REDRAW),
                _ => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mut text = String::new();
            let goes_on = match message {
                Ok(message) => self.put(message, &mut text),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            self.show(text, goes_on);
            if !goes_on {
                return;
            }
        }
    }

    /// Adds what is to be said; false if it was the last.
    fn put(&self, message: Message, text: &mut String) -> bool {
        match message {
            Message::Finish => return false,
            Message::Line(line) if self.style != Style::Json => push_line(text, &line),
            Message::Line(_) => {}
            Message::Event(event) if self.style == Style::Json => {
                push_line(text, &json_line(&event))
            }
            Message::Event(event) if self.is_untold(&event) => {}
            Message::Event(event) => {
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
        true
    }

    fn is_untold(&self, event: &Event) -> bool {
        let recorded = matches!(event, Event::Recorded { .. });
        event.call().is_some() && event.call() == self.untold && !recorded
    }

    fn show(&mut self, text: String, goes_on: bool) {
        let text = match (self.style, self.board.get()) {
            (Style::Screen, Some(board)) if goes_on => self.table.redraw(&text, &board.rows()),
            (Style::Screen, _) => self.table.erase() + &text,
            _ => text,
        };
        let mut stdout = io::stdout().lock();
        // A reader that has gone away must not end the calls.
        let _ = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
