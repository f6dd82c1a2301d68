//! Standard error, which may be a pipe that nobody reads: a thread of its own writes it, and nothing waits for that
//! without bound.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write},
    panic,
    sync::{
        LazyLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Pieces of text that may wait to be written; more are dropped.
const UNWRITTEN: usize = 256;

/// What the thread is asked to do.
enum Order {
    Write(String),
    /// Say when all that was asked before is written.
    Finish(SyncSender<()>),
}

/// Without it the system has no thread left, and nothing is written.
static WRITER: LazyLock<Option<SyncSender<Order>>> = LazyLock::new(|| {
    let (sender, orders) = sync_channel(UNWRITTEN);
    let writer = thread::Builder::new().name("sidetone-stderr".into());
    writer.spawn(move || write_all(&orders)).ok()?;
    Some(sender)
});

/// Writes it as soon as standard error takes it.
pub(crate) fn write(text: impl Into<String>) {
    if let Some(writer) = &*WRITER {
        // With nobody to read it there is nobody to tell.
        let _ = writer.try_send(Order::Write(text.into()));
    }
}

/// Waits until everything is written, but no longer than this.
pub(crate) fn finish(longest: Duration) {
    let (done, written) = sync_channel(1);
    if let Some(writer) = &*WRITER
        && writer.try_send(Order::Finish(done)).is_ok()
    {
        let _ = written.recv_timeout(longest);
    }
}

/// From now on panics are told here, too: the usual way would wait for a reader.
pub(crate) fn tell_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let backtrace = Backtrace::capture();
        let mut text = format!("thread '{name}' {panic}\n");
        if backtrace.status() == BacktraceStatus::Captured {
            text.push_str(&backtrace.to_string());
        }
        write(text);
    }));
}

fn write_all(orders: &Receiver<Order>) {
    for order in orders {
        match order {
            Order::Write(text) => {
                let _ = io::stderr().write_all(text.as_bytes());
            }
            Order::Finish(done) => {
                let _ = done.try_send(());
            }
        }
    }
}
