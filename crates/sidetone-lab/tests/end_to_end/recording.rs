//! Recordings of real calls: the caller left, the server right, on one clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use sidetone::record::{Recorder, Report};
use sidetone::{Call, Server};
use sidetone_caller::{exact_runs, ramp};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::person::Sound;
use crate::serve::{Served, Way, place};
use crate::wire::{FRAME, SOON, contains, from_bytes};
use crate::{Lab, scenarios};

scenarios![both_sides_stand_on_one_clock];

/// How far apart two moments of a file may be from where they were on the line: jitter below 30 ms moves nothing, and Asterisk
/// holds back for a millisecond. A machine that stands still in one of them adds to that.
const ASTRAY: f64 = 0.5;

async fn both_sides_stand_on_one_clock(lab: Arc<Lab>) -> anyhow::Result<()> {
    let ways = [Way::Application, Way::Dial("slin")];
    try_join_all(ways.map(|way| recorded(&lab, way)))
        .await
        .map(drop)
}

async fn recorded(lab: &Lab, way: Way) -> anyhow::Result<()> {
    let (said, played) = (ramp(1, 0, 150 * FRAME), ramp(2, 0, 150 * FRAME));
    let folder = tempfile::tempdir_in(lab.asterisk.folder())?;
    let recorder = Arc::new(Recorder::new(folder.path())?);
    let (tell, mut told) = mpsc::unbounded_channel::<Report>();
    let to_play = played.clone();
    let handler = move |call: Call| {
        let (tell, recorder, played) = (tell.clone(), Arc::clone(&recorder), to_play.clone());
        async move {
            let recording = recorder.record(&call.handle())?;
            call.player(8_000)?.play(&played).await?;
            call.closed().await;
            tell.send(recording.ended().await)?;
            anyhow::Ok(())
        }
    };
    let server = Served::start(Server::builder(), handler).await?;
    let call = place(lab, server.address, way).await?;
    call.hears(&said).await?;
    let (saying, hearing) = (
        began(&call.person.said(), &said)?,
        began(&call.person.heard(), &played)?,
    );
    call.person.hang_up().await?;

    let report = timeout(SOON, told.recv()).await?.context("no recording")?;
    ensure!(
        report.ended && report.failure.is_none() && report.lost_frames == 0,
        "{report:?}"
    );
    let [file] = &report.files[..] else {
        anyhow::bail!("{report:?}");
    };
    let (left, right) = tracks(file)?;
    let (in_left, in_right) = (exact_runs(&said, &left), exact_runs(&played, &right));
    for (side, runs) in [("left", &in_left), ("right", &in_right)] {
        let whole: usize = runs.iter().map(|run| run.length.min(said.len())).sum();
        // A machine that is busy for longer than 30 ms leaves a mark.
        ensure!(
            whole >= said.len() * 9 / 10,
            "{way:?}, {side}: {runs:?}; {report:?}"
        );
    }
    let in_file = (in_left[0].heard as f64
        - in_left[0].source as f64
        - (in_right[0].heard as f64 - in_right[0].source as f64))
        / 8e3;
    let on_the_line = match saying.checked_duration_since(hearing) {
        Some(after) => after.as_secs_f64(),
        None => -(hearing - saying).as_secs_f64(),
    };
    eprintln!(
        "    {way:?}: the caller spoke {in_file:.3} s after the server in the file, {on_the_line:.3} s on the line; left in {} pieces, right in {}",
        in_left.len(),
        in_right.len()
    );
    ensure!((in_file - on_the_line).abs() < ASTRAY);
    Ok(())
}

/// When the message with the first sample of it came or went.
fn began(sounds: &[Sound], whole: &[i16]) -> anyhow::Result<Instant> {
    let sound = sounds
        .iter()
        .find(|sound| contains(&sound.samples, &whole[..8]));
    Ok(sound.context("it never began")?.at)
}

/// The left and the right channel of a WAV file at 8 kHz.
pub(crate) fn tracks(file: &Path) -> anyhow::Result<(Vec<i16>, Vec<i16>)> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let channels_and_rate = [&2u16.to_le_bytes()[..], &8_000u32.to_le_bytes()[..]].concat();
    ensure!(
        bytes.get(22..28) == Some(&channels_and_rate[..]),
        "not stereo at 8 kHz"
    );
    let interleaved: Vec<i16> = from_bytes(&bytes[44..]).collect();
    Ok(interleaved
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .unzip())
}
