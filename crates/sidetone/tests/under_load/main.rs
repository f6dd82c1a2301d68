//! A call stays punctual whatever goes on beside it. These tests compare calls with others, so they have a binary of their own,
//! and those that put load on the machine run alone.

mod attacks;
mod punctuality;
#[path = "../support/mod.rs"]
mod support;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static RUNNING: RwLock<()> = RwLock::new(());

/// A test that loads the machine holds this while it runs.
fn alone() -> RwLockWriteGuard<'static, ()> {
    RUNNING.write()
}

/// A test that mostly waits holds this.
fn beside_others() -> RwLockReadGuard<'static, ()> {
    RUNNING.read()
}
