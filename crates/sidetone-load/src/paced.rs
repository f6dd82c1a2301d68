use std::{cmp::Reverse, collections::BinaryHeap};

use hdrhistogram::Histogram;
use rustix::io::Errno;
use sidetone_driver::Token;
use sidetone_proto::Message;
use uuid::Uuid;

use crate::{
    Load, LoadError, Mode, Progress,
    event_loop::{CallEnd, Connections, EventLoop, Handler, Wait},
    frame::{CallId, HEADER, audio_message, uuid_message},
    pacing::{Arrival, FRAME_INTERVAL, Pacing},
    process::{CpuTime, Process, thread_cpu},
    report::{Pace, Percentiles, Report, ServerCost},
    schedule::Schedule,
    socket::{self, CONNECT_TIMEOUT},
    verify::{Counters, EchoVerifier, PlayoutVerifier, histogram},
};

/// Nanoseconds from one call's connecting to the next one's, so that a server's accept queue doesn't overflow.
const CONNECT_INTERVAL: u64 = 250_000;
/// From so many calls on, the load wakes up every [`WAKE_INTERVAL`] only, sends what is due and reads what has come: at
/// least five frames at a time. With fewer calls, that would spare the server wake-ups that real callers cause.
const SHARED_WAKE_CALLS: usize = 200;
/// In nanoseconds. It divides [`FRAME_INTERVAL`], so that each call's frames keep their distance.
const WAKE_INTERVAL: u64 = 500_000;
/// Nanoseconds that frames may take that are still out at the end.
const DRAIN_TIMEOUT: u64 = 2_000_000_000;

/// Runs a load whose calls all last as long as it does.
pub(crate) fn run(load: &Load, progress: &mut dyn FnMut(&Progress)) -> Result<Report, LoadError> {
    let server = load.pid.map(Process::new).transpose()?;
    let mut event_loop = EventLoop::new(load, progress)?;
    let mut calls = PacedCalls::new(load, event_loop.connections.now());
    event_loop.run(&mut calls)?;
    let begin = event_loop.connections.now() + FRAME_INTERVAL;
    calls.begin_sending(begin);
    let from = begin + load.warm_up.as_nanos() as u64;
    let to = from + load.seconds.as_nanos() as u64;
    calls.counters.window = from..to;

    calls.phase = Phase::Running { until: from };
    event_loop.run(&mut calls)?;
    if calls.ended_early == load.calls {
        return Err(LoadError::NoCalls);
    }
    calls.send_lateness.reset();
    let before = calls.snapshot(&event_loop.connections, server.as_ref())?;
    calls.phase = Phase::Running { until: to };
    event_loop.run(&mut calls)?;
    let after = calls.snapshot(&event_loop.connections, server.as_ref())?;
    let usage = match (&server, &before.server, &after.server) {
        (Some(server), Some(before), Some(after)) => Some(server.usage(before, after)?),
        _ => None,
    };
    calls.due.clear();
    let until = event_loop.connections.now() + DRAIN_TIMEOUT;
    calls.phase = Phase::Draining { until };
    event_loop.run(&mut calls)?;

    let frames = after.frames - before.frames;
    let seconds = (after.at - before.at) as f64 / 1e9;
    let own = (after.own - before.own) as f64 / 1000.0;
    let pace = calls.judge_pace();
    if load.mode == Mode::Echo {
        let frames = &mut calls.counters.frames;
        frames.lost = frames.sent - frames.returned;
    }
    Ok(Report {
        mode: load.mode,
        calls: load.calls,
        ended_early: calls.ended_early,
        seconds,
        frames: calls.counters.frames,
        round_trip_us: Percentiles::of(&calls.counters.round_trips),
        slowest_call_us: calls.slowest_call(),
        pace,
        setup: None,
        server: usage.map(|usage| ServerCost::of(&usage, seconds, frames, 0, load.calls)),
        load_cpu_us_per_frame: (frames > 0).then(|| own / frames as f64),
        load_cpu_percent: own / 1e4 / seconds,
        send_lateness_us: Percentiles::of(&calls.send_lateness),
        io_backend: event_loop.connections.backend().to_string(),
        wake_interval_us: micros(calls.wake_interval),
        resolution_us: micros(calls.wake_interval.filter(|_| !load.busy_poll)),
    })
}

/// Calls that last as long as the load.
struct PacedCalls<'a> {
    load: &'a Load,
    phase: Phase,
    /// With many calls that talk or listen: how often the load wakes up.
    wake_interval: Option<u64>,
    /// Keeps UUIDs and frames of this run apart from another's.
    run: Uuid,
    calls: Vec<Call>,
    connected: usize,
    ended_early: usize,
    schedule: Schedule,
    /// When which call sends its next frame.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    send_lateness: Histogram<u64>,
    counters: Counters,
    /// A message of audio, whose payload is written anew for each frame.
    frame: Vec<u8>,
}

/// What the load is doing. Times are in nanoseconds since it began.
enum Phase {
    /// Placing the calls.
    Connecting {
        begin: u64,
        /// How many calls were connected when that was last looked at, and since when.
        connected: usize,
        since: u64,
    },
    /// Sending and receiving.
    Running { until: u64 },
    /// Waiting for frames that are still out.
    Draining { until: u64 },
}

struct Call {
    token: Token,
    /// How many of its frames were due.
    frames_due: u32,
    echo: EchoVerifier,
    playout: PlayoutVerifier,
    arrivals: Vec<Arrival>,
}

/// Work done and time spent up to one point.
struct Snapshot {
    at: u64,
    server: Option<CpuTime>,
    own: u64,
    frames: u64,
}

impl<'a> PacedCalls<'a> {
    /// Calls that are placed from `begin` on.
    fn new(load: &'a Load, begin: u64) -> Self {
        let has_audio = matches!(load.mode, Mode::Echo | Mode::Playout);
        Self {
            load,
            phase: Phase::Connecting {
                begin,
                connected: 0,
                since: begin,
            },
            wake_interval: (has_audio && load.calls >= SHARED_WAKE_CALLS).then_some(WAKE_INTERVAL),
            run: Uuid::new_v4(),
            calls: Vec::with_capacity(load.calls),
            connected: 0,
            ended_early: 0,
            schedule: Schedule {
                begin: 0,
                calls: load.calls,
                phases: load.phases,
                jitter: load.jitter,
            },
            due: BinaryHeap::with_capacity(load.calls),
            send_lateness: histogram(),
            counters: Counters::new(),
            frame: audio_message(),
        }
    }

    /// Opens the connections that may be made by now. Returns how long to wait; `None` once all are made.
    fn open_connections(
        &mut self,
        connections: &mut Connections<usize>,
        now: u64,
    ) -> Result<Option<Wait>, LoadError> {
        let Phase::Connecting {
            begin,
            connected,
            since,
        } = &mut self.phase
        else {
            return Ok(None);
        };
        if self.connected == self.load.calls {
            return Ok(None);
        }
        if self.connected > *connected {
            (*connected, *since) = (self.connected, now);
        } else if now - *since > CONNECT_TIMEOUT.as_nanos() as u64 {
            return Err(LoadError::NotAccepted(self.load.address));
        }
        let begin = *begin;
        let allowed = ((now - begin) / CONNECT_INTERVAL) as usize + 1;
        while self.calls.len() < allowed.min(self.load.calls) {
            self.open_connection(connections)?;
        }
        let opened = self.calls.len();
        Ok(Some(Wait::until(if opened < self.load.calls {
            begin + opened as u64 * CONNECT_INTERVAL
        } else {
            now + FRAME_INTERVAL
        })))
    }

    fn open_connection(&mut self, connections: &mut Connections<usize>) -> Result<(), LoadError> {
        let call = self.calls.len();
        let expected = match self.load.mode {
            Mode::Echo | Mode::Playout => self.load.seconds.as_millis() as usize / 20 + 2,
            _ => 0,
        };
        let stream = socket::open(self.load.address, call)?;
        self.calls.push(Call {
            token: connections.register(stream, call)?,
            frames_due: 0,
            echo: EchoVerifier::new(CallId::new(self.run.as_u128() as u16, call)),
            playout: PlayoutVerifier::new(),
            arrivals: Vec::with_capacity(expected),
        });
        Ok(())
    }

    fn begin_sending(&mut self, begin: u64) {
        self.schedule.begin = begin;
        if self.load.mode == Mode::Echo {
            let due = (0..self.calls.len()).map(|call| Reverse((self.due_at(call), call)));
            self.due = due.collect();
        }
    }

    /// When a call's next frame is due.
    fn due_at(&self, call: usize) -> u64 {
        let due = self.schedule.due(call, self.calls[call].frames_due);
        self.wake_interval
            .map_or(due, |interval| due.next_multiple_of(interval))
    }

    fn send_due(&mut self, connections: &mut Connections<usize>, now: u64) {
        while let Some(Reverse((at, call))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            if connections.contains(self.calls[call].token) {
                self.send_frame(connections, call);
                // If the load is behind, it reads before it sends a second one.
                let due = self.due_at(call).max(now + 1);
                self.due.push(Reverse((due, call)));
            }
        }
    }

    fn send_frame(&mut self, connections: &mut Connections<usize>, index: usize) {
        let due = self.due_at(index);
        let call = &mut self.calls[index];
        call.frames_due += 1;
        let now = connections.now();
        self.send_lateness.saturating_record(now - due);
        if !connections.is_idle(call.token) {
            self.counters.frames.blocked += 1;
            return;
        }
        let Some(payload) = self.frame[HEADER..].first_chunk_mut() else {
            return;
        };
        call.echo.stamp(now).write(payload);
        match connections.send(call.token, &self.frame) {
            Ok(()) => call.echo.sent(now, &mut self.counters),
            Err(_) => {
                connections.close(call.token);
                self.ended_early += 1;
            }
        }
    }

    /// Whether frames are still out that may come back.
    fn is_awaiting_frames(&self) -> bool {
        let frames = &self.counters.frames;
        self.load.mode == Mode::Echo
            && frames.returned < frames.sent
            && self.ended_early < self.load.calls
    }

    /// Waits until `until`, or as soon as something has come; with a wake interval, until its end.
    fn wait(&self, until: u64, now: u64) -> Wait {
        if self.load.busy_poll {
            return Wait::until(now);
        }
        match self.wake_interval {
            Some(interval) => {
                let until = until.min((now + 1).next_multiple_of(interval));
                Wait {
                    until,
                    gather_until: until,
                }
            }
            None => Wait::until(until),
        }
    }

    fn snapshot(
        &self,
        connections: &Connections<usize>,
        server: Option<&Process>,
    ) -> Result<Snapshot, LoadError> {
        let frames = match self.load.mode {
            // Counted by their arrival in the measured time, whatever audio they hold.
            Mode::Playout => self.counters.frames.returned,
            _ => self.counters.verified,
        };
        Ok(Snapshot {
            server: server.map(Process::cpu).transpose()?,
            at: connections.now(),
            own: thread_cpu(),
            frames,
        })
    }

    /// The highest mean round trip of a call, in microseconds.
    fn slowest_call(&self) -> Option<f64> {
        let means = self
            .calls
            .iter()
            .filter_map(|call| call.echo.mean_round_trip());
        means.reduce(f64::max).map(|nanos| nanos / 1000.0)
    }

    fn judge_pace(&mut self) -> Option<Pace> {
        let mut pacing = Pacing::new();
        let slots = (self.counters.window.end - self.counters.window.start) / FRAME_INTERVAL;
        let mut underruns = self.counters.underruns;
        for call in &mut self.calls {
            pacing.add(&mut call.arrivals);
            if self.load.mode == Mode::Playout {
                // One may be due just before and come just after the end.
                underruns += slots.saturating_sub(call.arrivals.len() as u64 + 1);
            }
        }
        self.counters.frames.late = pacing.late;
        Pace::of(&pacing, underruns)
    }
}

/// Of each connection, the event loop keeps the call's index in `calls`, which outlives it.
impl Handler for PacedCalls<'_> {
    type Call = usize;

    fn handle_timeout(
        &mut self,
        connections: &mut Connections<usize>,
        now: u64,
    ) -> Result<Option<Wait>, LoadError> {
        match self.phase {
            Phase::Connecting { .. } => self.open_connections(connections, now),
            Phase::Running { until } if now >= until => Ok(None),
            Phase::Running { until } => {
                self.send_due(connections, now);
                let next = self.due.peek().map_or(until, |Reverse((due, _))| *due);
                Ok(Some(self.wait(next.min(until), connections.now())))
            }
            Phase::Draining { until } if now >= until || !self.is_awaiting_frames() => Ok(None),
            Phase::Draining { until } => Ok(Some(self.wait(until, now))),
        }
    }

    /// Sends the UUID, where the mode has one.
    fn handle_connected(
        &mut self,
        connections: &mut Connections<usize>,
        token: Token,
    ) -> Result<(), Errno> {
        self.connected += 1;
        if self.load.mode == Mode::Nameless {
            return connections.flush(token);
        }
        let Some(call) = connections.call_mut(token) else {
            return Ok(());
        };
        let uuid = Uuid::from_u128(self.run.as_u128() ^ *call as u128);
        connections.send(token, &uuid_message(uuid))
    }

    /// Figures are of all calls or of none.
    fn handle_connect_error(&mut self, _: usize, error: LoadError) -> Result<(), LoadError> {
        Err(error)
    }

    fn handle_message(
        &mut self,
        call: &mut usize,
        message: &Message<'_>,
        now: u64,
    ) -> Option<CallEnd> {
        let call = &mut self.calls[*call];
        let arrived = |arrival| call.arrivals.push(arrival);
        match (self.load.mode, message) {
            (_, Message::Hangup) => return Some(CallEnd::ByServer),
            (Mode::Echo, message) => call
                .echo
                .received(message, now, &mut self.counters, arrived),
            (Mode::Playout, message) => {
                call.playout
                    .received(message, now, &mut self.counters, arrived)
            }
            _ => {}
        }
        None
    }

    fn handle_end(&mut self, _: usize, _: CallEnd, _: u64) {
        self.ended_early += 1;
    }

    /// Everything that a wait gathered came at its end.
    fn read_at(&self, woken_at: u64, _: &Connections<usize>) -> u64 {
        woken_at
    }

    fn progress(&self, connections: &Connections<usize>, now: u64) -> Progress {
        Progress {
            elapsed: connections.elapsed(),
            calls: self.connected - self.ended_early,
            measuring: self.counters.window.contains(&now),
            frames: self.counters.frames,
        }
    }
}

fn micros(nanos: Option<u64>) -> Option<f64> {
    nanos.map(|nanos| nanos as f64 / 1000.0)
}
