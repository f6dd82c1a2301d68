//! The example `transcribe` does what its header says.

#[path = "../../../examples/transcribe.rs"]
#[allow(dead_code, reason = "its main is not run")]
mod transcribe;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sidetone_caller::{CallRecord, Caller, EndCause, Voice, call_all};
use sidetone_services::synthesize;
use sidetone_speech::google::Google;
use tokio::{net::TcpListener, task::spawn_blocking};

use super::caller::service;

/// What the example does with its callers.
async fn call(callers: impl FnOnce(SocketAddr) -> Vec<Caller>) -> Vec<CallRecord> {
    let mut service = service();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = service.listen(listener).unwrap();
    let google = Google::new(["en-US"])
        .project("test")
        .endpoint(format!("http://{address}"));
    let google = Arc::new(google);
    let server = transcribe::settings().bind("127.0.0.1:0").await.unwrap();
    let (callers, handle) = (callers(server.local_addr()), server.handle());
    let serving = tokio::spawn(
        server.serve(move |call| transcribe::transcribe_call(call, Arc::clone(&google))),
    );
    let records = spawn_blocking(move || call_all(callers)).await.unwrap();
    handle.shutdown(Duration::ZERO);
    serving.await.unwrap().unwrap();
    records.into_iter().map(Result::unwrap).collect()
}

fn saying(address: SocketAddr, words: &[&str], for_seconds: u64) -> Caller {
    Caller::new(address)
        .say(Voice::Samples(synthesize(words, 8000).into()))
        .hang_up_after(Duration::from_secs(for_seconds))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_word_ends_the_call() {
    let words = ["please", "stop", "now"];
    let records = call(|address| vec![saying(address, &words, 25)]).await;
    assert_eq!(records[0].ended.cause, EndCause::ServerHungUp);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_contains_the_stop_word_does_not_end_the_call_and_a_second_call_is_rejected() {
    let callers = |address| {
        let second = saying(address, &[], 25).start_after(Duration::from_millis(500));
        vec![saying(address, &["nonstop", "music"], 4), second]
    };
    let records = call(callers).await;
    assert_ne!(records[0].ended.cause, EndCause::ServerHungUp);
    assert_eq!(records[1].ended.cause, EndCause::ServerHungUp);
}
