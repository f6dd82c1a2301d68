use std::collections::VecDeque;

use hdrhistogram::Histogram;
use rustix::io::Errno;
use sidetone_driver::Token;
use sidetone_proto::Message;
use uuid::Uuid;

use crate::{
    Load, LoadError, Progress,
    event_loop::{CallEnd, Connections, EventLoop, Handler, Wait},
    frame::{CallId, MAX_CALLS, audio_message, uuid_message},
    process::{Process, thread_cpu},
    report::{Percentiles, Report, ServerCost, Setup},
    socket,
    verify::{Counters, EchoVerifier, histogram},
};

/// Nanoseconds a call waits for its first frame.
const FIRST_FRAME_TIMEOUT: u64 = 1_000_000_000;

/// Places call after call.
pub(crate) fn run(load: &Load, progress: &mut dyn FnMut(&Progress)) -> Result<Report, LoadError> {
    let server = load.pid.map(Process::new).transpose()?;
    let mut event_loop = EventLoop::new(load, progress)?;
    let from = event_loop.connections.now() + load.warm_up.as_nanos() as u64;
    let to = from + load.seconds.as_nanos() as u64;
    let mut calls = SetupCalls::new(load);
    calls.counters.window = from..to;

    calls.until = from;
    event_loop.run(&mut calls)?;
    let before = server.as_ref().map(Process::cpu).transpose()?;
    let (began, own) = (event_loop.connections.now(), thread_cpu());
    calls.until = to;
    event_loop.run(&mut calls)?;
    let after = server.as_ref().map(Process::cpu).transpose()?;
    let seconds = (event_loop.connections.now() - began) as f64 / 1e9;
    let own = (thread_cpu() - own) as f64 / 1000.0;
    let usage = match (&server, &before, &after) {
        (Some(server), Some(before), Some(after)) => Some(server.usage(before, after)?),
        _ => None,
    };
    Ok(Report {
        mode: load.mode,
        calls: load.calls,
        ended_early: calls.ended_early,
        seconds,
        frames: calls.counters.frames,
        round_trip_us: Percentiles::of(&calls.counters.round_trips),
        slowest_call_us: None,
        pace: None,
        setup: Some(Setup {
            placed: calls.placed,
            answered: calls.answered,
            failed: calls.failed,
            per_second: calls.placed as f64 / seconds,
            first_frame_us: Percentiles::of(&calls.first_frame),
        }),
        server: usage.map(|usage| ServerCost::of(&usage, seconds, 0, calls.placed, load.calls)),
        load_cpu_us_per_frame: None,
        load_cpu_percent: own / 1e4 / seconds,
        send_lateness_us: None,
        io_backend: event_loop.connections.backend().to_string(),
        wake_interval_us: None,
        resolution_us: None,
    })
}

/// Calls that each wait for one frame and hang up.
struct SetupCalls<'a> {
    load: &'a Load,
    /// When this part of the load ends.
    until: u64,
    /// Keeps UUIDs and frames of this run apart from another's.
    run: Uuid,
    /// How many calls were begun.
    begun: u64,
    /// Whether any call was ever connected.
    ever_connected: bool,
    /// When calls give up, in order. The token of a call that is over finds no connection.
    deadlines: VecDeque<(u64, Token)>,
    placed: u64,
    answered: u64,
    failed: u64,
    ended_early: usize,
    /// Nanoseconds from connecting until the first frame.
    first_frame: Histogram<u64>,
    counters: Counters,
    /// A message of audio, whose payload is written anew for each call.
    frame: Vec<u8>,
}

struct Call {
    /// Its place in the order of this run's calls.
    number: u64,
    since: u64,
    verifier: EchoVerifier,
}

impl<'a> SetupCalls<'a> {
    fn new(load: &'a Load) -> Self {
        Self {
            load,
            until: 0,
            run: Uuid::new_v4(),
            begun: 0,
            ever_connected: false,
            deadlines: VecDeque::new(),
            placed: 0,
            answered: 0,
            failed: 0,
            ended_early: 0,
            first_frame: histogram(),
            counters: Counters::new(),
            frame: audio_message(),
        }
    }

    /// When the next call begins, if one may.
    fn next_begin(&self, under_way: usize) -> Option<u64> {
        let rate = self.load.rate.map_or(u64::MAX, u64::from);
        let at = (u128::from(self.begun) * 1_000_000_000 / u128::from(rate)) as u64;
        (under_way < self.load.calls).then_some(at)
    }

    fn begin_calls(
        &mut self,
        connections: &mut Connections<Call>,
        now: u64,
    ) -> Result<(), LoadError> {
        while self
            .next_begin(connections.len())
            .is_some_and(|at| at <= now)
        {
            let number = self.begun;
            self.begun += 1;
            let stream = match socket::open(self.load.address, number as usize % self.load.calls) {
                Ok(stream) => stream,
                Err(error) if !self.ever_connected => return Err(error),
                Err(_) => {
                    self.failed += 1;
                    break;
                }
            };
            let id = CallId::new(self.run.as_u128() as u16, number as usize % MAX_CALLS);
            let call = Call {
                number,
                since: now,
                verifier: EchoVerifier::new(id),
            };
            let token = connections.register(stream, call)?;
            self.deadlines.push_back((now + FIRST_FRAME_TIMEOUT, token));
        }
        Ok(())
    }

    /// Hangs up calls that have waited too long for a frame.
    fn end_unanswered(&mut self, connections: &mut Connections<Call>, now: u64) {
        while let Some((at, token)) = self.deadlines.front().copied() {
            if at > now && connections.contains(token) {
                return;
            }
            self.deadlines.pop_front();
            if let Some(call) = connections.close(token) {
                self.handle_end(call, CallEnd::Unanswered, now);
            }
        }
    }
}

impl Handler for SetupCalls<'_> {
    type Call = Call;

    fn handle_timeout(
        &mut self,
        connections: &mut Connections<Call>,
        now: u64,
    ) -> Result<Option<Wait>, LoadError> {
        if now >= self.until {
            return Ok(None);
        }
        self.begin_calls(connections, now)?;
        self.end_unanswered(connections, now);
        let begin = self.next_begin(connections.len());
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        let times = [begin, deadline].into_iter().flatten();
        Ok(Some(Wait::until(times.fold(self.until, u64::min))))
    }

    /// Sends the UUID and one frame.
    fn handle_connected(
        &mut self,
        connections: &mut Connections<Call>,
        token: Token,
    ) -> Result<(), Errno> {
        self.ever_connected = true;
        let now = connections.now();
        let Some(call) = connections.call_mut(token) else {
            return Ok(());
        };
        let uuid = Uuid::from_u128(self.run.as_u128() ^ u128::from(call.number));
        if let Some(payload) = self.frame.last_chunk_mut() {
            call.verifier.stamp(now).write(payload);
        }
        connections.send(token, &uuid_message(uuid))?;
        connections.send(token, &self.frame)?;
        if let Some(call) = connections.call_mut(token) {
            call.verifier.sent(now, &mut self.counters);
        }
        Ok(())
    }

    /// Nothing can be measured where no call was ever connected.
    fn handle_connect_error(&mut self, _: Call, error: LoadError) -> Result<(), LoadError> {
        if !self.ever_connected {
            return Err(error);
        }
        self.failed += 1;
        Ok(())
    }

    fn handle_message(
        &mut self,
        call: &mut Call,
        message: &Message<'_>,
        now: u64,
    ) -> Option<CallEnd> {
        if let Message::Hangup = message {
            return Some(CallEnd::ByServer);
        }
        call.verifier
            .received(message, now, &mut self.counters, |_| {});
        matches!(message, Message::Audio(_)).then_some(CallEnd::Answered)
    }

    fn handle_end(&mut self, call: Call, end: CallEnd, now: u64) {
        self.ended_early += usize::from(end == CallEnd::ByServer);
        if self.counters.window.contains(&now) {
            self.placed += 1;
            if end == CallEnd::Answered {
                self.answered += 1;
                self.first_frame.saturating_record(now - call.since);
            }
        }
    }

    /// A call is short, so each event has a time of its own.
    fn read_at(&self, _: u64, connections: &Connections<Call>) -> u64 {
        connections.now()
    }

    fn progress(&self, connections: &Connections<Call>, now: u64) -> Progress {
        Progress {
            elapsed: connections.elapsed(),
            calls: self.begun as usize - connections.len(),
            measuring: self.counters.window.contains(&now),
            frames: self.counters.frames,
        }
    }
}
