//! What an backend must do, asked of each.
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

/// Longer than anything here takes; whoever waits so long waits for ever.
const FOREVER: Duration = Duration::from_secs(30);

/// Runs a test over each backend. Where io_uring can't be had, over epoll alone, which CI does not let pass.
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
    // It may block: an backend does not, whatever the socket is set to.
    stream.set_nodelay(true).unwrap();
    let token = tokens.insert(());
    Line {
        token,
        stream,
        peer,
    }
}

fn watched(backend: &mut dyn Driver) -> Line {
    let line = line(&mut SlotMap::with_key());
    backend.register(line.token, &line.stream).unwrap();
    line
}

/// The next thing that happens.
fn next(backend: &mut dyn Driver) -> IoEvent {
    let give_up = Instant::now() + FOREVER;
    loop {
        if let Some(report) = backend.next_event() {
            return report;
        }
        assert!(Instant::now() < give_up, "nothing happened");
        backend.wait(Some(FOREVER), Duration::ZERO).unwrap();
    }
}

/// What comes next on the one connection there is.
fn read_next(backend: &mut dyn Driver, line: &Line) -> Result<Vec<u8>, Errno> {
    loop {
        if let IoEvent::Readable(token, arrival) = next(backend) {
            assert_eq!(token, line.token);
            match backend.read(arrival, &line.stream) {
                Err(Errno::AGAIN) => {}
                read => return read.map(<[u8]>::to_vec),
            }
        }
    }
}

/// Everything that comes until the stream is at its end.
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

/// Sends as an owner must: nothing while a send is with the backend, and what was left over first.
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

/// What is left over of what the backend took over.
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

/// Bytes that are told from each other wherever they are cut.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .flat_map(u32::to_le_bytes)
        .take(length)
        .collect()
}

#[test]
fn what_comes_is_read_in_order_up_to_the_end() {
    over_each(|backend, _| {
        let mut line = watched(backend);
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
        let mut line = watched(backend);
        line.peer.write_all(b"bye").unwrap();
        line.peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_next(backend, &line).unwrap(), b"bye");
        assert_eq!(read_next(backend, &line).unwrap(), b"");
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn a_connection_that_is_reset_is_told_from_one_that_ends() {
    over_each(|backend, _| {
        let Line {
            token,
            stream,
            peer,
        } = watched(backend);
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
fn a_connection_may_be_watched_while_it_is_made() {
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
        let line = watched(backend);
        // Both at once, more than the kernel takes: whatever of the second is taken must follow the first whole.
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
        let line = watched(backend);
        let message = pattern(64 << 10);
        let (mut sent, mut rest) = (0, Vec::new());
        // Nobody reads. It ends, or it has hung.
        while rest.is_empty() {
            rest = match backend.send(line.token, &line.stream, &message) {
                Sent::Accepted(count) => message[count..].to_vec(),
                Sent::Pending => unsent(backend, &line),
                Sent::Failed(error) => panic!("{error}"),
            };
            sent += 1;
        }
        // And nothing of it lies in wait to be sent behind its owner's back.
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
        } = watched(backend);
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
fn a_dismissed_connection_is_closed_and_reports_nothing() {
    over_each(|backend, _| {
        let mut line = watched(backend);
        // The receive is armed, the peer silent.
        backend.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        backend.deregister(line.token, line.stream);
        assert_eq!(line.peer.read(&mut [0; 8]).unwrap(), 0);
        // More from the other side finds nobody, where a socket that is kept open would take it.
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
fn what_was_taken_over_before_a_dismissal_is_sent() {
    over_each(|backend, _| {
        let mut line = watched(backend);
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
fn a_flood_loses_nothing_and_leaves_room_for_others() {
    over_each(|backend, _| {
        let mut tokens = SlotMap::with_key();
        let lines: Vec<Line> = (0..64).map(|_| line(&mut tokens)).collect();
        for line in &lines {
            backend.register(line.token, &line.stream).unwrap();
            line.peer.set_nonblocking(true).unwrap();
        }
        backend.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        // As much as each socket takes: more than an backend has buffers for.
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
            let IoEvent::Readable(token, arrival) = next(backend) else {
                continue;
            };
            let index = lines.iter().position(|line| line.token == token).unwrap();
            if let Ok(bytes) = backend.read(arrival, &lines[index].stream) {
                left[index].1.extend_from_slice(bytes);
                read += bytes.len();
            }
        }
        for (sent, heard) in &left {
            assert!(sent == heard);
        }
        // An backend may say once too often that there is something to read.
        backend.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        while let Some(report) = backend.next_event() {
            if let IoEvent::Readable(token, arrival) = report {
                let line = lines.iter().find(|line| line.token == token).unwrap();
                assert_eq!(backend.read(arrival, &line.stream), Err(Errno::AGAIN));
            }
        }
        // All of them still listen.
        for line in &lines {
            (&line.peer).write_all(b"more").unwrap();
            assert_eq!(read_next(backend, line).unwrap(), b"more");
        }
        for line in lines {
            backend.deregister(line.token, line.stream);
        }
    });
}

/// What one connection may have read in a turn, once it has sent more than a call does.
const BUDGET: usize = 8 << 10;

#[test]
fn who_sends_without_end_is_read_a_little_in_each_turn() {
    over_each(|backend, _| {
        let line = watched(backend);
        let peer = line.peer.try_clone().unwrap();
        let flood = pattern(4 << 20);
        let sending = thread::spawn({
            let flood = flood.clone();
            move || (&peer).write_all(&flood).unwrap()
        });
        let (mut heard, mut most, mut turns) = (Vec::new(), Vec::new(), 0);
        while heard.len() < flood.len() {
            // As a media thread does, which works between two turns.
            let turn = Duration::from_millis(1);
            backend.wait(Some(FOREVER), turn).unwrap();
            let before = heard.len();
            while let Some(report) = backend.next_event() {
                if let IoEvent::Readable(_, arrival) = report
                    && let Ok(bytes) = backend.read(arrival, &line.stream)
                {
                    heard.extend_from_slice(bytes);
                }
            }
            most.push(heard.len() - before);
            turns += 1;
        }
        sending.join().unwrap();
        assert!(heard == flood);
        // It has to be found out first.
        assert!(turns > 20, "{turns}");
        assert!(most[10..].iter().all(|&read| read <= BUDGET), "{most:?}");
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn the_bell_ends_a_wait_and_any_number_of_rings_is_one() {
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
            // One report for all that wait by then, of which one is accepted.
            assert!(matches!(next(backend), IoEvent::Incoming));
            assert!(backend.next_event().is_none());
            listener.accept().unwrap();
        }
    });
}

#[test]
fn connections_to_accept_are_reported_until_nobody_listens() {
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
fn a_batched_wait_lasts_until_its_time_is_up() {
    over_each(|backend, waker| {
        let mut line = watched(backend);
        line.peer.write_all(b"early").unwrap();
        waker.wake();
        let (began, wait) = (Instant::now(), Duration::from_millis(20));
        backend.wait(Some(wait), wait).unwrap();
        assert!(began.elapsed() >= wait);
        let (mut woken, mut heard) = (0, Vec::new());
        while let Some(report) = backend.next_event() {
            match report {
                IoEvent::Woken => woken += 1,
                IoEvent::Readable(_, arrival) => {
                    heard = backend.read(arrival, &line.stream).unwrap().to_vec();
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((woken, &heard[..]), (1, &b"early"[..]));
        backend.deregister(line.token, line.stream);
    });
}

#[test]
fn what_waits_in_the_socket_is_known_to_the_byte() {
    over_each(|backend, _| {
        let mut line = watched(backend);
        assert_eq!(unsent_bytes(&line.stream), Ok(0));
        // Until nothing more goes: the other side has no room, and what it has not got waits here.
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
fn of_what_is_no_connection_nothing_is_said() {
    assert!(unsent_bytes(std::fs::File::open("/dev/null").unwrap()).is_err());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(unsent_bytes(&listener), Err(Errno::INVAL));
}
