//! Echo in every format that an AudioSocket call can have, in both modes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use sidetone::{Codec, CodecNotice, Rate, Server};
use sidetone_audio::g711::Law;
use sidetone_audio::resample::resample_clip;
use sidetone_audio::sound::Sound as SoundFile;
use sidetone_caller::{Codec as Leg, exact_runs, ramp};
use sidetone_lab::fetch;
use sidetone_lab::phone::{Phone, PhoneOptions};
use uuid::Uuid;

use crate::alike::{alike, alike_in_pieces};
use crate::echo::Echo;
use crate::serve::{Way, place, place_from};
use crate::wire::{FRAME, SOON};
use crate::{Lab, scenarios};

scenarios![
    the_application_echoes_slin_bit_by_bit,
    dial_echoes_slin_bit_by_bit,
    dial_without_a_codec_echoes_slin_bit_by_bit,
    dial_echoes_every_rate,
    dial_without_a_codec_echoes_every_callers_rate,
    the_application_echoes_callers_of_every_rate,
    a_narrow_caller_is_echoed_through_every_rate,
    companded_audio_is_echoed_when_the_server_is_told,
    companded_audio_is_echoed_when_the_server_finds_out,
    phones_without_a_codec_in_dial_are_echoed,
    companded_audio_is_reported_when_slin_is_expected,
];

const LAWS: [(Law, Codec); 2] = [(Law::Ulaw, Codec::Ulaw), (Law::Alaw, Codec::Alaw)];

const WIDE: [Rate; 8] = [
    Rate::Slin12,
    Rate::Slin16,
    Rate::Slin24,
    Rate::Slin32,
    Rate::Slin44,
    Rate::Slin48,
    Rate::Slin96,
    Rate::Slin192,
];

async fn the_application_echoes_slin_bit_by_bit(lab: Arc<Lab>) -> anyhow::Result<()> {
    echoes_bit_by_bit(&lab, Way::Application).await
}

async fn dial_echoes_slin_bit_by_bit(lab: Arc<Lab>) -> anyhow::Result<()> {
    echoes_bit_by_bit(&lab, Way::Dial("slin")).await
}

async fn dial_without_a_codec_echoes_slin_bit_by_bit(lab: Arc<Lab>) -> anyhow::Result<()> {
    echoes_bit_by_bit(&lab, Way::DialPlain).await
}

async fn echoes_bit_by_bit(lab: &Lab, way: Way) -> anyhow::Result<()> {
    let mut echo = Echo::start(Server::builder()).await?;
    let call = place(lab, echo.served.address, way).await?;
    let said = ramp(1, 0, 100 * FRAME);
    let heard = call.hears(&said).await?;
    call.person.hang_up().await?;
    echo.is_exact(&said, &heard).await
}

async fn dial_echoes_every_rate(lab: Arc<Lab>) -> anyhow::Result<()> {
    let calls = WIDE.map(|rate| echoes_wideband(&lab, Way::Dial(rate.name()), rate));
    try_join_all(calls).await.map(drop)
}

async fn dial_without_a_codec_echoes_every_callers_rate(lab: Arc<Lab>) -> anyhow::Result<()> {
    let calls = WIDE.map(|rate| echoes_wideband(&lab, Way::DialPlain, rate));
    try_join_all(calls).await.map(drop)
}

/// Where both sides have the same rate Asterisk resamples nothing, so wideband is exact, too.
async fn echoes_wideband(lab: &Lab, way: Way, rate: Rate) -> anyhow::Result<()> {
    let said = ramp(1, 0, rate.hz() as usize * 2);
    let (mut echo, heard) = echoed(lab, way, rate, &said).await?;
    ensure!(
        echo.rates() == [rate],
        "{way:?}: the server saw {:?}",
        echo.rates()
    );
    echo.is_exact(&said, &heard)
        .await
        .with_context(|| format!("{way:?}, {rate:?}"))
}

async fn the_application_echoes_callers_of_every_rate(lab: Arc<Lab>) -> anyhow::Result<()> {
    all_alike(&lab, WIDE.map(|rate| (Way::Application, rate, Rate::Slin))).await
}

async fn a_narrow_caller_is_echoed_through_every_rate(lab: Arc<Lab>) -> anyhow::Result<()> {
    all_alike(
        &lab,
        WIDE.map(|rate| (Way::Dial(rate.name()), Rate::Slin, rate)),
    )
    .await
}

/// Callers of one rate hear their own voice from a server of another, though Asterisk resamples it twice. All at once, for their
/// calls are long; judged afterwards, for that takes the machine.
async fn all_alike(lab: &Lab, calls: [(Way, Rate, Rate); 8]) -> anyhow::Result<()> {
    let voice = voice()?;
    let said = |rate: Rate| resample_clip(&voice, Rate::Slin.hz(), rate.hz());
    let heard = calls.map(async |(way, caller, _)| echoed(lab, way, caller, &said(caller)?).await);
    for ((way, caller, server), (mut echo, mut heard)) in
        calls.iter().zip(try_join_all(heard).await?)
    {
        let (name, said) = (
            format!("{way:?} from a caller of {}", caller.name()),
            said(*caller)?,
        );
        let mut likeness = alike(&said, &heard, caller.hz());
        for _ in 1..ATTEMPTS {
            if likeness < 0.95 && echo.disturbances() > 0 {
                eprintln!("    {name}: correlates {likeness:.4} on a busy machine");
                (echo, heard) = echoed(lab, *way, *caller, &said).await?;
                likeness = alike(&said, &heard, caller.hz());
            }
        }
        eprintln!("    {name}: correlates {likeness:.4}");
        // A gap here and there is the machine's.
        let likeness = match echo.disturbances() {
            0 => likeness,
            _ => likeness.max(alike_in_pieces(&said, &heard, caller.hz())),
        };
        ensure!(likeness >= 0.95, "{name}: correlates {likeness:.4}");
        ensure!(
            echo.rates() == [*server],
            "{name}: the server saw {:?}",
            echo.rates()
        );
    }
    Ok(())
}

const ATTEMPTS: usize = 3;

/// What a caller of that rate hears who says this, all of it at that rate.
async fn echoed(
    lab: &Lab,
    way: Way,
    caller: Rate,
    said: &[i16],
) -> anyhow::Result<(Echo, Vec<i16>)> {
    let echo = Echo::start(Server::builder()).await?;
    let call = place_from(lab, echo.served.address, way, Leg::Slin(caller)).await?;
    let heard = call.hears(said).await?;
    let way_back = call.person.heard();
    call.person.hang_up().await?;
    ensure!(
        way_back.iter().all(|sound| sound.kind == caller.code()),
        "{way:?}, {}: a frame of another kind came",
        caller.name()
    );
    Ok((echo, heard))
}

async fn companded_audio_is_echoed_when_the_server_is_told(lab: Arc<Lab>) -> anyhow::Result<()> {
    for (law, codec) in LAWS {
        // What the law can say exactly, so that no rounding is in the way.
        let said = through(law, &ramp(2, 0, 100 * FRAME));
        let (mut echo, heard) = echo_companded(&lab, law, codec, &said).await?;
        echo.is_exact(&said, &heard).await?;
        ensure!(echo.notices().is_empty(), "{law:?}: {:?}", echo.notices());
    }
    Ok(())
}

async fn companded_audio_is_echoed_when_the_server_finds_out(lab: Arc<Lab>) -> anyhow::Result<()> {
    for (law, codec) in LAWS {
        let said = through(law, &voice()?);
        let (echo, heard) = echo_companded(&lab, law, Codec::Auto, &said).await?;
        ensure!(
            echo.notices() == [CodecNotice::Decided(codec)],
            "{law:?}: {:?}",
            echo.notices()
        );
        // What was held back until it knew comes at once, and is too much for a live source: a few frames are dropped.
        let rest = &said[said.len() / 2..];
        let exact: usize = exact_runs(rest, &heard).iter().map(|run| run.length).sum();
        ensure!(
            exact + (4 + echo.disturbances()) * FRAME >= rest.len(),
            "{law:?}: {exact} of {} samples",
            rest.len()
        );
    }
    Ok(())
}

/// A caller says this into `Dial` with the codec of that law: the server's end, and what the caller heard.
async fn echo_companded(
    lab: &Lab,
    law: Law,
    codec: Codec,
    said: &[i16],
) -> anyhow::Result<(Echo, Vec<i16>)> {
    let echo = Echo::start(Server::builder().codec(codec)).await?;
    let call = place(lab, echo.served.address, Way::Dial(name(law))).await?;
    let heard = call.hears(said).await?;
    call.person.hang_up().await?;
    Ok((echo, heard))
}

/// Without `c()` the server gets what the phone speaks.
async fn phones_without_a_codec_in_dial_are_echoed(lab: Arc<Lab>) -> anyhow::Result<()> {
    let calls = LAWS
        .into_iter()
        .flat_map(|(law, codec)| [(law, codec, codec), (law, codec, Codec::Auto)]);
    try_join_all(calls.map(|(law, codec, told)| phone_is_echoed(&lab, law, codec, told)))
        .await
        .map(drop)
}

async fn phone_is_echoed(lab: &Lab, law: Law, codec: Codec, told: Codec) -> anyhow::Result<()> {
    let echo = Echo::start(Server::builder().codec(told)).await?;
    let number = format!("plain-{}-{}", echo.served.address.port(), Uuid::new_v4());
    let options = PhoneOptions {
        law,
        ..PhoneOptions::default()
    };
    let phone = Phone::call(&lab.asterisk, &number, options).await?;
    let said = through(law, &voice()?);
    phone.say(&said);
    phone.say(&[0; 25 * FRAME]);
    phone.quiet().await;
    let mut heard = Vec::new();
    let packets = phone.hang_up().await?;
    packets
        .iter()
        .for_each(|packet| law.decode(&packet.payload, &mut heard));
    // The first words find out what they are.
    let likeness = alike_in_pieces(&said[said.len() / 2..], &heard, Rate::Slin.hz());
    eprintln!("    {law:?} to a server of {told}: correlates {likeness:.4}");
    ensure!(
        likeness >= 0.95,
        "{law:?} told {told}: correlates {likeness:.4}"
    );
    let expected: &[_] = match told {
        Codec::Auto => &[CodecNotice::Decided(codec)],
        _ => &[],
    };
    ensure!(
        echo.notices() == expected,
        "{law:?} told {told}: {:?}",
        echo.notices()
    );
    Ok(())
}

async fn companded_audio_is_reported_when_slin_is_expected(lab: Arc<Lab>) -> anyhow::Result<()> {
    let echo = Echo::start(Server::builder().codec(Codec::Slin)).await?;
    let call = place(&lab, echo.served.address, Way::Dial("ulaw")).await?;
    call.person.say(&voice()?);
    let reported = async {
        while echo.notices().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, reported)
        .await
        .context("no notice")?;
    call.person.hang_up().await?;
    let notices = echo.notices();
    let [
        notice @ CodecNotice::Mismatch {
            expected: Codec::Slin,
            bytes_per_second,
        },
    ] = notices[..]
    else {
        anyhow::bail!("{notices:?}");
    };
    ensure!(
        (7_000..=9_000).contains(&bytes_per_second),
        "{bytes_per_second}"
    );
    ensure!(
        notice
            .to_string()
            .contains("Dial(AudioSocket/HOST:PORT/UUID/c(slin))"),
        "{notice}"
    );
    Ok(())
}

/// Two seconds of a human voice at 8 kHz.
fn voice() -> anyhow::Result<Vec<i16>> {
    let sounds = fetch::package("asterisk-core-sounds-en-wav")?;
    let file = sounds.join("usr/share/asterisk/sounds/en_US_f_Allison/vm-instructions.wav");
    let mut samples = SoundFile::open(file)?.to_rate(Rate::Slin.hz())?.samples;
    samples.truncate(100 * FRAME);
    ensure!(samples.len() == 100 * FRAME, "the prompt is too short");
    Ok(samples)
}

fn through(law: Law, samples: &[i16]) -> Vec<i16> {
    samples
        .iter()
        .map(|sample| law.decode_byte(law.encode_sample(*sample)))
        .collect()
}

fn name(law: Law) -> &'static str {
    match law {
        Law::Ulaw => "ulaw",
        Law::Alaw => "alaw",
    }
}
