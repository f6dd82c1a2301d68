//! What goes on when its call is over, and is waited for before the process ends.

use std::{future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio::task::JoinSet;

/// Tasks. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Afterwards(Arc<Mutex<JoinSet<()>>>);

impl Afterwards {
    /// Starts one, which has to end by itself.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits until all are over.
    pub(crate) async fn finish(&self) {
        let tasks = std::mem::take(&mut *self.0.lock());
        tasks.join_all().await;
    }
}
