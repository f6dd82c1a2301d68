//! What is to be seen of the calls at one moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use serde::Serialize;
use sidetone::LatenessHistogram;
use sidetone_bot::BreakerState;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    bots::BotState,
    bus::ActiveAlarm,
    call::{Params, RunningCall, rfc3339},
    event::{fractional_milliseconds, milliseconds},
    gateway::Shared,
    recording::RecordingState,
    registry::Registry,
};

/// How often the calls are looked at while somebody watches.
const INTERVAL: Duration = Duration::from_millis(200);

/// One call.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CallSnapshot {
    id: Uuid,
    route: String,
    /// What the dialplan said of it.
    params: Params,
    /// The address that it came from.
    peer: String,
    /// RFC 3339, UTC.
    started: String,
    age_ms: u64,
    /// The name of the token that minted its ticket.
    minted_by: Option<String>,
    /// Samples per second.
    rate: u32,
    /// Of the caller, in dBFS.
    caller_dbfs: f32,
    /// Of what the caller hears, in dBFS.
    server_dbfs: f32,
    /// The most that a frame was sent late.
    worst_lateness_ms: f64,
    /// What is queued to be played.
    queued_ms: u64,
    /// Inbound audio that waits to be handled.
    handler_lag_ms: u64,
    /// Inbound frames dropped because they were not handled in time.
    lagged: u64,
    underruns: u64,
    gaps: u64,
    slips: u64,
    digits: u64,
    frames_in: u64,
    frames_out: u64,
    recording: RecordingState,
    last_event: String,
    /// What the dialplan will be told, unless that changes.
    result: String,
}

/// All calls, and the gateway as a whole.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Status {
    /// Calls that are running.
    running: usize,
    /// The most calls at a time.
    max_calls: usize,
    /// Tickets whose calls have not come. Each holds the place of a call.
    unused_tickets: usize,
    draining: bool,
    ready: bool,
    /// Why it is not ready.
    not_ready_because: Vec<&'static str>,
    /// What needs an operator.
    alarms: Vec<ActiveAlarm>,
    /// The bots of the routes that have one.
    bots: Vec<BotStatus>,
    /// Calls that are over, by reason.
    ended: BTreeMap<&'static str, u64>,
    /// Calls that were not let in, by reason.
    rejected: BTreeMap<&'static str, u64>,
    /// Live audio had nothing when its slot was due: somebody heard a gap.
    underruns: u64,
    lagged: u64,
    slips: u64,
    /// Frames sent, and how many of them were late by more than 20 ms: somebody heard it.
    frames_out: u64,
    frames_late: u64,
    /// The lateness that 99 % of all frames were below.
    lateness_p99_ms: f64,
    uptime_ms: u64,
    version: &'static str,
}

/// How the bot of a route does.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BotStatus {
    route: String,
    breaker: BreakerName,
    /// How long it took to take its last call. Null before the first.
    connect_ms: Option<f64>,
    /// How long it took to speak, from when it had the call, when it did last.
    first_audio_ms: Option<f64>,
    /// Calls that it failed since the start, by reason.
    failures: BTreeMap<&'static str, u64>,
}

/// Where the calls of a bot go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BreakerName {
    /// To the bot.
    Closed,
    /// Not to the bot, since it failed the last ones, but for one every 5 s.
    Open,
    /// To the bot, which has taken a call again, and has to keep one.
    HalfOpen,
}

impl BotStatus {
    fn of(route: &str, bot: &BotState) -> Self {
        Self {
            route: route.into(),
            breaker: match bot.breaker() {
                BreakerState::Closed => BreakerName::Closed,
                BreakerState::Open => BreakerName::Open,
                BreakerState::HalfOpen => BreakerName::HalfOpen,
            },
            connect_ms: bot.last_connecting.map(fractional_milliseconds),
            first_audio_ms: bot.last_first_audio.map(fractional_milliseconds),
            failures: bot.failures.clone(),
        }
    }
}

/// All bots of the file, those without a call, too.
fn bots(registry: &Registry) -> Vec<BotStatus> {
    let known: BTreeMap<_, _> = registry.bots.all().into_iter().collect();
    let config = registry.config();
    let routes = config.routes.iter();
    let routes = routes.filter(|(_, route)| route.bot.is_some());
    let none = BotState::default();
    routes
        .map(|(route, _)| BotStatus::of(route, known.get(route).unwrap_or(&none)))
        .collect()
}

impl CallSnapshot {
    /// None before the call is handled.
    pub(crate) fn of(call: &RunningCall) -> Option<Self> {
        let stats = call.handle()?.stats();
        let context = &call.context;
        let counters = stats.counters;
        Some(Self {
            id: context.id,
            route: context.route.clone(),
            params: (*context.params).clone(),
            peer: context.peer.to_string(),
            started: rfc3339(context.started),
            age_ms: milliseconds(stats.duration),
            minted_by: context.minted_by.clone(),
            rate: stats.rate.hz(),
            caller_dbfs: stats.caller_dbfs,
            server_dbfs: stats.server_dbfs,
            worst_lateness_ms: fractional_milliseconds(counters.worst_lateness),
            queued_ms: milliseconds(stats.buffered),
            handler_lag_ms: milliseconds(stats.handler_lag),
            lagged: stats.lagged,
            underruns: counters.underruns,
            gaps: counters.gaps,
            slips: counters.slips,
            digits: counters.digits,
            frames_in: counters.frames_in,
            frames_out: counters.frames_out,
            recording: call.recording.state(),
            last_event: call.last_event(),
            result: call.result().to_string(),
        })
    }
}

/// The running calls, the oldest first.
pub(crate) fn calls(registry: &Registry) -> Vec<CallSnapshot> {
    let mut running = registry.running();
    running.sort_by_key(|call| (call.context.started_at, call.context.id));
    let calls = running.iter();
    calls.filter_map(|call| CallSnapshot::of(call)).collect()
}

impl Status {
    pub(crate) fn of(shared: &Shared) -> Self {
        let registry = &shared.registry;
        let (totals, running) = registry.totals();
        let sums = totals.sums.with(&running);
        let lateness = shared.server.lateness();
        let (unused_tickets, _) = registry.tickets(Instant::now());
        let not_ready_because = shared.not_ready();
        Self {
            running: running.len(),
            max_calls: registry.max_calls(),
            unused_tickets,
            draining: registry.draining().is_some(),
            ready: not_ready_because.is_empty(),
            not_ready_because,
            alarms: registry.bus.alarms(),
            bots: bots(registry),
            ended: totals.ended,
            rejected: totals.rejected,
            underruns: sums.underruns,
            lagged: sums.lagged,
            slips: sums.slips,
            frames_out: sums.frames_out,
            frames_late: later_than(&lateness, AUDIBLE),
            lateness_p99_ms: fractional_milliseconds(p99(&lateness)),
            uptime_ms: milliseconds(shared.started.elapsed()),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// A frame that is later than this is heard.
const AUDIBLE: Duration = Duration::from_millis(20);

fn later_than(lateness: &LatenessHistogram, limit: Duration) -> u64 {
    let within = lateness.bounds.partition_point(|bound| *bound <= limit);
    lateness.counts[within..].iter().sum()
}

/// The bound below which 99 % of all frames were, to the bucket.
fn p99(lateness: &LatenessHistogram) -> Duration {
    let wanted = lateness.count() - lateness.count() / 100;
    let mut below = 0;
    let bucket = lateness.counts.iter().position(|count| {
        below += count;
        below >= wanted
    });
    let last = lateness.bounds.last().copied().unwrap_or_default();
    let bound = bucket.and_then(|bucket| lateness.bounds.get(bucket).copied());
    bound.unwrap_or(last)
}

/// Looks at the calls at intervals, once for all who watch, and only while somebody does.
pub(crate) struct Snapshots {
    latest: watch::Sender<Arc<Frame>>,
}

/// What watchers are sent.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// `{"status": …, "calls": […]}`, each second.
    pub(crate) full: Option<String>,
    /// `[[id, caller's dBFS, server's dBFS], …]`, each time.
    pub(crate) levels: String,
}

/// Every so many frames are full.
const FULL_EVERY: u64 = 5;

impl Snapshots {
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let latest = watch::Sender::new(Arc::default());
        tokio::spawn(take(Arc::downgrade(shared), latest.clone()));
        Self { latest }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Frame>> {
        self.latest.subscribe()
    }
}

async fn take(shared: Weak<Shared>, latest: watch::Sender<Arc<Frame>>) {
    let mut number = 0;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if latest.receiver_count() == 0 {
            continue;
        }
        number += 1;
        latest.send_replace(Arc::new(Frame::of(&shared, number)));
    }
}

impl Frame {
    fn of(shared: &Shared, number: u64) -> Self {
        let calls = calls(&shared.registry);
        let levels: Vec<_> = calls
            .iter()
            .map(|call| (call.id, call.caller_dbfs.round(), call.server_dbfs.round()))
            .collect();
        // Serialization fails only for maps without string keys and for writers that fail. Neither is used here.
        let levels = serde_json::to_string(&levels).unwrap_or_default();
        let full = number.is_multiple_of(FULL_EVERY).then(|| {
            let status = Status::of(shared);
            serde_json::json!({"status": status, "calls": calls}).to_string()
        });
        Self { full, levels }
    }
}
