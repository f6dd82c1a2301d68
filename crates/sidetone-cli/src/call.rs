//! `sidetone call`: places one call as Asterisk would, and says how it went.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sidetone::Rate;
use sidetone_audio::level::{FLOOR_DBFS, rms_dbfs};
use sidetone_caller::{CallRecord, Caller, Codec, Event as CallerEvent, Stop};
use uuid::Uuid;

use crate::{
    address,
    args::Call,
    events::{Event, Placed},
    failure::{Failure, Verdict, complain},
    report::{Reporter, Style, Teller},
    signals::FirstSignal,
    sound_file,
    tracks::{Following, TrackFile, Tracks},
};

/// From this level on something is to be heard, in dBFS: comfort noise lies below.
const AUDIBLE: f32 = -50.0;
/// How long a call lasts if nothing says so.
const USUAL: Duration = Duration::from_secs(10);
/// How long it goes on after everything has been said.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// When the first digit is pressed, and how long each takes.
const PRESSES_AT: Duration = Duration::from_secs(1);
const DIGIT: Duration = Duration::from_millis(250);

pub(crate) async fn run(options: Call) -> Result<Verdict, Failure> {
    let plan = Plan::new(&options)?;
    let file = options
        .record
        .as_deref()
        .map(TrackFile::create)
        .transpose()?;
    let mut signal = FirstSignal::new();
    let stop = Stop::new().map_err(Failure::new)?;
    let reporter = Reporter::start(
        match Style::of_stdout() {
            Style::Json => Style::Json,
            _ => Style::Prose,
        },
        None,
    )?;
    let ear = Arc::new(Ear::new(plan.id, reporter.teller()));
    let (tracks, following) = match file {
        Some(file) => file
            .follow(plan.rate)
            .map(|(tracks, following)| (Some(tracks), Some(following)))?,
        None => (None, None),
    };
    let caller = plan.caller(&options, Arc::clone(&ear), tracks);
    let calling = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || caller.call_until(&stop))
    };
    let hanging_up = tokio::spawn(async move {
        signal.comes().await;
        stop.stop();
    });
    let record = calling.await.map_err(Failure::new)?.map_err(Failure::new)?;
    hanging_up.abort();
    if let Some(following) = following {
        tell_recorded(following, plan.id, &reporter.teller()).await?;
    }
    let placed = ear.conclude(&record, plan.address);
    let faults = faults(&record, &placed, options.expect_audio);
    reporter.teller().tell(Event::CallFinished(placed));
    reporter.finish();
    faults.iter().for_each(|fault| complain(fault));
    Ok(match faults.is_empty() {
        true => Verdict::Good,
        false => Verdict::Bad,
    })
}

/// Waits until the file is whole, and tells of it.
async fn tell_recorded(following: Following, id: Uuid, teller: &Teller) -> Result<(), Failure> {
    let path = following.path.clone();
    let finishing = tokio::task::spawn_blocking(|| following.finish());
    let (written, lost_frames) = finishing.await.map_err(Failure::new)??;
    teller.tell(Event::Recorded {
        id,
        files: vec![path],
        duration_ms: written.duration.as_millis() as u64,
        lost_frames,
        surplus_ms: written.surplus.as_millis() as u64,
        failure: None,
    });
    Ok(())
}

/// What the options come to.
struct Plan {
    address: SocketAddr,
    id: Uuid,
    rate: Rate,
    says: Option<Arc<Vec<i16>>>,
    length: Duration,
}

impl Plan {
    fn new(options: &Call) -> Result<Self, Failure> {
        let rate = rate(&options.rate)?;
        let says = match &options.play {
            Some(path) => {
                let sound = sound_file::open(path)?;
                let sound = sound.into_rate(rate.hz()).map_err(Failure::new)?;
                Some(Arc::new(sound.samples))
            }
            None => None,
        };
        let speaking = rate.duration(says.as_ref().map_or(0, |says| says.len()) as u64);
        let digits = options.dtmf.as_deref().unwrap_or_default();
        check_digits(digits)?;
        Ok(Self {
            address: resolve(&options.address)?,
            id: id(options.uuid.as_deref())?,
            rate,
            length: length(options.seconds, speaking, digits)?,
            says,
        })
    }

    fn caller(&self, options: &Call, ear: Arc<Ear>, tracks: Option<Tracks>) -> Caller {
        let mut caller = Caller::new(self.address)
            .uuid(self.id)
            .codec(Codec::Slin(self.rate))
            .hang_up_after(self.length)
            // What was said and heard goes into the file as it comes: a server may send more than there is room for.
            .counts_only()
            .observe(move |event| {
                if let Some(tracks) = &tracks {
                    tracks.observe(&event);
                }
                ear.observe(event);
            });
        if let Some(samples) = &self.says {
            caller = caller.say(Arc::clone(samples));
        }
        if let Some(digits) = &options.dtmf {
            caller = caller.dtmf(digits, PRESSES_AT);
        }
        caller
    }
}

pub(crate) fn resolve(typed: &str) -> Result<SocketAddr, Failure> {
    let wrong = |why: &str| {
        Failure::new(format_args!(
            "can't call {typed}: {why}; give the server as HOST:PORT, like 127.0.0.1:9092"
        ))
    };
    if let Some(fault) = address::fault(typed) {
        return Err(wrong(fault));
    }
    let mut all = typed
        .to_socket_addrs()
        .map_err(|error| wrong(&error.to_string()))?;
    all.next().ok_or_else(|| wrong("the name has no address"))
}

fn id(text: Option<&str>) -> Result<Uuid, Failure> {
    match text {
        None => Ok(Uuid::new_v4()),
        Some(text) => Uuid::parse_str(text).map_err(|_| {
            Failure::new(format_args!(
                "{text:?} is no UUID: give 32 hexadecimal digits like 40325ec2-5efd-4bd3-805f-53576e581d13"
            ))
        }),
    }
}

fn rate(text: &str) -> Result<Rate, Failure> {
    let by_hz = || text.parse().ok().and_then(Rate::from_hz);
    let by_name = || Rate::ALL.into_iter().find(|rate| rate.name() == text);
    by_hz().or_else(by_name).ok_or_else(|| {
        let all: Vec<String> = Rate::ALL
            .iter()
            .map(|rate| format!("{} ({})", rate.hz(), rate.name()))
            .collect();
        Failure::new(format_args!(
            "{text:?} is no rate of AudioSocket: give one of {}",
            all.join(", ")
        ))
    })
}

fn check_digits(digits: &str) -> Result<(), Failure> {
    match digits
        .chars()
        .find(|digit| !matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D'))
    {
        Some(wrong) => Err(Failure::new(format_args!(
            "{wrong:?} is no DTMF digit: use 0-9, *, # and A-D"
        ))),
        None => Ok(()),
    }
}

fn length(seconds: Option<f64>, speaking: Duration, digits: &str) -> Result<Duration, Failure> {
    let pressing = match digits.len() {
        0 => Duration::ZERO,
        digits => PRESSES_AT + DIGIT * digits as u32,
    };
    match seconds {
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|length| !length.is_zero())
            .ok_or_else(|| {
                Failure::new(format_args!(
                    "--seconds {seconds} is no length of a call: give more than 0"
                ))
            }),
        None if speaking.is_zero() && pressing.is_zero() => Ok(USUAL),
        None => Ok(speaking.max(pressing) + AFTERWARDS),
    }
}

/// Listens in while the call runs.
struct Ear {
    id: Uuid,
    teller: Teller,
    loudest: Mutex<f32>,
}

impl Ear {
    fn new(id: Uuid, teller: Teller) -> Self {
        Self {
            id,
            teller,
            loudest: Mutex::new(FLOOR_DBFS),
        }
    }

    fn observe(&self, event: CallerEvent<'_>) {
        let id = self.id;
        match event {
            CallerEvent::Connected { address, .. } => {
                self.teller.tell(Event::CallPlaced { id, address })
            }
            CallerEvent::Digit { digit, .. } => self.teller.tell(Event::DigitSent { id, digit }),
            CallerEvent::Heard { at, samples, .. } => {
                let level = rms_dbfs(samples);
                let mut loudest = self.loudest.lock();
                if *loudest < AUDIBLE && level >= AUDIBLE {
                    let after_ms = at.as_millis() as u64;
                    self.teller.tell(Event::AudioHeard { id, after_ms });
                }
                *loudest = loudest.max(level);
            }
            _ => {}
        }
    }

    fn conclude(&self, record: &CallRecord, address: SocketAddr) -> Placed {
        let counts = record.counts;
        Placed {
            id: record.uuid,
            address,
            codec: record.codec.rate().name(),
            duration_ms: record.ended.at.as_millis() as u64,
            frames_sent: counts.frames_sent,
            frames_heard: counts.frames_heard,
            loudest_dbfs: f64::from((*self.loudest.lock() * 10.0).round()) / 10.0,
            longest_gap_ms: counts.longest_gap.as_micros() as f64 / 1000.0,
            digits: counts.digits_sent,
            ended_by: record.ended.by().to_string(),
            reason: record.ended.cause.to_string(),
            asterisk_log: record
                .ended
                .cause
                .asterisk_log()
                .filter(|_| record.ended.cause.is_fault()),
        }
    }
}

/// What makes the exit code 1, one line each.
fn faults(record: &CallRecord, placed: &Placed, expect_audio: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let after = record.ended.at.as_secs_f64();
    if record.ended.cause.is_fault() {
        let log = match placed.asterisk_log {
            Some(line) => format!("Asterisk would log \"{line}\""),
            None => "Asterisk would log nothing".into(),
        };
        faults.push(format!(
            "the call died after {after:.1} s: {}; {log}",
            record.ended.cause
        ));
    }
    if expect_audio && placed.loudest_dbfs < f64::from(AUDIBLE) {
        faults.push(match placed.frames_heard {
            0 => format!("no audio came in {after:.1} s"),
            _ => format!(
                "nothing but silence was heard in {after:.1} s (loudest {} dBFS)",
                placed.loudest_dbfs
            ),
        });
    }
    faults
}
