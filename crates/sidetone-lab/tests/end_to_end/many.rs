//! Two hundred calls at once that are written down, and the recognizer's ups and downs. Callers speak words that the stand-in for a
//! Vosk server understands exactly, and note when they hear what.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sidetone::{Call, Server};
use sidetone_caller::{Caller, Event, Voice, call_all};
use sidetone_services::vosk::VoskServer;
use sidetone_services::{Fault, synthesize};
use sidetone_speech::SpeechEvent;
use sidetone_speech::vosk::Vosk;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::serve::Served;
use crate::transcript::{Written, write_down};
use crate::wire::{FRAME, SOON, to_bytes};
use crate::{Lab, scenarios};

scenarios![writing_two_hundred_calls_down_delays_none];
scenarios![fn outages: a_recognizer_that_dies_costs_transcripts_and_no_call];

const CALLS: u64 = 200;
const FRAME_TIME: Duration = Duration::from_millis(20);
/// Frames from one utterance to the next.
const UTTERANCE: u64 = 200;
/// What the library keeps of a call for its recognizer, in bytes: 30 s, which may be moved to a buffer of twice the size.
const KEPT: u64 = 2 * 30 * 8_000 * 2;
/// For all else that a connection and its call need.
const CONNECTION: u64 = 128 * 1024;

async fn writing_two_hundred_calls_down_delays_none(_: Arc<Lab>) -> anyhow::Result<()> {
    // In turns, so that what else the machine does meanwhile is in both.
    let mut control = listened_to().await?;
    let mut written = written_down().await?;
    written.add(written_down().await?);
    control.add(listened_to().await?);
    no_later(&written, &control)
}

const TALK: Duration = Duration::from_secs(10);

/// How late frames are where nothing is transcribed.
async fn listened_to() -> anyhow::Result<Lateness> {
    let server = Served::start(Server::builder(), listen_only).await?;
    Callers::start(server.address, TALK).over().await
}

/// How late they are where everything is, which has to be right.
async fn written_down() -> anyhow::Result<Lateness> {
    let before = resident()?;
    let vosk = VoskServer::start().await?;
    let scribes = Scribes::start(&vosk).await?;
    let callers = Callers::start(scribes.server.address, TALK);
    // Just before they hang up.
    sleep(TALK - Duration::from_secs(1)).await;
    let grown = resident()?.saturating_sub(before);
    let lateness = callers.over().await?;
    let reports = scribes.reports().await?;
    let (mut right, mut damaged) = (0, 0);
    for report in &reports {
        let told = report.outages();
        ensure!(
            !told.away && told.lost.is_empty(),
            "{:?}: {told:?}",
            report.id
        );
        let judged = report.judge(&told, utterances(TALK))?;
        right += judged.right;
        damaged += judged.excused;
    }
    eprintln!(
        "    {right} words right, {damaged} with a gap in them; {} MB more than before",
        grown / 1_000_000
    );
    ensure!(
        damaged * 10 < right,
        "{damaged} words came with a gap in them"
    );
    ensure!(
        grown < CALLS * (KEPT + CONNECTION),
        "{grown} bytes more than before"
    );
    Ok(lateness)
}

async fn a_recognizer_that_dies_costs_transcripts_and_no_call(_: Arc<Lab>) -> anyhow::Result<()> {
    const DIES: Duration = Duration::from_secs(4);
    // Longer than audio is kept.
    const AWAY: Duration = Duration::from_secs(38);
    // It may take 10 s until it is tried again.
    const TALK: Duration = Duration::from_secs(60);
    let before = resident()?;
    let vosk = VoskServer::start().await?;
    let scribes = Scribes::start(&vosk).await?;
    let began = Instant::now();
    let callers = Callers::start(scribes.server.address, TALK);
    sleep(DIES).await;
    vosk.set(Fault::Down);
    sleep((DIES + AWAY).saturating_sub(began.elapsed())).await;
    let grown = resident()?.saturating_sub(before);
    let running = scribes.server.handle.stats().running;
    ensure!(running as u64 == CALLS, "{running} calls are still there");
    vosk.set(Fault::None);
    let lateness = callers.over().await?;
    let reports = scribes.reports().await?;

    let (mut right, mut lost) = (0, 0);
    for report in &reports {
        let told = report.outages();
        ensure!(told.away && told.back, "{:?}: {told:?}", report.id);
        ensure!(
            !told.lost.is_empty(),
            "{:?}: nothing is said to be lost: {:?}",
            report.id,
            report.told()
        );
        let judged = report.judge(&told, utterances(TALK))?;
        right += judged.right;
        lost += judged.excused;
        let resumed = report.words()?.last().map(|it| it.1).unwrap_or_default();
        ensure!(
            resumed > DIES + AWAY,
            "{:?}: nothing came after the recognizer was back: {:?}",
            report.id,
            report.told()
        );
    }
    eprintln!(
        "    {right} words right, {lost} lost and said to be; {} MB more than before, 99.9 % of the frames at most {:?} late",
        grown / 1_000_000,
        lateness.in_all(999)
    );
    ensure!(lost > 0, "nothing was lost");
    ensure!(
        grown < CALLS * (KEPT + CONNECTION),
        "{grown} bytes more than before"
    );
    Ok(())
}

/// The media plane is as punctual as in the control runs. What the machine itself does for a moment in one of them shows in a
/// few seconds, so it is the median over all seconds that is compared.
fn no_later(found: &Lateness, control: &Lateness) -> anyhow::Result<()> {
    for thousandths in [500, 990, 999] {
        let (late, usual) = (
            found.in_a_second(thousandths),
            control.in_a_second(thousandths),
        );
        eprintln!(
            "    of 1000 frames {thousandths} are at most {late:?} late in most seconds, {usual:?} without transcription; in all {:?} and {:?}",
            found.in_all(thousandths),
            control.in_all(thousandths)
        );
        ensure!(
            late <= 3 * usual + FRAME_TIME,
            "of 1000 frames {thousandths} are at most {late:?} late, and {usual:?} without transcription"
        );
    }
    Ok(())
}

async fn listen_only(mut call: Call) {
    while call.next().await.is_some() {}
}

/// A word of eight letters.
const LENGTH: Duration = Duration::from_millis(8 * 40);

/// A word that no other call and no other turn has.
fn word(call: u64, turn: u64) -> String {
    format!("c{call:03}w{turn:03}")
}

/// Where on the call's clock a word begins.
fn spoken_at(turn: u64) -> Duration {
    // A second of silence before the first; the first frame is sent 20 ms after the UUID.
    Duration::from_secs(1) + FRAME_TIME * (turn * UTTERANCE) as u32
}

/// How many words are said, and over, in a call of this length.
fn utterances(talk: Duration) -> usize {
    (0..)
        .take_while(|turn| spoken_at(*turn) + LENGTH < talk)
        .count()
}

/// What a caller says, frame by frame.
fn voice(call: u64) -> Voice {
    let mut saying = Vec::new();
    Voice::made(move |frame, payload| {
        let after = frame as i64 - 50;
        let at = after.rem_euclid(UTTERANCE as i64) as usize;
        if after >= 0 && at == 0 {
            let text = word(call, after as u64 / UTTERANCE);
            saying = synthesize(&[&text], 8_000);
            saying.resize(UTTERANCE as usize * FRAME, 0);
        }
        let said = saying.get(at * FRAME..(at + 1) * FRAME);
        *payload = to_bytes(said.unwrap_or(&[0; FRAME]));
    })
}

/// So many calls at once, with clocks and log of their own.
struct Callers {
    calling: JoinHandle<anyhow::Result<()>>,
    /// When each call's frames came.
    log: Arc<Mutex<Vec<Vec<Duration>>>>,
}

impl Callers {
    fn start(server: SocketAddr, talk: Duration) -> Self {
        let log = Arc::new(Mutex::new(vec![Vec::new(); CALLS as usize]));
        let callers = (0..CALLS).map(|number| {
            let log = Arc::clone(&log);
            Caller::new(server)
                .uuid(Uuid::from_u128(number.into()))
                .say(voice(number))
                // Their schedules are spread over a frame.
                .start_after(FRAME_TIME * number as u32 / CALLS as u32)
                .hang_up_after(talk)
                .counts_only()
                .observe(move |event| {
                    if let Event::Heard { at, .. } = event {
                        log.lock().unwrap()[number as usize].push(at);
                    }
                })
        });
        let callers = callers.collect();
        let calling = spawn_blocking(move || {
            for record in call_all(callers) {
                let record = record?;
                let why = record.ended.cause;
                ensure!(
                    why == sidetone_caller::EndCause::HungUp,
                    "a call ended: {why}"
                );
            }
            Ok(())
        });
        Self { calling, log }
    }

    /// Waits until all have hung up, and answers how late the frames were that they heard.
    async fn over(self) -> anyhow::Result<Lateness> {
        self.calling.await??;
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        let mut seconds: Vec<Vec<Duration>> = Vec::new();
        for call in log.iter() {
            for (at, late) in call.iter().zip(late(call)) {
                let second = at.as_secs() as usize;
                seconds.resize_with(seconds.len().max(second + 1), Vec::new);
                seconds[second].push(late);
            }
        }
        seconds.retain(|second| !second.is_empty());
        ensure!(!seconds.is_empty(), "nobody heard anything");
        Ok(Lateness(seconds))
    }
}

/// How long after its place in the call's schedule each frame came; as many are early as late.
fn late(call: &[Duration]) -> Vec<Duration> {
    let place = |(frame, at): (usize, &Duration)| {
        at.as_nanos().cast_signed() - (FRAME_TIME * frame as u32).as_nanos().cast_signed()
    };
    let offsets: Vec<i128> = call.iter().enumerate().map(place).collect();
    let mut sorted = offsets.clone();
    sorted.sort_unstable();
    let Some(middle) = sorted.get(sorted.len() / 2) else {
        return Vec::new();
    };
    let late = offsets.iter().map(|offset| (offset - middle).max(0));
    late.map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap()))
        .collect()
}

/// Of every frame, by the second in which it came.
struct Lateness(Vec<Vec<Duration>>);

impl Lateness {
    fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The lateness that so many of 1000 frames do not exceed, in the median of all seconds.
    fn in_a_second(&self, thousandths: usize) -> Duration {
        let seconds = self.0.iter().cloned();
        reached(
            seconds.map(|second| reached(second, thousandths)).collect(),
            500,
        )
    }

    /// The lateness that so many of 1000 of all frames do not exceed.
    fn in_all(&self, thousandths: usize) -> Duration {
        reached(self.0.concat(), thousandths)
    }
}

/// What so many of 1000 do not exceed.
fn reached(mut all: Vec<Duration>, thousandths: usize) -> Duration {
    all.sort_unstable();
    all[(all.len() - 1) * thousandths / 1000]
}

/// A server that has its calls written down.
struct Scribes {
    server: Served,
    reports: mpsc::UnboundedReceiver<Report>,
}

/// What came of one call.
struct Report {
    id: Uuid,
    written: Written,
}

/// Words of a call.
struct Judged {
    right: usize,
    /// Not heard, for a reason that is known.
    excused: usize,
}

#[derive(Debug, Default)]
struct Told {
    away: bool,
    back: bool,
    lost: Vec<(Duration, Duration)>,
}

impl Told {
    /// Whether something of this part of the call is said to be lost.
    fn touches(&self, from: Duration, to: Duration) -> bool {
        self.lost
            .iter()
            .any(|(begin, end)| *begin < to && from <= *end)
    }
}

impl Scribes {
    async fn start(vosk: &VoskServer) -> anyhow::Result<Self> {
        let (tell, reports) = mpsc::unbounded_channel();
        let vosk = Arc::new(Vosk::new(&vosk.endpoint())?);
        let handler = move |mut call: Call| {
            let (vosk, tell) = (Arc::clone(&vosk), tell.clone());
            async move {
                let written = write_down(&mut call, vosk, |_| {}).await;
                let id = call.id();
                // The scenario may have failed already.
                let _ = tell.send(Report { id, written });
            }
        };
        let server = Served::start(Server::builder(), handler).await?;
        Ok(Self { server, reports })
    }

    /// Every call's, when they all are over.
    async fn reports(mut self) -> anyhow::Result<Vec<Report>> {
        let mut reports = HashMap::new();
        for _ in 0..CALLS {
            let report = timeout(3 * SOON, self.reports.recv()).await;
            let report = report
                .context("a handler does not end")?
                .context("the server is gone")?;
            reports.insert(report.id, report);
        }
        ensure!(
            reports.len() as u64 == CALLS,
            "two reports of the same call"
        );
        Ok(reports.into_values().collect())
    }
}

impl Report {
    fn word(&self, turn: u64) -> String {
        word(self.id.as_u128() as u64, turn)
    }

    /// Each of so many words has to be heard once, in order, and nothing else; but for those that are said to be lost, or that a
    /// frame may be missing in. The call's clock, too, is off by a little where frames are late.
    fn judge(&self, told: &Told, turns: usize) -> anyhow::Result<Judged> {
        let excused = |at: Duration| {
            let (from, to) = (at.saturating_sub(LENGTH), at + 2 * LENGTH);
            told.touches(from, to) || self.written.gaps.may_touch(from, to)
        };
        let said: Vec<String> = (0..turns as u64).map(|turn| self.word(turn)).collect();
        let is_said = |heard: &(String, Duration)| said.contains(&heard.0);
        let (whole, others): (Vec<_>, Vec<_>) = self.words()?.into_iter().partition(is_said);
        let mut heard = whole.iter().map(|it| &it.0).peekable();
        let mut right = 0;
        for (turn, word) in said.iter().enumerate() {
            let is_heard = heard.next_if(|it| *it == word).is_some();
            ensure!(
                is_heard || excused(spoken_at(turn as u64)),
                "{word} is not heard, and not said to be lost: {:?}",
                self.told()
            );
            right += usize::from(is_heard);
        }
        ensure!(
            heard.next().is_none(),
            "a word came twice: {:?}",
            self.told()
        );
        // A piece of a word is another word.
        for (word, at) in others {
            ensure!(
                excused(at),
                "{word} at {at:?} is nothing that was said: {:?}",
                self.told()
            );
        }
        Ok(Judged {
            right,
            excused: said.len() - right,
        })
    }

    /// The words of the final transcripts, with the place where each begins.
    fn words(&self) -> anyhow::Result<Vec<(String, Duration)>> {
        let mut words = Vec::new();
        for (_, event) in &self.written.events {
            match event {
                SpeechEvent::Transcript(it) if it.is_final => {
                    words.extend(it.words.iter().map(|word| (word.text.clone(), word.start)));
                }
                SpeechEvent::Failed(error) => anyhow::bail!("{:?}: {error}", self.id),
                _ => {}
            }
        }
        Ok(words)
    }

    /// What was told, but for interim transcripts.
    fn told(&self) -> Vec<&SpeechEvent> {
        let events = self.written.events.iter().map(|(_, event)| event);
        events
            .filter(|event| !matches!(event, SpeechEvent::Transcript(it) if !it.is_final))
            .collect()
    }

    fn outages(&self) -> Told {
        let mut told = Told::default();
        for (_, event) in &self.written.events {
            match event {
                SpeechEvent::Retrying { .. } => told.away = true,
                SpeechEvent::Recovered => told.back = told.away,
                SpeechEvent::Lost { from, to } => told.lost.push((*from, *to)),
                _ => {}
            }
        }
        told
    }
}

/// Bytes of memory that this process has.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.context("no VmRSS")? * 1024)
}
