//! Recordings when the disk is full, or the directory is removed.

use std::{
    path::{Path, PathBuf},
    thread,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::kit::{Running, run};

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Limits the size of all files that this process writes from now on.
fn limit_files(server: &Running, bytes: Option<u64>) {
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    let pid = Pid::from_raw(server.id() as i32);
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

#[test]
fn a_limit_on_the_size_of_files_affects_only_recordings() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) = Running::serve(&format!("record {}", directory.path().display()));
    let call = || {
        assert_eq!(
            run(&format!("call {address} --seconds 1")).status.code(),
            Some(0)
        );
    };
    // In the middle of a file.
    limit_files(&server, Some(8_000));
    call();
    let cut = server.wait_for("recorded");
    assert!(
        cut["failure"].as_str().unwrap().contains("ulimit -f"),
        "{cut}"
    );
    // Before the first byte of one.
    limit_files(&server, Some(0));
    for _ in 0..3 {
        call();
        let none = server.wait_for("recorded");
        assert!(none["failure"].is_string(), "{none}");
        assert_eq!(none["files"].as_array().unwrap().len(), 0);
    }
    assert_eq!(files_in(directory.path()).len(), 1, "the one that was cut");
    limit_files(&server, None);
    call();
    let whole = server.wait_for("recorded");
    assert!(whole["failure"].is_null(), "{whole}");
    server.stop();
}

#[test]
fn a_removed_directory_is_created_again() {
    let directory = tempfile::tempdir().unwrap();
    let recordings = directory.path().join("recordings");
    let (mut server, address) = Running::serve(&format!("record {}", recordings.display()));
    std::fs::remove_dir_all(&recordings).unwrap();
    run(&format!("call {address} --seconds 0.5"));
    let recorded = server.wait_for("recorded");
    assert!(recorded["failure"].is_null(), "{recorded}");
    assert_eq!(files_in(&recordings).len(), 1);
    server.stop();
}

#[test]
fn a_directory_removed_during_a_call_is_reported_without_files() {
    let directory = tempfile::tempdir().unwrap();
    let recordings = directory.path().join("recordings");
    let (mut server, address) = Running::serve(&format!("record {}", recordings.display()));
    let caller = thread::spawn(move || run(&format!("call {address} --seconds 2")));
    while files_in(&recordings).is_empty() {
        thread::yield_now();
    }
    std::fs::remove_dir_all(&recordings).unwrap();
    let recorded = server.wait_for("recorded");
    assert_eq!(recorded["files"], serde_json::json!([]), "{recorded}");
    let failure = recorded["failure"].as_str().unwrap();
    assert!(failure.contains("removed"), "{failure}");
    caller.join().unwrap();
    server.stop();
}
