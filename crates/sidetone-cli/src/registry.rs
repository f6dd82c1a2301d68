//! The calls of this process, and what is reported of them.

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
use sidetone_gateway::rate_limit::RateLimit;
use uuid::Uuid;

use crate::{
    format::short_id,
    output::{
        Reporter,
        captions::Captions,
        table::{CallRow, RunningCalls},
    },
    server_events::ServerEvent,
};

/// How long the server waits at its end until every call's end has been reported.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Events of one kind that are reported of a call each second, more than people and Asterisk cause. Others are counted.
const EVENTS_PER_SECOND: u32 = 20;

/// Rejected calls that are reported each second. Others are counted.
const REJECTED_PER_SECOND: u32 = 100;

/// All calls that have started and whose end is not reported yet.
#[derive(Debug)]
pub(crate) struct CallRegistry {
    entries: Mutex<Vec<Arc<CallEntry>>>,
    rejected: Mutex<RateLimit>,
    reporter: Reporter,
    log_digits: bool,
}

/// One call. The registry and the call's handler share it. The call's end is reported when both have dropped it, so
/// nothing is reported of a call after its end.
#[derive(Debug)]
pub(crate) struct CallEntry {
    id: Uuid,
    peer: SocketAddr,
    handle: OnceLock<CallHandle>,
    /// In dBFS, as the bits of an `f32`.
    level: AtomicU32,
    captions: Mutex<Captions>,
    ended: Mutex<Option<ServerEvent>>,
    reporter: Reporter,
}

/// Reads a call's events for its handler, and reports them.
#[derive(Debug)]
pub(crate) struct CallObserver {
    entry: Arc<CallEntry>,
    meter: Option<Meter>,
    log_digits: bool,
    limits: Limits,
}

/// Limits the events that a caller can cause by the thousand.
#[derive(Debug)]
struct Limits {
    dtmf: RateLimit,
    errors: RateLimit,
    /// It counts frames.
    lagged: RateLimit,
}

impl Default for Limits {
    fn default() -> Self {
        let limit = || RateLimit::new(EVENTS_PER_SECOND);
        Self {
            dtmf: limit(),
            errors: limit(),
            lagged: limit(),
        }
    }
}

/// The data of an accepted call: its entry, until its handler takes it.
pub(crate) type Admitted = Mutex<Option<Arc<CallEntry>>>;

impl CallRegistry {
    pub(crate) fn new(reporter: Reporter, log_digits: bool) -> Self {
        Self {
            entries: Mutex::default(),
            rejected: Mutex::new(RateLimit::new(REJECTED_PER_SECOND)),
            reporter,
            log_digits,
        }
    }

    /// Adds a call that is accepted. Its peer identifies it: UUIDs can repeat, an address with its port can't.
    pub(crate) fn start(&self, id: Uuid, peer: SocketAddr) -> Admitted {
        self.reporter.report(ServerEvent::CallStarted { id, peer });
        let entry = Arc::new(CallEntry {
            id,
            peer,
            handle: OnceLock::new(),
            level: AtomicU32::new(FLOOR_DBFS.to_bits()),
            captions: Mutex::default(),
            ended: Mutex::default(),
            reporter: self.reporter.clone(),
        });
        self.entries.lock().push(Arc::clone(&entry));
        Mutex::new(Some(entry))
    }

    /// The observer for the handler of a call that was accepted with its entry. The call may have ended by now.
    pub(crate) fn observe(&self, call: &Call) -> Option<CallObserver> {
        // Taken, since the entry has a handle of the call, and the call must not keep its own handle in memory.
        let entry = call.data::<Admitted>()?.lock().take()?;
        let _ = entry.handle.set(call.handle());
        Some(CallObserver {
            entry,
            meter: None,
            log_digits: self.log_digits,
            limits: Limits::default(),
        })
    }

    /// Removes a call that has ended, or reports one that was rejected.
    pub(crate) fn end(&self, summary: CallSummary) {
        let mut entries = self.entries.lock();
        let is_it = |entry: &Arc<CallEntry>| (entry.peer, entry.id) == (summary.peer, summary.id);
        match entries.iter().position(is_it) {
            None => {
                drop(entries);
                self.report_rejected(summary);
            }
            Some(place) => {
                let entry = entries.remove(place);
                // Without the summary's data, which may be this entry.
                *entry.ended.lock() = Some(ServerEvent::CallEnded(summary.into()));
            }
        }
    }

    fn report_rejected(&self, summary: CallSummary) {
        self.report_suppressed();
        if self.rejected.lock().allows(Instant::now(), 1) {
            self.reporter.report(ServerEvent::rejected(summary));
        }
    }

    /// Reports how many rejected calls were not reported one by one, once a second.
    pub(crate) fn report_suppressed(&self) {
        let count = self.rejected.lock().take_due(Instant::now());
        self.report_rejected_count(count);
    }

    fn report_rejected_count(&self, count: Option<u64>) {
        if let Some(count) = count {
            self.reporter.report(ServerEvent::Suppressed {
                id: None,
                of: "rejected",
                count,
            });
        }
    }

    /// Waits until the end of every call has been reported, for [`REPORT_TIMEOUT`] at most.
    pub(crate) async fn finish(&self) {
        let deadline = Instant::now() + REPORT_TIMEOUT;
        while !self.entries.lock().is_empty() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let count = self.rejected.lock().take();
        self.report_rejected_count(count);
    }
}

impl RunningCalls for CallRegistry {
    fn rows(&self, columns: usize) -> Vec<CallRow> {
        let entries = self.entries.lock().clone();
        let rows = entries.iter().filter_map(|entry| entry.row(columns));
        rows.collect()
    }
}

impl CallEntry {
    /// The words of the call, for a handler that transcribes it.
    pub(crate) fn captions(&self) -> MutexGuard<'_, Captions> {
        self.captions.lock()
    }

    /// `None` until the call has its handler.
    fn row(&self, columns: usize) -> Option<CallRow> {
        let stats = self.handle.get()?.stats();
        Some(CallRow {
            id: short_id(self.id),
            peer: self.peer.to_string(),
            duration: stats.duration,
            level: f32::from_bits(self.level.load(Ordering::Relaxed)),
            frames_in: stats.counters.frames_in,
            frames_out: stats.counters.frames_out,
            worst_lateness: stats.counters.worst_lateness,
            captions: self.captions.lock().lines(columns),
        })
    }
}

impl Drop for CallEntry {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.get_mut().take() {
            self.reporter.report(ended);
        }
    }
}

impl CallObserver {
    /// The call's entry. The call's end is reported only when it is dropped.
    pub(crate) fn entry(&self) -> Arc<CallEntry> {
        Arc::clone(&self.entry)
    }

    /// Waits for the next event as [`Call::next`] does, and reports it.
    ///
    /// This method is cancellation safe, as [`Call::next`] is.
    pub(crate) async fn next<'call>(&mut self, call: &'call mut Call) -> Option<CallEvent<'call>> {
        let event = call.next().await?;
        self.handle_event(&event);
        Some(event)
    }

    fn handle_event(&mut self, event: &CallEvent<'_>) {
        let now = Instant::now();
        self.report_suppressed(|limit| limit.take_due(now));
        let id = self.entry.id;
        let report = match event {
            CallEvent::Audio(frame) => {
                let hz = frame.rate().hz();
                let meter = self.meter.get_or_insert_with(|| Meter::new(hz));
                meter.push(frame.samples());
                let level = meter.dbfs().to_bits();
                self.entry.level.store(level, Ordering::Relaxed);
                return;
            }
            CallEvent::Dtmf(digit) if self.limits.dtmf.allows(now, 1) => ServerEvent::Dtmf {
                id,
                digit: if self.log_digits { *digit } else { '*' },
            },
            CallEvent::Codec(notice) => ServerEvent::Codec {
                id,
                text: notice.to_string(),
            },
            CallEvent::Error(error) if self.limits.errors.allows(now, 1) => ServerEvent::Error {
                id,
                text: crate::failure::with_sources(error),
            },
            CallEvent::Lagged { frames } if self.limits.lagged.allows(now, *frames) => {
                ServerEvent::Lagged {
                    id,
                    frames: *frames,
                }
            }
            _ => return,
        };
        self.entry.reporter.report(report);
    }

    fn report_suppressed(&mut self, take: impl Fn(&mut RateLimit) -> Option<u64>) {
        let (id, reporter) = (self.entry.id, &self.entry.reporter);
        let Limits {
            dtmf,
            errors,
            lagged,
        } = &mut self.limits;
        for (limit, of) in [(dtmf, "dtmf"), (errors, "error")] {
            if let Some(count) = take(limit) {
                let id = Some(id);
                reporter.report(ServerEvent::Suppressed { id, of, count });
            }
        }
        if let Some(frames) = take(lagged) {
            reporter.report(ServerEvent::Lagged { id, frames });
        }
    }
}

impl Drop for CallObserver {
    fn drop(&mut self) {
        self.report_suppressed(RateLimit::take);
    }
}
