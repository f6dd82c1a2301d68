//! Calls that come by ARI: an echo through each, heard by a caller in the same bridge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use sidetone_caller::{Codec, exact_runs, ramp};
use sidetone_lab::ari::Ari;
use tokio::time::sleep;
use uuid::Uuid;

use crate::person::{Person, samples};
use crate::serve::Served;
use crate::wire::{Listener, SOON};
use crate::{Lab, scenarios};

scenarios![
    external_media_echoes_in_its_bridge,
    a_channel_dialled_five_seconds_after_its_creation_echoes,
];

async fn external_media_echoes_in_its_bridge(lab: Arc<Lab>) -> anyhow::Result<()> {
    let mut server = Served::echo().await?;
    let mut ari = Ari::connect(&lab.asterisk, "echo").await?;
    let id = Uuid::new_v4();
    let host = server.address.to_string();
    let media = ari.external_media(&host, &id.to_string(), "slin").await?;
    ari.started(&media, SOON).await?;
    echoes_in_a_bridge(&mut ari, &media).await?;
    ensure!(server.ended().await?.id == id);
    Ok(())
}

/// Asterisk connects when the channel is created, and says which call it is five seconds later.
async fn a_channel_dialled_five_seconds_after_its_creation_echoes(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let mut server = Served::echo().await?;
    let mut ari = Ari::connect(&lab.asterisk, "late").await?;
    let id = Uuid::new_v4();
    let channel = ari.create(&audiosocket(server.address, id)).await?;
    sleep(Duration::from_secs(5)).await;
    ensure!(
        server.handle.calls().is_empty(),
        "a call that has not said which one it is"
    );
    ari.dial(&channel).await?;
    ari.started(&channel, SOON).await?;
    echoes_in_a_bridge(&mut ari, &channel).await?;
    ensure!(server.ended().await?.id == id);
    Ok(())
}

/// Bridges a caller with the channel to the server, and lets the caller judge the echo. Both are hung up in the end.
async fn echoes_in_a_bridge(ari: &mut Ari, media: &str) -> anyhow::Result<()> {
    let phone = Listener::bind().await?;
    let caller = ari
        .originate(&audiosocket(phone.address(), Uuid::new_v4()))
        .await?;
    let person = Person::answer(phone.connection().await?, Codec::default()).await?;
    ari.started(&caller, SOON).await?;
    let bridge = ari.bridge().await?;
    ari.add_channel(&bridge, &caller).await?;
    ari.add_channel(&bridge, media).await?;
    // From the first frame that comes over the bridge on, nothing gets lost any more.
    person.has_heard(1).await?;
    let said = ramp(1, 0, 24_000);
    person.say(&said);
    person.quiet().await;
    sleep(Duration::from_secs(1)).await;
    let runs = exact_runs(&said, &samples(&person.heard()));
    // A live echo may give up a frame to stay close.
    let echoed: usize = runs.iter().map(|run| run.length).sum();
    ensure!(
        echoed >= said.len() * 95 / 100,
        "the echo has these pieces of {}: {runs:?}",
        said.len()
    );
    ari.hang_up(media)
        .await
        .context("the call to the server is gone")?;
    ari.ended(media, SOON).await?;
    ari.hang_up(&caller).await?;
    ari.remove_bridge(&bridge).await?;
    Ok(())
}

fn audiosocket(address: SocketAddr, id: Uuid) -> String {
    format!("AudioSocket/{address}/{id}/c(slin)")
}
