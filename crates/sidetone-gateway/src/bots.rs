//! What is known of the bots, by route: whether they are there, and how they do. It outlasts a reload of the file.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use sidetone_bot::{BotFailure, Breaker, BreakerState, Change};

/// The upper bounds of the histograms' buckets, in seconds.
const BOUNDS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The bots of all routes.
#[derive(Debug, Default)]
pub(crate) struct Bots(Mutex<BTreeMap<String, BotState>>);

/// How the bot of one route does.
#[derive(Clone, Debug)]
pub(crate) struct BotState {
    breaker: Breaker,
    /// How long the bot took to take calls.
    pub(crate) connecting: Histogram,
    /// How long it took to speak from then on.
    pub(crate) first_audio: Histogram,
    /// The same of the last call.
    pub(crate) last_connecting: Option<Duration>,
    pub(crate) last_first_audio: Option<Duration>,
    /// Calls that it failed, by why.
    pub(crate) failures: BTreeMap<&'static str, u64>,
    /// Caller audio that it did not take.
    pub(crate) dropped_frames: u64,
    pub(crate) complaints: u64,
    pub(crate) reconnects: u64,
}

/// The failure of calls that are not sent to a bot, since it is dead.
pub(crate) const SPARED: &str = "spared";

impl Default for BotState {
    fn default() -> Self {
        Self {
            breaker: Breaker::default(),
            connecting: Histogram::new(BOUNDS),
            first_audio: Histogram::new(BOUNDS),
            last_connecting: None,
            last_first_audio: None,
            failures: BTreeMap::new(),
            dropped_frames: 0,
            complaints: 0,
            reconnects: 0,
        }
    }
}

impl BotState {
    /// Whether it fails its calls, as far as is known.
    pub(crate) fn is_dead(&self) -> bool {
        self.breaker.is_dead()
    }

    /// Where its calls go.
    pub(crate) fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }
}

impl Bots {
    /// Whether a call of this route may be sent to its bot. Counts it if not.
    pub(crate) fn allow(&self, route: &str, now: Instant) -> bool {
        self.with(route, |state| {
            let is_allowed = state.breaker.allows(now);
            if !is_allowed {
                *state.failures.entry(SPARED).or_default() += 1;
            }
            is_allowed
        })
    }

    pub(crate) fn connected(&self, route: &str, after: Duration) {
        self.with(route, |state| {
            state.connecting.observe(after.as_secs_f64());
            state.last_connecting = Some(after);
            state.breaker.connect();
        });
    }

    pub(crate) fn spoke(&self, route: &str, after: Duration) {
        self.with(route, |state| {
            state.first_audio.observe(after.as_secs_f64());
            state.last_first_audio = Some(after);
        });
    }

    /// A call that its bot took then has lasted, or came to a good end.
    pub(crate) fn succeeded(&self, route: &str, connected: Instant) -> Option<Change> {
        self.with(route, |state| state.breaker.succeed(connected))
    }

    /// A bot failed a call: it did not take it, or broke what it took at `connected`.
    pub(crate) fn failed(
        &self,
        route: &str,
        failure: &BotFailure,
        connected: Option<Instant>,
        now: Instant,
    ) -> Option<Change> {
        self.with(route, |state| {
            *state.failures.entry(failure.kind()).or_default() += 1;
            match failure.is_outage() {
                true => state.breaker.fail(now, connected),
                false => None,
            }
        })
    }

    pub(crate) fn dropped(&self, route: &str, frames: u64) {
        self.with(route, |state| state.dropped_frames += frames);
    }

    pub(crate) fn complained(&self, route: &str) {
        self.with(route, |state| state.complaints += 1);
    }

    pub(crate) fn reconnecting(&self, route: &str) {
        self.with(route, |state| state.reconnects += 1);
    }

    /// All routes whose bots have had calls.
    pub(crate) fn all(&self) -> Vec<(String, BotState)> {
        let states = self.0.lock();
        let all = states.iter();
        all.map(|(route, state)| (route.clone(), state.clone()))
            .collect()
    }

    /// Forgets the bots of other routes than these. Returns the routes of those that were dead.
    pub(crate) fn retain(&self, is_kept: impl Fn(&str) -> bool) -> Vec<String> {
        let mut states = self.0.lock();
        let forgotten = states.extract_if(.., |route, _| !is_kept(route));
        let dead = forgotten.filter(|(_, state)| state.is_dead());
        dead.map(|(route, _)| route).collect()
    }

    fn with<T>(&self, route: &str, change: impl FnOnce(&mut BotState) -> T) -> T {
        let mut states = self.0.lock();
        match states.get_mut(route) {
            Some(state) => change(state),
            None => change(states.entry(route.to_owned()).or_default()),
        }
    }
}
