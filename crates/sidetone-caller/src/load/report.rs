use {
    super::{Mode, grid::Pacing, process::Spent},
    hdrhistogram::Histogram,
    serde::Serialize,
    std::time::Duration,
};

/// How far a running load is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Since the load began.
    pub elapsed: Duration,
    /// Calls that are connected; in [`Mode::Setup`], calls that are over.
    pub calls: usize,
    /// Whether figures are being taken.
    pub measuring: bool,
    /// What has been counted so far.
    pub frames: Frames,
}

/// What a load found out. Serialised, it is the line of JSON that `sidetone load --json` prints.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What was asked of the server.
    pub mode: Mode,
    /// How many calls at a time.
    pub calls: usize,
    /// Calls that the server ended, or that broke.
    pub ended_early: usize,
    /// For how long figures were taken, in seconds.
    pub seconds: f64,
    /// What became of the frames.
    pub frames: Frames,
    /// Microseconds from sending a frame until it was back, in [`Mode::Echo`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<Percentiles>,
    /// The mean round trip of the call in which it is longest, in microseconds: a call that has not found its place
    /// shows here, however many have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowest_call_us: Option<f64>,
    /// In [`Mode::Echo`] and [`Mode::Playout`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// In [`Mode::Setup`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<SetUp>,
    /// What the calls cost the server, if its process was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerCost>,
    /// CPU time of this thread for each frame that came back, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_cpu_us_per_frame: Option<f64>,
    /// CPU time of this thread, in per cent of one core.
    pub load_cpu_percent: f64,
    /// How late the load itself sent its frames, in microseconds. Far above 1000, the load was starved, and its
    /// other figures say little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_lateness_us: Option<Percentiles>,
    /// How the load talked to the kernel: `io_uring` or `epoll`.
    pub io_backend: String,
    /// The grid, in microseconds, on which frames left, with many calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid_us: Option<f64>,
    /// What round trips and lateness are exact to, in microseconds, where what came was looked for on the grid only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution_us: Option<f64>,
}

/// Counts of frames. Those of time (sent, returned, lost, late, silence) are of the measured time; what must
/// never happen is counted whenever it happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Frames {
    /// Sent to the server.
    pub sent: u64,
    /// Came back whole; in [`Mode::Playout`], came with sound.
    pub returned: u64,
    /// Had not come back 2 s after the end; in [`Mode::Playout`], were left out of a clip.
    pub lost: u64,
    /// Came more than 20 ms after their place on the best grid of their call ([`Pace`]).
    pub late: u64,
    /// Came more than once.
    pub duplicate: u64,
    /// Were not what was sent.
    pub corrupt: u64,
    /// Belong to another call.
    pub foreign: u64,
    /// Sound of which nothing is known but its time ([`Mode::Playout`]).
    pub unverified: u64,
    /// Silence; neither counted as returned nor divided by.
    pub silence: u64,
    /// Messages that Asterisk drops a call for.
    pub forbidden: u64,
    /// Could not be sent, for the server did not read. Asterisk would have ended the call.
    pub blocked: u64,
}

/// Of a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// How the server kept its pace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pace {
    /// Microseconds after each frame's place on the best 20 ms grid of its call: the line below all its arrivals
    /// that makes their lateness least. A delay that is always the same is thus no lateness.
    pub lateness_us: Percentiles,
    /// Times of more than 40 ms between a frame and the next.
    pub gaps: u64,
    /// The longest such time, in milliseconds; about 20 when there is none.
    pub longest_gap_ms: f64,
    /// The largest difference of a call's pace from 20 ms, in millionths.
    pub drift_ppm: f64,
    /// Slots with silence once there was sound; in [`Mode::Playout`], those with nothing, too.
    pub underruns: u64,
}

/// How calls were set up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SetUp {
    /// Calls that were placed and are over, in the measured time.
    pub placed: u64,
    /// Of these, how many heard a frame within a second.
    pub answered: u64,
    /// Calls that could not be connected.
    pub failed: u64,
    /// Calls a second.
    pub per_second: f64,
    /// Microseconds from connecting until the first frame came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_frame_us: Option<Percentiles>,
}

/// What the calls cost the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerCost {
    /// CPU time of all its threads for each frame that came back, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_frame: Option<f64>,
    /// The same for each call that was set up and torn down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_call: Option<f64>,
    /// CPU time in per cent of one core.
    pub cpu_percent: f64,
    /// Resident memory before the first call, in KiB.
    pub rss_before_kib: u64,
    /// Resident memory at the end of the measured time, with all calls, in KiB.
    pub rss_after_kib: u64,
    /// The difference for each call. A server that keeps memory from earlier calls shows less than it takes.
    pub rss_kib_per_call: f64,
}

impl Percentiles {
    /// In microseconds, of nanoseconds; nothing of nothing.
    pub(super) fn of(times: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        (!times.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: times.max() as f64 / 1000.0,
        })
    }
}

impl Pace {
    pub(super) fn of(pacing: &Pacing, underruns: u64) -> Option<Self> {
        Some(Self {
            lateness_us: Percentiles::of(&pacing.lateness)?,
            gaps: pacing.gaps,
            longest_gap_ms: pacing.longest_gap as f64 / 1e6,
            drift_ppm: pacing.drift,
            underruns,
        })
    }
}

impl ServerCost {
    pub(super) fn of(spent: &Spent, seconds: f64, frames: u64, set_up: u64, calls: usize) -> Self {
        let each = |count: u64| (count > 0).then(|| spent.cpu as f64 / 1000.0 / count as f64);
        let grown = spent.rss_after as f64 - spent.rss_before as f64;
        Self {
            cpu_us_per_frame: each(frames),
            cpu_us_per_call: each(set_up),
            cpu_percent: spent.cpu as f64 / 1e7 / seconds,
            rss_before_kib: spent.rss_before,
            rss_after_kib: spent.rss_after,
            rss_kib_per_call: grown / calls as f64,
        }
    }
}
