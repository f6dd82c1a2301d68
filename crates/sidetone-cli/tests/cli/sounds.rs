//! Sound files as users have them: odd, truncated, tagged, or not files at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::Path,
    thread,
};

use rustix::fs::{CWD, Mode, mkfifoat};
use sidetone_audio::g711::Law;

use crate::kit::{Running, best_match, last_event, read_stereo, run, sidetone, stderr};

const RATE: u32 = 8000;
const LOUDEST: i16 = 12_000;

fn tone() -> Vec<i16> {
    let step = 440.0 * std::f64::consts::TAU / f64::from(RATE);
    let sample = |n: u32| (f64::from(n) * step).sin() * f64::from(LOUDEST);
    (0..RATE).map(|n| sample(n) as i16).collect()
}

fn wav(tag: u16, block: u16, bits: u16, data: &[u8], behind: &[u8]) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
    file.extend(tag.to_le_bytes());
    file.extend(1u16.to_le_bytes());
    file.extend(RATE.to_le_bytes());
    file.extend((RATE * u32::from(bits) / 8).to_le_bytes());
    file.extend(block.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file.extend(behind);
    file
}

fn linear() -> Vec<u8> {
    tone()
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect()
}

/// Plays the file to a caller and returns what it hears.
fn play_to_caller(directory: &Path, file: &str) -> Vec<i16> {
    let heard = directory.join("heard.wav");
    let (_server, address) = Running::serve(&format!("play {file}"));
    let call = run(&format!(
        "call {address} --record {} --seconds 30 --expect-audio",
        heard.display()
    ));
    assert_eq!(call.status.code(), Some(0), "{}", stderr(&call));
    assert_eq!(last_event(&call)["ended_by"], "server");
    read_stereo(&heard).2
}

#[test]
fn a_caller_hears_the_sound_of_an_odd_file_and_no_noise() {
    let directory = tempfile::tempdir().unwrap();
    let id3v1 = [&b"TAG"[..], &[0x55; 125]].concat();
    let mut codes = Vec::new();
    Law::Ulaw.encode(&tone()[..7999], &mut codes);
    let list = b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf60.16.100\0";
    let files = [
        ("align.wav", wav(1, 4, 16, &linear(), b"")),
        ("id3v1.wav", wav(1, 2, 16, &linear(), &id3v1)),
        ("odd.wav", wav(7, 1, 8, &codes, list)),
    ];
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let heard = play_to_caller(directory.path(), &path.display().to_string());
        let (at, alike) = best_match(&tone()[..7900], &heard);
        assert!(alike > 0.95, "{name}: {alike}");
        let around = heard[..at].iter().chain(&heard[at + 8000..]);
        let loudest = heard
            .iter()
            .map(|sample| sample.unsigned_abs())
            .max()
            .unwrap();
        // Noise would be louder than the tone, and around it.
        assert!(loudest < LOUDEST as u16 + 500, "{name}: {loudest}");
        let noise = around.filter(|sample| sample.unsigned_abs() > 100).count();
        assert!(noise < 200, "{name}: {noise} samples around the sound");
    }
}

#[test]
fn a_file_that_contradicts_itself_is_refused_with_a_command_to_paste() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = wav(1, 4, 16, &linear(), b"");
    file[28..32].copy_from_slice(&(4 * RATE).to_le_bytes());
    let path = directory.path().join("two  words.wav");
    fs::write(&path, file).unwrap();
    let output = sidetone(["play".as_ref(), path.as_os_str()])
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("contradicts itself"), "{text}");
    assert!(
        text.contains(&format!("ffmpeg -i '{}' -ar 8000", path.display())),
        "{text}"
    );
}

#[test]
fn a_name_with_escapes_is_not_printed_as_it_is() {
    let output = sidetone(["play", "\x1b[31mred\u{9b}2J.wav"])
        .output()
        .unwrap();
    let text = stderr(&output);
    assert!(text.contains("no such file"), "{text:?}");
    assert!(
        text.trim_end().chars().all(|letter| !letter.is_control()),
        "{text:?}"
    );
}

#[cfg(feature = "compressed")]
#[test]
fn compressed_sound_plays_in_the_binary_as_it_is_built() {
    let sounds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidetone-audio/tests/sounds");
    for file in ["tone.mp3", "tone.flac", "tone.ogg"] {
        Running::serve(&format!("play {}", sounds.join(file).display()));
    }
}

#[cfg(feature = "compressed")]
#[test]
fn a_truncated_file_is_reported_and_its_rest_plays() {
    let sounds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidetone-audio/tests/sounds");
    let whole = fs::read(sounds.join("tone.ogg")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.ogg");
    fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let mut command = sidetone(["play".as_ref(), path.as_os_str()]);
    command.args(["--listen", "127.0.0.1:0"]);
    let errors = directory.path().join("errors");
    let mut server = Running::start_with_errors(command, File::create(&errors).unwrap());
    server.wait_for("listening");
    let text = fs::read_to_string(errors).unwrap();
    assert!(text.contains("cut.ogg: it was cut"), "{text}");
}

fn pipe(path: &Path) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
}

#[test]
fn a_sound_from_a_pipe_plays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe.wav");
    pipe(&path);
    let writing = {
        let path = path.clone();
        thread::spawn(move || fs::write(path, wav(1, 2, 16, &linear(), b"")).unwrap())
    };
    let heard = play_to_caller(directory.path(), &path.display().to_string());
    writing.join().unwrap();
    let (_, alike) = best_match(&tone()[..7900], &heard);
    assert!(alike > 0.95, "{alike}");
}

#[test]
fn a_pipe_without_a_writer_is_reported_and_times_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe.wav");
    pipe(&path);
    let commands = ["play", "call 127.0.0.1:1 --play"].map(|line| {
        let words = line.split(' ').map(AsRef::as_ref);
        let mut command = sidetone(words.chain([path.as_os_str()]));
        thread::spawn(move || command.output().unwrap())
    });
    for command in commands {
        let output = command.join().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("pipe.wav is a pipe: waiting"), "{text}");
        assert!(
            lines[1].contains("nothing has come from it for 10 s"),
            "{text}"
        );
    }
}

#[test]
fn endless_input_is_refused() {
    for file in ["/dev/zero", "/dev/urandom"] {
        let output = run(&format!("play {file}"));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains(&format!("{file} is a device, not a file")),
            "{text}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zeros.ulaw");
    pipe(&path);
    let writing = {
        let path = path.clone();
        thread::spawn(move || {
            let mut pipe = OpenOptions::new().write(true).open(path).unwrap();
            while pipe.write_all(&[0; 1 << 16]).is_ok() {}
        })
    };
    let output = sidetone(["play".as_ref(), path.as_os_str()])
        .output()
        .unwrap();
    writing.join().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("is too long") && text.contains("256 MiB"),
        "{text}"
    );
}

#[test]
fn playing_a_file_takes_no_more_than_its_samples() {
    const SIZE: u64 = 96 << 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.sln");
    let mut file = File::create(&path).unwrap();
    file.set_len(SIZE).unwrap();
    file.write_all(&linear()).unwrap();
    let (server, _) = Running::serve(&format!("play {}", path.display()));
    let mut status = String::new();
    let mut file = File::open(format!("/proc/{}/status", server.id())).unwrap();
    file.read_to_string(&mut status).unwrap();
    let most = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(most * 1024 < SIZE + (48 << 20), "{most} kB");
}
