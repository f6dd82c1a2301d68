use {
    crate::{
        CallRecord, Caller, CallerError, Leg, Step, Stop,
        socket::{self, CONNECT_LIMIT},
    },
    rustix::{
        event::{Timespec, epoll},
        io::Errno,
    },
    sidetone_proto::Time,
    std::{
        cmp::Reverse,
        collections::BinaryHeap,
        io::{self, Read, Write},
        net::TcpStream,
        os::fd::OwnedFd,
        time::Instant,
    },
};

/// More than a second of the widest audio.
const SCRATCH: usize = 64 * 1024;
/// Reads of one call in one turn.
const MOST_READS: usize = 16;
const EVENTS: usize = 512;
/// With more calls than this, timers wait for the next tick, so that frames due close together cost one
/// wake-up, on both sides: a quarter less CPU time at 200 calls. A frame is then up to 1 ms late, well
/// within Asterisk's own jitter.
const FEW: usize = 64;
const TICK: u64 = 1_000_000;
/// The token of the stop's waker; calls have their place in the list.
const BELL: u64 = u64::MAX;

impl Caller {
    /// Places the call and stays until it is over. Blocks.
    ///
    /// # Errors
    /// When the call can't be placed. How a call that was placed ended is in the record, even if it died.
    pub fn call(self) -> Result<CallRecord, CallerError> {
        only(run(vec![self], None))
    }

    /// [`call`](Self::call), until `stop` ends it.
    ///
    /// # Errors
    /// When the call can't be placed, or was stopped before it was.
    pub fn call_until(self, stop: &Stop) -> Result<CallRecord, CallerError> {
        only(run(vec![self], Some(stop)))
    }
}

/// Places all these calls from this one thread and stays until all are over. Results stand in the order of
/// the callers.
///
/// A call costs one descriptor. One thread carries a thousand calls; a few threads can each do this with
/// a share. With more than 64 calls frames leave on ticks of 1 ms.
///
/// ```no_run
/// use {sidetone_caller::{Caller, Voice, call_all}, std::time::Duration};
///
/// let address = "127.0.0.1:9092".parse()?;
/// let callers = (0..200).map(|n| {
///     Caller::new(address)
///         .say(Voice::Ramp(n))
///         .start_after(Duration::from_millis(n))
///         .hang_up_after(Duration::from_secs(10))
/// });
/// for record in call_all(callers.collect()) {
///     println!("{}", record?.ended.why);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn call_all(callers: Vec<Caller>) -> Vec<Result<CallRecord, CallerError>> {
    run(callers, None)
}

/// [`call_all`], until `stop` ends all calls that are not over yet.
pub fn call_all_until(callers: Vec<Caller>, stop: &Stop) -> Vec<Result<CallRecord, CallerError>> {
    run(callers, Some(stop))
}

fn only(results: Vec<Result<CallRecord, CallerError>>) -> Result<CallRecord, CallerError> {
    // One caller in, one result out.
    results
        .into_iter()
        .next()
        .unwrap_or(Err(CallerError::Stopped))
}

fn run(callers: Vec<Caller>, stop: Option<&Stop>) -> Vec<Result<CallRecord, CallerError>> {
    let count = callers.len();
    let driven = EventLoop::new(callers, stop).and_then(|mut driver| {
        driver.run()?;
        Ok(driver.lines)
    });
    match driven {
        Ok(lines) => lines.into_iter().map(Line::result).collect(),
        Err(error) => vec![Err(error); count],
    }
}

struct EventLoop<'a> {
    epoll: OwnedFd,
    stop: Option<&'a Stop>,
    lines: Vec<Line>,
    /// Calls that are not over.
    running: usize,
    timers: BinaryHeap<Reverse<(Time, usize)>>,
    origin: Instant,
    scratch: Vec<u8>,
    wire: Vec<u8>,
}

/// One call, from before it is placed until after it is over.
struct Line {
    stage: Stage,
    /// The earliest timer that is set for it.
    armed: Option<Time>,
}

enum Stage {
    Waiting(Box<Caller>),
    Connecting {
        leg: Box<Leg>,
        stream: TcpStream,
        since: Time,
    },
    Talking {
        leg: Box<Leg>,
        stream: TcpStream,
        /// Whether epoll reports what can be read.
        listening: bool,
    },
    Over(Result<Box<CallRecord>, CallerError>),
}

impl<'a> EventLoop<'a> {
    fn new(callers: Vec<Caller>, stop: Option<&'a Stop>) -> Result<Self, CallerError> {
        let system = |source| CallerError::system("wait for sockets", source);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        if let Some(stop) = stop {
            let data = epoll::EventData::new_u64(BELL);
            epoll::add(&epoll, stop.waker(), data, epoll::EventFlags::IN).map_err(system)?;
        }
        let mut timers = BinaryHeap::with_capacity(callers.len());
        let lines = callers.into_iter().enumerate().map(|(index, caller)| {
            let start = Time::ZERO + caller.start_after;
            timers.push(Reverse((start, index)));
            Line {
                stage: Stage::Waiting(Box::new(caller)),
                armed: Some(start),
            }
        });
        let lines: Vec<Line> = lines.collect();
        Ok(Self {
            epoll,
            stop,
            running: lines.len(),
            lines,
            timers,
            origin: Instant::now(),
            scratch: vec![0; SCRATCH],
            wire: Vec::new(),
        })
    }

    /// Until every call is over.
    fn run(&mut self) -> Result<(), CallerError> {
        let mut events = Vec::with_capacity(EVENTS);
        while self.running > 0 {
            self.wait(&mut events)?;
            // What has arrived is read before anything counts as late.
            for event in events.drain(..) {
                if event.data.u64() != BELL {
                    self.ready(event.data.u64() as usize, event.flags);
                }
            }
            if self.stop.is_some_and(Stop::is_stopped) {
                (0..self.lines.len()).for_each(|index| self.stop_line(index));
            }
            self.fire();
        }
        Ok(())
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> Result<(), CallerError> {
        let now = self.now();
        let timeout = self.timers.peek().map(|Reverse((at, _))| {
            let tick = if self.running > FEW { TICK } else { 1 };
            let rounded = at.as_nanos().checked_next_multiple_of(tick);
            let wait = rounded.map_or(*at, Time::from_nanos) - now;
            Timespec {
                tv_sec: wait.as_secs() as i64,
                tv_nsec: i64::from(wait.subsec_nanos()),
            }
        });
        let buffer = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(source) => Err(CallerError::system("wait for sockets", source)),
        }
    }

    /// All timers that are due.
    fn fire(&mut self) {
        let now = self.now();
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let line = &mut self.lines[index];
            if line.armed == Some(at) {
                line.armed = None;
                self.tick(index);
            }
        }
    }

    /// A line's timer is due.
    fn tick(&mut self, index: usize) {
        let now = self.now();
        match &mut self.lines[index].stage {
            Stage::Waiting(_) => self.connect(index),
            Stage::Connecting { leg, since, .. } => {
                let end = *since + CONNECT_LIMIT;
                if now < end {
                    return self.arm(index, end);
                }
                let error = CallerError::NotAccepted(leg.caller().address);
                self.over(index, Err(error));
            }
            Stage::Talking { leg, .. } => {
                if leg.is_dying(now) {
                    self.read(index);
                }
                self.talk(index);
            }
            Stage::Over(_) => {}
        }
    }

    /// A line's socket has something.
    fn ready(&mut self, index: usize, flags: epoll::EventFlags) {
        let now = self.now();
        match &mut self.lines[index].stage {
            Stage::Connecting { .. } => self.connected(index),
            Stage::Talking { leg, .. } => {
                let broken = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
                if leg.wants_to_read(now) || broken {
                    self.read(index);
                }
                self.talk(index);
            }
            Stage::Waiting(_) | Stage::Over(_) => {}
        }
    }

    fn connect(&mut self, index: usize) {
        let now = self.now();
        let stage = self.lines[index].take();
        let Stage::Waiting(caller) = stage else {
            return;
        };
        match self.open(*caller, index) {
            Ok((leg, stream)) => {
                let since = now;
                self.lines[index].stage = Stage::Connecting { leg, stream, since };
                self.arm(index, since + CONNECT_LIMIT);
            }
            Err(error) => self.over(index, Err(error)),
        }
    }

    fn open(&self, caller: Caller, index: usize) -> Result<(Box<Leg>, TcpStream), CallerError> {
        let leg = Box::new(Leg::new(caller)?);
        let stream = socket::open(leg.caller())?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::OUT)
            .map_err(|source| CallerError::system("watch a connection", source))?;
        Ok((leg, stream))
    }

    fn connected(&mut self, index: usize) {
        let stage = self.lines[index].take();
        let Stage::Connecting { leg, stream, .. } = stage else {
            return;
        };
        if let Err(error) = socket::outcome(&stream, leg.caller().address) {
            return self.over(index, Err(error));
        }
        self.lines[index].stage = Stage::Talking {
            leg,
            stream,
            listening: false,
        };
        self.watch(index, false);
        self.talk(index);
    }

    /// Reads what is there, up to a cap; level-triggered readiness brings back the rest.
    fn read(&mut self, index: usize) {
        let Stage::Talking { leg, stream, .. } = &mut self.lines[index].stage else {
            return;
        };
        for _ in 0..MOST_READS {
            let read = stream.read(&mut self.scratch);
            let now = Time::ZERO + self.origin.elapsed();
            match read {
                Ok(0) => leg.closed(now),
                Ok(count) => leg.received(now, &self.scratch[..count]),
                Err(ref error) if is_pause(error) => {}
                Err(ref error) => leg.failed(now, error.kind()),
            }
            // A full buffer may have cut a message that is there whole.
            if !matches!(read, Ok(SCRATCH)) {
                return;
            }
        }
    }

    /// Does what the call wants done now, and sets its timer.
    fn talk(&mut self, index: usize) {
        loop {
            let now = self.now();
            let Stage::Talking {
                leg,
                stream,
                listening,
            } = &mut self.lines[index].stage
            else {
                return;
            };
            match leg.poll(now, &mut self.wire) {
                Step::Write => match stream.write(&self.wire) {
                    Ok(count) => leg.written(now, count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => leg.written(now, 0),
                    Err(error) => Self::broken(leg, stream, now, &error, &mut self.scratch),
                },
                Step::Wait(until) => {
                    let wants = leg.wants_to_read(now);
                    if wants != *listening {
                        *listening = wants;
                        self.watch(index, wants);
                    }
                    if let Some(until) = until {
                        self.arm(index, until);
                    }
                    return;
                }
                Step::Close => return self.close(index, now),
            }
        }
    }

    /// A write failed. What the server said before that still counts: it may have been a hang-up.
    fn broken(
        leg: &mut Leg,
        stream: &mut TcpStream,
        now: Time,
        error: &io::Error,
        scratch: &mut [u8],
    ) {
        while leg.ended().is_none() {
            match stream.read(scratch) {
                Ok(count) if count > 0 => leg.received(now, &scratch[..count]),
                _ => leg.failed(now, error.kind()),
            }
        }
    }

    fn close(&mut self, index: usize, now: Time) {
        let stage = self.lines[index].take();
        if let Stage::Talking { leg, stream, .. } = stage {
            if leg.leaves_unread() {
                socket::reset_on_close(&stream);
            }
            self.over(index, Ok(Box::new(leg.into_record(now))));
        }
    }

    fn stop_line(&mut self, index: usize) {
        let now = self.now();
        match &mut self.lines[index].stage {
            Stage::Waiting(_) | Stage::Connecting { .. } => {
                self.over(index, Err(CallerError::Stopped));
            }
            Stage::Talking { leg, .. } => {
                leg.hang_up(now);
                self.talk(index);
            }
            Stage::Over(_) => {}
        }
    }

    fn over(&mut self, index: usize, result: Result<Box<CallRecord>, CallerError>) {
        self.lines[index].stage = Stage::Over(result);
        self.running -= 1;
    }

    /// Has epoll report what can be read, or only that the connection broke.
    fn watch(&mut self, index: usize, read: bool) {
        let Stage::Talking { leg, stream, .. } = &mut self.lines[index].stage else {
            return;
        };
        let flags = if read {
            epoll::EventFlags::IN
        } else {
            epoll::EventFlags::empty()
        };
        let data = epoll::EventData::new_u64(index as u64);
        if let Err(error) = epoll::modify(&self.epoll, &*stream, data, flags) {
            leg.failed(
                Time::ZERO + self.origin.elapsed(),
                io::Error::from(error).kind(),
            );
        }
    }

    /// Sets a line's timer, unless an earlier one stands.
    fn arm(&mut self, index: usize, at: Time) {
        let line = &mut self.lines[index];
        if line.armed.is_none_or(|armed| at < armed) {
            line.armed = Some(at);
            self.timers.push(Reverse((at, index)));
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}

impl Line {
    /// The stage, to make the next one of.
    fn take(&mut self) -> Stage {
        std::mem::replace(&mut self.stage, Stage::Over(Err(CallerError::Stopped)))
    }

    fn result(self) -> Result<CallRecord, CallerError> {
        match self.stage {
            Stage::Over(result) => result.map(|record| *record),
            _ => Err(CallerError::Stopped),
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
