//! Tasks that may outlast their call, and that the process waits for before it ends.

use std::{future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// A set of tasks. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackgroundTasks(Arc<Mutex<JoinSet<()>>>);

impl BackgroundTasks {
    /// Starts a task, which has to end by itself.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn join_all(&self) {
        let tasks = std::mem::take(&mut *self.0.lock());
        tasks.join_all().await;
    }
}
