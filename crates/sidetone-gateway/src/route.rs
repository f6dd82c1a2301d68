//! What a route does with a call, from its beginning to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sidetone::{Call, Codec, Event, PlayError, Playback, Rate};
use sidetone_speech::{
    Format, Law, Recognizer, SpeechEvent, SpeechEvents, SpeechInput, transcribe,
};
use tokio::time::timeout;

use crate::{
    bot,
    call::RunningCall,
    event::GatewayEvent,
    rate_limit::RateLimit,
    recording::{Recordings, Said},
    registry::{Admitted, Handled, Registry},
    with_sources,
};

/// Digits and notices that are reported of a call each second, more than people and Asterisk cause. Others are counted.
const EVENTS_PER_SECOND: u32 = 20;

/// How long transcripts may come after the end of their call.
const LAST_TRANSCRIPTS: Duration = Duration::from_secs(15);

/// Handles a call that was let in.
pub(crate) async fn handle(
    call: Call,
    registry: Arc<Registry>,
    recordings: Option<Arc<Recordings>>,
) -> Result<(), PlayError> {
    let Some(handled) = call
        .data::<Admitted>()
        .and_then(|admitted| admitted.lock().take())
    else {
        return Ok(());
    };
    let running = Arc::clone(&handled.call);
    running.set_handle(call.handle());
    if running.route.record
        && let Some(recordings) = &recordings
        && let Err(error) = recordings.start(&running)
    {
        report(&registry, &running, error.to_string());
    }
    if running.route.save_transcript
        && let Some(recordings) = &recordings
        && let Err(error) = recordings.write_down(&running)
    {
        report(&registry, &running, error.to_string());
    }
    if let Some(bot) = &running.route.bot {
        let mut call = call;
        let result = bot::run(&mut call, &running, &registry, bot).await;
        drop(handled);
        return result;
    }
    let mut session = Session {
        speech: running.route.transcriber.clone().map(Speech::Waiting),
        limit: RateLimit::new(EVENTS_PER_SECOND),
        registry,
        running,
    };
    let result = session.run(call).await;
    session.finish(handled).await;
    result
}

struct Session {
    registry: Arc<Registry>,
    running: Arc<RunningCall>,
    speech: Option<Speech>,
    limit: RateLimit,
}

/// The transcription of the caller.
enum Speech {
    /// The caller's rate is known with the first frame.
    Waiting(Arc<dyn Recognizer>),
    Running(SpeechInput, SpeechEvents),
    /// The recognizer gave up.
    Over,
}

impl Session {
    async fn run(&mut self, mut call: Call) -> Result<(), PlayError> {
        let route = Arc::clone(&self.running.route);
        let playback = match &route.play {
            Some(clip) => match call.player(Rate::Slin.hz()) {
                Ok(mut player) => Some(player.play_clip(clip).await?),
                Err(_) => None,
            },
            None => None,
        };
        let ends_with_playback = !route.echo && !route.record && route.transcriber.is_none();
        let mut live = route.echo.then(|| call.live());
        loop {
            tokio::select! {
                event = call.next() => {
                    let Some(event) = event else { return Ok(()) };
                    if let (Some(live), Event::Audio(frame)) = (&mut live, &event) {
                        live.push(frame.samples());
                    }
                    self.handle_event(&event);
                }
                () = finished(playback.as_ref()), if ends_with_playback => return Ok(()),
                event = next_transcript(&mut self.speech) => self.handle_speech(event),
            }
        }
    }

    fn handle_event(&mut self, event: &Event<'_>) {
        match event {
            Event::Audio(frame) => {
                if let Some(Speech::Waiting(recognizer)) = &self.speech {
                    let codec = self.running.handle().map(|handle| handle.stats().codec);
                    let format = Format {
                        hz: frame.rate().hz(),
                        law: law(frame.rate(), codec),
                    };
                    let (input, events) = transcribe(Arc::clone(recognizer), format);
                    self.speech = Some(Speech::Running(input, events));
                }
                if let Some(Speech::Running(input, _)) = &mut self.speech {
                    input.push(frame.offset(), frame.samples());
                }
            }
            Event::NoAudio { offset, duration } => {
                if let Some(Speech::Running(input, _)) = &mut self.speech {
                    input.push_silence(*offset, *duration);
                }
            }
            Event::Dtmf(digit) if self.allows() => {
                self.running.note("digit");
                self.registry.bus.publish(GatewayEvent::Dtmf {
                    call: Arc::clone(&self.running.context),
                    digit: *digit,
                    at: self.running.context.started_at.elapsed(),
                });
            }
            Event::Codec(notice) => self.report(notice.to_string()),
            Event::Error(error) if self.allows() => self.report(with_sources(error)),
            Event::Lagged { frames } if self.allows() => {
                self.running.note("dropped audio");
                self.report(lagged(*frames));
            }
            _ => {}
        }
    }

    fn allows(&mut self) -> bool {
        let now = Instant::now();
        if let Some(count) = self.limit.take_due(now) {
            self.report(format!("{count} more events than are reported one by one"));
        }
        self.limit.allows(now, 1)
    }

    fn handle_speech(&mut self, event: Option<SpeechEvent>) {
        match event {
            None => self.speech = Some(Speech::Over),
            Some(SpeechEvent::Transcript(transcript)) if transcript.is_final => {
                let said = Said {
                    speaker: "caller",
                    text: transcript.text,
                    start: transcript.start,
                    end: transcript.end,
                };
                let since = said.start;
                publish_transcript(&self.registry, &self.running, said, since);
            }
            Some(SpeechEvent::Transcript(_)) => {}
            Some(other) => self.report(state_of(&other)),
        }
    }

    /// Waits for the last transcripts, when the call is over.
    async fn finish(&mut self, handled: Handled) {
        if let Some(Speech::Running(input, mut events)) = self.speech.take() {
            input.finish();
            let rest = async {
                while let Some(event) = events.next().await {
                    self.handle_speech(Some(event));
                }
            };
            if timeout(LAST_TRANSCRIPTS, rest).await.is_err() {
                self.report(
                    "the recognizer did not finish in time: the last words may be missing".into(),
                );
            }
        }
        drop(handled);
    }

    fn report(&self, text: String) {
        report(&self.registry, &self.running, text);
    }
}

pub(crate) fn report(registry: &Registry, call: &RunningCall, text: String) {
    registry.bus.publish(GatewayEvent::CallNotice {
        call: Arc::clone(&call.context),
        text,
    });
}

/// Reports what somebody said, at `since` at the earliest, and writes it down if that is wanted.
pub(crate) fn publish_transcript(
    registry: &Registry,
    call: &RunningCall,
    said: Said,
    since: Duration,
) {
    call.note("transcript");
    if !call.recording.write_down(&said, since) {
        let text = "the disk is too slow: what was said is not written down";
        report(registry, call, text.into());
    }
    registry.bus.publish(GatewayEvent::Transcript {
        call: Arc::clone(&call.context),
        speaker: said.speaker,
        text: said.text,
        start: said.start,
        end: said.end,
    });
}

/// Audio that was dropped, in words.
pub(crate) fn lagged(frames: u64) -> String {
    format!("{frames} frames were dropped because they were not handled in time")
}

/// Waits until everything was played; without a playback, forever.
async fn finished(playback: Option<&Playback>) {
    match playback {
        Some(playback) => {
            playback.finished().await;
        }
        None => std::future::pending().await,
    }
}

/// Waits for what the recognizer says; without one, forever.
async fn next_transcript(speech: &mut Option<Speech>) -> Option<SpeechEvent> {
    match speech {
        Some(Speech::Running(_, events)) => events.next().await,
        _ => std::future::pending().await,
    }
}

/// What became of the recognizer, in words.
fn state_of(event: &SpeechEvent) -> String {
    match event {
        SpeechEvent::Retrying { error, retry_in } => format!(
            "the recognizer is not available, and is tried again in {} s: {}",
            retry_in.as_secs(),
            with_sources(error)
        ),
        SpeechEvent::Recovered => "the recognizer works again".into(),
        SpeechEvent::Lost { from, to } => format!(
            "{:.1} s from {:.1} s on get no transcript",
            to.saturating_sub(*from).as_secs_f64(),
            from.as_secs_f64()
        ),
        SpeechEvent::Failed(error) => {
            format!("no more is transcribed: {}", with_sources(error))
        }
        _ => String::new(),
    }
}

/// The companding law of the caller's audio, if it is known.
fn law(rate: Rate, codec: Option<Codec>) -> Option<Law> {
    match (rate, codec) {
        (Rate::Slin, Some(Codec::Ulaw)) => Some(Law::Ulaw),
        (Rate::Slin, Some(Codec::Alaw)) => Some(Law::Alaw),
        _ => None,
    }
}
