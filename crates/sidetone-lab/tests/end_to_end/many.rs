//! Two hundred calls at once that are written down, and the recogniser's ups and downs. Callers speak words that the stand-in for a
//! Vosk server understands exactly, and note when they hear what.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sidetone::{Call, Server};
use sidetone_caller::{Caller, Event, Voice, call_all};
use sidetone_services::vosk::VoskServer;
use sidetone_services::{Trouble, speak};
use sidetone_speech::SpeechEvent;
use sidetone_speech::vosk::Vosk;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::scribe::write_down;
use crate::serve::Served;
use crate::wire::{FRAME, SOON, to_bytes};
use crate::{Lab, scenarios};

scenarios![
    writing_two_hundred_calls_down_delays_none,
    a_recogniser_that_dies_costs_transcripts_and_no_call,
];

const CALLS: u64 = 200;
const FRAME_TIME: Duration = Duration::from_millis(20);
/// Frames from one utterance to the next.
const UTTERANCE: u64 = 200;
/// What the library keeps of a call for its recogniser, in bytes: 30 s, which may be moved to a buffer of twice the size.
const KEPT: u64 = 2 * 30 * 8_000 * 2;
/// For all else that a connection and its call need.
const CONNECTION: u64 = 128 * 1024;

async fn writing_two_hundred_calls_down_delays_none(_: Arc<Lab>) -> anyhow::Result<()> {
    let control = listened_to().await?;
    let written = written_down().await?;
    no_later(&written, &control)
}

const TALK: Duration = Duration::from_secs(14);

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
    for report in &reports {
        let heard = report.words()?;
        let turns = 0..utterances(TALK) as u64;
        let said: Vec<String> = turns.map(|turn| report.word(turn)).collect();
        ensure!(
            heard.iter().map(|it| &it.0).eq(&said),
            "not {said:?} was heard: {:?}",
            report.told()
        );
    }
    eprintln!(
        "    {CALLS} calls with {} words each, all right; {} MB more than before",
        utterances(TALK),
        grown / 1_000_000
    );
    ensure!(
        grown < CALLS * (KEPT + CONNECTION),
        "{grown} bytes more than before"
    );
    Ok(lateness)
}

async fn a_recogniser_that_dies_costs_transcripts_and_no_call(_: Arc<Lab>) -> anyhow::Result<()> {
    const DIES: Duration = Duration::from_secs(6);
    // Longer than audio is kept.
    const AWAY: Duration = Duration::from_secs(40);
    // It may take 10 s until it is tried again.
    const TALK: Duration = Duration::from_secs(66);
    let before = resident()?;
    let vosk = VoskServer::start().await?;
    let scribes = Scribes::start(&vosk).await?;
    let began = Instant::now();
    let callers = Callers::start(scribes.server.address, TALK);
    sleep(DIES).await;
    vosk.set(Trouble::Down);
    sleep((DIES + AWAY).saturating_sub(began.elapsed())).await;
    let grown = resident()?.saturating_sub(before);
    let running = scribes.server.handle.stats().running;
    ensure!(running as u64 == CALLS, "{running} calls are still there");
    vosk.set(Trouble::None);
    let lateness = callers.over().await?;
    let reports = scribes.reports().await?;

    let (mut right, mut lost) = (0, 0);
    for report in &reports {
        let told = report.trouble();
        ensure!(told.away && told.back, "{:?}: {told:?}", report.id);
        ensure!(
            !told.lost.is_empty(),
            "{:?}: nothing is said to be lost",
            report.id
        );
        let said: Vec<String> = (0..utterances(TALK) as u64)
            .map(|turn| report.word(turn))
            .collect();
        let is_said = |heard: &(String, Duration)| said.contains(&heard.0);
        let (whole, cut): (Vec<_>, Vec<_>) = report.words()?.into_iter().partition(is_said);
        // In this order, none twice.
        let mut heard = whole.iter().map(|it| &it.0).peekable();
        for (turn, word) in said.iter().enumerate() {
            let from = spoken_at(turn as u64);
            let is_heard = heard.next_if(|it| *it == word).is_some();
            let is_lost = told.touches(from, from + LENGTH);
            ensure!(
                is_heard || is_lost,
                "{word} is not heard, and not said to be lost: {:?}",
                report.told()
            );
            right += usize::from(is_heard);
            lost += usize::from(!is_heard);
        }
        ensure!(
            heard.next().is_none(),
            "a word came twice: {:?}",
            report.told()
        );
        // Cut in two at the edge of what is lost, a word is another one.
        for (word, from) in cut {
            ensure!(
                told.touches(from.saturating_sub(LENGTH), from + LENGTH),
                "{word} at {from:?} is nothing that was said: {:?}",
                report.told()
            );
        }
        let resumed = report.words()?.last().map(|it| it.1).unwrap_or_default();
        ensure!(
            resumed > DIES + AWAY,
            "{:?}: nothing came after the recogniser was back",
            report.id
        );
    }
    eprintln!(
        "    {right} words right, {lost} lost and said to be; {} MB more than before, 99.9 % of the frames at most {:?} late",
        grown / 1_000_000,
        lateness.at(999)
    );
    ensure!(lost > 0, "nothing was lost");
    ensure!(
        grown < CALLS * (KEPT + CONNECTION),
        "{grown} bytes more than before"
    );
    Ok(())
}

/// The media plane is as punctual as in the control run, but for what the machine does meanwhile.
fn no_later(found: &Lateness, control: &Lateness) -> anyhow::Result<()> {
    for thousandths in [500, 990, 999] {
        let (found, usual) = (found.at(thousandths), control.at(thousandths));
        eprintln!(
            "    of 1000 frames {thousandths} are at most {found:?} late, {usual:?} without transcription"
        );
        ensure!(
            found <= 3 * usual + FRAME_TIME,
            "of 1000 frames {thousandths} are at most {found:?} late, and {usual:?} without transcription"
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
            saying = speak(&[&text], 8_000);
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
                // Their grids are spread over a frame.
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
                let why = record.ended.why;
                ensure!(why == sidetone_caller::Why::HungUp, "a call ended: {why}");
            }
            Ok(())
        });
        Self { calling, log }
    }

    /// Waits until all have hung up, and answers how late the frames were that they heard.
    async fn over(self) -> anyhow::Result<Lateness> {
        self.calling.await??;
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        let mut late: Vec<Duration> = log.iter().flat_map(|call| late(call)).collect();
        ensure!(!late.is_empty(), "nobody heard anything");
        late.sort_unstable();
        Ok(Lateness(late))
    }
}

/// How long after its place on the call's grid each frame came; as many are early as late.
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

/// In rising order.
struct Lateness(Vec<Duration>);

impl Lateness {
    /// The lateness that so many of 1000 frames do not exceed.
    fn at(&self, thousandths: usize) -> Duration {
        self.0[(self.0.len() - 1) * thousandths / 1000]
    }
}

/// A server that has its calls written down.
struct Scribes {
    server: Served,
    reports: mpsc::UnboundedReceiver<Report>,
}

/// What was told of one call.
struct Report {
    id: Uuid,
    events: Vec<(Instant, SpeechEvent)>,
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
                let events = write_down(&mut call, vosk, |_| {}).await;
                let id = call.id();
                // The scenario may have failed already.
                let _ = tell.send(Report { id, events });
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

    /// The words of the final transcripts, with the place where each begins.
    fn words(&self) -> anyhow::Result<Vec<(String, Duration)>> {
        let mut words = Vec::new();
        for (_, event) in &self.events {
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
        let events = self.events.iter().map(|(_, event)| event);
        events
            .filter(|event| !matches!(event, SpeechEvent::Transcript(it) if !it.is_final))
            .collect()
    }

    fn trouble(&self) -> Told {
        let mut told = Told::default();
        for (_, event) in &self.events {
            match event {
                SpeechEvent::Trouble { .. } => told.away = true,
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
