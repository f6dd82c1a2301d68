//! Handlers that tell the scenario what they heard.

use std::time::Duration;

use anyhow::Context;
use sidetone::{
    Call, CallHandle, CodecNotice, Event, Handler, PlayError, Server, ServerBuilder, ServerHandle,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::serve::PREBUFFER;
use crate::wire::SOON;

/// What a handler learned of its call.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) id: Uuid,
    /// All that the caller said.
    pub(crate) samples: Vec<i16>,
    pub(crate) digits: String,
    pub(crate) codec: Vec<CodecNotice>,
    /// Frames that the handler itself missed.
    pub(crate) lagged: u64,
}

/// Settings for these handlers: they share their threads with the callers, and may be late for it.
pub(crate) fn builder() -> ServerBuilder {
    Server::builder().receive_buffer(SOON)
}

/// Plays to the caller what the caller says, and reports it.
pub(crate) fn echo(reports: UnboundedSender<Report>) -> impl Handler {
    move |mut call: Call| {
        let reports = reports.clone();
        async move {
            let mut line = call.live();
            line.set_prebuffer(PREBUFFER);
            let report = listen(&mut call, |samples| line.push(samples)).await;
            // The scenario may have seen enough.
            let _ = reports.send(report);
        }
    }
}

/// Plays `sound` of 8 kHz to every caller, then silence until the caller hangs up; reports what the caller said.
pub(crate) fn play(sound: Vec<i16>, reports: UnboundedSender<Report>) -> impl Handler {
    move |mut call: Call| {
        let (sound, reports) = (sound.clone(), reports.clone());
        async move {
            call.player(8_000)
                .map_err(|_| PlayError::Closed)?
                .play(&sound)
                .await?;
            let _ = reports.send(listen(&mut call, |_| {}).await);
            Ok::<_, PlayError>(())
        }
    }
}

async fn listen(call: &mut Call, mut hear: impl FnMut(&[i16])) -> Report {
    let mut report = Report {
        id: call.id(),
        samples: Vec::new(),
        digits: String::new(),
        codec: Vec::new(),
        lagged: 0,
    };
    while let Some(event) = call.next().await {
        match event {
            Event::Audio(frame) => {
                hear(frame.samples());
                report.samples.extend_from_slice(frame.samples());
            }
            Event::Dtmf(digit) => report.digits.push(digit),
            Event::Codec(notice) => report.codec.push(notice),
            Event::Lagged { frames } => report.lagged += frames,
            _ => {}
        }
    }
    report
}

/// The next report, which comes when a call is over.
pub(crate) async fn report(reports: &mut UnboundedReceiver<Report>) -> anyhow::Result<Report> {
    let report = timeout(6 * SOON, reports.recv())
        .await
        .context("a handler does not end")?;
    report.context("the server is gone")
}

/// The server's call of this UUID, once it is there.
pub(crate) async fn arrived(server: &ServerHandle, id: Uuid) -> anyhow::Result<CallHandle> {
    let found = async {
        loop {
            if let Some(call) = server.call(id) {
                return call;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, found)
        .await
        .context("the call does not come to the server")
}
