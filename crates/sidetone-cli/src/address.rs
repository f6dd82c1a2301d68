//! Addresses on the command line.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
};

use sidetone::Networks;
use tokio::net::lookup_host;

use crate::failure::Failure;

/// What is wrong with the form of an address that should be HOST:PORT.
pub(crate) fn form_error(text: &str) -> Option<&'static str> {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    if text.contains("://") {
        return Some("it is a URL: leave out everything before the host");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Some(match is_port(text) {
            true => "the host is missing before the port",
            false => "the port is missing",
        });
    };
    if host.is_empty() {
        Some("the host is missing before the port")
    } else if host == "*" {
        Some("* is not a host: 0.0.0.0 means all IPv4 addresses, [::] all of both families")
    } else if host.contains(':') && !host.starts_with('[') {
        Some("an IPv6 address needs brackets, like [::1]:9092")
    } else if text.ends_with(']') {
        Some("the port is missing")
    } else if !is_port(port) {
        Some("a port is a number from 0 to 65535")
    } else {
        None
    }
}

/// Resolves the server that a call is placed to.
pub(crate) fn resolve_server(typed: &str) -> Result<SocketAddr, Failure> {
    let wrong = |why: &str| {
        Failure::new(format_args!(
            "can't call {typed}: {why}; give the server as HOST:PORT, like 127.0.0.1:9092"
        ))
    };
    if let Some(error) = form_error(typed) {
        return Err(wrong(error));
    }
    let mut all = typed
        .to_socket_addrs()
        .map_err(|error| wrong(&error.to_string()))?;
    all.next().ok_or_else(|| wrong("the name has no address"))
}

/// Who may connect, and the addresses of the names in it.
pub(crate) struct Allowed {
    /// `None` if `--allow` was not given.
    pub(crate) networks: Option<Networks>,
    pub(crate) names: Vec<(String, Vec<IpAddr>)>,
}

/// Parses the values of `--allow`. Names are resolved now, as no call may wait for that.
pub(crate) async fn allowed(texts: &[String]) -> Result<Allowed, Failure> {
    let mut allowed = Allowed {
        networks: None,
        names: Vec::new(),
    };
    let words = texts.iter().flat_map(|text| {
        // A value that is blank as a whole is an error.
        let is_blank = text.trim_matches([' ', ',']).is_empty();
        let words = text.split([' ', ',']);
        words.filter(move |word| is_blank || !word.is_empty())
    });
    for word in words {
        let networks = match word.parse::<Networks>() {
            Ok(networks) => networks,
            Err(_) if is_name(word) => {
                let addresses = resolve_name(word).await?;
                let networks = addresses.iter().copied().map(Networks::from);
                let networks = networks.reduce(Networks::and);
                allowed.names.push((word.to_owned(), addresses));
                networks.ok_or_else(|| not_resolved(word, "it has no address"))?
            }
            Err(error) => return Err(Failure::new(format_args!("--allow: {error}"))),
        };
        allowed.networks = Some(match allowed.networks.take() {
            Some(all) => all.and(networks),
            None => networks,
        });
    }
    Ok(allowed)
}

/// Whether it can be the name of a host. A mistyped address is not one.
fn is_name(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    word.bytes().all(fits) && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

async fn resolve_name(name: &str) -> Result<Vec<IpAddr>, Failure> {
    let found = lookup_host((name, 0)).await;
    let found = found.map_err(|error| not_resolved(name, error))?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn not_resolved(name: &str, why: impl Display) -> Failure {
    Failure::new(format_args!(
        "--allow: the name {name:?} can't be resolved ({why}): give one that can, an address like 192.168.1.7, a network like 10.0.0.0/8, or any"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn networks_and_names_can_be_mixed() {
        let texts = ["10.0.0.0/8, localhost".to_owned(), "192.168.1.7".to_owned()];
        let Ok(allowed) = allowed(&texts).await else {
            panic!("all of these are valid");
        };
        let networks = allowed.networks.map(|networks| networks.to_string());
        let networks = networks.unwrap_or_default();
        for part in ["10.0.0.0/8", "127.0.0.1/32", "192.168.1.7/32"] {
            assert!(networks.contains(part), "{networks}");
        }
        assert_eq!(allowed.names[0].0, "localhost");
        for wrong in ["", " ,", "10.0.0", "10.0.0.0/8/9"] {
            assert!(
                super::allowed(&[wrong.to_owned()]).await.is_err(),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn errors_name_what_is_missing_in_an_address() {
        for (text, part) in [
            (":9092", "host is missing"),
            ("9092", "host is missing"),
            ("localhost", "port is missing"),
            ("*:9092", "0.0.0.0"),
            ("::1:9092", "[::1]:9092"),
            ("tcp://localhost:9092", "URL"),
            ("localhost:99999", "65535"),
            ("localhost:", "65535"),
        ] {
            let error = form_error(text).unwrap_or_default();
            assert!(error.contains(part), "{text}: {error}");
        }
        for right in [
            "localhost:9092",
            "127.0.0.1:0",
            "[::]:9092",
            "a-b.example:65535",
        ] {
            assert_eq!(form_error(right), None, "{right}");
        }
    }
}
