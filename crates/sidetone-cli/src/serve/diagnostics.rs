//! What libraries have to say, in the gateway's log: a hook that fails, a disk that can't be written to.

use std::fmt::{Debug, Write};

use serde::Serialize;
use sidetone_gateway::{Level, envelope};
use time::OffsetDateTime;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    layer::{Context, SubscriberExt},
    registry,
    util::SubscriberInitExt,
};

use super::log::LogLine;
use crate::output::Reporter;

/// Shows warnings and errors of this project's libraries from now on.
pub(super) fn show(reporter: Reporter) {
    let layer = Log(reporter).with_filter(LevelFilter::WARN);
    // It fails if something else shows them already.
    let _ = registry().with(layer).try_init();
}

struct Log(Reporter);

#[derive(Serialize)]
struct Diagnostic<'a> {
    /// The module that says it.
    source: &'a str,
    text: String,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let source = event.metadata().target();
        if !source.starts_with("sidetone") {
            return;
        }
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            _ => Level::Warning,
        };
        let mut text = Text(String::new());
        event.record(&mut text);
        let diagnostic = Diagnostic {
            source,
            text: text.0,
        };
        let json = envelope("diagnostic", OffsetDateTime::now_utc(), &diagnostic);
        self.0.report(LogLine::new(level, json));
    }
}

/// The message, and the other fields after it.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}: {value:?}"),
        };
    }
}
