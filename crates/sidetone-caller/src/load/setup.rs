use {
    super::{
        Load, LoadError, Progress,
        exchange::{Exchange, own_cpu},
        frame::{Line, MOST_CALLS},
        mouth::Mouth,
        paced::{identity, message},
        process::Process,
        report::{Percentiles, Report, ServerCost, SetUp},
        socket,
        verify::{Echoed, Tally, histogram},
    },
    crate::{
        CallerError,
        socket::{failure, outcome},
    },
    hdrhistogram::Histogram,
    rustix::io::Errno,
    sidetone_engine::{Arrival, Kernel, Key, Report as Happened},
    sidetone_proto::{Decoder, Message},
    slotmap::SlotMap,
    std::{collections::VecDeque, net::TcpStream},
    uuid::Uuid,
};

/// How long a call waits for its first frame.
const PATIENCE: u64 = 1_000_000_000;

/// Places call after call.
pub(super) fn run(load: &Load, progress: &mut dyn FnMut(&Progress)) -> Result<Report, LoadError> {
    let server = load.pid.map(Process::new).transpose()?;
    let mut run = Run::new(load, progress)?;
    let from = run.exchange.now() + load.warm_up.as_nanos() as u64;
    let to = from + load.seconds.as_nanos() as u64;
    run.tally.window = from..to;

    run.go_on_until(from)?;
    let before = server.as_ref().map(Process::cpu).transpose()?;
    let (began, own) = (run.exchange.now(), own_cpu());
    run.go_on_until(to)?;
    let after = server.as_ref().map(Process::cpu).transpose()?;
    let seconds = (run.exchange.now() - began) as f64 / 1e9;
    let own = (own_cpu() - own) as f64 / 1000.0;
    let spent = match (&server, &before, &after) {
        (Some(server), Some(before), Some(after)) => Some(server.spent(before, after)?),
        _ => None,
    };
    Ok(Report {
        mode: load.mode,
        calls: load.calls,
        ended_early: run.ended_early,
        seconds,
        frames: run.tally.frames,
        round_trip_us: Percentiles::of(&run.tally.round_trips),
        slowest_call_us: None,
        pace: None,
        setup: Some(SetUp {
            placed: run.placed,
            answered: run.answered,
            failed: run.failed,
            per_second: run.placed as f64 / seconds,
            first_frame_us: Percentiles::of(&run.first_frame),
        }),
        server: spent.map(|spent| ServerCost::of(&spent, seconds, 0, run.placed, load.calls)),
        load_cpu_us_per_frame: None,
        load_cpu_percent: own / 1e4 / seconds,
        send_lateness_us: None,
        engine: run.exchange.kernel.engine().to_string(),
        grid_us: None,
        resolution_us: None,
    })
}

struct Run<'a> {
    load: &'a Load,
    progress: &'a mut dyn FnMut(&Progress),
    exchange: Exchange,
    id: Uuid,
    /// Calls under way.
    calls: SlotMap<Key, Call>,
    /// How many calls were begun.
    begun: u64,
    /// Whether any call was ever connected.
    reached: bool,
    /// When calls give up, in order; a call that is over is not found any more.
    deadlines: VecDeque<(u64, Key)>,
    placed: u64,
    answered: u64,
    failed: u64,
    ended_early: usize,
    first_frame: Histogram<u64>,
    tally: Tally,
    wire: Vec<u8>,
}

struct Call {
    stream: TcpStream,
    /// The how-manieth call of this run.
    number: u64,
    since: u64,
    connected: bool,
    decoder: Decoder,
    mouth: Mouth,
    echoed: Echoed,
}

/// How a call was over.
enum End {
    Answered,
    Unanswered,
    /// By the server.
    Ended,
    /// Before it began.
    Failed,
}

impl<'a> Run<'a> {
    fn new(load: &'a Load, progress: &'a mut dyn FnMut(&Progress)) -> Result<Self, LoadError> {
        Ok(Self {
            load,
            progress,
            exchange: Exchange::new(load.io_backend)?,
            id: Uuid::new_v4(),
            calls: SlotMap::with_capacity_and_key(load.calls),
            begun: 0,
            reached: false,
            deadlines: VecDeque::new(),
            placed: 0,
            answered: 0,
            failed: 0,
            ended_early: 0,
            first_frame: histogram(),
            tally: Tally::new(),
            wire: message(),
        })
    }

    fn go_on_until(&mut self, end: u64) -> Result<(), LoadError> {
        loop {
            let now = self.exchange.now();
            if now >= end {
                return Ok(());
            }
            self.begin_calls(now)?;
            self.give_up(now);
            self.show(now);
            let next = self.next_begin().unwrap_or(end);
            let deadline = self.deadlines.front().map_or(end, |(at, _)| *at);
            let until = next.min(deadline).min(end);
            self.exchange.wait(until)?;
            while let Some(happened) = self.exchange.kernel.next() {
                self.take_note(happened)?;
            }
        }
    }

    /// When the next call begins, if one may.
    fn next_begin(&self) -> Option<u64> {
        let rate = self.load.rate.map_or(u64::MAX, u64::from);
        let at = (u128::from(self.begun) * 1_000_000_000 / u128::from(rate)) as u64;
        (self.calls.len() < self.load.calls).then_some(at)
    }

    fn begin_calls(&mut self, now: u64) -> Result<(), LoadError> {
        while self.next_begin().is_some_and(|at| at <= now) {
            let number = self.begun;
            self.begun += 1;
            let stream = match socket::open(self.load.address, number as usize % self.load.calls) {
                Ok(stream) => stream,
                Err(error) if !self.reached => return Err(error),
                Err(_) => {
                    self.failed += 1;
                    break;
                }
            };
            let name = Line::of_call(self.id.as_u128() as u16, number as usize % MOST_CALLS);
            let key = self.calls.insert(Call {
                stream,
                number,
                since: now,
                connected: false,
                decoder: Decoder::new(),
                mouth: Mouth::new(),
                echoed: Echoed::new(name),
            });
            self.exchange.watch(key, &self.calls[key].stream)?;
            self.deadlines.push_back((now + PATIENCE, key));
        }
        Ok(())
    }

    fn give_up(&mut self, now: u64) {
        while let Some((at, key)) = self.deadlines.front().copied() {
            let is_over = !self.calls.contains_key(key);
            if at > now && !is_over {
                return;
            }
            self.deadlines.pop_front();
            self.over(key, now, End::Unanswered);
        }
    }

    fn take_note(&mut self, happened: Happened) -> Result<(), LoadError> {
        let (Happened::Readable(key, _)
        | Happened::Writable(key)
        | Happened::Sent(key)
        | Happened::CutShort(key, _)
        | Happened::Broken(key, _)) = happened
        else {
            return Ok(());
        };
        let now = self.exchange.now();
        let Some(call) = self.calls.get_mut(key) else {
            return Ok(());
        };
        let kernel = &mut *self.exchange.kernel;
        let spoke = match happened {
            Happened::Readable(_, arrival) => return self.read(key, arrival, now),
            Happened::Writable(_) if !call.connected => {
                return self.look_whether_connected(key, now);
            }
            Happened::Writable(_) => call.mouth.go_on(kernel, key, &call.stream),
            Happened::Sent(_) => call.mouth.note_sent(kernel, key, &call.stream, &[]),
            Happened::CutShort(_, unsent) => {
                call.mouth.note_sent(kernel, key, &call.stream, &unsent)
            }
            Happened::Broken(_, error) => Err(error),
            Happened::Bell | Happened::Incoming => Ok(()),
        };
        if spoke.is_err() {
            self.over(key, now, End::Ended);
        }
        Ok(())
    }

    fn look_whether_connected(&mut self, key: Key, now: u64) -> Result<(), LoadError> {
        let stream = &self.calls[key].stream;
        if let Err(error) = outcome(stream, self.load.address) {
            return self.not_connected(key, now, error);
        }
        // Without a peer, the reason is on its way: a read has it.
        if stream.peer_addr().is_ok() {
            self.connection_made(key, now);
        }
        Ok(())
    }

    /// Nothing can be measured where no call was ever connected.
    fn not_connected(&mut self, key: Key, now: u64, error: CallerError) -> Result<(), LoadError> {
        if !self.reached {
            return Err(error.into());
        }
        self.over(key, now, End::Failed);
        Ok(())
    }

    fn connection_made(&mut self, key: Key, now: u64) {
        let call = &mut self.calls[key];
        call.connected = true;
        self.reached = true;
        let id = Uuid::from_u128(self.id.as_u128() ^ u128::from(call.number));
        let kernel = &mut *self.exchange.kernel;
        let spoke = call.speak(kernel, key, id, &mut self.wire, now, &mut self.tally);
        if spoke.is_err() {
            self.over(key, now, End::Ended);
        }
    }

    fn read(&mut self, key: Key, arrival: Arrival, now: u64) -> Result<(), LoadError> {
        let call = &mut self.calls[key];
        let end = match self.exchange.kernel.read(arrival, &call.stream) {
            Ok([]) => Some(End::Ended),
            Ok(bytes) => call.hear(bytes, now, &mut self.tally),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(error) if !call.connected => {
                let error = failure(error.into(), self.load.address);
                return self.not_connected(key, now, error);
            }
            Err(_) => Some(End::Ended),
        };
        if let Some(end) = end {
            self.over(key, now, end);
        }
        Ok(())
    }

    fn over(&mut self, key: Key, now: u64, end: End) {
        let Some(call) = self.calls.remove(key) else {
            return;
        };
        // Closing it is the hang-up.
        self.exchange.kernel.dismiss(key, call.stream);
        if let End::Failed = end {
            self.failed += 1;
            return;
        }
        self.ended_early += usize::from(matches!(end, End::Ended));
        if self.tally.window.contains(&now) {
            self.placed += 1;
            if let End::Answered = end {
                self.answered += 1;
                self.first_frame.saturating_record(now - call.since);
            }
        }
    }

    fn show(&mut self, now: u64) {
        if self.exchange.progress_is_due(now) {
            (self.progress)(&Progress {
                elapsed: self.exchange.elapsed(),
                calls: self.begun as usize - self.calls.len(),
                measuring: self.tally.window.contains(&now),
                frames: self.tally.frames,
            });
        }
    }
}

impl Call {
    /// Its UUID and its one frame.
    fn speak(
        &mut self,
        kernel: &mut dyn Kernel,
        key: Key,
        id: Uuid,
        wire: &mut [u8],
        now: u64,
        tally: &mut Tally,
    ) -> Result<(), Errno> {
        if let Some(payload) = wire.last_chunk_mut() {
            self.echoed.stamp(now).write(payload);
        }
        self.mouth.say(kernel, key, &self.stream, &identity(id))?;
        self.mouth.say(kernel, key, &self.stream, wire)?;
        self.echoed.sent(now, tally);
        Ok(())
    }

    /// How the call is over, if it is.
    fn hear(&mut self, bytes: &[u8], now: u64, tally: &mut Tally) -> Option<End> {
        let mut rest = bytes;
        let mut end = None;
        loop {
            let decoded = self.decoder.decode(rest);
            rest = &rest[decoded.consumed..];
            match &decoded.message {
                None => return end,
                Some(Message::Hangup) => return Some(end.unwrap_or(End::Ended)),
                Some(message) => {
                    self.echoed.received(message, now, tally, |_| {});
                    if let Message::Audio(_) = message {
                        end = Some(End::Answered);
                    }
                }
            }
        }
    }
}
