//! The `sidetone` command: an AudioSocket server for the common jobs, and a caller to try one with.
//!
//! | room | what is in it |
//! |---|---|
//! | `args`, `address` | what can be typed |
//! | `service` | what all serving commands share: listening, calls, shutting down |
//! | `recordings` | what `--record` does |
//! | `notices` | what goes wrong before there is a call |
//! | `demo`, `echo`, `play`, `record`, `transcribe`, `call`, `load` | one command each |
//! | `afterwards` | what goes on when its call is over |
//! | `signals` | what each signal means, and ending at once |
//! | `board`, `events`, `flood`, `report`, `prose`, `terminal`, `stderr`, `clock` | what is said about calls, and how |
//! | `sound_file` | a sound that is to be played, from a file or a pipe |
//! | `tracks`, `correlate` | a call's two sides in a file, and what can be found in them |
//! | `plain` | text from outside, as it may be printed and written |
//! | `dialplan` | the lines to paste into Asterisk |
//! | `failure` | exit codes |
//! | `workers` | the threads that handlers run on |

mod address;
mod afterwards;
mod args;
mod board;
mod call;
mod clock;
mod correlate;
mod demo;
mod dialplan;
mod echo;
mod events;
mod failure;
mod flood;
mod load;
mod notices;
mod plain;
mod play;
mod prose;
mod record;
mod recordings;
mod report;
mod service;
mod signals;
mod sound_file;
mod stderr;
mod terminal;
mod tracks;
mod transcribe;
mod workers;

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Duration,
};

use args::Command;
use failure::{Failure, Verdict};
use tokio::runtime::Runtime;

/// How long work that was left to other threads may go on when the command is done.
const LEFTOVERS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    clock::remember_zone();
    stderr::tell_panics();
    let ran = args::parse().and_then(|command| {
        signals::heed()?;
        run(command)
    });
    let code = failure::exit_code(ran);
    stderr::finish(LEFTOVERS);
    code
}

fn run(command: Command) -> Result<Verdict, Failure> {
    run_on(workers::runtime()?, obey(command))
}

/// Runs it to its end, or to its panic, which the calls are told of.
fn run_on(
    runtime: Runtime,
    command: impl Future<Output = Result<Verdict, Failure>>,
) -> Result<Verdict, Failure> {
    let ran = catch_unwind(AssertUnwindSafe(|| runtime.block_on(command)));
    if ran.is_err() {
        // What panicked may have left nobody who would end the calls.
        signals::hang_up();
    }
    runtime.shutdown_timeout(LEFTOVERS);
    ran.unwrap_or(Ok(Verdict::Panicked))
}

async fn obey(command: Command) -> Result<Verdict, Failure> {
    match command {
        Command::Demo(demo) => demo::run(demo).await,
        Command::Echo(echo) => echo::run(echo).await,
        Command::Play(play) => play::run(play).await,
        Command::Record(record) => record::run(record).await,
        Command::Transcribe(transcribe) => transcribe::run(*transcribe).await,
        Command::Call(call) => call::run(*call).await,
        Command::Load(load) => load::run(load).await,
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
        let (tell, calling) = channel();
        let verdict = run_on(workers::runtime().unwrap(), async move {
            let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
            signals::hang_up_at_the_end(server.handle());
            let (address, (sender, heard)) = (server.local_addr(), channel());
            tokio::spawn(server.serve(listen));
            let callers = (0..CALLS).map(|number| caller(address, number, sender.clone()));
            let callers = callers.collect();
            tell.send(thread::spawn(move || call_all(callers))).unwrap();
            let all_heard = tokio::task::spawn_blocking(move || {
                (0..CALLS).for_each(|_| heard.recv().unwrap());
            });
            all_heard.await.unwrap();
            panic!("as this test wants it");
        });
        assert_eq!(verdict.unwrap(), Verdict::Panicked);
        for record in calling.recv().unwrap().join().unwrap() {
            assert_eq!(record.unwrap().ended.cause, EndCause::ServerHungUp);
        }
    }
}
