use std::{mem, sync::Arc, task::Waker};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify};

/// Wakes handlers from inside their runtime.
///
/// Waking a task from outside costs a system call, and on a busy CPU it often hands the CPU over to the woken
/// thread: fifty wake-ups are fifty context switches. Inside the runtime a wake-up is an entry in a queue. So a
/// media thread wakes one task per iteration, and that task wakes the others.
pub(super) struct WakeTask(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Who is to be woken; nothing once the task is gone.
    waiting: Mutex<Option<Vec<Waker>>>,
    notify: Notify,
}

impl WakeTask {
    /// On the runtime that this is called on. Without one, everybody is woken from outside.
    pub(super) fn start() -> Self {
        let shared = Arc::<Shared>::default();
        if let Ok(runtime) = Handle::try_current() {
            *shared.waiting.lock() = Some(Vec::new());
            runtime.spawn(Task(Arc::clone(&shared)).run());
        }
        Self(shared)
    }

    /// Wakes all of them, and leaves none.
    pub(super) fn wake(&self, wakes: &mut Vec<Waker>) {
        match wakes.len() > 1 && self.0.take(wakes) {
            true => self.0.notify.notify_one(),
            false => wakes.drain(..).for_each(Waker::wake),
        }
    }
}

impl Drop for WakeTask {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    /// Takes them over for the task. A media thread waits for no lock: taken, it is no.
    fn take(&self, wakes: &mut Vec<Waker>) -> bool {
        let Some(mut waiting) = self.waiting.try_lock() else {
            return false;
        };
        let Some(waiting) = waiting.as_mut() else {
            return false;
        };
        // Not only for as many as there are now: a late iteration has more of them.
        waiting.reserve(wakes.capacity());
        waiting.append(wakes);
        true
    }

    /// Nothing is relayed any more, and nobody forgotten.
    fn close(&self) {
        let waiting = self.waiting.lock().take();
        self.notify.notify_one();
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The task, or what is left of it when its runtime ends before the server does.
struct Task(Arc<Shared>);

impl Task {
    async fn run(self) {
        let mut waking = Vec::new();
        loop {
            match self.0.waiting.lock().as_mut() {
                Some(waiting) => mem::swap(waiting, &mut waking),
                None => return,
            }
            waking.drain(..).for_each(Waker::wake);
            self.0.notify.notified().await;
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.close();
    }
}
