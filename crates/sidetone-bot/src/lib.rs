#![doc = include_str!("../README.md")]

mod bot;
mod breaker;
mod caller_audio;
mod connecting;
pub mod dialect;
mod driver;
mod failure;
mod playout;
mod session;

pub use bot::{Bot, BotEnd, Budget};
pub use breaker::{Breaker, BreakerState, Change};
pub use failure::BotFailure;
pub use session::{BotEvent, Session, ToolResult, Tools};
pub use sidetone_websocket::{AddressError, Endpoint};
