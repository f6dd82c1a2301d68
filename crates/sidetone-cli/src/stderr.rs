//! Standard error, which may be a pipe that nobody reads: a thread of its own writes it, and nothing waits for that
//! without bound.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write},
    panic,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Pieces of text that may wait to be written; more are dropped, and counted in their place.
const UNWRITTEN: usize = 256;

/// What the thread is asked to do.
enum Order {
    Write(String),
    /// Say when all that was asked before is written.
    Finish(SyncSender<()>),
}

/// The way to the thread.
struct Writer {
    orders: SyncSender<Order>,
    /// Pieces that found no room since the last one that did.
    dropped: AtomicU64,
}

/// Without it the system has no thread left, and nothing is written.
static WRITER: LazyLock<Option<Writer>> = LazyLock::new(|| {
    let (sender, orders) = sync_channel(UNWRITTEN);
    let thread = thread::Builder::new().name("sidetone-stderr".into());
    thread.spawn(move || write_all(&orders)).ok()?;
    Some(Writer::new(sender))
});

impl Writer {
    fn new(orders: SyncSender<Order>) -> Self {
        let dropped = AtomicU64::new(0);
        Self { orders, dropped }
    }

    fn write(&self, mut text: String) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let told = "sidetone: standard error was not read, so this much is missing here";
            text.insert_str(0, &format!("{told}: {dropped}\n"));
        }
        if self.orders.try_send(Order::Write(text)).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }
}

/// Writes it as soon as standard error takes it.
pub(crate) fn write(text: impl Into<String>) {
    if let Some(writer) = &*WRITER {
        writer.write(text.into());
    }
}

/// Waits until everything is written, but no longer than this.
pub(crate) fn finish(longest: Duration) {
    let (done, written) = sync_channel(1);
    if let Some(writer) = &*WRITER
        && writer.orders.try_send(Order::Finish(done)).is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_in_its_place() {
        let (sender, orders) = sync_channel(2);
        let writer = Writer::new(sender);
        let next = || match orders.try_recv() {
            Ok(Order::Write(text)) => text,
            _ => String::new(),
        };
        (0..5).for_each(|number| writer.write(number.to_string()));
        assert_eq!([next(), next(), next()], ["0", "1", ""]);
        writer.write("5".into());
        writer.write("6".into());
        let told = next();
        assert!(told.contains(": 3\n") && told.ends_with("\n5"), "{told}");
        assert_eq!(next(), "6");
    }
}
