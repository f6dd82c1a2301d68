use {
    super::{
        Load, LoadError, Mode, Progress,
        exchange::{Exchange, own_cpu},
        frame::{FRAME, Line as LineName},
        grid::{Arrival, Pacing, STEP},
        mouth::Mouth,
        phases::Schedule,
        process::{CpuTime, Process},
        report::{Pace, Percentiles, Report, ServerCost},
        socket,
        verify::{Echoed, Heard, Tally, histogram},
    },
    crate::{
        CallerError,
        socket::{CONNECT_LIMIT, failure, outcome},
    },
    hdrhistogram::Histogram,
    rustix::io::Errno,
    sidetone_engine::{Arrival as Arrived, Key, Report as Happened},
    sidetone_proto::{Decoder, Message, Outbound, Rate},
    slotmap::SlotMap,
    std::{cmp::Reverse, collections::BinaryHeap, net::TcpStream},
    uuid::Uuid,
};

/// Between one call's connecting and the next one's, so that a server's queue of new connections doesn't
/// overflow.
const CONNECT_STEP: u64 = 250_000;
/// From so many calls on, the load wakes up on this grid only, sends what has become due and reads what has come:
/// five frames a time, and more. Before that it would also spare the server wake-ups that real callers cause.
const MANY: usize = 200;
/// It divides a step, so that each call's frames keep their distance.
const GRID: u64 = 500_000;
/// How long frames may take that are still out at the end.
const DRAIN: u64 = 2_000_000_000;
/// A message's header.
const HEADER: usize = 3;

/// Runs a load whose calls all last as long as it does.
pub(super) fn run(load: &Load, progress: &mut dyn FnMut(&Progress)) -> Result<Report, LoadError> {
    let server = load.pid.map(Process::new).transpose()?;
    let mut run = Run::new(load, progress)?;
    run.connect()?;
    let begin = run.exchange.now() + STEP;
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
        slowest_call_us: run.slowest_call(),
        pace,
        setup: None,
        server: spent.map(|spent| ServerCost::of(&spent, seconds, frames, 0, load.calls)),
        load_cpu_us_per_frame: (frames > 0).then(|| own / frames as f64),
        load_cpu_percent: own / 1e4 / seconds,
        send_lateness_us: Percentiles::of(&run.send_lateness),
        engine: run.exchange.kernel.engine().to_string(),
        grid_us: micros(run.grid),
        resolution_us: micros(run.grid.filter(|_| !load.busy_poll)),
    })
}

struct Run<'a> {
    load: &'a Load,
    progress: &'a mut dyn FnMut(&Progress),
    exchange: Exchange,
    /// On which the load wakes up, with many calls that talk or listen.
    grid: Option<u64>,
    /// UUIDs and stamps of this run are not another's.
    id: Uuid,
    lines: SlotMap<Key, Line>,
    connected: usize,
    ended_early: usize,
    schedule: Schedule,
    /// When which call sends its next frame.
    due: BinaryHeap<Reverse<(u64, Key)>>,
    send_lateness: Histogram<u64>,
    tally: Tally,
    /// A message of audio, whose payload is stamped anew for each frame.
    wire: Vec<u8>,
}

/// One call.
struct Line {
    /// The how-manieth.
    call: usize,
    /// None after it has ended.
    stream: Option<TcpStream>,
    connected: bool,
    decoder: Decoder,
    mouth: Mouth,
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
            at: run.exchange.now(),
            own: own_cpu(),
            frames,
        })
    }
}

impl<'a> Run<'a> {
    fn new(load: &'a Load, progress: &'a mut dyn FnMut(&Progress)) -> Result<Self, LoadError> {
        let is_audible = matches!(load.mode, Mode::Echo | Mode::Playout);
        Ok(Self {
            load,
            progress,
            exchange: Exchange::new(load.io_backend)?,
            grid: (is_audible && load.calls >= MANY).then_some(GRID),
            id: Uuid::new_v4(),
            lines: SlotMap::with_capacity_and_key(load.calls),
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
            tally: Tally::new(),
            wire: message(),
        })
    }

    /// Places all calls.
    fn connect(&mut self) -> Result<(), LoadError> {
        let address = self.load.address;
        let begin = self.exchange.now();
        let (mut connected, mut last) = (0, begin);
        while self.connected < self.load.calls {
            let now = self.exchange.now();
            let allowed = ((now - begin) / CONNECT_STEP) as usize + 1;
            while self.lines.len() < allowed.min(self.load.calls) {
                self.place()?;
            }
            if self.connected > connected {
                (connected, last) = (self.connected, now);
            } else if now - last > CONNECT_LIMIT.as_nanos() as u64 {
                return Err(CallerError::NotAccepted(address).into());
            }
            let placed = self.lines.len();
            let until = if placed < self.load.calls {
                begin + placed as u64 * CONNECT_STEP
            } else {
                now + STEP
            };
            self.turn(until, 0)?;
        }
        Ok(())
    }

    /// Begins to connect the next call.
    fn place(&mut self) -> Result<(), LoadError> {
        let call = self.lines.len();
        let expected = match self.load.mode {
            Mode::Echo | Mode::Playout => self.load.seconds.as_millis() as usize / 20 + 2,
            _ => 0,
        };
        let stream = socket::open(self.load.address, call)?;
        let key = self.lines.insert(Line {
            call,
            stream: None,
            connected: false,
            decoder: Decoder::new(),
            mouth: Mouth::new(),
            frame: 0,
            echoed: Echoed::new(LineName::of_call(self.id.as_u128() as u16, call)),
            heard: Heard::new(),
            arrivals: Vec::with_capacity(expected),
        });
        self.exchange.watch(key, &stream)?;
        self.lines[key].stream = Some(stream);
        Ok(())
    }

    fn begin_sending(&mut self, begin: u64) {
        self.schedule.begin = begin;
        if self.load.mode == Mode::Echo {
            let due = self.lines.iter();
            let due = due.map(|(key, line)| Reverse((self.due_at(line), key)));
            self.due = due.collect();
        }
    }

    /// When a call's next frame is due.
    fn due_at(&self, line: &Line) -> u64 {
        let due = self.schedule.due(line.call, line.frame);
        self.grid.map_or(due, |grid| due.next_multiple_of(grid))
    }

    fn go_on_until(&mut self, end: u64) -> Result<(), LoadError> {
        loop {
            let now = self.exchange.now();
            if now >= end {
                return Ok(());
            }
            self.send_due(now);
            let next = self.due.peek().map_or(end, |Reverse((due, _))| *due);
            self.turn_until(next.min(end))?;
        }
    }

    /// Waits for what is still out.
    fn drain(&mut self) -> Result<(), LoadError> {
        let end = self.exchange.now() + DRAIN;
        while self.load.mode == Mode::Echo
            && self.tally.frames.returned < self.tally.frames.sent
            && self.ended_early < self.load.calls
            && self.exchange.now() < end
        {
            self.turn_until(end)?;
        }
        Ok(())
    }

    /// A turn that ends on the grid, or without one as soon as something has come; at `until` in any case.
    fn turn_until(&mut self, until: u64) -> Result<(), LoadError> {
        if self.load.busy_poll {
            let now = self.exchange.now();
            return self.turn(now, 0);
        }
        match self.grid {
            Some(grid) => {
                let next = (self.exchange.now() + 1).next_multiple_of(grid);
                let end = until.min(next);
                self.turn(end, end)
            }
            None => self.turn(until, 0),
        }
    }

    /// Waits for something to happen, from `gather` on and at most until `until`, and takes note of all that did.
    fn turn(&mut self, until: u64, gather: u64) -> Result<(), LoadError> {
        let now = self.exchange.now();
        if self.exchange.progress_is_due(now) {
            (self.progress)(&Progress {
                elapsed: self.exchange.elapsed(),
                calls: self.connected - self.ended_early,
                measuring: self.tally.window.contains(&now),
                frames: self.tally.frames,
            });
        }
        self.exchange.wait_and_gather(until, gather)?;
        let now = self.exchange.now();
        while let Some(happened) = self.exchange.kernel.next() {
            self.take_note(happened, now)?;
        }
        Ok(())
    }

    fn take_note(&mut self, happened: Happened, now: u64) -> Result<(), LoadError> {
        let (Happened::Readable(key, _)
        | Happened::Writable(key)
        | Happened::Sent(key)
        | Happened::CutShort(key, _)
        | Happened::Broken(key, _)) = happened
        else {
            return Ok(());
        };
        let line = &mut self.lines[key];
        let Some(stream) = &line.stream else {
            return Ok(());
        };
        let kernel = &mut *self.exchange.kernel;
        let spoke = match happened {
            Happened::Readable(_, arrival) => return self.read(key, arrival, now),
            Happened::Writable(_) if !line.connected => return self.look_whether_connected(key),
            Happened::Writable(_) => line.mouth.go_on(kernel, key, stream),
            Happened::Sent(_) => line.mouth.note_sent(kernel, key, stream, &[]),
            Happened::CutShort(_, unsent) => line.mouth.note_sent(kernel, key, stream, &unsent),
            Happened::Broken(_, error) => Err(error),
            Happened::Bell | Happened::Incoming => Ok(()),
        };
        self.unless_broken(key, spoke.is_ok());
        Ok(())
    }

    fn look_whether_connected(&mut self, key: Key) -> Result<(), LoadError> {
        let Some(stream) = &self.lines[key].stream else {
            return Ok(());
        };
        outcome(stream, self.load.address)?;
        // Without a peer, the reason is on its way: a read has it.
        if stream.peer_addr().is_ok() {
            self.connection_made(key);
        }
        Ok(())
    }

    fn connection_made(&mut self, key: Key) {
        let line = &mut self.lines[key];
        let Some(stream) = &line.stream else {
            return;
        };
        line.connected = true;
        self.connected += 1;
        let kernel = &mut *self.exchange.kernel;
        let spoke = if self.load.mode == Mode::Nameless {
            line.mouth.go_on(kernel, key, stream)
        } else {
            let id = Uuid::from_u128(self.id.as_u128() ^ line.call as u128);
            line.mouth.say(kernel, key, stream, &identity(id))
        };
        self.unless_broken(key, spoke.is_ok());
    }

    fn send_due(&mut self, now: u64) {
        while let Some(Reverse((at, key))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            if self.lines[key].stream.is_some() {
                self.send_frame(key);
                // If the load is behind, it reads before it sends a second one.
                let due = self.due_at(&self.lines[key]).max(now + 1);
                self.due.push(Reverse((due, key)));
            }
        }
    }

    fn send_frame(&mut self, key: Key) {
        let due = self.due_at(&self.lines[key]);
        let line = &mut self.lines[key];
        let Some(stream) = &line.stream else {
            return;
        };
        line.frame += 1;
        let now = self.exchange.now();
        self.send_lateness.saturating_record(now - due);
        if !line.mouth.is_free() {
            self.tally.frames.blocked += 1;
            return;
        }
        let Some(payload) = self.wire[HEADER..].first_chunk_mut() else {
            return;
        };
        line.echoed.stamp(now).write(payload);
        let kernel = &mut *self.exchange.kernel;
        match line.mouth.say(kernel, key, stream, &self.wire) {
            Ok(()) => line.echoed.sent(now, &mut self.tally),
            Err(_) => self.unless_broken(key, false),
        }
    }

    fn read(&mut self, key: Key, arrival: Arrived, now: u64) -> Result<(), LoadError> {
        let line = &mut self.lines[key];
        let Some(stream) = &line.stream else {
            return Ok(());
        };
        let open = match self.exchange.kernel.read(arrival, stream) {
            Ok([]) => false,
            Ok(bytes) => line.hear(bytes, self.load.mode, now, &mut self.tally),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) if !line.connected => {
                return Err(failure(error.into(), self.load.address).into());
            }
            Err(_) => false,
        };
        if !line.connected {
            self.connection_made(key);
        }
        self.unless_broken(key, open);
        Ok(())
    }

    fn unless_broken(&mut self, key: Key, open: bool) {
        if !open && let Some(stream) = self.lines[key].stream.take() {
            self.exchange.kernel.dismiss(key, stream);
            self.ended_early += 1;
        }
    }

    /// The mean round trip of the call in which it is longest, in microseconds.
    fn slowest_call(&self) -> Option<f64> {
        let means = self
            .lines
            .values()
            .filter_map(|line| line.echoed.mean_round_trip());
        means.reduce(f64::max).map(|nanos| nanos / 1000.0)
    }

    fn judge_pace(&mut self) -> Option<Pace> {
        let mut pacing = Pacing::new();
        let slots = (self.tally.window.end - self.tally.window.start) / STEP;
        let mut underruns = self.tally.underruns;
        for line in self.lines.values_mut() {
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
    /// Judges what came. False when the server hung up.
    fn hear(&mut self, bytes: &[u8], mode: Mode, now: u64, tally: &mut Tally) -> bool {
        let mut open = true;
        let mut rest = bytes;
        let mut arrived = |arrival| self.arrivals.push(arrival);
        loop {
            let decoded = self.decoder.decode(rest);
            rest = &rest[decoded.consumed..];
            match (mode, &decoded.message) {
                (_, None) => return open,
                (_, Some(Message::Hangup)) => open = false,
                (Mode::Echo, Some(message)) => {
                    self.echoed.received(message, now, tally, &mut arrived)
                }
                (Mode::Playout, Some(message)) => {
                    self.heard.received(message, now, tally, &mut arrived)
                }
                _ => {}
            }
        }
    }
}

fn micros(nanos: Option<u64>) -> Option<f64> {
    nanos.map(|nanos| nanos as f64 / 1000.0)
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
