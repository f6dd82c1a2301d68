//! The messages that wait for one endpoint, and which of them may be sent. Time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Limits,
    message::{Key, LONGEST_BODY, Message},
};

/// Whether messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    On,
    /// The endpoint answered 410 Gone.
    Gone,
    /// The configuration no longer names the endpoint.
    Removed,
}

/// What an attempt came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Delivered,
    /// Status 410.
    Gone,
    Failed(Failure),
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// The endpoint asks to be left alone for so long.
    pub(super) retry_after: Option<Duration>,
    /// Whether it says nothing about this message: the endpoint was not reached.
    pub(super) is_outage: bool,
}

/// What becomes of a message after an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    /// It stays, and is tried again.
    Waits,
    /// It was retried for as long as messages are kept.
    GivenUp,
}

/// What there is to do.
#[derive(Debug)]
pub(super) enum Next {
    Attempt(Arc<Message>),
    /// Nothing before this time, or before something else happens.
    Wait(Option<Instant>),
}

/// Messages since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) delivered: u64,
    pub(super) failed: u64,
    pub(super) expired: u64,
    pub(super) dropped: u64,
}

/// The messages for one endpoint.
///
/// Those of a call form a chain, of which only the first is ever due or in flight.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    pub(super) sending: Sending,
    entries: BTreeMap<Key, Entry>,
    chains: HashMap<Uuid, VecDeque<Key>>,
    /// The firsts of all chains that are not in flight.
    due: BTreeSet<(Instant, Key)>,
    in_flight: usize,
    paused_until: Option<Instant>,
    /// Whether any message met an outage since the last delivery.
    has_met_outage: bool,
    bytes: usize,
    pub(super) counts: Counts,
}

#[derive(Debug)]
struct Entry {
    message: Arc<Message>,
    expires: Instant,
    failures: u32,
    state: State,
    met_outage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind an earlier message of its call.
    Behind,
    Due(Instant),
    InFlight,
}

impl Queue {
    pub(super) fn new(limits: Limits, sending: Sending) -> Self {
        Self {
            limits,
            sending,
            entries: BTreeMap::new(),
            chains: HashMap::new(),
            due: BTreeSet::new(),
            in_flight: 0,
            paused_until: None,
            has_met_outage: false,
            bytes: 0,
            counts: Counts::default(),
        }
    }

    /// Adds a message that is `age` old, and drops the oldest ones if there are too many. Returns
    /// what is dropped: the message itself if it is longer than one can be.
    pub(super) fn push(&mut self, message: Arc<Message>, age: Duration, now: Instant) -> Vec<Key> {
        let key = message.key;
        if message.body.len() > self.limits.bytes.min(LONGEST_BODY) {
            self.counts.dropped += 1;
            return vec![key];
        }
        let mut state = State::Due(now);
        if let Some(call) = message.call {
            let chain = self.chains.entry(call).or_default();
            if !chain.is_empty() {
                state = State::Behind;
            }
            chain.push_back(key);
        }
        if state != State::Behind {
            self.due.insert((now, key));
        }
        self.bytes += message.body.len();
        let entry = Entry {
            message,
            expires: now + self.limits.keep.saturating_sub(age),
            failures: 0,
            state,
            met_outage: false,
        };
        self.entries.insert(key, entry);
        let mut dropped = Vec::new();
        while self.entries.len() > self.limits.messages.max(1) || self.bytes > self.limits.bytes {
            // One in flight may be with the endpoint already, and its outcome will be known soon.
            let mut waiting = self.entries.iter();
            let Some(oldest) = waiting.find(|(_, it)| it.state != State::InFlight) else {
                break;
            };
            let oldest = *oldest.0;
            self.take_out(oldest, now);
            self.counts.dropped += 1;
            dropped.push(oldest);
        }
        dropped
    }

    /// Takes out what has waited for too long, whether or not it may be sent.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Key> {
        let mut expired = Vec::new();
        while let Some((&key, entry)) = self.entries.first_key_value()
            && entry.expires <= now
            && entry.state != State::InFlight
        {
            self.take_out(key, now);
            self.counts.expired += 1;
            expired.push(key);
        }
        expired
    }

    /// Says what to do. A message that it returns is in flight, until [`finish`](Self::finish).
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.sending != Sending::On || self.in_flight >= self.limits.concurrency.max(1) {
            return Next::Wait(None);
        }
        let Some(&(due, key)) = self.due.first() else {
            return Next::Wait(None);
        };
        let at = self.paused_until.map_or(due, |until| until.max(due));
        if at > now {
            return Next::Wait(Some(at));
        }
        self.due.remove(&(due, key));
        let Some(entry) = self.entries.get_mut(&key) else {
            return Next::Wait(Some(now));
        };
        entry.state = State::InFlight;
        self.in_flight += 1;
        Next::Attempt(Arc::clone(&entry.message))
    }

    /// Takes the outcome of an attempt. `jitter` is from 0 to 1.
    pub(super) fn finish(
        &mut self,
        key: Key,
        outcome: &Outcome,
        now: Instant,
        jitter: f64,
    ) -> Fate {
        let Some(entry) = self.entries.get_mut(&key) else {
            return Fate::Waits;
        };
        self.in_flight -= 1;
        match outcome {
            Outcome::Delivered => {
                self.take_out(key, now);
                self.counts.delivered += 1;
                self.end_outage(now);
                Fate::Delivered
            }
            Outcome::Gone => {
                self.sending = match self.sending {
                    Sending::Removed => Sending::Removed,
                    Sending::On | Sending::Gone => Sending::Gone,
                };
                self.counts.failed += 1;
                self.make_due(key, now);
                Fate::Waits
            }
            Outcome::Failed(failure) => {
                self.counts.failed += 1;
                entry.failures = entry.failures.saturating_add(1);
                entry.met_outage = failure.is_outage;
                self.has_met_outage |= failure.is_outage;
                let asked = failure.retry_after;
                let schedule = self.limits.schedule();
                let next = schedule.next_attempt(entry.failures, now, entry.expires, asked, jitter);
                if asked.is_some() {
                    self.paused_until = Some(now + schedule.bounded(asked)).max(self.paused_until);
                }
                match next {
                    Some(at) => {
                        self.make_due(key, at);
                        Fate::Waits
                    }
                    None => {
                        self.take_out(key, now);
                        self.counts.expired += 1;
                        Fate::GivenUp
                    }
                }
            }
        }
    }

    /// Sends again, after the endpoint was gone or removed, and at once.
    pub(super) fn enable(&mut self, now: Instant) {
        if self.sending != Sending::On {
            self.sending = Sending::On;
            self.paused_until = None;
        }
        self.end_outage(now);
    }

    pub(super) fn waiting(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long the oldest message has been waiting.
    pub(super) fn oldest(&self, now: Instant) -> Option<Duration> {
        let (_, entry) = self.entries.first_key_value()?;
        Some(
            self.limits
                .keep
                .saturating_sub(entry.expires.saturating_duration_since(now)),
        )
    }

    /// The endpoint is there again: what failed because it was not need not wait.
    fn end_outage(&mut self, now: Instant) {
        if !std::mem::take(&mut self.has_met_outage) {
            return;
        }
        for (key, entry) in &mut self.entries {
            if std::mem::take(&mut entry.met_outage)
                && let State::Due(at) = entry.state
            {
                self.due.remove(&(at, *key));
                let at = at.min(now);
                entry.state = State::Due(at);
                self.due.insert((at, *key));
            }
        }
    }

    /// A message that is not in `due`, and first in its chain, is due at a time.
    fn make_due(&mut self, key: Key, at: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = State::Due(at);
            self.due.insert((at, key));
        }
    }

    /// Takes a message out. The next of its call is due.
    fn take_out(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.entries.remove(&key) else {
            return;
        };
        self.bytes -= entry.message.body.len();
        if let State::Due(at) = entry.state {
            self.due.remove(&(at, key));
        }
        let Some(call) = entry.message.call else {
            return;
        };
        let Some(chain) = self.chains.get_mut(&call) else {
            return;
        };
        chain.retain(|it| *it != key);
        match chain.front().copied() {
            None => {
                self.chains.remove(&call);
            }
            Some(first) if entry.state != State::Behind => self.make_due(first, now),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::message::sample;
    use super::*;

    const A: Option<Uuid> = Some(Uuid::from_u128(1));
    const B: Option<Uuid> = Some(Uuid::from_u128(2));
    const SECOND: Duration = Duration::from_secs(1);

    /// A queue in virtual time.
    struct Model {
        queue: Queue,
        now: Instant,
        numbers: u64,
    }

    impl Model {
        fn new(limits: Limits) -> Self {
            Self {
                queue: Queue::new(limits, Sending::On),
                now: Instant::now(),
                numbers: 0,
            }
        }

        /// Adds a message, and returns the numbers of those dropped.
        fn push(&mut self, call: Option<Uuid>) -> Vec<u64> {
            self.numbers += 1;
            let message = sample(self.numbers, call, "{}").into();
            let dropped = self.queue.push(message, Duration::ZERO, self.now);
            dropped.iter().map(|it| it.number).collect()
        }

        /// The number of the next message, if one may be sent now.
        fn next(&mut self) -> Option<u64> {
            match self.queue.next(self.now) {
                Next::Attempt(message) => Some(message.key.number),
                Next::Wait(_) => None,
            }
        }

        fn finish(&mut self, number: u64, outcome: &Outcome) -> Fate {
            self.queue
                .finish(sample(number, None, "").key, outcome, self.now, 0.5)
        }

        /// How long until a message may be sent.
        fn wait(&mut self) -> Option<Duration> {
            match self.queue.next(self.now) {
                Next::Wait(at) => at.map(|at| at - self.now),
                Next::Attempt(message) => panic!("{message:?}"),
            }
        }
    }

    fn failed(retry_after: Option<Duration>, is_outage: bool) -> Outcome {
        Outcome::Failed(Failure {
            reason: "status 500".into(),
            retry_after,
            is_outage,
        })
    }

    #[test]
    fn a_call_waits_for_its_earlier_message_and_no_other_call_does() {
        let mut it = Model::new(Limits::default());
        for call in [A, A, B, None, None] {
            it.push(call);
        }
        assert_eq!(
            [it.next(), it.next(), it.next(), it.next()],
            [1, 3, 4, 5].map(Some)
        );
        assert_eq!(it.next(), None);
        it.finish(1, &failed(None, false));
        assert_eq!(it.wait(), Some(SECOND));
        it.push(B);
        assert_eq!(it.finish(3, &Outcome::Delivered), Fate::Delivered);
        assert_eq!([it.next(), it.next()], [Some(6), None]);
        it.now += SECOND;
        assert_eq!([it.next(), it.next()], [Some(1), None]);
        it.finish(1, &Outcome::Delivered);
        assert_eq!([it.next(), it.next()], [Some(2), None]);
    }

    #[test]
    fn a_message_that_never_gets_through_is_given_up_after_a_day_and_the_next_has_its_turn() {
        let mut it = Model::new(Limits::default());
        let start = it.now;
        it.push(A);
        it.now += 60 * SECOND;
        it.push(A);
        loop {
            assert_eq!(it.next(), Some(1));
            it.now += 15 * SECOND;
            if it.finish(1, &failed(None, false)) == Fate::GivenUp {
                break;
            }
            let pause = it.wait().unwrap();
            it.now += pause;
        }
        let day = Limits::default().keep;
        assert!((day - 1000 * SECOND..=day).contains(&(it.now - start)));
        assert_eq!(it.queue.counts.expired, 1);
        assert_eq!(it.next(), Some(2));
    }

    #[test]
    fn a_full_queue_drops_the_oldest_that_is_not_in_flight() {
        let mut it = Model::new(Limits {
            messages: 3,
            ..Limits::default()
        });
        assert!([A, A, B].into_iter().all(|call| it.push(call).is_empty()));
        assert_eq!(it.next(), Some(1));
        assert_eq!(it.push(A), [2]);
        assert_eq!(it.push(None), [3]);
        assert_eq!((it.queue.waiting(), it.queue.counts.dropped), (3, 2));
        it.finish(1, &Outcome::Delivered);
        assert_eq!([it.next(), it.next(), it.next()], [Some(4), Some(5), None]);
    }

    #[test]
    fn bytes_are_bounded_and_a_message_that_is_too_long_pushes_out_no_other() {
        let mut it = Model::new(Limits {
            bytes: 100,
            ..Limits::default()
        });
        let mut push = |number, length| {
            let message = sample(number, A, &"x".repeat(length)).into();
            let dropped = it.queue.push(message, Duration::ZERO, it.now);
            let dropped: Vec<u64> = dropped.iter().map(|it| it.number).collect();
            (dropped, it.queue.bytes())
        };
        assert_eq!(push(1, 40), (vec![], 40));
        assert_eq!(push(2, 60), (vec![], 100));
        assert_eq!(push(3, 101), (vec![3], 100));
        assert_eq!(push(4, 50), (vec![1, 2], 50));
    }

    #[test]
    fn an_endpoint_that_is_gone_gets_nothing_until_it_is_enabled() {
        let mut it = Model::new(Limits::default());
        it.push(A);
        assert_eq!(it.next(), Some(1));
        assert_eq!(it.finish(1, &Outcome::Gone), Fate::Waits);
        it.push(B);
        it.now += 3600 * SECOND;
        assert_eq!((it.wait(), it.queue.waiting()), (None, 2));
        it.queue.enable(it.now);
        assert_eq!([it.next(), it.next()], [Some(1), Some(2)]);
        // What is not sent doesn't stay for longer either.
        it.finish(1, &Outcome::Gone);
        it.finish(2, &Outcome::Gone);
        it.now += 24 * 3600 * SECOND;
        assert_eq!(it.queue.expire(it.now).len(), 2);
        assert_eq!(it.queue.waiting(), 0);
    }

    #[test]
    fn retry_after_holds_for_the_endpoint_and_is_bounded() {
        let mut it = Model::new(Limits::default());
        it.push(A);
        assert_eq!(it.next(), Some(1));
        it.finish(1, &failed(Some(30 * SECOND), false));
        it.push(B);
        assert_eq!(it.wait(), Some(30 * SECOND));
        it.now += 30 * SECOND;
        assert_eq!([it.next(), it.next()], [Some(2), Some(1)]);
        it.finish(1, &failed(Some(Duration::MAX), false));
        assert_eq!(it.wait(), Some(Limits::default().longest_pause));
    }

    #[test]
    fn after_an_outage_all_that_met_it_is_sent_at_once() {
        let mut it = Model::new(Limits::default());
        for _ in 0..3 {
            it.push(None);
        }
        assert_eq!([it.next(), it.next(), it.next()], [1, 2, 3].map(Some));
        it.finish(1, &failed(None, true));
        it.finish(2, &failed(None, true));
        it.finish(3, &failed(None, false));
        it.push(None);
        assert_eq!(it.next(), Some(4));
        assert_eq!(it.next(), None);
        it.finish(4, &Outcome::Delivered);
        // The third was refused for what it is.
        assert_eq!([it.next(), it.next(), it.next()], [Some(1), Some(2), None]);
    }

    #[test]
    fn a_bounded_number_is_in_flight() {
        let mut it = Model::new(Limits::default());
        for _ in 0..20 {
            it.push(None);
        }
        let mut in_flight = 0;
        while it.next().is_some() {
            in_flight += 1;
        }
        assert_eq!(in_flight, Limits::default().concurrency);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Next,
        Finish(u8, u8),
        Wait(u16),
        Remove,
        Enable,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4_u8).prop_map(Step::Push),
            4 => Just(Step::Next),
            4 => (any::<u8>(), 0..8_u8).prop_map(|(which, how)| Step::Finish(which, how)),
            2 => any::<u16>().prop_map(Step::Wait),
            1 => Just(Step::Remove),
            2 => Just(Step::Enable),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_calls_are_in_order_and_no_message_is_lost_uncounted(
            steps in prop::collection::vec(step(), 0..300)
        ) {
            let mut it = Model::new(Limits { messages: 10, concurrency: 3, ..Limits::default() });
            let mut calls = HashMap::<u64, u8>::new();
            let mut in_flight = Vec::<u64>::new();
            let mut delivered = HashMap::<u8, u64>::new();
            for step in steps {
                match step {
                    Step::Push(call) => {
                        let dropped = it.push((call > 0).then(|| Uuid::from_u128(call.into())));
                        calls.insert(it.numbers, call);
                        prop_assert!(dropped.iter().all(|number| !in_flight.contains(number)));
                    }
                    Step::Next => {
                        let enabled = it.queue.sending == Sending::On;
                        if let Some(number) = it.next() {
                            let call = calls[&number];
                            prop_assert!(enabled);
                            prop_assert!(call == 0 || in_flight.iter().all(|it| calls[it] != call));
                            in_flight.push(number);
                            prop_assert!(in_flight.len() <= 3);
                        }
                    }
                    Step::Finish(which, how) => {
                        if in_flight.is_empty() {
                            continue;
                        }
                        let number = in_flight.remove(usize::from(which) % in_flight.len());
                        let outcome = match how {
                            0 => Outcome::Gone,
                            1 => failed(Some(SECOND), false),
                            2 => failed(None, true),
                            3 => failed(None, false),
                            _ => Outcome::Delivered,
                        };
                        if it.finish(number, &outcome) == Fate::Delivered && calls[&number] > 0 {
                            let last = delivered.insert(calls[&number], number);
                            prop_assert!(last.is_none_or(|last| last < number));
                        }
                    }
                    Step::Wait(seconds) => {
                        it.now += SECOND * u32::from(seconds);
                        it.queue.expire(it.now);
                    }
                    Step::Remove => it.queue.sending = Sending::Removed,
                    Step::Enable => it.queue.enable(it.now),
                }
                let counts = it.queue.counts;
                let over = counts.delivered + counts.expired + counts.dropped;
                prop_assert_eq!(over + it.queue.waiting() as u64, it.numbers);
                prop_assert!(it.queue.waiting() <= 10);
            }
            // Nothing stays behind: all of it is sent in the end.
            it.queue.enable(it.now);
            for number in in_flight {
                it.finish(number, &Outcome::Delivered);
            }
            it.now += 1000 * SECOND;
            while let Some(number) = it.next() {
                it.finish(number, &Outcome::Delivered);
            }
            prop_assert_eq!((it.queue.waiting(), it.queue.bytes()), (0, 0));
            prop_assert!(it.queue.chains.is_empty() && it.queue.due.is_empty());
        }
    }
}
