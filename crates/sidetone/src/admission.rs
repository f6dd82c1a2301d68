use std::{
    any::Any,
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    str::FromStr,
};

use uuid::Uuid;

/// A call that wants to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The UUID that the dialplan gave it: the only thing that a caller presents.
    pub id: Uuid,
    /// The other side's address.
    pub peer: SocketAddr,
}

/// Whether a call is let in.
pub struct Admission(pub(crate) Decision);

pub(crate) enum Decision {
    Accept(Option<Box<dyn Any + Send + Sync>>),
    TurnAway,
}

impl Admission {
    /// Lets the call in.
    pub fn accept() -> Self {
        Self(Decision::Accept(None))
    }

    /// Lets the call in and gives it data, for [`Call::data`](crate::Call::data).
    pub fn accept_with(data: impl Any + Send + Sync) -> Self {
        Self(Decision::Accept(Some(Box::new(data))))
    }

    /// Turns the call away. To the dialplan it looks like one that was completed.
    pub fn turn_away() -> Self {
        Self(Decision::TurnAway)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Decision::Accept(_) => "Admission::accept",
            Decision::TurnAway => "Admission::turn_away",
        })
    }
}

/// The admission hook of a server, whatever its future is.
pub(crate) type Admit =
    dyn Fn(Request) -> Pin<Box<dyn Future<Output = Admission> + Send>> + Send + Sync;

/// Which addresses may connect. AudioSocket has no login: this and a firewall are all the protection there
/// is.
///
/// ```
/// use sidetone::Networks;
///
/// let networks: Networks = "10.0.0.0/8 192.168.1.7 ::1".parse()?;
/// assert!(networks.contains("10.1.2.3".parse()?));
/// assert!(!networks.contains("192.168.1.8".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Networks {
    /// Every address.
    pub fn any() -> Self {
        let all = |address: IpAddr| Network { address, prefix: 0 };
        Self(vec![
            all(std::net::Ipv4Addr::UNSPECIFIED.into()),
            all(std::net::Ipv6Addr::UNSPECIFIED.into()),
        ])
    }

    /// This machine only.
    pub fn loopback() -> Self {
        let v4 = Network {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            prefix: 8,
        };
        let v6 = Network {
            address: std::net::Ipv6Addr::LOCALHOST.into(),
            prefix: 128,
        };
        Self(vec![v4, v6])
    }

    /// Whether `address` may connect. An IPv4 address written as IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let differs = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                u128::from(own.to_bits() ^ other.to_bits()) << 96
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differs.leading_zeros() >= u32::from(self.prefix)
    }
}

/// Why a text names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a network: write an address like 192.168.1.7, a network like 10.0.0.0/8, or any"
)]
pub struct NetworkError(String);

impl FromStr for Networks {
    type Err = NetworkError;

    /// Addresses and networks, separated by spaces or commas, or the word `any`.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let words: Vec<&str> = text
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .collect();
        if words.is_empty() {
            return Err(NetworkError(text.into()));
        }
        let mut networks = Self(Vec::new());
        for word in words {
            networks = match word {
                "any" => networks.and(Self::any()),
                word => networks.and(Self(vec![word.parse()?])),
            };
        }
        Ok(networks)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.into());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| wrong()))?;
        if prefix > longest {
            Err(wrong())
        } else {
            Ok(Self { address, prefix })
        }
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let separator = if index > 0 { " " } else { "" };
            write!(f, "{separator}{}/{}", network.address, network.prefix)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn contains(networks: &str, address: &str) -> bool {
        networks
            .parse::<Networks>()
            .unwrap()
            .contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.168.1.7", "192.168.1.7"));
        assert!(!contains("192.168.1.7", "192.168.1.6"));
        assert!(contains("fd00::/8", "fd12::1"));
        assert!(!contains("fd00::/8", "fe80::1"));
        assert!(contains("any", "8.8.8.8") && contains("any", "2001:db8::1"));
        assert!(contains("0.0.0.0/0", "8.8.8.8"));
    }

    #[test]
    fn an_ipv4_address_stays_one_when_it_comes_through_an_ipv6_socket() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_advice() {
        for wrong in ["", "10.0.0.0/33", "ten", "10.0.0.0/x", "/8"] {
            let error = wrong.parse::<Networks>().unwrap_err();
            assert!(error.to_string().contains("10.0.0.0/8"), "{error}");
        }
    }
}
