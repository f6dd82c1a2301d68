//! `sidetone load`: places many calls at a time, verifies every byte, and reports what they cost the server.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    time::Duration,
};

use clap::{Args, ValueEnum};
use sidetone_load::{Frames, Load, Mode, Percentiles, Phases, Progress, Report};

use crate::{
    address::resolve_server,
    failure::{Failure, Outcome, print_error},
    stderr,
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The server, as HOST:PORT
    address: String,
    /// The number of calls at a time
    #[arg(long, value_name = "N")]
    calls: usize,
    /// What the server is expected to do
    #[arg(long, value_enum, default_value_t = ModeName::Echo)]
    mode: ModeName,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// How long the calls run before the measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    warm_up: f64,
    /// The server's process ID: reports its CPU time per frame and its memory, too
    #[arg(long)]
    pid: Option<u32>,
    /// When the calls send their frames, within each 20 ms
    #[arg(long, value_enum, default_value_t = PhasesName::Spread)]
    phases: PhasesName,
    /// Send each frame up to this many milliseconds early or late, at random; Asterisk has 2.75
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    jitter: f64,
    /// Poll for frames without a pause, for exact round trips with any number of calls. Takes a whole core
    #[arg(long)]
    busy_poll: bool,
    /// With --mode setup: calls per second, instead of as many as the server accepts
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// The values of `--mode`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    /// Send every frame back
    Echo,
    /// Play audio: measures how exactly the server keeps to the 20 ms schedule
    Playout,
    /// Accept a call with a UUID and one frame, which then hangs up, again and again
    Setup,
    /// Hold calls that send only their UUID: measures memory
    Idle,
    /// Hold connections that send nothing at all: measures memory
    Nameless,
}

/// The values of `--phases`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PhasesName {
    /// Spread evenly
    Spread,
    /// All at the same time
    Together,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Echo => Self::Echo,
            ModeName::Playout => Self::Playout,
            ModeName::Setup => Self::Setup,
            ModeName::Idle => Self::Idle,
            ModeName::Nameless => Self::Nameless,
        }
    }
}

impl From<PhasesName> for Phases {
    fn from(name: PhasesName) -> Self {
        match name {
            PhasesName::Spread => Self::Spread,
            PhasesName::Together => Self::Together,
        }
    }
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let load = options.load()?;
    let report = tokio::task::spawn_blocking(move || {
        let mut line = ProgressLine::default();
        let report = load.run(|progress| line.show(progress));
        line.erase();
        report
    });
    let report = report.await.map_err(Failure::new)?.map_err(Failure::new)?;
    let text = match options.json {
        true => serde_json::to_string(&report).map_err(Failure::new)? + "\n",
        false => table(&report),
    };
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::new)?;
    let faults = faults(&report);
    faults.iter().for_each(|fault| print_error(fault));
    Ok(Outcome::of(faults.is_empty()))
}

impl Options {
    fn load(&self) -> Result<Load, Failure> {
        if self.rate.is_some() && !matches!(self.mode, ModeName::Setup) {
            return Err(Failure::new(
                "--rate is only for --mode setup: leave --rate out, or add --mode setup",
            ));
        }
        let mut load = Load::new(resolve_server(&self.address)?, self.calls, self.mode.into())
            .measure_for(seconds("--seconds", self.seconds)?)
            .warm_up_for(seconds("--warm-up", self.warm_up)?)
            .phases(self.phases.into())
            .jitter(self.jitter()?);
        if self.busy_poll {
            load = load.busy_poll();
        }
        if let Some(pid) = self.pid {
            load = load.watch_process(pid);
        }
        if let Some(rate) = self.rate {
            load = load.calls_per_second(rate);
        }
        Ok(load)
    }

    fn jitter(&self) -> Result<Duration, Failure> {
        match self.jitter {
            jitter if (0.0..=10.0).contains(&jitter) => {
                Ok(Duration::from_secs_f64(jitter / 1000.0))
            }
            other => Err(Failure::new(format_args!(
                "--jitter {other} is out of range: give 0 to 10 milliseconds"
            ))),
        }
    }
}

fn seconds(option: &str, seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        Failure::new(format_args!(
            "{option} {seconds} is not a time: give a number of seconds, 0 or more"
        ))
    })
}

/// One line on a terminal that changes while the load runs.
#[derive(Default)]
struct ProgressLine {
    is_drawn: bool,
}

impl ProgressLine {
    fn show(&mut self, progress: &Progress) {
        if io::stderr().is_terminal() {
            self.is_drawn = true;
            let stage = if progress.measuring {
                "measuring"
            } else {
                "warming up"
            };
            let Frames { sent, returned, .. } = progress.frames;
            let line = format!(
                "{:6.1} s  {} calls  {stage}  {sent} sent  {returned} back",
                progress.elapsed.as_secs_f64(),
                progress.calls
            );
            stderr::write(format!("\r\x1b[K{line}"));
        }
    }

    fn erase(&self) {
        if self.is_drawn {
            stderr::write("\r\x1b[K");
        }
    }
}

fn table(report: &Report) -> String {
    let mut table = Table::default();
    let frames = &report.frames;
    let mode = name(report.mode);
    table.row(
        mode,
        format_args!("{} calls, {:.1} s", report.calls, report.seconds),
    );
    table.row(
        "frames",
        format_args!(
            "{} sent, {} back, {} lost, {} late, {} silence",
            frames.sent, frames.returned, frames.lost, frames.late, frames.silence
        ),
    );
    table.row(
        "",
        format_args!(
            "{} duplicate, {} corrupt, {} foreign, {} forbidden, {} blocked",
            frames.duplicate, frames.corrupt, frames.foreign, frames.forbidden, frames.blocked
        ),
    );
    table.times("round trip", report.round_trip_us);
    if let Some(mean) = report.slowest_call_us {
        table.row("", format_args!("mean {mean:.0} µs in the slowest call"));
    }
    if let Some(pace) = &report.pace {
        table.times("lateness", Some(pace.lateness_us));
        table.row(
            "",
            format_args!(
                "{} underruns, {} gaps, longest {:.1} ms, drift {:.1} ppm, {} frames unverified",
                pace.underruns, pace.gaps, pace.longest_gap_ms, pace.drift_ppm, frames.unverified
            ),
        );
    }
    if let Some(setup) = &report.setup {
        table.row(
            "set up",
            format_args!(
                "{} calls, {:.0} a second, {} answered, {} failed",
                setup.placed, setup.per_second, setup.answered, setup.failed
            ),
        );
        table.times("first frame", setup.first_frame_us);
    }
    if let Some(server) = &report.server {
        let each = |cost: Option<f64>, what| {
            cost.map_or(String::new(), |cost| format!("{cost:.2} µs CPU a {what}, "))
        };
        table.row(
            "server",
            format_args!(
                "{}{}{:.1} % of a core",
                each(server.cpu_us_per_frame, "frame"),
                each(server.cpu_us_per_call, "call"),
                server.cpu_percent
            ),
        );
        table.row(
            "",
            format_args!(
                "{} KiB, {:.2} KiB a call",
                server.rss_after_kib, server.rss_kib_per_call
            ),
        );
    }
    let own = report.load_cpu_us_per_frame;
    let own = own.map_or(String::new(), |cost| format!("{cost:.2} µs CPU a frame, "));
    table.row(
        "load itself",
        format_args!(
            "{own}{:.1} % of a core, over {}",
            report.load_cpu_percent, report.io_backend
        ),
    );
    if let Some(resolution) = report.resolution_us {
        let text = format_args!(
            "times are exact to {resolution:.0} µs; with --busy-poll and a core of its own, to 1 µs"
        );
        table.row("", text);
    }
    table.times("sent late", report.send_lateness_us);
    table.0
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Echo => "echo",
        Mode::Playout => "playout",
        Mode::Setup => "setup",
        Mode::Idle => "idle",
        _ => "nameless",
    }
}

#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, head: &str, text: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{head:<12} {text}");
    }

    fn times(&mut self, head: &str, times: Option<Percentiles>) {
        if let Some(Percentiles {
            p50,
            p90,
            p99,
            p999,
            max,
            ..
        }) = times
        {
            self.row(
                head,
                format_args!(
                    "p50 {p50:.0} µs, p90 {p90:.0}, p99 {p99:.0}, p99.9 {p999:.0}, max {max:.0}"
                ),
            );
        }
    }
}

/// The faults that make the exit code 1: what is wrong, not what is slow.
fn faults(report: &Report) -> Vec<String> {
    let frames = &report.frames;
    let all = [
        (frames.duplicate, "frames came twice"),
        (frames.corrupt, "frames were not what was sent"),
        (frames.foreign, "frames came on the wrong call"),
        (
            frames.forbidden,
            "messages came that make Asterisk drop the call",
        ),
        (report.ended_early as u64, "calls ended early"),
    ];
    let faults = all.iter().filter(|(count, _)| *count > 0);
    faults
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpListener, TcpStream},
        thread,
    };

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// A server that changes each message with `answer` and sends it back.
    fn echo(answer: fn(&mut [u8])) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                // An error means that the load has hung up.
                thread::spawn(move || drop(serve(stream, answer)));
            }
        });
        address
    }

    fn serve(mut stream: TcpStream, answer: fn(&mut [u8])) -> io::Result<()> {
        let (mut identity, mut message) = ([0; 19], [0; 323]);
        stream.read_exact(&mut identity)?;
        loop {
            stream.read_exact(&mut message)?;
            answer(&mut message);
            stream.write_all(&message)?;
        }
    }

    fn options(address: SocketAddr, words: &str) -> Options {
        let line = format!("load {address} --calls 2 --seconds 0.3 --warm-up 0.1 {words}");
        Line::parse_from(line.split_whitespace()).options
    }

    fn report(address: SocketAddr) -> Report {
        let load = options(address, "").load().unwrap();
        load.run(|_| {}).unwrap()
    }

    #[test]
    fn the_report_of_a_good_server_is_a_table_without_faults() {
        let report = report(echo(|_| {}));
        let table = table(&report);
        for head in ["echo", "frames", "round trip", "lateness", "load itself"] {
            assert!(table.lines().any(|line| line.starts_with(head)), "{table}");
        }
        assert_eq!(faults(&report), [""; 0]);
    }

    #[test]
    fn corrupt_frames_are_a_fault_and_lost_ones_are_not() {
        let report = report(echo(|message| message[200] ^= 1));
        assert!(report.frames.lost > 0 && report.frames.corrupt > 0);
        let [fault] = &faults(&report)[..] else {
            panic!("{:?}", faults(&report));
        };
        assert!(fault.ends_with("frames were not what was sent"), "{fault}");
    }

    #[test]
    fn a_rate_is_only_for_mode_setup() {
        let address = "127.0.0.1:9".parse().unwrap();
        assert!(options(address, "--rate 5").load().is_err());
        assert!(options(address, "--rate 5 --mode setup").load().is_ok());
    }
}
