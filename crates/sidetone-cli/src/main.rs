//! The `sidetone` command: an AudioSocket server for common jobs, and a caller to test one with.
//!
//! | module | what it does |
//! |---|---|
//! | `args`, `options`, `address` | the command line, the options that commands share, and addresses in them |
//! | `serve` | the voice gateway as a daemon |
//! | `demo`, `echo`, `play`, `record`, `transcribe`, `bot`, `call`, `load` | one command each, with its options and events |
//! | `service` | what serving commands share: listening, handling calls, shutting down |
//! | `registry`, `recordings`, `notices` | what a server reports of its calls and of itself |
//! | `server_events` | the events of every server |
//! | `event`, `format`, `clock`, `sanitize` | how events become JSON and text |
//! | `output`, `stderr` | the threads that write standard output and standard error |
//! | `background` | tasks that outlast their call |
//! | `sound_file`, `call_file`, `correlate` | sounds to play, a file with both sides of a call, and finding a sound in it |
//! | `dialplan` | the lines to paste into Asterisk |
//! | `generate` | manual pages and completions, from the definition of the command line |
//! | `signals`, `failure`, `runtime` | signals, exit codes, and the threads that handlers run on |

mod address;
mod args;
mod background;
mod bot;
mod call;
mod call_file;
mod clock;
mod correlate;
mod demo;
mod dialplan;
mod echo;
mod event;
mod failure;
mod format;
mod generate;
mod load;
mod notices;
mod options;
mod output;
mod play;
mod record;
mod recordings;
mod registry;
mod runtime;
mod sanitize;
mod serve;
mod server_events;
mod service;
mod signals;
mod sound_file;
mod stderr;
mod transcribe;

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Duration,
};

use tokio::runtime::Runtime;

use args::Command;
use failure::{Failure, Outcome};

/// How long blocking work and standard error may take when the command has ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    clock::remember_zone();
    stderr::report_panics();
    let result = args::parse().and_then(|command| {
        signals::install()?;
        run_on(runtime::build()?, run_command(command))
    });
    let code = failure::exit_code(result);
    stderr::finish(SHUTDOWN_TIMEOUT);
    signals::yield_to_exit();
    code
}

/// Runs a command to its end. If it panics, all calls are hung up.
fn run_on(
    runtime: Runtime,
    command: impl Future<Output = Result<Outcome, Failure>>,
) -> Result<Outcome, Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(command)));
    if result.is_err() {
        // After a panic, nothing else may be left to end the calls.
        signals::hang_up_all();
    }
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result.unwrap_or(Ok(Outcome::Panicked))
}

async fn run_command(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Demo(options) => demo::run(options).await,
        Command::Echo(options) => echo::run(options).await,
        Command::Play(options) => play::run(options).await,
        Command::Record(options) => record::run(options).await,
        Command::Transcribe(options) => transcribe::run(*options).await,
        Command::Bot(options) => bot::run(*options).await,
        Command::Call(options) => call::run(*options).await,
        Command::Load(options) => load::run(options).await,
        Command::Serve(options) => serve::run(options).await,
        Command::Generate(options) => generate::run(&options, args::definition()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{sync::mpsc::channel, thread};

    use sidetone::{Call, Server};
    use sidetone_caller::{Caller, EndCause, Event, Voice, call_all};

    use super::*;

    const CALLS: u64 = 10;

    async fn listen(mut call: Call) {
        while call.next().await.is_some() {}
    }

    fn caller(
        address: std::net::SocketAddr,
        number: u64,
        heard: std::sync::mpsc::Sender<()>,
    ) -> Caller {
        let mut is_first = true;
        Caller::new(address)
            .say(Voice::Ramp(number))
            .hang_up_after(Duration::from_secs(60))
            .observe(move |event| {
                if matches!(event, Event::Heard { .. }) && std::mem::take(&mut is_first) {
                    heard.send(()).unwrap();
                }
            })
    }

    #[test]
    fn a_panic_hangs_up_every_call() {
        let (calls, calling) = channel();
        let outcome = run_on(runtime::build().unwrap(), async move {
            let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
            signals::hang_up_on_exit(server.handle());
            let (address, (sender, heard)) = (server.local_addr(), channel());
            tokio::spawn(server.serve(listen));
            let callers = (0..CALLS).map(|number| caller(address, number, sender.clone()));
            let callers = callers.collect();
            calls
                .send(thread::spawn(move || call_all(callers)))
                .unwrap();
            let all_heard = tokio::task::spawn_blocking(move || {
                (0..CALLS).for_each(|_| heard.recv().unwrap());
            });
            all_heard.await.unwrap();
            panic!("as this test wants it");
        });
        assert_eq!(outcome.unwrap(), Outcome::Panicked);
        for record in calling.recv().unwrap().join().unwrap() {
            assert_eq!(record.unwrap().ended.cause, EndCause::ServerHungUp);
        }
    }
}
