//! Standard error, written by a thread of its own. It may be a pipe that is not read, and nothing waits for it without
//! a time limit.

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

/// The most texts that may be queued. Those beyond are dropped, and counted in their place.
const MAX_QUEUED: usize = 256;

/// A command to the thread.
enum Command {
    Write(String),
    /// Answer when everything queued before is written.
    Finish(SyncSender<()>),
}

/// The sending side of the thread's queue.
struct Writer {
    commands: SyncSender<Command>,
    /// Texts dropped since the last one that was queued.
    dropped: AtomicU64,
}

/// `None` if the system gives the process no further thread. Nothing is written then.
static WRITER: LazyLock<Option<Writer>> = LazyLock::new(|| {
    let (sender, commands) = sync_channel(MAX_QUEUED);
    let thread = thread::Builder::new().name("sidetone-stderr".into());
    thread.spawn(move || write_all(&commands)).ok()?;
    Some(Writer::new(sender))
});

impl Writer {
    fn new(commands: SyncSender<Command>) -> Self {
        let dropped = AtomicU64::new(0);
        Self { commands, dropped }
    }

    fn write(&self, mut text: String) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let notice = "sidetone: standard error was not read in time; lines missing here";
            text.insert_str(0, &format!("{notice}: {dropped}\n"));
        }
        if self.commands.try_send(Command::Write(text)).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }
}

/// Queues text for standard error. It never waits.
pub(crate) fn write(text: impl Into<String>) {
    if let Some(writer) = &*WRITER {
        writer.write(text.into());
    }
}

/// Waits until everything is written, for `max_wait` at most.
pub(crate) fn finish(max_wait: Duration) {
    let (done, written) = sync_channel(1);
    if let Some(writer) = &*WRITER
        && writer.commands.try_send(Command::Finish(done)).is_ok()
    {
        let _ = written.recv_timeout(max_wait);
    }
}

/// Reports panics through this queue from now on. The standard hook would wait for a reader.
pub(crate) fn report_panics() {
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

fn write_all(commands: &Receiver<Command>) {
    for command in commands {
        match command {
            Command::Write(text) => {
                let _ = io::stderr().write_all(text.as_bytes());
            }
            Command::Finish(done) => {
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_texts_are_counted_in_their_place() {
        let (sender, commands) = sync_channel(2);
        let writer = Writer::new(sender);
        let next = || match commands.try_recv() {
            Ok(Command::Write(text)) => text,
            _ => String::new(),
        };
        (0..5).for_each(|number| writer.write(number.to_string()));
        assert_eq!([next(), next(), next()], ["0", "1", ""]);
        writer.write("5".into());
        writer.write("6".into());
        let text = next();
        assert!(text.contains(": 3\n") && text.ends_with("\n5"), "{text}");
        assert_eq!(next(), "6");
    }
}
