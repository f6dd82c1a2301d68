//! How handlers end: what is a failure and what is not, who hears of one, and what the log says.
#![allow(clippy::unwrap_used)]

use std::{
    error::Error,
    fmt::{Debug, Write},
    sync::{Arc, Mutex, Once},
};

use anyhow::Context;
use sidetone::{Call, EndReason, HandlerError, PlayError, Server, Uuid};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::support::{call, id, is_callers_end, millis, serve};

/// Everything that this process has logged.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        LOG.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

fn logged(id: Uuid) -> Vec<String> {
    let log = LOG.lock().unwrap();
    let id = id.to_string();
    log.iter()
        .filter(|line| line.contains(&id))
        .cloned()
        .collect()
}

/// A program's own error, with a transparent variant.
#[derive(Debug, thiserror::Error)]
enum Own {
    #[error("the greeting failed")]
    Greeting(#[source] PlayError),
    #[error(transparent)]
    Play(#[from] PlayError),
    #[error("no account has the number {0}")]
    NoAccount(u32),
}

async fn speak_on(call: &Call) -> Result<(), PlayError> {
    let mut player = call.player(8_000).unwrap();
    loop {
        player.play(&[1; 8_000]).await?;
        player.drained().await?;
    }
}

/// Serves one call with `handler` until its caller, if nobody else, has hung up.
async fn served<H: sidetone::Handler>(number: u128, handler: H) -> (EndReason, Vec<String>) {
    keep_log();
    let server = serve(Server::builder(), handler).await;
    call(server.caller().uuid(id(number)).hang_up_after(millis(500))).await;
    let ended = server.end().await;
    (ended[0].reason, logged(id(number)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_is_no_failure_in_anyhow_with_context() {
    async fn handle(call: Call) -> anyhow::Result<()> {
        speak_on(&call).await.context("while it greeted")?;
        Ok(())
    }
    let (reason, log) = served(0xa1, handle).await;
    assert!(is_callers_end(reason), "{reason}");
    assert!(log.is_empty(), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_is_no_failure_in_an_enum_of_ones_own() {
    async fn named(call: Call) -> Result<(), Own> {
        speak_on(&call).await.map_err(Own::Greeting)
    }
    async fn transparent(call: Call) -> Result<(), Own> {
        Ok(speak_on(&call).await?)
    }
    async fn boxed(call: Call) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(transparent(call).await?)
    }
    let ended = [
        served(0xb1, named).await,
        served(0xb2, transparent).await,
        served(0xb3, boxed).await,
    ];
    for (reason, log) in ended {
        assert!(is_callers_end(reason), "{reason}");
        assert!(log.is_empty(), "{log:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_one_line_with_all_its_sources() {
    async fn handle(_: Call) -> anyhow::Result<()> {
        Err(Own::NoAccount(7)).context("in the menu")
    }
    let (reason, log) = served(0xc1, handle).await;
    assert_eq!(reason, EndReason::HandlerFailed);
    let [line] = &log[..] else { panic!("{log:?}") };
    for part in [
        "WARN",
        "a handler failed; its call is hung up",
        "it returned an error: in the menu: no account has the number 7",
    ] {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_one_line_with_its_message() {
    async fn handle(call: Call) {
        assert!(call.id().is_nil(), "as this test wants it");
    }
    let (reason, log) = served(0xd1, handle).await;
    assert_eq!(reason, EndReason::HandlerFailed);
    let [line] = &log[..] else { panic!("{log:?}") };
    let said = "it panicked: as this test wants it";
    assert!(line.contains("WARN") && line.contains(said), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_gets_failures_and_panics_in_place_of_the_log() {
    keep_log();
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&failures);
    let settings = Server::builder()
        .on_handler_error(move |call, error| told.lock().unwrap().push((call.id, error)));
    let server = serve(settings, async |call: Call| -> Result<(), Own> {
        match call.id().as_u128() {
            0xe1 => Err(Own::NoAccount(7)),
            0xe2 => panic!("as this test wants it"),
            _ => Ok(speak_on(&call).await?),
        }
    });
    let server = server.await;
    for number in [0xe1, 0xe2, 0xe3] {
        call(server.caller().uuid(id(number)).hang_up_after(millis(500))).await;
    }
    let ended = server.end().await;
    assert_eq!(ended.len(), 3);
    let failures = std::mem::take(&mut *failures.lock().unwrap());
    let [
        (first, HandlerError::Returned(error)),
        (second, HandlerError::Panicked(text)),
    ] = &failures[..]
    else {
        panic!("{failures:?}");
    };
    assert_eq!((*first, *second), (id(0xe1), id(0xe2)));
    assert!(matches!(error.downcast_ref(), Some(Own::NoAccount(7))));
    assert_eq!(text, "as this test wants it");
    for number in [0xe1, 0xe2, 0xe3] {
        assert!(logged(id(number)).is_empty());
    }
}
