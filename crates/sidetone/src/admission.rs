use std::{
    any::Any,
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use uuid::Uuid;

use crate::media::CallShared;

/// Which call this is: everything that is known of it before its audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CallInfo {
    /// The UUID that the dialplan gave the call. A caller presents nothing else.
    pub id: Uuid,
    /// The other side's address.
    pub peer: SocketAddr,
}

impl CallInfo {
    pub(crate) fn new(shared: &CallShared) -> Self {
        Self {
            id: shared.id,
            peer: shared.peer,
        }
    }
}

/// Whether a call is let in.
///
/// ```
/// use {sidetone::{Admission, Server}, std::time::Duration};
///
/// let settings = Server::builder().admit(|call| async move {
///     match call.id.get_version_num() {
///         4 => Admission::accept_with("a guest").max_duration(Duration::from_secs(600)),
///         _ => Admission::reject(),
///     }
/// });
/// ```
pub struct Admission {
    pub(crate) decision: Decision,
    pub(crate) max_duration: Option<Duration>,
}

pub(crate) enum Decision {
    Accept(Option<AnyData>),
    Reject(Option<AnyData>),
}

impl Admission {
    /// Lets the call in.
    pub fn accept() -> Self {
        Decision::Accept(None).into()
    }

    /// Lets the call in and attaches `data` to it, shared by everything that knows the call:
    /// [`Call::data`](crate::Call::data), its halves, its handles and its summary. Data that keeps a handle or the summary of its
    /// own call is never freed.
    pub fn accept_with(data: impl Any + Send + Sync) -> Self {
        Decision::Accept(Some(Arc::new(data))).into()
    }

    /// Rejects the call. To the dialplan it looks like one that was completed.
    pub fn reject() -> Self {
        Decision::Reject(None).into()
    }

    /// Rejects the call and attaches `data` to it, such as a reason of the program's own. The hook for ended calls finds it in
    /// [`CallSummary::data`](crate::CallSummary::data). To the dialplan it looks like [`reject`](Self::reject).
    ///
    /// ```
    /// use {sidetone::{Admission, Server}, std::collections::HashSet};
    ///
    /// #[derive(Debug)]
    /// enum Refusal {
    ///     Unknown,
    /// }
    ///
    /// let known = HashSet::from([sidetone::Uuid::from_u128(7)]);
    /// let settings = Server::builder()
    ///     .admit(move |call| {
    ///         let is_known = known.contains(&call.id);
    ///         async move {
    ///             match is_known {
    ///                 true => Admission::accept(),
    ///                 false => Admission::reject_with(Refusal::Unknown),
    ///             }
    ///         }
    ///     })
    ///     .on_call_end(|summary| {
    ///         if let Some(refusal) = summary.data::<Refusal>() {
    ///             println!("{} was rejected: {refusal:?}", summary.id);
    ///         }
    ///     });
    /// ```
    pub fn reject_with(data: impl Any + Send + Sync) -> Self {
        Decision::Reject(Some(Arc::new(data))).into()
    }

    /// Ends the call this long after its UUID, sooner or later than [`ServerBuilder::max_duration`](crate::ServerBuilder::max_duration)
    /// says. A call that has lasted longer already ends at once. The handler is
    /// [warned](crate::ServerBuilder::max_duration_warning) before.
    #[must_use]
    pub fn max_duration(mut self, duration: Duration) -> Self {
        self.max_duration = Some(duration);
        self
    }
}

impl From<Decision> for Admission {
    fn from(decision: Decision) -> Self {
        Self {
            decision,
            max_duration: None,
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.decision {
            Decision::Accept(_) => "Admission::accept",
            Decision::Reject(_) => "Admission::reject",
        })
    }
}

/// What an admission hook attaches to a call.
pub(crate) type AnyData = Arc<dyn Any + Send + Sync>;

/// The place of that, shared by all handles of the call. It is filled once, if at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallData(Arc<OnceLock<AnyData>>);

impl CallData {
    pub(crate) fn set(&self, data: Option<AnyData>) {
        if let Some(data) = data {
            // A call is admitted once.
            let _ = self.0.set(data);
        }
    }

    pub(crate) fn any(&self) -> Option<AnyData> {
        self.0.get().cloned()
    }
}

/// The admission hook of a server, whatever its future is.
pub(crate) type Admit =
    dyn Fn(CallInfo) -> Pin<Box<dyn Future<Output = Admission> + Send>> + Send + Sync;

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

    /// Whether `address` may connect. An IPv4 address written as IPv6 is the IPv4 address, in `address` and in the
    /// networks; `::/0` holds all IPv4 addresses, too.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl From<IpAddr> for Networks {
    /// This one address.
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Self(vec![Network { address, prefix }])
    }
}

impl Network {
    /// An IPv4 network that is written as IPv6 is an IPv4 network.
    fn new(address: IpAddr, prefix: u8) -> Self {
        match (address.to_canonical(), prefix.checked_sub(MAPPED)) {
            (v4 @ IpAddr::V4(_), Some(prefix)) if address.is_ipv6() => Self {
                address: v4,
                prefix,
            },
            _ => Self { address, prefix },
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let prefix = match self.address {
            IpAddr::V4(_) => MAPPED + self.prefix,
            IpAddr::V6(_) => self.prefix,
        };
        let differs = bits(self.address) ^ bits(address);
        differs.leading_zeros() >= u32::from(prefix)
    }
}

/// Bits before an IPv4 address that is written as IPv6.
const MAPPED: u8 = 96;

/// Either family as IPv6, where the other one has its place, too.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
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
            Ok(Self::new(address, prefix))
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
    fn an_ipv4_network_may_be_written_as_ipv6() {
        for one in ["::ffff:10.1.1.1", "::ffff:10.1.1.1/128", "::ffff:a01:101"] {
            assert!(contains(one, "10.1.1.1") && contains(one, "::ffff:10.1.1.1"));
            assert!(!contains(one, "10.1.1.2") && !contains(one, "::1"));
            assert_eq!(one.parse::<Networks>().unwrap().to_string(), "10.1.1.1/32");
        }
        assert!(contains("::ffff:10.0.0.0/104", "10.255.0.1"));
        assert!(!contains("::ffff:10.0.0.0/104", "11.0.0.1"));
        assert!(contains("::ffff:0:0/96", "8.8.8.8") && !contains("::ffff:0:0/96", "::1"));
        assert!(contains("::/0", "8.8.8.8") && contains("::/0", "2001:db8::1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        let one: IpAddr = "::ffff:10.1.1.1".parse().unwrap();
        assert!(Networks::from(one).contains("10.1.1.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused_with_advice() {
        for wrong in ["", "10.0.0.0/33", "ten", "10.0.0.0/x", "/8"] {
            let error = wrong.parse::<Networks>().unwrap_err();
            assert!(error.to_string().contains("10.0.0.0/8"), "{error}");
        }
    }
}
