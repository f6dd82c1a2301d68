//! What a caller hears of what is played, cleared, and answered from callbacks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use sidetone::callback::{self, CallInfo, Input, Reply};
use sidetone::{Call, Clip, EndReason, Heard, Server};
use sidetone_audio::tone::caller_voice;
use sidetone_caller::{Codec, exact_runs, ramp};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::alike::alike_in_pieces;
use crate::person::samples;
use crate::serve::{Served, Way, dial, is_callers_end, place};
use crate::wire::{FRAME, SOON};
use crate::{Lab, scenarios};

scenarios![
    what_is_cleared_is_not_heard,
    a_callback_echoes,
    a_callback_plays_and_finishes,
];

async fn what_is_cleared_is_not_heard(lab: Arc<Lab>) -> anyhow::Result<()> {
    let ways = [Way::Application, Way::DialOn("slin")];
    try_join_all(ways.map(|way| cleared(&lab, way)))
        .await
        .map(drop)
}

async fn cleared(lab: &Lab, way: Way) -> anyhow::Result<()> {
    let (tell, mut told) = mpsc::unbounded_channel::<Heard>();
    let handler = move |call: Call| {
        let tell = tell.clone();
        async move {
            let mut player = call.player(8_000)?;
            player.play(&ramp(1, 0, 20 * 8_000)).await?;
            sleep(Duration::from_millis(1_010)).await;
            let cleared = player.clear().await?;
            tell.send(cleared)?;
            // What comes after a pause is heard whole.
            sleep(Duration::from_millis(200)).await;
            player.play(&ramp(2, 0, 50 * FRAME)).await?;
            anyhow::Ok(())
        }
    };
    let server = Served::start(Server::builder(), handler).await?;
    let mut call = dial(lab, server.address, way, Codec::default()).await?;
    let cleared = timeout(SOON, told.recv()).await?.context("no handler")?;
    call.reaches(way.after()).await?;
    call.person.ended(SOON).await?;
    let heard = samples(&call.person.heard());
    let first = exact_runs(&ramp(1, 0, 20 * 8_000), &heard);
    let second = exact_runs(&ramp(2, 0, 50 * FRAME), &heard);
    let played = (cleared.heard.as_secs_f64() * 8e3).round() as usize;
    eprintln!("    {way:?}: {cleared:?}, heard {first:?}");
    ensure!(
        matches!(first[..], [run] if run.source == 0 && run.length == played),
        "{way:?}: {cleared:?}, yet {first:?}"
    );
    ensure!(
        cleared.heard + cleared.unheard == Duration::from_secs(20),
        "{cleared:?}"
    );
    ensure!(
        matches!(second[..], [run] if run.source == 0 && run.length >= 50 * FRAME),
        "{way:?}: {second:?}"
    );
    ensure!(
        played > 8_000 / 2,
        "{way:?}: only {played} samples were played"
    );
    Ok(())
}

async fn a_callback_echoes(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (tell, mut ended) = mpsc::unbounded_channel();
    let on_call = move |_: &CallInfo| {
        let tell = tell.clone();
        move |input: Input<'_>, reply: &mut Reply| match input {
            Input::Audio(frame) => reply.send(frame.samples()),
            Input::Ended(reason) => tell.send(reason).unwrap(),
            _ => {}
        }
    };
    let server =
        callback::start_server(on_call, |_, error| eprintln!("    {error}"), "127.0.0.1:0")?;
    let call = place(&lab, server.local_addr(), Way::Application).await?;
    let said = caller_voice(8_000, Duration::from_secs(2), 1);
    let heard = call.hears(&said).await?;
    call.person.hang_up().await?;
    let likeness = alike_in_pieces(&said, &heard, 8_000);
    ensure!(likeness >= 0.95, "correlates {likeness:.4}");
    let reason = timeout(SOON, ended.recv()).await?;
    ensure!(reason.is_some_and(is_callers_end), "{reason:?}");
    Ok(())
}

async fn a_callback_plays_and_finishes(lab: Arc<Lab>) -> anyhow::Result<()> {
    let whole = ramp(3, 0, 75 * FRAME);
    let clip = Clip::from_samples(8_000, whole.clone())?;
    let (tell, mut told) = mpsc::unbounded_channel();
    let on_call = move |call: &CallInfo| {
        let (tell, clip, id) = (tell.clone(), clip.clone(), call.id);
        // Each call has a state of its own.
        let mut plays = false;
        move |input: Input<'_>, reply: &mut Reply| match input {
            Input::Audio(_) if !plays => {
                plays = true;
                reply.play(&clip);
            }
            Input::PlaybackDrained => reply.finish(),
            Input::Ended(reason) => tell.send((id, reason)).unwrap(),
            _ => {}
        }
    };
    let server =
        callback::start_server(on_call, |_, error| eprintln!("    {error}"), "127.0.0.1:0")?;
    for way in [Way::Application, Way::DialOn("slin")] {
        let mut call = dial(&lab, server.local_addr(), way, Codec::default()).await?;
        call.reaches(way.after()).await?;
        call.person.ended(SOON).await?;
        let runs = exact_runs(&whole, &samples(&call.person.heard()));
        ensure!(
            matches!(runs[..], [run] if run.source == 0 && run.length >= whole.len()),
            "{way:?}: {runs:?}"
        );
        let ended = timeout(SOON, told.recv()).await?;
        ensure!(
            ended == Some((call.id, EndReason::Finished)),
            "{way:?}: {ended:?}"
        );
    }
    Ok(())
}
