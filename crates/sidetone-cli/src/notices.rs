//! What only the server's counters show: reported once, when it first happens.

use std::{sync::Arc, time::Duration};

use sidetone::{OtherProtocol, ServerHandle, ServerStats};
use tokio::time::interval;

use crate::{output::Reporter, registry::CallRegistry, server_events::ServerEvent};

const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a notice is about.
#[derive(Clone, Copy, Debug)]
enum Cause {
    NotPrioritised,
    /// Connections without a UUID that spoke no other protocol either.
    WithoutIdentity,
    Protocol(OtherProtocol),
    CrowdedOut,
    OutOfDescriptors,
    Unreported,
}

impl Cause {
    fn all() -> Vec<Self> {
        let protocols = OtherProtocol::ALL.into_iter().map(Self::Protocol);
        [Self::NotPrioritised, Self::WithoutIdentity]
            .into_iter()
            .chain(protocols)
            .chain([Self::CrowdedOut, Self::OutOfDescriptors, Self::Unreported])
            .collect()
    }

    fn has_happened(self, stats: &ServerStats) -> bool {
        let count = |protocol| stats.other_protocols.of(protocol);
        match self {
            Self::NotPrioritised => !stats.prioritised,
            Self::WithoutIdentity => {
                stats.without_identity > OtherProtocol::ALL.map(count).iter().sum()
            }
            Self::Protocol(protocol) => count(protocol) > 0,
            Self::CrowdedOut => stats.crowded_out > 0,
            Self::OutOfDescriptors => stats.out_of_descriptors > 0,
            Self::Unreported => stats.unreported > 0,
        }
    }

    /// What happened and what to do about it.
    fn text(self) -> &'static str {
        match self {
            Self::NotPrioritised => {
                "the system does not let the media threads run at a higher priority, so frames are later on a busy machine: allow it with LimitNICE=-11 in systemd, or CAP_SYS_NICE"
            }
            Self::WithoutIdentity => {
                "a connection ended without a UUID: it was a health check, or Answer() is missing before AudioSocket(); further ones are not reported"
            }
            Self::Protocol(protocol) => protocol_text(protocol),
            Self::CrowdedOut => {
                "connections without a UUID hold a quarter of the file descriptors, so the server closes the oldest of them: find out with ss -tp who connects to this port, and let only your Asterisk in through the firewall; further ones are not reported"
            }
            Self::OutOfDescriptors => {
                "a call was lost because the process has no file descriptors left: raise the limit with LimitNOFILE= in systemd, or ulimit -n; further ones are not reported"
            }
            Self::Unreported => {
                "calls came faster than the process could handle them, and some are not reported: find out what slows it down; further ones are not reported"
            }
        }
    }
}

/// What came to the port instead of AudioSocket, and where it belongs.
fn protocol_text(protocol: OtherProtocol) -> &'static str {
    match protocol {
        OtherProtocol::Http => {
            "a client that speaks HTTP connected to this port and was disconnected: the port is for AudioSocket only, so let health checks only connect, or turn them off; further ones are not reported"
        }
        OtherProtocol::WebSocket => {
            "a WebSocket client connected to this port and was disconnected: the port is for AudioSocket only, so use AudioSocket() or Dial(AudioSocket/...) in the dialplan, not chan_websocket; further ones are not reported"
        }
        OtherProtocol::Tls => {
            "a client that speaks TLS connected to this port and was disconnected: AudioSocket has no encryption, so carry it through a tunnel such as WireGuard; further ones are not reported"
        }
        OtherProtocol::Sip => {
            "a client that speaks SIP connected to this port and was disconnected: the port is for AudioSocket only, so point phones and trunks at Asterisk; further ones are not reported"
        }
        OtherProtocol::Proxy => {
            "a load balancer sends PROXY headers to this port and was disconnected: turn them off there (send-proxy in HAProxy, proxy_protocol in nginx); further ones are not reported"
        }
        // `Text`, and what a later release may recognise.
        _ => {
            "a client that does not speak AudioSocket connected to this port and was disconnected: only Asterisk's AudioSocket() and Dial(AudioSocket/...) belong here; further ones are not reported"
        }
    }
}

/// Checks the counters until the task is aborted.
pub(crate) async fn watch(server: ServerHandle, reporter: Reporter, registry: Arc<CallRegistry>) {
    let mut unreported = Cause::all();
    let mut checks = interval(CHECK_INTERVAL);
    loop {
        checks.tick().await;
        registry.report_suppressed();
        let stats = server.stats();
        unreported.retain(|cause| {
            let has_happened = cause.has_happened(&stats);
            if has_happened {
                reporter.report(ServerEvent::Notice { text: cause.text() });
            }
            !has_happened
        });
    }
}
