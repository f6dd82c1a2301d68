//! What the library says was heard, beside what the caller of a real Asterisk heard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use sidetone::{Call, Clip, Event, Heard, PlayError, Rate, Server, Utterance};
use sidetone_audio::resample::resample_clip;
use sidetone_caller::{Codec, exact_runs, ramp};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::person::samples;
use crate::serve::{Served, Way, dial};
use crate::wire::SOON;
use crate::{Lab, scenarios};

scenarios![
    an_utterance_interrupted_at_any_moment_was_heard_as_far_as_it_says,
    the_first_prompt_of_a_wideband_call_is_wideband_from_its_second_frame_on,
    a_loop_is_heard_without_a_gap,
];

/// How a call comes, and its rate.
const WAYS: [(Way, Rate); 2] = [
    (Way::DialOn("slin"), Rate::Slin),
    (Way::DialOn("slin16"), Rate::Slin16),
];

/// How fast pieces come, as against how fast they are heard.
const SPEEDS: [f64; 3] = [0.5, 1.0, 10.0];

/// How often each call's utterances are interrupted.
const MOMENTS: u64 = 50;

/// Far more than is heard of one.
const LENGTH: Duration = Duration::from_secs(4);

async fn an_utterance_interrupted_at_any_moment_was_heard_as_far_as_it_says(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let calls = WAYS
        .iter()
        .flat_map(|way| SPEEDS.map(|speed| (*way, speed)));
    try_join_all(calls.map(|((way, rate), speed)| interrupted(&lab, way, rate, speed)))
        .await
        .map(drop)
}

/// One call, in which one utterance after the other is interrupted.
async fn interrupted(lab: &Lab, way: Way, rate: Rate, speed: f64) -> anyhow::Result<()> {
    let (tell, mut told) = mpsc::unbounded_channel::<Heard>();
    let handler = move |mut call: Call| {
        let tell = tell.clone();
        async move {
            // Until the bridge is there, nobody hears anything.
            for _ in 0..10 {
                while !matches!(call.next().await, Some(Event::Audio(_)) | None) {}
            }
            for seed in 0..MOMENTS {
                let utterance = call.utterance(source(seed, rate))?;
                let playback = utterance.playback();
                let writing = tokio::spawn(write(utterance, seed, said(seed, rate), speed));
                sleep(moment(seed)).await;
                tell.send(playback.stop().await)?;
                writing.abort();
            }
            sleep(Duration::from_millis(100)).await;
            anyhow::Ok(())
        }
    };
    let server = Served::start(Server::builder(), handler).await?;
    let mut call = dial(lab, server.address, way, Codec::Slin(rate)).await?;
    let limit = SOON + MOMENTS as u32 * Duration::from_secs(2);
    let mut tallies = Vec::new();
    while let Some(heard) = timeout(limit, told.recv()).await? {
        tallies.push(heard);
        if tallies.len() as u64 == MOMENTS {
            break;
        }
    }
    call.reaches(way.after()).await?;
    call.person.ended(SOON).await?;
    let all = samples(&call.person.heard());
    let (mut begun, mut total) = (0, 0);
    for (seed, heard) in (0..).zip(&tallies) {
        let said = resample_clip(&said(seed, rate), source(seed, rate), rate.hz())?;
        let runs = exact_runs(&said, &all);
        let length: usize = runs.iter().map(|run| run.length).sum();
        let told = (heard.heard.as_secs_f64() * f64::from(rate.hz())).round() as usize;
        let name = format!(
            "{rate:?}, {speed} times real time, {:?} after its beginning",
            moment(seed)
        );
        ensure!(
            length == told,
            "{name}: {heard:?}, yet {length} samples: {runs:?}"
        );
        let end = runs.last().map_or(0, |run| run.source + run.length);
        ensure!(end == length, "{name}: {runs:?}");
        ensure!(heard.uncertainty.is_zero(), "{heard:?}");
        begun += usize::from(length > 0);
        total += length;
    }
    ensure!(
        begun * 10 > tallies.len() * 8,
        "only {begun} were heard at all"
    );
    eprintln!("    {rate:?} at {speed}: {begun} of {MOMENTS} begun, {total} samples heard as told");
    Ok(())
}

/// Samples per second that an utterance has before it is resampled.
fn source(seed: u64, rate: Rate) -> u32 {
    if seed.is_multiple_of(2) {
        rate.hz()
    } else {
        24_000
    }
}

fn said(seed: u64, rate: Rate) -> Vec<i16> {
    let hz = source(seed, rate);
    ramp(seed + 1, 0, (LENGTH.as_secs_f64() * f64::from(hz)) as usize)
}

/// When it is interrupted: at once, or within a second and a half.
fn moment(seed: u64) -> Duration {
    Duration::from_micros(random(seed, 1_500_000))
}

/// Numbers that look random and are the same each time.
fn random(seed: u64, below: u64) -> u64 {
    let [high, low] = [0, 1].map(|n| u64::from(ramp(seed, 90 + n, 1)[0].unsigned_abs()));
    (high << 15 | low) * 7_919 % below
}

/// Writes in uneven pieces of 20 to 320 ms.
async fn write(mut utterance: Utterance, seed: u64, said: Vec<i16>, speed: f64) {
    let mut rest = &said[..];
    for n in 0.. {
        let length =
            utterance.hz() as usize * (20 + random(seed * 1_000 + n, 300) as usize) / 1_000;
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        rest = behind;
        match utterance.play(piece).await {
            Err(PlayError::Cleared | PlayError::Closed) => return,
            played => played.unwrap(),
        }
        if rest.is_empty() {
            break;
        }
        let lasts = piece.len() as f64 / f64::from(utterance.hz());
        sleep(Duration::from_secs_f64(lasts / speed)).await;
    }
    // It is stopped before this is over.
    sleep(SOON).await;
}

async fn the_first_prompt_of_a_wideband_call_is_wideband_from_its_second_frame_on(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    const CALLS: u64 = 50;
    let clip = Clip::from_samples(16_000, prompt())?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = move |mut call: Call| {
        let (clip, tell) = (clip.clone(), tell.clone());
        async move {
            // At once, in each of the ways there are, and before anything is known of the rate.
            match call.id().as_u128() % 3 {
                0 => drop(call.player(16_000)?.play_clip(&clip).await?),
                1 => call.player(16_000)?.play(&prompt()).await?,
                _ => {
                    let mut utterance = call.utterance(16_000)?;
                    utterance.play(&prompt()).await?;
                    utterance.end();
                }
            }
            let id = call.id();
            while let Some(event) = call.next().await {
                if let Event::Audio(frame) = event {
                    tell.send((id, frame.arrived()))?;
                    break;
                }
            }
            anyhow::Ok(())
        }
    };
    let server = Served::start(Server::builder(), handler).await?;
    let calls = (0..CALLS).map(|n| {
        let (lab, address) = (&lab, server.address);
        async move {
            // At any time within a frame of each other, a few at once.
            sleep(Duration::from_millis(117 * n)).await;
            prompted(lab, address).await
        }
    });
    let heard = try_join_all(calls).await?;
    let mut narrow = 0;
    for _ in 0..CALLS {
        let (id, first_frame) = timeout(SOON, told.recv()).await?.context("no handler")?;
        let call = heard.iter().find(|heard| heard.id == id);
        let call = call.context("a call that nobody placed")?;
        // The rate is known with the first frame. Where the machine stood still, that came later than usual.
        let slots = (first_frame.as_millis() / 20).max(1) as usize;
        ensure!(
            call.narrow <= slots * 320,
            "{} samples at 8 kHz, though the caller's first frame came after {first_frame:?}",
            call.narrow
        );
        narrow += usize::from(call.narrow > 0);
    }
    eprintln!("    {CALLS} prompts, of which {narrow} began with a frame at 8 kHz");
    Ok(())
}

fn prompt() -> Vec<i16> {
    ramp(1, 0, 24_000)
}

/// How a caller heard the prompt.
struct Prompted {
    id: Uuid,
    /// Samples before the first from which on it is what it is at 16 kHz, bit by bit.
    narrow: usize,
}

async fn prompted(lab: &Lab, server: SocketAddr) -> anyhow::Result<Prompted> {
    let way = Way::DialOn("slin16");
    let mut call = dial(lab, server, way, Codec::Slin(Rate::Slin16)).await?;
    call.reaches(way.after()).await?;
    call.person.ended(SOON).await?;
    let heard = samples(&call.person.heard());
    let runs = exact_runs(&prompt(), &heard);
    let is_sound = |sample: &i16| *sample != 0;
    let begin = heard.iter().position(is_sound);
    let begin = begin.context("nothing was heard of it")?;
    let wide = runs.first().context("it was never wideband")?.heard;
    let rest = heard[wide..].iter().filter(|sample| is_sound(sample));
    let exact: usize = runs.iter().map(|run| run.length).sum();
    ensure!(rest.count() == exact, "not wideband all the time: {runs:?}");
    ensure!(
        exact > 24_000 * 3 / 4,
        "only {exact} samples of it: {runs:?}"
    );
    Ok(Prompted {
        id: call.id,
        narrow: wide - begin,
    })
}

async fn a_loop_is_heard_without_a_gap(lab: Arc<Lab>) -> anyhow::Result<()> {
    let round = ramp(1, 0, 1_234);
    let clip = Clip::from_samples(8_000, round.clone())?.looped();
    let handler = move |call: Call| {
        let clip = clip.clone();
        async move {
            let playing = call.player(8_000)?.play_clip(&clip).await?;
            sleep(Duration::from_secs(2)).await;
            playing.stop().await;
            anyhow::Ok(())
        }
    };
    let server = Served::start(Server::builder(), handler).await?;
    let way = Way::Application;
    let mut call = dial(&lab, server.address, way, Codec::default()).await?;
    call.reaches(way.after()).await?;
    call.person.ended(SOON).await?;
    let heard: Vec<i16> = samples(&call.person.heard());
    let sound: Vec<i16> = heard.into_iter().filter(|sample| *sample != 0).collect();
    let rounds = sound.len() / round.len();
    ensure!(rounds >= 3, "{rounds}");
    ensure!(
        sound == round.repeat(rounds + 1)[..sound.len()],
        "it has gaps"
    );
    Ok(())
}
