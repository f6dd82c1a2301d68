//! `sidetone transcribe` behind a real Asterisk: when it hangs up, and whom it rejects. Callers speak words that the stand-in
//! for a Vosk server understands exactly.

use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use serde_json::Value;
use sidetone_caller::Codec;
use sidetone_services::synthesize;
use sidetone_services::vosk::VoskServer;

use crate::binary::{Running, is_callers_end};
use crate::serve::{Way, dial, place};
use crate::wire::SOON;
use crate::{Lab, scenarios};

scenarios![
    a_stop_word_ends_the_call,
    a_time_limit_ends_the_call,
    one_call_at_a_time,
];

const WAYS: [Way; 2] = [Way::Application, Way::DialOn("slin")];

async fn a_stop_word_ends_the_call(lab: Arc<Lab>) -> anyhow::Result<()> {
    let vosk = VoskServer::start().await?;
    let mut command = start(lab.asterisk.folder(), &vosk, &["--stop-word", "goodbye"]).await?;
    for way in WAYS {
        let mut call = place(&lab, command.address, way).await?;
        // Neither a longer word nor one that only begins with it.
        for words in [
            ["hello", "there"],
            ["goodbyes", "good"],
            ["well", "goodbye"],
        ] {
            call.person.say(&synthesize(&words, 8_000));
            let said = command.event("transcript").await?;
            ensure!(said["text"] == words.join(" "), "{way:?}: {said}");
            ensure!(said["final"] == true && said["id"] == call.id.to_string());
        }
        hung_up(&mut command, "stop_word").await?;
        call.reaches(way.after()).await?;
        call.person.ended(SOON).await?;
    }
    command.end().await
}

async fn a_time_limit_ends_the_call(lab: Arc<Lab>) -> anyhow::Result<()> {
    let vosk = VoskServer::start().await?;
    let mut command = start(lab.asterisk.folder(), &vosk, &["--time-limit", "2s"]).await?;
    for way in WAYS {
        let mut call = place(&lab, command.address, way).await?;
        call.person.say(&synthesize(&["hello"], 8_000));
        let said = command.event("transcript").await?;
        ensure!(said["text"] == "hello", "{way:?}: {said}");
        let ended = hung_up(&mut command, "time_limit").await?;
        let lasted = ended["duration_ms"].as_u64().unwrap_or_default();
        ensure!((2_000..6_000).contains(&lasted), "{way:?}: {ended}");
        call.reaches(way.after()).await?;
        call.person.ended(SOON).await?;
    }
    command.end().await
}

async fn one_call_at_a_time(lab: Arc<Lab>) -> anyhow::Result<()> {
    let vosk = VoskServer::start().await?;
    let mut command = start(lab.asterisk.folder(), &vosk, &["--max-calls", "1"]).await?;
    let call = place(&lab, command.address, Way::Application).await?;
    for (way, word) in WAYS.into_iter().zip(["first", "second"]) {
        let mut further = dial(&lab, command.address, way, Codec::default()).await?;
        let rejected = command.event("rejected").await?;
        ensure!(
            rejected["id"] == further.id.to_string(),
            "{way:?}: {rejected}"
        );
        further.reaches(way.after()).await?;
        further.person.ended(SOON).await?;
        // The one that is there notices nothing.
        call.person.say(&synthesize(&[word], 8_000));
        let said = command.event("transcript").await?;
        ensure!(said["text"] == word, "{way:?}: {said}");
    }
    call.person.hang_up().await?;
    let ended = command.event("call_ended").await?;
    ensure!(is_callers_end(&ended), "{ended}");
    // And now there is room for another one.
    let next = place(&lab, command.address, Way::Application).await?;
    next.person.say(&synthesize(&["next"], 8_000));
    let said = command.event("transcript").await?;
    ensure!(said["id"] == next.id.to_string(), "{said}");
    next.person.hang_up().await?;
    command.end().await
}

async fn start(folder: &Path, vosk: &VoskServer, options: &[&str]) -> anyhow::Result<Running> {
    let endpoint = vosk.endpoint();
    let words = ["transcribe", "--engine", "vosk", "--endpoint", &endpoint];
    Running::serve(folder, &[&words[..], &["--json"], options].concat()).await
}

/// Waits until the command has hung up for this reason, and answers how the call ended.
async fn hung_up(command: &mut Running, reason: &str) -> anyhow::Result<Value> {
    let hanging_up = command.event("hanging_up").await?;
    ensure!(hanging_up["reason"] == reason, "{hanging_up}");
    let ended = command.event("call_ended").await?;
    ensure!(ended["ended_by"] == "server", "{ended}");
    Ok(ended)
}
