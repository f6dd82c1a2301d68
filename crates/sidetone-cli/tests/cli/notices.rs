//! Notices about connections that are not calls.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use crate::kit::{Running, TIMEOUT};

#[test]
fn another_protocol_is_disconnected_and_named() {
    let (mut server, address) = Running::serve("echo");
    for (first, words) in [
        (&b"GET / HTTP/1.1\r\nHost: pbx\r\n\r\n"[..], "speaks HTTP"),
        (
            b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            "a WebSocket client",
        ),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "speaks TLS",
        ),
        (b"OPTIONS sip:pbx SIP/2.0\r\n\r\n", "speaks SIP"),
        (b"PROXY TCP4 10.0.0.1 10.0.0.2 4 5\r\n", "PROXY headers"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak AudioSocket"),
    ] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(first).unwrap();
        // It is closed or reset without an answer.
        match stream.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        // Other notices may concern the machine.
        let is_it = |notice: Value| notice["text"].as_str().unwrap().contains(words);
        while !is_it(server.wait_for("notice")) {}
    }
}
