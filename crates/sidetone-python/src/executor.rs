use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use crossbeam_queue::SegQueue;
use parking_lot::Mutex;
use pyo3::{intern, prelude::*};

use crate::notifier::Notifier;

/// Runs futures of the library on the thread of a Python event loop, all that are ready in one go.
pub(crate) struct Executor {
    notifier: Notifier,
    ready: SegQueue<Job>,
    event_loop: Py<PyAny>,
}

/// What the event loop's thread is to do.
enum Job {
    Run(Arc<dyn Run>),
    Once(Box<dyn FnOnce(Python<'_>) + Send>),
}

/// Something that is run whenever it has been woken.
pub(crate) trait Run: Send + Sync {
    fn run(self: Arc<Self>, py: Python<'_>);
}

/// Makes the result of a future an object of Python's.
pub(crate) type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

impl Executor {
    pub(crate) fn new(event_loop: Py<PyAny>) -> PyResult<Self> {
        Ok(Self {
            notifier: Notifier::new()?,
            ready: SegQueue::new(),
            event_loop,
        })
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.notifier.descriptor()
    }

    /// Has it run on the event loop's thread. From any thread.
    pub(crate) fn wake(&self, job: Arc<dyn Run>) {
        self.ready.push(Job::Run(job));
        self.notifier.notify();
    }

    /// Has it called on the event loop's thread, once. From any thread.
    pub(crate) fn call_soon(&self, job: impl FnOnce(Python<'_>) + Send + 'static) {
        self.ready.push(Job::Once(Box::new(job)));
        self.notifier.notify();
    }

    /// Runs what is ready. What becomes ready meanwhile is for the next time.
    pub(crate) fn poll(&self, py: Python<'_>) {
        self.notifier.reset();
        for _ in 0..self.ready.len() {
            match self.ready.pop() {
                Some(Job::Run(job)) => job.run(py),
                Some(Job::Once(job)) => job(py),
                None => break,
            }
        }
        if !self.ready.is_empty() {
            self.notifier.notify();
        }
    }

    pub(crate) fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = self.event_loop.bind(py);
        event_loop.call_method0(intern!(py, "create_future"))
    }

    /// Runs a future, and returns an `asyncio.Future` of its outcome. When that is cancelled, the future is dropped.
    pub(crate) fn spawn<'py>(
        self: &Arc<Self>,
        py: Python<'py>,
        future: impl Future<Output = Outcome> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        let waiter = self.create_future(py)?;
        let task = Arc::new(Task {
            executor: Arc::clone(self),
            is_queued: AtomicBool::new(false),
            running: Mutex::new(Some(Running {
                future: Box::pin(future),
                waiter: waiter.clone().unbind(),
            })),
        });
        Arc::clone(&task).run(py);
        if task.running.lock().is_some() {
            waiter.call_method1(intern!(py, "add_done_callback"), (Canceller(task),))?;
        }
        Ok(waiter)
    }
}

/// Sets the result of an `asyncio.Future`, unless it has been cancelled.
pub(crate) fn resolve(waiter: &Bound<'_, PyAny>, result: PyResult<Py<PyAny>>) -> PyResult<()> {
    let py = waiter.py();
    if waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match result {
        Ok(value) => waiter.call_method1(intern!(py, "set_result"), (value,))?,
        Err(error) => waiter.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
    };
    Ok(())
}

/// A future that runs.
struct Task {
    executor: Arc<Executor>,
    is_queued: AtomicBool,
    running: Mutex<Option<Running>>,
}

struct Running {
    future: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    waiter: Py<PyAny>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            let executor = Arc::clone(&self.executor);
            executor.wake(self);
        }
    }
}

impl Run for Task {
    fn run(self: Arc<Self>, py: Python<'_>) {
        // A swap, so that a wake before it is seen below and one after it queues this again.
        self.is_queued.swap(false, Ordering::AcqRel);
        let waker = Waker::from(Arc::clone(&self));
        let mut running = self.running.lock();
        let Some(task) = running.as_mut() else {
            return;
        };
        let Poll::Ready(outcome) = task.future.as_mut().poll(&mut Context::from_waker(&waker))
        else {
            return;
        };
        let done = running.take();
        drop(running);
        if let Some(done) = done
            && let Err(error) = resolve(done.waiter.bind(py), outcome(py))
        {
            // The event loop is closed, and nobody waits.
            error.write_unraisable(py, None);
        }
    }
}

/// Drops a future when the `asyncio.Future` of its outcome is cancelled.
#[pyclass(frozen)]
struct Canceller(Arc<Task>);

#[pymethods]
impl Canceller {
    fn __call__(&self, waiter: &Bound<'_, PyAny>) -> PyResult<()> {
        if waiter.call_method0("cancelled")?.is_truthy()? {
            let dropped = self.0.running.lock().take();
            drop(dropped);
        }
        Ok(())
    }
}
