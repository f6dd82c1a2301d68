use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use sidetone_proto::{Counters, EndReason, OtherProtocol, Rate};
use uuid::Uuid;

use crate::{admission::AnyData, event::Codec};

/// What a running call has counted so far. It is at most 200 ms old.
///
/// ```no_run
/// # fn example(call: &sidetone::CallHandle) {
/// let stats = call.stats();
/// println!("caller {:.0} dBFS, server {:.0} dBFS", stats.caller_dbfs, stats.server_dbfs);
/// # }
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallStats {
    /// Time since the UUID came.
    pub duration: Duration,
    /// The rate at which audio goes out.
    pub rate: Rate,
    /// The codec of inbound audio under kind `0x10`: the one that was set or detected. Under [`Codec::Auto`], that until one is
    /// detected.
    pub codec: Codec,
    /// Audio queued and not yet written.
    pub buffered: Duration,
    /// How far the handler is behind: inbound audio that has come and waits to be read. Beyond
    /// [`receive_buffer`](crate::ServerBuilder::receive_buffer) it is dropped and counted in `lagged`; audio that the handler
    /// took together, and has not looked at yet, may come on top of that. With `lagged` it says whether a program is too slow:
    ///
    /// ```
    /// use {sidetone::CallStats, std::time::Duration};
    ///
    /// fn is_too_slow(stats: &CallStats) -> bool {
    ///     stats.handler_lag > Duration::from_millis(100) || stats.lagged > 0
    /// }
    /// ```
    pub handler_lag: Duration,
    /// Frames that the handler did not read in time, or that came too fast to be kept until their codec was known.
    pub lagged: u64,
    /// How loud the caller is, in dBFS: the latest peak, falling to a third of its amplitude in 300 ms. It is at most a slot
    /// old, and never below [`FLOOR_DBFS`](sidetone_audio::level::FLOOR_DBFS), -96.
    pub caller_dbfs: f32,
    /// How loud what is played is, in the same way.
    pub server_dbfs: f32,
    /// What the connection and the slot schedule have counted.
    pub counters: Counters,
}

/// A call that is over.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallSummary {
    /// Which one.
    pub id: Uuid,
    /// Where it came from.
    pub peer: SocketAddr,
    /// Time from its UUID to its end.
    pub duration: Duration,
    /// The rate at which its audio went out at last.
    pub rate: Rate,
    /// The rate at which audio came in at last: the same, unless Asterisk sent another one under kind `0x10`
    /// ([`CodecNotice::Wideband`](crate::CodecNotice::Wideband)).
    pub inbound_rate: Rate,
    /// The codec of inbound audio under kind `0x10`: the one that was set; under [`Codec::Auto`] the one that was detected, if
    /// any.
    pub codec: Codec,
    /// Frames that the handler did not read in time, or that came too fast to be kept until their codec was known.
    pub lagged: u64,
    /// What the connection and the slot schedule have counted.
    pub counters: Counters,
    /// Why it ended; [`EndReason::by`] says who ended it.
    pub reason: EndReason,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) data: Option<AnyData>,
}

/// One line: `call UUID from ADDRESS: 12.3 s, slin, 615 frames in, 617 out, ended: WHY`.
impl fmt::Display for CallSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "call {} from {}: {:.1} s, ",
            self.id,
            self.peer,
            self.duration.as_secs_f64()
        )?;
        // The codec is that of 8 kHz.
        match self.inbound_rate {
            Rate::Slin => write!(f, "{}", self.codec)?,
            wideband => f.write_str(wideband.name())?,
        }
        write!(
            f,
            ", {} frames in, {} out, ended: {}",
            self.counters.frames_in, self.counters.frames_out, self.reason
        )
    }
}

impl CallSummary {
    /// What the [admission hook](crate::ServerBuilder::admit) attached to this call, if it is a `T`.
    pub fn data<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.data.clone()?.downcast().ok()
    }

    pub(crate) fn rejected(id: Uuid, peer: SocketAddr, codec: Codec, reason: EndReason) -> Self {
        Self {
            id,
            peer,
            duration: Duration::ZERO,
            rate: Rate::default(),
            inbound_rate: Rate::default(),
            codec,
            lagged: 0,
            counters: Counters::default(),
            reason,
            data: None,
        }
    }
}

/// How many connections spoke which other protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherProtocols(pub(crate) [usize; OtherProtocol::ALL.len()]);

impl OtherProtocols {
    /// How many spoke this one.
    pub fn of(&self, protocol: OtherProtocol) -> usize {
        self.0[protocol as usize]
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for OtherProtocols {
    /// A map from each protocol's name to its count.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counts = OtherProtocol::ALL.into_iter();
        serializer.collect_map(counts.map(|protocol| (protocol, self.of(protocol))))
    }
}

/// What a server has counted since it started.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections accepted.
    pub connections: usize,
    /// Calls that were let in.
    pub calls: usize,
    /// Calls let in that are not over yet.
    pub running: usize,
    /// Calls rejected, for whatever reason.
    pub rejected: usize,
    /// Connections beyond [`ServerBuilder::max_connects_per_second`](crate::ServerBuilder::max_connects_per_second). Those that
    /// gave a UUID are among `rejected`, too.
    pub excess_connects: usize,
    /// Calls that were never reported, neither by [`Server::accept`](crate::Server::accept) nor by
    /// [`ServerBuilder::on_call_end`](crate::ServerBuilder::on_call_end), because 4096 more than the calls allowed at a time
    /// were waiting to be accepted. Those among them that were let in are hung up.
    pub unreported: usize,
    /// Connections that ended without a UUID: health checks, or `AudioSocket()` without `Answer()`.
    pub without_identity: usize,
    /// Of these, connections that the other side closed without a byte: health checks, port scans, or `AudioSocket()` without
    /// `Answer()`.
    pub probes: usize,
    /// Of those without a UUID, connections that spoke another protocol, and were closed at once.
    pub other_protocols: OtherProtocols,
    /// Connections that were closed before their UUID came, because too many others were waiting; see
    /// [`ServerBuilder::max_unidentified`](crate::ServerBuilder::max_unidentified).
    pub crowded_out: usize,
    /// Connections ended at once because the process had no descriptors left: raise the limit
    /// (`LimitNOFILE=` in systemd, `ulimit -n`).
    pub out_of_descriptors: usize,
    /// Whether the media threads run at the higher priority that they ask for. If not, frames are later when the machine is
    /// busy: allow it with `LimitNICE=-11` in systemd, or `CAP_SYS_NICE`.
    pub prioritised: bool,
    /// Whether the media threads run over io_uring; else they run over epoll. See [`IoBackend`](crate::IoBackend).
    pub io_uring: bool,
}

/// Buckets of a [`LatenessHistogram`]: one for each bound, and one for what is later than the last.
pub(crate) const LATENESS_BUCKETS: usize = LatenessHistogram::BOUNDS.len() + 1;

/// How late audio left: for every slot that was sent since the server started, on calls that are over and on calls that run,
/// the time from the slot's place in the schedule to the event-loop iteration that sent it.
///
/// It measures what [`Counters::worst_lateness`] does, and is there for a program that shows whether anyone hears a gap:
/// what is later than some tens of milliseconds is heard. A slot that waited for live audio, up to 10 ms, counts as late, too.
/// Slots that were not sent are not in it: [`Counters::slots_missed`] and [`Counters::slots_skipped`] count those.
///
/// ```
/// use sidetone::LatenessHistogram;
///
/// /// The lines of a Prometheus histogram, whose buckets hold all that is below.
/// fn lines(lateness: &LatenessHistogram) -> Vec<String> {
///     let mut below = 0;
///     let buckets = lateness.bounds.iter().zip(lateness.counts).map(|(bound, count)| {
///         below += count;
///         format!("lateness_seconds_bucket{{le=\"{}\"}} {below}", bound.as_secs_f64())
///     });
///     let mut lines: Vec<String> = buckets.collect();
///     lines.push(format!("lateness_seconds_bucket{{le=\"+Inf\"}} {}", lateness.count()));
///     lines.push(format!("lateness_seconds_sum {}", lateness.sum.as_secs_f64()));
///     lines.push(format!("lateness_seconds_count {}", lateness.count()));
///     lines
/// }
///
/// let lines = lines(&LatenessHistogram::default());
/// assert_eq!(lines[0], "lateness_seconds_bucket{le=\"0.00025\"} 0");
/// assert_eq!(lines.len(), 13);
/// ```
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatenessHistogram {
    /// The largest lateness of each bucket but the last, which has none: [`BOUNDS`](Self::BOUNDS).
    pub bounds: &'static [Duration],
    /// Slots in each bucket, beyond the bound before it and up to its own.
    pub counts: [u64; 11],
    /// The lateness of all slots together.
    pub sum: Duration,
}

impl LatenessHistogram {
    /// 0.25, 0.5, 1, 2, 5, 10, 20, 50, 100 and 200 ms.
    pub const BOUNDS: [Duration; 10] = [
        Duration::from_micros(250),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_millis(2),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(20),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(200),
    ];

    /// All slots.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Default for LatenessHistogram {
    /// One without slots.
    fn default() -> Self {
        Self {
            bounds: &Self::BOUNDS,
            counts: [0; LATENESS_BUCKETS],
            sum: Duration::ZERO,
        }
    }
}
