//! WebSocket connections from a server to the services it uses.
//!
//! An [`Endpoint`] is the address of a service. [`Endpoint::connect`] gives a [`Connection`], or an
//! error that says what the service says. One task reads and writes: what [`Connection::queue`] was
//! given leaves while [`Connection::next`] waits for the next message, and a service that takes
//! nothing never stops the reading.
//!
//! ```no_run
//! use sidetone_websocket::{Endpoint, Message, Received, Request};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoint = Endpoint::new("wss://bot.example/calls")?;
//! let mut connection = endpoint.connect(&Request::default()).await?;
//! connection.queue(Message::Text(r#"{"event":"start"}"#.into()));
//! loop {
//!     match connection.next().await? {
//!         Received::Text(text) => println!("{text}"),
//!         Received::Binary(audio) => println!("{} bytes", audio.len()),
//!         Received::Pong => {}
//!         Received::Closed { code, reason } => {
//!             println!("closed: {code} {reason}");
//!             return Ok(());
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`service_message`] | finds the error message in a service's reply, without secrets |
//! | [`tls`] | TLS as a client: which certificates are trusted |
#![forbid(unsafe_code)]

mod connection;
mod endpoint;
mod peer_stream;
pub mod service_message;
pub mod tls;

pub use connection::{Connection, ConnectionError, Message, Received};
pub use endpoint::{AddressError, ConnectError, Endpoint, Request};

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
