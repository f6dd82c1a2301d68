//! Tickets: each lets one call in, says where it goes, and describes it.
//!
//! Time is an argument, so nothing here waits or looks at a clock.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::call::Params;

/// A used or expired ticket is remembered for so long, so that a second use can be told from a guess.
const REMEMBERED: Duration = Duration::from_secs(600);

/// No more of them are remembered, whatever their age.
const MAX_REMEMBERED: usize = 100_000;

/// The most parameters of a ticket.
const MAX_PARAMS: usize = 32;
/// The longest name of one, in bytes.
const LONGEST_NAME: usize = 64;
/// The longest value of one, in bytes.
const LONGEST_VALUE: usize = 1024;

/// The right to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) route: String,
    pub(crate) params: Arc<Params>,
    /// The token that minted it; none for a dialplan on this machine.
    pub(crate) minted_by: Option<String>,
}

/// All tickets of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    unused: HashMap<Uuid, (Ticket, Instant)>,
    /// In the order in which they expire, as they all live equally long between two reloads; some are used by now.
    expiring: VecDeque<(Instant, Uuid)>,
    past: HashMap<Uuid, Past>,
    forgetting: VecDeque<(Instant, Uuid)>,
    per_minter: BTreeMap<Option<String>, usize>,
    counts: Counts,
}

/// What became of tickets since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) minted: u64,
    pub(crate) used: u64,
    pub(crate) expired: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    Used,
    Expired,
}

/// Why a call's UUID lets it not in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClaimError {
    /// There was never such a ticket, as far as is remembered.
    Unknown,
    /// It let another call in.
    Used,
    /// It came too late.
    Expired,
}

/// Why there is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MintError {
    /// This token's dialplans have minted too many that were never used.
    TooManyUnused,
}

impl Tickets {
    /// Mints a ticket that is good until `expires`.
    pub(crate) fn mint(
        &mut self,
        ticket: Ticket,
        max_unused: usize,
        now: Instant,
        expires: Instant,
    ) -> Result<Uuid, MintError> {
        self.expire(now);
        let unused = self.per_minter.entry(ticket.minted_by.clone()).or_default();
        if *unused >= max_unused {
            return Err(MintError::TooManyUnused);
        }
        *unused += 1;
        let id = Uuid::new_v4();
        self.counts.minted += 1;
        self.add(id, ticket, expires);
        Ok(id)
    }

    fn add(&mut self, id: Uuid, ticket: Ticket, expires: Instant) {
        self.unused.insert(id, (ticket, expires));
        // A shorter lifetime, after a reload, expires before its predecessors.
        let place = self.expiring.partition_point(|(at, _)| *at <= expires);
        self.expiring.insert(place, (expires, id));
    }

    /// Lets the call with this UUID in, once.
    pub(crate) fn claim(&mut self, id: Uuid, now: Instant) -> Result<Ticket, ClaimError> {
        self.expire(now);
        match self.unused.remove(&id) {
            Some((ticket, _)) => {
                self.release(&ticket);
                self.counts.used += 1;
                self.remember(id, Past::Used, now);
                Ok(ticket)
            }
            None => Err(match self.past.get(&id) {
                Some(Past::Used) => ClaimError::Used,
                Some(Past::Expired) => ClaimError::Expired,
                None => ClaimError::Unknown,
            }),
        }
    }

    /// How many hold a place for a call that has not come.
    pub(crate) fn unused(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.unused.len()
    }

    /// The same of one route.
    pub(crate) fn unused_of(&mut self, route: &str, now: Instant) -> usize {
        self.expire(now);
        let unused = self.unused.values();
        unused.filter(|(ticket, _)| ticket.route == route).count()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    fn expire(&mut self, now: Instant) {
        while let Some((at, id)) = self.expiring.front().copied()
            && at <= now
        {
            self.expiring.pop_front();
            if let Some((ticket, _)) = self.unused.remove(&id) {
                self.release(&ticket);
                self.counts.expired += 1;
                self.remember(id, Past::Expired, now);
            }
        }
        while let Some((at, id)) = self.forgetting.front().copied()
            && (at <= now || self.forgetting.len() > MAX_REMEMBERED)
        {
            self.forgetting.pop_front();
            self.past.remove(&id);
        }
        // Used tickets are not looked for in the queue, which therefore holds more than are left.
        if self.expiring.len() > 2 * self.unused.len() + 64 {
            let unused = &self.unused;
            self.expiring.retain(|(_, id)| unused.contains_key(id));
        }
    }

    fn release(&mut self, ticket: &Ticket) {
        if let Some(unused) = self.per_minter.get_mut(&ticket.minted_by) {
            *unused = unused.saturating_sub(1);
            if *unused == 0 {
                self.per_minter.remove(&ticket.minted_by);
            }
        }
    }

    fn remember(&mut self, id: Uuid, past: Past, now: Instant) {
        self.past.insert(id, past);
        self.forgetting.push_back((now + REMEMBERED, id));
    }
}

/// Unused tickets on their way to the process that replaces this one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    tickets: Vec<SavedTicket>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedTicket {
    id: Uuid,
    route: String,
    params: Params,
    minted_by: Option<String>,
    /// In milliseconds since 1970.
    expires: u64,
}

impl Saved {
    pub(crate) fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.tickets.iter().map(|ticket| ticket.id)
    }
}

impl Tickets {
    /// The unused tickets, by the wall clock: another process has another `Instant`.
    pub(crate) fn save(&mut self, now: Instant, wall: SystemTime) -> Saved {
        self.expire(now);
        let tickets = self
            .unused
            .iter()
            .map(|(id, (ticket, expires))| SavedTicket {
                id: *id,
                route: ticket.route.clone(),
                params: (*ticket.params).clone(),
                minted_by: ticket.minted_by.clone(),
                expires: since_epoch(wall + expires.saturating_duration_since(now)),
            });
        Saved {
            tickets: tickets.collect(),
        }
    }

    /// Takes over what another process saved.
    pub(crate) fn restore(&mut self, saved: Saved, now: Instant, wall: SystemTime) -> usize {
        let wall = since_epoch(wall);
        let mut restored = 0;
        for saved in saved.tickets {
            let left = Duration::from_millis(saved.expires.saturating_sub(wall));
            if left.is_zero() {
                self.remember(saved.id, Past::Expired, now);
                continue;
            }
            let ticket = Ticket {
                route: saved.route,
                params: Arc::new(saved.params),
                minted_by: saved.minted_by,
            };
            *self.per_minter.entry(ticket.minted_by.clone()).or_default() += 1;
            self.add(saved.id, ticket, now + left);
            restored += 1;
        }
        restored
    }
}

fn since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// Checks what a dialplan says of a call.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn check_params(params: &Params) -> Result<(), String> {
    if params.len() > MAX_PARAMS {
        return Err(format!("a ticket has at most {MAX_PARAMS} parameters"));
    }
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'.');
    for (name, value) in params {
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(is_plain) {
            return Err(format!(
                "name parameters with up to {LONGEST_NAME} letters, digits, _, - and dots"
            ));
        }
        if value.len() > LONGEST_VALUE {
            return Err(format!("{name} is longer than {LONGEST_VALUE} bytes"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(30);

    fn ticket(minter: &str) -> Ticket {
        Ticket {
            route: "support".into(),
            params: Arc::new([("from".to_owned(), "+49 30 1".to_owned())].into()),
            minted_by: Some(minter.into()),
        }
    }

    fn mint(tickets: &mut Tickets, minter: &str, now: Instant) -> Result<Uuid, MintError> {
        tickets.mint(ticket(minter), 2, now, now + LIFETIME)
    }

    #[test]
    fn a_ticket_lets_one_call_in() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        let id = mint(&mut tickets, "pbx", now).unwrap();
        assert_eq!(tickets.unused(now), 1);
        assert_eq!(tickets.claim(id, now), Ok(ticket("pbx")));
        assert_eq!(tickets.unused(now), 0);
        assert_eq!(tickets.claim(id, now), Err(ClaimError::Used));
        assert_eq!(tickets.claim(Uuid::new_v4(), now), Err(ClaimError::Unknown));
    }

    #[test]
    fn a_ticket_expires_and_gives_its_place_back() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        let id = mint(&mut tickets, "pbx", now).unwrap();
        let late = now + LIFETIME;
        assert_eq!(tickets.unused(late - Duration::from_millis(1)), 1);
        assert_eq!(tickets.unused(late), 0);
        assert_eq!(tickets.claim(id, late), Err(ClaimError::Expired));
        let forgotten = late + REMEMBERED;
        assert_eq!(tickets.claim(id, forgotten), Err(ClaimError::Unknown));
        let Counts {
            minted,
            used,
            expired,
        } = tickets.counts();
        assert_eq!((minted, used, expired), (1, 0, 1));
    }

    #[test]
    fn unused_tickets_of_a_token_are_bounded_and_others_are_not_affected() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        let first = mint(&mut tickets, "pbx", now).unwrap();
        mint(&mut tickets, "pbx", now).unwrap();
        assert_eq!(
            mint(&mut tickets, "pbx", now),
            Err(MintError::TooManyUnused)
        );
        mint(&mut tickets, "crm", now).unwrap();
        tickets.claim(first, now).unwrap();
        mint(&mut tickets, "pbx", now).unwrap();
    }

    #[test]
    fn another_process_takes_unused_tickets_over_with_their_time() {
        let (mut old, now, wall) = (Tickets::default(), Instant::now(), SystemTime::now());
        let used = mint(&mut old, "pbx", now).unwrap();
        let unused = mint(&mut old, "pbx", now).unwrap();
        old.claim(used, now).unwrap();
        let saved = serde_json::to_string(&old.save(now, wall)).unwrap();

        let mut new = Tickets::default();
        let later = Duration::from_secs(10);
        let saved = serde_json::from_str(&saved).unwrap();
        assert_eq!(new.restore(saved, now, wall + later), 1);
        assert_eq!(new.claim(used, now), Err(ClaimError::Unknown));
        let left = LIFETIME - later;
        assert_eq!(new.unused(now + left - Duration::from_millis(2)), 1);
        assert_eq!(new.claim(unused, now), Ok(ticket("pbx")));
    }

    #[test]
    fn a_thousand_used_tickets_leave_nothing_behind_but_their_names() {
        let (mut tickets, mut now) = (Tickets::default(), Instant::now());
        for _ in 0..1000 {
            let id = mint(&mut tickets, "pbx", now).unwrap();
            tickets.claim(id, now).unwrap();
            now += Duration::from_secs(1);
        }
        assert!(tickets.expiring.len() <= 64 + 2);
        assert!(tickets.past.len() <= REMEMBERED.as_secs() as usize + 1);
        assert_eq!(tickets.per_minter.len(), 0);
    }

    #[test]
    fn parameters_are_bounded() {
        let params = |name: &str, value: &str| Params::from([(name.into(), value.into())]);
        assert!(check_params(&params("from", "Ann, \"B\"\n${X}")).is_ok());
        assert!(check_params(&params("a b", "")).is_err());
        assert!(check_params(&params("", "")).is_err());
        assert!(check_params(&params("a", &"x".repeat(1025))).is_err());
        let many = (0..33).map(|it| (it.to_string(), String::new()));
        assert!(check_params(&many.collect()).is_err());
    }
}
