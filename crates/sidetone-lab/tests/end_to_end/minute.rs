//! What only shows in the long run. All calls at once, so that a minute is waited for only once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::{try_join, try_join_all, try_join3};
use sidetone::{Call, Clip, Rate, Server};
use sidetone_caller::{Codec, Run, Spread, exact_runs, ramp};
use sidetone_lab::ami::Originate;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::echo::Echo;
use crate::person::{Sound, samples};
use crate::serve::{PREBUFFER, Served, Way, place, place_from};
use crate::wire::SOON;
use crate::{Lab, scenarios};

scenarios![a_minute_of_calls];

const MINUTE: Duration = Duration::from_secs(60);

/// A pause between two messages, after which the server goes on with its schedule moved: the machine stood still.
const STALL: Duration = Duration::from_millis(80);

/// How far from normal speed a playback may ever be; a machine that is not busy stays within some milliseconds.
const ASTRAY: f64 = 0.3;

async fn a_minute_of_calls(lab: Arc<Lab>) -> anyhow::Result<()> {
    let echoes = try_join_all([
        echo_of_a_minute(&lab, Way::Application, Rate::Slin),
        echo_of_a_minute(&lab, Way::Dial("slin"), Rate::Slin),
        echo_of_a_minute(&lab, Way::Dial("slin16"), Rate::Slin16),
    ]);
    let played = try_join(
        a_minute_handed_over_at_once(&lab),
        a_clip_of_half_a_minute(&lab),
    );
    let silent = try_join(
        a_caller_that_mutes_its_phone(&lab),
        a_caller_that_only_waits(&lab),
    );
    let (echoes, ..) = try_join3(echoes, played, silent).await?;
    for mut echo in echoes {
        echo.judge().await?;
    }
    Ok(())
}

/// An echo, to be judged when the other calls no longer need the machine.
struct Echoed {
    way: Way,
    echo: Echo,
    ramp: Vec<i16>,
    said: Vec<Sound>,
    heard: Vec<Sound>,
}

async fn echo_of_a_minute(lab: &Lab, way: Way, rate: Rate) -> anyhow::Result<Echoed> {
    let echo = Echo::prebuffered(Server::builder(), PREBUFFER).await?;
    let call = place_from(lab, echo.served.address, way, Codec::Slin(rate)).await?;
    let ramp = ramp(3, 0, rate.hz() as usize * MINUTE.as_secs() as usize);
    call.hears(&ramp).await?;
    let (said, heard) = (call.person.said(), call.person.heard());
    call.person.hang_up().await?;
    Ok(Echoed {
        way,
        echo,
        ramp,
        said,
        heard,
    })
}

impl Echoed {
    async fn judge(&mut self) -> anyhow::Result<()> {
        let (said, heard) = (samples(&self.said), samples(&self.heard));
        let delays = Spread::of(delays(&self.said, &self.heard, &exact_runs(&said, &heard)));
        eprintln!(
            "    echo of a minute by {:?}: {:.1} ms late in the median, {:.1} ms at p99",
            self.way,
            delays.p50.as_secs_f64() * 1e3,
            delays.p99.as_secs_f64() * 1e3
        );
        // The stated ceiling of a live source, and Asterisk twice.
        let ceiling = Duration::from_millis(80) + 2 * PREBUFFER;
        ensure!(
            delays.p50 < ceiling + Duration::from_millis(40),
            "{delays:?}"
        );
        self.echo
            .is_exact_but_for(stalls(&self.heard), &self.ramp, &heard)
            .await
            .with_context(|| format!("{:?}", self.way))
    }
}

fn stalls(heard: &[Sound]) -> usize {
    let pauses = heard.windows(2).map(|pair| pair[1].at - pair[0].at);
    pauses.filter(|pause| *pause > STALL).count()
}

/// For each message that was heard: how long before, the first sample of it was said.
fn delays(said: &[Sound], heard: &[Sound], runs: &[Run]) -> Vec<Duration> {
    let frame = said[0].samples.len();
    let mut delays = Vec::new();
    let mut at = 0;
    for sound in heard {
        let run = runs
            .iter()
            .find(|run| (run.heard..run.heard + run.length).contains(&at));
        if let Some(run) = run {
            let said = &said[(run.source + at - run.heard) / frame];
            delays.push(sound.at - said.at);
        }
        at += sound.samples.len();
    }
    delays
}

async fn a_minute_handed_over_at_once(lab: &Lab) -> anyhow::Result<()> {
    let (tell, mut handed_over) = mpsc::unbounded_channel();
    let handler = move |call: Call| {
        let tell = tell.clone();
        async move {
            let speech = ramp(4, 0, 60 * 8_000);
            let (mut player, start) = (call.player(8_000)?, Instant::now());
            player.play(&speech).await?;
            tell.send(start.elapsed())?;
            anyhow::Ok(())
        }
    };
    let mut server = Served::start(Server::builder(), handler).await?;
    let call = place(lab, server.address, Way::Application).await?;
    let handing_over = timeout(SOON, handed_over.recv())
        .await?
        .context("no handler")?;
    call.person.ended(MINUTE + SOON).await?;
    let heard = call.person.heard();
    let speech = is_whole(&heard, &ramp(4, 0, 60 * 8_000))?;
    let (start, mut sounded) = (speech[0].at, 0.0);
    let mut astray: Vec<f64> = Vec::with_capacity(speech.len());
    for sound in speech {
        astray.push((sound.at - start).as_secs_f64() - sounded);
        sounded += sound.samples.len() as f64 / 8e3;
    }
    astray.sort_by(f64::total_cmp);
    let usual = astray[astray.len() / 2];
    let (ahead, behind) = (usual - astray[0], astray[astray.len() - 1] - usual);
    let missed = server.ended().await?.counters.slots_missed;
    let spacing = Spread::of(speech.windows(2).map(|pair| pair[1].at - pair[0].at));
    eprintln!(
        "    a minute handed over in {handing_over:?} is heard at most {ahead:.3} s ahead and {behind:.3} s behind, {missed} slots missed; {spacing:?}"
    );
    ensure!(handing_over < SOON, "handing over took {handing_over:?}");
    // A stall of more than 60 ms moves all that follows, and one of the caller makes it look so for a moment.
    let allowed = ASTRAY + missed as f64 * 0.02 + spacing.max.as_secs_f64();
    ensure!(
        ahead < allowed && behind < allowed,
        "{ahead} s ahead, {behind} s behind, {missed} slots missed"
    );
    ensure!(
        spacing.p50.abs_diff(Duration::from_millis(20)) < Duration::from_millis(3),
        "{spacing:?}"
    );
    Ok(())
}

async fn a_clip_of_half_a_minute(lab: &Lab) -> anyhow::Result<()> {
    let samples = ramp(5, 0, 30 * 8_000);
    let clip = Clip::from_samples(8_000, samples.clone())?;
    let handler = move |call: Call| {
        let clip = clip.clone();
        async move {
            let playback = call.player(8_000)?.play_clip(&clip).await?;
            playback.finished().await;
            anyhow::Ok(())
        }
    };
    let server = Served::start(Server::builder(), handler).await?;
    let call = place(lab, server.address, Way::Dial("slin")).await?;
    call.person.ended(MINUTE).await?;
    is_whole(&call.person.heard(), &samples).map(drop)
}

/// Nothing that is queued may suffer from anything: it is there to the bit, in one piece. Answers the messages that hold it.
fn is_whole<'a>(heard: &'a [Sound], whole: &[i16]) -> anyhow::Result<&'a [Sound]> {
    let runs = exact_runs(whole, &samples(heard));
    let [run] = runs[..] else {
        anyhow::bail!("{runs:?}");
    };
    ensure!(
        run.source == 0 && run.length >= whole.len(),
        "{run:?} of {}",
        whole.len()
    );
    let frame = heard[0].samples.len();
    Ok(&heard[run.heard / frame..(run.heard + whole.len()).div_ceil(frame)])
}

async fn a_caller_that_mutes_its_phone(lab: &Lab) -> anyhow::Result<()> {
    let echo = Echo::start(Server::builder()).await?;
    let call = place(lab, echo.served.address, Way::Application).await?;
    call.person.mute();
    sleep(Duration::from_secs(10)).await;
    // It is still there, and so is the echo.
    let said = ramp(6, 0, 8_000);
    call.hears(&said).await?;
    let heard = samples(&call.person.heard());
    call.person.hang_up().await?;
    let back: usize = exact_runs(&said, &heard).iter().map(|run| run.length).sum();
    ensure!(
        back > said.len() / 2,
        "{back} of {} samples came back",
        said.len()
    );
    ensure!(
        heard.len() > 10 * 8_000,
        "silence stopped: {} samples",
        heard.len()
    );
    Ok(())
}

async fn a_caller_that_only_waits(lab: &Lab) -> anyhow::Result<()> {
    let mut server = Served::echo().await?;
    let call = Originate::exten("Local/app@target/n", "caller", "wait")
        .variable("__U", &Uuid::new_v4().to_string())
        .variable("__D", &server.address.to_string())
        .variable("__S", "10");
    lab.ami.originate(&call).await?;
    sleep(Duration::from_secs(10)).await;
    let ended = server.ended().await?;
    ensure!(ended.duration > Duration::from_secs(9), "{ended:?}");
    ensure!(ended.counters.frames_in == 0, "{ended:?}");
    Ok(())
}
