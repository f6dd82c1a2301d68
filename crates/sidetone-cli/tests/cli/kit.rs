//! Helpers that start the command, read its events and end it.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything in these tests takes, even on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn sidetone<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    // Under nohup the tests ignore SIGHUP, and the command would inherit that.
    let mut command = Command::new("env");
    command
        .arg("--default-signal=HUP")
        .arg(assert_cmd::cargo::cargo_bin!("sidetone"))
        .args(words)
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(line: &str) -> Output {
    sidetone(line.split_whitespace()).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A command that runs and writes JSON lines.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    pub(crate) seen: Vec<Value>,
}

impl Running {
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with_errors(command, Stdio::piped())
    }

    /// The same, with standard error going to `errors`.
    pub(crate) fn start_with_errors(mut command: Command, errors: impl Into<Stdio>) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// A server on a free port, and its address.
    pub(crate) fn serve(line: &str) -> (Self, String) {
        Self::serve_with(line, &[])
    }

    /// The same with these environment variables.
    pub(crate) fn serve_with(line: &str, variables: &[(&str, &str)]) -> (Self, String) {
        let words = line.split_whitespace().chain(["--listen", "127.0.0.1:0"]);
        let mut command = sidetone(words);
        command.envs(variables.iter().copied());
        let mut server = Self::start(command);
        let address = server.wait_for("listening")["address"]
            .as_str()
            .unwrap()
            .to_owned();
        (server, address)
    }

    /// The next event of this name.
    pub(crate) fn wait_for(&mut self, name: &str) -> Value {
        loop {
            let Ok(line) = self.lines.recv_timeout(TIMEOUT) else {
                panic!("no event {name:?} came, only {:#?}", self.seen);
            };
            let event = read(&line);
            self.seen.push(event.clone());
            if is(&event, name) {
                return event;
            }
        }
    }

    /// The ID of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end and returns the exit code. The remaining events are in `seen`.
    pub(crate) fn exit_code(&mut self) -> i32 {
        for line in self.lines.iter() {
            self.seen.push(read(&line));
        }
        self.child.wait().unwrap().code().unwrap()
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.seen.iter().filter(|event| is(event, name)).count()
    }

    /// Waits for the end of its own process, whatever others it has left behind.
    pub(crate) fn main_exit_code(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    /// Ends a server as its operator would, checks the exit code, and returns all events.
    pub(crate) fn stop(mut self) -> Vec<Value> {
        self.terminate();
        assert_eq!(self.exit_code(), 0);
        std::mem::take(&mut self.seen)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It usually has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether an event has this name. The gateway's events have the form of its hooks.
fn is(event: &Value, name: &str) -> bool {
    event["event"] == name || event["type"] == name
}

/// Parses an event, and checks that its line has no control characters.
#[track_caller]
fn read(line: &str) -> Value {
    assert!(!line.contains(char::is_control), "{line:?}");
    serde_json::from_str(line).unwrap()
}

/// Checks that a call was ended by its caller.
#[track_caller]
pub(crate) fn assert_ended_by_caller(ended: &Value) {
    assert_eq!(ended["reason"], "caller_hung_up", "{ended}");
    assert_eq!(ended["ended_by"], "caller", "{ended}");
}

/// How similar `sound` and `heard` are, from 0 to 1: the median of the pieces of `sound`, as a busy machine damages one
/// now and then.
pub(crate) fn similarity(sound: &[i16], heard: &[i16]) -> f64 {
    let pieces = sound.chunks_exact(1600);
    let mut pieces: Vec<f64> = pieces.map(|piece| best_match(piece, heard).1).collect();
    pieces.sort_by(f64::total_cmp);
    pieces[pieces.len() / 2]
}

/// The last JSON line of a command that has ended.
pub(crate) fn last_event(output: &Output) -> Value {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// The sample rate, the left and the right channel of a stereo WAV file.
pub(crate) fn read_stereo(path: &Path) -> (u32, Vec<i16>, Vec<i16>) {
    let mut wav = hound::WavReader::open(path).unwrap();
    assert_eq!(wav.spec().channels, 2);
    let samples: Vec<i16> = wav.samples().map(Result::unwrap).collect();
    let side = |first: usize| samples.iter().skip(first).step_by(2).copied().collect();
    (wav.spec().sample_rate, side(0), side(1))
}

pub(crate) fn write_mono(path: &Path, rate: u32, samples: &[i16]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    samples
        .iter()
        .for_each(|sample| wav.write_sample(*sample).unwrap());
    wav.finalize().unwrap();
}

/// The place in `heard` that is most similar to `sound`, and their correlation there, from −1 to 1.
pub(crate) fn best_match(sound: &[i16], heard: &[i16]) -> (usize, f64) {
    // Every 23rd sample is enough to find the place.
    let rough = |at: usize| correlation(sound.iter().step_by(23), heard[at..].iter().step_by(23));
    let at = (0..=heard.len() - sound.len())
        .max_by(|a, b| rough(*a).total_cmp(&rough(*b)))
        .unwrap();
    (at, correlation(sound.iter(), heard[at..].iter()))
}

fn correlation<'a>(
    sound: impl Iterator<Item = &'a i16>,
    heard: impl Iterator<Item = &'a i16>,
) -> f64 {
    let (mut product, mut sound_power, mut heard_power) = (0.0, 0.0, 0.0);
    for (a, b) in sound.zip(heard) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        product += a * b;
        sound_power += a * a;
        heard_power += b * b;
    }
    product / (sound_power * heard_power).sqrt().max(1.0)
}
