//! A call stays punctual whatever goes on beside it. These tests put load on the machine and compare calls with others,
//! so they have a binary of their own and run one at a time.

mod attacks;
mod punctuality;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard};

/// Each test holds this while it runs.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|failed| failed.into_inner())
}
