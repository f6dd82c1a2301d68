//! A call and its bot, and what happens when the bot fails.

use std::{
    future::pending,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sidetone::{Call, OwnedEvent, PlayError, Rate};
use sidetone_bot::{BotEnd, BotEvent, Breaker, Change, Session, dialect::Speaker};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    call::RunningCall,
    config::RouteBot,
    event::GatewayEvent,
    functions::CallFunctions,
    rate_limit::RateLimit,
    recording::Said,
    registry::Registry,
    route::{lagged, publish_transcript, report},
    with_sources,
};

/// What a bot does wrong, and digits, that are reported of a call each second. Others are counted.
const EVENTS_PER_SECOND: u32 = 20;
/// How long ago a sentence may have begun whose words come now. A bot does not say when it was.
const LATEST_WORDS: Duration = Duration::from_secs(30);
/// How long what is played when a bot failed may take.
const LONGEST_EXCUSE: Duration = Duration::from_secs(300);

/// Gives a call to the bot of its route, until either ends it.
pub(crate) async fn run(
    call: &mut Call,
    running: &Arc<RunningCall>,
    registry: &Arc<Registry>,
    bot: &RouteBot,
) -> Result<(), PlayError> {
    let route = &running.context.route;
    if !registry.bots.allow(route, Instant::now()) {
        let text = "the bot is not tried, since it failed the last calls";
        report(registry, running, text.into());
        return fail(call, running, bot).await;
    }
    let (progress, mut watched) = watch::channel(Progress::default());
    let observer = Observer {
        running: Arc::clone(running),
        registry: Arc::clone(registry),
        limit: Mutex::new(RateLimit::new(EVENTS_PER_SECOND)),
        progress,
    };
    let functions = CallFunctions {
        running: Arc::clone(running),
        registry: Arc::clone(registry),
        service: bot.functions.clone(),
    };
    let session = Session::new(call)
        .params(Arc::clone(&running.context.params))
        .tools(Arc::new(functions))
        .on_event(move |event| observer.observe(event));
    let charged = bot.bot.clone().budget(&registry.bot_budget);
    let succeed = |connected| {
        note_change(registry, route, registry.bots.succeeded(route, connected));
    };
    let ended = {
        let mut ended = pin!(charged.run(call, session));
        tokio::select! {
            ended = &mut ended => ended,
            connected = lasting(watched.clone()) => {
                succeed(connected);
                ended.await
            }
        }
    };
    let progress = *watched.borrow_and_update();
    match (ended, progress.connected) {
        // The caller may have gone before the bot said a word.
        (Ok(BotEnd::Call(_)), _) if !progress.has_spoken => Ok(()),
        (Ok(_), connected) => {
            connected.into_iter().for_each(succeed);
            Ok(())
        }
        (Err(failure), connected) => {
            let now = Instant::now();
            let change = registry.bots.failed(route, &failure, connected, now);
            report(registry, running, failure.to_string());
            note_change(registry, route, change);
            running.note(format!("bot failed: {}", failure.kind()));
            fail(call, running, bot).await
        }
    }
}

/// How far a call has come with its bot.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When the bot took it, unless it has lost it since.
    connected: Option<Instant>,
    has_spoken: bool,
}

/// Waits until the bot has kept the call for long enough to be trusted. Returns when it took it.
async fn lasting(mut progress: watch::Receiver<Progress>) -> Instant {
    loop {
        let connected = progress.borrow_and_update().connected;
        let lasted = async {
            match connected {
                Some(connected) => {
                    sleep(Breaker::LASTING).await;
                    connected
                }
                None => pending().await,
            }
        };
        tokio::select! {
            connected = lasted => return connected,
            changed = progress.changed() => if changed.is_err() {
                return pending().await;
            },
        }
    }
}

/// What the caller hears of it, and what the dialplan does then. The call ends.
async fn fail(call: &mut Call, running: &RunningCall, bot: &RouteBot) -> Result<(), PlayError> {
    running.set_result_of_failure(bot.failure.result.clone());
    let Some(clip) = &bot.failure.play else {
        return Ok(());
    };
    let Ok(mut player) = call.player(Rate::Slin.hz()) else {
        return Ok(());
    };
    let playback = player.play_clip(clip).await?;
    let heard = async {
        tokio::select! {
            _ = playback.finished() => {}
            () = async { while call.next().await.is_some() {} } => {}
        }
    };
    // A clip that takes longer is cut off.
    let _ = timeout(LONGEST_EXCUSE, heard).await;
    Ok(())
}

/// Reports what happens between a call and its bot.
struct Observer {
    running: Arc<RunningCall>,
    registry: Arc<Registry>,
    limit: Mutex<RateLimit>,
    progress: watch::Sender<Progress>,
}

impl Observer {
    fn observe(&self, event: BotEvent) {
        let (registry, running) = (&self.registry, &self.running);
        let (bots, route) = (&registry.bots, &running.context.route);
        match event {
            BotEvent::Connected { after } => {
                running.note("bot connected");
                bots.connected(route, after);
                self.progress.send_replace(Progress {
                    connected: Some(Instant::now()),
                    has_spoken: false,
                });
            }
            BotEvent::FirstAudio { after } => {
                bots.spoke(route, after);
                // Nobody waits for that.
                self.progress.send_if_modified(|it| {
                    it.has_spoken = true;
                    false
                });
            }
            BotEvent::Complaint(text) => {
                bots.complained(route);
                self.report(format!("the bot sends {text}"));
            }
            BotEvent::Call(OwnedEvent::Codec(notice)) => self.report(notice.to_string()),
            BotEvent::Call(OwnedEvent::Error(error)) => self.report(with_sources(&error)),
            BotEvent::Call(OwnedEvent::Lagged { frames }) => {
                running.note("dropped audio");
                self.report(lagged(frames));
            }
            BotEvent::Dropped { frames } => {
                bots.dropped(route, frames);
                running.note("bot does not read");
                self.report(format!(
                    "the bot does not take the caller's audio: {frames} frames were dropped"
                ));
            }
            BotEvent::Reconnecting(failure) => {
                bots.reconnecting(route);
                self.progress.send_replace(Progress::default());
                running.note("bot reconnects");
                self.report(format!("{failure}; the connection is made once more"));
            }
            BotEvent::Digit(digit) if self.allows() => {
                running.note("digit");
                registry.bus.publish(GatewayEvent::Dtmf {
                    call: Arc::clone(&running.context),
                    digit,
                    at: running.context.started_at.elapsed(),
                });
            }
            BotEvent::Transcript(transcript) => {
                let at = running.context.started_at.elapsed();
                let said = Said {
                    speaker: match transcript.speaker {
                        Speaker::Caller => "caller",
                        Speaker::Bot => "bot",
                    },
                    text: transcript.text,
                    start: at,
                    end: at,
                };
                let since = at.saturating_sub(LATEST_WORDS);
                publish_transcript(registry, running, said, since);
            }
            _ => {}
        }
    }

    fn report(&self, text: String) {
        if self.allows() {
            report(&self.registry, &self.running, text);
        }
    }

    fn allows(&self) -> bool {
        let mut limit = self.limit.lock();
        let now = Instant::now();
        let suppressed = limit.take_due(now);
        let is_allowed = limit.allows(now, 1);
        drop(limit);
        if let Some(count) = suppressed {
            let text = format!("{count} more events than are reported one by one");
            report(&self.registry, &self.running, text);
        }
        is_allowed
    }
}

/// Forgets the bots that are not in the file any more.
pub(crate) fn forget_removed(registry: &Registry) {
    let config = registry.config();
    let has_bot = |route: &str| config.routes.get(route).is_some_and(|it| it.bot.is_some());
    for route in registry.bots.retain(has_bot) {
        let text = format!("route {route} has no bot any more");
        set_alarm(registry, &route, false, text);
    }
}

/// Says that a bot is dead, or back.
fn note_change(registry: &Registry, route: &str, change: Option<Change>) {
    let Some(change) = change else {
        return;
    };
    let (is_active, text) = match change {
        Change::Opened => (
            true,
            format!(
                "the bot of route {route} fails its calls: they are spared it, and one every 5 s tries it"
            ),
        ),
        Change::Closed => (false, format!("the bot of route {route} takes calls again")),
    };
    set_alarm(registry, route, is_active, text);
}

fn set_alarm(registry: &Registry, route: &str, is_active: bool, text: String) {
    registry.bus.publish(GatewayEvent::Alarm {
        name: format!("bot {route}").into(),
        is_active,
        text,
    });
}
