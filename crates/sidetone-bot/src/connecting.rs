//! A call before its bot has taken it.

use std::{pin::pin, time::Duration};

use sidetone::{Call, Codec, EndReason, Event, Playback};
use sidetone_websocket::{ConnectError, Connection, Request};
use tokio::time::{Instant, timeout};

use crate::{
    bot::Bot,
    dialect::AudioFormat,
    failure::BotFailure,
    session::{BotEvent, Session},
};

/// The longest message of a bot, in bytes: ten minutes of audio at 24 kHz in base64.
const MAX_MESSAGE_LEN: usize = 40 << 20;
/// How long the first audio of the caller is waited for, which says at which rate it comes.
const RATE_WITHIN: Duration = Duration::from_millis(200);
/// Digits that are kept until the bot has taken the call.
const MAX_EARLY_DIGITS: usize = 64;

/// Who was there first.
pub(crate) enum Connected {
    /// The bot, with the digits that were pressed meanwhile.
    Bot(Box<Connection>, Vec<char>),
    CallEnded(EndReason),
}

/// Connects to a bot, while the caller hears the comfort sound.
pub(crate) async fn connect(
    bot: &Bot,
    call: &mut Call,
    session: &Session,
) -> Result<Connected, BotFailure> {
    let began = Instant::now();
    let upgrade = bot.dialect.upgrade(&bot.address, session);
    let request = Request {
        query: upgrade.query,
        headers: [bot.headers.clone(), upgrade.headers].concat(),
        subprotocol: upgrade.subprotocol,
        max_message_len: MAX_MESSAGE_LEN,
        timeout: bot.connect_within,
    };
    let comfort = match &bot.comfort {
        Some(clip) => match call.player(8_000) {
            Ok(mut player) => player.play_clip(clip).await.ok(),
            Err(_) => None,
        },
        None => None,
    };
    // Dropped with this function, it ends the comfort sound.
    let _comfort = comfort.map(Playback::stop_on_drop);
    let mut early = Early::default();
    let mut connecting = pin!(bot.endpoint.connect(&request));
    let connection = loop {
        tokio::select! {
            connected = &mut connecting => match connected {
                Ok(connection) => break connection,
                Err(error) => {
                    early.report_digits(session);
                    return Err(failed(error));
                }
            },
            event = call.next() => if let Some(reason) = early.handle(session, event) {
                return Ok(Connected::CallEnded(reason));
            },
        }
    };
    session.report(BotEvent::Connected {
        after: began.elapsed(),
    });
    // The dialect's best rate depends on it.
    let audio = async {
        while !early.is_rate_known {
            if let Some(reason) = early.handle(session, call.next().await) {
                return Some(reason);
            }
        }
        None
    };
    match timeout(RATE_WITHIN, audio).await {
        Ok(Some(reason)) => Ok(Connected::CallEnded(reason)),
        _ => Ok(Connected::Bot(Box::new(connection), early.digits)),
    }
}

/// What happens on a call before its bot has taken it.
#[derive(Default)]
struct Early {
    digits: Vec<char>,
    is_rate_known: bool,
}

impl Early {
    /// The reason if the call has ended.
    fn handle(&mut self, session: &Session, event: Option<Event<'_>>) -> Option<EndReason> {
        match event {
            None => return Some(EndReason::Shutdown),
            Some(Event::Ended(reason)) => {
                self.report_digits(session);
                return Some(reason);
            }
            Some(Event::Dtmf(digit)) if self.digits.len() < MAX_EARLY_DIGITS => {
                self.digits.push(digit);
            }
            Some(Event::Audio(_)) => self.is_rate_known = true,
            Some(event) => session.report_call(&event),
        }
        None
    }

    /// No bot takes them.
    fn report_digits(&self, session: &Session) {
        for digit in &self.digits {
            session.report(BotEvent::Digit(*digit));
        }
    }
}

fn failed(error: ConnectError) -> BotFailure {
    match error {
        ConnectError::Refused { status, reason } => BotFailure::Refused { status, reason },
        other => BotFailure::Unavailable(other.to_string()),
    }
}

/// How the caller's audio comes.
pub(crate) fn caller_format(call: &Call) -> AudioFormat {
    match call.stats().codec {
        Codec::Ulaw => AudioFormat::ULAW,
        Codec::Alaw => AudioFormat::ALAW,
        _ => AudioFormat::linear(call.rate().hz()),
    }
}
