//! Hooks, with a server that receives them.

mod killed;
mod receiver;
mod tls;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sidetone_gateway::hooks::{Backlog, EndpointState, Hooks, HooksError, Limits};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use receiver::{Answer, Receiver, Switch, endpoint};

const PATIENCE: Duration = Duration::from_secs(30);
const A: Option<Uuid> = Some(Uuid::from_u128(1));
const B: Option<Uuid> = Some(Uuid::from_u128(2));
/// Those of a test that doesn't wait for seconds.
const QUICK: Limits = Limits {
    messages: 10_000,
    bytes: 32 << 20,
    concurrency: 8,
    keep: Duration::from_secs(24 * 60 * 60),
    first_pause: Duration::from_millis(10),
    longest_pause: Duration::from_millis(50),
    timeout: Duration::from_secs(10),
};
const ANSWERS_NEVER: Limits = Limits {
    timeout: Duration::from_secs(3600),
    ..QUICK
};

fn send(hooks: &Hooks, call: Option<Uuid>, number: u64) {
    hooks.send("call.started", call, body(number));
}

fn body(number: u64) -> String {
    format!("{{\"type\":\"call.started\",\"number\":{number}}}")
}

/// Waits for the state of the only endpoint.
async fn wait_until(hooks: &Hooks, is_so: impl Fn(&Backlog) -> bool) -> Backlog {
    let wait = async {
        loop {
            let backlog = hooks.backlog().remove(0);
            if is_so(&backlog) {
                return backlog;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .expect("it didn't come to that")
}

/// Waits until so many messages are on disk.
async fn wait_for_files(spool: &Path, count: usize) {
    let wait = async {
        while files(spool) != count {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("{} files instead of {count}", files(spool)));
}

fn files(spool: &Path) -> usize {
    let Ok(folders) = std::fs::read_dir(spool) else {
        return 0;
    };
    let entries = folders
        .filter_map(|it| std::fs::read_dir(it.ok()?.path()).ok())
        .flatten();
    entries
        .filter(|it| {
            it.as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|it| it == "json")
        })
        .count()
}

#[tokio::test]
async fn a_message_is_signed_and_says_what_it_is() {
    let mut receiver = Receiver::start(|_| Answer::Status(204)).await;
    let hooks = Hooks::open(vec![receiver.endpoint()], None).unwrap();
    hooks.send("call.started", A, "{\"text\":\"grüß\"}");
    // Not asked for.
    hooks.send("transcript", A, "{}");
    hooks.send("dtmf", A, "{}");
    let received = receiver.next().await;
    assert_eq!(received.path, "/hooks?key=topsecret");
    assert_eq!(received.body, "{\"text\":\"grüß\"}");
    assert_eq!(received.header("content-type"), "application/json");
    assert!(received.header("user-agent").starts_with("sidetone/"));
    let (id, timestamp) = (received.id(), received.header("webhook-timestamp"));
    let sent: u64 = timestamp.parse().unwrap();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(now - sent < 60);
    // As a receiver checks it.
    let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    let signed = format!("{id}.{timestamp}.{}", received.body);
    let signature = received
        .header("webhook-signature")
        .strip_prefix("v1,")
        .unwrap();
    ring::hmac::verify(
        &key,
        signed.as_bytes(),
        &STANDARD.decode(signature).unwrap(),
    )
    .unwrap();
    let other = receiver.next().await;
    assert_eq!(other.body, "{}");
    assert_ne!(other.id(), id);
    let backlog = wait_until(&hooks, |it| it.delivered == 2).await;
    assert_eq!(
        (backlog.waiting, backlog.failed, backlog.endpoint.as_str()),
        (0, 0, "crm")
    );
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let mut receiver = Receiver::start(|_| Answer::Status(200)).await;
    let mut endpoint = receiver.endpoint();
    endpoint.key = None;
    let hooks = Hooks::open(vec![endpoint], None).unwrap();
    send(&hooks, A, 1);
    let received = receiver.next().await;
    assert!(!received.headers.contains_key("webhook-signature"));
    assert!(received.id().starts_with("msg_"));
}

#[tokio::test]
async fn a_call_is_in_order_and_holds_up_no_other() {
    let is_well = Switch::default();
    let well = is_well.clone();
    let answer = move |it: &receiver::Received| match it.number() {
        1 if !well.is_on() => Answer::Status(500),
        _ => Answer::Status(200),
    };
    let mut receiver = Receiver::start(answer).await;
    let hooks = Hooks::open_with(vec![receiver.endpoint()], None, QUICK).unwrap();
    for (call, number) in [(A, 1), (A, 2), (A, 3), (B, 4), (B, 5), (None, 6)] {
        send(&hooks, call, number);
    }
    wait_until(&hooks, |it| it.delivered == 3 && it.failed >= 3).await;
    is_well.set(true);
    wait_until(&hooks, |it| it.waiting == 0).await;
    let received = receiver.take(receiver.pending()).await;
    let first: Vec<_> = received.iter().filter(|it| it.number() == 1).collect();
    assert!(first.len() >= 4);
    assert!(first.iter().all(|it| it.id() == first[0].id()));
    let order = |numbers: [u64; 2]| {
        let is_of = |it: &u64| numbers.contains(it);
        received
            .iter()
            .map(|it| it.number())
            .filter(is_of)
            .collect::<Vec<_>>()
    };
    assert_eq!(order([2, 3]), [2, 3]);
    assert_eq!(order([4, 5]), [4, 5]);
    assert!(order([1, 2]).ends_with(&[1, 2]));
}

#[tokio::test]
async fn what_was_not_received_comes_after_a_restart_with_the_same_id() {
    let directory = TempDir::new().unwrap();
    let is_well = Switch::default();
    let well = is_well.clone();
    let answer = move |_: &_| Answer::Status(if well.is_on() { 200 } else { 500 });
    let mut receiver = Receiver::start(answer).await;
    let endpoint = receiver.endpoint();
    let open = || Hooks::open_with(vec![endpoint.clone()], Some(directory.path()), QUICK).unwrap();
    let hooks = open();
    for number in 1..=20 {
        send(&hooks, [A, B][number as usize % 2], number);
    }
    // Two that fail, again and again.
    wait_until(&hooks, |it| it.failed >= 6).await;
    drop(hooks);
    let hooks = open();
    wait_until(&hooks, |it| it.waiting == 20 && it.failed >= 2).await;
    let before = receiver.take(receiver.pending()).await;
    is_well.set(true);
    wait_until(&hooks, |it| it.waiting == 0).await;
    let after = receiver.take(receiver.pending()).await;
    for number in [1, 2] {
        let ids = |received: &[receiver::Received]| {
            let of = received.iter().filter(|it| it.number() == number);
            of.map(|it| it.id())
                .collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(ids(&before), ids(&after));
        assert_eq!(ids(&after).len(), 1);
    }
    for half in [0, 1] {
        let mut numbers: Vec<_> = after.iter().map(|it| it.number()).collect();
        numbers.retain(|it| it % 2 == half);
        // The first may have failed once more.
        numbers.dedup();
        let sent: Vec<u64> = (1..=20).filter(|it| it % 2 == half).collect();
        assert_eq!(numbers, sent);
    }
    assert_eq!(hooks.close(Instant::now() + PATIENCE).await, 0);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let hooks = open();
    assert_eq!(hooks.close(Instant::now() + PATIENCE).await, 0);
    assert_eq!(receiver.pending(), 0);
}

#[tokio::test]
async fn a_new_process_sends_what_the_old_one_leaves_when_it_ends() {
    let directory = TempDir::new().unwrap();
    let is_well = Switch::default();
    let well = is_well.clone();
    let answer = move |_: &_| Answer::Status(if well.is_on() { 200 } else { 500 });
    let receiver = Receiver::start(answer).await;
    let open =
        || Hooks::open_with(vec![receiver.endpoint()], Some(directory.path()), QUICK).unwrap();
    let (old, new) = (open(), open());
    send(&old, A, 1);
    send(&old, A, 2);
    wait_until(&old, |it| it.failed > 0).await;
    assert_eq!(old.close(Instant::now() + PATIENCE).await, 2);
    wait_until(&new, |it| it.waiting == 2).await;
    is_well.set(true);
    wait_until(&new, |it| it.delivered == 2).await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_delays_nothing() {
    let directory = TempDir::new().unwrap();
    let mut hanging = Receiver::start(|_| Answer::Hang).await;
    let mut receiver = Receiver::start(|_| Answer::Status(200)).await;
    let endpoints = vec![receiver.endpoint(), hanging.endpoint()];
    let hooks = Hooks::open_with(endpoints, Some(directory.path()), ANSWERS_NEVER).unwrap();
    for number in 0..500 {
        send(&hooks, Some(Uuid::from_u128(number.into())), number);
    }
    receiver.take(500).await;
    hanging.take(QUICK.concurrency).await;
    wait_for_files(directory.path(), 500).await;
    let backlogs = hooks.backlog();
    assert_eq!((backlogs[0].delivered, backlogs[1].waiting), (500, 500));
    assert_eq!(hanging.pending(), 0);
    // It ends at its deadline, whatever hangs.
    assert_eq!(hooks.close(Instant::now()).await, 500);
    assert_eq!(files(directory.path()), 500);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_tried_again() {
    let count = AtomicUsize::new(0);
    let answer = move |_: &_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Hang,
        _ => Answer::Status(200),
    };
    let mut receiver = Receiver::start(answer).await;
    let limits = Limits {
        timeout: Duration::from_millis(50),
        ..QUICK
    };
    let hooks = Hooks::open_with(vec![receiver.endpoint()], None, limits).unwrap();
    send(&hooks, A, 1);
    let both = receiver.take(2).await;
    assert_eq!(both[0].id(), both[1].id());
    wait_until(&hooks, |it| it.delivered == 1 && it.failed == 1).await;
}

#[tokio::test]
async fn an_endpoint_that_nobody_listens_at_gets_all_when_it_is_back() {
    let receiver = Receiver::start(|_| Answer::Status(200)).await;
    let address = receiver.address;
    let endpoint = receiver.endpoint();
    drop(receiver);
    let limits = Limits {
        // So long that only the end of the outage brings them.
        first_pause: Duration::from_secs(3600),
        longest_pause: Duration::from_secs(3600),
        ..QUICK
    };
    let hooks = Hooks::open_with(vec![endpoint], None, limits).unwrap();
    send(&hooks, A, 1);
    send(&hooks, B, 2);
    wait_until(&hooks, |it| it.failed >= 2).await;
    assert_eq!(hooks.backlog()[0].waiting, 2);
    let mut back = Receiver::start_at(address, |_| Answer::Status(200)).await;
    send(&hooks, None, 3);
    let mut numbers: Vec<_> = back.take(3).await.iter().map(|it| it.number()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn gone_disables_an_endpoint_until_the_next_configuration() {
    let directory = TempDir::new().unwrap();
    let is_back = Switch::default();
    let back = is_back.clone();
    let answer = move |_: &_| Answer::Status(if back.is_on() { 200 } else { 410 });
    let mut receiver = Receiver::start(answer).await;
    let endpoints = vec![receiver.endpoint()];
    let hooks = Hooks::open_with(endpoints.clone(), Some(directory.path()), QUICK).unwrap();
    send(&hooks, A, 1);
    wait_until(&hooks, |it| it.state == EndpointState::Gone).await;
    send(&hooks, A, 2);
    send(&hooks, B, 3);
    wait_for_files(directory.path(), 3).await;
    assert_eq!((receiver.pending(), hooks.backlog()[0].waiting), (1, 3));
    is_back.set(true);
    hooks.set_endpoints(endpoints).unwrap();
    let backlog = wait_until(&hooks, |it| it.waiting == 0).await;
    assert_eq!(
        (backlog.state, backlog.delivered),
        (EndpointState::Sending, 3)
    );
    assert_eq!(receiver.take(4).await.len(), 4);
}

#[tokio::test]
async fn redirects_are_failures_and_not_followed() {
    let target = Receiver::start(|_| Answer::Status(200)).await;
    let url = format!("http://{}/", target.address);
    let mut receiver = Receiver::start(move |_| Answer::RedirectTo(url.clone())).await;
    let hooks = Hooks::open_with(vec![receiver.endpoint()], None, QUICK).unwrap();
    send(&hooks, A, 1);
    receiver.take(3).await;
    let backlog = wait_until(&hooks, |it| it.failed >= 3).await;
    assert_eq!(
        (backlog.delivered, backlog.waiting, target.pending()),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn a_response_without_end_holds_up_nothing() {
    let mut receiver = Receiver::start(|_| Answer::EndlessBody).await;
    let hooks = Hooks::open_with(vec![receiver.endpoint()], None, QUICK).unwrap();
    for number in 0..20 {
        send(&hooks, A, number);
    }
    let numbers: Vec<_> = receiver
        .take(20)
        .await
        .iter()
        .map(|it| it.number())
        .collect();
    assert!(numbers.is_sorted());
    wait_until(&hooks, |it| it.delivered == 20 && it.failed == 0).await;
}

#[tokio::test]
async fn a_full_spool_drops_the_oldest_on_disk_too() {
    let directory = TempDir::new().unwrap();
    let is_well = Switch::default();
    let well = is_well.clone();
    let answer = move |_: &_| match well.is_on() {
        true => Answer::Status(200),
        false => Answer::Status(500),
    };
    let mut receiver = Receiver::start(answer).await;
    let limits = Limits {
        messages: 10,
        ..QUICK
    };
    let endpoints = vec![receiver.endpoint()];
    let hooks = Hooks::open_with(endpoints.clone(), Some(directory.path()), limits).unwrap();
    for number in 0..200 {
        send(&hooks, A, number);
    }
    let backlog = hooks.backlog().remove(0);
    assert_eq!((backlog.waiting, backlog.dropped), (10, 190));
    wait_for_files(directory.path(), 10).await;
    drop(hooks);
    // A smaller limit holds for what is there, too.
    let limits = Limits {
        messages: 4,
        ..limits
    };
    let hooks = Hooks::open_with(endpoints, Some(directory.path()), limits).unwrap();
    wait_until(&hooks, |it| it.waiting == 4 && it.dropped == 6).await;
    wait_for_files(directory.path(), 4).await;
    receiver.take(receiver.pending()).await;
    is_well.set(true);
    wait_until(&hooks, |it| it.waiting == 0).await;
    let received = receiver.take(receiver.pending()).await;
    assert_eq!(received.last().unwrap().number(), 199);
}

#[tokio::test]
async fn an_endpoint_that_is_left_out_gets_its_messages_when_it_comes_back() {
    let directory = TempDir::new().unwrap();
    let is_well = Switch::default();
    let well = is_well.clone();
    let answer = move |_: &_| Answer::Status(if well.is_on() { 200 } else { 500 });
    let mut receiver = Receiver::start(answer).await;
    let other = Receiver::start(|_| Answer::Status(200)).await;
    let open = |endpoints| Hooks::open_with(endpoints, Some(directory.path()), QUICK).unwrap();
    let hooks = open(vec![receiver.endpoint()]);
    send(&hooks, A, 1);
    wait_until(&hooks, |it| it.failed > 0).await;
    hooks.set_endpoints(vec![other.endpoint()]).unwrap();
    send(&hooks, A, 2);
    let removed = |hooks: &Hooks| {
        let mut backlogs = hooks.backlog().into_iter();
        backlogs.find(|it| it.state == EndpointState::Removed)
    };
    let waits = removed(&hooks).unwrap();
    assert_eq!(waits.endpoint, format!("{}/hooks", receiver.address));
    assert_eq!(waits.waiting, 1);
    // What goes to the other one is over, so that nothing else waits.
    let wait = async {
        while !hooks.backlog().iter().any(|it| it.delivered == 1) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
    // It also waits through a restart.
    drop(hooks);
    let hooks = open(vec![other.endpoint()]);
    let wait = async {
        while removed(&hooks).is_none() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
    receiver.take(receiver.pending()).await;
    // Not before: an attempt may have been on its way when the endpoint was left out.
    is_well.set(true);
    hooks.set_endpoints(vec![receiver.endpoint()]).unwrap();
    assert_eq!(receiver.next().await.number(), 1);
    wait_until(&hooks, |it| it.waiting == 0).await;
    assert_eq!(receiver.pending(), 0);
}

#[tokio::test]
async fn closing_sends_what_is_due_and_doesnt_wait_for_what_failed() {
    let answer = |it: &receiver::Received| Answer::Status(if it.number() == 0 { 500 } else { 200 });
    let mut receiver = Receiver::start(answer).await;
    let limits = Limits {
        first_pause: Duration::from_secs(3600),
        longest_pause: Duration::from_secs(3600),
        ..QUICK
    };
    let hooks = Hooks::open_with(vec![receiver.endpoint()], None, limits).unwrap();
    send(&hooks, B, 0);
    for number in 1..=50 {
        send(&hooks, A, number);
    }
    assert_eq!(hooks.close(Instant::now() + PATIENCE).await, 1);
    let received = receiver.take(51).await;
    assert!(
        received
            .iter()
            .filter(|it| it.number() > 0)
            .is_sorted_by_key(|it| it.number())
    );
}

#[tokio::test]
async fn addresses_that_hooks_cannot_go_to_are_refused_without_being_quoted() {
    for url in [
        "ftp://x/topsecret",
        "/topsecret",
        "http://me:topsecret@host/",
    ] {
        let error = Hooks::open(vec![endpoint(url)], None).unwrap_err();
        assert!(matches!(error, HooksError::Url), "{error:?}");
        assert!(!error.to_string().contains("topsecret"));
    }
    let twice = vec![endpoint("http://host/a?key=topsecret"); 2];
    let hooks = Hooks::open(vec![], None).unwrap();
    let error = hooks.set_endpoints(twice).unwrap_err().to_string();
    assert!(
        error.contains("host/a") && !error.contains("topsecret"),
        "{error}"
    );
    assert!(hooks.backlog().is_empty());
}

#[tokio::test]
async fn a_spool_that_is_no_folder_is_an_error_that_names_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "").unwrap();
    let error = Hooks::open(vec![], Some(&path)).unwrap_err();
    assert!(matches!(error, HooksError::Spool { .. }));
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}
