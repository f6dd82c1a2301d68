//! What the programs share.

use std::time::{SystemTime, UNIX_EPOCH};

/// How the UUIDs of calls begin that go to the bot. Others are echoed.
pub const BRIDGED: [u8; 8] = *b"BRIDGED!";

/// The time that all processes of a machine share, in nanoseconds.
pub fn now() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_nanos()
}
