//! What a SIP phone hears of our server over RTP, and what of a phone arrives there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::{try_join, try_join_all, try_join3};
use sidetone_audio::g711::Law;
use sidetone_caller::{exact_runs, ramp};
use sidetone_lab::phone::{Packet, Phone, PhoneOptions, Reception};
use tokio::sync::mpsc;
use tokio::time::sleep;
use uuid::Uuid;

use crate::hearing::{self, arrived, report};
use crate::machine::Watch;
use crate::serve::{Served, is_callers_end};
use crate::wire::FRAME;
use crate::{Lab, scenarios};

scenarios![every_kind_of_phone];

const LAWS: [Law; 2] = [Law::Ulaw, Law::Alaw];

/// How much sound a packet may hold, in milliseconds.
const PTIMES: [u32; 3] = [10, 20, 30];

const MINUTE: Duration = Duration::from_secs(60);

/// How many phones hear a minute of our servers, each of which has a thread that plays.
const OURS: usize = 8;

/// Every key there is.
const KEYS: &str = "0123456789*#ABCD";

/// All at once, so that a minute of playback is waited for only once.
async fn every_kind_of_phone(lab: Arc<Lab>) -> anyhow::Result<()> {
    let spacing = async {
        let watch = Watch::start(OURS);
        let (asterisk, ours) = try_join(minutes_of_asterisk(&lab), minutes_of_ours(&lab)).await?;
        let stalls = watch.stalls();
        for (options, ours) in &ours {
            let control = &asterisk[PTIMES
                .iter()
                .position(|ptime| *ptime == options.ptime)
                .unwrap()];
            as_even_as(ours, control, stalls).with_context(|| format!("{options:?}"))?;
        }
        Ok(())
    };
    let talking = async {
        let kinds = LAWS
            .into_iter()
            .flat_map(|law| PTIMES.map(|ptime| kind(law, ptime)));
        try_join_all(kinds.map(|options| talks_and_presses(&lab, options))).await
    };
    try_join3(spacing, talking, a_muted_phone(&lab))
        .await
        .map(drop)
}

fn kind(law: Law, ptime: u32) -> PhoneOptions {
    PhoneOptions {
        law,
        ptime,
        ..PhoneOptions::default()
    }
}

/// What phones of each ptime hear of a tone that Asterisk itself makes.
async fn minutes_of_asterisk(lab: &Lab) -> anyhow::Result<Vec<Reception>> {
    let minute = |ptime| async move {
        let phone = Phone::call(&lab.asterisk, "tone", kind(Law::Ulaw, ptime)).await?;
        sleep(MINUTE).await;
        anyhow::Ok(Reception::of(&phone.hang_up().await?))
    };
    try_join_all(PTIMES.map(minute)).await
}

/// What phones of each kind, some of them on a bad line, hear of a minute that our server plays.
async fn minutes_of_ours(lab: &Lab) -> anyhow::Result<Vec<(PhoneOptions, Reception)>> {
    let lossy = LAWS.map(|law| PhoneOptions {
        loss: 0.02,
        ..kind(law, 20)
    });
    let even = LAWS
        .into_iter()
        .flat_map(|law| PTIMES.map(|ptime| kind(law, ptime)));
    let minutes = even.chain(lossy).map(|options| a_minute(lab, options));
    try_join_all(minutes).await
}

/// Plays a minute to a phone, which says something meanwhile.
async fn a_minute(lab: &Lab, options: PhoneOptions) -> anyhow::Result<(PhoneOptions, Reception)> {
    // A second more than is listened for: the phone hangs up in the middle of the sound.
    let sound = speakable(options.law, 1, MINUTE + Duration::from_secs(1));
    let said = speakable(options.law, 2, Duration::from_secs(10));
    let (tell, mut reports) = mpsc::unbounded_channel();
    let server = Served::start(hearing::builder(), hearing::play(sound.clone(), tell)).await?;
    let (phone, _) = dial(lab, &server, options.clone()).await?;
    phone.say(&said);
    sleep(MINUTE).await;
    let heard = phone.hang_up().await?;

    let runs = exact_runs(&sound, &samples(&heard, options.law));
    let longest = runs.iter().map(|run| run.length).max().unwrap_or(0);
    ensure!(
        runs.len() == 1 && longest > sound.len() * 19 / 20,
        "{options:?}: the sound comes in these pieces: {runs:?}"
    );
    // What was lost on the way is missing, and nothing else is.
    let got = report(&mut reports).await?;
    let through: usize = exact_runs(&said, &got.samples)
        .iter()
        .map(|run| run.length)
        .sum();
    let bounds = if options.loss > 0.0 {
        90..=99
    } else {
        100..=100
    };
    ensure!(
        bounds.contains(&(through * 100 / said.len())),
        "{options:?}: of {} samples that the phone said {through} arrive",
        said.len()
    );
    Ok((options, Reception::of(&heard)))
}

/// Compares what a phone heard of our server with what one of the same ptime heard of Asterisk, in the same minute on the same
/// machine. Each time that the machine was seen to keep a thread from running may have broken a stream.
fn as_even_as(ours: &Reception, control: &Reception, stalls: usize) -> anyhow::Result<()> {
    for (what, ours, control) in [
        ("lost packets", ours.lost, control.lost),
        ("jumps", ours.jumps, control.jumps),
        ("markers", ours.markers, control.markers),
    ] {
        ensure!(
            ours <= control + stalls,
            "{ours} {what}; of Asterisk's own tone {control}; the machine stalled {stalls} times"
        );
    }
    let mean = |reception: &Reception| {
        reception.gaps.iter().sum::<Duration>() / u32::try_from(reception.gaps.len()).unwrap()
    };
    let (pace, usual) = (mean(ours), mean(control));
    ensure!(
        pace.abs_diff(usual) <= usual / 100,
        "a packet every {pace:?}; of Asterisk's own tone every {usual:?}"
    );
    for share in [0.5, 0.99, 0.999] {
        let (ours, control) = (ours.gap(share), control.gap(share));
        ensure!(
            ours <= 3 * control + Duration::from_millis(20),
            "gaps up to {ours:?} at {share}; of Asterisk's own tone {control:?}"
        );
    }
    Ok(())
}

/// A phone says something, hears the echo of it, and presses every key.
async fn talks_and_presses(lab: &Lab, options: PhoneOptions) -> anyhow::Result<()> {
    let said = speakable(options.law, 3, Duration::from_secs(4));
    let (tell, mut reports) = mpsc::unbounded_channel();
    let server = Served::start(hearing::builder(), hearing::echo(tell)).await?;
    let (phone, _) = dial(lab, &server, options.clone()).await?;
    phone.say(&said);
    phone.press(KEYS);
    phone.quiet().await;
    // The last key is told of at its end.
    sleep(Duration::from_secs(1)).await;
    let heard = samples(&phone.hang_up().await?, options.law);
    let got = report(&mut reports).await?;
    ensure!(got.digits == KEYS, "{options:?}: the keys {:?}", got.digits);
    let (arrived, echoed) = (exact_runs(&said, &got.samples), exact_runs(&said, &heard));
    ensure!(
        arrived.len() == 1 && arrived[0].length >= said.len(),
        "{options:?}: what the phone says arrives in these pieces: {arrived:?}"
    );
    // A live echo may give up a frame to stay close.
    let back: usize = echoed.iter().map(|run| run.length).sum();
    ensure!(
        back >= said.len() * 95 / 100,
        "{options:?}: the echo has these pieces of {}: {echoed:?}",
        said.len()
    );
    Ok(())
}

/// Application mode ends a call in which both sides are silent for 2 s: a muted phone is kept by what the server sends.
async fn a_muted_phone(lab: &Lab) -> anyhow::Result<()> {
    let options = PhoneOptions {
        muted: true,
        ..PhoneOptions::default()
    };
    let (tell, mut reports) = mpsc::unbounded_channel();
    let server = Served::start(hearing::builder(), hearing::play(Vec::new(), tell)).await?;
    let (phone, id) = dial(lab, &server, options).await?;
    let call = arrived(&server.handle, id).await?;
    sleep(Duration::from_secs(11)).await;
    let heard = Reception::of(&phone.hang_up().await?);
    ensure!(
        heard.packets > 500,
        "{} packets in eleven seconds",
        heard.packets
    );
    let got = report(&mut reports).await?;
    ensure!(
        got.samples.iter().all(|sample| *sample == 0),
        "a muted phone said something"
    );
    ensure!(is_callers_end(call.closed().await));
    Ok(())
}

/// A phone's call to the server by the application.
pub(crate) async fn dial(
    lab: &Lab,
    server: &Served,
    options: PhoneOptions,
) -> anyhow::Result<(Phone, Uuid)> {
    let id = Uuid::new_v4();
    let number = format!("app-{}-{id}", server.address.port());
    let phone = Phone::call(&lab.asterisk, &number, options).await?;
    // What is said before that is heard by nobody.
    arrived(&server.handle, id).await?;
    Ok((phone, id))
}

/// Noise that a law can say exactly, so that no rounding is in the way.
pub(crate) fn speakable(law: Law, seed: u64, length: Duration) -> Vec<i16> {
    let count = usize::try_from(length.as_millis()).unwrap() / 20 * FRAME;
    let exact = |sample: i16| law.decode_byte(law.encode_sample(sample));
    ramp(seed, 0, count).into_iter().map(exact).collect()
}

pub(crate) fn samples(packets: &[Packet], law: Law) -> Vec<i16> {
    let mut samples = Vec::new();
    for packet in packets.iter().filter(|packet| packet.is_sound()) {
        law.decode(&packet.payload, &mut samples);
    }
    samples
}
