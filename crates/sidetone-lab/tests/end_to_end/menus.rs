//! The examples of menus, mailboxes, bridges, streamed speech and transcription, with phones on the other side of Asterisk.

#[allow(dead_code)]
#[path = "../../../sidetone/examples/bridge.rs"]
mod bridge;
#[allow(dead_code)]
#[path = "../../../sidetone/examples/ivr.rs"]
mod ivr;
#[allow(dead_code)]
#[path = "../../../sidetone/examples/streamed_speech.rs"]
mod streamed_speech;
#[allow(dead_code)]
#[path = "../../../sidetone-speech/examples/transcribe.rs"]
mod transcribe;
#[allow(dead_code)]
#[path = "../../../sidetone/examples/voicemail.rs"]
mod voicemail;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::try_join;
use sidetone::{Clip, EndReason, Server};
use sidetone_audio::g711::Law;
use sidetone_caller::exact_runs;
use sidetone_lab::phone::{Phone, PhoneOptions};
use sidetone_services::{google, synthesize};
use sidetone_speech::google::Google;
use tokio::net::TcpListener;

use crate::phones::{dial, samples, speakable};
use crate::serve::Served;
use crate::{Lab, scenarios};

scenarios![
    a_phone_goes_through_the_menu,
    a_phone_leaves_a_message_and_hears_it,
    two_phones_are_bridged_and_the_one_left_waits_again,
    a_phone_hears_streamed_speech_and_ends_it_by_a_key,
    a_phone_is_transcribed_until_the_stop_word,
];

/// No example keeps a phone for longer.
const LONG: Duration = Duration::from_secs(30);

const LAW: Law = Law::Ulaw;

async fn call(lab: &Lab, server: &Served) -> anyhow::Result<Phone> {
    let options = PhoneOptions {
        law: LAW,
        ..PhoneOptions::default()
    };
    dial(lab, server, options).await.map(|(phone, _)| phone)
}

/// Noise that passes the phone's law unchanged.
fn noise(seed: u64, millis: u64) -> Vec<i16> {
    speakable(LAW, seed, Duration::from_millis(millis))
}

fn wait(phone: &Phone, millis: usize) {
    phone.say(&vec![0; millis * 8]);
}

/// How many samples of it were heard, and the first of them.
fn found(whole: &[i16], heard: &[i16]) -> (usize, Option<usize>) {
    let runs = exact_runs(whole, heard);
    let first = runs.first().map(|run| run.source);
    (runs.iter().map(|run| run.length).sum(), first)
}

async fn a_phone_goes_through_the_menu(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (menu, news, beep) = (noise(1, 20_000), noise(2, 2_000), noise(3, 100));
    let clip = |samples: &[i16]| Clip::from_samples(8_000, samples.to_vec());
    let sounds = ivr::Sounds {
        menu: clip(&menu)?,
        news: clip(&news)?,
        beep: clip(&beep)?,
    };
    let handler = move |call| ivr::menu(call, sounds.clone());
    let server = Served::start(Server::builder(), handler).await?;
    let mut phone = call(&lab, &server).await?;
    wait(&phone, 1_000);
    phone.press("1");
    wait(&phone, 3_000);
    phone.press("212##");
    let heard = samples(&phone.ended(LONG).await?, LAW);
    let (in_menu, in_news, in_beeps) = (
        found(&menu, &heard),
        found(&news, &heard),
        found(&beep, &heard),
    );
    eprintln!("    of the menu {in_menu:?}, the news {in_news:?}, the beeps {in_beeps:?} samples");
    ensure!(
        in_menu.1 == Some(0) && in_menu.0 < menu.len() / 2,
        "{in_menu:?}"
    );
    ensure!(in_news.0 >= news.len(), "{in_news:?}");
    ensure!(in_beeps.0 >= 3 * beep.len(), "{in_beeps:?}");
    Ok(())
}

async fn a_phone_leaves_a_message_and_hears_it(lab: Arc<Lab>) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (greeting, said) = (noise(1, 1_000), noise(2, 3_000));
    let (clip, path) = (
        Clip::from_samples(8_000, greeting.clone())?,
        directory.path().to_owned(),
    );
    let handler = move |call| voicemail::mailbox(call, clip.clone(), path.clone());
    let server = Served::start(Server::builder(), handler).await?;
    let mut phone = call(&lab, &server).await?;
    wait(&phone, 2_000);
    phone.say(&said);
    phone.press("#");
    let heard = samples(&phone.ended(LONG).await?, LAW);
    let file = std::fs::read_dir(directory.path())?.next();
    let kept = read(
        &file
            .transpose()?
            .map(|entry| entry.path())
            .unwrap_or_default(),
    )?;
    let (greeted, kept, back) = (
        found(&greeting, &heard),
        found(&said, &kept),
        found(&said, &heard),
    );
    eprintln!(
        "    of {} samples {kept:?} kept, {back:?} heard again",
        said.len()
    );
    ensure!(greeted.1 == Some(0), "{greeted:?}");
    ensure!(
        kept.0 >= said.len() && back.0 >= said.len(),
        "{kept:?}, {back:?}"
    );
    Ok(())
}

/// The samples of a WAV file.
fn read(path: &Path) -> anyhow::Result<Vec<i16>> {
    Ok(sidetone_audio::sound::Sound::open(path)?.samples)
}

async fn two_phones_are_bridged_and_the_one_left_waits_again(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (waiting, music) = (bridge::Waiting::default(), noise(1, 1_000));
    let clip = Clip::from_samples(8_000, music.clone())?;
    let handler = move |call| bridge::pair(call, Arc::clone(&waiting), clip.clone());
    let server = Served::start(Server::builder(), handler).await?;
    let (of_first, of_second) = (noise(2, 4_000), noise(3, 4_000));
    let first = call(&lab, &server).await?;
    wait(&first, 1_000);
    first.quiet().await;
    let second = call(&lab, &server).await?;
    // What is said before both are connected is heard by nobody.
    wait(&first, 500);
    wait(&second, 500);
    first.say(&of_first);
    second.say(&of_second);
    first.quiet().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let heard = first.hang_up().await?;
    wait(&second, 1_500);
    second.quiet().await;
    let (first, second) = (samples(&heard, LAW), samples(&second.hang_up().await?, LAW));
    let (music_first, music_second) = (found(&music, &first), found(&music, &second));
    let (to_first, to_second) = (found(&of_second, &first), found(&of_first, &second));
    eprintln!(
        "    first: {} of music, {} of the other; second: {} of music, {} of the other",
        music_first.0, to_first.0, music_second.0, to_second.0
    );
    ensure!(music_first.0 > 0 && music_second.0 > 0, "no music");
    // A live relay may give up a frame to stay close.
    ensure!(to_first.0 >= of_second.len() * 9 / 10, "{to_first:?}");
    ensure!(to_second.0 >= of_first.len() * 9 / 10, "{to_second:?}");
    Ok(())
}

async fn a_phone_hears_streamed_speech_and_ends_it_by_a_key(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Served::start(Server::builder(), streamed_speech::tell).await?;
    let whole = async {
        let mut phone = call(&lab, &server).await?;
        anyhow::Ok(loud(&samples(&phone.ended(LONG).await?, LAW)))
    };
    let cut = async {
        let mut phone = call(&lab, &server).await?;
        wait(&phone, 1_500);
        phone.press("#");
        anyhow::Ok(loud(&samples(&phone.ended(LONG).await?, LAW)))
    };
    let (whole, cut) = try_join(whole, cut).await?;
    eprintln!("    sound of {whole:?}, and of {cut:?} until the key");
    // Three sentences of two seconds, each with pauses of its own.
    ensure!(whole > Duration::from_secs(4), "{whole:?}");
    ensure!(
        cut > Duration::ZERO && cut < whole / 2,
        "{cut:?} of {whole:?}"
    );
    Ok(())
}

async fn a_phone_is_transcribed_until_the_stop_word(lab: Arc<Lab>) -> anyhow::Result<()> {
    let mut service = google::Service::new(google::Rules::default());
    let address = service.listen(TcpListener::bind("127.0.0.1:0").await?)?;
    let google = Google::new(["en-US"])
        .project("test")
        .endpoint(format!("http://{address}"));
    let google = Arc::new(google);
    let handler = move |call| transcribe::transcribe_call(call, Arc::clone(&google));
    let mut server = Served::start(transcribe::settings(), handler).await?;
    let mut phone = call(&lab, &server).await?;
    wait(&phone, 500);
    phone.say(&synthesize(&["please", "stop", "now"], 8_000));
    wait(&phone, 20_000);
    phone.ended(LONG).await?;
    let ended = server.ended().await?;
    ensure!(ended.reason == EndReason::HungUp, "{ended}");
    // The limit of 30 s would be another reason, and later.
    ensure!(ended.duration < Duration::from_secs(15), "{ended}");
    Ok(())
}

/// How much of it is not silence.
fn loud(samples: &[i16]) -> Duration {
    let loud = samples.iter().filter(|sample| sample.unsigned_abs() > 16);
    Duration::from_secs(loud.count() as u64) / 8_000
}
