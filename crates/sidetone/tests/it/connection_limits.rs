//! Limits of connections that are no calls yet: without a UUID, too often, without a byte.
#![allow(clippy::unwrap_used)]

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use macro_rules_attribute::apply;
use sidetone::{EndReason, ServerStats};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::{IoBackend, Running, builder, id, listen, over_each_back_end, serve, until};

/// A connection from 127.0.0.`host`.
fn connect(server: &Running, host: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from(([127, 0, 0, host], 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let stream = TcpStream::from(socket);
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).unwrap();
    stream
}

fn silent(server: &Running, host: u8, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect(server, host)).collect()
}

fn identify(mut stream: &TcpStream, number: u128) {
    let identity = [&[0x01, 0, 16][..], id(number).as_bytes()].concat();
    stream.write_all(&identity).unwrap();
}

/// Waits for the connections that the server has counted in this way.
async fn counted(server: &Running, count: usize, of: fn(ServerStats) -> usize) {
    until(|| of(server.handle.stats()) >= count).await;
    assert_eq!(of(server.handle.stats()), count);
}

/// Which of these the server has left open. The others it has hung up.
fn open(streams: &[TcpStream]) -> Vec<bool> {
    let is_open = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        match stream.peek(&mut [0; 4]) {
            Err(error) => error.kind() == ErrorKind::WouldBlock,
            Ok(_) => {
                let mut said = Vec::new();
                stream.set_nonblocking(false).unwrap();
                stream.read_to_end(&mut said).unwrap();
                assert_eq!(said, [0, 0, 0]);
                false
            }
        }
    };
    streams.iter().map(is_open).collect()
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn all_threads_have_one_limit_of_silent_connections(io: IoBackend) {
    let settings = builder(io).media_threads(3).max_unidentified(10);
    let server = serve(settings, listen).await;
    let streams = silent(&server, 1, 40);
    counted(&server, 30, |stats| stats.crowded_out).await;
    assert_eq!(open(&streams), [vec![false; 30], vec![true; 10]].concat());
    // Those that have said their UUID are calls.
    for (number, stream) in streams[30..35].iter().enumerate() {
        identify(stream, number as u128);
    }
    counted(&server, 5, |stats| stats.running).await;
    let more = silent(&server, 1, 5);
    counted(&server, 45, |stats| stats.connections).await;
    drop(more);
    counted(&server, 5, |stats| stats.probes).await;
    let stats = server.handle.stats();
    assert_eq!((stats.crowded_out, stats.running), (30, 5));
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_too_many_silent_connections_loses_its_own_oldest(io: IoBackend) {
    let settings = builder(io)
        .media_threads(2)
        .max_unidentified(100)
        .max_unidentified_per_address(4)
        .trusted("127.0.0.3".parse().unwrap());
    let server = serve(settings, listen).await;
    let others = silent(&server, 2, 3);
    let streams = silent(&server, 1, 10);
    let trusted = silent(&server, 3, 20);
    counted(&server, 33, |stats| stats.connections).await;
    counted(&server, 6, |stats| stats.crowded_out).await;
    assert_eq!(open(&others), [true; 3]);
    assert_eq!(open(&streams), [vec![false; 6], vec![true; 4]].concat());
    assert_eq!(open(&trusted), [true; 20]);
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_connects_too_often_hears_a_hang_up_and_trusted_ones_do_not(io: IoBackend) {
    const CALLS: usize = 60;
    const PER_SECOND: usize = 5;
    let settings = builder(io)
        .max_connects_per_second(PER_SECOND)
        .trusted("127.0.0.3".parse().unwrap());
    let server = serve(settings, listen).await;
    let began = Instant::now();
    let place = |host| {
        let streams = silent(&server, host, CALLS);
        for (number, stream) in streams.iter().enumerate() {
            identify(stream, u128::from(host) << 64 | number as u128);
        }
        streams
    };
    let (often, trusted) = (place(1), place(3));
    until(|| {
        let stats = server.handle.stats();
        stats.calls + stats.rejected == 2 * CALLS
    })
    .await;
    let seconds = began.elapsed().as_secs() as usize + 1;
    let rejected = often
        .iter()
        .filter(|stream| first_byte(stream) == 0)
        .count();
    let stats = server.handle.stats();
    assert_eq!(
        (stats.excess_connects, stats.rejected),
        (rejected, rejected)
    );
    // So many at once, and as many each second.
    let admitted = CALLS - rejected;
    assert!(
        (PER_SECOND..=PER_SECOND * (1 + seconds)).contains(&admitted),
        "{admitted}"
    );
    assert!(trusted.iter().all(|stream| first_byte(stream) == 0x10));
    // Each ends as a rejected call does: its hang-up can be read, and no reset.
    for mut stream in often.iter().filter(|stream| first_byte(stream) == 0) {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said, [0, 0, 0]);
    }
    drop((often, trusted));
    let ended = server.end().await;
    let reported = ended
        .iter()
        .filter(|summary| summary.reason == EndReason::TooManyConnects)
        .count();
    assert!((1..=10 * seconds).contains(&reported), "{reported}");
    assert!(reported < rejected, "the others are only counted");
}

/// What a message begins with that the server sends: its kind.
fn first_byte(stream: &TcpStream) -> u8 {
    let mut first = [0xff];
    assert_eq!(stream.peek(&mut first).unwrap(), 1);
    first[0]
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_too_many_is_hung_up_soon_and_is_no_call(io: IoBackend) {
    let server = serve(builder(io).max_connects_per_second(1), listen).await;
    let first = connect(&server, 1);
    let began = Instant::now();
    let second = connect(&server, 1);
    let said = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        (&second).read_to_end(&mut said).unwrap();
        said
    });
    // Within a second of the first: no machine is so slow that this connection was let in.
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(said.await.unwrap(), [0, 0, 0]);
    // The other one may stay for a minute.
    assert_eq!(open(&[first]), [true]);
    counted(&server, 1, |stats| stats.excess_connects).await;
    assert_eq!(server.handle.stats().rejected, 0);
    assert!(server.end().await.is_empty());
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_closes_without_a_byte_is_a_probe_and_no_call(io: IoBackend) {
    let server = serve(builder(io), listen).await;
    let streams = silent(&server, 1, 8);
    counted(&server, 8, |stats| stats.connections).await;
    for mut stream in &streams[..2] {
        stream.write_all(&[0x01]).unwrap();
    }
    // One way to close is a reset.
    SockRef::from(&streams[2])
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(streams);
    counted(&server, 8, |stats| stats.without_identity).await;
    let stats = server.handle.stats();
    assert_eq!((stats.probes, stats.calls, stats.rejected), (6, 0, 0));
    assert!(server.end().await.is_empty());
}
