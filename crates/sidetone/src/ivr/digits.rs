use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use tokio::time::timeout;

use super::Ivr;
use crate::{Event, PlayError};

/// Why no further digits were collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DigitsEnd {
    /// As many as were asked for are there.
    Full,
    /// The caller pressed the end key.
    EndKey,
    /// The caller pressed no key for too long.
    Timeout,
}

/// What the caller typed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Digits {
    /// The keys in order, of `0-9 * # A-D`, without the end key; empty if there was none in time.
    pub digits: String,
    /// Why there are no more.
    pub ended_by: DigitsEnd,
}

/// Digits that are collected while it is awaited. Made by [`Ivr::digits`].
///
/// # Errors
///
/// [`PlayError::Closed`] when the call ends.
///
/// # Cancel safety
///
/// This future is cancellation safe: dropped, it leaves every digit typed ahead, for the next one.
#[must_use = "digits are collected only while it is awaited"]
#[derive(Debug)]
pub struct CollectDigits<'a> {
    ivr: &'a mut Ivr,
    max: usize,
    first: Duration,
    between: Duration,
    end: Option<char>,
}

impl<'a> CollectDigits<'a> {
    pub(super) fn new(ivr: &'a mut Ivr, max: usize) -> Self {
        Self {
            ivr,
            max,
            first: Duration::from_secs(5),
            between: Duration::from_secs(3),
            end: None,
        }
    }

    /// How long to wait for the first digit; 5 s unless set.
    pub fn first(mut self, timeout: Duration) -> Self {
        self.first = timeout;
        self
    }

    /// How long to wait for each further digit; 3 s unless set.
    pub fn between(mut self, timeout: Duration) -> Self {
        self.between = timeout;
        self
    }

    /// The key that ends the digits, usually `#`. None unless set.
    pub fn end(mut self, key: char) -> Self {
        self.end = Some(key);
        self
    }

    async fn collect(self) -> Result<Digits, PlayError> {
        let mut count = 0;
        let ended_by = loop {
            if count == self.max {
                break DigitsEnd::Full;
            }
            match self.ivr.typed_ahead.get(count) {
                Some(key) if Some(*key) == self.end => break DigitsEnd::EndKey,
                Some(_) => count += 1,
                None => {
                    let wait = if count == 0 { self.first } else { self.between };
                    match timeout(wait, next_key(self.ivr)).await {
                        Ok(key) => self.ivr.remember_key(key?),
                        Err(_) => break DigitsEnd::Timeout,
                    }
                }
            }
        };
        let digits = self.ivr.typed_ahead.drain(..count).collect();
        if ended_by == DigitsEnd::EndKey {
            self.ivr.typed_ahead.pop_front();
        }
        Ok(Digits { digits, ended_by })
    }
}

async fn next_key(ivr: &mut Ivr) -> Result<char, PlayError> {
    loop {
        if let Event::Dtmf(key) = ivr.next().await? {
            return Ok(key);
        }
    }
}

impl<'a> IntoFuture for CollectDigits<'a> {
    type Output = Result<Digits, PlayError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.collect())
    }
}
