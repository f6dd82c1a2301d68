#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use slotmap::SlotMap;

use super::*;
use crate::{Driver, IoEvent, Sent, Token, Waker};

/// A ring, where there is one. Where there is none, the tests over both backends report it, and CI fails.
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

/// Submits the queue; nothing has happened.
fn submit(ring: &mut Uring) {
    ring.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
    assert!(ring.next_event().is_none());
}

#[test]
fn a_registration_is_reused_only_after_its_last_completion() {
    let Some(mut ring) = ring() else { return };
    let mut tokens = SlotMap::with_key();
    let [first, second, third] = [(); 3].map(|()| line(&mut tokens));
    ring.register(first.token, &first.stream).unwrap();
    let registration = ring.registration_of[first.token];
    submit(&mut ring);
    ring.deregister(first.token, first.stream);
    // The receive has not completed for the last time.
    ring.register(second.token, &second.stream).unwrap();
    assert_ne!(ring.registration_of[second.token], registration);
    submit(&mut ring);
    ring.register(third.token, &third.stream).unwrap();
    assert_eq!(ring.registration_of[third.token], registration);
    // And the registration's new connection gets its own bytes.
    (&third.peer).write_all(b"third").unwrap();
    ring.wait(None, Duration::ZERO).unwrap();
    let Some(IoEvent::Readable(token, arrival)) = ring.next_event() else {
        panic!("nothing arrived");
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
            assert_eq!(ring.send(line.token, &line.stream, b"frame"), Sent::Pending);
        }
        ring.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
        while ring.next_event().is_some() {}
        assert_eq!(ring.send_buffers.count(), 2);
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
        // As much as the socket takes, which is more than the buffers hold.
        while matches!((&line.peer).write(&[7; 64 << 10]), Ok(count) if count > 0) {}
    }
    // The kernel fills all of them in one iteration, in which none is given back.
    let min_wait = Duration::from_millis(100);
    ring.wait(Some(min_wait), min_wait).unwrap();
    assert!(ring.ring.completion().len() > usize::from(receive_buffers::FIRST));
    while ring.next_event().is_some() {}
    assert!(!ring.unarmed.is_empty());
    assert!(
        ring.registrations
            .iter()
            .any(|registration| !registration.is_receiving)
    );
    ring.wait(Some(Duration::ZERO), Duration::ZERO).unwrap();
    assert!(ring.unarmed.is_empty());
    assert!(
        ring.registrations
            .iter()
            .all(|registration| registration.is_receiving)
    );
    // And there are more buffers than before.
    ring.wait(Some(min_wait), min_wait).unwrap();
    assert!(ring.ring.completion().len() > usize::from(2 * receive_buffers::FIRST));
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
    // Until the socket is full, and then once more.
    (&full.stream).write_all(&[0; 64 << 20]).unwrap_err();
    ring.set_write_interest(full.token, &full.stream, true);
    submit(&mut ring);
    let message = [1; 4096];
    for line in [&silent, &full] {
        assert_eq!(ring.send(line.token, &line.stream, &message), Sent::Pending);
    }
    assert!(ring.outstanding >= 6);
    assert!(ring.cancel_and_wait());
}

#[test]
fn memory_that_the_kernel_may_still_use_is_not_released() {
    let Some(mut ring) = ring() else { return };
    // A request that never completes.
    ring.outstanding += 1;
    assert!(!ring.cancel_and_wait());
    let (memory, length) = (ring.receive_buffers.bytes(0, 1).as_ptr(), 2);
    drop(ring);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_mapped = |line: &str| {
        let (begin, end) = line.split(' ').next()?.split_once('-')?;
        let bounds = [begin, end].map(|address| usize::from_str_radix(address, 16).unwrap());
        Some((bounds[0]..bounds[1]).contains(&(memory as usize + length)))
    };
    assert!(maps.lines().any(|line| is_mapped(line) == Some(true)));
}
