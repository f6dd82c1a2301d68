//! Free ports for an instance, so that any number of them can run side by side.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Below the range from which Linux takes the ports of outgoing connections: only another listener can be in the way.
const LISTENING: RangeInclusive<u16> = 20_000..=31_999;

const COUNT: u32 = (*LISTENING.end() - *LISTENING.start()) as u32 + 1;

/// Asterisk itself looks for a free pair among these, so instances may share some of them.
const RTP: RangeInclusive<u16> = 12_000..=19_999;

/// How many ports an instance has for RTP: a pair for each of 500 calls.
const RTP_PORTS: u16 = 1_000;

/// The ports of one instance, all on 127.0.0.1.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    pub(crate) ami: u16,
    pub(crate) http: u16,
    pub(crate) sip: u16,
    pub(crate) rtp: RangeInclusive<u16>,
}

impl Ports {
    /// Ports that were free a moment ago.
    pub(crate) fn free() -> std::io::Result<Self> {
        let (ami, http, sip) = (free_tcp()?, free_tcp()?, free_udp()?);
        let blocks = (RTP.end() - RTP.start() + 1) / RTP_PORTS;
        let first = RTP.start() + sip % blocks * RTP_PORTS;
        Ok(Self {
            ami,
            http,
            sip,
            rtp: first..=first + RTP_PORTS - 1,
        })
    }
}

/// A port for TCP that was free a moment ago.
pub(crate) fn free_tcp() -> std::io::Result<u16> {
    next(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

fn free_udp() -> std::io::Result<u16> {
    next(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

fn next(is_free: impl Fn(u16) -> bool) -> std::io::Result<u16> {
    let mut search = SEARCH.lock().unwrap_or_else(PoisonError::into_inner);
    search.get_or_insert_with(Search::new).next(is_free)
}

/// One for the process: instances that boot at the same time have not taken their ports yet.
static SEARCH: Mutex<Option<Search>> = Mutex::new(None);

/// Walks the ports from a place that differs between processes.
struct Search {
    offset: u32,
}

impl Search {
    fn new() -> Self {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .subsec_nanos();
        Self {
            offset: (clock / 1000 + std::process::id() * 97) % COUNT,
        }
    }

    fn next(&mut self, is_free: impl Fn(u16) -> bool) -> std::io::Result<u16> {
        for _ in 0..COUNT {
            self.offset = (self.offset + 1) % COUNT;
            let port = u16::try_from(u32::from(*LISTENING.start()) + self.offset);
            if let Ok(port) = port
                && is_free(port)
            {
                return Ok(port);
            }
        }
        Err(Error::new(
            ErrorKind::AddrInUse,
            format!(
                "no free port from {} to {}",
                LISTENING.start(),
                LISTENING.end()
            ),
        ))
    }
}
