//! The demonstration, told as it happens.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sidetone_audio::level::rms_dbfs;
use sidetone_caller::Event;
use uuid::Uuid;

use super::{SPEAKS_AT, SPEAKS_FOR};
use crate::report::Teller;

/// From this level on there is something to hear, in dBFS.
const AUDIBLE: f32 = -50.0;

pub(super) struct Story {
    call: Uuid,
    teller: Teller,
    /// When the UUID was sent: both sides' times count from there.
    start: OnceLock<Instant>,
    told: Mutex<Told>,
}

/// What needs to be told once.
#[derive(Default)]
struct Told {
    heard: bool,
    speaks: bool,
    echo: bool,
    spoken: bool,
    /// The server may be quicker than the caller's own observer.
    before_the_call: Vec<String>,
    calls: bool,
}

impl Story {
    pub(super) fn new(call: Uuid, teller: Teller) -> Arc<Self> {
        Arc::new(Self {
            call,
            teller,
            start: OnceLock::new(),
            told: Mutex::default(),
        })
    }

    pub(super) fn begin(&self, address: SocketAddr) {
        self.teller.say("");
        self.teller.say(format!("  A server listens on {address}."));
        self.teller
            .say("  Now a call to it, placed as Asterisk would:");
        self.teller.say("");
    }

    /// What the handler does, if it is this call's.
    pub(super) fn server(&self, call: Uuid, what: &str) {
        if call != self.call {
            return;
        }
        let start = self.start.get_or_init(Instant::now);
        let line = line(start.elapsed(), "server", what);
        let mut told = self.told.lock();
        match told.calls {
            true => self.teller.say(line),
            false => told.before_the_call.push(line),
        }
    }

    /// What the caller lives through.
    pub(super) fn caller(&self, event: Event<'_>) {
        let mut told = self.told.lock();
        match event {
            Event::Connected { uuid, .. } => {
                self.start.get_or_init(Instant::now);
                let what = format!("calls; its UUID is {uuid}");
                self.tell(Duration::ZERO, "caller", &what);
                told.calls = true;
                let waiting = std::mem::take(&mut told.before_the_call);
                waiting.into_iter().for_each(|line| self.teller.say(line));
            }
            Event::Heard { at, samples, .. } if rms_dbfs(samples) > AUDIBLE => {
                if !told.heard {
                    told.heard = true;
                    self.tell(at, "caller", "hears the greeting");
                }
                if told.speaks && !told.echo {
                    told.echo = true;
                    self.tell(at, "caller", "hears itself");
                }
            }
            Event::Sent { at, .. } if at >= SPEAKS_AT && !told.speaks => {
                told.speaks = true;
                self.tell(at, "caller", "begins to speak");
            }
            Event::Sent { at, .. } if at >= SPEAKS_AT + SPEAKS_FOR && !told.spoken => {
                told.spoken = true;
                self.tell(at, "caller", "has spoken");
            }
            Event::Digit { at, digit } => self.tell(at, "caller", &format!("presses {digit}")),
            Event::Ended(ended) => {
                self.tell(ended.at, "caller", &format!("is done: {}", ended.cause))
            }
            _ => {}
        }
    }

    fn tell(&self, at: Duration, who: &str, what: &str) {
        self.teller.say(line(at, who, what));
    }
}

fn line(at: Duration, who: &str, what: &str) -> String {
    format!("  {:5.2} s  {who}  {what}", at.as_secs_f64())
}

/// What to do next.
pub(super) fn invitation(address: SocketAddr, dialplan: &[String]) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!(
            "  It goes on listening on {address}. To call it from your Asterisk, put this into"
        ),
        "  extensions.conf and dial 9092:".into(),
        String::new(),
    ];
    lines.extend(dialplan.iter().map(|line| format!("    {line}")));
    lines.extend([String::new(), "  Ctrl-C ends it.".into(), String::new()]);
    lines
}
