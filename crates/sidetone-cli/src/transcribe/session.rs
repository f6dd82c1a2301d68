//! Handles one call: sends its audio to the recognizer.

use std::{pin::pin, sync::Arc};

use sidetone::{Call, CallHandle, Clip, Codec, Event, Heard, Monitor, PlayError, Rate, Sides};
use sidetone_audio::g711::Law;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    hang_up::{HangUpReason, hang_up},
    plan::Plan,
    track::{RecognizerEvent, Track},
    transcript::Side,
};
use crate::{output::Reporter, registry::CallObserver};

pub(super) struct Session {
    pub(super) plan: Arc<Plan>,
    pub(super) reporter: Reporter,
    /// When the UUID came.
    pub(super) started: Instant,
    pub(super) events: mpsc::Sender<RecognizerEvent>,
}

impl Session {
    /// Handles the call until it ends.
    pub(super) async fn run(
        self,
        mut call: Call,
        mut observer: CallObserver,
    ) -> Result<(), PlayError> {
        let plan = &self.plan;
        let handle = call.handle();
        if plan.both
            && let Ok(monitor) = handle.monitor(Sides::Server)
        {
            tokio::spawn(transcribe_monitor(monitor, self.track(Side::Heard)));
        }
        let mut caller = self.track(Side::Caller);
        let mut prompts = pin!(play_prompts(&handle, &plan.prompts));
        let (mut prompts_ended, mut prompts_heard) = (false, false);
        let mut limit = pin!(sleep_until(self.started + plan.time_limit));
        let mut limit_reached = false;
        loop {
            tokio::select! {
                event = observer.next(&mut call) => match event {
                    None => return Ok(()),
                    Some(Event::Audio(frame)) => {
                        if prompts_heard || !plan.announces {
                            let law = law(&handle, frame.rate());
                            caller.push(frame.offset(), frame.rate().hz(), law, frame.samples());
                        }
                    }
                    Some(Event::NoAudio { offset, duration }) => {
                        caller.push_silence(offset, duration);
                    }
                    Some(_) => {}
                },
                played = &mut prompts, if !prompts_ended => {
                    prompts_ended = true;
                    // An announcement counts only if the caller heard all of it.
                    prompts_heard = played.is_ok_and(|heard| heard.unheard.is_zero());
                }
                () = &mut limit, if !limit_reached => {
                    limit_reached = true;
                    hang_up(&handle, &self.reporter, HangUpReason::TimeLimit);
                }
            }
        }
    }

    fn track(&self, side: Side) -> Track {
        let recognizer = Arc::clone(&self.plan.recognizer);
        Track::new(side, recognizer, self.events.clone())
    }
}

/// Plays the prompts to their end.
async fn play_prompts(call: &CallHandle, clips: &[Clip]) -> Result<Heard, PlayError> {
    let mut player = call
        .player(Rate::Slin.hz())
        .map_err(|_| PlayError::Closed)?;
    let playback = player.play_clip(&Clip::sequence(clips)).await?;
    Ok(playback.finished().await)
}

/// Transcribes what the caller hears.
async fn transcribe_monitor(mut monitor: Monitor, mut track: Track) {
    while let Some((_, frame)) = monitor.next().await {
        track.push(frame.offset(), frame.rate().hz(), None, frame.samples());
    }
}

/// The companding law of the caller's audio, if it is known.
fn law(call: &CallHandle, rate: Rate) -> Option<Law> {
    match (rate, call.stats().codec) {
        (Rate::Slin, Codec::Ulaw) => Some(Law::Ulaw),
        (Rate::Slin, Codec::Alaw) => Some(Law::Alaw),
        _ => None,
    }
}
