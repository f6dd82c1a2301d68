//! The contract of `Driver`, tested over each backend.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use sidetone_driver::{Driver, Epoll, IoEvent, Sent, Token, Uring, Waker, unsent_bytes};
use slotmap::SlotMap;

/// Longer than anything here takes: a wait of this length has hung.
const FOREVER: Duration = Duration::from_secs(30);

/// Runs a test over each backend. Where io_uring is not available it runs over epoll alone; in CI it fails.
fn over_each(test: impl Fn(&mut dyn Driver, &Waker)) {
    let waker = Arc::new(Waker::new().unwrap());
    test(&mut Epoll::new(Arc::clone(&waker)).unwrap(), &waker);
    let waker = Arc::new(Waker::new().unwrap());
    match Uring::new(Arc::clone(&waker)) {
        Ok(mut ring) => test(&mut ring, &waker),
        Err(error) if std::env::var_os("CI").is_some() => {
            panic!("io_uring can't be tested here ({error}), and in CI it must be")
        }
        Err(error) => {
            eprintln!("NOT TESTED over io_uring: {error}");
        }
    }
}

/// Our side of a connection, and the other one.
struct Line {
    token: Token,
    stream: TcpStream,
    peer: TcpStream,
}

fn line(tokens: &mut SlotMap<Token, ()>) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(FOREVER)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    // The socket is in blocking mode. A backend must not block anyway.
    stream.set_nodelay(true).unwrap();
    let token = tokens.insert(());
    Line {
        token,
        stream,
        peer,
    }
}

fn registered(backend: &mut dyn Driver) -> Line {
    let line = line(&mut SlotMap::with_key());
    backend.register(line.token, &line.stream).unwrap();
    line
}

/// The next event.
fn next(backend: &mut dyn Driver) -> IoEvent {
    let give_up = Instant::now() + FOREVER;
    loop {
        if let Some(event) = backend.next_event() {
            return event;
        }
        assert!(Instant::now() < give_up, "nothing happened");
        backend.wait(Some(FOREVER), Duration::ZERO).unwrap();
    }
}

/// The next bytes of the only connection.
fn read_next(backend: &mut dyn Driver, line: &Line) -> Result<Vec<u8>, Errno> {
    loop {
        if let IoEvent::Readable(token, pending) = next(backend) {
            assert_eq!(token, line.token);
            match backend.read(pending, &line.stream) {
                Err(Errno::AGAIN) => {}
                read => return read.map(<[u8]>::to_vec),
            }
        }
    }
}

/// All bytes up to the end of the stream.
fn read_all(backend: &mut dyn Driver, line: &Line) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let bytes = read_next(backend, line).unwrap();
        if bytes.is_empty() {
            return all;
        }
        all.extend(bytes);
    }
}

/// Sends as an owner must: nothing while a send is pending, and unsent bytes first.
fn send_all(backend: &mut dyn Driver, line: &Line, message: &[u8]) {
    let mut rest = message.to_vec();
    while !rest.is_empty() {
        match backend.send(line.token, &line.stream, &rest) {
            Sent::Accepted(count) => drop(rest.drain(..count)),
            Sent::Pending => rest = unsent(backend, line),
            Sent::Failed(error) => panic!("{error}"),
        }
        if !rest.is_empty() {
            set_write_interest(backend, line);
        }
    }
}

/// The unsent bytes of a pending send.
fn unsent(backend: &mut dyn Driver, line: &Line) -> Vec<u8> {
    loop {
        match next(backend) {
            IoEvent::Sent(token) if token == line.token => return Vec::new(),
            IoEvent::PartiallySent(token, rest) if token == line.token => return rest,
            IoEvent::Readable(..) | IoEvent::Writable(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn set_write_interest(backend: &mut dyn Driver, line: &Line) {
    backend.set_write_interest(line.token, &line.stream, true);
    while !matches!(next(backend), IoEvent::Writable(token) if token == line.token) {}
    backend.set_write_interest(line.token, &line.stream, false);
}

/// Bytes that show where they were cut.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(u32::to_le_bytes)
        .take(length)
        .collect()
}

#[test]
fn what_comes_is_read_in_order_up_to_the_end() {
    over_each(|backend, _| {
        let mut line = registered(backend);
        let sent = pattern(100_000);
        let (mut peer, bytes) = (line.peer.try_clone().unwrap(), sent.clone());
        let writer = thread::spawn(move || {
            peer.write_all(&bytes).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(backend, &line) == sent);
        writer.join().unwrap();
        // The other direction is still open.
        send_all(backend, &line, b"bye");
        let mut heard = [0; 3];
        line.peer.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"bye");
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn an_end_that_came_with_the_last_bytes_is_reported_behind_them() {
    over_each(|backend, _| {
        let mut line = registered(backend);
        line.peer.write_all(b"bye").unwrap();
        line.peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_next(backend, &line).unwrap(), b"bye");
        assert_eq!(read_next(backend, &line).unwrap(), b"");
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn a_reset_is_distinguished_from_an_end() {
    over_each(|backend, _| {
        let Line {
            token,
            stream,
            peer,
        } = registered(backend);
        socket2::SockRef::from(&peer)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(peer);
        let peer = stream.try_clone().unwrap();
        let line = Line {
            token,
            stream,
            peer,
        };
        assert_eq!(read_next(backend, &line), Err(Errno::CONNRESET));
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn a_connection_may_be_registered_while_it_connects() {
    over_each(|backend, _| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (domain, kind) = (socket2::Domain::IPV4, socket2::Type::STREAM);
        let socket = socket2::Socket::new(domain, kind, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let connecting = socket.connect(&listener.local_addr().unwrap().into());
        if let Err(error) = connecting {
            assert_eq!(error.raw_os_error(), Some(Errno::INPROGRESS.raw_os_error()));
        }
        let (token, stream) = (SlotMap::with_key().insert(()), TcpStream::from(socket));
        backend.register(token, &stream).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let line = Line {
            token,
            stream,
            peer: peer.try_clone().unwrap(),
        };
        set_write_interest(backend, &line);
        peer.write_all(b"hello").unwrap();
        assert_eq!(read_next(backend, &line).unwrap(), b"hello");
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn sends_in_flight_do_not_interleave() {
    over_each(|backend, _| {
        let line = registered(backend);
        // Both at once, more than the kernel takes: the second must follow the whole first.
        let (first, second) = (vec![1; 8 << 20], vec![2; 1 << 20]);
        let mut peer = line.peer.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).unwrap();
            heard
        });
        let mut rest = match backend.send(line.token, &line.stream, &first) {
            Sent::Accepted(count) => first[count..].to_vec(),
            Sent::Pending => {
                let meanwhile = backend.send(line.token, &line.stream, &second);
                assert_eq!(meanwhile, Sent::Accepted(0));
                unsent(backend, &line)
            }
            Sent::Failed(error) => panic!("{error}"),
        };
        if !rest.is_empty() {
            set_write_interest(backend, &line);
        }
        rest.extend_from_slice(&second);
        send_all(backend, &line, &rest);
        backend.deregister(line.token, line.stream);
        assert!(reader.join().unwrap() == [first, second].concat());
    });
}

#[test]
fn a_full_socket_is_reported_and_not_waited_for() {
    over_each(|backend, _| {
        let line = registered(backend);
        let message = pattern(64 << 10);
        let (mut sent, mut rest) = (0, Vec::new());
        // The peer does not read, so the socket fills up.
        while rest.is_empty() {
            rest = match backend.send(line.token, &line.stream, &message) {
                Sent::Accepted(count) => message[count..].to_vec(),
                Sent::Pending => unsent(backend, &line),
                Sent::Failed(error) => panic!("{error}"),
            };
            sent += 1;
        }
        // And the backend sends nothing more of its own accord.
        backend.set_write_interest(line.token, &line.stream, true);
        backend
            .wait(Some(Duration::from_millis(10)), Duration::ZERO)
            .unwrap();
        assert!(backend.next_event().is_none());
        let mut peer = line.peer.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).unwrap();
            heard
        });
        set_write_interest(backend, &line);
        send_all(backend, &line, &rest);
        line.stream.shutdown(Shutdown::Write).unwrap();
        let heard = reader.join().unwrap();
        assert!(heard == message.repeat(sent));
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn a_broken_connection_fails_its_sends() {
    over_each(|backend, _| {
        let Line {
            token,
            stream,
            peer,
        } = registered(backend);
        socket2::SockRef::from(&peer)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(peer);
        let give_up = Instant::now() + FOREVER;
        let error = loop {
            assert!(Instant::now() < give_up);
            match backend.send(token, &stream, b"anybody there?") {
                Sent::Failed(error) => break error,
                Sent::Accepted(_) => {}
                Sent::Pending => {}
            }
            match backend.next_event() {
                Some(IoEvent::Failed(_, error)) => break error,
                _ => backend.wait(Some(Duration::ZERO), Duration::ZERO).unwrap(),
            }
        };
        assert!(matches!(error, Errno::PIPE | Errno::CONNRESET), "{error}");
        backend.deregister(token, stream);
    });
}

#[test]
fn a_deregistered_connection_is_closed_and_reports_nothing() {
    over_each(|backend, _| {
        let mut line = registered(backend);
        // The receive is armed, the peer silent.
        backend.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        backend.deregister(line.token, line.stream);
        assert_eq!(line.peer.read(&mut [0; 8]).unwrap(), 0);
        // The other side can't send more, as it could if the socket were still open.
        let give_up = Instant::now() + FOREVER;
        while line.peer.write(b"late").is_ok() {
            assert!(Instant::now() < give_up, "it is still open");
            backend
                .wait(Some(Duration::from_millis(1)), Duration::ZERO)
                .unwrap();
            assert!(backend.next_event().is_none());
        }
    });
}

#[test]
fn a_send_pending_at_deregistration_is_completed() {
    over_each(|backend, _| {
        let mut line = registered(backend);
        backend.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        let sent = backend.send(line.token, &line.stream, b"bye");
        assert!(matches!(sent, Sent::Accepted(3) | Sent::Pending));
        backend.deregister(line.token, line.stream);
        let mut heard = Vec::new();
        line.peer.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"bye");
    });
}

#[test]
fn a_flood_loses_nothing_and_does_not_starve_others() {
    over_each(|backend, _| {
        let mut tokens = SlotMap::with_key();
        let lines: Vec<Line> = (0..64).map(|_| line(&mut tokens)).collect();
        for line in &lines {
            backend.register(line.token, &line.stream).unwrap();
            line.peer.set_nonblocking(true).unwrap();
        }
        backend.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        // As much as each socket takes: more than a backend has buffers for.
        let flood = pattern(256 << 10);
        let mut total = 0;
        let mut left: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for line in &lines {
            let mut taken = 0;
            while taken < flood.len() {
                match (&line.peer).write(&flood[taken..]) {
                    Ok(count) => taken += count,
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
            total += taken;
            left.push((flood[..taken].to_vec(), Vec::new()));
        }
        assert!(total > 4 << 20, "{total}");
        let mut read = 0;
        while read < total {
            let IoEvent::Readable(token, pending) = next(backend) else {
                continue;
            };
            let index = lines.iter().position(|line| line.token == token).unwrap();
            if let Ok(bytes) = backend.read(pending, &lines[index].stream) {
                left[index].1.extend_from_slice(bytes);
                read += bytes.len();
            }
        }
        for (sent, heard) in &left {
            assert!(sent == heard);
        }
        // A backend may report once too often that there is something to read.
        backend.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        while let Some(event) = backend.next_event() {
            if let IoEvent::Readable(token, pending) = event {
                let line = lines.iter().find(|line| line.token == token).unwrap();
                assert_eq!(backend.read(pending, &line.stream), Err(Errno::AGAIN));
            }
        }
        // All of them still receive.
        for line in &lines {
            (&line.peer).write_all(b"more").unwrap();
            assert_eq!(read_next(backend, line).unwrap(), b"more");
        }
        for line in lines {
            backend.deregister(line.token, line.stream);
        }
    });
}

/// The most bytes that are read from one connection in an iteration, once it has sent more than a call does.
const MAX_READ: usize = 8 << 10;

#[test]
fn a_connection_that_floods_is_read_a_little_in_each_iteration() {
    over_each(|backend, _| {
        let line = registered(backend);
        let peer = line.peer.try_clone().unwrap();
        let flood = pattern(4 << 20);
        let sending = thread::spawn({
            let flood = flood.clone();
            move || (&peer).write_all(&flood).unwrap()
        });
        let (mut heard, mut most, mut iterations) = (Vec::new(), Vec::new(), 0);
        while heard.len() < flood.len() {
            // As a media thread does, which works between two waits.
            let min_wait = Duration::from_millis(1);
            backend.wait(Some(FOREVER), min_wait).unwrap();
            let before = heard.len();
            while let Some(event) = backend.next_event() {
                if let IoEvent::Readable(_, pending) = event
                    && let Ok(bytes) = backend.read(pending, &line.stream)
                {
                    heard.extend_from_slice(bytes);
                }
            }
            most.push(heard.len() - before);
            iterations += 1;
        }
        sending.join().unwrap();
        assert!(heard == flood);
        // The flood must be detected first.
        assert!(iterations > 20, "{iterations}");
        assert!(most[10..].iter().all(|&read| read <= MAX_READ), "{most:?}");
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn the_waker_ends_a_wait_and_any_number_of_wakes_is_one() {
    over_each(|backend, waker| {
        for _ in 0..3 {
            waker.wake();
            waker.wake();
            backend.wait(None, Duration::ZERO).unwrap();
            assert!(matches!(backend.next_event(), Some(IoEvent::Woken)));
            assert!(backend.next_event().is_none());
        }
    });
}

fn listening(backend: &mut dyn Driver) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    backend.listen(&listener).unwrap();
    listener
}

#[test]
fn a_connection_that_was_not_accepted_is_reported_again() {
    over_each(|backend, _| {
        let listener = listening(backend);
        let _peers = [(); 3].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        for _ in 0..3 {
            // One event for all that wait, of which one is accepted.
            assert!(matches!(next(backend), IoEvent::Incoming));
            assert!(backend.next_event().is_none());
            listener.accept().unwrap();
        }
    });
}

#[test]
fn connections_to_accept_are_reported_until_the_listener_is_deregistered() {
    over_each(|backend, _| {
        let listener = listening(backend);
        for _ in 0..3 {
            let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(matches!(next(backend), IoEvent::Incoming));
            listener.accept().unwrap();
        }
        backend.stop_listening(&listener);
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        backend
            .wait(Some(Duration::from_millis(10)), Duration::ZERO)
            .unwrap();
        assert!(backend.next_event().is_none());
    });
}

#[test]
fn a_minimum_wait_lasts_until_its_time_is_up() {
    over_each(|backend, waker| {
        let mut line = registered(backend);
        line.peer.write_all(b"early").unwrap();
        waker.wake();
        let (began, wait) = (Instant::now(), Duration::from_millis(20));
        backend.wait(Some(wait), wait).unwrap();
        assert!(began.elapsed() >= wait);
        let (mut woken, mut heard) = (0, Vec::new());
        while let Some(event) = backend.next_event() {
            match event {
                IoEvent::Woken => woken += 1,
                IoEvent::Readable(_, pending) => {
                    heard = backend.read(pending, &line.stream).unwrap().to_vec();
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((woken, &heard[..]), (1, &b"early"[..]));
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn unsent_bytes_in_the_send_queue_are_known_exactly() {
    over_each(|backend, _| {
        let mut line = registered(backend);
        assert_eq!(unsent_bytes(&line.stream), Ok(0));
        // Until the other side's window and the send queue are full.
        let mut given = 0;
        loop {
            match backend.send(line.token, &line.stream, &[7; 1000]) {
                Sent::Accepted(0) => break,
                Sent::Accepted(sent) => given += sent,
                Sent::Pending => match next(backend) {
                    IoEvent::Sent(_) => given += 1000,
                    IoEvent::PartiallySent(_, rest) => {
                        given += 1000 - rest.len();
                        break;
                    }
                    other => panic!("{other:?}"),
                },
                Sent::Failed(error) => panic!("{error}"),
            }
        }
        let waiting = unsent_bytes(&line.stream).unwrap();
        assert!(waiting > 0 && waiting < given, "{waiting} of {given}");
        let mut got = vec![0; given];
        line.peer.read_exact(&mut got).unwrap();
        assert_eq!(
            unsent_bytes(&line.stream),
            Ok(0),
            "all {given} have been read"
        );
    });
}

#[test]
fn unsent_bytes_of_anything_but_a_connection_is_an_error() {
    assert!(unsent_bytes(std::fs::File::open("/dev/null").unwrap()).is_err());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(unsent_bytes(&listener), Err(Errno::INVAL));
}
