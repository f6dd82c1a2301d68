use {
    crate::Ended,
    sidetone_proto::Rate,
    std::{net::SocketAddr, time::Duration},
    uuid::Uuid,
};

/// What happens in a call, told while it happens. Times count from the moment the UUID was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The connection stands and the UUID is sent.
    Connected {
        /// The server.
        address: SocketAddr,
        /// The call.
        uuid: Uuid,
    },
    /// A message of audio came.
    Heard {
        /// When.
        at: Duration,
        /// The rate that its kind names.
        rate: Rate,
        /// What is in it, taken for linear samples as Asterisk takes it.
        samples: &'a [i16],
    },
    /// A frame was sent.
    Said {
        /// When.
        at: Duration,
        /// Bytes of payload.
        bytes: usize,
        /// What is in it, as the far end of the codec has it.
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
