//! `sidetone serve`: the voice gateway as a daemon.

mod diagnostics;
mod log;
mod supervisor;
mod systemd;

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use sidetone_gateway::{Config, Gateway, GatewayHandle, OpenError};

use crate::{
    failure::{Failure, Outcome, print_error, with_sources},
    output::{Output, Style},
    signals::{self, FirstSignal, ReloadSignal},
};
use log::{LogLine, Started};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The gateway's file; without one, every call hears itself. SIGHUP reads it again
    file: Option<PathBuf>,
    /// Only say what is wrong with the file
    #[arg(long, requires = "file")]
    check: bool,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    if options.check {
        return check(&options);
    }
    if supervisor::is_wanted() {
        return supervisor::run().await;
    }
    // Before anything is listened on, so that a signal from then on is not lost.
    let (mut first, mut reload) = (FirstSignal::new(), ReloadSignal::new());
    let config = load(&options)?;
    let output = Output::start(Style::for_services(), None)?;
    let reporter = output.reporter();
    diagnostics::show(reporter.clone());
    let log = {
        let reporter = reporter.clone();
        Arc::new(move |event: &_| reporter.report(LogLine::from(event)))
    };
    let sockets = systemd::sockets()?;
    let gateway = Gateway::open(config, sockets, log).await;
    let gateway = gateway.map_err(|error| cant_open(&error))?;
    signals::hang_up_on_exit(gateway.server());
    reporter.report(Started::new(&gateway));
    let handle = gateway.handle();
    let watchdog = tokio::spawn(systemd::keep_alive());
    let steering = tokio::spawn(async move {
        let gone = supervisor::gone();
        let mut gone = std::pin::pin!(gone);
        loop {
            tokio::select! {
                () = first.received() => break,
                () = &mut gone => break,
                () = reload.received() => read_again(&options, &handle),
            }
        }
        systemd::stopping();
        handle.shut_down();
    });
    systemd::ready();
    let released = move || {
        // The process that follows has a watchdog of its own.
        watchdog.abort();
        supervisor::release();
    };
    let served = gateway.run(released).await;
    steering.abort();
    output.finish();
    served.map_err(|error| Failure::new(with_sources(&error)))?;
    Ok(Outcome::Passed)
}

fn load(options: &Options) -> Result<Config, Failure> {
    let config = match &options.file {
        Some(file) => Config::load(file),
        None => Config::embedded(),
    };
    config.map_err(|errors| {
        let mut lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let last = lines.pop().unwrap_or_default();
        lines.iter().for_each(|line| print_error(line));
        Failure::new(last)
    })
}

fn check(options: &Options) -> Result<Outcome, Failure> {
    load(options).map(|_| Outcome::Passed)
}

fn read_again(options: &Options, gateway: &GatewayHandle) {
    let Some(file) = &options.file else {
        return;
    };
    systemd::reloading();
    match Config::load(file) {
        Ok(config) => gateway.reload(config),
        Err(errors) => gateway.report_bad_file(&errors),
    }
    systemd::ready();
}

fn cant_open(error: &OpenError) -> Failure {
    Failure::new(with_sources(error))
}

impl Style {
    /// For a person at a terminal, else for a log.
    fn for_services() -> Self {
        match Self::of_stdout() {
            Self::Screen => Self::Text,
            other => other,
        }
    }
}
