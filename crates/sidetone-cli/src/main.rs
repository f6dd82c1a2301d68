//! The `sidetone` command: an AudioSocket server for the common jobs, and a caller to try one with.
//!
//! | room | what is in it |
//! |---|---|
//! | `args` | what can be typed |
//! | `service` | what all serving commands share: listening, calls, shutting down |
//! | `recordings` | what `--record` does |
//! | `notices` | what goes wrong before there is a call |
//! | `demo`, `echo`, `play`, `record`, `transcribe`, `call`, `load` | one command each |
//! | `afterwards` | what goes on when its call is over |
//! | `board`, `events`, `report`, `prose`, `terminal`, `clock` | what is said about calls, and how |
//! | `sound_file` | a sound that is to be played, from a file or a pipe |
//! | `tracks`, `correlate` | a call's two sides in a file, and what can be found in them |
//! | `dialplan` | the lines to paste into Asterisk |
//! | `failure` | exit codes |

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
mod load;
mod notices;
mod play;
mod prose;
mod record;
mod recordings;
mod report;
mod service;
mod sound_file;
mod terminal;
mod tracks;
mod transcribe;

use std::process::ExitCode;

use args::Command;
use failure::{Failure, Verdict};

fn main() -> ExitCode {
    clock::remember_zone();
    failure::exit_code(args::parse().and_then(run))
}

fn run(command: Command) -> Result<Verdict, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format_args!("can't start: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Demo(demo) => demo::run(demo).await,
            Command::Echo(echo) => echo::run(echo).await,
            Command::Play(play) => play::run(play).await,
            Command::Record(record) => record::run(record).await,
            Command::Transcribe(transcribe) => transcribe::run(*transcribe).await,
            Command::Call(call) => call::run(*call).await,
            Command::Load(load) => load::run(load).await,
        }
    })
}
