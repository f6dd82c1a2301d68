//! Calls over loopback to a server made of std sockets.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use sidetone_caller::{
    CallRecord, Caller, CallerError, EndCause, Event, Run, Stop, Voice, call_all, call_all_until,
};
use uuid::Uuid;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A server that serves each connection on a thread of its own.
fn serve(handle: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let handle = handle.clone();
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || handle(stream));
        }
    });
    address
}

/// One message; `None` at the end of the stream.
fn message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 3];
    stream.read_exact(&mut message).ok()?;
    let length = usize::from(u16::from_be_bytes([message[1], message[2]]));
    message.resize(3 + length, 0);
    stream.read_exact(&mut message[3..]).ok()?;
    Some(message)
}

fn echo(mut stream: TcpStream) {
    while let Some(message) = message(&mut stream) {
        if message[0] >= 0x10 && stream.write_all(&message).is_err() {
            return;
        }
    }
}

/// Echoes so many frames, then hangs up in order: however slow the machine, all of them are heard.
fn echo_and_hang_up(frames: usize) -> SocketAddr {
    serve(move |mut stream| {
        message(&mut stream).unwrap();
        for _ in 0..frames {
            let frame = message(&mut stream).unwrap();
            stream.write_all(&frame).unwrap();
        }
        stream.write_all(&[0, 0, 0]).unwrap();
        while message(&mut stream).is_some() {}
    })
}

/// Reads the UUID, writes these bytes, then reads to the end.
fn answer(bytes: &'static [u8]) -> SocketAddr {
    serve(move |mut stream| {
        message(&mut stream).unwrap();
        stream.write_all(bytes).unwrap();
        while message(&mut stream).is_some() {}
    })
}

/// Twenty frames of 160 samples that came back whole, from the first to the last.
fn assert_whole_echo(record: &CallRecord) {
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    assert_eq!(record.heard.len(), 20);
    let whole = Run {
        source: 0,
        heard: 0,
        length: 3200,
    };
    assert_eq!(record.echo(), [whole]);
    assert_eq!(record.echo_delays().len(), 20);
    assert_eq!(record.counts.in_pieces, 0);
}

#[test]
fn an_echo_comes_back_bit_by_bit() {
    let caller = Caller::new(echo_and_hang_up(20)).say(Voice::Ramp(1));
    assert_whole_echo(&caller.jitter(1).call().unwrap());
}

#[test]
fn hundreds_of_calls_share_one_thread() {
    let address = echo_and_hang_up(20);
    let callers = (0..200).map(|n| {
        Caller::new(address)
            .uuid(Uuid::from_u128(n))
            .say(Voice::Ramp(n as u64))
            .start_after(ms(n as u64))
            .hang_up_after(Duration::MAX)
    });
    let results = call_all(callers.collect());
    assert_eq!(results.len(), 200);
    for (n, result) in (0..).zip(results) {
        let record = result.unwrap();
        assert_eq!(
            record.uuid,
            Uuid::from_u128(n),
            "results stand in the order of callers"
        );
        assert_whole_echo(&record);
    }
}

#[test]
fn the_server_receives_uuid_audio_and_digits_in_whole_messages() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = serve(move |mut stream| {
        while let Some(message) = message(&mut stream) {
            sender.send(message).unwrap();
        }
    });
    let uuid = Uuid::from_u128(42);
    let caller = Caller::new(address).uuid(uuid).dtmf("4*", ms(30));
    caller.hang_up_after(ms(400)).call().unwrap();
    let messages: Vec<_> = std::iter::from_fn(|| receiver.recv_timeout(ms(10_000)).ok())
        .take(1 + 19 + 2)
        .collect();
    assert_eq!(messages[0][3..], *uuid.as_bytes());
    let digits: Vec<_> = messages
        .iter()
        .filter(|message| message[0] == 0x03)
        .collect();
    assert_eq!(digits, [&[3, 0, 1, b'4'], &[3, 0, 1, b'*']]);
    assert_eq!(
        messages
            .iter()
            .filter(|message| message.len() == 323)
            .count(),
        19
    );
}

#[test]
fn servers_for_which_asterisk_drops_a_call() {
    let cases: [(&'static [u8], EndCause); 4] = [
        (&[0x10, 0, 0], EndCause::EmptyAudio),
        (&[0x10, 0, 4, 1], EndCause::LatePayload { got: 1, of: 4 }),
        (
            &[0x03, 0, 1, b'1'],
            EndCause::ForbiddenKind(sidetone_proto::Kind::Dtmf),
        ),
        (&[0x10, 0], EndCause::Frozen { got: 2 }),
    ];
    for (bytes, cause) in cases {
        let caller = Caller::new(answer(bytes)).hang_up_after(ms(2000));
        assert_eq!(caller.call().unwrap().ended.cause, cause);
    }
}

#[test]
fn servers_that_end_the_call() {
    let hang_up = Caller::new(answer(&[0, 0, 0])).call().unwrap();
    assert_eq!(hang_up.ended.cause, EndCause::ServerHungUp);

    let half_close = serve(|mut stream| {
        message(&mut stream).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        while message(&mut stream).is_some() {}
    });
    let half_close = Caller::new(half_close).call().unwrap();
    assert_eq!(half_close.ended.cause, EndCause::ServerClosed);
}

#[test]
fn a_close_with_audio_unread_is_a_reset() {
    let address = serve(|mut stream| {
        message(&mut stream).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
    });
    let record = Caller::new(address).call().unwrap();
    assert_eq!(record.ended.cause, EndCause::ServerReset);
}

#[test]
fn a_fatal_message_resets_the_connection_as_asterisk_does() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = serve(move |mut stream| {
        message(&mut stream).unwrap();
        stream.write_all(&[0x02, 0, 1, 0]).unwrap();
        let mut rest = Vec::new();
        sender
            .send(stream.read_to_end(&mut rest).map_err(|error| error.kind()))
            .unwrap();
    });
    Caller::new(address).call().unwrap();
    let seen = receiver.recv_timeout(ms(20_000)).unwrap();
    assert_eq!(seen, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_server_that_does_not_read_ends_the_call_with_a_short_write() {
    let address = serve(|_stream| {
        loop {
            thread::park();
        }
    });
    let record = Caller::new(address)
        .say(Voice::made(|_, payload| payload.resize(65535, 1)))
        .ptime(ms(1))
        .send_buffer(4096)
        .call()
        .unwrap();
    let EndCause::ShortWrite { written, of } = record.ended.cause else {
        panic!("{:?}", record.ended);
    };
    assert!(written < of);
}

#[test]
fn a_caller_that_stops_reading_hears_what_came_meanwhile_afterwards() {
    let record = Caller::new(echo_and_hang_up(20))
        .say(Voice::Ramp(4))
        .stop_reading_between(ms(100), ms(500))
        .call()
        .unwrap();
    let during = |at: Duration| at > ms(100) && at < ms(500);
    // One read may be in progress when the pause begins.
    assert!(record.heard.iter().filter(|heard| during(heard.at)).count() <= 1);
    assert!(record.heard.last().unwrap().at >= ms(500));
    assert_whole_echo(&record);
}

#[test]
fn a_stop_ends_all_calls_as_hangups() {
    let address = serve(echo);
    let stop = Stop::new().unwrap();
    let ringing = stop.clone();
    let first = Caller::new(address).observe(move |event| {
        if let Event::Heard { .. } = event {
            ringing.stop();
        }
    });
    let never = Caller::new(address).start_after(Duration::from_secs(3600));
    let results = call_all_until(vec![first, never], &stop);
    assert_eq!(results[0].as_ref().unwrap().ended.cause, EndCause::HungUp);
    assert!(matches!(results[1], Err(CallerError::Stopped)));
    let later = Caller::new(address).call_until(&stop);
    assert!(
        matches!(later, Err(CallerError::Stopped)),
        "a stop stays one"
    );
}

#[test]
fn calls_that_cannot_be_placed() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = Caller::new(gone).call();
    assert!(matches!(refused, Err(CallerError::Refused(address)) if address == gone));

    let digit = Caller::new(gone).dtmf("1x", ms(0)).call();
    assert!(matches!(digit, Err(CallerError::InvalidDigit('x'))));

    for ptime in [Duration::ZERO, Duration::from_secs(10)] {
        let frame = Caller::new(gone).ptime(ptime).call();
        assert!(matches!(frame, Err(CallerError::InvalidFrame(_))));
    }
}

#[test]
fn one_call_that_cannot_be_placed_does_not_affect_the_others() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let good = serve(echo);
    let callers = [gone, good].map(|address| Caller::new(address).hang_up_after(ms(100)));
    let results = call_all(callers.into());
    assert!(results[0].is_err());
    assert_eq!(results[1].as_ref().unwrap().ended.cause, EndCause::HungUp);
}

#[test]
fn no_callers_no_results() {
    assert!(call_all(Vec::new()).is_empty());
}
