//! Who is let in, and what those hear who are not.
#![allow(clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{
    IoBackend, builder, call, calls, echo, id, is_callers_end, listen, millis, over_each_back_end,
    serve, until,
};
use macro_rules_attribute::apply;
use sidetone::{Admission, Call, CallInfo, EndReason};
use sidetone_caller::{Caller, EndCause, Voice};
use tokio::sync::Semaphore;

/// All that the other side sends to a call until it closes.
async fn all_said(address: SocketAddr) -> Vec<u8> {
    let listen = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(&[&[0x01, 0, 16][..], &[7; 16]].concat())
            .unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        said
    };
    tokio::task::spawn_blocking(listen).await.unwrap()
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_beyond_the_limit_hears_a_hang_up_and_nothing_else(io: IoBackend) {
    let server = serve(builder(io).max_calls(0), echo).await;
    assert_eq!(all_said(server.address).await, [0, 0, 0]);
    let stats = server.handle.stats();
    assert_eq!((stats.rejected, stats.calls, stats.running), (1, 0, 0));
    let ended = server.end().await;
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].reason, EndReason::Full);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_bounded_and_counted(io: IoBackend) {
    const KEPT: usize = 4096;
    const BEYOND: usize = 100;
    let told = Arc::new(AtomicUsize::new(0));
    let telling = Arc::clone(&told);
    let settings = builder(io).max_calls(0).on_call_end(move |_| {
        telling.fetch_add(1, Ordering::Relaxed);
    });
    let mut server = settings.bind("127.0.0.1:0").await.unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    // Nobody accepts meanwhile.
    for _ in 0..KEPT + BEYOND {
        assert_eq!(all_said(address).await, [0, 0, 0]);
    }
    until(|| handle.stats().unreported == BEYOND).await;
    assert_eq!(handle.stats().rejected, KEPT + BEYOND);
    let accepting = tokio::spawn(async move { server.accept().await.is_some() });
    until(|| told.load(Ordering::Relaxed) == KEPT).await;
    // There is room again.
    all_said(address).await;
    until(|| told.load(Ordering::Relaxed) == KEPT + 1).await;
    assert_eq!(handle.stats().unreported, BEYOND);
    accepting.abort();
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_takes_is_hung_up_when_too_many_wait(io: IoBackend) {
    const AT_ONCE: usize = 64;
    let settings = builder(io).max_calls(AT_ONCE);
    let mut server = settings.bind("127.0.0.1:0").await.unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let brief = move || {
        for _ in 0..4096 + AT_ONCE {
            let mut stream = TcpStream::connect(address).unwrap();
            let whole = [&[0x01, 0, 16][..], &[7; 16], &[0, 0, 0]].concat();
            stream.write_all(&whole).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    };
    tokio::task::spawn_blocking(brief).await.unwrap();
    until(|| handle.stats().running == 0).await;
    assert_eq!((handle.stats().rejected, handle.stats().unreported), (0, 0));
    assert!(all_said(address).await.ends_with(&[0, 0, 0]));
    until(|| handle.stats().unreported == 1).await;
    // Those that waited are handed out although they are over, and there is room again.
    assert!(server.accept().await.unwrap().handle().ended().is_some());
    let caller = Caller::new(address).uuid(id(9)).hang_up_after(millis(500));
    let calling = tokio::task::spawn_blocking(|| caller.call());
    while server.accept().await.unwrap().id() != id(9) {}
    calling.await.unwrap().unwrap();
    assert_eq!(handle.stats().unreported, 1);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_never_answers_keeps_no_call_that_is_over(io: IoBackend) {
    const CALLS: usize = 50;
    // A clone for each question that waits.
    let asking = Arc::new(());
    let asked = Arc::clone(&asking);
    let hook = move |_: CallInfo| {
        let waits = Arc::clone(&asked);
        async move {
            std::future::pending::<()>().await;
            drop(waits);
            Admission::accept()
        }
    };
    let server = serve(builder(io).admit(hook), listen).await;
    let base = Arc::strong_count(&asking);
    let mut streams = Vec::new();
    for _ in 0..CALLS {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let identity = [&[0x01, 0, 16][..], &[7; 16]].concat();
        stream.write_all(&identity).unwrap();
        streams.push(stream);
    }
    until(|| Arc::strong_count(&asking) == base + CALLS).await;
    drop(streams);
    until(|| Arc::strong_count(&asking) == base).await;
    assert_eq!(server.end().await.len(), CALLS);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_call_from_elsewhere_hears_a_hang_up_and_nothing_else(io: IoBackend) {
    let settings = builder(io).allow("10.0.0.0/8".parse().unwrap());
    let server = serve(settings, echo).await;
    assert_eq!(all_said(server.address).await, [0, 0, 0]);
    let ended = server.end().await;
    assert_eq!(ended[0].reason, EndReason::NotAllowed);
    assert_eq!(ended[0].id, id(0x0707_0707_0707_0707_0707_0707_0707_0707));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn the_hook_turns_calls_away_by_uuid_and_gives_data_to_the_others(io: IoBackend) {
    let hook = |info: CallInfo| async move {
        match info.id == id(1) {
            true => Admission::reject(),
            false => Admission::accept_with(String::from("welcome")),
        }
    };
    let (told, mut data) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |call: Call| {
        told.send(call.data::<String>()).unwrap();
        listen(call)
    };
    let server = serve(builder(io).admit(hook), handler).await;
    let refused = server.caller().uuid(id(1)).hang_up_after(millis(30_000));
    let admitted = server.caller().uuid(id(2)).hang_up_after(millis(1_500));
    let records = calls(vec![refused, admitted]).await;
    assert_eq!(records[0].ended.cause, EndCause::ServerHungUp);
    assert!(records[0].heard_samples().iter().all(|sample| *sample == 0));
    assert_eq!(records[1].ended.cause, EndCause::HungUp);
    let data = data.recv().await.unwrap().unwrap();
    assert_eq!(*data, "welcome");
    let stats = server.handle.stats();
    assert_eq!((stats.rejected, stats.calls), (1, 1));
    let mut ended = server.end().await;
    ended.sort_by_key(|summary| summary.id);
    let reasons: Vec<_> = ended.iter().map(|summary| summary.reason).collect();
    assert_eq!(reasons[0], EndReason::Refused);
    assert!(is_callers_end(reasons[1]));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_carries_the_reason_of_the_program_to_the_summary(io: IoBackend) {
    let hook = |info: CallInfo| async move {
        match info.id.as_u128() {
            1 => Admission::reject_with("no ticket"),
            2 => Admission::reject_with("used twice").max_duration(millis(1)),
            _ => Admission::reject(),
        }
    };
    let server = serve(builder(io).admit(hook), echo).await;
    let callers = (1..=3).map(|number| server.caller().uuid(id(number)));
    for record in calls(callers.collect()).await {
        assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    }
    let mut ended = server.end().await;
    ended.sort_by_key(|summary| summary.id);
    let reasons = ended.iter().map(|summary| {
        assert_eq!(summary.reason, EndReason::Refused);
        summary.data::<&str>().map(|reason| *reason)
    });
    let reasons: Vec<_> = reasons.collect();
    assert_eq!(reasons, [Some("no ticket"), Some("used twice"), None]);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_decision_is_not_held_up_by_a_quick_refusal(io: IoBackend) {
    let hook = |info: CallInfo| async move {
        if info.id == id(1) {
            tokio::time::sleep(millis(500)).await;
            return Admission::accept();
        }
        Admission::reject()
    };
    let server = serve(builder(io).admit(hook), echo).await;
    let slow = server
        .caller()
        .uuid(id(1))
        .say(Voice::Ramp(1))
        .hang_up_after(millis(1500));
    let quick = server.caller().uuid(id(2)).start_after(millis(100));
    let records = calls(vec![slow, quick]).await;
    assert!(!records[0].echo().is_empty(), "it was let in");
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_before_the_decision_is_handled_and_its_end_told_after_that(
    io: IoBackend,
) {
    let decide = Arc::new(Semaphore::new(0));
    let decides = Arc::clone(&decide);
    let hook = move |_| {
        let decides = Arc::clone(&decides);
        async move {
            decides.acquire().await.unwrap().forget();
            Admission::accept()
        }
    };
    let (told, mut handled) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |call: Call| {
        told.send(call.id()).unwrap();
        listen(call)
    };
    let server = serve(builder(io).admit(hook), handler).await;
    call(server.caller().uuid(id(1)).hang_up_after(millis(200))).await;
    until(|| server.handle.stats().calls == 1 && server.handle.stats().running == 0).await;
    assert!(handled.try_recv().is_err());
    // A second one, so that what the first has set off is over.
    call(server.caller().uuid(id(2)).hang_up_after(millis(200))).await;
    assert_eq!(server.told(), 0, "nothing has been decided");
    decide.add_permits(2);
    // Both are decided at the same moment, and either may be first.
    let mut both = [handled.recv().await, handled.recv().await];
    both.sort();
    assert_eq!(both, [Some(id(1)), Some(id(2))]);
    let ended = server.end().await;
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|summary| is_callers_end(summary.reason)));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_panics_ends_its_call_and_no_other(io: IoBackend) {
    let hook = |info: CallInfo| async move {
        assert!(info.id != id(1), "as this test wants it");
        Admission::accept()
    };
    let server = serve(builder(io).admit(hook), echo).await;
    let failed = server.caller().uuid(id(1));
    let other = server
        .caller()
        .uuid(id(2))
        .say(Voice::Ramp(1))
        .hang_up_after(millis(2_000));
    let records = calls(vec![failed, other]).await;
    assert_eq!(records[0].ended.cause, EndCause::ServerHungUp);
    assert!(!records[1].echo().is_empty());
    server.end().await;
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn fifty_calls_beyond_the_limit_harm_none_within_it(io: IoBackend) {
    const WITHIN: usize = 10;
    let server = serve(builder(io).max_calls(WITHIN), echo).await;
    let within = (0..WITHIN as u64).map(|n| {
        server
            .caller()
            .say(Voice::Ramp(n))
            .hang_up_after(Duration::from_secs(2))
    });
    let beyond = (0..50).map(|n| Caller::new(server.address).start_after(millis(500 + 10 * n)));
    let records = calls(within.chain(beyond).collect()).await;
    let (within, beyond) = records.split_at(WITHIN);
    for record in within {
        assert_eq!(record.ended.cause, EndCause::HungUp);
        let echoes = record.echo();
        // It was served before the others came, which is after 500 ms.
        assert!(echoes[0].source < 4_000, "{echoes:?}");
    }
    for record in beyond {
        assert_eq!(record.ended.cause, EndCause::ServerHungUp);
        assert_eq!(record.counts.frames_heard, 0);
    }
    assert_eq!(server.handle.stats().rejected, 50);
    assert_eq!(server.end().await.len(), WITHIN + 50);
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn the_hook_and_a_callback_get_the_same_description_of_a_call(io: IoBackend) {
    let (told, mut infos) = tokio::sync::mpsc::unbounded_channel::<CallInfo>();
    let hook = move |info: CallInfo| {
        told.send(info).unwrap();
        async { Admission::reject() }
    };
    let server = serve(builder(io).admit(hook), echo).await;
    call(server.caller().uuid(id(3))).await;
    let info: sidetone::callback::CallInfo = infos.recv().await.unwrap();
    assert_eq!(info.id, id(3));
    assert!(info.peer.ip().is_loopback());
    let ended = server.end().await.remove(0);
    assert_eq!((ended.id, ended.peer), (info.id, info.peer));
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_calls_and_the_networks_change_for_calls_that_come_later(io: IoBackend) {
    let server = serve(builder(io).max_calls(0), listen).await;
    let one = |number| server.caller().uuid(id(number)).hang_up_after(millis(200));
    call(one(1)).await;
    server.handle.set_max_calls(1);
    let within = server.caller().uuid(id(2)).hang_up_after(millis(1_000));
    let beyond = server.caller().uuid(id(3)).start_after(millis(500));
    let records = calls(vec![within, beyond]).await;
    assert_eq!(records[0].ended.cause, EndCause::HungUp);
    until(|| server.handle.stats().running == 0).await;
    server.handle.set_networks("10.0.0.0/8".parse().unwrap());
    call(one(4)).await;
    server.handle.set_networks("127.0.0.1".parse().unwrap());
    call(one(5)).await;
    // A call that runs goes on under a limit that leaves it out.
    let running = server.caller().uuid(id(6)).hang_up_after(millis(1_000));
    let handle = server.handle.clone();
    let lowering = async move {
        until(|| handle.call(id(6)).is_some()).await;
        handle.set_max_calls(0);
    };
    let (records, ()) = tokio::join!(calls(vec![running]), lowering);
    assert_eq!(records[0].ended.cause, EndCause::HungUp);
    let mut ended = server.end().await;
    ended.sort_by_key(|summary| summary.id);
    let rejected = ended
        .iter()
        .map(|summary| Some(summary.reason).filter(|reason| reason.is_rejected()));
    let rejected: Vec<_> = rejected.collect();
    let (full, not_allowed) = (Some(EndReason::Full), Some(EndReason::NotAllowed));
    assert_eq!(rejected, [full, None, full, not_allowed, None, None]);
}
