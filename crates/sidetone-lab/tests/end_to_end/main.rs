//! Everything that is claimed of a real Asterisk, tried with a real Asterisk: one binary, one instance, one scenario at a time.
//!
//! A new file of scenarios ends with `scenarios![one, another]` and gets its line in [`all`].
//!
//! If Asterisk can't be had on this machine the scenarios are skipped, aloud; where the variable `CI` is set that is a failure.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod alike;
mod ari;
mod auto;
mod binary;
mod crowd;
mod dictation;
mod echo;
mod endings;
mod far_end;
mod formats;
mod heard;
mod hearing;
mod lab;
mod machine;
mod many;
mod minute;
mod person;
mod phones;
mod playback;
mod program;
mod prompts;
mod recipes;
mod recording;
mod scribe;
mod serve;
mod simulated;
mod speech;
mod transcribe;
mod wire;
mod words;

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use sidetone_lab::ami::Ami;
use sidetone_lab::{Asterisk, Options, StartError};
use tokio::runtime::Runtime;

/// Every scenario there is, in the order of running.
fn all() -> Vec<Scenario> {
    [
        lab::scenarios(),
        program::scenarios(),
        recipes::scenarios(),
        formats::scenarios(),
        endings::scenarios(),
        playback::scenarios(),
        heard::scenarios(),
        recording::scenarios(),
        binary::scenarios(),
        minute::scenarios(),
        simulated::scenarios(),
        phones::scenarios(),
        ari::scenarios(),
        auto::scenarios(),
        crowd::scenarios(),
        speech::scenarios(),
        transcribe::scenarios(),
        many::scenarios(),
    ]
    .concat()
}

/// No scenario takes longer; one that does hangs.
const LIMIT: Duration = Duration::from_secs(240);

/// What every scenario is given. Whatever needs an Asterisk of its own starts one.
pub(crate) struct Lab {
    pub(crate) asterisk: Asterisk,
    pub(crate) ami: Ami,
}

/// A scenario under way.
type Running = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// Something to try: its name, and the async function that tries it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Arc<Lab>) -> Running,
}

/// Makes a file's `scenarios()` of its async functions, `async fn name(lab: Arc<Lab>) -> anyhow::Result<()>` each.
#[macro_export]
macro_rules! scenarios {
    ($($scenario:ident),+ $(,)?) => {
        pub(crate) fn scenarios() -> Vec<$crate::Scenario> {
            vec![$($crate::Scenario {
                name: concat!(module_path!(), "::", stringify!($scenario)),
                run: |lab| Box::pin($scenario(lab)),
            }),+]
        }
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, all().iter().map(listed).collect()).exit_code();
    }
    let runtime = Arc::new(Runtime::new().unwrap());
    let lab = match runtime.block_on(boot()) {
        Ok(lab) => Arc::new(lab),
        Err(error) => return without_asterisk(&arguments, &error),
    };
    let trial = |scenario: Scenario| {
        let (runtime, lab) = (Arc::clone(&runtime), Arc::clone(&lab));
        Trial::test(short(scenario.name), move || {
            runtime.block_on(run(scenario, lab))
        })
    };
    let trials = all().into_iter().map(trial).collect();
    let outcome = libtest_mimic::run(&arguments, trials).exit_code();
    // Outside of the runtime, whose threads would otherwise wait for Asterisk to end.
    drop(lab);
    outcome
}

async fn boot() -> anyhow::Result<Lab> {
    let asterisk = Asterisk::start(Options::default()).await?;
    let ami = Ami::connect(&asterisk).await?;
    Ok(Lab { asterisk, ami })
}

/// Runs one scenario; what goes wrong is told together with what Asterisk logged meanwhile.
async fn run(scenario: Scenario, lab: Arc<Lab>) -> Result<(), Failed> {
    let log_before = lab.asterisk.log().len();
    // A task of its own, so that a panic comes back as an error.
    let task = tokio::spawn(tokio::time::timeout(
        LIMIT,
        (scenario.run)(Arc::clone(&lab)),
    ));
    let mut outcome = match task.await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(format!("{error:#}")),
        Ok(Err(_)) => Err(format!("still running after {LIMIT:?}")),
        Err(panic) => Err(panic.to_string()),
    };
    if let Err(left) = clear(&lab).await {
        outcome = outcome.and(Err(format!("{left:#}")));
    }
    outcome.map_err(|error| {
        let log = lab.asterisk.log();
        Failed::from(format!(
            "{error}\n--- what Asterisk logged meanwhile:\n{}",
            log.get(log_before..).unwrap_or(&log)
        ))
    })
}

/// No call is left over for the next scenario.
async fn clear(lab: &Lab) -> anyhow::Result<()> {
    for _ in 0..100 {
        let channels = lab.asterisk.cli("core show channels count").await?;
        if channels
            .lines()
            .any(|line| line.starts_with("0 active channels"))
        {
            return Ok(());
        }
        lab.asterisk.cli("channel request hangup all").await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("channels are left that won't hang up")
}

fn without_asterisk(arguments: &Arguments, error: &anyhow::Error) -> ExitCode {
    let broken = !matches!(error.downcast_ref(), Some(StartError::Fetch(_)));
    if broken || std::env::var_os("CI").is_some() {
        eprintln!("no end-to-end test ran: {error}");
        return ExitCode::FAILURE;
    }
    eprintln!(
        "\n*** SKIPPED: NO END-TO-END TEST RUNS, for Asterisk can't be had here. ***\n*** {error} ***"
    );
    let ignored = all()
        .iter()
        .map(|scenario| listed(scenario).with_ignored_flag(true))
        .collect();
    libtest_mimic::run(arguments, ignored).exit_code()
}

/// A scenario that is only named, not run.
fn listed(scenario: &Scenario) -> Trial {
    Trial::test(short(scenario.name), || Err("Asterisk can't be had".into()))
}

/// The name without that of this binary, which is the same for all.
fn short(name: &'static str) -> &'static str {
    name.split_once("::").map_or(name, |(_, short)| short)
}
