//! The codec `auto` with what a real Asterisk sends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use sidetone::{Codec, CodecNotice};
use sidetone_audio::g711::Law;
use sidetone_audio::tone::caller_voice;
use sidetone_caller::exact_runs;
use sidetone_lab::phone::{Phone, PhoneOptions};
use tokio::sync::mpsc;
use tokio::time::sleep;
use uuid::Uuid;

use crate::hearing::{self, arrived, report};
use crate::phones::samples;
use crate::serve::Served;
use crate::wire::FRAME;
use crate::{Lab, scenarios};

scenarios![every_codec_that_a_phone_brings_is_found_out];

/// Dial without c() leaves the phone's own codec in place, the application doesn't.
async fn every_codec_that_a_phone_brings_is_found_out(lab: Arc<Lab>) -> anyhow::Result<()> {
    let calls = [
        ("plain", Law::Ulaw, Codec::Ulaw),
        ("plain", Law::Alaw, Codec::Alaw),
        ("app", Law::Alaw, Codec::Slin),
    ];
    let lab = &lab;
    let calls = calls.map(|(mode, law, codec)| async move {
        let found = is_found_out(lab, mode, law, codec).await;
        found.with_context(|| format!("{mode}, {law:?}"))
    });
    try_join_all(calls).await.map(drop)
}

async fn is_found_out(lab: &Lab, mode: &str, law: Law, codec: Codec) -> anyhow::Result<()> {
    let (tell, mut reports) = mpsc::unbounded_channel();
    let builder = hearing::builder().codec(Codec::Auto);
    let server = Served::start(builder, hearing::echo(tell)).await?;
    let id = Uuid::new_v4();
    let number = format!("{mode}-{}-{id}", server.address.port());
    let options = PhoneOptions {
        law,
        ..PhoneOptions::default()
    };
    let phone = Phone::call(&lab.asterisk, &number, options).await?;
    arrived(&server.handle, id).await?;
    // As the law has it, so that no rounding is in the way.
    let said: Vec<i16> = caller_voice(8_000, Duration::from_secs(3), 5)
        .into_iter()
        .map(|sample| law.decode_byte(law.encode_sample(sample)))
        .collect();
    phone.say(&said);
    phone.quiet().await;
    sleep(Duration::from_millis(500)).await;
    let heard = samples(&phone.hang_up().await?, law);
    let got = report(&mut reports).await?;
    ensure!(
        got.codec == [CodecNotice::Decided(codec)],
        "{:?}",
        got.codec
    );
    let arrived = exact_runs(&said, &got.samples);
    let longest = arrived.iter().map(|run| run.length).max().unwrap_or(0);
    ensure!(
        longest > said.len() - FRAME,
        "what the phone says arrives in these pieces: {arrived:?}"
    );
    // What came before the decision is played with it, and a live line gives up what is too late.
    let echoed = exact_runs(&said, &heard);
    let back: usize = echoed.iter().map(|run| run.length).sum();
    ensure!(
        back >= said.len() * 85 / 100,
        "the echo has these pieces of {}: {echoed:?}",
        said.len()
    );
    Ok(())
}
