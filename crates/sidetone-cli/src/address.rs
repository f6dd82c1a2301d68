//! Addresses as they are typed.

use std::{fmt::Display, net::IpAddr};

use sidetone::Networks;
use tokio::net::lookup_host;

use crate::failure::Failure;

/// What is wrong with a text that should be HOST:PORT, as far as that is to be seen.
pub(crate) fn fault(text: &str) -> Option<&'static str> {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    if text.contains("://") {
        return Some("it is no URL: leave out what stands before the host");
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
        Some("* is no host: 0.0.0.0 stands for all IPv4 addresses, [::] for all of both kinds")
    } else if host.contains(':') && !host.starts_with('[') {
        Some("an IPv6 address has brackets, like [::1]:9092")
    } else if text.ends_with(']') {
        Some("the port is missing")
    } else if !is_port(port) {
        Some("a port is a number from 0 to 65535")
    } else {
        None
    }
}

/// Who may connect, and what names in it stand for.
pub(crate) struct Allowed {
    /// `None` if nothing was given.
    pub(crate) networks: Option<Networks>,
    pub(crate) names: Vec<(String, Vec<IpAddr>)>,
}

/// Reads what was given with `--allow`, and asks for the addresses of names once: a call may not wait for that.
pub(crate) async fn allowed(texts: &[String]) -> Result<Allowed, Failure> {
    let mut allowed = Allowed {
        networks: None,
        names: Vec::new(),
    };
    let words = texts.iter().flat_map(|text| {
        // Where there is nothing at all, that is what is wrong.
        let is_blank = text.trim_matches([' ', ',']).is_empty();
        let words = text.split([' ', ',']);
        words.filter(move |word| is_blank || !word.is_empty())
    });
    for word in words {
        let networks = match word.parse::<Networks>() {
            Ok(networks) => networks,
            Err(_) if is_name(word) => {
                let addresses = resolve(word).await?;
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

/// Whether it can be the name of a host; an address that was mistyped is none.
fn is_name(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    word.bytes().all(fits) && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

async fn resolve(name: &str) -> Result<Vec<IpAddr>, Failure> {
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
    async fn networks_and_names_stand_side_by_side() {
        let texts = ["10.0.0.0/8, localhost".to_owned(), "192.168.1.7".to_owned()];
        let Ok(allowed) = allowed(&texts).await else {
            panic!("all of these are right");
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
    fn what_is_missing_in_an_address_is_said() {
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
            let fault = fault(text).unwrap_or_default();
            assert!(fault.contains(part), "{text}: {fault}");
        }
        for right in [
            "localhost:9092",
            "127.0.0.1:0",
            "[::]:9092",
            "a-b.example:65535",
        ] {
            assert_eq!(fault(right), None, "{right}");
        }
    }
}
