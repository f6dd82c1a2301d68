//! Hearing a call over HTTP.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread::{self, JoinHandle},
    time::Duration,
};

use sidetone::Rate;
use sidetone_audio::resample::Resampler;
use sidetone_caller::{CallRecord, Caller, Codec, Run, Voice, exact_runs};
use uuid::Uuid;

use crate::kit::{ADMIN, ECHO, OPEN, TestGateway};

const PATIENCE: Duration = Duration::from_secs(20);
const CALL: Duration = Duration::from_secs(3);
/// Listens to a call until it is over: the header of the WAV file, and the samples.
fn listen(gateway: &TestGateway, id: Uuid, side: &str) -> JoinHandle<(Vec<u8>, Vec<i16>)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let response = agent
        .get(format!(
            "http://{}/v1/calls/{id}/listen{side}",
            gateway.http
        ))
        .header("authorization", format!("Bearer {ADMIN}"))
        // As an <audio> element asks.
        .header("range", "bytes=0-")
        .call()
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "audio/wav");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        response
            .into_body()
            .into_reader()
            .read_to_end(&mut bytes)
            .unwrap();
        let samples = bytes.split_off(44);
        let samples = samples.chunks_exact(4).map(|frame| {
            // The same in both ears.
            assert_eq!(frame[..2], frame[2..]);
            i16::from_le_bytes([frame[0], frame[1]])
        });
        (bytes, samples.collect())
    })
}

fn length(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.length).sum()
}

/// A call that is listened to from three sides: what each heard, and the caller's record.
fn heard_from_all_sides(gateway: &TestGateway, codec: Codec) -> ([Vec<i16>; 3], CallRecord) {
    let id = Uuid::new_v4();
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .codec(codec)
        .say(Voice::Ramp(5))
        .hang_up_after(CALL);
    let call = gateway.place(caller);
    gateway.wait_for_call(id);
    let listening = ["?side=caller", "?side=server", ""].map(|side| listen(gateway, id, side));
    let heard = listening.map(|it| {
        // It ends, since the call does.
        let (header, samples) = it.join().unwrap();
        assert_eq!(
            (&header[..4], &header[8..16]),
            (&b"RIFF"[..], &b"WAVEfmt "[..])
        );
        assert_eq!(header[22..28], [2, 0, 0x80, 0xbb, 0, 0]);
        samples
    });
    (heard, call.join().unwrap())
}

#[test]
fn a_listener_hears_every_sample_of_a_call_of_48_khz() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let ([caller, server, both], record) =
        heard_from_all_sides(&gateway, Codec::Slin(Rate::Slin48));
    let said = exact_runs(record.sent_samples(), &caller);
    // Two seconds of three: the first are over when somebody listens.
    assert!(length(&said) > 2 * 48_000, "{said:?}");
    let echoed = exact_runs(record.heard_samples(), &server);
    assert!(length(&echoed) > 2 * 48_000, "{echoed:?}");
    assert_ne!(both, caller);
    assert_ne!(both, server);
    let seconds = |samples: &[i16]| samples.len() as f64 / 48_000.0;
    for samples in [&caller, &server, &both] {
        assert!(
            seconds(samples) <= CALL.as_secs_f64() + 0.5,
            "{}",
            seconds(samples)
        );
    }
}

#[test]
fn a_listener_hears_a_telephone_call_at_48_khz() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let ([caller, ..], record) = heard_from_all_sides(&gateway, Codec::Slin(Rate::Slin));
    let mut resampled = Vec::new();
    Resampler::new(8_000, 48_000)
        .unwrap()
        .process(record.sent_samples(), &mut resampled);
    // A second from the middle, without what the first moments cost.
    let heard = &caller[caller.len() / 3..caller.len() / 3 + 48_000];
    let likeness = best_correlation(heard, &resampled);
    assert!(likeness > 0.99, "{likeness}");
}

/// How much the most similar place of `whole` is like `piece`, from −1 to 1.
fn best_correlation(piece: &[i16], whole: &[i16]) -> f64 {
    let places = 0..=whole.len() - piece.len();
    places
        .map(|at| {
            // Every 37th sample is enough to tell noise-like voices apart.
            let pairs = piece.iter().step_by(37).zip(whole[at..].iter().step_by(37));
            let (mut product, mut one, mut other) = (0.0, 0.0, 0.0);
            for (a, b) in pairs {
                let (a, b) = (f64::from(*a), f64::from(*b));
                product += a * b;
                one += a * a;
                other += b * b;
            }
            product / f64::sqrt(one * other).max(1.0)
        })
        .fold(-1.0, f64::max)
}

#[test]
fn the_seventeenth_listener_waits_until_another_ends() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let id = Uuid::new_v4();
    let call = gateway.call(id, Duration::from_secs(60));
    gateway.wait_for_call(id);
    let request = format!(
        "GET /v1/calls/{id}/listen HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {ADMIN}\r\n\r\n"
    );
    let status = || {
        let mut stream = TcpStream::connect(gateway.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (String::from_utf8_lossy(&status[9..]).into_owned(), stream)
    };
    let mut listeners: Vec<_> = (0..16).map(|_| status()).collect();
    assert!(listeners.iter().all(|(status, _)| status == "200"));
    assert_eq!(status().0, "409");
    listeners.pop();
    // The gateway notices with the next samples that it sends.
    while status().0 != "200" {
        thread::sleep(Duration::from_millis(20));
    }
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    call.join().unwrap();
    for (_, mut stream) in listeners {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"0\r\n\r\n"), "a stream that does not end");
    }
}

#[test]
fn a_browser_gets_no_rest_of_a_call() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let id = Uuid::new_v4();
    let call = gateway.call(id, Duration::from_secs(60));
    gateway.wait_for_call(id);
    let path = format!("/v1/calls/{id}/listen");
    let token = format!("Bearer {ADMIN}");
    let rest = [("authorization", token.as_str()), ("range", "bytes=44000-")];
    let answer = gateway.request("GET", &path, &rest, None);
    assert_eq!(answer.status, 416, "{answer:?}");
    let wrong = gateway.admin("GET", &format!("{path}?side=nobody"), None);
    assert_eq!(wrong.status, 400, "{wrong:?}");
    assert_eq!(gateway.get(&path).status, 401);
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    call.join().unwrap();
    gateway.of("call.ended", id);
    assert_eq!(gateway.admin("GET", &path, None).status, 404);
}
