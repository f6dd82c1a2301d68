//! The dialplan lines to paste into Asterisk, with the address that the server listens on.

use std::net::{IpAddr, SocketAddr};

/// Lines for `extensions.conf` that send a call to `address`.
///
/// For a wildcard address there is one for each address of this machine, as any of them may be the one that Asterisk
/// reaches. They are never host names: `localhost` may be `::1`, where the server does not listen.
pub(crate) fn lines(address: SocketAddr) -> Vec<String> {
    lines_for(&reachable(address))
}

fn lines_for(addresses: &[SocketAddr]) -> Vec<String> {
    // UUID() is shorter, but older releases do not have it.
    let mut lines = vec![
        "exten => 9092,1,Answer()".to_owned(),
        " same => n,Set(CALL_ID=${SHELL(head -c 36 /proc/sys/kernel/random/uuid)})".to_owned(),
    ];
    lines.extend(addresses.iter().enumerate().map(|(place, address)| {
        let line = format!(" same => n,AudioSocket(${{CALL_ID}},{address})");
        match place {
            0 => line,
            // One is active. The others are alternatives.
            _ => format!(";{line}"),
        }
    }));
    lines.push(" same => n,Hangup()".to_owned());
    lines
}

/// The addresses at which a server that listens on `address` can be reached.
pub(crate) fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    if !address.ip().is_unspecified() {
        return vec![address];
    }
    let of_interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut ips: Vec<IpAddr> = of_interfaces.iter().map(if_addrs::Interface::ip).collect();
    ips.retain(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        // An IPv6 wildcard accepts both families.
        IpAddr::V6(ip) => address.is_ipv6() && !ip.is_unicast_link_local(),
    });
    // Addresses for other machines come first. An Asterisk on this machine can use any.
    ips.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6(), *ip));
    ips.dedup();
    if ips.is_empty() {
        ips.push(std::net::Ipv4Addr::LOCALHOST.into());
    }
    ips.into_iter()
        .map(|ip| SocketAddr::new(ip, address.port()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn joined(address: &str) -> String {
        lines(address.parse().unwrap()).join("\n")
    }

    #[test]
    fn an_address_has_one_line() {
        let lines = joined("127.0.0.1:4711");
        assert_eq!(lines.matches("AudioSocket(").count(), 1);
        assert!(
            lines.contains("AudioSocket(${CALL_ID},127.0.0.1:4711)"),
            "{lines}"
        );
        assert!(joined("[::1]:9092").contains(",[::1]:9092)"));
    }

    #[test]
    fn a_wildcard_has_a_line_for_each_interface_and_one_of_them_is_active() {
        let lines = joined("0.0.0.0:9092");
        assert!(
            !lines.contains("0.0.0.0") && !lines.contains("localhost"),
            "{lines}"
        );
        assert!(lines.contains("127.0.0.1:9092"), "{lines}");
        assert_eq!(
            lines.matches("\n same => n,AudioSocket(").count(),
            1,
            "{lines}"
        );
    }

    #[test]
    fn addresses_beyond_the_first_are_comments() {
        let addresses = ["192.168.1.5:1", "10.0.0.1:1"].map(|text| text.parse().unwrap());
        let lines = lines_for(&addresses);
        assert_eq!(lines[2], " same => n,AudioSocket(${CALL_ID},192.168.1.5:1)");
        assert_eq!(lines[3], "; same => n,AudioSocket(${CALL_ID},10.0.0.1:1)");
    }
}
