use std::{net::SocketAddr, time::Duration};

use sidetone_proto::Rate;
use uuid::Uuid;

use crate::Ended;

/// An event of a running call. Times count from the sending of the UUID.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The connection is established and the UUID is sent.
    Connected {
        /// The server's address.
        address: SocketAddr,
        /// The call's UUID.
        uuid: Uuid,
    },
    /// A message of audio was received.
    Heard {
        /// When.
        at: Duration,
        /// The rate that its kind names.
        rate: Rate,
        /// Its samples. Asterisk takes every payload for linear samples.
        samples: &'a [i16],
    },
    /// A frame was sent.
    Sent {
        /// When.
        at: Duration,
        /// Bytes of payload.
        bytes: usize,
        /// Its samples, as the codec decodes them.
        samples: &'a [i16],
    },
    /// A digit was sent.
    Digit {
        /// When.
        at: Duration,
        /// `0-9`, `*`, `#` or `A-D`.
        digit: char,
    },
    /// The call is over.
    Ended(Ended),
}
