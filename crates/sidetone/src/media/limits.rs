//! Limits of connections, before it is known which calls they are. The thread that accepts keeps all of them, so each holds
//! for the server and not for one of its threads.

mod connect_rate;
mod unidentified;

use std::net::IpAddr;

use sidetone_proto::Time;

use super::MediaConfig;
use crate::admission::Networks;
use connect_rate::ConnectRate;
pub(super) use connect_rate::Excess;
use unidentified::Unidentified;
pub(super) use unidentified::{Entry, Waiting};

/// The settings.
#[derive(Debug, Default)]
pub(crate) struct LimitConfig {
    /// Connections without a UUID; as many as the descriptors allow if that is `None`.
    pub(crate) max_unidentified: Option<usize>,
    pub(crate) max_unidentified_per_address: Option<usize>,
    pub(crate) max_connects_per_second: Option<usize>,
    /// Addresses without limits of their own.
    pub(crate) trusted: Option<Networks>,
}

/// Whom the limits of an address count as one: an IPv4 address, or all of an IPv6 network that one host may have to
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Source(IpAddr);

/// The bits of an IPv6 address that say which host it is.
const HOST_BITS: u32 = 64;

impl Source {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> HOST_BITS << HOST_BITS;
                std::net::Ipv6Addr::from_bits(network).into()
            }
            v4 => v4,
        })
    }
}

/// What the limits say of a new connection.
pub(super) struct Verdict {
    /// It is one too many of its address, and to be rejected.
    pub(super) excess: Option<Excess>,
    /// While the connection has this it counts as one without a UUID.
    pub(super) waiting: Waiting,
    /// Connections to be closed for it.
    pub(super) crowded_out: Vec<Entry>,
}

pub(super) struct Limits {
    trusted: Option<Networks>,
    connect_rate: Option<ConnectRate>,
    unidentified: Unidentified,
}

impl Limits {
    pub(super) fn new(config: &MediaConfig) -> Self {
        let limits = &config.limits;
        Self {
            trusted: limits.trusted.clone(),
            connect_rate: limits.max_connects_per_second.map(ConnectRate::new),
            unidentified: Unidentified::new(
                limits.max_unidentified,
                limits.max_unidentified_per_address,
            ),
        }
    }

    /// Counts a new connection, which is for this thread.
    pub(super) fn add(&mut self, now: Time, address: IpAddr, thread: usize) -> Verdict {
        let is_trusted = |networks: &Networks| networks.contains(address);
        let source = (!self.trusted.as_ref().is_some_and(is_trusted)).then(|| Source::of(address));
        let excess = source
            .zip(self.connect_rate.as_mut())
            .and_then(|(source, rate)| rate.add(now, source));
        let (waiting, crowded_out) = self.unidentified.add(source, thread);
        Verdict {
            excess,
            waiting,
            crowded_out,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_ipv6_network_of_one_host_counts_as_one() {
        let source = |address: &str| Source::of(address.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:0:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("10.0.0.1"), source("::ffff:10.0.0.1"));
    }
}
