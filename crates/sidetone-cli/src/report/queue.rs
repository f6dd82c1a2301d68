//! What waits to be written, with a bound.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Condvar, Mutex};

use crate::events::Event;

/// Messages that may wait. What comes while so many do is dropped, and counted in its place.
const UNWRITTEN: usize = 10_000;

/// Bytes of text in them that may wait, as transcripts can be long; what would be more is dropped likewise.
const UNWRITTEN_TEXT: usize = 8 << 20;

/// Messages that are taken at a time.
const AT_A_TIME: usize = 256;

/// What a quiet queue keeps room for.
const QUIET: usize = 64;

#[derive(Debug)]
pub(super) enum Message {
    Event(Event),
    Line(String),
    /// So many messages are missing here.
    Dropped(u64),
}

impl Message {
    /// How many events are lost with it.
    pub(super) fn events(&self) -> u64 {
        match self {
            Self::Event(_) => 1,
            Self::Line(_) => 0,
            Self::Dropped(events) => *events,
        }
    }

    /// The text in it whose length others choose, in bytes.
    fn text(&self) -> usize {
        match self {
            Self::Event(event) => event.text_len(),
            Self::Line(line) => line.len(),
            Self::Dropped(_) => 0,
        }
    }
}

/// The queue between all who tell and the one who writes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    /// Bytes of text in them.
    text: usize,
    is_finished: bool,
}

impl Queue {
    /// Adds one. It never waits for the writer.
    pub(super) fn push(&self, message: Message) {
        let length = message.text();
        let mut waiting = self.waiting.lock();
        let Waiting { messages, text, .. } = &mut *waiting;
        if messages.len() < UNWRITTEN && *text + length <= UNWRITTEN_TEXT {
            *text += length;
            messages.push_back(message);
            self.news.notify_one();
        } else if let Some(Message::Dropped(count)) = messages.back_mut() {
            *count += 1;
        } else {
            messages.push_back(Message::Dropped(1));
        }
    }

    /// Nothing more will come.
    pub(super) fn finish(&self) {
        self.waiting.lock().is_finished = true;
        self.news.notify_one();
    }

    /// Waits for messages, but no longer than this, and takes the first few; false when these were the last.
    pub(super) fn take(&self, taken: &mut Vec<Message>, longest: Option<Duration>) -> bool {
        let mut waiting = self.waiting.lock();
        let is_quiet = |waiting: &mut Waiting| waiting.messages.is_empty() && !waiting.is_finished;
        match longest {
            Some(longest) => {
                self.news.wait_while_for(&mut waiting, is_quiet, longest);
            }
            None => self.news.wait_while(&mut waiting, is_quiet),
        }
        let count = waiting.messages.len().min(AT_A_TIME);
        let Waiting { messages, text, .. } = &mut *waiting;
        taken.extend(
            messages
                .drain(..count)
                .inspect(|message| *text -= message.text()),
        );
        if waiting.messages.is_empty() {
            waiting.messages.shrink_to(QUIET);
        }
        !(waiting.is_finished && waiting.messages.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> Message {
        Message::Line(number.to_string())
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted_where_it_is_missing() {
        let queue = Queue::default();
        (0..UNWRITTEN + 5).for_each(|number| queue.push(line(number)));
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, None));
        assert_eq!(taken.len(), AT_A_TIME);
        queue.push(line(usize::MAX));
        queue.finish();
        while queue.take(&mut taken, None) {}
        assert_eq!(taken.len(), UNWRITTEN + 2);
        assert!(matches!(taken[UNWRITTEN], Message::Dropped(5)));
        assert!(matches!(taken[UNWRITTEN + 1], Message::Line(_)));
    }

    #[test]
    fn long_texts_are_bounded_by_their_bytes() {
        let queue = Queue::default();
        let long = || Message::Line("x".repeat(UNWRITTEN_TEXT / 10));
        (0..15).for_each(|_| queue.push(long()));
        let mut taken = Vec::new();
        queue.take(&mut taken, None);
        assert_eq!(taken.len(), 11);
        assert!(matches!(taken[10], Message::Dropped(5)));
        // What was taken makes room.
        taken.clear();
        (0..10).for_each(|_| queue.push(long()));
        queue.take(&mut taken, None);
        assert!(taken.iter().all(|it| matches!(it, Message::Line(_))));
        assert_eq!(taken.len(), 10);
    }

    #[test]
    fn a_queue_that_was_full_gives_its_memory_back() {
        let queue = Queue::default();
        (0..UNWRITTEN).for_each(|number| queue.push(line(number)));
        let mut taken = Vec::new();
        while taken.len() < UNWRITTEN {
            queue.take(&mut taken, None);
        }
        assert!(queue.waiting.lock().messages.capacity() <= 2 * QUIET);
    }
}
