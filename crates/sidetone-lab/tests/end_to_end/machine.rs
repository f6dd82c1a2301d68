//! How punctual the machine itself is: threads on a crowded one are late whatever they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// How often a thread that plays is woken.
const TURN: Duration = Duration::from_millis(20);

/// Later than this a thread has been kept from running: two turns are lost.
const STALL: Duration = Duration::from_millis(40);

/// Threads that do nothing but wake up every 20 ms, as those do that play.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Watch {
    pub(crate) fn start(threads: usize) -> Self {
        let over = Arc::<AtomicBool>::default();
        let watching = || {
            let over = Arc::clone(&over);
            std::thread::spawn(move || watch(&over))
        };
        Self {
            threads: (0..threads).map(|_| watching()).collect(),
            over,
        }
    }

    /// Ends the watch, and answers how often one of its threads was woken too late to play.
    pub(crate) fn stalls(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    }
}

fn watch(over: &AtomicBool) -> usize {
    let mut stalls = 0;
    let mut due = Instant::now();
    while !over.load(Ordering::Relaxed) {
        due += TURN;
        sleep(due.saturating_duration_since(Instant::now()));
        if due.elapsed() > STALL {
            stalls += 1;
            due = Instant::now();
        }
    }
    stalls
}
