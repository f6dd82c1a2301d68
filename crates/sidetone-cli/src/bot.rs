//! `sidetone bot`: gives every call to a voice bot.

mod events;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use sidetone::{Call, PlayError};
use sidetone_bot::{
    Bot, BotEnd, Endpoint, Session,
    dialect::{Asterisk, Dialect, Plivo, Twilio, Vonage},
};

use crate::{
    failure::{Failure, Outcome, with_sources},
    options::{RecordOptions, ServeOptions},
    output::Reporter,
    registry::CallObserver,
    service::{Service, Settings},
};
use events::BotReport;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The bot's address: ws://HOST:PORT/PATH or wss://HOST/PATH
    url: String,
    /// The protocol that the bot was written for
    #[arg(long, value_enum, default_value_t = DialectName::Twilio)]
    dialect: DialectName,
    /// Tell the bot this of every call
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = name_and_value)]
    params: Vec<(String, String)>,
    /// How often a connection that breaks in the middle of a call is made again
    #[arg(long, value_name = "N", default_value_t = 0)]
    reconnect: u32,
    /// Delay the bot's speech, if it sends it in real time and unevenly
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    prebuffer: u16,
    /// Trust only the certificates in this file, in PEM format
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    recording: RecordOptions,
    #[command(flatten)]
    serving: ServeOptions,
}

/// The values of `--dialect`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DialectName {
    /// Twilio's Media Streams, which most frameworks speak
    Twilio,
    /// Asterisk's chan_websocket, for bots that were made for newer Asterisks
    Asterisk,
    /// Vonage's WebSockets, at 16 kHz
    Vonage,
    /// Plivo's audio streams
    Plivo,
}

impl DialectName {
    fn dialect(self) -> Arc<dyn Dialect> {
        match self {
            Self::Twilio => Arc::new(Twilio::default()),
            Self::Asterisk => Arc::new(Asterisk::default()),
            Self::Vonage => Arc::new(Vonage::default()),
            Self::Plivo => Arc::new(Plivo::default()),
        }
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write NAME=VALUE".into()),
    }
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let bot = bot(&options)?;
    let params = Arc::new(options.params.into_iter().collect());
    let settings = Settings {
        record: options.recording.dir,
        ..Settings::default()
    };
    let service = Service::open(&options.serving, settings).await?;
    let reporter = service.reporter();
    service.report_listening();
    service
        .run(move |call, observer| {
            let session = Session::new(&call).params(Arc::clone(&params));
            converse(call, observer, bot.clone(), session, reporter.clone())
        })
        .await
}

fn bot(options: &Options) -> Result<Bot, Failure> {
    let mut endpoint = Endpoint::new(&options.url).map_err(|it| Failure::new(with_sources(&it)))?;
    if let Some(file) = &options.ca_file {
        let trusted = endpoint.with_roots(file);
        endpoint = trusted.map_err(|it| Failure::new(with_sources(&it)))?;
    }
    Ok(Bot::with_dialect(endpoint, options.dialect.dialect())
        .reconnects(options.reconnect)
        .prebuffer(Duration::from_millis(options.prebuffer.into())))
}

/// The call ends with the conversation, however that ends.
async fn converse(
    mut call: Call,
    _observer: CallObserver,
    bot: Bot,
    session: Session,
    reporter: Reporter,
) -> Result<(), PlayError> {
    let id = call.id();
    let events = reporter.clone();
    let session = session.on_event(move |event| {
        if let Some(report) = BotReport::of(id, event) {
            events.report(report);
        }
    });
    match bot.run(&mut call, session).await {
        Ok(BotEnd::Bot) => reporter.report(BotReport::Ended { id }),
        Ok(_) => {}
        Err(failure) => reporter.report(BotReport::failed(id, &failure)),
    }
    Ok(())
}
