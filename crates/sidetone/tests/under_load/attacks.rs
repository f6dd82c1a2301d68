//! One connection that does the most expensive thing that the protocol allows, as fast as it can, beside ordinary
//! calls: these lose nothing that the same calls without it don't.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::alone;
use crate::support::{
    IoBackend, builder, calls, echo, id, millis, over_each_back_end, runtime, serve,
};
use macro_rules_attribute::apply;
use sidetone_caller::{CallRecord, Caller, EndCause, Voice};

const CALLS: u64 = 60;
const LENGTH: Duration = Duration::from_secs(1);
/// Of 3000 frames. A machine that has other things to do makes this much of a difference between two runs.
const NOTHING: usize = 15;

/// The UUID that the attacker gives.
const IDENTITY: [u8; 19] = {
    let mut message = [7; 19];
    (message[0], message[1], message[2]) = (1, 0, 16);
    message
};

/// What is sent again and again, on one connection or on a new one each time.
struct Attack {
    name: &'static str,
    message: Vec<u8>,
    is_new_connection: bool,
    /// All that comes back is read.
    reads: bool,
}

impl Attack {
    /// Many of a message in one piece, for the system calls are the attacker's cost.
    fn flood(name: &'static str, message: &[u8]) -> Self {
        let count = (64 << 10) / message.len();
        Self {
            name,
            message: message.repeat(count.max(1)),
            is_new_connection: false,
            reads: true,
        }
    }

    fn connecting(name: &'static str, message: &[u8]) -> Self {
        Self {
            name,
            message: message.to_vec(),
            is_new_connection: true,
            reads: false,
        }
    }

    /// Goes on until it is told to stop. A connection that the server ends is followed by another.
    fn run(&self, address: SocketAddr, stop: &AtomicBool) -> usize {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut stream) = TcpStream::connect(address) else {
                continue;
            };
            stream.set_nodelay(true).unwrap();
            stream.set_write_timeout(Some(millis(100))).unwrap();
            if self.is_new_connection {
                // The server may have ended it.
                let _ = stream.write_all(&self.message);
                sent += 1;
                continue;
            }
            let reading = self.reads.then(|| {
                let mut stream = stream.try_clone().unwrap();
                thread::spawn(move || while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {})
            });
            let mut goes_on = stream.write_all(&IDENTITY).is_ok();
            while goes_on && !stop.load(Ordering::Relaxed) {
                goes_on = match stream.write(&self.message) {
                    Ok(bytes) => {
                        sent += bytes;
                        true
                    }
                    // The server reads no faster.
                    Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                };
            }
            let _ = stream.shutdown(Shutdown::Both);
            if let Some(reading) = reading {
                reading.join().unwrap();
            }
        }
        sent
    }
}

/// A message, with its header.
fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    [&[kind, high, low], payload].concat()
}

fn attacks() -> Vec<Attack> {
    vec![
        Attack::flood("empty audio", &message(0x10, &[])),
        Attack::flood("unknown kinds", &message(0x77, &[])),
        Attack::flood("malformed digits", &message(0x03, &[])),
        Attack::flood("audio of one sample", &message(0x10, &[1, 1])),
        Attack::flood("digits", &message(0x03, b"5")),
        Attack::flood("errors", &message(0xff, &[2])),
        Attack::flood("the longest audio", &message(0x10, &[1; 0xffff])),
        Attack::flood("audio at 192 kHz", &message(0x18, &[1; 7680])),
        Attack {
            message: vec![0x10],
            ..Attack::flood("one byte at a time", &[0])
        },
        Attack {
            reads: false,
            ..Attack::flood("audio, and nothing is read", &message(0x10, &[1; 320]))
        },
        Attack::connecting("connections", &[]),
        Attack::connecting("calls that end at once", &IDENTITY),
        Attack::connecting("other protocols", b"GET / HTTP/1.1\r\n\r\n"),
    ]
}

/// What the ordinary calls lived through, beside this attack.
fn beside(io: IoBackend, attack: Option<Attack>) -> Vec<CallRecord> {
    runtime(2).block_on(async {
        let server = serve(builder(io), echo).await;
        let stop = Arc::new(AtomicBool::new(false));
        let attacking = attack.map(|attack| {
            let (address, stop) = (server.address, Arc::clone(&stop));
            thread::spawn(move || (attack.name, attack.run(address, &stop)))
        });
        let caller = |seed: u64| {
            let caller = server.caller().uuid(id(seed.into()));
            let caller: Caller = caller.start_after(millis(5 * seed % 20));
            caller.say(Voice::Ramp(seed)).hang_up_after(LENGTH)
        };
        let records = calls((1..=CALLS).map(caller).collect()).await;
        stop.store(true, Ordering::Relaxed);
        if let Some(attacking) = attacking {
            let (name, sent) = attacking.join().unwrap();
            assert!(sent > 100, "{name}: it attacked {sent} times");
        }
        server.end().await;
        records
    })
}

/// Frames that are missing in what was heard of these calls, and such as are silent there instead.
fn missing(records: &[CallRecord]) -> usize {
    let lost = |record: &CallRecord| {
        assert_eq!(record.ended.cause, EndCause::HungUp);
        let echo = record.echo();
        let (first, last) = (echo.first().unwrap(), echo.last().unwrap());
        let whole: usize = echo.iter().map(|run| run.length).sum();
        // What was under way when the caller hung up is not missing.
        let said = last.source + last.length;
        let heard = last.heard + last.length - first.heard;
        (said - whole + heard - whole) / 160
    };
    records.iter().map(lost).sum()
}

#[apply(over_each_back_end)]
#[test]
fn no_connection_takes_frames_from_the_others_whatever_it_sends(io: IoBackend) {
    let _alone = alone();
    let usual = missing(&beside(io, None));
    let mut worse = Vec::new();
    for attack in attacks() {
        let name = attack.name;
        let lost = missing(&beside(io, Some(attack)));
        if lost > usual + NOTHING {
            worse.push(format!("{name}: {lost}"));
        }
    }
    assert!(worse.is_empty(), "{worse:?}, and {usual} without it");
}
