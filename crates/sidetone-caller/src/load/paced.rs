use {
    super::{
        Load, LoadError, Mode, Progress,
        engine::{Engine, SCRATCH, own_cpu},
        frame::{FRAME, Line as LineName},
        grid::{Arrival, Pacing, STEP},
        phases::Schedule,
        process::{CpuTime, Process},
        report::{Pace, Percentiles, Report, ServerCost},
        socket,
        verify::{Echoed, Heard, Tally, histogram},
    },
    crate::{
        CallerError,
        socket::{CONNECT_LIMIT, outcome},
    },
    hdrhistogram::Histogram,
    rustix::{io::Errno, net::SendFlags},
    sidetone_proto::{Decoder, Message, Outbound, Rate},
    std::{cmp::Reverse, collections::BinaryHeap, net::TcpStream},
    uuid::Uuid,
};

/// Between one call's connecting and the next one's, so that a server's queue of new connections doesn't
/// overflow.
const CONNECT_STEP: u64 = 250_000;
/// From so many calls on, frames leave on the grid below.
const MANY: usize = 1000;
const SEND_GRID: u64 = 500_000;
/// How long frames may take that are still out at the end.
const DRAIN: u64 = 2_000_000_000;
/// A message's header.
const HEADER: usize = 3;

/// Runs a load whose calls all last as long as it does.
pub(super) fn run(load: &Load, progress: &mut dyn FnMut(&Progress)) -> Result<Report, LoadError> {
    let server = load.pid.map(Process::new).transpose()?;
    let mut run = Run::new(load, progress)?;
    run.connect()?;
    let begin = run.engine.now() + STEP;
    run.begin_sending(begin);
    let from = begin + load.warm_up.as_nanos() as u64;
    let to = from + load.seconds.as_nanos() as u64;
    run.tally.window = from..to;

    run.go_on_until(from)?;
    if run.ended_early == load.calls {
        return Err(LoadError::NoCalls);
    }
    run.send_lateness.reset();
    let before = Moment::of(&run, server.as_ref())?;
    run.go_on_until(to)?;
    let after = Moment::of(&run, server.as_ref())?;
    let spent = match (&server, &before.server, &after.server) {
        (Some(server), Some(before), Some(after)) => Some(server.spent(before, after)?),
        _ => None,
    };
    run.due.clear();
    run.drain()?;

    let frames = after.frames - before.frames;
    let seconds = (after.at - before.at) as f64 / 1e9;
    let own = (after.own - before.own) as f64 / 1000.0;
    let pace = run.judge_pace();
    if load.mode == Mode::Echo {
        run.tally.frames.lost = run.tally.frames.sent - run.tally.frames.returned;
    }
    Ok(Report {
        mode: load.mode,
        calls: load.calls,
        ended_early: run.ended_early,
        seconds,
        frames: run.tally.frames,
        round_trip_us: Percentiles::of(&run.tally.round_trips),
        pace,
        setup: None,
        server: spent.map(|spent| ServerCost::of(&spent, seconds, frames, 0, load.calls)),
        load_cpu_us_per_frame: (frames > 0).then(|| own / frames as f64),
        load_cpu_percent: own / 1e4 / seconds,
        send_lateness_us: Percentiles::of(&run.send_lateness),
    })
}

struct Run<'a> {
    load: &'a Load,
    progress: &'a mut dyn FnMut(&Progress),
    engine: Engine,
    /// UUIDs and stamps of this run are not another's.
    id: Uuid,
    lines: Vec<Line>,
    connected: usize,
    ended_early: usize,
    schedule: Schedule,
    /// When which call sends its next frame.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    send_lateness: Histogram<u64>,
    tally: Tally,
    /// A message of audio, whose payload is stamped anew for each frame.
    wire: Vec<u8>,
    scratch: Vec<u8>,
}

/// One call.
struct Line {
    /// None before it is placed and after it has ended.
    stream: Option<TcpStream>,
    connected: bool,
    decoder: Decoder,
    /// What the kernel has not taken of the last message. Nothing else is sent before it.
    rest: Vec<u8>,
    /// How many frames were due.
    frame: u32,
    echoed: Echoed,
    heard: Heard,
    arrivals: Vec<Arrival>,
}

/// What has been spent and done up to one moment.
struct Moment {
    at: u64,
    server: Option<CpuTime>,
    own: u64,
    frames: u64,
}

impl Moment {
    fn of(run: &Run<'_>, server: Option<&Process>) -> Result<Self, LoadError> {
        let frames = match run.load.mode {
            // Counted by their arrival in the measured time, of whatever sound.
            Mode::Playout => run.tally.frames.returned,
            _ => run.tally.verified,
        };
        Ok(Self {
            server: server.map(Process::cpu).transpose()?,
            at: run.engine.now(),
            own: own_cpu(),
            frames,
        })
    }
}

impl<'a> Run<'a> {
    fn new(load: &'a Load, progress: &'a mut dyn FnMut(&Progress)) -> Result<Self, LoadError> {
        let id = Uuid::new_v4();
        let expected = match load.mode {
            Mode::Echo | Mode::Playout => load.seconds.as_millis() as usize / 20 + 2,
            _ => 0,
        };
        let lines = (0..load.calls).map(|call| Line {
            stream: None,
            connected: false,
            decoder: Decoder::new(),
            rest: Vec::new(),
            frame: 0,
            echoed: Echoed::new(LineName::of_call(id.as_u128() as u16, call)),
            heard: Heard::new(),
            arrivals: Vec::with_capacity(expected),
        });
        Ok(Self {
            load,
            progress,
            engine: Engine::new()?,
            id,
            lines: lines.collect(),
            connected: 0,
            ended_early: 0,
            schedule: Schedule {
                begin: 0,
                calls: load.calls,
                phases: load.phases,
            },
            due: BinaryHeap::with_capacity(load.calls),
            send_lateness: histogram(),
            tally: Tally::new(),
            wire: message(),
            scratch: vec![0; SCRATCH],
        })
    }

    /// Places all calls.
    fn connect(&mut self) -> Result<(), LoadError> {
        let address = self.load.address;
        let begin = self.engine.now();
        let mut placed = 0;
        let (mut connected, mut last) = (0, begin);
        while self.connected < self.load.calls {
            let now = self.engine.now();
            let allowed = ((now - begin) / CONNECT_STEP) as usize + 1;
            while placed < allowed.min(self.load.calls) {
                let stream = socket::open(address, placed)?;
                self.engine.watch_connecting(&stream, placed as u64)?;
                self.lines[placed].stream = Some(stream);
                placed += 1;
            }
            if self.connected > connected || placed == 0 {
                (connected, last) = (self.connected, now);
            } else if now - last > CONNECT_LIMIT.as_nanos() as u64 {
                return Err(CallerError::NotAccepted(address).into());
            }
            let more = placed < self.load.calls;
            let until = if more {
                begin + placed as u64 * CONNECT_STEP
            } else {
                now + STEP
            };
            self.turn(until)?;
        }
        Ok(())
    }

    fn begin_sending(&mut self, begin: u64) {
        self.schedule.begin = begin;
        if self.load.mode == Mode::Echo {
            for call in 0..self.load.calls {
                self.arm(call, begin);
            }
        }
    }

    /// Sets when a call's next frame leaves: when it is due, but not before `earliest`.
    fn arm(&mut self, call: usize, earliest: u64) {
        let due = self.due_at(call).max(earliest);
        self.due.push(Reverse((due, call as u32)));
    }

    fn due_at(&self, call: usize) -> u64 {
        let due = self.schedule.due(call, self.lines[call].frame);
        if self.load.calls >= MANY {
            due.next_multiple_of(SEND_GRID)
        } else {
            due
        }
    }

    fn go_on_until(&mut self, end: u64) -> Result<(), LoadError> {
        loop {
            let now = self.engine.now();
            if now >= end {
                return Ok(());
            }
            self.send_due(now);
            let next = self.due.peek().map_or(end, |Reverse((due, _))| *due);
            self.turn(next.min(end))?;
        }
    }

    /// Waits for what is still out.
    fn drain(&mut self) -> Result<(), LoadError> {
        let end = self.engine.now() + DRAIN;
        while self.load.mode == Mode::Echo
            && self.tally.frames.returned < self.tally.frames.sent
            && self.ended_early < self.load.calls
            && self.engine.now() < end
        {
            self.turn(end)?;
        }
        Ok(())
    }

    /// Waits until something comes, at most until `until`, and reads all of it.
    fn turn(&mut self, until: u64) -> Result<(), LoadError> {
        let now = self.engine.now();
        if self.engine.progress_is_due(now) {
            (self.progress)(&Progress {
                elapsed: self.engine.elapsed(),
                calls: self.connected - self.ended_early,
                measuring: self.tally.window.contains(&now),
                frames: self.tally.frames,
            });
        }
        for index in 0..self.engine.wait(until)? {
            let Some(token) = self.engine.ready(index) else {
                continue;
            };
            let call = token as usize;
            if self.lines[call].connected {
                self.read(call);
            } else {
                self.connection_made(call)?;
            }
        }
        Ok(())
    }

    fn connection_made(&mut self, call: usize) -> Result<(), LoadError> {
        let line = &mut self.lines[call];
        let Some(stream) = &line.stream else {
            return Ok(());
        };
        outcome(stream, self.load.address)?;
        self.engine.watch_reading(stream, call as u64)?;
        line.connected = true;
        self.connected += 1;
        if self.load.mode != Mode::Nameless {
            let id = Uuid::from_u128(self.id.as_u128() ^ call as u128);
            let sent = line.send(&identity(id));
            self.unless_broken(call, sent.is_ok());
        }
        Ok(())
    }

    fn send_due(&mut self, now: u64) {
        while let Some(Reverse((at, call))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            let call = call as usize;
            if self.lines[call].stream.is_some() {
                self.send_frame(call);
                // If the load is behind, it reads before it sends a second one.
                self.arm(call, now + 1);
            }
        }
    }

    fn send_frame(&mut self, call: usize) {
        let due = self.due_at(call);
        let line = &mut self.lines[call];
        line.frame += 1;
        let now = self.engine.now();
        self.send_lateness.saturating_record(now - due);
        let Some(payload) = self.wire[HEADER..].first_chunk_mut() else {
            return;
        };
        line.echoed.stamp(now).write(payload);
        match line.send(&self.wire) {
            Ok(true) => line.echoed.sent(now, &mut self.tally),
            Ok(false) => self.tally.frames.blocked += 1,
            Err(_) => self.unless_broken(call, false),
        }
    }

    fn read(&mut self, call: usize) {
        let line = &mut self.lines[call];
        let Some(stream) = &line.stream else {
            return;
        };
        let count = match rustix::io::read(stream, &mut self.scratch[..]) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => 0,
        };
        let now = self.engine.now();
        let mut open = count > 0;
        let mut rest = &self.scratch[..count];
        let arrivals = &mut line.arrivals;
        loop {
            let decoded = line.decoder.decode(rest);
            rest = &rest[decoded.consumed..];
            match (self.load.mode, &decoded.message) {
                (_, None) => break,
                (_, Some(Message::Hangup)) => open = false,
                (Mode::Echo, Some(message)) => {
                    let arrived = |arrival| arrivals.push(arrival);
                    line.echoed.received(message, now, &mut self.tally, arrived);
                }
                (Mode::Playout, Some(message)) => {
                    let arrived = |arrival| arrivals.push(arrival);
                    line.heard.received(message, now, &mut self.tally, arrived);
                }
                _ => {}
            }
        }
        self.unless_broken(call, open);
    }

    fn unless_broken(&mut self, call: usize, open: bool) {
        if !open && self.lines[call].stream.take().is_some() {
            self.ended_early += 1;
        }
    }

    fn judge_pace(&mut self) -> Option<Pace> {
        let mut pacing = Pacing::new();
        let slots = (self.tally.window.end - self.tally.window.start) / STEP;
        let mut underruns = self.tally.underruns;
        for line in &mut self.lines {
            pacing.add(&mut line.arrivals);
            if self.load.mode == Mode::Playout {
                // One may be due just before and come just after the end.
                underruns += slots.saturating_sub(line.arrivals.len() as u64 + 1);
            }
        }
        self.tally.frames.late = pacing.late;
        Pace::of(&pacing, underruns)
    }
}

impl Line {
    /// Sends a message whole, or not at all; if the kernel takes part of it, the rest goes before the next.
    fn send(&mut self, message: &[u8]) -> Result<bool, Errno> {
        let Some(stream) = &self.stream else {
            return Ok(false);
        };
        while !self.rest.is_empty() {
            match rustix::net::send(stream, &self.rest, SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.rest.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        match rustix::net::send(stream, message, SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.rest.extend_from_slice(&message[count..]);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A message of audio, as Asterisk sends it for `c(slin)`.
pub(super) fn message() -> Vec<u8> {
    let mut wire = Vec::with_capacity(HEADER + FRAME);
    if let Ok(audio) = Outbound::audio(Rate::Slin, &[0; FRAME]) {
        audio.encode(&mut wire);
    }
    wire
}

/// A caller's first message.
pub(super) fn identity(id: Uuid) -> [u8; HEADER + 16] {
    let mut message = [0; HEADER + 16];
    message[..HEADER].copy_from_slice(&[0x01, 0, 16]);
    message[HEADER..].copy_from_slice(id.as_bytes());
    message
}
