//! What the bot says, as the service counts it.

use std::{collections::VecDeque, time::Duration};

use crate::dialect::{AudioFormat, Cleared, ItemName, whole_samples::WholeSamples};

/// Pieces of speech that are remembered until they are heard.
const MAX_SPEECHES: usize = 512;

/// Speech that is not heard to its end, for all that is known here, in its order.
pub(super) struct Speeches {
    format: AudioFormat,
    all: VecDeque<Speech>,
}

/// One part of an item that is audio.
struct Speech {
    name: ItemName,
    item_id: String,
    content_index: u32,
    samples: WholeSamples,
    /// What came of it, in bytes.
    received: usize,
    /// Nothing more comes of it.
    is_whole: bool,
}

/// How much was heard of a part of an item. Never nothing: the service takes no length of 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Truncation {
    pub(super) item_id: String,
    pub(super) content_index: u32,
    pub(super) audio_end_ms: u64,
}

impl Speeches {
    pub(super) fn new(format: AudioFormat) -> Self {
        Self {
            format,
            all: VecDeque::new(),
        }
    }

    /// Audio of a part has come. Returns what can be played now, and under which name.
    pub(super) fn add(
        &mut self,
        item_id: &str,
        content_index: u32,
        audio: &[u8],
    ) -> (ItemName, Vec<u8>) {
        let format = self.format;
        let speech = self.speech(item_id, content_index);
        speech.received += audio.len();
        (speech.name.clone(), speech.samples.take(format, audio))
    }

    fn speech(&mut self, item_id: &str, content_index: u32) -> &mut Speech {
        let found = self.position(item_id, content_index);
        let index = found.unwrap_or_else(|| {
            if self.all.len() >= MAX_SPEECHES {
                self.all.pop_front();
            }
            self.all.push_back(Speech {
                name: match content_index {
                    0 => item_id.into(),
                    _ => format!("{item_id}/{content_index}").into(),
                },
                item_id: item_id.into(),
                content_index,
                samples: WholeSamples::default(),
                received: 0,
                is_whole: false,
            });
            self.all.len() - 1
        });
        &mut self.all[index]
    }

    fn position(&self, item_id: &str, content_index: u32) -> Option<usize> {
        let is_it = |it: &Speech| it.item_id == item_id && it.content_index == content_index;
        self.all.iter().position(is_it)
    }

    /// Nothing more comes of a part, which had this name.
    pub(super) fn end(&mut self, item_id: &str, content_index: u32) -> Option<ItemName> {
        let index = self.position(item_id, content_index)?;
        let speech = &mut self.all[index];
        let was_whole = std::mem::replace(&mut speech.is_whole, true);
        (!was_whole).then(|| speech.name.clone())
    }

    /// All that came was heard.
    pub(super) fn forget_whole(&mut self) {
        self.all.retain(|it| !it.is_whole);
    }

    /// A clear cut this off.
    pub(super) fn cut(&mut self, cleared: &Cleared) -> Vec<Truncation> {
        // What somebody else's clear divided is one piece of speech.
        let mut all: Vec<(&ItemName, Duration, bool)> = Vec::new();
        for (name, heard) in &cleared.items {
            let is_rest = !heard.unheard.is_zero();
            match all.iter_mut().find(|(it, ..)| *it == name) {
                Some((_, sum, is_cut)) => {
                    *sum += heard.heard;
                    *is_cut |= is_rest;
                }
                None => all.push((name, heard.heard, is_rest)),
            }
        }
        let mut truncations = Vec::new();
        for (name, heard, is_cut) in all {
            let index = self.all.iter().position(|it| it.name == *name);
            let speech = index.and_then(|index| self.all.remove(index));
            // Truncated, what was heard to its end would lose its words.
            if let Some(speech) = speech.filter(|it| is_cut || !it.is_whole) {
                truncations.extend(self.truncation(&speech, heard));
            }
        }
        truncations
    }

    /// All that came was heard, and what still comes is not. Returns the names of the parts that end by that.
    pub(super) fn cut_unfinished(&mut self) -> Vec<(ItemName, Option<Truncation>)> {
        let all = std::mem::take(&mut self.all);
        all.into_iter()
            .filter(|it| !it.is_whole)
            .map(|it| {
                let truncation = self.truncation(&it, Duration::MAX);
                (it.name, truncation)
            })
            .collect()
    }

    fn truncation(&self, speech: &Speech, heard: Duration) -> Option<Truncation> {
        let samples = speech.received / self.format.sample_len();
        let received_ms = samples as u128 * 1000 / u128::from(self.format.hz);
        let audio_end_ms = heard.as_millis().min(received_ms) as u64;
        (audio_end_ms > 0).then(|| Truncation {
            item_id: speech.item_id.clone(),
            content_index: speech.content_index,
            audio_end_ms,
        })
    }
}
