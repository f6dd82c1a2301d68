//! What a forked child has of its parent's servers: memory, and descriptors that both have. No thread of theirs lives there.
//!
//! So nothing of them may be used in the child, nor dropped: a lock may be held by a thread that is not there, whose end would
//! be waited for in vain.

use std::{
    mem,
    sync::atomic::{AtomicUsize, Ordering},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};

/// How often the process was forked off another since the module was loaded: children have a higher one than their parents.
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// To be called in a child before anything else is, which `os.register_at_fork` provides for.
#[pyfunction]
pub(crate) fn begin_forked_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The process in which something was made.
#[derive(Clone, Copy)]
pub(crate) struct Origin(usize);

impl Origin {
    pub(crate) fn here() -> Self {
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this still is that process.
    pub(crate) fn is_here(self) -> bool {
        self.0 == GENERATION.load(Ordering::Relaxed)
    }
}

/// What can be used only in the process that made it. In a child it is forgotten instead of dropped.
pub(crate) struct Guarded<T> {
    content: Option<T>,
    origin: Origin,
}

impl<T> Guarded<T> {
    pub(crate) fn new(content: T) -> Self {
        Self {
            content: Some(content),
            origin: Origin::here(),
        }
    }

    /// # Errors
    ///
    /// In a forked child.
    pub(crate) fn get(&self) -> PyResult<&T> {
        self.look().ok_or_else(|| PyRuntimeError::new_err(
            "this is the parent process's and does nothing in a forked child: start servers after the fork, or use multiprocessing with \"spawn\"",
        ))
    }

    /// For the garbage collector, which may do nothing with the interpreter. Nothing in a forked child.
    pub(crate) fn look(&self) -> Option<&T> {
        self.content.as_ref().filter(|_| self.origin.is_here())
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            mem::forget(self.content.take());
        }
    }
}
