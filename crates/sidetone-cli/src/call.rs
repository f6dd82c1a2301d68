//! `sidetone call`: places one call as Asterisk would, and reports how it went.

mod dtmf;
mod events;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use parking_lot::Mutex;
use sidetone::Rate;
use sidetone_audio::level::{FLOOR_DBFS, rms_dbfs};
use sidetone_caller::{CallRecord, Caller, Codec, Event as CallerEvent, Stop};
use uuid::Uuid;

use crate::{
    address::resolve_server,
    call_file::{CallFile, FileSender, FileWriter},
    failure::{Failure, Outcome, print_error},
    output::{Output, Reporter, Style},
    recordings::Recorded,
    signals::FirstSignal,
    sound_file,
};
use dtmf::Keys;
use events::{CallEvent, CallFinished};

/// The level from which on a frame is audible, in dBFS. Comfort noise is below it.
const AUDIBLE_DBFS: f32 = -50.0;
/// The length of a call with nothing to say.
const DEFAULT_LENGTH: Duration = Duration::from_secs(10);
/// How long the call continues after the file and the keys.
const EXTRA_LENGTH: Duration = Duration::from_secs(2);
/// The longest call: a year.
const MAX_LENGTH: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The server, as HOST:PORT
    #[arg(value_name = "ADDR")]
    address: String,
    /// The call's UUID [default: a random one]
    #[arg(long)]
    uuid: Option<String>,
    /// Say what is in this sound file, then only silence
    #[arg(long, value_name = "FILE")]
    play: Option<PathBuf>,
    /// Write both sides into this WAV file: the caller on the left, what it hears on the right
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Press these keys (0-9 * # A-D): each at its time in seconds, like 1@0.5,#@6.1; without times, the
    /// first after one second and the others 250 ms apart, like 42#
    #[arg(
        long,
        value_name = "KEYS",
        default_value = "",
        hide_default_value = true
    )]
    dtmf: Keys,
    /// The sample rate, in Hz or by Asterisk's name: 8000 or slin, 16000 or slin16 … slin192
    #[arg(long, default_value = "slin")]
    rate: String,
    /// Hang up after this time [default: 10, or 2 after the end of FILE and KEYS]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Exit with code 1 if only silence was heard
    #[arg(long)]
    expect_audio: bool,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let plan = Plan::new(&options)?;
    let file = options
        .record
        .as_deref()
        .map(CallFile::create)
        .transpose()?;
    let mut signal = FirstSignal::new();
    let stop = Stop::new().map_err(Failure::new)?;
    let style = match Style::of_stdout() {
        Style::Json => Style::Json,
        _ => Style::Text,
    };
    let output = Output::start(style, None)?;
    let observer = Arc::new(Observer::new(plan.id, output.reporter()));
    let (sender, writer) = match file {
        Some(file) => file
            .start_writer(plan.rate)
            .map(|(sender, writer)| (Some(sender), Some(writer)))?,
        None => (None, None),
    };
    let caller = plan.caller(Arc::clone(&observer), sender);
    let calling = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || caller.call_until(&stop))
    };
    let hanging_up = tokio::spawn(async move {
        signal.received().await;
        stop.stop();
    });
    let record = calling.await.map_err(Failure::new)?.map_err(Failure::new)?;
    hanging_up.abort();
    if let Some(writer) = writer {
        finish_file(writer, plan.id, &output.reporter()).await?;
    }
    let summary = observer.summary(&record, plan.address);
    let faults = faults(&record, &summary, options.expect_audio);
    output.reporter().report(CallEvent::CallFinished(summary));
    output.finish();
    faults.iter().for_each(|fault| print_error(fault));
    Ok(Outcome::of(faults.is_empty()))
}

/// Waits until the file is complete, and reports it.
async fn finish_file(writer: FileWriter, id: Uuid, reporter: &Reporter) -> Result<(), Failure> {
    let path = writer.path.clone();
    let finishing = tokio::task::spawn_blocking(|| writer.finish());
    let (written, lost_frames) = finishing.await.map_err(Failure::new)??;
    reporter.report(Recorded {
        id,
        files: vec![path],
        duration_ms: written.duration.as_millis() as u64,
        lost_frames,
        surplus_ms: written.surplus.as_millis() as u64,
        failure: None,
    });
    Ok(())
}

/// The call, as the options describe it.
struct Plan {
    address: SocketAddr,
    id: Uuid,
    rate: Rate,
    voice: Option<Arc<Vec<i16>>>,
    keys: Keys,
    length: Duration,
}

impl Plan {
    fn new(options: &Options) -> Result<Self, Failure> {
        let rate = parse_rate(&options.rate)?;
        let voice = match &options.play {
            Some(path) => {
                let sound = sound_file::open(path)?;
                let sound = sound.into_rate(rate.hz()).map_err(Failure::new)?;
                Some(Arc::new(sound.samples))
            }
            None => None,
        };
        let speaking = rate.duration(voice.as_ref().map_or(0, |voice| voice.len()) as u64);
        Ok(Self {
            address: resolve_server(&options.address)?,
            id: parse_uuid(options.uuid.as_deref())?,
            rate,
            length: call_length(options.seconds, speaking, &options.dtmf)?,
            voice,
            keys: options.dtmf.clone(),
        })
    }

    fn caller(&self, observer: Arc<Observer>, file: Option<FileSender>) -> Caller {
        let mut caller = Caller::new(self.address)
            .uuid(self.id)
            .codec(Codec::Slin(self.rate))
            .hang_up_after(self.length)
            // Audio goes to the file as it comes: a server may send more than fits into memory.
            .counts_only()
            .observe(move |event| {
                if let Some(file) = &file {
                    file.handle_event(&event);
                }
                observer.handle_event(event);
            });
        if let Some(samples) = &self.voice {
            caller = caller.say(Arc::clone(samples));
        }
        for group in self.keys.groups() {
            caller = caller.dtmf(&group.keys, group.at);
        }
        caller
    }
}

fn parse_uuid(text: Option<&str>) -> Result<Uuid, Failure> {
    match text {
        None => Ok(Uuid::new_v4()),
        Some(text) => Uuid::parse_str(text).map_err(|_| {
            Failure::new(format_args!(
                "{text:?} is not a UUID: give 32 hexadecimal digits like 40325ec2-5efd-4bd3-805f-53576e581d13"
            ))
        }),
    }
}

fn parse_rate(text: &str) -> Result<Rate, Failure> {
    let by_hz = || text.parse().ok().and_then(Rate::from_hz);
    let by_name = || Rate::ALL.into_iter().find(|rate| rate.name() == text);
    by_hz().or_else(by_name).ok_or_else(|| {
        let all: Vec<String> = Rate::ALL
            .iter()
            .map(|rate| format!("{} ({})", rate.hz(), rate.name()))
            .collect();
        Failure::new(format_args!(
            "{text:?} is not a sample rate of AudioSocket: give one of {}",
            all.join(", ")
        ))
    })
}

fn call_length(seconds: Option<f64>, speaking: Duration, keys: &Keys) -> Result<Duration, Failure> {
    let pressing = keys.duration();
    let Some(seconds) = seconds else {
        let busy = speaking.max(pressing);
        return Ok(match busy.is_zero() {
            true => DEFAULT_LENGTH,
            false => busy + EXTRA_LENGTH,
        });
    };
    let length = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|length| !length.is_zero() && *length <= MAX_LENGTH)
        .ok_or_else(|| {
            Failure::new(format_args!(
                "--seconds {seconds} is not the length of a call: give more than 0 and at most {}",
                MAX_LENGTH.as_secs()
            ))
        })?;
    match keys.first_after(length) {
        Some(key) => Err(Failure::new(format_args!(
            "--dtmf {key} is not before the end of the call: give a longer time than --seconds {seconds}, or an earlier key"
        ))),
        None => Ok(length),
    }
}

/// Reports the events of the call while it runs.
struct Observer {
    id: Uuid,
    reporter: Reporter,
    loudest_dbfs: Mutex<f32>,
}

impl Observer {
    fn new(id: Uuid, reporter: Reporter) -> Self {
        Self {
            id,
            reporter,
            loudest_dbfs: Mutex::new(FLOOR_DBFS),
        }
    }

    fn handle_event(&self, event: CallerEvent<'_>) {
        let id = self.id;
        match event {
            CallerEvent::Connected { address, .. } => {
                self.reporter.report(CallEvent::CallPlaced { id, address });
            }
            CallerEvent::Digit { digit, .. } => {
                self.reporter.report(CallEvent::DigitSent { id, digit });
            }
            CallerEvent::Heard { at, samples, .. } => {
                let level = rms_dbfs(samples);
                let mut loudest = self.loudest_dbfs.lock();
                if *loudest < AUDIBLE_DBFS && level >= AUDIBLE_DBFS {
                    let after_ms = at.as_millis() as u64;
                    self.reporter.report(CallEvent::AudioHeard { id, after_ms });
                }
                *loudest = loudest.max(level);
            }
            _ => {}
        }
    }

    fn summary(&self, record: &CallRecord, address: SocketAddr) -> CallFinished {
        let (counts, why) = (record.counts, &record.ended.cause);
        CallFinished {
            id: record.uuid,
            address,
            codec: record.codec.rate().name(),
            duration_ms: record.ended.at.as_millis() as u64,
            frames_sent: counts.frames_sent,
            frames_received: counts.frames_heard,
            loudest_dbfs: f64::from((*self.loudest_dbfs.lock() * 10.0).round()) / 10.0,
            longest_gap_ms: counts.longest_gap.as_micros() as f64 / 1000.0,
            digits: counts.digits_sent,
            ended_by: record.ended.by().to_string(),
            reason: why.to_string(),
            asterisk_log: why.asterisk_log().filter(|_| why.is_fault()),
        }
    }
}

/// The faults that make the exit code 1, one line each.
fn faults(record: &CallRecord, summary: &CallFinished, expect_audio: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let after = record.ended.at.as_secs_f64();
    if record.ended.cause.is_fault() {
        let log = match summary.asterisk_log {
            Some(line) => format!("Asterisk would log \"{line}\""),
            None => "Asterisk would log nothing".into(),
        };
        faults.push(format!(
            "the call failed after {after:.1} s: {}; {log}",
            record.ended.cause
        ));
    }
    if expect_audio && summary.loudest_dbfs < f64::from(AUDIBLE_DBFS) {
        faults.push(match summary.frames_received {
            0 => format!("no audio came in {after:.1} s"),
            _ => format!(
                "nothing but silence was heard in {after:.1} s (the loudest frame has {} dBFS)",
                summary.loudest_dbfs
            ),
        });
    }
    faults
}
