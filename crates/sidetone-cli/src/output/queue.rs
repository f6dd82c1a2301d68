//! The bounded queue of messages for standard output.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Condvar, Mutex};

use crate::event::Event;

/// The most messages that may be queued. Those beyond are dropped, and counted in their place.
const MAX_MESSAGES: usize = 10_000;

/// The most text in queued messages, in bytes, as transcripts can be long. What exceeds it is dropped likewise.
const MAX_TEXT: usize = 8 << 20;

/// The most messages that are taken at a time.
const BATCH: usize = 256;

/// The capacity in messages that an empty queue keeps.
const IDLE_CAPACITY: usize = 64;

#[derive(Debug)]
pub(super) enum Message {
    Event(Box<dyn Event>),
    Line(String),
    /// So many events are missing here.
    Dropped(u64),
}

impl Message {
    /// How many events are lost if the message is.
    pub(super) fn events(&self) -> u64 {
        match self {
            Self::Event(_) => 1,
            Self::Line(_) => 0,
            Self::Dropped(events) => *events,
        }
    }

    /// The length in bytes of the text in it that comes from outside.
    fn text_len(&self) -> usize {
        match self {
            Self::Event(event) => event.external_text_len(),
            Self::Line(line) => line.len(),
            Self::Dropped(_) => 0,
        }
    }
}

/// The queue between the threads that report and the one that writes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    /// The text in them, in bytes.
    text_len: usize,
    is_finished: bool,
}

impl Queue {
    /// Adds a message, or counts it as dropped. It never waits for the writer.
    pub(super) fn push(&self, message: Message) {
        let length = message.text_len();
        let mut state = self.state.lock();
        let State {
            messages, text_len, ..
        } = &mut *state;
        if messages.len() < MAX_MESSAGES && *text_len + length <= MAX_TEXT {
            *text_len += length;
            messages.push_back(message);
            self.changed.notify_one();
        } else if let Some(Message::Dropped(count)) = messages.back_mut() {
            *count += 1;
        } else {
            messages.push_back(Message::Dropped(1));
        }
    }

    /// Marks the end: no message follows.
    pub(super) fn finish(&self) {
        self.state.lock().is_finished = true;
        self.changed.notify_one();
    }

    /// Waits for messages, for `max_wait` at most, and moves the first of them to `taken`. Returns false with the last.
    pub(super) fn take(&self, taken: &mut Vec<Message>, max_wait: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        let is_idle = |state: &mut State| state.messages.is_empty() && !state.is_finished;
        match max_wait {
            Some(max_wait) => {
                self.changed.wait_while_for(&mut state, is_idle, max_wait);
            }
            None => self.changed.wait_while(&mut state, is_idle),
        }
        let count = state.messages.len().min(BATCH);
        let State {
            messages, text_len, ..
        } = &mut *state;
        taken.extend(
            messages
                .drain(..count)
                .inspect(|message| *text_len -= message.text_len()),
        );
        if state.messages.is_empty() {
            state.messages.shrink_to(IDLE_CAPACITY);
        }
        !(state.is_finished && state.messages.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> Message {
        Message::Line(number.to_string())
    }

    #[test]
    fn messages_beyond_the_limit_are_counted_where_they_are_missing() {
        let queue = Queue::default();
        (0..MAX_MESSAGES + 5).for_each(|number| queue.push(line(number)));
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, None));
        assert_eq!(taken.len(), BATCH);
        queue.push(line(usize::MAX));
        queue.finish();
        while queue.take(&mut taken, None) {}
        assert_eq!(taken.len(), MAX_MESSAGES + 2);
        assert!(matches!(taken[MAX_MESSAGES], Message::Dropped(5)));
        assert!(matches!(taken[MAX_MESSAGES + 1], Message::Line(_)));
    }

    #[test]
    fn long_texts_are_limited_by_their_bytes() {
        let queue = Queue::default();
        let long = || Message::Line("x".repeat(MAX_TEXT / 10));
        (0..15).for_each(|_| queue.push(long()));
        let mut taken = Vec::new();
        queue.take(&mut taken, None);
        assert_eq!(taken.len(), 11);
        assert!(matches!(taken[10], Message::Dropped(5)));
        // Taking messages makes room for others.
        taken.clear();
        (0..10).for_each(|_| queue.push(long()));
        queue.take(&mut taken, None);
        assert!(taken.iter().all(|it| matches!(it, Message::Line(_))));
        assert_eq!(taken.len(), 10);
    }

    #[test]
    fn a_queue_that_was_full_gives_its_memory_back() {
        let queue = Queue::default();
        (0..MAX_MESSAGES).for_each(|number| queue.push(line(number)));
        let mut taken = Vec::new();
        while taken.len() < MAX_MESSAGES {
            queue.take(&mut taken, None);
        }
        assert!(queue.state.lock().messages.capacity() <= 2 * IDLE_CAPACITY);
    }
}
