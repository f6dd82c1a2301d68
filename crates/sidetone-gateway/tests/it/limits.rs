//! However the gateway is flooded, calls and tickets get in.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use sidetone_caller::{CallRecord, EndCause};
use uuid::Uuid;

use crate::kit::{ECHO, OPEN, TestGateway};

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

/// The value of a line of the metrics.
fn figure(gateway: &TestGateway, name: &str) -> f64 {
    let metrics = gateway.admin("GET", "/metrics", None).body;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
        .parse()
        .unwrap()
}

/// How many connections were counted by this reason.
fn without_call(gateway: &TestGateway, reason: &str) -> f64 {
    let name = format!("sidetone_connections_without_call_total{{reason=\"{reason}\"}}");
    figure(gateway, &name)
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not come to that: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A connection from an address of the loopback network.
fn connect_from(last: u8, server: SocketAddr) -> TcpStream {
    let SocketAddr::V4(server) = server else {
        panic!("{server}");
    };
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(
        &socket,
        &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0),
    )
    .unwrap();
    connect(&socket, &server).unwrap();
    socket.into()
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn open_count(streams: &[TcpStream]) -> usize {
    streams.iter().filter(|it| is_open(it)).count()
}

fn heard_itself(record: &CallRecord) -> bool {
    record.ended.cause == EndCause::HungUp && record.heard_samples().iter().any(|it| *it != 0)
}

#[test]
fn silent_connections_of_one_address_are_bounded_and_the_oldest_goes_first() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let silent: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(gateway.address).unwrap())
        .collect();
    wait_until("32 are left", || open_count(&silent) == 32);
    assert_eq!(open_count(&silent[..8]), 0);
    assert_eq!(without_call(&gateway, "crowded_out"), 8.0);
    // A call of the same address gets in, and one more of them goes.
    let record = gateway.call(Uuid::new_v4(), SHORT).join().unwrap();
    assert!(heard_itself(&record), "{:?}", record.ended);
    wait_until("31 are left", || open_count(&silent) == 31);
}

#[test]
fn silent_connections_of_many_addresses_are_bounded_and_a_call_gets_in() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let silent: Vec<_> = (0..300)
        .map(|number| connect_from(2 + (number / 30) as u8, gateway.address))
        .collect();
    wait_until("256 are left", || open_count(&silent) == 256);
    assert_eq!(open_count(&silent[..44]), 0);
    let record = gateway.call(Uuid::new_v4(), SHORT).join().unwrap();
    assert!(heard_itself(&record), "{:?}", record.ended);
}

#[test]
fn a_trusted_address_has_only_the_limit_of_all() {
    let server = format!("{OPEN}\ntrusted = [\"127.0.0.1\"]");
    let gateway = TestGateway::start(&server, ECHO);
    let silent: Vec<_> = (0..250)
        .map(|_| TcpStream::connect(gateway.address).unwrap())
        .collect();
    let record = gateway.call(Uuid::new_v4(), SHORT).join().unwrap();
    assert!(heard_itself(&record), "{:?}", record.ended);
    assert_eq!(open_count(&silent), 250);
    for reason in ["crowded_out", "too_fast"] {
        assert_eq!(without_call(&gateway, reason), 0.0, "{reason}");
    }
}

#[test]
fn an_address_that_connects_too_often_is_counted_and_others_get_in() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let began = Instant::now();
    let mut connects = 0_u32;
    // So many more than are allowed in this time.
    while f64::from(connects) < 250.0 + 220.0 * began.elapsed().as_secs_f64() {
        drop(connect_from(9, gateway.address));
        connects += 1;
    }
    wait_until("some are counted", || {
        without_call(&gateway, "too_fast") >= 10.0
    });
    let record = gateway.call(Uuid::new_v4(), SHORT).join().unwrap();
    assert!(heard_itself(&record), "{:?}", record.ended);
}

#[test]
fn probes_are_counted_and_nothing_else() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let before = gateway.events().len();
    for _ in 0..20 {
        drop(TcpStream::connect(gateway.address).unwrap());
    }
    wait_until("20 probes", || without_call(&gateway, "probe") == 20.0);
    assert_eq!(without_call(&gateway, "without_uuid"), 0.0);
    let id = Uuid::new_v4();
    gateway.call(id, SHORT).join().unwrap();
    gateway.of("call.ended", id);
    let events = gateway.events();
    let of_the_call = |event: &&serde_json::Value| event["data"]["call"] == id.to_string();
    let others = events[before..].iter().filter(|it| !of_the_call(it));
    assert_eq!(others.count(), 0, "{events:#?}");
    let rejected = gateway.admin("GET", "/v1/status", None).json()["rejected"].clone();
    assert_eq!(rejected, serde_json::json!({}));
}

#[test]
fn max_calls_can_be_raised_and_lowered_by_a_reload() {
    let limited = |calls: usize| format!("max_calls = {calls}\n{OPEN}");
    let gateway = TestGateway::start(&limited(1), ECHO);
    let mut running = Vec::new();
    let mut start = |gateway: &TestGateway| {
        let id = Uuid::new_v4();
        running.push((id, gateway.call(id, LONG)));
        gateway.wait_for_call(id);
    };
    let is_full = |gateway: &TestGateway| {
        let id = Uuid::new_v4();
        gateway.call(id, SHORT).join().unwrap();
        gateway.of("call.rejected", id)["reason"] == "full"
    };
    start(&gateway);
    assert!(is_full(&gateway));
    // More than the library would let in beyond the first limit.
    gateway.reload(&limited(100), ECHO).unwrap();
    let text = gateway.event("reloaded", |_| true)["text"].clone();
    assert!(!text.to_string().contains("restart"), "{text}");
    for _ in 1..100 {
        start(&gateway);
    }
    assert!(is_full(&gateway));
    // Nobody is hung up for it.
    gateway.reload(&limited(1), ECHO).unwrap();
    assert!(is_full(&gateway));
    assert_eq!(figure(&gateway, "sidetone_calls"), 100.0);
    assert_eq!(figure(&gateway, "sidetone_calls_max"), 1.0);
    for (id, _) in &running {
        gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    }
    for (_, call) in running {
        assert_eq!(call.join().unwrap().ended.cause, EndCause::ServerHungUp);
    }
}

#[test]
fn the_addresses_that_may_call_can_be_changed_by_a_reload() {
    let gateway = TestGateway::start(&format!("allow = [\"10.0.0.0/8\"]\n{OPEN}"), ECHO);
    let id = Uuid::new_v4();
    gateway.call(id, SHORT).join().unwrap();
    let rejected = gateway.of("call.rejected", id);
    assert_eq!(rejected["reason"], "not_allowed", "{rejected}");
    gateway
        .reload(&format!("allow = [\"127.0.0.0/8\"]\n{OPEN}"), ECHO)
        .unwrap();
    let record = gateway.call(Uuid::new_v4(), SHORT).join().unwrap();
    assert!(heard_itself(&record), "{:?}", record.ended);
}

/// Sends this on so many connections, which then say no more.
fn crowd(gateway: &TestGateway, count: usize, said: &str) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.http).unwrap();
            // It may be closed already, for one that came later.
            let _ = stream.write_all(said.as_bytes());
            stream
        })
        .collect()
}

/// Mints tickets, each on a connection of its own as CURL() does, faster than any connection of the crowd times out.
fn assert_tickets_are_minted(gateway: &TestGateway) {
    let began = Instant::now();
    for _ in 0..10 {
        gateway.ticket("route=echo");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_crowd_that_says_nothing_keeps_no_ticket_out() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let silent = crowd(&gateway, 600, "");
    assert_tickets_are_minted(&gateway);
    // The oldest have made way.
    assert_eq!(open_count(&silent[..80]), 0);
    assert!(open_count(&silent) > 400);
}

#[test]
fn a_crowd_that_sends_slow_heads_or_bodies_keeps_no_ticket_out() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let head = "POST /v1/session HTTP/1.1\r\nHost: localhost\r\n";
    let _heads = crowd(&gateway, 600, head);
    assert_tickets_are_minted(&gateway);
    let with_body =
        format!("{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{");
    let _bodies = crowd(&gateway, 600, &with_body);
    assert_tickets_are_minted(&gateway);
}

#[test]
fn a_crowd_that_reads_no_answer_keeps_no_ticket_out() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let request = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(40);
    let _deaf = crowd(&gateway, 600, &request);
    assert_tickets_are_minted(&gateway);
}

#[test]
fn event_streams_make_way_for_tickets_and_not_for_those_that_say_nothing() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        crate::kit::ADMIN
    );
    let mut streams = crowd(&gateway, 20, &request);
    for stream in &mut streams {
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let _silent = crowd(&gateway, 600, "");
    assert_tickets_are_minted(&gateway);
    let is_closed = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
    };
    assert!(!streams.iter().any(is_closed));
    let _streams = crowd(&gateway, 600, &request);
    assert_tickets_are_minted(&gateway);
}
