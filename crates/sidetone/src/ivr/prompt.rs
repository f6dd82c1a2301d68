use std::{
    future::{Future, IntoFuture},
    ops::BitOr,
    pin::Pin,
};

use sidetone_proto::Heard;

use super::{Ivr, speech::Speech};
use crate::{
    Clip, Event, PlayError,
    playback::{queue_clip, wait_until_whole},
};

/// What ends a prompt before it has been heard whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupt {
    keys: bool,
    speech: bool,
}

impl Interrupt {
    /// Any key. It stays typed ahead, for [`Ivr::digits`]; one that was typed ahead before skips the prompt.
    pub const KEYS: Self = Self {
        keys: true,
        speech: false,
    };
    /// The caller's voice (barge-in), as soon as it has lasted for 48 ms.
    pub const SPEECH: Self = Self {
        keys: false,
        speech: true,
    };
}

impl BitOr for Interrupt {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            keys: self.keys || other.keys,
            speech: self.speech || other.speech,
        }
    }
}

/// What interrupted a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InterruptedBy {
    /// This key.
    Key(char),
    /// The caller spoke.
    Speech,
}

/// How a prompt came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prompted {
    /// What the caller heard of it, and what not, to the sample.
    pub heard: Heard,
    /// What interrupted it; `None` when it was heard whole.
    pub interrupted_by: Option<InterruptedBy>,
}

/// A prompt that plays while it is awaited. Made by [`Ivr::prompt`].
///
/// # Errors
///
/// [`PlayError::Closed`] when the call ends.
///
/// # Cancel safety
///
/// This future is cancellation safe: dropped, it stops the prompt, and keys pressed meanwhile stay typed ahead.
#[must_use = "a prompt plays only while it is awaited"]
#[derive(Debug)]
pub struct PlayPrompt<'a> {
    ivr: &'a mut Ivr,
    clip: &'a Clip,
    interrupt: Interrupt,
}

impl<'a> PlayPrompt<'a> {
    pub(super) fn new(ivr: &'a mut Ivr, clip: &'a Clip) -> Self {
        Self {
            ivr,
            clip,
            interrupt: Interrupt::default(),
        }
    }

    /// Ends it at the next frame when the caller does this. Nothing interrupts it unless set.
    pub fn interrupted_by(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    async fn play(self) -> Result<Prompted, PlayError> {
        let Self {
            ivr,
            clip,
            interrupt,
        } = self;
        if let Some(&key) = ivr.typed_ahead.front()
            && interrupt.keys
        {
            return Ok(Prompted {
                heard: Heard::default(),
                interrupted_by: Some(InterruptedBy::Key(key)),
            });
        }
        let shared = ivr.call.shared();
        let generation = shared.generation();
        let playing = queue_clip(shared, generation, clip)?.stop_on_drop();
        let by = tokio::select! {
            biased;
            over = wait_until_whole(playing.playback(), generation) => {
                over?;
                return Ok(Prompted {
                    heard: playing.playback().finished().await,
                    interrupted_by: None,
                });
            }
            by = interruption(ivr, interrupt) => by?,
        };
        Ok(Prompted {
            heard: playing.playback().stop().await,
            interrupted_by: Some(by),
        })
    }
}

/// Waits until the caller interrupts.
async fn interruption(ivr: &mut Ivr, interrupt: Interrupt) -> Result<InterruptedBy, PlayError> {
    let mut speech = Speech::default();
    loop {
        match ivr.next().await? {
            Event::Dtmf(key) => {
                ivr.remember_key(key);
                if interrupt.keys {
                    return Ok(InterruptedBy::Key(key));
                }
            }
            Event::Audio(frame) if interrupt.speech => speech.push(&frame),
            Event::NoAudio { duration, .. } => speech.push_silence(duration),
            _ => {}
        }
        if speech.is_speaking() {
            return Ok(InterruptedBy::Speech);
        }
    }
}

impl<'a> IntoFuture for PlayPrompt<'a> {
    type Output = Result<Prompted, PlayError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.play())
    }
}
