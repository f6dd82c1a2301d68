//! What Prometheus reads. Everything is counted elsewhere; this only writes it down.

use std::{
    fmt::{self, Debug},
    sync::{Arc, Weak},
    time::Instant,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    bots::BotState,
    gateway::Shared,
    hooks::{Backlog, EndpointState},
    rejection::Rejection,
};

/// The media type of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All figures of a gateway.
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let mut registry = Registry::with_prefix("sidetone");
        registry.register_collector(Box::new(Figures(Arc::downgrade(shared))));
        Self(registry)
    }

    /// In the text format of Prometheus, which `promtool` checks, too.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if a figure can't be written, and these can.
        let _ = prometheus_text::encode(&mut text, &self.0);
        text
    }
}

struct Figures(Weak<Shared>);

impl Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        match self.0.upgrade() {
            Some(shared) => Writer(encoder).all(&shared),
            None => Ok(()),
        }
    }
}

struct Writer<'a>(DescriptorEncoder<'a>);

/// What tells the series of a family apart.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];
type Label<'a> = Labels<'a, 1>;

impl Writer<'_> {
    fn all(&mut self, shared: &Shared) -> fmt::Result {
        self.calls(shared)?;
        self.audio(shared)?;
        self.connections(shared)?;
        self.tickets(shared)?;
        self.backlogs(shared)?;
        self.bots(shared)
    }

    fn calls(&mut self, shared: &Shared) -> fmt::Result {
        let registry = &shared.registry;
        let (totals, running) = registry.totals();
        self.gauge("calls", "Calls that are running", running.len())?;
        self.gauge(
            "calls_max",
            "The most calls at a time",
            registry.max_calls(),
        )?;
        let by_reason = |counts: std::collections::BTreeMap<&'static str, u64>| {
            counts
                .into_iter()
                .map(|(reason, count)| ([("reason", reason)], count))
        };
        // A series that begins with its first rejection has no increase then, and no alert sees it.
        let mut rejected = totals.rejected;
        for reason in Rejection::ALL {
            rejected.entry(reason.name()).or_default();
        }
        self.counters(
            "calls_ended",
            "Calls that are over, by why they ended",
            by_reason(totals.ended),
        )?;
        self.counters(
            "calls_rejected",
            "Calls that were not let in, by why",
            by_reason(rejected),
        )?;
        self.gauge(
            "draining",
            "1 while no new calls are taken",
            u8::from(registry.draining().is_some()),
        )?;
        self.gauge(
            "ready",
            "1 while calls may come",
            u8::from(shared.not_ready().is_empty()),
        )
    }

    fn audio(&mut self, shared: &Shared) -> fmt::Result {
        let (totals, running) = shared.registry.totals();
        let sums = totals.sums.with(&running);
        let (mut queued, mut lag) = (0.0, 0.0_f64);
        for call in running {
            if let Some(handle) = call.handle() {
                let stats = handle.stats();
                queued += stats.buffered.as_secs_f64();
                lag = lag.max(stats.handler_lag.as_secs_f64());
            }
        }
        self.counter(
            "frames_received",
            "Audio messages from callers",
            sums.frames_in,
        )?;
        self.counter(
            "frames_sent",
            "Audio messages to callers, silence included",
            sums.frames_out,
        )?;
        self.counter(
            "underruns",
            "Times that live audio had nothing when its slot was due: a caller heard a gap",
            sums.underruns,
        )?;
        self.counter("gaps", "Times that a caller's audio was missing", sums.gaps)?;
        self.counter(
            "slips",
            "Times that a stall moved the schedule of a call",
            sums.slips,
        )?;
        self.counter(
            "frames_lagged",
            "Inbound frames dropped because they were not handled in time",
            sums.lagged,
        )?;
        self.counter("digits", "DTMF digits received", sums.digits)?;
        self.gauge_seconds(
            "playback_queued",
            "Audio that is queued to be played, of all calls",
            queued,
        )?;
        self.gauge_seconds(
            "handler_lag_max",
            "Inbound audio that waits to be handled, of the call with the most",
            lag,
        )?;
        self.lateness(shared)
    }

    fn lateness(&mut self, shared: &Shared) -> fmt::Result {
        let lateness = shared.server.lateness();
        // Each bucket on its own: they are added up where they are written.
        let buckets: Vec<(f64, u64)> = lateness
            .bounds
            .iter()
            .map(|bound| bound.as_secs_f64())
            .chain([f64::INFINITY])
            .zip(lateness.counts)
            .collect();
        let help = "How long after its slot each frame left";
        let mut encoder = self.0.encode_descriptor(
            "frame_lateness",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let sum = lateness.sum.as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, lateness.count(), &buckets, None)
    }

    fn connections(&mut self, shared: &Shared) -> fmt::Result {
        let stats = shared.server.stats();
        self.counter(
            "connections",
            "Connections accepted",
            stats.connections as u64,
        )?;
        let without = [
            ("probe", stats.probes),
            (
                "without_uuid",
                stats.without_identity.saturating_sub(stats.probes),
            ),
            ("crowded_out", stats.crowded_out),
            ("too_fast", stats.excess_connects),
            ("out_of_descriptors", stats.out_of_descriptors),
        ];
        let without = without
            .into_iter()
            .map(|(reason, count)| ([("reason", reason)], count as u64));
        self.counters(
            "connections_without_call",
            "Connections that no call came of, by why",
            without,
        )
    }

    fn tickets(&mut self, shared: &Shared) -> fmt::Result {
        let (unused, counts) = shared.registry.tickets(Instant::now());
        self.gauge(
            "tickets_unused",
            "Tickets whose calls have not come",
            unused,
        )?;
        self.counter("tickets_minted", "Tickets minted", counts.minted)?;
        self.counter("tickets_used", "Tickets that let a call in", counts.used)?;
        self.counter(
            "tickets_expired",
            "Tickets that nobody used in time",
            counts.expired,
        )
    }

    fn backlogs(&mut self, shared: &Shared) -> fmt::Result {
        let (open, short) = match &shared.recordings {
            Some(recordings) => (recordings.open_count(), recordings.is_short_of_disk()),
            None => (0, false),
        };
        self.gauge("recordings_open", "Recordings that are not complete", open)?;
        self.gauge(
            "recording_disk_short",
            "1 while calls go on unrecorded, since the disk is almost full",
            u8::from(short),
        )?;
        self.hooks(shared)
    }

    fn hooks(&mut self, shared: &Shared) -> fmt::Result {
        let backlogs = shared.hooks.backlog();
        // What is no longer in the file is called after its address, which may hold a secret.
        let backlogs: Vec<Backlog> = backlogs
            .into_iter()
            .filter(|it| it.state != EndpointState::Removed)
            .collect();
        let of = |value: fn(&Backlog) -> u64| {
            backlogs
                .iter()
                .map(move |it| ([("endpoint", it.endpoint.as_str())], value(it)))
        };
        let waiting = of(|it| it.waiting as u64);
        self.gauges(
            "hook_backlog",
            "Messages that an endpoint has not received",
            waiting,
        )?;
        let oldest = of(|it| it.oldest.unwrap_or_default().as_secs());
        self.gauges(
            "hook_oldest_seconds",
            "How long the oldest of them has been waiting",
            oldest,
        )?;
        let help = "Messages that an endpoint received";
        self.counters("hook_delivered", help, of(|it| it.delivered))?;
        let help = "Attempts to send a message that failed";
        self.counters("hook_failed", help, of(|it| it.failed))?;
        let help = "Messages that were dropped, since too many waited, or for too long";
        self.counters("hook_dropped", help, of(|it| it.dropped + it.expired))?;
        let help = "1 while messages can't be kept on disk";
        self.gauge(
            "hook_spool_failing",
            help,
            u8::from(shared.hooks.is_spool_failing()),
        )
    }

    fn bots(&mut self, shared: &Shared) -> fmt::Result {
        let bots = shared.registry.bots.all();
        let of = |value: fn(&BotState) -> u64| {
            bots.iter()
                .map(move |(route, state)| ([("route", route.as_str())], value(state)))
        };
        let help = "1 while the bot of a route fails its calls, until it has kept one";
        self.gauges("bot_dead", help, of(|it| u64::from(it.is_dead())))?;
        let help = "Caller frames that were dropped because a bot did not take them";
        self.counters("bot_dropped_frames", help, of(|it| it.dropped_frames))?;
        let help = "Things that bots did wrong and that ended nothing";
        self.counters("bot_complaints", help, of(|it| it.complaints))?;
        let help = "Connections to bots that broke and were made again";
        self.counters("bot_reconnects", help, of(|it| it.reconnects))?;
        let failures = bots.iter().flat_map(|(route, state)| {
            let failures = state.failures.iter();
            failures.map(move |(reason, count)| {
                ([("route", route.as_str()), ("reason", *reason)], *count)
            })
        });
        let help = "Calls that bots failed, by why";
        let failures = failures.map(|(labels, count)| (labels, ConstCounter::new(count)));
        self.family("bot_failures", help, MetricType::Counter, failures)?;
        let of = |histogram: fn(&BotState) -> &Histogram| {
            bots.iter()
                .map(move |(route, state)| ([("route", route.as_str())], histogram(state).clone()))
        };
        let (name, help) = ("bot_connect_seconds", "How long bots took to take calls");
        self.family(name, help, MetricType::Histogram, of(|it| &it.connecting))?;
        let help = "How long after they took a call bots began to speak";
        let name = "bot_first_audio_seconds";
        self.family(name, help, MetricType::Histogram, of(|it| &it.first_audio))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        let encoder = self
            .0
            .encode_descriptor(name, help, None, counter.metric_type())?;
        counter.encode(encoder)
    }

    /// One counter for each set of labels.
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Label<'a>, u64)>,
    ) -> fmt::Result {
        let values = values.map(|(label, value)| (label, ConstCounter::new(value)));
        self.family(name, help, MetricType::Counter, values)
    }

    /// One gauge for each set of labels.
    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Label<'a>, u64)>,
    ) -> fmt::Result {
        let bounded = |value| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let values = values.map(|(label, value)| (label, bounded(value)));
        self.family(name, help, MetricType::Gauge, values)
    }

    fn family<'a, const LABELS: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        metrics: impl Iterator<Item = (Labels<'a, LABELS>, impl EncodeMetric)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for (label, metric) in metrics {
            metric.encode(encoder.encode_family(&label)?)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl TryInto<i64>) -> fmt::Result {
        let gauge = ConstGauge::new(value.try_into().unwrap_or(i64::MAX));
        let encoder = self
            .0
            .encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(encoder)
    }

    fn gauge_seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let gauge = ConstGauge::new(value);
        let encoder =
            self.0
                .encode_descriptor(name, help, Some(&Unit::Seconds), gauge.metric_type())?;
        gauge.encode(encoder)
    }
}
