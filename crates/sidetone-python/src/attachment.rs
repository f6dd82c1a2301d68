use parking_lot::Mutex;
use pyo3::prelude::*;

/// What the program attached to a call, on its way to those who are told of the call.
///
/// The library keeps a call's data as long as anything of the call is left, where the garbage collector can't see it: an object
/// that refers to its call would never be freed. So the last to be told takes it out.
pub(crate) struct Attachment(Mutex<Option<(Py<PyAny>, usize)>>);

impl Attachment {
    /// For this many takers, each of whom takes it once.
    pub(crate) fn new(object: Py<PyAny>, takers: usize) -> Self {
        Self(Mutex::new(Some((object, takers))))
    }

    /// The object, which the last taker takes out.
    pub(crate) fn take(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let mut kept = self.0.lock();
        match &mut *kept {
            Some((object, takers)) if *takers > 1 => {
                *takers -= 1;
                Some(object.clone_ref(py))
            }
            _ => kept.take().map(|(object, _)| object),
        }
    }
}
