//! A process that is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::PathBuf,
    process::Stdio,
};

use sidetone_gateway::hooks::Hooks;
use tempfile::TempDir;
use tokio::process::Command;

use super::{
    ANSWERS_NEVER, QUICK, Uuid,
    receiver::{Answer, Receiver, Switch, endpoint},
    send, wait_for_files, wait_until,
};

const URL: &str = "TEST_HOOKS_URL";
const SPOOL: &str = "TEST_HOOKS_SPOOL";
const THIS: &str = "hooks::killed::a_killed_process_loses_no_message_and_no_id";
const MESSAGES: u64 = 100;

/// What the process that is killed does.
async fn run(url: &str, spool: PathBuf) {
    let hooks = Hooks::open_with(vec![endpoint(url)], Some(&spool), ANSWERS_NEVER).unwrap();
    for number in 0..MESSAGES {
        send(
            &hooks,
            Some(Uuid::from_u128(u128::from(number) % 50)),
            number,
        );
    }
    std::future::pending::<()>().await;
    drop(hooks);
}

#[tokio::test]
async fn a_killed_process_loses_no_message_and_no_id() {
    if let (Ok(url), Some(spool)) = (env::var(URL), env::var_os(SPOOL)) {
        return run(&url, spool.into()).await;
    }
    let directory = TempDir::new().unwrap();
    let is_well = Switch::default();
    let well = is_well.clone();
    let answer = move |_: &_| match well.is_on() {
        true => Answer::Status(200),
        false => Answer::Hang,
    };
    let mut receiver = Receiver::start(answer).await;
    let endpoint = receiver.endpoint();
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", THIS])
        .env(URL, endpoint.url.to_string())
        .env(SPOOL, directory.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let before = receiver.take(QUICK.concurrency).await;
    wait_for_files(directory.path(), MESSAGES as usize).await;
    process.kill().await.unwrap();
    is_well.set(true);
    let hooks = Hooks::open_with(vec![endpoint], Some(directory.path()), QUICK).unwrap();
    wait_until(&hooks, |it| it.delivered == MESSAGES).await;
    let after = receiver.take(MESSAGES as usize).await;
    let ids: BTreeMap<u64, String> = after.iter().map(|it| (it.number(), it.id())).collect();
    assert_eq!(ids.len() as u64, MESSAGES);
    assert_eq!(ids.values().collect::<BTreeSet<_>>().len() as u64, MESSAGES);
    assert!(before.iter().all(|it| ids[&it.number()] == it.id()));
    for call in 0..50 {
        let of_call = after
            .iter()
            .map(|it| it.number())
            .filter(|it| it % 50 == call);
        assert!(of_call.is_sorted());
    }
}
