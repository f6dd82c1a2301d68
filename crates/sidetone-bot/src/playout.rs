//! What the bot says, on its way into the call's queue.

use std::{collections::VecDeque, future::Future, pin::Pin, time::Duration};

use sidetone::{CallHandle, Mark, PlayError, Playback, Player, Utterance};
use tokio::time::Instant;

use crate::{
    bot::Share,
    dialect::{AudioFormat, Cleared, ItemName},
    failure::BotFailure,
};

/// More marks than these don't wait to be reached.
const MAX_MARKS: usize = 4096;

/// More items than these don't wait to be heard.
const MAX_ITEMS: usize = 512;
/// The samples that the buffer for decoding keeps capacity for.
const MAX_KEPT: usize = 8192;

/// A bot that speaks again so soon after its queue was empty sends in real time, and late.
const GAP: Duration = Duration::from_millis(250);
/// How much more such a bot's speech is delayed after each gap, and how much at most.
const PREBUFFER_STEP: Duration = Duration::from_millis(40);
const MAX_PREBUFFER: Duration = Duration::from_millis(120);

/// A clear under way.
pub(crate) type Clearing = Pin<Box<dyn Future<Output = Cleared> + Send>>;

/// The bot's side of a call.
pub(crate) struct Playout {
    call: CallHandle,
    prebuffer: Duration,
    /// When audio came last.
    last_audio: Option<Instant>,
    share: Share,
    /// Of audio without a name, and of marks.
    player: Option<Player>,
    /// The item that audio comes of.
    open: Option<(ItemName, Utterance)>,
    /// Items that are not heard to their end, in their order.
    items: VecDeque<(ItemName, Playback)>,
    /// Marks that are not reached, in their order.
    marks: VecDeque<(Mark, String)>,
    is_paused: bool,
    samples: Vec<i16>,
}

impl Playout {
    pub(crate) fn new(call: CallHandle, prebuffer: Duration, share: Share) -> Self {
        Self {
            call,
            prebuffer,
            last_audio: None,
            share,
            player: None,
            open: None,
            items: VecDeque::new(),
            marks: VecDeque::new(),
            is_paused: false,
            samples: Vec::new(),
        }
    }

    /// Queues audio.
    pub(crate) fn play(
        &mut self,
        item: Option<ItemName>,
        format: AudioFormat,
        audio: &[u8],
    ) -> Result<(), BotFailure> {
        self.adapt_prebuffer();
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        format.decode(audio, &mut samples);
        if self.items.len() >= MAX_ITEMS {
            let text = format!("more than {MAX_ITEMS} pieces of its speech wait to be heard");
            return Err(BotFailure::Protocol(text));
        }
        let played = match item {
            None => self.play_unnamed(format.hz, &samples),
            Some(item) => self.play_item(item, format.hz, &samples),
        };
        // A bot may send minutes at once.
        samples.shrink_to(MAX_KEPT);
        self.samples = samples;
        match played {
            Err(PlayError::Full) => Err(BotFailure::Flooded),
            // The end of the call, or a clear of somebody else's, is no failure of the bot.
            _ => self.account(),
        }
    }

    /// After a gap, what a bot says is delayed by a little, so that there is no other one.
    fn adapt_prebuffer(&mut self) {
        let now = Instant::now();
        let last = self.last_audio.replace(now);
        let is_gap = last.is_some_and(|last| now - last < GAP) && self.queued().is_zero();
        if !is_gap || self.prebuffer >= MAX_PREBUFFER {
            return;
        }
        self.prebuffer = (self.prebuffer + PREBUFFER_STEP).min(MAX_PREBUFFER);
        if let Some(player) = &mut self.player {
            // It fails only when the call is over.
            let _ = player.set_prebuffer(self.prebuffer);
        }
    }

    fn play_unnamed(&mut self, hz: u32, samples: &[i16]) -> Result<(), PlayError> {
        self.end_open_item();
        match self.player_at(hz) {
            Some(player) => player.try_play(samples),
            None => Ok(()),
        }
    }

    fn play_item(&mut self, item: ItemName, hz: u32, samples: &[i16]) -> Result<(), PlayError> {
        let is_open = matches!(&self.open, Some((open, it)) if *open == item && it.hz() == hz);
        if !is_open {
            self.end_open_item();
            self.open_item(item.clone(), hz);
        }
        let Some((_, utterance)) = &mut self.open else {
            return Ok(());
        };
        match utterance.try_play(samples) {
            // Somebody else has cleared the queue, the operator perhaps. What the bot says from now on is heard.
            Err(PlayError::Cleared) => {
                self.end_open_item();
                self.open_item(item, hz);
                match &mut self.open {
                    Some((_, utterance)) => utterance.try_play(samples),
                    None => Ok(()),
                }
            }
            played => played,
        }
    }

    fn open_item(&mut self, item: ItemName, hz: u32) {
        if let Ok(mut utterance) = self.call.utterance(hz) {
            utterance.set_prebuffer(self.prebuffer);
            self.items.push_back((item.clone(), utterance.playback()));
            self.open = Some((item, utterance));
        }
    }

    /// Nothing more comes of an item.
    pub(crate) fn end_item(&mut self, item: &str) {
        if matches!(&self.open, Some((open, _)) if **open == *item) {
            self.end_open_item();
        }
    }

    fn end_open_item(&mut self) {
        if let Some((_, utterance)) = self.open.take() {
            utterance.end();
        }
        self.items.retain(|(_, playback)| !playback.is_finished());
    }

    /// Puts a mark behind everything queued so far.
    pub(crate) fn mark(&mut self, name: String) -> Result<(), BotFailure> {
        if self.marks.len() >= MAX_MARKS {
            let text = format!("more than {MAX_MARKS} of its marks wait to be reached");
            return Err(BotFailure::Protocol(text));
        }
        // A mark behind an open item would wait for more of it.
        self.end_open_item();
        let hz = self.player.as_ref().map_or(8_000, Player::hz);
        if let Some(Ok(mark)) = self.player_at(hz).map(Player::mark) {
            self.marks.push_back((mark, name));
        }
        Ok(())
    }

    /// The marks that are reached with this one. Others before it were cleared by somebody else.
    pub(crate) fn take_reached(&mut self, mark: Mark) -> Vec<String> {
        let reached = self.marks.iter().take_while(|(it, _)| *it <= mark).count();
        self.marks.drain(..reached).map(|(_, name)| name).collect()
    }

    /// What is queued plays, for a bot that has lost its connection and knows of no marks or pause any more.
    pub(crate) fn reset(&mut self) {
        self.marks.clear();
        self.resume();
    }

    /// Holds everything that is queued back, from the next 20 ms slot on.
    pub(crate) fn pause(&mut self) {
        self.is_paused = true;
        // It fails only when the call is over.
        let _ = self.call.pause_playout();
    }

    /// Goes on with what was held back.
    pub(crate) fn resume(&mut self) {
        if std::mem::take(&mut self.is_paused) {
            let _ = self.call.resume_playout();
        }
    }

    /// Drops everything that is queued. The future says what that cut off.
    pub(crate) fn clear(&mut self) -> Clearing {
        self.last_audio = None;
        // Dropped first, the player ends what it wrote before the clear, not after.
        self.player = None;
        let clearing = self.call.clear();
        self.open = None;
        let items = std::mem::take(&mut self.items);
        let marks = self.marks.drain(..).map(|(_, name)| name).collect();
        Box::pin(async move {
            // It fails if the call has ended, and then nobody asks.
            let _ = clearing.await;
            let mut cleared = Cleared {
                marks,
                items: Vec::new(),
            };
            for (name, playback) in items {
                let heard = playback.finished().await;
                match cleared.items.last_mut() {
                    Some((last, sum)) if *last == name => *sum = sum.and(heard),
                    _ => cleared.items.push((name, heard)),
                }
            }
            cleared
        })
    }

    /// How much has not been heard.
    pub(crate) fn queued(&self) -> Duration {
        match &self.player {
            Some(player) => player.buffered(),
            None => self.call.stats().buffered,
        }
    }

    /// Takes note of how much memory the queue takes now.
    pub(crate) fn account(&mut self) -> Result<(), BotFailure> {
        let samples =
            self.queued().as_micros() as u64 * u64::from(self.call.rate().hz()) / 1_000_000;
        self.share.set(samples * 2)
    }

    /// Waits until everything queued has been heard. A pause ends.
    pub(crate) async fn drained(&mut self) {
        self.resume();
        self.end_open_item();
        if let Some(player) = self.player_at(8_000) {
            // Its error is the end of the call.
            let _ = player.drained().await;
        }
    }

    fn player_at(&mut self, hz: u32) -> Option<&mut Player> {
        if self.player.as_ref().is_none_or(|player| player.hz() != hz) {
            self.player = None;
            let mut player = self.call.player(hz).ok()?;
            // It fails only when the call is over.
            let _ = player.set_prebuffer(self.prebuffer);
            self.player = Some(player);
        }
        self.player.as_mut()
    }
}

/// A pause is the bot's. Whatever the call does next is heard.
impl Drop for Playout {
    fn drop(&mut self) {
        self.resume();
    }
}
