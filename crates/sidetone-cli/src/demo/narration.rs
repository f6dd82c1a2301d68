//! Describes the demonstration as it happens.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sidetone_audio::level::rms_dbfs;
use sidetone_caller::Event;
use uuid::Uuid;

use super::script::{AUDIBLE_DBFS, SPEAKS_AT, SPEAKS_FOR};
use crate::output::Reporter;

pub(super) struct Narrator {
    call: Uuid,
    reporter: Reporter,
    /// When the UUID was sent. The times of both sides start there.
    start: OnceLock<Instant>,
    progress: Mutex<Progress>,
}

/// What has happened, as most of it is reported once.
#[derive(Default)]
struct Progress {
    is_connected: bool,
    /// The server's lines from before the caller reported its connection.
    early_lines: Vec<String>,
    hears_greeting: bool,
    speaks: bool,
    hears_echo: bool,
    has_spoken: bool,
}

impl Narrator {
    pub(super) fn new(call: Uuid, reporter: Reporter) -> Arc<Self> {
        Arc::new(Self {
            call,
            reporter,
            start: OnceLock::new(),
            progress: Mutex::default(),
        })
    }

    pub(super) fn introduce(&self, address: SocketAddr) {
        for line in [
            "",
            &format!("  A server listens on {address}."),
            "  Now it gets a call, placed as Asterisk would:",
            "",
        ] {
            self.reporter.print(line);
        }
    }

    /// Describes what the handler does, if the call is the demonstration's.
    pub(super) fn server(&self, call: Uuid, what: &str) {
        if call != self.call {
            return;
        }
        let start = self.start.get_or_init(Instant::now);
        let line = line(start.elapsed(), "server", what);
        let mut progress = self.progress.lock();
        match progress.is_connected {
            true => self.reporter.print(line),
            false => progress.early_lines.push(line),
        }
    }

    /// Describes what the caller does and hears.
    pub(super) fn caller(&self, event: Event<'_>) {
        let mut progress = self.progress.lock();
        match event {
            Event::Connected { uuid, .. } => {
                self.start.get_or_init(Instant::now);
                let what = format!("calls; its UUID is {uuid}");
                self.print(Duration::ZERO, &what);
                progress.is_connected = true;
                let lines = std::mem::take(&mut progress.early_lines);
                lines.into_iter().for_each(|line| self.reporter.print(line));
            }
            Event::Heard { at, samples, .. } if rms_dbfs(samples) > AUDIBLE_DBFS => {
                if !progress.hears_greeting {
                    progress.hears_greeting = true;
                    self.print(at, "hears the greeting");
                }
                if progress.speaks && !progress.hears_echo {
                    progress.hears_echo = true;
                    self.print(at, "hears itself");
                }
            }
            Event::Sent { at, .. } if at >= SPEAKS_AT && !progress.speaks => {
                progress.speaks = true;
                self.print(at, "starts to speak");
            }
            Event::Sent { at, .. } if at >= SPEAKS_AT + SPEAKS_FOR && !progress.has_spoken => {
                progress.has_spoken = true;
                self.print(at, "stops speaking");
            }
            Event::Digit { at, digit } => self.print(at, &format!("presses {digit}")),
            Event::Ended(ended) => self.print(ended.at, &format!("ends: {}", ended.cause)),
            _ => {}
        }
    }

    fn print(&self, at: Duration, what: &str) {
        self.reporter.print(line(at, "caller", what));
    }
}

fn line(at: Duration, who: &str, what: &str) -> String {
    format!("  {:5.2} s  {who}  {what}", at.as_secs_f64())
}

/// What to try next.
pub(super) fn next_steps(address: SocketAddr, dialplan: &[String]) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "  The server keeps listening on {address}. To call it from your Asterisk, put this"
        ),
        "  into extensions.conf and dial 9092:".into(),
        String::new(),
    ];
    lines.extend(dialplan.iter().map(|line| format!("    {line}")));
    lines.extend([
        String::new(),
        "  Press Ctrl-C to end it.".into(),
        String::new(),
    ]);
    lines
}
