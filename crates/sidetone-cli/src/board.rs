//! The calls of this process, as its output sees them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use sidetone::{Call, CallHandle, CallSummary, Event as CallEvent};
use sidetone_audio::level::{FLOOR_DBFS, Meter};
use uuid::Uuid;

use crate::{events::Event, flood::Limit, report::Teller, transcribe::captions::Captions};

/// How long the last words about calls may take when the server is done.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Events of one kind that are told of a call each second, more than people and Asterisk cause; the rest are counted.
const OF_A_CALL: u32 = 20;

/// Connections rejected that are told each second; the rest are counted.
const TURNED_AWAY: u32 = 100;

/// All calls that have begun and of which the end was not told yet.
#[derive(Debug)]
pub(crate) struct Board {
    rows: Mutex<Vec<Arc<Row>>>,
    rejected: Mutex<Limit>,
    teller: Teller,
    log_digits: bool,
}

/// One call. It goes with the call to its handler. When the server and the handler both are done with it, its end is told: so
/// nothing is told of a call after that.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) peer: SocketAddr,
    handle: OnceLock<CallHandle>,
    /// In dBFS, as the bits of an `f32`.
    level: AtomicU32,
    captions: Mutex<Captions>,
    summary: Mutex<Option<CallSummary>>,
    teller: Teller,
}

/// A handler's way of reading a call, which tells what it reads.
#[derive(Debug)]
pub(crate) struct Watch {
    row: Arc<Row>,
    meter: Option<Meter>,
    log_digits: bool,
    limits: Limits,
}

/// What may come by the thousand.
#[derive(Debug)]
struct Limits {
    dtmf: Limit,
    trouble: Limit,
    /// It counts frames.
    lagged: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        let limit = || Limit::new(OF_A_CALL);
        Self {
            dtmf: limit(),
            trouble: limit(),
            lagged: limit(),
        }
    }
}

impl Board {
    pub(crate) fn new(teller: Teller, log_digits: bool) -> Self {
        Self {
            rows: Mutex::default(),
            rejected: Mutex::new(Limit::new(TURNED_AWAY)),
            teller,
            log_digits,
        }
    }

    /// A call is let in. It is known by its peer: UUIDs may come twice, an address and port can't.
    pub(crate) fn begin(&self, id: Uuid, peer: SocketAddr) -> Arc<Row> {
        self.teller.tell(Event::CallStarted { id, peer });
        let row = Arc::new(Row {
            id,
            peer,
            handle: OnceLock::new(),
            level: AtomicU32::new(FLOOR_DBFS.to_bits()),
            captions: Mutex::default(),
            summary: Mutex::default(),
            teller: self.teller.clone(),
        });
        self.rows.lock().push(Arc::clone(&row));
        row
    }

    /// Its handler takes over a call that was let in with its row, and may be over by now.
    pub(crate) fn watch(&self, call: &Call) -> Option<Watch> {
        let row: Arc<Arc<Row>> = call.data()?;
        // It is set once: a call has one handler.
        let _ = row.handle.set(call.handle());
        Some(Watch {
            row: Arc::clone(&row),
            meter: None,
            log_digits: self.log_digits,
            limits: Limits::default(),
        })
    }

    /// A call is over, or never was let in.
    pub(crate) fn end(&self, summary: CallSummary) {
        let mut rows = self.rows.lock();
        let is_its = |row: &Arc<Row>| (row.peer, row.id) == (summary.peer, summary.id);
        match rows.iter().position(is_its) {
            None => {
                drop(rows);
                self.reject(summary);
            }
            Some(place) => {
                let row = rows.remove(place);
                *row.summary.lock() = Some(summary);
            }
        }
    }

    fn reject(&self, summary: CallSummary) {
        self.tell_what_was_counted();
        if self.rejected.lock().lets_through(Instant::now(), 1) {
            self.teller.tell(Event::rejected(summary));
        }
    }

    /// Tells how many calls were rejected that were not told of, if there are any.
    pub(crate) fn tell_what_was_counted(&self) {
        let count = self.rejected.lock().take_due(Instant::now());
        self.tell_count(count);
    }

    fn tell_count(&self, count: Option<u64>) {
        if let Some(count) = count {
            let of = "rejected";
            self.teller.tell(Event::Counted {
                id: None,
                of,
                count,
            });
        }
    }

    /// The calls, oldest first.
    pub(crate) fn rows(&self) -> Vec<Arc<Row>> {
        self.rows.lock().clone()
    }

    /// Waits until every end has been told, but not for ever.
    pub(crate) async fn settled(&self) {
        let deadline = Instant::now() + LAST_WORDS;
        while !self.rows.lock().is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let count = self.rejected.lock().take_all();
        self.tell_count(count);
    }
}

impl Row {
    /// The call, from the moment on that its handler has it.
    pub(crate) fn call(&self) -> Option<&CallHandle> {
        self.handle.get()
    }

    /// How loud the caller is, in dBFS.
    pub(crate) fn level(&self) -> f32 {
        f32::from_bits(self.level.load(Ordering::Relaxed))
    }

    /// What was said, if somebody takes it down.
    pub(crate) fn captions(&self) -> MutexGuard<'_, Captions> {
        self.captions.lock()
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if let Some(summary) = self.summary.get_mut().take() {
            self.teller.tell(Event::CallEnded(summary.into()));
        }
    }
}

impl Watch {
    /// The call as it is shown. Whoever keeps this delays the telling of its end.
    pub(crate) fn row(&self) -> Arc<Row> {
        Arc::clone(&self.row)
    }

    /// As [`Call::next`], and as cancel safe.
    pub(crate) async fn next<'call>(&mut self, call: &'call mut Call) -> Option<CallEvent<'call>> {
        let event = call.next().await?;
        self.see(&event);
        Some(event)
    }

    fn see(&mut self, event: &CallEvent<'_>) {
        self.tell_what_was_counted(|limit| limit.take_due(Instant::now()));
        let id = self.row.id;
        let now = Instant::now();
        let told = match event {
            CallEvent::Audio(frame) => {
                let hz = frame.rate().hz();
                let meter = self.meter.get_or_insert_with(|| Meter::new(hz));
                meter.push(frame.samples());
                self.row
                    .level
                    .store(meter.dbfs().to_bits(), Ordering::Relaxed);
                return;
            }
            CallEvent::Dtmf(digit) if self.limits.dtmf.lets_through(now, 1) => Event::Dtmf {
                id,
                digit: if self.log_digits { *digit } else { '*' },
            },
            CallEvent::Codec(notice) => Event::Codec {
                id,
                text: notice.to_string(),
            },
            CallEvent::Error(error) if self.limits.trouble.lets_through(now, 1) => Event::Trouble {
                id,
                text: crate::failure::with_sources(error),
            },
            CallEvent::Lagged { frames } if self.limits.lagged.lets_through(now, *frames) => {
                Event::Lagged {
                    id,
                    frames: *frames,
                }
            }
            _ => return,
        };
        self.row.teller.tell(told);
    }

    fn tell_what_was_counted(&mut self, take: impl Fn(&mut Limit) -> Option<u64>) {
        let id = self.row.id;
        let Limits {
            dtmf,
            trouble,
            lagged,
        } = &mut self.limits;
        for (limit, of) in [(dtmf, "dtmf"), (trouble, "trouble")] {
            if let Some(count) = take(limit) {
                let id = Some(id);
                self.row.teller.tell(Event::Counted { id, of, count });
            }
        }
        if let Some(frames) = take(lagged) {
            self.row.teller.tell(Event::Lagged { id, frames });
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tell_what_was_counted(Limit::take_all);
    }
}
