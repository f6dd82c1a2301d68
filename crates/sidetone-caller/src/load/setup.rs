use {
    super::{
        Load, LoadError, Progress,
        engine::{Engine, SCRATCH, own_cpu},
        frame::{Line, MOST_CALLS},
        paced::{identity, message},
        process::Process,
        report::{Percentiles, Report, ServerCost, SetUp},
        socket,
        verify::{Echoed, Tally, histogram},
    },
    crate::socket::outcome,
    hdrhistogram::Histogram,
    rustix::{io::Errno, net::SendFlags},
    sidetone_proto::{Decoder, Message},
    std::{collections::VecDeque, net::TcpStream},
    uuid::Uuid,
};

/// How long a call waits for its first frame.
const PATIENCE: u64 = 1_000_000_000;

/// Places call after call.
pub(super) fn run(load: &Load, progress: &mut dyn FnMut(&Progress)) -> Result<Report, LoadError> {
    let server = load.pid.map(Process::new).transpose()?;
    let mut run = Run::new(load, progress)?;
    let from = run.engine.now() + load.warm_up.as_nanos() as u64;
    let to = from + load.seconds.as_nanos() as u64;
    run.tally.window = from..to;

    run.go_on_until(from)?;
    let before = server.as_ref().map(Process::cpu).transpose()?;
    let (began, own) = (run.engine.now(), own_cpu());
    run.go_on_until(to)?;
    let after = server.as_ref().map(Process::cpu).transpose()?;
    let seconds = (run.engine.now() - began) as f64 / 1e9;
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
    })
}

struct Run<'a> {
    load: &'a Load,
    progress: &'a mut dyn FnMut(&Progress),
    engine: Engine,
    id: Uuid,
    /// Calls under way, each in its place until it is over.
    calls: Vec<Option<Call>>,
    free: Vec<usize>,
    /// How many calls were begun.
    begun: u64,
    /// Whether any call was ever connected.
    reached: bool,
    /// When calls give up, in order; a call that is over is not found any more.
    deadlines: VecDeque<(u64, u64)>,
    placed: u64,
    answered: u64,
    failed: u64,
    ended_early: usize,
    first_frame: Histogram<u64>,
    tally: Tally,
    wire: Vec<u8>,
    scratch: Vec<u8>,
}

struct Call {
    stream: TcpStream,
    /// The how-manieth call of this run.
    number: u64,
    since: u64,
    connected: bool,
    decoder: Decoder,
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
            engine: Engine::new()?,
            id: Uuid::new_v4(),
            calls: (0..load.calls).map(|_| None).collect(),
            free: (0..load.calls).collect(),
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
            scratch: vec![0; SCRATCH],
        })
    }

    fn go_on_until(&mut self, end: u64) -> Result<(), LoadError> {
        loop {
            let now = self.engine.now();
            if now >= end {
                return Ok(());
            }
            self.begin_calls(now)?;
            self.give_up(now);
            self.show(now);
            let next = self.next_begin().unwrap_or(end);
            let deadline = self.deadlines.front().map_or(end, |(at, _)| *at);
            for index in 0..self.engine.wait(next.min(deadline).min(end))? {
                if let Some(token) = self.engine.ready(index) {
                    self.look_at(token)?;
                }
            }
        }
    }

    /// When the next call begins, if one may.
    fn next_begin(&self) -> Option<u64> {
        self.free.last()?;
        let rate = self.load.rate.map_or(u64::MAX, u64::from);
        Some((u128::from(self.begun) * 1_000_000_000 / u128::from(rate)) as u64)
    }

    fn begin_calls(&mut self, now: u64) -> Result<(), LoadError> {
        while self.next_begin().is_some_and(|at| at <= now) {
            let Some(place) = self.free.pop() else {
                break;
            };
            let number = self.begun;
            self.begun += 1;
            let stream = match socket::open(self.load.address, place) {
                Ok(stream) => stream,
                Err(error) if !self.reached => return Err(error),
                Err(_) => {
                    self.free.push(place);
                    self.failed += 1;
                    break;
                }
            };
            let token = self.token(number, place);
            self.engine.watch_connecting(&stream, token)?;
            self.deadlines.push_back((now + PATIENCE, token));
            let name = Line::of_call(self.id.as_u128() as u16, number as usize % MOST_CALLS);
            self.calls[place] = Some(Call {
                stream,
                number,
                since: now,
                connected: false,
                decoder: Decoder::new(),
                echoed: Echoed::new(name),
            });
        }
        Ok(())
    }

    /// No two calls have the same, though they have the same place one after the other.
    fn token(&self, number: u64, place: usize) -> u64 {
        number * self.load.calls as u64 + place as u64
    }

    /// The place of a call that is not over.
    fn place(&self, token: u64) -> Option<usize> {
        let calls = self.load.calls as u64;
        let (number, place) = (token / calls, (token % calls) as usize);
        let call = self.calls[place].as_ref()?;
        (call.number == number).then_some(place)
    }

    fn give_up(&mut self, now: u64) {
        while let Some((at, token)) = self.deadlines.front().copied() {
            let place = self.place(token);
            if at > now && place.is_some() {
                return;
            }
            self.deadlines.pop_front();
            if let Some(place) = place {
                self.over(place, now, End::Unanswered);
            }
        }
    }

    fn look_at(&mut self, token: u64) -> Result<(), LoadError> {
        let now = self.engine.now();
        let Some(place) = self.place(token) else {
            return Ok(());
        };
        let Some(call) = &mut self.calls[place] else {
            return Ok(());
        };
        if call.connected {
            if let Some(end) = call.read(&mut self.scratch, now, &mut self.tally) {
                self.over(place, now, end);
            }
            return Ok(());
        }
        if let Err(error) = outcome(&call.stream, self.load.address) {
            if !self.reached {
                return Err(error.into());
            }
            self.over(place, now, End::Failed);
            return Ok(());
        }
        call.connected = true;
        self.reached = true;
        self.engine.watch_reading(&call.stream, token)?;
        let id = Uuid::from_u128(self.id.as_u128() ^ u128::from(call.number));
        if call
            .speak(id, &mut self.wire, now, &mut self.tally)
            .is_err()
        {
            self.over(place, now, End::Ended);
        }
        Ok(())
    }

    fn over(&mut self, place: usize, now: u64, end: End) {
        // Closing it is the hang-up.
        let Some(call) = self.calls[place].take() else {
            return;
        };
        self.free.push(place);
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
        if self.engine.progress_is_due(now) {
            (self.progress)(&Progress {
                elapsed: self.engine.elapsed(),
                calls: self.begun as usize - (self.load.calls - self.free.len()),
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
        id: Uuid,
        wire: &mut [u8],
        now: u64,
        tally: &mut Tally,
    ) -> Result<(), Errno> {
        let identity = identity(id);
        if let Some(payload) = wire.last_chunk_mut() {
            self.echoed.stamp(now).write(payload);
        }
        // A new connection takes this much.
        rustix::net::send(&self.stream, &identity, SendFlags::NOSIGNAL)?;
        rustix::net::send(&self.stream, wire, SendFlags::NOSIGNAL)?;
        self.echoed.sent(now, tally);
        Ok(())
    }

    /// How the call is over, if it is.
    fn read(&mut self, scratch: &mut [u8], now: u64, tally: &mut Tally) -> Option<End> {
        let count = match rustix::io::read(&self.stream, &mut *scratch) {
            Ok(0) => return Some(End::Ended),
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_) => return Some(End::Ended),
        };
        let mut rest = &scratch[..count];
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
