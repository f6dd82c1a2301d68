//! The Python module as others get it: its own tests, the checkers of its types, and its demonstration, in fresh environments with
//! the wheel. What calls it from a real Asterisk is in `end_to_end`.
//!
//! Its tests load the machine, so these run one at a time, each with several of those. Without Python or pip they are skipped, with a message; where the
//! variable `CI` is set that is a failure.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::process::Command;

use sidetone_lab::StartError;
use sidetone_lab::python::{Environment, Interpreter, Packages};
use tokio::sync::{Mutex, MutexGuard};

/// Each test holds this while it runs.
async fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

#[tokio::test]
async fn the_tests_of_the_module_pass_on_the_machines_own_python() {
    let _alone = one_at_a_time().await;
    let environment = Environment::new(&[Packages::Tests]).await;
    if let Some(environment) = available(environment) {
        let own = version(&environment);
        notice(&format!("the machine's own Python is {own}"));
        succeeds(environment.python().args(PYTEST));
    }
}

#[tokio::test]
async fn the_tests_of_the_module_pass_on_another_python() {
    let _alone = one_at_a_time().await;
    let Some(other) = Interpreter::another() else {
        notice(
            "NOT TESTED: this machine has no second Python from 3.10 on, as `python3.10` or by pyenv",
        );
        return;
    };
    notice(&format!(
        "the other Python is {}, {}",
        other.version(),
        other.program().display()
    ));
    let environment = Environment::of(&other, &[Packages::Tests]).await;
    if let Some(environment) = available(environment) {
        // On uvloop they have run with the machine's own.
        succeeds(environment.python().args(PYTEST).args(["-k", "not uvloop"]));
    }
}

#[tokio::test]
async fn mypy_and_pyright_find_nothing_in_the_module_and_its_examples() {
    let _alone = one_at_a_time().await;
    let environment = Environment::new(&[Packages::Tests, Packages::Google]).await;
    let Some(environment) = available(environment) else {
        return;
    };
    let strict = ["-m", "mypy", "--strict", "--cache-dir=/dev/null"];
    succeeds(
        environment
            .python()
            .args(strict)
            .args(["-p", "audiosocket"]),
    );
    for example in ["echo.py", "playback.py", "transcribe.py"] {
        let example = format!("examples/{example}");
        succeeds(environment.python().args(strict).arg(example));
    }
    // What Google's client and pipecat don't say of their types, it would say of what uses them.
    let checked = ["python", "examples/echo.py", "examples/playback.py"];
    let mut pyright = environment.python();
    pyright.args(["-m", "pyright", "--pythonpath"]);
    succeeds(pyright.arg(environment.program()).args(checked));
}

#[tokio::test]
async fn the_demonstration_is_heard_where_nothing_else_is_installed() {
    let _alone = one_at_a_time().await;
    let Some(environment) = available(Environment::new(&[]).await) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let demo = ["-m", "audiosocket", "demo", "--once", "--port", "0"];
    let printed = succeeds(environment.python().args(demo).current_dir(&folder));
    assert!(printed.contains("A server listens on"), "{printed}");
    assert!(folder.path().join("demo.wav").exists());
}

#[tokio::test]
async fn the_examples_explain_themselves() {
    let _alone = one_at_a_time().await;
    let environment = Environment::new(&[Packages::Google]).await;
    let Some(environment) = available(environment) else {
        return;
    };
    for example in ["echo.py", "playback.py", "transcribe.py"] {
        let file = format!("examples/{example}");
        let printed = succeeds(environment.python().arg(file).arg("--help"));
        assert!(printed.contains("--port"), "{printed}");
    }
}

/// As `pytest` runs it, without a cache among the sources. Most of its tests wait for calls, so twelve are run at a time.
const PYTEST: [&str; 10] = [
    "-m",
    "pytest",
    "-q",
    "-rs",
    "-p",
    "no:cacheprovider",
    "-n",
    "12",
    "--dist",
    "worksteal",
];

fn version(environment: &Environment) -> String {
    let version = succeeds(environment.python().arg("--version"));
    version.trim().to_owned()
}

/// What it prints, once it has succeeded.
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

fn available(environment: Result<Environment, StartError>) -> Option<Environment> {
    match environment {
        Err(error @ StartError::Fetch(_)) if std::env::var_os("CI").is_none() => {
            notice(&format!("SKIPPED: {error}"));
            None
        }
        other => Some(other.unwrap()),
    }
}

/// Says it on the terminal itself, where the test runner does not hold it back.
fn notice(text: &str) {
    use std::io::Write as _;

    let notice = format!("\n*** {text} ***\n");
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
}
