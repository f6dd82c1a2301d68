//! Everything that is claimed of a real Asterisk, tried with a real Asterisk.
//!
//! A new file of scenarios has a `scenarios![one, another]` and gets its line in [`side_by_side`], or in [`alone`] if it judges
//! time or keeps the machine busy, or in [`in_pairs`] if it does so over a minute. Each scenario has an Asterisk to itself while it runs.
//!
//! If Asterisk is not available on this machine, the scenarios are skipped, with a message; where the variable `CI` is set that is a failure.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod alike;
mod ari;
mod auto;
mod binary;
mod browser;
mod crowd;
mod curl;
mod dictation;
mod echo;
mod endings;
mod far_end;
mod formats;
mod gateway;
mod gateway_daemon;
mod gateway_foreign_page;
mod gateway_load;
mod gateway_metrics;
mod gateway_page;
mod heard;
mod hearing;
mod lab;
mod machine;
mod many;
mod menus;
mod minute;
mod muted;
mod person;
mod phones;
mod playback;
mod program;
mod prometheus;
mod prompts;
mod python;
mod recipes;
mod recording;
mod serve;
mod simulated;
mod sound_file;
mod speech;
mod transcribe;
mod transcript;
mod wire;
mod words;

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use sidetone_lab::ami::Ami;
use sidetone_lab::{Asterisk, Options, StartError};
use tokio::runtime::Runtime;

/// Scenarios that run several at a time.
fn side_by_side() -> Vec<Scenario> {
    [
        // The longest first.
        phones::scenarios(),
        heard::scenarios(),
        lab::scenarios(),
        program::scenarios(),
        recipes::scenarios(),
        formats::scenarios(),
        endings::scenarios(),
        playback::scenarios(),
        binary::scenarios(),
        menus::scenarios(),
        muted::scenarios(),
        ari::scenarios(),
        browser::scenarios(),
        curl::scenarios(),
        prometheus::scenarios(),
        gateway_page::scenarios(),
        gateway_foreign_page::scenarios(),
        gateway_metrics::scenarios(),
        auto::scenarios(),
        gateway::bots::scenarios(),
        gateway::tickets::scenarios(),
        gateway::restarts::scenarios(),
        python::scenarios(),
        recording::scenarios(),
        simulated::scenarios(),
        transcribe::scenarios(),
    ]
    .concat()
}

/// Long ones that judge time with a margin that another one may use up.
fn in_pairs() -> Vec<Scenario> {
    [minute::scenarios(), many::outages()].concat()
}

/// Scenarios that run one after the other.
fn alone() -> Vec<Scenario> {
    [
        crowd::scenarios(),
        speech::scenarios(),
        many::scenarios(),
        gateway_page::under_load(),
        gateway::restarts::crowded(),
        gateway::bots::interrupted(),
        gateway_load::scenarios(),
    ]
    .concat()
}

fn all() -> impl Iterator<Item = Scenario> {
    side_by_side().into_iter().chain(in_pairs()).chain(alone())
}

/// How many run side by side: most of the time they wait for their calls.
const AT_A_TIME: usize = 4;

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

/// Makes a file's `scenarios()` of its async functions, `async fn name(lab: Arc<Lab>) -> anyhow::Result<()>` each; with
/// `fn other:` before them, its `other()`.
#[macro_export]
macro_rules! scenarios {
    ($($scenario:ident),+ $(,)?) => {
        $crate::scenarios![fn scenarios: $($scenario),+];
    };
    (fn $list:ident: $($scenario:ident),+ $(,)?) => {
        pub(crate) fn $list() -> Vec<$crate::Scenario> {
            vec![$($crate::Scenario {
                name: concat!(module_path!(), "::", stringify!($scenario)),
                run: |lab| Box::pin($scenario(lab)),
            }),+]
        }
    };
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, all().map(listed).collect()).exit_code();
    }
    let labs = match Labs::boot() {
        Ok(labs) => Arc::new(labs),
        Err(error) => return without_asterisk(&arguments, &error),
    };
    let threads = arguments.test_threads.unwrap_or(AT_A_TIME);
    let side_by_side = run_all(&arguments, side_by_side(), threads, &labs);
    let in_pairs = run_all(&arguments, in_pairs(), threads.min(2), &labs);
    let alone = run_all(&arguments, alone(), 1, &labs);
    if side_by_side && in_pairs && alone {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether none of them failed.
fn run_all(
    arguments: &Arguments,
    scenarios: Vec<Scenario>,
    threads: usize,
    labs: &Arc<Labs>,
) -> bool {
    let mut arguments = arguments.clone();
    arguments.test_threads = Some(threads);
    let trial = |scenario: Scenario| {
        let labs = Arc::clone(labs);
        Trial::test(short(scenario.name), move || labs.run(scenario))
    };
    let trials = scenarios.into_iter().map(trial).collect();
    !libtest_mimic::run(&arguments, trials).has_failed()
}

/// The instances that no scenario uses just now.
struct Labs {
    idle: Mutex<Vec<Arc<Lab>>>,
    runtime: Runtime,
}

impl Labs {
    /// With one that shows whether there can be any.
    fn boot() -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let first = runtime.block_on(boot())?;
        Ok(Self {
            idle: Mutex::new(vec![Arc::new(first)]),
            runtime,
        })
    }

    /// Runs a scenario with an instance of its own.
    fn run(&self, scenario: Scenario) -> Result<(), Failed> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let lab = match idle {
            Some(lab) => lab,
            None => Arc::new(self.runtime.block_on(boot())?),
        };
        let began = Instant::now();
        let outcome = self.runtime.block_on(run(scenario, Arc::clone(&lab)));
        eprintln!("    {}: {:.1?}", short(scenario.name), began.elapsed());
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(lab);
        outcome
    }
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

/// A program that a scenario needs besides Asterisk. Where it is not available, the scenario is skipped, with a message. With `CI` set it fails.
pub(crate) fn available<T>(started: Result<T, StartError>) -> anyhow::Result<Option<T>> {
    match started {
        Err(error @ StartError::Fetch(_)) if std::env::var_os("CI").is_none() => {
            eprintln!("\n*** SKIPPED: a program is not available here. ***\n*** {error} ***");
            Ok(None)
        }
        other => Ok(Some(other?)),
    }
}

fn without_asterisk(arguments: &Arguments, error: &anyhow::Error) -> ExitCode {
    let broken = !matches!(error.downcast_ref(), Some(StartError::Fetch(_)));
    if broken || std::env::var_os("CI").is_some() {
        eprintln!("no end-to-end test ran: {error}");
        return ExitCode::FAILURE;
    }
    eprintln!(
        "\n*** SKIPPED: NO END-TO-END TEST RUNS, for Asterisk is not available here. ***\n*** {error} ***"
    );
    let ignored = all()
        .map(|scenario| listed(scenario).with_ignored_flag(true))
        .collect();
    libtest_mimic::run(arguments, ignored).exit_code()
}

/// A scenario that is only named, not run.
fn listed(scenario: Scenario) -> Trial {
    Trial::test(short(scenario.name), || {
        Err("Asterisk is not available".into())
    })
}

/// The name without that of this binary, which is the same for all.
fn short(name: &'static str) -> &'static str {
    name.split_once("::").map_or(name, |(_, short)| short)
}
