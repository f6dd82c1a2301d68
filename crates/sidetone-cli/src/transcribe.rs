//! `sidetone transcribe`: turns what callers say into text while they say it.
//!
//! | module | what it does |
//! |---|---|
//! | `options`, `recognizer`, `plan` | the options, the recognizer that they choose, and what is done with every call |
//! | `session`, `track` | sends a call's audio to the recognizer, one track for each side |
//! | `transcript_writer` | reports, shows, counts and writes what the recognizer returns |
//! | `transcript`, `file_format`, `files` | a transcript, its formats, and its files |
//! | `events`, `summary`, `words`, `hang_up` | events, figures, words, and ending a call |

mod events;
mod file_format;
mod files;
mod hang_up;
mod options;
mod plan;
mod recognizer;
mod session;
mod summary;
mod track;
mod transcript;
mod transcript_writer;
mod words;

use std::sync::Arc;

use tokio::{sync::mpsc, time::Instant};

use crate::{
    failure::{Failure, Outcome},
    output::Style,
    service::{Service, Settings},
};
use events::TranscribeEvent;
pub(crate) use options::Options;
use options::Provider;
use plan::Plan;
use session::Session;
use transcript_writer::TranscriptWriter;

/// The most events of a call's recognizers that are queued. While there are so many, no further ones are read.
const MAX_QUEUED_EVENTS: usize = 16;

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let (provider, recognizer) = recognizer::build(&options.recognizer)?;
    if provider == Provider::Openai && options.result.interim {
        return Err(Failure::new(
            "leave --interim out: OpenAI's protocol has no transcripts that may still change",
        ));
    }
    let destination = recognizer.destination();
    let plan = Arc::new(Plan::new(&options, recognizer).await?);
    let settings = Settings {
        record: options.recording.dir,
        style: match plan.json {
            true => Style::Json,
            false => Style::of_stdout(),
        },
        ..Settings::default()
    };
    let service = Service::open(&options.serving, settings).await?;
    let reporter = service.reporter();
    reporter.report(TranscribeEvent::Destination {
        provider: provider.name(),
        destination,
    });
    service.report_listening();
    let background = service.background();
    service
        .run(move |call, observer| {
            let (events, receiver) = mpsc::channel(MAX_QUEUED_EVENTS);
            // The call's clock started with the UUID, which came before this handler.
            let now = Instant::now();
            let started = now.checked_sub(call.stats().duration).unwrap_or(now);
            let writer = TranscriptWriter {
                plan: Arc::clone(&plan),
                reporter: reporter.clone(),
                call: call.handle(),
                entry: observer.entry(),
                started,
            };
            background.spawn(writer.run(receiver));
            let session = Session {
                plan: Arc::clone(&plan),
                reporter: reporter.clone(),
                started,
                events,
            };
            session.run(call, observer)
        })
        .await
}
