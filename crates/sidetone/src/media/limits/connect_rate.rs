use std::{collections::HashMap, time::Duration};

use sidetone_proto::Time;

use super::Source;

/// How long it takes until an address that has used all it may can do so again.
const PERIOD: Duration = Duration::from_secs(1);

/// Addresses of the last period that are remembered, and again as many of the period before. One that is forgotten sooner
/// may connect more often, which a peer with thousands of addresses can do anyway.
const MAX_SOURCES: usize = 4096;

/// Rejected connections that are reported in a period; the others are only counted.
const MAX_REPORTS: usize = 10;

/// A connection beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Its rejection is reported, if it says which call it is.
    Reported,
    Counted,
}

/// Limits how often one address connects: so many connections at once, and as many each second.
pub(super) struct ConnectRate {
    /// What one connection takes of an address's period.
    interval: Duration,
    /// Addresses seen since `began`, and until when their connections have taken up their period.
    sources: HashMap<Source, Time>,
    /// Those of the period before.
    sources_before: HashMap<Source, Time>,
    began: Time,
    /// Reports since `reports_began`.
    reports: usize,
    reports_began: Time,
}

impl ConnectRate {
    pub(super) fn new(per_second: usize) -> Self {
        let per_second = u32::try_from(per_second.max(1)).unwrap_or(u32::MAX);
        Self {
            interval: PERIOD / per_second,
            sources: HashMap::new(),
            sources_before: HashMap::new(),
            began: Time::ZERO,
            reports: 0,
            reports_began: Time::ZERO,
        }
    }

    /// Counts a connection of this address. Says if it is one too many.
    pub(super) fn add(&mut self, now: Time, source: Source) -> Option<Excess> {
        // An address that is not seen for a period has all of it again, so it may be forgotten.
        if now - self.began >= PERIOD || self.sources.len() >= MAX_SOURCES {
            std::mem::swap(&mut self.sources, &mut self.sources_before);
            self.sources.clear();
            self.began = now;
        }
        let before = self.sources_before.get(&source).copied();
        let taken_until = self
            .sources
            .entry(source)
            .or_insert_with(|| before.unwrap_or(now));
        let next = (*taken_until).max(now) + self.interval;
        if next - now <= PERIOD {
            *taken_until = next;
            return None;
        }
        Some(self.report(now))
    }

    fn report(&mut self, now: Time) -> Excess {
        if now - self.reports_began >= PERIOD {
            self.reports_began = now;
            self.reports = 0;
        }
        if self.reports >= MAX_REPORTS {
            return Excess::Counted;
        }
        self.reports += 1;
        Excess::Reported
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use super::*;

    fn source(number: u128) -> Source {
        Source::of(IpAddr::from(Ipv6Addr::from_bits(number << 64)))
    }

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_secs(100) + Duration::from_millis(millis)
    }

    /// How many of so many connections at once are let in.
    fn admitted(rate: &mut ConnectRate, now: Time, connections: usize, number: u128) -> usize {
        (0..connections)
            .filter(|_| rate.add(now, source(number)).is_none())
            .count()
    }

    #[test]
    fn so_many_come_in_at_once_and_as_many_each_second() {
        let mut rate = ConnectRate::new(10);
        assert_eq!(admitted(&mut rate, at(0), 15, 1), 10);
        assert_eq!(admitted(&mut rate, at(0), 15, 2), 10, "another address");
        assert_eq!(admitted(&mut rate, at(99), 5, 1), 0);
        assert_eq!(admitted(&mut rate, at(100), 5, 1), 1);
        assert_eq!(admitted(&mut rate, at(600), 15, 1), 5);
        // Those that were rejected count for nothing.
        assert_eq!(admitted(&mut rate, at(1_600), 15, 1), 10);
        assert_eq!(admitted(&mut rate, at(60_000), 15, 1), 10);
    }

    #[test]
    fn a_limit_holds_across_periods() {
        let mut rate = ConnectRate::new(100);
        let all = (0..10_000).map(|millis| admitted(&mut rate, at(millis), 1, 1));
        assert_eq!(all.sum::<usize>(), 100 + 999);
    }

    #[test]
    fn memory_is_bounded_however_many_addresses_there_are() {
        let mut rate = ConnectRate::new(1);
        for number in 0..50 * MAX_SOURCES as u128 {
            rate.add(at(0), source(number));
            assert!(rate.sources.len() <= MAX_SOURCES);
            assert!(rate.sources_before.len() <= MAX_SOURCES);
        }
        assert!(rate.sources.capacity() < 4 * MAX_SOURCES);
    }

    #[test]
    fn few_rejections_are_reported_and_of_each_second_some() {
        let mut rate = ConnectRate::new(1);
        let mut reports = |millis| {
            let excess = (0..100).filter_map(|number| {
                rate.add(at(millis), source(number));
                rate.add(at(millis), source(number))
            });
            excess.filter(|excess| *excess == Excess::Reported).count()
        };
        assert_eq!([reports(0), reports(500), reports(1_000)], [10, 0, 10]);
    }

    #[test]
    fn no_number_of_connections_is_too_large_or_too_small() {
        assert_eq!(admitted(&mut ConnectRate::new(0), at(0), 5, 1), 1);
        let mut rate = ConnectRate::new(usize::MAX);
        assert_eq!(admitted(&mut rate, at(0), 5_000, 1), 5_000);
    }
}
