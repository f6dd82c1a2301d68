//! Audio of message kind 0x10 that is not 8 kHz linear.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use sidetone::Rate;
use sidetone_audio::{resample::resample_clip, tone};
use sidetone_caller::{CallRecord, Caller, Codec, Generation};

use crate::kit::{Running, read_stereo, similarity};

/// Places a call that says `said` and lasts a second longer. It has no kinds for more than 8 kHz, like Asterisk before 20.17,
/// 21.12, 22.7 and 23.1.
fn call(address: &str, codec: Codec, said: &[i16]) -> CallRecord {
    let mut rules = Generation::G.rules();
    rules.wideband = false;
    let speaking = codec.rate().duration(said.len() as u64);
    let caller = Caller::new(address.parse().unwrap()).rules(rules);
    let caller = caller.codec(codec).say(said.to_vec());
    let caller = caller.hang_up_after(speaking + Duration::from_secs(1));
    caller.call().unwrap()
}

#[test]
fn wideband_under_the_kind_of_8_khz_is_echoed_and_recorded_at_its_rate() {
    std::thread::scope(|scope| {
        for rate in [Rate::Slin12, Rate::Slin16, Rate::Slin48] {
            scope.spawn(move || wideband_is_echoed_and_recorded(rate));
        }
    });
}

fn wideband_is_echoed_and_recorded(rate: Rate) {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) =
        Running::serve(&format!("echo --record {}", directory.path().display()));
    let said = tone::caller_voice(rate.hz(), Duration::from_secs(3), 5);
    let record = call(&address, Codec::Slin(rate), &said);
    let codec = server.wait_for("codec");
    let text = codec["text"].as_str().unwrap();
    for part in [rate.name(), "UUID/c(slin)", "20.17"] {
        assert!(text.contains(part), "{text}");
    }
    let recorded = server.wait_for("recorded");
    let (hz, left, _) = read_stereo(recorded["files"][0].as_str().unwrap().as_ref());
    assert_eq!(hz, rate.hz());
    let kept = similarity(&said, &left);
    assert!(kept > 0.95, "{hz}: the recording: {kept}");
    // The echo comes at the only rate that such an Asterisk accepts.
    assert!(record.heard.iter().all(|heard| heard.rate == Rate::Slin));
    let said = resample_clip(&said, hz, 8_000).unwrap();
    let echo = similarity(&said, record.heard_samples());
    assert!(echo > 0.9, "{hz}: the echo: {echo}");
    // The order of `recorded` and `call_ended` is not fixed.
    let events = server.stop();
    let ended = events.iter().find(|event| event["event"] == "call_ended");
    assert_eq!(ended.unwrap()["codec"], rate.name());
}

#[test]
fn audio_that_is_known_to_be_wrong_is_silence() {
    let (mut server, address) = Running::serve("echo");
    let said = tone::caller_voice(8_000, Duration::from_secs(3), 5);
    let record = call(&address, Codec::Ulaw, &said);
    let text = server.wait_for("codec")["text"].clone();
    assert!(text.as_str().unwrap().contains("c(slin)"), "{text}");
    // Noise may have been echoed until the codec was known.
    let heard = record.heard_samples();
    assert!(heard[heard.len() / 2..].iter().all(|sample| *sample == 0));
    assert_eq!(server.wait_for("call_ended")["codec"], "slin");
}

#[test]
fn a_caller_whose_codec_cant_be_detected_is_reported() {
    let (mut server, address) = Running::serve("echo --codec auto");
    let mut state = 1_u64;
    let noise: Vec<i16> = (0..16_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 48) as i16) / 4
        })
        .collect();
    call(&address, Codec::Ulaw, &noise);
    let ended = server.wait_for("call_ended");
    let codec = server.seen.iter().find(|event| event["event"] == "codec");
    let text = codec.unwrap()["text"].as_str().unwrap();
    assert!(text.contains("not heard"), "{text}");
    assert_eq!(ended["codec"], "auto");
}

/// Sends a call's UUID and then samples of silence, each in a message of its own, as fast as they are taken.
fn flood(address: &str, number: u8) {
    let mut connection = TcpStream::connect(address).unwrap();
    let mut identity = [number; 19];
    identity[..3].copy_from_slice(&[1, 0, 16]);
    connection.write_all(&identity).unwrap();
    let messages = [0x10, 0, 2, 0xFF, 0xFF].repeat(10_000);
    for _ in 0..60 {
        connection.write_all(&messages).unwrap();
    }
    // If it were closed with something unread, it would be reset before everything has arrived.
    connection.shutdown(Shutdown::Write).unwrap();
    connection.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn floods_before_the_codec_is_known_take_little_memory() {
    let (mut server, address) = Running::serve("echo --codec auto");
    let flooding = (1..=8).map(|number| {
        let address = address.clone();
        thread::spawn(move || flood(&address, number))
    });
    let flooding: Vec<_> = flooding.collect();
    flooding.into_iter().for_each(|it| it.join().unwrap());
    let ended: Vec<_> = (0..8).map(|_| server.wait_for("call_ended")).collect();
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most = most.unwrap().trim().trim_end_matches(" kB");
    let most: u64 = most.parse().unwrap();
    // The server itself takes some 15 MB.
    assert!(most < 60_000, "{most} kB");
    for call in ended {
        assert_eq!(call["frames_in"], 600_000, "{call}");
        // A thousand of them are queued.
        assert!(call["lagged"].as_u64().unwrap() > 0, "{call}");
    }
}
