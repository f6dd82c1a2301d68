//! The lab itself: if these fail, nothing else here means anything.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use sidetone_audio::g711::Law;
use sidetone_lab::ami::{AmiError, Originate};
use sidetone_lab::ari::Ari;
use sidetone_lab::phone::{Packet, Phone, PhoneError, PhoneOptions, Reception};
use sidetone_lab::{Asterisk, Options, fetch};
use uuid::Uuid;

use crate::machine::Watch;
use crate::wire::{DTMF, FRAME, Line, Listener, SLIN, SOON, contains, from_bytes, ramp};
use crate::{Lab, scenarios};

scenarios![
    every_module_is_loaded,
    two_instances_run_side_by_side_and_end,
    the_application_passes_every_sample_both_ways,
    dial_passes_every_sample_both_ways,
    the_application_without_answer_ends_before_a_word,
    a_refused_action_says_why,
    a_further_package_is_fetched_and_its_sound_played_and_recorded,
    a_silent_caller_sends_nothing,
    a_caller_presses_all_sixteen_keys,
    phones_of_every_kind_pass_every_sample_both_ways,
    a_phone_hears_an_even_stream,
    a_phone_presses_all_sixteen_keys,
    a_lossy_phone_loses_its_share,
    a_muted_phone_sends_nothing,
    a_phone_is_told_why_its_call_is_refused,
    external_media_hears_its_bridge,
    a_created_channel_says_its_id_when_dialled,
];

async fn every_module_is_loaded(lab: Arc<Lab>) -> anyhow::Result<()> {
    let version = lab.asterisk.cli("core show version").await?;
    ensure!(version.starts_with("Asterisk 2"), "{version}");
    let log = lab.asterisk.log();
    let failed: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("loading module"))
        .collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

async fn two_instances_run_side_by_side_and_end(lab: Arc<Lab>) -> anyhow::Result<()> {
    let second = Asterisk::start(Options::default()).await?;
    let (first, other) = (
        lab.asterisk.cli("core show uptime").await?,
        second.cli("core show uptime").await?,
    );
    ensure!(
        first.contains("uptime") && other.contains("uptime"),
        "{first}{other}"
    );
    let (process, folder) = (
        format!("/proc/{}", second.pid()),
        second.folder().to_owned(),
    );
    ensure!(std::fs::exists(&process)? && folder.exists());
    tokio::task::spawn_blocking(move || drop(second)).await?;
    ensure!(
        !std::fs::exists(&process)? && !folder.exists(),
        "it left {process} or {}",
        folder.display()
    );
    Ok(())
}

async fn the_application_passes_every_sample_both_ways(lab: Arc<Lab>) -> anyhow::Result<()> {
    every_sample_both_ways(&lab, "app", "after-app").await
}

async fn dial_passes_every_sample_both_ways(lab: Arc<Lab>) -> anyhow::Result<()> {
    every_sample_both_ways(&lab, "dial-on", "after-dial").await
}

/// The caller is an AudioSocket channel too, so no phone and no file is between the two ends: only Asterisk.
async fn every_sample_both_ways(lab: &Lab, exten: &str, place: &str) -> anyhow::Result<()> {
    let (phone, server) = (Listener::bind().await?, Listener::bind().await?);
    let (id, tag) = (Uuid::new_v4(), Uuid::new_v4().to_string());
    let channel = format!("AudioSocket/{}/{}/c(slin)", phone.address(), Uuid::new_v4());
    let call = Originate::exten(&channel, "target", exten)
        .variable("U", &id.to_string())
        .variable("D", &server.address().to_string())
        .variable("C", "slin")
        .variable("T", &tag);
    let mut events = lab.ami.events();
    lab.ami.originate(&call).await?;
    let mut caller = phone.line().await?;
    let mut callee = server.line().await?;
    ensure!(callee.id == id);

    let (said, answered) = (ramp(16_000), ramp(24_000).split_off(8_000));
    let (heard, got) = tokio::try_join!(
        caller.talk(&said, |heard| contains_end(heard, &answered)),
        callee.talk(&answered, |heard| contains_end(heard, &said)),
    )?;
    ensure!(
        contains(&heard, &answered) && contains(&got, &said),
        "samples are missing"
    );

    callee.hang_up().await?;
    let event = events.wait(SOON, |event| event.is_lab(&tag, place)).await?;
    ensure!(
        place == "after-app" || event.get("dialstatus") == "ANSWER",
        "{event:?}"
    );
    caller.read_to_end().await
}

/// Looking for the last frame is quick and says when to stop; whether all the others came is another question.
fn contains_end(heard: &[i16], whole: &[i16]) -> bool {
    let recent = &heard[heard.len().saturating_sub(4 * FRAME)..];
    contains(recent, &whole[whole.len() - FRAME..])
}

async fn the_application_without_answer_ends_before_a_word(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    lab.ami
        .originate(&local(&server, "unanswered", "wait", 30.0))
        .await?;
    let line = Line::of(server.connection().await?).await;
    ensure!(line.is_err(), "it said a UUID");
    Ok(())
}

async fn a_refused_action_says_why(lab: Arc<Lab>) -> anyhow::Result<()> {
    match lab.ami.hang_up("no-such-channel").await {
        Err(AmiError::Refused { reason, .. }) if !reason.is_empty() => Ok(()),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn a_further_package_is_fetched_and_its_sound_played_and_recorded(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let fetched = tokio::task::spawn_blocking(|| fetch::package("asterisk-core-sounds-en-wav"));
    let sound = fetched
        .await??
        .join("usr/share/asterisk/sounds/en_US_f_Allison/hello-world");
    let server = Listener::bind().await?;
    let recording = lab.asterisk.folder().join("spool/hello");
    let call = local(&server, "app", "play", 0.5)
        .variable("__W", &sound.display().to_string())
        .variable("__R", &recording.display().to_string());
    lab.ami.originate(&call).await?;
    let mut line = server.line().await?;
    let mut heard = Vec::new();
    // Silence back keeps the call alive until the caller has something to say.
    line.write(SLIN, &[0; 2 * FRAME]).await?;
    while let Some((_, payload)) = line.read().await? {
        heard.extend(from_bytes(&payload));
        if line.write(SLIN, &[0; 2 * FRAME]).await.is_err() {
            break;
        }
    }
    let loud = |samples: &[i16]| samples.iter().filter(|sample| sample.abs() > 1_000).count();
    ensure!(
        loud(&heard) > 2_000,
        "{} loud samples of {}",
        loud(&heard),
        heard.len()
    );
    // The recording is written out a moment after the call.
    let said = recording.with_file_name("hello-said.wav");
    let written = async {
        while std::fs::read(&said).unwrap_or_default().len() < 16_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, written)
        .await
        .context("nothing is recorded")?;
    Ok(())
}

async fn a_silent_caller_sends_nothing(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    lab.ami
        .originate(&local(&server, "app", "wait", 30.0))
        .await?;
    let mut line = server.line().await?;
    ensure!(
        tokio::time::timeout(Duration::from_secs(1), line.read())
            .await
            .is_err(),
        "it sent something"
    );
    line.hang_up().await
}

async fn a_caller_presses_all_sixteen_keys(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    lab.ami
        .originate(&local(&server, "app", "dtmf", 30.0))
        .await?;
    let mut line = server.line().await?;
    ensure!(sixteen_keys(&mut line).await? == "1234567890*#ABCD");
    line.hang_up().await
}

async fn phones_of_every_kind_pass_every_sample_both_ways(lab: Arc<Lab>) -> anyhow::Result<()> {
    for law in [Law::Ulaw, Law::Alaw] {
        for ptime in [10, 20, 30] {
            let options = PhoneOptions {
                law,
                ptime,
                ..PhoneOptions::default()
            };
            phone_passes_every_sample(&lab, options)
                .await
                .with_context(|| format!("{law:?}, ptime {ptime}"))?;
        }
    }
    Ok(())
}

async fn phone_passes_every_sample(lab: &Lab, options: PhoneOptions) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    let (law, bytes) = (options.law, options.ptime as usize * 8);
    let (mut phone, mut line) = phone_call(lab, &server, "app", options).await?;
    // What the law can say exactly, so that no rounding is in the way; no zeros, to be told from silence.
    let said: Vec<i16> = ramp(4_800)
        .into_iter()
        .map(|sample| law.decode_byte(law.encode_sample(sample | 0x400)))
        .collect();
    phone.say(&said);
    let got = line.talk(&said, |heard| contains_end(heard, &said)).await?;
    ensure!(contains(&got, &said), "the server lacks samples");
    // The phone hears the end of it a moment later.
    tokio::time::timeout(SOON, async {
        while !contains(&samples(&phone.heard(), law), &said) {
            let _ = line.talk(&[], |heard| heard.len() >= FRAME).await;
        }
    })
    .await
    .context("the phone lacks samples")?;
    line.hang_up().await?;
    let heard = phone.ended(SOON).await?;
    ensure!(
        heard.iter().all(|packet| packet.payload.len() == bytes),
        "packets of another length than ptime"
    );
    Ok(())
}

fn samples(packets: &[Packet], law: Law) -> Vec<i16> {
    let mut samples = Vec::new();
    packets
        .iter()
        .for_each(|packet| law.decode(&packet.payload, &mut samples));
    samples
}

async fn a_phone_hears_an_even_stream(lab: Arc<Lab>) -> anyhow::Result<()> {
    let watch = Watch::start(1);
    let phone = Phone::call(&lab.asterisk, "tone", PhoneOptions::default()).await?;
    phone.say(&[0; 100 * FRAME]);
    phone.quiet().await;
    let heard = Reception::of(&phone.hang_up().await?);
    let stalls = watch.stalls();
    ensure!(
        heard.packets > 80,
        "{} packets in two seconds",
        heard.packets
    );
    // Asterisk makes up for a stall of 80 ms with a jump.
    ensure!(
        heard.lost == 0 && heard.jumps.max(heard.markers) <= stalls,
        "{heard:?}, {stalls} stalls of the machine"
    );
    ensure!(
        (7..=60).contains(&heard.gap(0.5).as_millis()),
        "{:?} between packets",
        heard.gap(0.5)
    );
    Ok(())
}

async fn a_phone_presses_all_sixteen_keys(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    let (phone, mut line) = phone_call(&lab, &server, "app", PhoneOptions::default()).await?;
    phone.press("0123456789*#ABCD");
    ensure!(sixteen_keys(&mut line).await? == "0123456789*#ABCD");
    phone.quiet().await;
    phone.hang_up().await?;
    line.read_to_end().await
}

async fn a_lossy_phone_loses_its_share(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    let options = PhoneOptions {
        loss: 0.5,
        seed: 3,
        ..PhoneOptions::default()
    };
    let (phone, mut line) = phone_call(&lab, &server, "dial_slin", options).await?;
    phone.say(&[8_000; 100 * FRAME]);
    phone.quiet().await;
    phone.hang_up().await?;
    let mut loud = 0;
    while let Some((kind, payload)) = line.read().await? {
        loud += usize::from(kind == SLIN && from_bytes(&payload).any(|sample| sample > 4_000));
    }
    ensure!(
        (30..=70).contains(&loud),
        "{loud} of 100 frames came through"
    );
    Ok(())
}

async fn a_muted_phone_sends_nothing(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    let options = PhoneOptions {
        muted: true,
        ..PhoneOptions::default()
    };
    let (phone, mut line) = phone_call(&lab, &server, "dial_slin", options).await?;
    ensure!(
        tokio::time::timeout(Duration::from_secs(1), line.read())
            .await
            .is_err(),
        "it sent something"
    );
    phone.hang_up().await?;
    line.read_to_end().await
}

async fn a_phone_is_told_why_its_call_is_refused(lab: Arc<Lab>) -> anyhow::Result<()> {
    match Phone::call(&lab.asterisk, "nobody", PhoneOptions::default()).await {
        Err(PhoneError::Refused { status }) if status.starts_with("404") => Ok(()),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn external_media_hears_its_bridge(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    let id = Uuid::new_v4();
    let mut ari = Ari::connect(&lab.asterisk, "external-media").await?;
    let caller = ari.originate("Local/tone@caller/n").await?;
    ari.started(&caller, SOON).await?;
    let media = ari
        .external_media(&server.address().to_string(), &id.to_string(), "slin")
        .await?;
    ari.started(&media, SOON).await?;
    let mut line = server.line().await?;
    ensure!(line.id == id);
    let bridge = ari.bridge().await?;
    ari.add_channel(&bridge, &caller).await?;
    ari.add_channel(&bridge, &media).await?;
    let heard = line
        .talk(&[], |heard| {
            heard.iter().filter(|sample| sample.abs() > 1_000).count() > 8_000
        })
        .await?;
    ensure!(heard.len() < 80_000, "a tone is loud all the time");
    line.hang_up().await?;
    ari.ended(&media, SOON).await?;
    ari.hang_up(&caller).await?;
    ari.remove_bridge(&bridge).await?;
    Ok(())
}

async fn a_created_channel_says_its_id_when_dialled(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Listener::bind().await?;
    let id = Uuid::new_v4();
    let mut ari = Ari::connect(&lab.asterisk, "create").await?;
    let channel = ari
        .create(&format!("AudioSocket/{}/{id}/c(slin)", server.address()))
        .await?;
    let connection = server.connection().await?;
    let silent = tokio::time::timeout(Duration::from_millis(500), connection.peek(&mut [0])).await;
    ensure!(silent.is_err(), "it spoke before it was dialled");
    ari.dial(&channel).await?;
    let line = Line::of(connection).await?;
    ensure!(line.id == id);
    ari.started(&channel, SOON).await?;
    line.hang_up().await?;
    ari.ended(&channel, SOON).await?;
    Ok(())
}

/// A call whose caller is `caller` and stays for so many seconds, through `target` to the server.
fn local(server: &Listener, target: &str, caller: &str, seconds: f64) -> Originate {
    Originate::exten(&format!("Local/{target}@target/n"), "caller", caller)
        .variable("__U", &Uuid::new_v4().to_string())
        .variable("__D", &server.address().to_string())
        .variable("__S", &seconds.to_string())
}

/// A phone's call to the server, and the server's end of it.
async fn phone_call(
    lab: &Lab,
    server: &Listener,
    mode: &str,
    options: PhoneOptions,
) -> anyhow::Result<(Phone, Line)> {
    let id = Uuid::new_v4();
    let number = format!("{mode}-{}-{id}", server.address().port());
    let phone = Phone::call(&lab.asterisk, &number, options).await?;
    let line = server.line().await?;
    ensure!(line.id == id);
    Ok((phone, line))
}

/// Sixteen keys, while silence keeps the call alive.
async fn sixteen_keys(line: &mut Line) -> anyhow::Result<String> {
    let mut keys = String::new();
    while keys.len() < 16 {
        let key = line.read_kind(DTMF).await?;
        ensure!(key.len() == 1);
        keys.push(char::from(key[0]));
        line.write(SLIN, &[0; 2 * FRAME]).await?;
    }
    Ok(keys)
}
