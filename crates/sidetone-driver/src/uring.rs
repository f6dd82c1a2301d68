//! The io_uring backend: a receive armed once per connection, all sends of a turn in one system call.
//!
//! Nearly all `unsafe` is here and in [`buffers`]. The kernel shares two kinds of memory
//! with it: *receive buffers*, which it fills for as long as a receive is armed, and *send buffers*, which it
//! reads until their send completes. Both belong to [`Uring`], whose drop lets go of them only when no
//! request is outstanding.
#![allow(unsafe_code)]

mod buffers;

use std::{
    io::{self, Write},
    mem::ManuallyDrop,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::io::Errno;
use slotmap::SecondaryMap;

use crate::{Arrival, Driver, IoBackend, IoEvent, Place, SEND_FLAGS, Sent, Token, Waker};
use buffers::{ReceiveBuffers, SendBuffers};

/// Requests that can wait to be submitted; a full queue is submitted early.
const SUBMISSIONS: u32 = 4096;

/// Twice the calls that one thread is meant for, and more: a completion for each receive and each send of a
/// turn. The kernel keeps what does not fit, at a price.
const COMPLETIONS: u32 = 16_384;

/// The group of the receive buffers; there is only one.
const GROUP: u16 = 0;

/// Buffers that the kernel may fill for one connection in one turn: 64 KiB, seconds of audio at 8 kHz. Who sends more
/// gets one in a turn from then on, for thousands of the shortest messages fit in each.
const BUFFERS_PER_ITERATION: u16 = 32;

/// How long the end of outstanding requests is waited for before their memory is leaked.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Completions over a ring, instead of readiness.
pub struct Uring {
    ring: IoUring,
    received: ManuallyDrop<ReceiveBuffers>,
    sending: ManuallyDrop<SendBuffers>,
    registrations: Vec<Registration>,
    free: Vec<u32>,
    seat_of: SecondaryMap<Token, u32>,
    /// Seats whose receive ended while their connection goes on: they are armed again before the next wait.
    unarmed: Vec<u32>,
    /// A receive ended because no buffer was left.
    is_starved: bool,
    /// Counts the turns, and begins anew.
    turn: u16,
    /// Requests that have not had their last completion.
    outstanding: usize,
    /// The buffer of the last report.
    lent: Option<u16>,
    waker: Arc<Waker>,
    /// The descriptor of the listener while it is watched.
    listener: Option<RawFd>,
}

/// What the ring knows of one connection. A registration is given away again only when no completion can name it.
#[derive(Debug)]
struct Registration {
    token: Token,
    descriptor: RawFd,
    receiving: bool,
    /// It sent more in one turn than a call does: from then on one buffer is filled in a turn.
    floods: bool,
    /// The turn in which a buffer was last filled, and how many were in it.
    filled: (u16, u16),
    /// It has sent something: there is a send buffer for it.
    has_sent: bool,
    /// The send buffer in use.
    sending: Option<u32>,
    /// A poll for room is armed.
    polling: bool,
    /// The stream of a connection that was dismissed while requests were outstanding: it stays open until
    /// they are not, so that its descriptor means no other.
    dismissed: Option<TcpStream>,
    /// A dismissed connection reports nothing.
    gone: bool,
}

/// What a completion belongs to, in its 64 bits of user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Waker,
    Listener,
    Receive(u32),
    Send(u32),
    /// The socket takes more.
    Room(u32),
    /// Nobody waits for it.
    Nothing,
}

impl Tag {
    fn pack(self) -> u64 {
        let (kind, registration) = match self {
            Self::Waker => (0, 0),
            Self::Listener => (1, 0),
            Self::Receive(registration) => (2, registration),
            Self::Send(registration) => (3, registration),
            Self::Room(registration) => (4, registration),
            Self::Nothing => (5, 0),
        };
        kind << 32 | u64::from(registration)
    }

    fn unpack(bits: u64) -> Self {
        let registration = bits as u32;
        match bits >> 32 {
            0 => Self::Waker,
            1 => Self::Listener,
            2 => Self::Receive(registration),
            3 => Self::Send(registration),
            4 => Self::Room(registration),
            _ => Self::Nothing,
        }
    }
}

impl Uring {
    /// A ring that has carried a message there and back: what a kernel, a container or a policy refuses
    /// shows here, whatever the kernel's version says.
    ///
    /// # Errors
    /// When the system refuses any of that.
    pub fn new(waker: Arc<Waker>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_clamp()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(SUBMISSIONS)?;
        let received = ReceiveBuffers::new(&ring, GROUP)?;
        let mut uring = Self {
            ring,
            received: ManuallyDrop::new(received),
            sending: ManuallyDrop::new(SendBuffers::default()),
            registrations: Vec::new(),
            free: Vec::new(),
            seat_of: SecondaryMap::new(),
            unarmed: Vec::new(),
            is_starved: false,
            turn: 0,
            outstanding: 0,
            lent: None,
            waker,
            listener: None,
        };
        uring.try_out()?;
        uring.poll_waker();
        Ok(uring)
    }
}

impl Uring {
    /// Sends a byte through a pair of sockets and receives it as it would a call's.
    fn try_out(&mut self) -> io::Result<()> {
        let (mut near, far) = UnixStream::pair()?;
        let index = self.insert(Token::default(), far.as_fd());
        near.write_all(&[1])?;
        let arrived = self.wait_for(Tag::Receive(index), |result, flags| {
            result == 1 && cqueue::buffer_select(flags).is_some()
        });
        near.shutdown(std::net::Shutdown::Both)?;
        let ended = self.wait_for(Tag::Receive(index), |_, flags| !cqueue::more(flags));
        self.registrations.clear();
        self.seat_of.clear();
        self.unarmed.clear();
        if arrived && ended {
            Ok(())
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Takes completions until one is as wanted; false if none is within a moment. Any buffer that comes
    /// with one is given back.
    fn wait_for(&mut self, tag: Tag, is_wanted: impl Fn(i32, u32) -> bool) -> bool {
        let give_up = Instant::now() + LAST_WAIT;
        loop {
            while let Some(completion) = self.completion() {
                let flags = completion.flags();
                if let Some(buffer) = cqueue::buffer_select(flags) {
                    self.received.give_back(buffer);
                }
                if Tag::unpack(completion.user_data()) == tag
                    && is_wanted(completion.result(), flags)
                {
                    return true;
                }
            }
            let now = Instant::now();
            if now >= give_up || self.wait(Some(give_up - now), Duration::ZERO).is_err() {
                return false;
            }
        }
    }
}

impl Driver for Uring {
    fn backend(&self) -> IoBackend {
        IoBackend::IoUring
    }

    fn listen(&mut self, listener: &TcpListener) -> io::Result<()> {
        self.listener = Some(listener.as_raw_fd());
        self.poll_listener();
        Ok(())
    }

    fn stop_listening(&mut self, _: &TcpListener) {
        self.listener = None;
        let cancel = opcode::AsyncCancel::new(Tag::Listener.pack())
            .build()
            .user_data(Tag::Nothing.pack());
        // SAFETY: a cancellation refers to no memory.
        unsafe { self.push(&cancel) };
    }

    fn register(&mut self, token: Token, stream: &TcpStream) -> io::Result<()> {
        self.insert(token, stream.as_fd());
        Ok(())
    }

    fn deregister(&mut self, token: Token, stream: TcpStream) {
        let Some(index) = self.seat_of.remove(token) else {
            return;
        };
        let registration = &mut self.registrations[index as usize];
        registration.gone = true;
        if registration.receiving || registration.polling {
            if registration.sending.is_some() {
                // What was taken over is sent first; were that to fail, the connection is lost anyway.
                let _ = self.ring.submit();
            }
            // An armed receive keeps the socket open; shut down, it completes for the last time.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        registration.dismissed = Some(stream);
        self.free_if_idle(index);
    }

    fn send(&mut self, token: Token, _: &TcpStream, wire: &[u8]) -> Sent {
        let Some(&index) = self.seat_of.get(token) else {
            return Sent::Failed(Errno::NOTCONN);
        };
        let registration = &mut self.registrations[index as usize];
        if registration.sending.is_some() {
            // Two sends in flight on one socket could interleave.
            return Sent::Now(0);
        }
        if !registration.has_sent {
            registration.has_sent = true;
            self.sending.add_sender(wire.len());
        }
        let (slot, bytes) = self.sending.fill(wire);
        registration.sending = Some(slot);
        let send = opcode::Send::new(
            types::Fd(registration.descriptor),
            bytes.as_ptr(),
            bytes.len() as u32,
        )
        .flags(SEND_FLAGS.bits() as i32)
        .build()
        .user_data(Tag::Send(index).pack());
        // SAFETY: the slot's bytes are neither moved nor changed until it is released, which happens only
        // when this send's completion is seen. The descriptor stays open until then, for a dismissed
        // connection keeps its stream in its registration.
        unsafe { self.push(&send) };
        Sent::Later
    }

    fn set_write_interest(&mut self, token: Token, _: &TcpStream, wanted: bool) {
        if !wanted {
            return;
        }
        if let Some(&index) = self.seat_of.get(token) {
            self.poll_writable(index);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, gather: Duration) -> io::Result<()> {
        self.give_back_lent();
        self.turn = self.turn.wrapping_add(1);
        if std::mem::take(&mut self.is_starved) {
            self.received.give_more();
        }
        while let Some(index) = self.unarmed.pop() {
            self.arm(index);
        }
        if !gather.is_zero() {
            // More than can come: it returns when the time is up.
            self.submit_and_wait(COMPLETIONS as usize, Some(gather))?;
        }
        let has_happened = !self.ring.completion().is_empty();
        if has_happened && !gather.is_zero() {
            return Ok(());
        }
        let rest = timeout.map(|timeout| timeout.saturating_sub(gather));
        self.submit_and_wait(usize::from(!has_happened), rest)
    }

    fn next(&mut self) -> Option<IoEvent> {
        self.give_back_lent();
        loop {
            let completion = self.completion()?;
            if let Some(report) = self.understand(&completion) {
                return Some(report);
            }
        }
    }

    fn read(&mut self, arrival: Arrival, _: &TcpStream) -> Result<&[u8], Errno> {
        match arrival.0 {
            Place::InBuffer { buffer, length } if self.lent == Some(buffer) => {
                Ok(self.received.bytes(buffer, length))
            }
            Place::End(None) => Ok(&[]),
            Place::End(Some(error)) => Err(error),
            // Too late: the buffer has been given back.
            Place::InBuffer { .. } | Place::InSocket { .. } => Err(Errno::AGAIN),
        }
    }
}

/// What a completion means.
impl Uring {
    fn understand(&mut self, completion: &cqueue::Entry) -> Option<IoEvent> {
        let more = cqueue::more(completion.flags());
        let result = completion.result();
        match Tag::unpack(completion.user_data()) {
            Tag::Waker => {
                self.waker.reset();
                if !more {
                    self.poll_waker();
                }
                Some(IoEvent::Woken)
            }
            Tag::Listener => {
                self.poll_listener();
                (result > 0 && self.listener.is_some()).then_some(IoEvent::Incoming)
            }
            Tag::Receive(index) => self.understand_receive(index, result, completion.flags()),
            Tag::Send(index) => {
                let registration = &mut self.registrations[index as usize];
                let (token, gone) = (registration.token, registration.gone);
                let slot = registration.sending.take()?;
                let report = match outcome(result) {
                    Ok(sent) if sent >= self.sending.bytes(slot).len() => IoEvent::Sent(token),
                    Ok(sent) => {
                        IoEvent::PartiallySent(token, self.sending.bytes(slot)[sent..].to_vec())
                    }
                    Err(Errno::AGAIN | Errno::INTR) => {
                        IoEvent::PartiallySent(token, self.sending.bytes(slot).to_vec())
                    }
                    Err(error) => IoEvent::Failed(token, error),
                };
                self.sending.release(slot);
                self.free_if_idle(index);
                (!gone).then_some(report)
            }
            Tag::Room(index) => {
                let registration = &mut self.registrations[index as usize];
                registration.polling = false;
                let (token, gone) = (registration.token, registration.gone);
                self.free_if_idle(index);
                (!gone).then_some(IoEvent::Writable(token))
            }
            Tag::Nothing => None,
        }
    }

    fn understand_receive(&mut self, index: u32, result: i32, flags: u32) -> Option<IoEvent> {
        let registration = &mut self.registrations[index as usize];
        let (token, gone) = (registration.token, registration.gone);
        let ended = !cqueue::more(flags);
        if ended {
            registration.receiving = false;
        }
        let place = match (outcome(result), cqueue::buffer_select(flags)) {
            (Ok(length), Some(buffer)) if length > 0 && !gone => {
                self.lent = Some(buffer);
                self.note_filled(index);
                Some(Place::InBuffer { buffer, length })
            }
            (outcome, Some(buffer)) => {
                self.received.give_back(buffer);
                (outcome == Ok(0)).then_some(Place::End(None))
            }
            // All buffers were taken, by a peer that floods or a turn that was long: nothing is lost, for
            // what has come is still in the socket.
            (Err(Errno::NOBUFS), None) => {
                self.is_starved = true;
                None
            }
            (Err(Errno::CANCELED), None) => None,
            (Ok(_), None) => Some(Place::End(None)),
            (Err(error), None) => Some(Place::End(Some(error))),
        };
        let over = matches!(place, Some(Place::End(_)));
        if ended && !gone && !over {
            self.unarmed.push(index);
        }
        self.free_if_idle(index);
        place
            .filter(|_| !gone)
            .map(|place| IoEvent::Readable(token, Arrival(place)))
    }
}

impl Uring {
    /// Whoever floods must not make the others wait: its receive ends, and is armed for one buffer at a time.
    fn note_filled(&mut self, index: u32) {
        let registration = &mut self.registrations[index as usize];
        let earlier = if registration.filled.0 == self.turn {
            registration.filled.1
        } else {
            0
        };
        registration.filled = (self.turn, earlier.saturating_add(1));
        if earlier < BUFFERS_PER_ITERATION || registration.floods {
            return;
        }
        registration.floods = true;
        if registration.receiving {
            let cancel = opcode::AsyncCancel::new(Tag::Receive(index).pack());
            let cancel = cancel.build().user_data(Tag::Nothing.pack());
            // SAFETY: a cancellation refers to no memory.
            unsafe { self.push(&cancel) };
        }
    }
}

/// Requests.
impl Uring {
    /// Submits what is in the queue, and waits for so many completions, at most until `timeout`.
    fn submit_and_wait(&mut self, wanted: usize, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            None => self.ring.submit_and_wait(wanted),
            Some(timeout) => {
                let time = types::Timespec::from(timeout);
                let arguments = types::SubmitArgs::new().timespec(&time);
                self.ring.submitter().submit_with_args(wanted, &arguments)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if is_no_failure(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn poll_waker(&mut self) {
        self.poll(self.waker.as_fd().as_raw_fd(), Tag::Waker, true);
    }

    /// Once, and again before the next wait: armed for good, a poll would report what is new in the queue, and nobody
    /// would come back for connections that were left there.
    fn poll_listener(&mut self) {
        if let Some(listener) = self.listener {
            self.poll(listener, Tag::Listener, false);
        }
    }

    fn poll_writable(&mut self, index: u32) {
        let registration = &mut self.registrations[index as usize];
        if !registration.polling {
            registration.polling = true;
            let descriptor = registration.descriptor;
            self.poll(descriptor, Tag::Room(index), false);
        }
    }

    fn poll(&mut self, descriptor: RawFd, tag: Tag, multishot: bool) {
        use rustix::event::PollFlags;
        let events = if matches!(tag, Tag::Room(_)) {
            PollFlags::OUT
        } else {
            PollFlags::IN
        };
        let poll = opcode::PollAdd::new(types::Fd(descriptor), u32::from(events.bits()));
        let poll = poll.multi(multishot).build().user_data(tag.pack());
        // SAFETY: a poll refers to no memory.
        unsafe { self.push(&poll) };
    }

    fn insert(&mut self, token: Token, descriptor: BorrowedFd<'_>) -> u32 {
        let registration = Registration {
            token,
            descriptor: descriptor.as_raw_fd(),
            receiving: false,
            floods: false,
            filled: (0, 0),
            has_sent: false,
            sending: None,
            polling: false,
            dismissed: None,
            gone: false,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.registrations[index as usize] = registration;
                index
            }
            None => {
                self.registrations.push(registration);
                (self.registrations.len() - 1) as u32
            }
        };
        self.seat_of.insert(token, index);
        self.unarmed.reserve(self.registrations.len());
        self.arm(index);
        index
    }

    fn arm(&mut self, index: u32) {
        let registration = &mut self.registrations[index as usize];
        if registration.gone || registration.receiving {
            return;
        }
        registration.receiving = true;
        let descriptor = types::Fd(registration.descriptor);
        let receive = if registration.floods {
            let receive = opcode::Recv::new(descriptor, std::ptr::null_mut(), buffers::SIZE as u32);
            let receive = receive.buf_group(GROUP).build();
            receive.flags(squeue::Flags::BUFFER_SELECT)
        } else {
            opcode::RecvMulti::new(descriptor, GROUP).build()
        };
        let receive = receive.user_data(Tag::Receive(index).pack());
        // SAFETY: the buffers it fills belong to the registered group, which lives as long as the ring has
        // requests outstanding. The descriptor stays open until its last completion.
        unsafe { self.push(&receive) };
    }

    /// Puts a request in the queue, submitting what is in it if it is full.
    ///
    /// # Safety
    ///
    /// Whatever memory and descriptor the request refers to must stay valid until its last completion.
    unsafe fn push(&mut self, request: &squeue::Entry) {
        self.outstanding += 1;
        // SAFETY: passed on to the caller.
        while unsafe { self.ring.submission().push(request) }.is_err() {
            // It fails only when completions must be seen first, and then the queue has been taken anyway.
            let _ = self.ring.submit();
        }
    }

    fn completion(&mut self) -> Option<cqueue::Entry> {
        let completion = self.ring.completion().next()?;
        if !cqueue::more(completion.flags()) {
            self.outstanding -= 1;
        }
        Some(completion)
    }

    fn give_back_lent(&mut self) {
        if let Some(buffer) = self.lent.take() {
            self.received.give_back(buffer);
        }
    }

    /// A registration is free when its connection is dismissed and no completion can name it any more.
    fn free_if_idle(&mut self, index: u32) {
        let registration = &mut self.registrations[index as usize];
        if registration.gone
            && !registration.receiving
            && registration.sending.is_none()
            && !registration.polling
            && registration.dismissed.take().is_some()
        {
            if registration.has_sent {
                self.sending.remove_sender();
            }
            self.free.push(index);
        }
    }
}

fn outcome(result: i32) -> Result<usize, Errno> {
    if result >= 0 {
        Ok(result as usize)
    } else {
        Err(Errno::from_raw_os_error(-result))
    }
}

fn is_no_failure(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    // The time is up; a signal came; completions must be seen before more can be submitted.
    [Errno::TIME, Errno::INTR, Errno::BUSY, Errno::AGAIN]
        .iter()
        .any(|fine| code == Some(fine.raw_os_error()))
}

impl Uring {
    /// Ends all requests, waiting a moment for what is under way. Whether none is outstanding any more.
    fn end(&mut self) -> bool {
        let all = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        // SAFETY: a cancellation refers to no memory.
        unsafe { self.push(&all.user_data(Tag::Nothing.pack())) };
        let give_up = Instant::now() + LAST_WAIT;
        while self.outstanding > 0 && Instant::now() < give_up {
            if self.wait(Some(LAST_WAIT), Duration::ZERO).is_err() {
                break;
            }
            while self.completion().is_some() {}
        }
        self.outstanding == 0
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.end() {
            // SAFETY: no request is outstanding, so the kernel uses neither any more; and nothing here uses
            // them after this.
            unsafe {
                ManuallyDrop::drop(&mut self.received);
                ManuallyDrop::drop(&mut self.sending);
            }
        }
        // Otherwise they are leaked: memory that the kernel may still write to must not be used again.
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpStream;

    use slotmap::SlotMap;

    use super::*;
    use crate::IoEvent;

    /// Where there is no ring, the tests of both backends say so, and CI does not let that pass.
    fn ring() -> Option<Uring> {
        Uring::new(Arc::new(Waker::new().unwrap())).ok()
    }

    struct Line {
        token: Token,
        stream: TcpStream,
        peer: TcpStream,
    }

    fn line(tokens: &mut SlotMap<Token, ()>) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let token = tokens.insert(());
        Line {
            token,
            stream,
            peer,
        }
    }

    /// Submits what is queued and hears nothing.
    fn submit(ring: &mut Uring) {
        ring.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        assert!(ring.next().is_none());
    }

    #[test]
    fn a_seat_is_given_away_only_after_its_last_completion() {
        let Some(mut ring) = ring() else { return };
        let mut tokens = SlotMap::with_key();
        let [first, second, third] = [(); 3].map(|()| line(&mut tokens));
        ring.register(first.token, &first.stream).unwrap();
        let registration = ring.seat_of[first.token];
        submit(&mut ring);
        ring.deregister(first.token, first.stream);
        // The kernel has not said that the receive is over.
        ring.register(second.token, &second.stream).unwrap();
        assert_ne!(ring.seat_of[second.token], registration);
        submit(&mut ring);
        ring.register(third.token, &third.stream).unwrap();
        assert_eq!(ring.seat_of[third.token], registration);
        // And what the registration's new owner gets is its own.
        (&third.peer).write_all(b"third").unwrap();
        ring.wait(None, Duration::ZERO).unwrap();
        let Some(IoEvent::Readable(token, arrival)) = ring.next() else {
            panic!("nothing came");
        };
        assert_eq!(token, third.token);
        assert_eq!(ring.read(arrival, &third.stream).unwrap(), b"third");
    }

    #[test]
    fn there_is_a_send_buffer_for_each_connection_that_sends_and_no_more() {
        let Some(mut ring) = ring() else { return };
        let mut tokens = SlotMap::with_key();
        for _ in 0..10 {
            let lines = [(); 3].map(|()| line(&mut tokens));
            for line in &lines {
                ring.register(line.token, &line.stream).unwrap();
            }
            for line in &lines[1..] {
                assert_eq!(ring.send(line.token, &line.stream, b"frame"), Sent::Later);
            }
            ring.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
            while ring.next().is_some() {}
            assert_eq!(ring.sending.count(), 2);
            for line in lines {
                ring.deregister(line.token, line.stream);
            }
            submit(&mut ring);
        }
    }

    #[test]
    fn when_all_buffers_are_taken_every_receive_is_armed_again() {
        let Some(mut ring) = ring() else { return };
        let mut tokens = SlotMap::with_key();
        let lines: Vec<Line> = (0..64).map(|_| line(&mut tokens)).collect();
        for line in &lines {
            ring.register(line.token, &line.stream).unwrap();
            line.peer.set_nonblocking(true).unwrap();
        }
        submit(&mut ring);
        for line in &lines {
            // As much as the socket takes, more than there are buffers for.
            while matches!((&line.peer).write(&[7; 64 << 10]), Ok(count) if count > 0) {}
        }
        // The kernel uses them up in one turn, while none is given back.
        let turn = Duration::from_millis(100);
        ring.wait(Some(turn), turn).unwrap();
        assert!(ring.ring.completion().len() > usize::from(buffers::FIRST));
        while ring.next().is_some() {}
        assert!(!ring.unarmed.is_empty());
        assert!(
            ring.registrations
                .iter()
                .any(|registration| !registration.receiving)
        );
        ring.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        assert!(ring.unarmed.is_empty());
        assert!(
            ring.registrations
                .iter()
                .all(|registration| registration.receiving)
        );
        // And there are more buffers than before.
        ring.wait(Some(turn), turn).unwrap();
        assert!(ring.ring.completion().len() > usize::from(2 * buffers::FIRST));
    }

    #[test]
    fn requests_of_silent_peers_and_unsent_messages_end_with_the_ring() {
        let Some(mut ring) = ring() else { return };
        let mut tokens = SlotMap::with_key();
        let [silent, full] = [(); 2].map(|()| line(&mut tokens));
        for line in [&silent, &full] {
            ring.register(line.token, &line.stream).unwrap();
        }
        submit(&mut ring);
        // Until nothing more goes, and then once more.
        (&full.stream).write_all(&[0; 64 << 20]).unwrap_err();
        ring.set_write_interest(full.token, &full.stream, true);
        submit(&mut ring);
        let message = [1; 4096];
        for line in [&silent, &full] {
            assert_eq!(ring.send(line.token, &line.stream, &message), Sent::Later);
        }
        assert!(ring.outstanding >= 6);
        assert!(ring.end());
    }

    #[test]
    fn memory_that_the_kernel_may_still_use_is_not_released() {
        let Some(mut ring) = ring() else { return };
        // A request that never ends.
        ring.outstanding += 1;
        assert!(!ring.end());
        let (memory, length) = (ring.received.bytes(0, 1).as_ptr(), 2);
        drop(ring);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_mapped = |line: &str| {
            let (begin, end) = line.split(' ').next()?.split_once('-')?;
            let bounds = [begin, end].map(|address| usize::from_str_radix(address, 16).unwrap());
            Some((bounds[0]..bounds[1]).contains(&(memory as usize + length)))
        };
        assert!(maps.lines().any(|line| is_mapped(line) == Some(true)));
    }
}
