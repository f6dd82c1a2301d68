use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{Mode, pacing::Pacing, process::Usage};

/// How far a running load is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The time since the load began.
    pub elapsed: Duration,
    /// Calls that are connected. In [`Mode::Setup`], calls that are over.
    pub calls: usize,
    /// Whether the measurement is running.
    pub measuring: bool,
    /// The counts so far.
    pub frames: Frames,
}

/// The result of a load. Serialized, it is the line of JSON that `sidetone load --json` prints.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The mode of the load.
    pub mode: Mode,
    /// The number of calls at a time.
    pub calls: usize,
    /// Calls that the server ended, or whose connection failed.
    pub ended_early: usize,
    /// How long the measurement took, in seconds.
    pub seconds: f64,
    /// The counts of frames.
    pub frames: Frames,
    /// Microseconds from sending a frame until it came back, in [`Mode::Echo`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<Percentiles>,
    /// The highest mean round trip of a call, in microseconds. One call whose server-side schedule is out of step with
    /// its caller's shows here, however many calls there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowest_call_us: Option<f64>,
    /// How well the server kept its schedules, in [`Mode::Echo`] and [`Mode::Playout`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// How calls were set up, in [`Mode::Setup`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,
    /// What the calls cost the server, if [`Load::watch_process`](crate::Load::watch_process) names its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerCost>,
    /// CPU time of this thread for each frame that came back, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_cpu_us_per_frame: Option<f64>,
    /// CPU time of this thread, in per cent of one core.
    pub load_cpu_percent: f64,
    /// How late the load itself sent its frames, in microseconds. Far above 1000, the load got too little CPU time, and its
    /// other figures mean little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_lateness_us: Option<Percentiles>,
    /// How the load talked to the kernel: `io_uring` or `epoll`.
    pub io_backend: String,
    /// How often the load woke up, in microseconds, with 200 calls or more: frames were sent then only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_interval_us: Option<f64>,
    /// The resolution of round trips and lateness, in microseconds, where the load read only when it woke up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution_us: Option<f64>,
}

/// Counts of frames. `sent`, `returned`, `lost`, `late` and `silence` are of the measured time. What must never happen is
/// counted whenever it happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Frames {
    /// Sent to the server.
    pub sent: u64,
    /// Came back whole. In [`Mode::Playout`]: came with audio other than silence.
    pub returned: u64,
    /// Did not come back until 2 s after the end. In [`Mode::Playout`]: were left out of a clip.
    pub lost: u64,
    /// Came more than 20 ms after their slot in the best schedule of their call ([`Pace`]).
    pub late: u64,
    /// Came more than once.
    pub duplicate: u64,
    /// Differ from what was sent.
    pub corrupt: u64,
    /// Belong to another call.
    pub foreign: u64,
    /// Audio that is not from a [`clip`](crate::clip), so that only its time can be judged ([`Mode::Playout`]).
    pub unverified: u64,
    /// Silence. Not counted as returned, nor in costs for each frame.
    pub silence: u64,
    /// Messages for which Asterisk drops a call.
    pub forbidden: u64,
    /// Could not be sent because the server did not read. Asterisk would have ended the call.
    pub blocked: u64,
}

/// Percentiles of a duration, in the unit that the field names.
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

/// How well the server kept its schedules.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pace {
    /// Microseconds from each frame's slot to its arrival, in the best 20 ms schedule of its call: the line below all
    /// arrivals with the least sum of lateness. A constant delay is thus no lateness.
    pub lateness_us: Percentiles,
    /// Pauses of more than 40 ms between a frame and the next.
    pub gaps: u64,
    /// The longest time between a frame and the next, in milliseconds; about 20 where there is no gap.
    pub longest_gap_ms: f64,
    /// The largest difference of a call's frame interval from 20 ms, in millionths.
    pub drift_ppm: f64,
    /// Slots with silence after the first audio. In [`Mode::Playout`], also slots without a frame.
    pub underruns: u64,
}

/// How calls were set up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Setup {
    /// Calls that were placed and are over, in the measured time.
    pub placed: u64,
    /// How many of these got a frame within a second.
    pub answered: u64,
    /// Calls that could not be connected.
    pub failed: u64,
    /// Calls placed per second.
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
    /// The difference divided by the calls, in KiB. Too low for a server that reuses memory of earlier calls.
    pub rss_kib_per_call: f64,
}

impl Percentiles {
    /// In microseconds, of a histogram in nanoseconds; `None` for an empty one.
    pub(crate) fn of(times: &Histogram<u64>) -> Option<Self> {
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
    pub(crate) fn of(pacing: &Pacing, underruns: u64) -> Option<Self> {
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
    pub(crate) fn of(usage: &Usage, seconds: f64, frames: u64, set_up: u64, calls: usize) -> Self {
        let each = |count: u64| (count > 0).then(|| usage.cpu as f64 / 1000.0 / count as f64);
        let grown = usage.rss_after as f64 - usage.rss_before as f64;
        Self {
            cpu_us_per_frame: each(frames),
            cpu_us_per_call: each(set_up),
            cpu_percent: usage.cpu as f64 / 1e7 / seconds,
            rss_before_kib: usage.rss_before,
            rss_after_kib: usage.rss_after,
            rss_kib_per_call: grown / calls as f64,
        }
    }
}
