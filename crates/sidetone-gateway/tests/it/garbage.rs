//! Ten thousand requests that mean no good.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::kit::{ADMIN, ECHO, OPEN, TestGateway};

const REQUESTS: u64 = 10_000;

/// What is put together into requests.
const METHODS: [&str; 8] = [
    "GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW", "get",
];
const PATHS: [&str; 14] = [
    "/",
    "/v1/tickets",
    "/v1/calls",
    "/v1/calls/x/result",
    "/v1/calls/%2e%2e/hangup",
    "/v1/session",
    "/v1/drain",
    "/metrics",
    "/openapi.json",
    "/v1/events/../calls",
    "//",
    "/../etc/passwd",
    "/v1/calls/00000000-0000-0000-0000-000000000000/play",
    "*",
];
const PIECES: [&str; 20] = [
    "",
    "route=echo",
    "%0d%0aevil:1",
    "${SHELL(reboot)}",
    "%24%7BEXTEN%7D",
    "a=b,c&d",
    "\"",
    "'",
    "%00",
    "%ff%fe",
    "<script>alert(1)</script>",
    "format=dial",
    "route=%2e%2e",
    "\\",
    "&&&&",
    "=",
    "%",
    "%zz",
    "🦀",
    "a=1&a=1",
];
const HEADERS: [&str; 12] = [
    "",
    "Host: evil.example",
    "Authorization: Bearer x",
    "Authorization: Bearer ",
    "Cookie: sidetone_session=a.1.b.c",
    "Content-Type: application/json",
    "Origin: http://evil.example",
    "Transfer-Encoding: chunked",
    "Content-Length: 99999999999",
    "X-CSRF-Token: x",
    "Accept: application/json",
    "Connection: close, upgrade",
];
const BODIES: [&str; 8] = [
    "",
    "{",
    "{\"token\":1}",
    "{\"deadline_s\":-1}",
    "{\"deadline_s\":1e99}",
    "[[[[",
    "\u{0}\u{1}\u{2}",
    "{\"file\":\"../../etc/passwd\"}",
];

fn request(number: u64, is_authorized: bool) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut pick = |all: &[&'static str]| all[random.usize(..all.len())];
    let (method, path) = (pick(&METHODS), pick(&PATHS));
    let query = format!("{}{}{}", pick(&PIECES), pick(&PIECES), pick(&PIECES));
    let (one, other, body) = (pick(&HEADERS), pick(&HEADERS), pick(&BODIES));
    let mut text = format!("{method} {path}?{query} HTTP/1.1\r\nHost: localhost\r\n");
    for header in [one, other].into_iter().filter(|it| !it.is_empty()) {
        text += &format!("{header}\r\n");
    }
    if is_authorized {
        text += &format!("Authorization: Bearer {ADMIN}\r\n");
    }
    if number.is_multiple_of(7) {
        text += &format!("X-Long: {}\r\n", "a".repeat(random.usize(..100_000)));
    }
    text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    text.into_bytes()
}

/// The status of the answer; none if the connection is closed without one, as for what is no HTTP.
fn status(address: SocketAddr, request: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // The server may close before it has read all.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.take(64 * 1024).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12)?.parse().ok()?;
    Some((status, answer))
}

#[test]
fn garbage_does_no_harm() {
    let gateway = TestGateway::start(OPEN, ECHO);
    for number in 0..REQUESTS {
        let is_authorized = number.is_multiple_of(3);
        let request = request(number, is_authorized);
        let Some((status, answer)) = status(gateway.http, &request) else {
            continue;
        };
        let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
        // Full, or draining, is no failure of the server's.
        assert!(status < 500 || status == 503, "{status} to {shown}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(!head.contains("evil"), "{shown}\n{head}");
        if head.contains("text/plain") && shown.contains("/v1/tickets") {
            let is_plain = |it: char| it.is_ascii_alphanumeric() || ",:./-".contains(it);
            assert!(body.chars().all(is_plain), "{body:?} to {shown}");
        }
    }
    assert_eq!(gateway.get("/livez").status, 200);
    for event in gateway.events() {
        assert!(!event.to_string().contains('\n'));
    }
}
