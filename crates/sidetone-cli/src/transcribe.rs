//! `sidetone transcribe`: what callers say becomes text while they say it.
//!
//! | room | what is in it |
//! |---|---|
//! | `options` | what can be typed |
//! | `engine` | the recognizer that was asked for |
//! | `track` | one side of a call on its way to it |
//! | `scribe` | what comes back: told, shown, counted, written |
//! | `line`, `text`, `files` | a transcript, what it looks like, where it is written |
//! | `captions`, `tally` | a call's line on a terminal, and its summary |

pub(crate) mod captions;
mod engine;
mod files;
pub(crate) mod line;
pub(crate) mod options;
mod scribe;
pub(crate) mod tally;
mod text;
mod track;

use std::{path::PathBuf, sync::Arc, time::Duration};

use sidetone::{Call, CallHandle, Clip, Codec, Event, Heard, Monitor, PlayError, Rate};
use sidetone_audio::{g711::Law, tone};
use sidetone_speech::Recognizer;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    board::Watch,
    events::Event as Told,
    failure::{Failure, Verdict},
    report::{Style, Teller},
    service::{Manner, Service},
};
use line::Side;
use options::{EngineName, Options};
use scribe::{Scribe, hang_up};
use track::Track;

/// What recognizers have said and the scribe has not read; then they are read no further.
const UNREAD: usize = 16;
/// A call without a time limit.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is done with every call.
struct Plan {
    recognizer: Arc<dyn Recognizer>,
    both: bool,
    /// What the caller hears first.
    prompts: Vec<Clip>,
    /// Nothing is transcribed before the prompts are over, as one of them says that it will be.
    announces: bool,
    stop_word: Option<String>,
    time_limit: Duration,
    interim: bool,
    json: bool,
    output: Option<PathBuf>,
    formats: Vec<options::Format>,
    disk: files::Disk,
}

pub(crate) async fn run(options: Options) -> Result<Verdict, Failure> {
    let (engine, recognizer) = engine::build(&options.recognizer)?;
    if engine == EngineName::Openai && options.result.interim {
        return Err(Failure::new(
            "leave --interim out: OpenAI's protocol has no transcripts that may still change",
        ));
    }
    let destination = recognizer.destination();
    let plan = Arc::new(Plan::new(&options, recognizer).await?);
    let manner = Manner {
        record: options.recording.dir,
        style: match plan.json {
            true => Style::Json,
            false => Style::of_stdout(),
        },
        ..Manner::default()
    };
    let service = Service::open(&options.serving, manner).await?;
    let teller = service.teller();
    teller.tell(Told::Destination {
        engine: engine.name(),
        destination,
    });
    service.announce();
    let afterwards = service.afterwards();
    service
        .run(move |call, watch| {
            let (said, reader) = mpsc::channel(UNREAD);
            // The clock of the call began with the UUID, which came before its handler.
            let now = Instant::now();
            let began = now.checked_sub(call.stats().duration).unwrap_or(now);
            let scribe = Scribe {
                plan: Arc::clone(&plan),
                teller: teller.clone(),
                call: call.handle(),
                row: watch.row(),
                began,
            };
            afterwards.spawn(scribe.write(reader));
            let ear = Ear {
                plan: Arc::clone(&plan),
                teller: teller.clone(),
                began,
                said,
            };
            ear.listen(call, watch)
        })
        .await
}

impl Plan {
    async fn new(options: &Options, recognizer: Arc<dyn Recognizer>) -> Result<Self, Failure> {
        let (manner, result) = (&options.manner, &options.result);
        let mut prompts = Vec::new();
        if let Some(path) = &manner.greeting {
            prompts.push(Clip::open(path).map_err(Failure::new)?);
        }
        match &manner.announce {
            Some(Some(path)) => prompts.push(Clip::open(path).map_err(Failure::new)?),
            Some(None) => prompts.push(notes()?),
            None => {}
        }
        for clip in &prompts {
            // Most calls are 8 kHz; they need not wait for the resampler.
            clip.prepare(Rate::Slin).await;
        }
        if let Some(directory) = &result.output {
            files::prepare(directory)?;
        }
        Ok(Self {
            recognizer,
            both: manner.both,
            prompts,
            announces: manner.announce.is_some(),
            stop_word: manner.stop_word.clone(),
            time_limit: manner.time_limit.unwrap_or(FOR_EVER),
            interim: result.interim,
            json: result.json,
            output: result.output.clone(),
            formats: result.format.clone(),
            disk: files::Disk::default(),
        })
    }
}

/// The announcement for whoever has no recording of one: it only says that there is something to ask about.
fn notes() -> Result<Clip, Failure> {
    let hz = Rate::Slin.hz();
    Clip::from_samples(hz, tone::greeting(hz)).map_err(Failure::new)
}

/// Hears one call for its recognizers.
struct Ear {
    plan: Arc<Plan>,
    teller: Teller,
    began: Instant,
    said: mpsc::Sender<scribe::Said>,
}

impl Ear {
    async fn listen(self, mut call: Call, mut watch: Watch) -> Result<(), PlayError> {
        let plan = &self.plan;
        let handle = call.handle();
        if plan.both
            && let Ok(monitor) = handle.monitor()
        {
            tokio::spawn(overhear(monitor, self.track(Side::Heard)));
        }
        let mut caller = self.track(Side::Caller);
        let mut prompting = std::pin::pin!(prompt(&handle, &plan.prompts));
        let (mut prompting_over, mut prompted) = (false, false);
        let mut limit = std::pin::pin!(sleep_until(self.began + plan.time_limit));
        let mut limited = false;
        loop {
            tokio::select! {
                event = watch.next(&mut call) => match event {
                    None => return Ok(()),
                    Some(Event::Audio(frame)) => {
                        if prompted || !plan.announces {
                            let law = law(&handle, frame.rate());
                            caller.push(frame.offset(), frame.rate().hz(), law, frame.samples());
                        }
                    }
                    Some(Event::NoAudio { offset, duration }) => {
                        caller.push_silence(offset, duration);
                    }
                    Some(_) => {}
                },
                played = &mut prompting, if !prompting_over => {
                    prompting_over = true;
                    // An announcement that was not heard is none.
                    prompted = played.is_ok_and(|heard| heard.unheard.is_zero());
                }
                () = &mut limit, if !limited => {
                    limited = true;
                    hang_up(&handle, &self.teller, "time_limit", "the time limit is reached");
                }
            }
        }
    }

    fn track(&self, side: Side) -> Track {
        let recognizer = Arc::clone(&self.plan.recognizer);
        Track::new(side, recognizer, self.said.clone())
    }
}

/// Plays what is to be played, to its end.
async fn prompt(call: &CallHandle, clips: &[Clip]) -> Result<Heard, PlayError> {
    let mut player = call
        .player(Rate::Slin.hz())
        .map_err(|_| PlayError::Closed)?;
    let playing = player.play_clip(&Clip::sequence(clips)).await?;
    Ok(playing.finished().await)
}

async fn overhear(mut monitor: Monitor, mut track: Track) {
    while let Some(frame) = monitor.next().await {
        track.push(frame.offset(), frame.rate().hz(), None, frame.samples());
    }
}

/// How the caller's audio is companded, as far as that is known.
fn law(call: &CallHandle, rate: Rate) -> Option<Law> {
    match (rate, call.stats().codec) {
        (Rate::Slin, Codec::Ulaw) => Some(Law::Ulaw),
        (Rate::Slin, Codec::Alaw) => Some(Law::Alaw),
        _ => None,
    }
}

/// The words of a text: what is between spaces and punctuation.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let between = |letter: char| !(letter.is_alphanumeric() || matches!(letter, '\'' | '’' | '-'));
    let words = text.split(between);
    let words = words.map(|word| word.trim_matches(['\'', '’', '-']));
    words.filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole_and_without_what_is_around_them() {
        let all = |text| words(text).collect::<Vec<_>>();
        assert_eq!(
            all("Stop, I don't want 'quotes' – non-stop!"),
            ["Stop", "I", "don't", "want", "quotes", "non-stop"]
        );
        assert!(all(" … - ' ").is_empty());
    }
}
