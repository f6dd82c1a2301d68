use std::collections::VecDeque;

use rustix::process::{Resource, getrlimit};

use super::Token;

/// Connections without a UUID may hold one in so many of the process's descriptors.
const DESCRIPTORS_PER_UNIDENTIFIED: u64 = 4;

/// And no more than this, however many descriptors there are.
const MAX_UNIDENTIFIED: u64 = 4096;

/// Limits the connections of a thread that have not sent a UUID: peers that connect and send nothing must not keep
/// calls out.
pub(super) struct Unidentified {
    /// The oldest first. Some may have been identified or removed since.
    tokens: VecDeque<Token>,
    max: usize,
}

impl Unidentified {
    /// The share of one of so many threads.
    pub(super) fn new(threads: usize) -> Self {
        // Where there is no limit, or one beyond any memory, the second constant counts.
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max = (descriptors / DESCRIPTORS_PER_UNIDENTIFIED).min(MAX_UNIDENTIFIED);
        Self {
            tokens: VecDeque::new(),
            max: (max as usize / threads.max(1)).max(1),
        }
    }

    /// Adds a new connection, and returns the oldest ones if there are too many now.
    pub(super) fn push(
        &mut self,
        token: Token,
        is_unidentified: impl Fn(Token) -> bool,
    ) -> Vec<Token> {
        self.tokens.push_back(token);
        if self.tokens.len() <= self.max {
            return Vec::new();
        }
        self.tokens.retain(|token| is_unidentified(*token));
        if self.tokens.len() <= self.max {
            return Vec::new();
        }
        // More than one, so that not every further connection filters the whole list.
        self.tokens.drain(..=self.max / 16).collect()
    }
}
