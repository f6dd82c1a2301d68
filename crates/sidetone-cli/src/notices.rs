//! What the server counts and no call shows: told when it first happens.

use std::{sync::Arc, time::Duration};

use sidetone::{OtherProtocol, ServerHandle, ServerStats};
use tokio::time::interval;

use crate::{board::Board, events::Event, report::Teller};

const LOOK_EVERY: Duration = Duration::from_secs(1);

type Sign = fn(&ServerStats) -> bool;

const NOTICES: [(Sign, &str); 11] = [
    (
        |stats| !stats.prioritised,
        "the system does not let the media threads go before others, so frames are later where it is busy: allow it with LimitNICE=-11 in systemd, or CAP_SYS_NICE",
    ),
    (
        |stats| {
            let other = |protocol| stats.other_protocols.of(protocol);
            stats.without_identity > OtherProtocol::ALL.map(other).iter().sum()
        },
        "a connection ended without a UUID: a health check, or Answer() is missing before AudioSocket(); further ones are not told",
    ),
    (
        |stats| stats.other_protocols.of(OtherProtocol::Http) > 0,
        "something speaks HTTP to this port and was disconnected: it is for AudioSocket alone, so let health checks only connect, or leave them out; further ones are not told",
    ),
    (
        |stats| stats.other_protocols.of(OtherProtocol::WebSocket) > 0,
        "a WebSocket client came to this port and was disconnected: it is for AudioSocket alone, so use AudioSocket() or Dial(AudioSocket/...) in the dialplan, not chan_websocket; further ones are not told",
    ),
    (
        |stats| stats.other_protocols.of(OtherProtocol::Tls) > 0,
        "something speaks TLS to this port and was disconnected: AudioSocket has no encryption, so let a tunnel carry it, such as WireGuard; further ones are not told",
    ),
    (
        |stats| stats.other_protocols.of(OtherProtocol::Sip) > 0,
        "a SIP request came to this port and was disconnected: it is for AudioSocket alone, so point phones and trunks at Asterisk; further ones are not told",
    ),
    (
        |stats| stats.other_protocols.of(OtherProtocol::Proxy) > 0,
        "a load balancer sends PROXY headers to this port and was disconnected: turn them off there (send-proxy in HAProxy, proxy_protocol in nginx); further ones are not told",
    ),
    (
        |stats| stats.other_protocols.of(OtherProtocol::Text) > 0,
        "something that is no AudioSocket spoke to this port and was disconnected: only Asterisk's AudioSocket() and Dial(AudioSocket/...) belong here; further ones are not told",
    ),
    (
        |stats| stats.crowded_out > 0,
        "connections that say no UUID hold a quarter of the descriptors, so the oldest of them are closed: see with ss -tp who connects to this port, and let only your Asterisk in by a firewall; further ones are not told",
    ),
    (
        |stats| stats.out_of_descriptors > 0,
        "a call was lost because the process has no descriptors left: raise the limit with LimitNOFILE= in systemd, or ulimit -n; further ones are not told",
    ),
    (
        |stats| stats.unreported > 0,
        "calls came faster than the process could take them, and not all are told: look what holds it up; further ones are not told",
    ),
];

/// Looks until it is dropped.
pub(crate) async fn tell(server: ServerHandle, teller: Teller, board: Arc<Board>) {
    let mut unreported = Vec::from(NOTICES);
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        board.tell_what_was_counted();
        let stats = server.stats();
        unreported.retain(|(sign, text)| {
            let happened = sign(&stats);
            if happened {
                teller.tell(Event::Notice { text });
            }
            !happened
        });
    }
}
