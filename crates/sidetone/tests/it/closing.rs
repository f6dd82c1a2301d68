//! Handlers hear that this side is about to end their call: by an event, and by a future for those who read none.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sidetone::{Admission, Call, ClosingNotice, EndReason, Event, Server};
use sidetone_caller::EndCause;
use tokio::sync::mpsc;

use crate::support::{call, id, is_callers_end, listen, millis, serve};

const SOON: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// What a call's events say of its closing, before its end.
async fn notices(mut call: Call) -> Vec<ClosingNotice> {
    let mut notices = Vec::new();
    while let Some(event) = call.next().await {
        if let Event::Closing(notice) = event {
            notices.push(notice);
        }
    }
    notices
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_reported_once_with_the_grace_time_left() {
    let (started, mut starts) = mpsc::unbounded_channel();
    let (told, mut tell) = mpsc::unbounded_channel();
    let server = serve(Server::builder(), move |call: Call| {
        let (started, told) = (started.clone(), told.clone());
        async move {
            let (handle, tell_events) = (call.handle(), told.clone());
            tokio::spawn(async move {
                // A future that is dropped and made again has lost nothing.
                let dropped = tokio::time::timeout(Duration::ZERO, handle.closing()).await;
                assert!(dropped.is_err());
                started.send(()).unwrap();
                let first = handle.closing().await.unwrap();
                let second = handle.closing().await.unwrap();
                assert!(second.remaining <= first.remaining);
                handle.hang_up();
                handle.closed().await;
                assert_eq!(handle.closing().await, None, "it is over");
                told.send(vec![first]).unwrap();
            });
            tell_events.send(notices(call).await).unwrap();
        }
    });
    let server = server.await;
    let calling = tokio::spawn(call(server.caller().hang_up_after(SOON)));
    starts.recv().await.unwrap();
    server.handle.shutdown(HOUR);
    for _ in 0..2 {
        let notices = tell.recv().await.unwrap();
        let [notice] = notices[..] else {
            panic!("{notices:?}");
        };
        assert_eq!(notice.reason, EndReason::Shutdown);
        assert!(notice.remaining <= HOUR && notice.remaining > HOUR / 2);
    }
    assert_eq!(calling.await.unwrap().ended.cause, EndCause::ServerHungUp);
    // No grace time is waited for: the handler ended its call.
    server.served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_grace_time_is_reported_and_counts_from_the_first_shutdown() {
    let (told, mut tell) = mpsc::unbounded_channel();
    let server = serve(Server::builder(), move |mut call: Call| {
        let told = told.clone();
        async move {
            told.send(None).unwrap();
            while let Some(event) = call.next().await {
                if let Event::Closing(notice) = event {
                    told.send(Some(notice.remaining)).unwrap();
                }
            }
        }
    });
    let server = server.await;
    let calling = tokio::spawn(call(server.caller().hang_up_after(SOON)));
    assert_eq!(tell.recv().await, Some(None));
    for grace in [HOUR, HOUR / 2] {
        server.handle.shutdown(grace);
        let remaining = tell.recv().await.unwrap().unwrap();
        assert!(remaining <= grace && remaining > grace / 2);
    }
    // All of the new grace time has passed.
    server.handle.shutdown(Duration::ZERO);
    assert_eq!(tell.recv().await, Some(Some(Duration::ZERO)));
    assert_eq!(calling.await.unwrap().ended.cause, EndCause::ServerHungUp);
    server.served.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_ends_otherwise_has_no_closing() {
    let (told, mut tell) = mpsc::unbounded_channel();
    let server = serve(Server::builder(), move |call: Call| {
        let told = told.clone();
        async move { told.send(call.closing().await).unwrap() }
    });
    let server = server.await;
    call(server.caller().hang_up_after(millis(300))).await;
    assert_eq!(tell.recv().await, Some(None));
    let ended = server.end().await;
    assert!(is_callers_end(ended[0].reason));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_duration_is_reported_before_it_ends_the_call() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&heard);
    let settings = Server::builder()
        .max_duration(millis(1_500))
        .max_duration_warning(millis(1_000));
    let server = serve(settings, move |call: Call| {
        let tell = Arc::clone(&tell);
        async move {
            let notices = notices(call).await;
            tell.lock().unwrap().extend(notices);
        }
    });
    let server = server.await;
    let record = call(server.caller().hang_up_after(SOON)).await;
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    let ended = server.end().await;
    assert_eq!(ended[0].reason, EndReason::MaxDuration);
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    let [notice] = heard[..] else {
        panic!("{heard:?}");
    };
    assert_eq!(notice.reason, EndReason::MaxDuration);
    assert!(notice.remaining <= millis(1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_overrules_the_longest_duration_for_its_call_either_way() {
    const SHORT: u128 = 1;
    let settings =
        Server::builder()
            .max_duration(SOON)
            .admit(async |info| match info.id.as_u128() {
                SHORT => Admission::accept().max_duration(millis(400)),
                _ => Admission::accept().max_duration(HOUR),
            });
    let server = serve(settings, listen).await;
    let record = call(server.caller().uuid(id(SHORT)).hang_up_after(SOON)).await;
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    assert_eq!(server.end().await[0].reason, EndReason::MaxDuration);

    let settings = Server::builder()
        .max_duration(millis(400))
        .admit(async |_| Admission::accept().max_duration(HOUR));
    let server = serve(settings, listen).await;
    let record = call(server.caller().hang_up_after(millis(1_200))).await;
    assert_eq!(record.ended.cause, EndCause::HungUp);
    let reason = server.end().await[0].reason;
    assert!(is_callers_end(reason), "{reason}");
}
