//! The lines to paste into Asterisk, for the very address that is listened on.

use std::net::{IpAddr, SocketAddr};

/// Lines for `extensions.conf` that send a call to `address`.
///
/// On a wildcard there is one for each address of this machine: which one Asterisk reaches is not to be
/// known here. Host names never stand there: `localhost` may mean `::1`, where nobody listens.
pub(crate) fn lines(address: SocketAddr) -> Vec<String> {
    lines_for(&reachable(address))
}

fn lines_for(addresses: &[SocketAddr]) -> Vec<String> {
    // UUID() would be shorter, but older releases don't have it.
    let mut lines = vec![
        "exten => 9092,1,Answer()".to_owned(),
        " same => n,Set(CALL_ID=${SHELL(head -c 36 /proc/sys/kernel/random/uuid)})".to_owned(),
    ];
    lines.extend(addresses.iter().enumerate().map(|(place, address)| {
        let line = format!(" same => n,AudioSocket(${{CALL_ID}},{address})");
        match place {
            0 => line,
            // One must be left; the others are to choose from.
            _ => format!(";{line}"),
        }
    }));
    lines.push(" same => n,Hangup()".to_owned());
    lines
}

/// Where a server that listens on `address` can be reached.
pub(crate) fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    if !address.ip().is_unspecified() {
        return vec![address];
    }
    let of_interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut ips: Vec<IpAddr> = of_interfaces.iter().map(if_addrs::Interface::ip).collect();
    ips.retain(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        // An IPv6 wildcard takes both families.
        IpAddr::V6(ip) => address.is_ipv6() && !ip.is_unicast_link_local(),
    });
    // Other machines' Asterisk first; this machine's can use any.
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
    fn one_address_gives_one_line_with_it() {
        let lines = joined("127.0.0.1:4711");
        assert_eq!(lines.matches("AudioSocket(").count(), 1);
        assert!(
            lines.contains("AudioSocket(${CALL_ID},127.0.0.1:4711)"),
            "{lines}"
        );
        assert!(joined("[::1]:9092").contains(",[::1]:9092)"));
    }

    #[test]
    fn a_wildcard_gives_a_line_for_each_interface_and_one_of_them_active() {
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
