//! `sidetone demo`: a server, one call to it, and a check of what the caller heard.

mod narration;
mod results;
mod script;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use sidetone::{Call, Clip, Event, Networks, PlayError, ServerHandle};
use sidetone_caller::{CallRecord, Caller, CallerError, Codec, Stop};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    call_file::CallFile,
    dialplan,
    failure::{Failure, Outcome, print_error},
    options::{CodecName, RecordOptions, ServeOptions},
    output::{Reporter, Style},
    registry::CallObserver,
    service::{Service, Settings},
    signals::FirstSignal,
};
use narration::{Narrator, next_steps};
use results::Results;
use script::{DIGITS, FILE, HANGS_UP_AT, PRESSES_AT, RATE, SPEAKS_AT, greeting, samples_in, voice};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// End after the call, with exit code 0 if the caller heard what it should, else 1
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    recording: RecordOptions,
    #[command(flatten)]
    serving: ServeOptions,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let id = Uuid::new_v4();
    let greeting = Clip::from_samples(RATE, greeting()).map_err(Failure::new)?;
    let settings = Settings {
        record: options.recording.dir,
        style: Style::for_people(),
        also_allow: Some(this_machine()),
        hidden: Some(id),
    };
    let file = CallFile::create(Path::new(FILE))?;
    let service = Service::open(&options.serving, settings).await?;
    let narrator = Narrator::new(id, service.reporter());
    let caller = caller(&service, id, options.serving.codec, &narrator);
    narrator.introduce(service.address());
    let stop = Stop::new().map_err(Failure::new)?;
    let calling = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || caller.call_until(&stop))
    };
    let mut signal = FirstSignal::new();
    let interrupted = tokio::spawn(async move {
        signal.received().await;
        stop.stop();
    });
    let completion = Completion {
        handle: service.handle(),
        reporter: service.reporter(),
        address: service.address(),
        once: options.once,
        file,
    };
    let completing = tokio::spawn(completion.run(calling, interrupted));
    let served = service
        .run(move |call, observer| answer(call, observer, greeting.clone(), narrator.clone()))
        .await?;
    let checked = completing.await.map_err(Failure::new)?;
    Ok(if options.once { checked } else { served })
}

/// The addresses of this machine. The demonstration's call comes from one of them, whatever `--allow` says.
fn this_machine() -> Networks {
    let own = if_addrs::get_if_addrs().unwrap_or_default();
    let own: Vec<IpAddr> = own.iter().map(if_addrs::Interface::ip).collect();
    own.iter().fold(Networks::loopback(), |networks, ip| {
        match ip.to_string().parse() {
            Ok(network) => networks.and(network),
            Err(_) => networks,
        }
    })
}

fn caller(service: &Service, id: Uuid, codec: CodecName, narrator: &Arc<Narrator>) -> Caller {
    // If there are several addresses, the last one is loopback.
    let address = dialplan::reachable(service.address()).pop();
    let address = address.unwrap_or(service.address());
    let codec = match codec {
        CodecName::Ulaw => Codec::Ulaw,
        CodecName::Alaw => Codec::Alaw,
        CodecName::Slin | CodecName::Auto => Codec::default(),
    };
    let narrator = Arc::clone(narrator);
    Caller::new(address)
        .uuid(id)
        .codec(codec)
        .say([vec![0; samples_in(SPEAKS_AT)], voice()].concat())
        .dtmf(DIGITS, PRESSES_AT)
        .hang_up_after(HANGS_UP_AT)
        .observe(move |event| narrator.caller(event))
}

/// The handler: greets, then echoes.
async fn answer(
    mut call: Call,
    mut observer: CallObserver,
    greeting: Clip,
    narrator: Arc<Narrator>,
) -> Result<(), PlayError> {
    let id = call.id();
    let Ok(mut player) = call.player(RATE) else {
        return Ok(());
    };
    let greeted = player.play_clip(&greeting).await?;
    narrator.server(id, "answers and plays a greeting");
    let mut live = call.live();
    let mut echoes = false;
    while let Some(event) = observer.next(&mut call).await {
        match event {
            Event::Audio(frame) if greeted.is_finished() => {
                live.push(frame.samples());
                if !std::mem::replace(&mut echoes, true) {
                    narrator.server(id, "has played the greeting and starts to echo");
                }
            }
            Event::Dtmf(digit) => narrator.server(id, &format!("receives the digit {digit}")),
            Event::Ended(reason) => narrator.server(id, &format!("ends the call: {reason}")),
            _ => {}
        }
    }
    Ok(())
}

/// What happens when the call has ended.
struct Completion {
    handle: ServerHandle,
    reporter: Reporter,
    address: SocketAddr,
    once: bool,
    file: CallFile,
}

impl Completion {
    async fn run(
        self,
        calling: JoinHandle<Result<CallRecord, CallerError>>,
        interrupted: JoinHandle<()>,
    ) -> Outcome {
        let called = calling.await;
        if interrupted.is_finished() {
            return Outcome::Failed; // The user interrupted it, and needs no message.
        }
        let outcome = match called {
            Ok(Ok(record)) => check(record, self.file, &self.reporter).await,
            Ok(Err(error)) => Err(Failure::new(error)),
            Err(error) => Err(Failure::new(error)),
        };
        if self.once {
            self.handle.shutdown(Duration::ZERO);
        } else {
            let lines = next_steps(self.address, &dialplan::lines(self.address));
            lines.into_iter().for_each(|line| self.reporter.print(line));
        }
        outcome.unwrap_or_else(|failure| {
            print_error(&format!("the demonstration failed: {failure}"));
            Outcome::Failed
        })
    }
}

/// Writes the file, and checks and prints what the caller heard.
async fn check(
    record: CallRecord,
    file: CallFile,
    reporter: &Reporter,
) -> Result<Outcome, Failure> {
    let checking = tokio::task::spawn_blocking(move || {
        file.write(&record)?;
        Ok(Results::of(&record))
    });
    let results = checking.await.map_err(Failure::new)??;
    let lines = results.lines();
    lines.into_iter().for_each(|line| reporter.print(line));
    Ok(results.outcome())
}
