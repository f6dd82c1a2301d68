use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    time::Instant,
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    io::Errno,
};
use sidetone_proto::Time;

use crate::{
    CallRecord, Caller, CallerError, Leg, Step, Stop,
    socket::{self, CONNECT_TIMEOUT},
};

/// Bytes of one read; more than a second of audio at 24 kHz.
const READ_BUFFER: usize = 64 * 1024;
/// Reads of one call in an iteration of the loop.
const MAX_READS: usize = 16;
/// Events of one wait.
const MAX_EVENTS: usize = 512;
/// With more calls than this, timers wait for the next tick, so that frames that are due close together cost one
/// wake-up, on both sides. At 200 calls, that saves a quarter of the CPU time. A frame is then up to 1 ms late, well
/// within Asterisk's own jitter.
const MAX_EXACT_TIMERS: usize = 64;
/// Nanoseconds between ticks.
const TICK: u64 = 1_000_000;
/// The token of the stop's waker. The token of a call is its index.
const WAKER: u64 = u64::MAX;

impl Caller {
    /// Places the call. Blocks until it is over.
    ///
    /// # Errors
    /// When the call can't be placed. A call that was placed has a record however it ended; see
    /// [`Ended`](crate::Ended).
    pub fn call(self) -> Result<CallRecord, CallerError> {
        single(run(vec![self], None))
    }

    /// Places the call, like [`call`](Self::call), and hangs up on `stop`.
    ///
    /// # Errors
    /// When the call can't be placed; [`CallerError::Stopped`] when it was not connected at the stop.
    pub fn call_until(self, stop: &Stop) -> Result<CallRecord, CallerError> {
        single(run(vec![self], Some(stop)))
    }
}

/// Places all these calls from this thread. Blocks until all are over. The results are in the order of the callers.
///
/// Each call takes one descriptor. One thread carries a thousand calls; for more, call this on several threads. With
/// more than 64 calls, frames are sent at ticks of 1 ms.
///
/// ```no_run
/// use std::time::Duration;
///
/// use sidetone_caller::{Caller, Voice, call_all};
///
/// let address = "127.0.0.1:9092".parse()?;
/// let callers = (0..200).map(|n| {
///     Caller::new(address)
///         .say(Voice::Ramp(n))
///         .start_after(Duration::from_millis(n))
///         .hang_up_after(Duration::from_secs(10))
/// });
/// for record in call_all(callers.collect()) {
///     println!("{}", record?.ended.cause);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn call_all(callers: Vec<Caller>) -> Vec<Result<CallRecord, CallerError>> {
    run(callers, None)
}

/// Places all these calls, like [`call_all`], and hangs up on `stop`. Those not connected then fail with
/// [`CallerError::Stopped`].
pub fn call_all_until(callers: Vec<Caller>, stop: &Stop) -> Vec<Result<CallRecord, CallerError>> {
    run(callers, Some(stop))
}

fn single(results: Vec<Result<CallRecord, CallerError>>) -> Result<CallRecord, CallerError> {
    // One caller has one result.
    results
        .into_iter()
        .next()
        .unwrap_or(Err(CallerError::Stopped))
}

fn run(callers: Vec<Caller>, stop: Option<&Stop>) -> Vec<Result<CallRecord, CallerError>> {
    let count = callers.len();
    let calls = EventLoop::new(callers, stop).and_then(|mut event_loop| {
        event_loop.run()?;
        Ok(event_loop.calls)
    });
    match calls {
        Ok(calls) => calls.into_iter().map(Call::result).collect(),
        Err(error) => vec![Err(error); count],
    }
}

/// Drives a [`Leg`] for each call, over level-triggered epoll.
///
/// `sidetone-driver` won't do, since it has what comes read at once. A caller that stops reading leaves the bytes in its
/// socket, so that the server sees a full window.
struct EventLoop<'a> {
    epoll: OwnedFd,
    stop: Option<&'a Stop>,
    calls: Vec<Call>,
    /// Calls that are not over.
    running: usize,
    timers: BinaryHeap<Reverse<(Time, usize)>>,
    origin: Instant,
    buffer: Vec<u8>,
    wire: Vec<u8>,
}

/// One call, from before it is placed until after its end.
struct Call {
    state: State,
    /// Its earliest timer.
    timer: Option<Time>,
}

enum State {
    Waiting(Box<Caller>),
    Connecting {
        leg: Box<Leg>,
        stream: TcpStream,
        since: Time,
    },
    Connected {
        leg: Box<Leg>,
        stream: TcpStream,
        /// Whether epoll reports that the socket is readable.
        read_interest: bool,
    },
    Done(Result<Box<CallRecord>, CallerError>),
}

impl<'a> EventLoop<'a> {
    fn new(callers: Vec<Caller>, stop: Option<&'a Stop>) -> Result<Self, CallerError> {
        let system = |source| CallerError::system("wait for sockets", source);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        if let Some(stop) = stop {
            let data = EventData::new_u64(WAKER);
            epoll::add(&epoll, stop.waker(), data, EventFlags::IN).map_err(system)?;
        }
        let mut timers = BinaryHeap::with_capacity(callers.len());
        let calls = callers.into_iter().enumerate().map(|(index, caller)| {
            let start = Time::ZERO + caller.start_after;
            timers.push(Reverse((start, index)));
            Call {
                state: State::Waiting(Box::new(caller)),
                timer: Some(start),
            }
        });
        let calls: Vec<Call> = calls.collect();
        Ok(Self {
            epoll,
            stop,
            running: calls.len(),
            calls,
            timers,
            origin: Instant::now(),
            buffer: vec![0; READ_BUFFER],
            wire: Vec::new(),
        })
    }

    /// Runs until every call is over.
    fn run(&mut self) -> Result<(), CallerError> {
        let mut events = Vec::with_capacity(MAX_EVENTS);
        while self.running > 0 {
            self.wait(&mut events)?;
            // Reads what has arrived before anything counts as late.
            for event in events.drain(..) {
                if event.data.u64() != WAKER {
                    self.handle_ready(event.data.u64() as usize, event.flags);
                }
            }
            if self.stop.is_some_and(Stop::is_stopped) {
                (0..self.calls.len()).for_each(|index| self.stop_call(index));
            }
            self.handle_timeouts();
        }
        Ok(())
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> Result<(), CallerError> {
        let now = self.now();
        let timeout = self.timers.peek().map(|Reverse((at, _))| {
            let tick = if self.running > MAX_EXACT_TIMERS {
                TICK
            } else {
                1
            };
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

    /// Handles all timers that are due.
    fn handle_timeouts(&mut self) {
        let now = self.now();
        while let Some(Reverse((at, index))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let call = &mut self.calls[index];
            if call.timer == Some(at) {
                call.timer = None;
                self.handle_timeout(index);
            }
        }
    }

    /// Handles a call's timer.
    fn handle_timeout(&mut self, index: usize) {
        let now = self.now();
        match &mut self.calls[index].state {
            State::Waiting(_) => self.connect(index),
            State::Connecting { leg, since, .. } => {
                let end = *since + CONNECT_TIMEOUT;
                if now < end {
                    return self.set_timer(index, end);
                }
                let error = CallerError::NotAccepted(leg.caller().address);
                self.finish(index, Err(error));
            }
            State::Connected { leg, .. } => {
                if leg.is_timing_out(now) {
                    self.read(index);
                }
                self.poll(index);
            }
            State::Done(_) => {}
        }
    }

    /// Handles an event of a call's socket.
    fn handle_ready(&mut self, index: usize, flags: EventFlags) {
        let now = self.now();
        match &mut self.calls[index].state {
            State::Connecting { .. } => self.handle_connected(index),
            State::Connected { leg, .. } => {
                let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                if leg.wants_to_read(now) || broken {
                    self.read(index);
                }
                self.poll(index);
            }
            State::Waiting(_) | State::Done(_) => {}
        }
    }

    fn connect(&mut self, index: usize) {
        let now = self.now();
        let state = self.calls[index].take_state();
        let State::Waiting(caller) = state else {
            return;
        };
        match self.open(*caller, index) {
            Ok((leg, stream)) => {
                let since = now;
                self.calls[index].state = State::Connecting { leg, stream, since };
                self.set_timer(index, since + CONNECT_TIMEOUT);
            }
            Err(error) => self.finish(index, Err(error)),
        }
    }

    fn open(&self, caller: Caller, index: usize) -> Result<(Box<Leg>, TcpStream), CallerError> {
        let leg = Box::new(Leg::new(caller)?);
        let stream = socket::open(leg.caller())?;
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, EventFlags::OUT)
            .map_err(|source| CallerError::system("watch a connection", source))?;
        Ok((leg, stream))
    }

    fn handle_connected(&mut self, index: usize) {
        let state = self.calls[index].take_state();
        let State::Connecting { leg, stream, .. } = state else {
            return;
        };
        if let Err(error) = socket::outcome(&stream, leg.caller().address) {
            return self.finish(index, Err(error));
        }
        self.calls[index].state = State::Connected {
            leg,
            stream,
            read_interest: false,
        };
        self.set_read_interest(index, false);
        self.poll(index);
    }

    /// Reads what has arrived, up to a limit. The next wait reports the rest.
    fn read(&mut self, index: usize) {
        let State::Connected { leg, stream, .. } = &mut self.calls[index].state else {
            return;
        };
        for _ in 0..MAX_READS {
            let read = stream.read(&mut self.buffer);
            let now = Time::ZERO + self.origin.elapsed();
            match read {
                Ok(0) => leg.handle_fin(now),
                Ok(count) => leg.handle_received(now, &self.buffer[..count]),
                Err(ref error) if is_transient(error) => {}
                Err(ref error) => leg.handle_error(now, error.kind()),
            }
            // A full buffer may have cut a message that has arrived whole.
            if !matches!(read, Ok(READ_BUFFER)) {
                return;
            }
        }
    }

    /// Does what the call has to do now, and sets its timer.
    fn poll(&mut self, index: usize) {
        loop {
            let now = self.now();
            let State::Connected {
                leg,
                stream,
                read_interest,
            } = &mut self.calls[index].state
            else {
                return;
            };
            match leg.poll(now, &mut self.wire) {
                Step::Write => match stream.write(&self.wire) {
                    Ok(count) => leg.handle_written(now, count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        leg.handle_written(now, 0)
                    }
                    Err(error) => Self::fail_write(leg, stream, now, &error, &mut self.buffer),
                },
                Step::Wait(until) => {
                    let wants = leg.wants_to_read(now);
                    if wants != *read_interest {
                        *read_interest = wants;
                        self.set_read_interest(index, wants);
                    }
                    if let Some(until) = until {
                        self.set_timer(index, until);
                    }
                    return;
                }
                Step::Close => return self.close(index, now),
            }
        }
    }

    /// Handles a failed write. Reads first what the server sent before: it may be a hang-up.
    fn fail_write(
        leg: &mut Leg,
        stream: &mut TcpStream,
        now: Time,
        error: &io::Error,
        buffer: &mut [u8],
    ) {
        while leg.ended().is_none() {
            match stream.read(buffer) {
                Ok(count) if count > 0 => leg.handle_received(now, &buffer[..count]),
                _ => leg.handle_error(now, error.kind()),
            }
        }
    }

    fn close(&mut self, index: usize, now: Time) {
        let state = self.calls[index].take_state();
        if let State::Connected { leg, stream, .. } = state {
            if leg.has_unread() {
                socket::reset_on_close(&stream);
            }
            self.finish(index, Ok(Box::new(leg.into_record(now))));
        }
    }

    fn stop_call(&mut self, index: usize) {
        let now = self.now();
        match &mut self.calls[index].state {
            State::Waiting(_) | State::Connecting { .. } => {
                self.finish(index, Err(CallerError::Stopped));
            }
            State::Connected { leg, .. } => {
                leg.hang_up(now);
                self.poll(index);
            }
            State::Done(_) => {}
        }
    }

    fn finish(&mut self, index: usize, result: Result<Box<CallRecord>, CallerError>) {
        self.calls[index].state = State::Done(result);
        self.running -= 1;
    }

    /// Has epoll report that the socket is readable, or only that the connection failed.
    fn set_read_interest(&mut self, index: usize, read: bool) {
        let State::Connected { leg, stream, .. } = &mut self.calls[index].state else {
            return;
        };
        let flags = if read {
            EventFlags::IN
        } else {
            EventFlags::empty()
        };
        let data = EventData::new_u64(index as u64);
        if let Err(error) = epoll::modify(&self.epoll, &*stream, data, flags) {
            leg.handle_error(
                Time::ZERO + self.origin.elapsed(),
                io::Error::from(error).kind(),
            );
        }
    }

    /// Sets a call's timer, unless an earlier one is set.
    fn set_timer(&mut self, index: usize, at: Time) {
        let call = &mut self.calls[index];
        if call.timer.is_none_or(|timer| at < timer) {
            call.timer = Some(at);
            self.timers.push(Reverse((at, index)));
        }
    }

    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}

impl Call {
    /// Takes the state, to replace it by the next one.
    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Done(Err(CallerError::Stopped)))
    }

    fn result(self) -> Result<CallRecord, CallerError> {
        match self.state {
            State::Done(result) => result.map(|record| *record),
            _ => Err(CallerError::Stopped),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
