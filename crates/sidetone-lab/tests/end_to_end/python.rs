//! The examples of the Python module, run from its wheel, behind a real Asterisk.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use sidetone_audio::tone::caller_voice;
use sidetone_caller::{Codec, exact_runs, ramp};
use sidetone_lab::python::{Environment, Example, Packages};
use sidetone_services::google::{Rules, Service};
use sidetone_services::synthesize;

use crate::alike::alike_in_pieces;
use crate::person::{Sound, samples};
use crate::serve::{Way, dial, place};
use crate::wire::{FRAME, SOON};
use crate::{Lab, available, scenarios, sound_file};

scenarios![
    echo_echoes,
    echo_understands_the_codec_of_dial,
    playback_plays_to_the_last_sample,
    transcribe_ends_the_call_with_its_stop_word,
    transcribe_hears_one_call_at_a_time,
    transcribe_ends_the_call_in_time,
    a_caller_interrupts_a_pipeline_in_the_process_of_the_calls,
];

/// A sample that is no silence, whatever the way has added to it.
const LOUD: u16 = 1_000;

async fn echo_echoes(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some(environment) = available(Environment::new(&[]).await)? else {
        return Ok(());
    };
    let echo = environment.start("echo.py", &[]).await?;
    for way in [Way::Application, Way::Dial("slin")] {
        echoed(&lab, &echo, way).await?;
    }
    Ok(())
}

/// What comes is µ-law or A-law, a byte for each sample, and what goes out is linear in any case.
async fn echo_understands_the_codec_of_dial(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some(environment) = available(Environment::new(&[]).await)? else {
        return Ok(());
    };
    for codec in ["ulaw", "alaw"] {
        let echo = environment.start("echo.py", &["--codec", codec]).await?;
        echoed(&lab, &echo, Way::Dial(codec)).await?;
    }
    Ok(())
}

async fn echoed(lab: &Lab, echo: &Example, way: Way) -> anyhow::Result<()> {
    let call = place(lab, echo.address(), way).await?;
    let said = caller_voice(8_000, Duration::from_secs(2), 1);
    let likeness = alike_in_pieces(&said, &call.hears(&said).await?, 8_000);
    ensure!(likeness >= 0.95, "{way:?}: correlates {likeness:.4}");
    call.person.hang_up().await?;
    let over = format!("{}: over", call.id.simple());
    echo.line(|line| line == over).await?;
    let printed = echo.printed();
    ensure!(!printed.contains("Traceback"), "{printed}");
    Ok(())
}

async fn playback_plays_to_the_last_sample(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some(environment) = available(Environment::new(&[]).await)? else {
        return Ok(());
    };
    let folder = tempfile::tempdir_in(lab.asterisk.folder())?;
    // The last frame is none that is full.
    let (file, sound) = (
        folder.path().join("sound.wav"),
        ramp(1, 0, 250 * FRAME + 77),
    );
    sound_file::write(&file, 8_000, &sound)?;
    let file = file.display().to_string();
    let playback = environment.start("playback.py", &[&file]).await?;
    let ways = [Way::Application, Way::DialOn("slin"), Way::DialOn("ulaw")];
    // What goes out is linear whatever comes in. All at once, each from the beginning.
    let mut calls = Vec::new();
    for way in ways {
        let call = dial(&lab, playback.address(), way, Codec::default()).await?;
        calls.push((way, call));
    }
    for (way, mut call) in calls {
        call.reaches(way.after()).await?;
        call.person.ended(SOON).await?;
        let heard = samples(&call.person.heard());
        let runs = exact_runs(&sound, &heard);
        ensure!(
            matches!(runs[..], [run] if run.source == 0 && run.length >= sound.len()),
            "{way:?}: {runs:?} of {}",
            sound.len()
        );
        let over = format!("{}: over", call.id.simple());
        playback.line(|line| line == over).await?;
    }
    let printed = playback.printed();
    ensure!(!printed.contains("Traceback"), "{printed}");
    Ok(())
}

/// The stand-in for Google's service, and the example that knows no other.
async fn transcribe(options: &[&str]) -> anyhow::Result<Option<(Service, Example)>> {
    let Some(environment) = available(Environment::new(&[Packages::Google]).await)? else {
        return Ok(None);
    };
    let mut google = Service::new(Rules::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = google.listen(listener)?.to_string();
    let words = ["--project", "test", "--emulator", &address];
    let example = environment
        .start("transcribe.py", &[&words[..], options].concat())
        .await?;
    Ok(Some((google, example)))
}

async fn transcribe_ends_the_call_with_its_stop_word(lab: Arc<Lab>) -> anyhow::Result<()> {
    for (way, codec) in [
        (Way::Application, "slin"),
        (Way::DialOn("slin"), "slin"),
        (Way::DialOn("ulaw"), "ulaw"),
    ] {
        let Some((google, example)) = transcribe(&["--codec", codec]).await? else {
            return Ok(());
        };
        let mut call = place(&lab, example.address(), way).await?;
        let id = call.id.simple();
        // Neither a longer word nor one that only begins with it.
        for words in [["hello", "stopped"], ["well", "stop"]] {
            call.person.say(&synthesize(&words, 8_000));
            let said = format!("{id}: said: {}", words.join(" "));
            example.line(|line| line == said).await?;
        }
        call.reaches(way.after()).await?;
        call.person.ended(SOON).await?;
        let over = format!("{id}: over");
        example.line(|line| line == over).await?;
        let streams = google.calls();
        ensure!(streams.len() == 1, "{} streams", streams.len());
        let printed = example.printed();
        ensure!(!printed.contains("Traceback"), "{printed}");
    }
    Ok(())
}

async fn transcribe_hears_one_call_at_a_time(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some((_google, example)) = transcribe(&[]).await? else {
        return Ok(());
    };
    let call = place(&lab, example.address(), Way::Application).await?;
    let started = format!("{}: started", call.id.simple());
    example.line(|line| line == started).await?;
    let mut further = dial(&lab, example.address(), Way::Application, Codec::default()).await?;
    further.reaches(Way::Application.after()).await?;
    further.person.ended(SOON).await?;
    // The one that is there notices nothing.
    call.person.say(&synthesize(&["first"], 8_000));
    let said = format!("{}: said: first", call.id.simple());
    example.line(|line| line == said).await?;
    call.person.hang_up().await?;
    let over = format!("{}: over", call.id.simple());
    example.line(|line| line == over).await?;
    // And now there is room for another one.
    let next = place(&lab, example.address(), Way::Application).await?;
    next.person.say(&synthesize(&["next"], 8_000));
    let said = format!("{}: said: next", next.id.simple());
    example.line(|line| line == said).await?;
    next.person.hang_up().await?;
    let printed = example.printed();
    ensure!(!printed.contains("Traceback"), "{printed}");
    Ok(())
}

async fn transcribe_ends_the_call_in_time(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some((_google, example)) = transcribe(&["--time-limit", "2"]).await? else {
        return Ok(());
    };
    let mut call = place(&lab, example.address(), Way::Application).await?;
    call.person.say(&synthesize(&["hello"], 8_000));
    let out = format!("{}: hanging up: the time is over", call.id.simple());
    example.line(|line| line == out).await?;
    call.reaches(Way::Application.after()).await?;
    call.person.ended(SOON).await?;
    let printed = example.printed();
    ensure!(!printed.contains("Traceback"), "{printed}");
    Ok(())
}

async fn a_caller_interrupts_a_pipeline_in_the_process_of_the_calls(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let Some(environment) = available(Environment::new(&[Packages::Bots]).await)? else {
        return Ok(());
    };
    let bot = environment.start("pipecat_bot.py", &[]).await?;
    let call = place(&lab, bot.address(), Way::Application).await?;
    // The pipeline is built when the call has begun, and speaks for half a minute.
    while loud(&call.person.heard()) < 100 {
        call.person.has_heard(call.person.heard().len() + 1).await?;
    }
    call.person
        .say(&caller_voice(8_000, Duration::from_secs(1), 1));
    bot.line(|line| line == "interrupted").await?;
    let interrupted = call.person.heard().len();
    call.person.has_heard(interrupted + 100).await?;
    // A quarter of a second for what was on its way.
    let after = loud(&call.person.heard()[interrupted + 12..]);
    ensure!(
        after == 0,
        "{after} messages of sound after the interruption"
    );
    call.person.hang_up().await?;
    let over = format!("{}: over", call.id);
    bot.line(|line| line == over).await?;
    let printed = bot.printed();
    ensure!(!printed.contains("Traceback"), "{printed}");
    Ok(())
}

/// How many messages hold sound.
fn loud(heard: &[Sound]) -> usize {
    let is_loud = |sound: &&Sound| {
        let samples = samples(std::slice::from_ref(*sound));
        samples.iter().any(|sample| sample.unsigned_abs() > LOUD)
    };
    heard.iter().filter(is_loud).count()
}
