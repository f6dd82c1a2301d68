use std::{error::Error, future::Future};

use crate::{Call, PlayError};

/// What is done with each call: any async function that takes a [`Call`].
///
/// It may return nothing or a `Result`. After `Ok` what is queued plays out, then the call is hung up; after
/// an error, or a panic, it is hung up at once. [`PlayError::Closed`] is no error: that the caller hung up is
/// a normal end, so a handler can use `?` on everything that plays.
pub trait Handler: Send + Sync + 'static {
    /// Handles one call from its beginning to its end.
    fn handle(&self, call: Call) -> impl Future<Output = Outcome> + Send;
}

impl<F, Fut, R> Handler for F
where
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = R> + Send,
    R: IntoOutcome,
{
    async fn handle(&self, call: Call) -> Outcome {
        self(call).await.into_outcome()
    }
}

/// How a handler came to its end.
#[derive(Debug)]
pub struct Outcome(pub(crate) Result<(), Box<dyn Error + Send + Sync>>);

/// What a handler may return.
pub trait IntoOutcome {
    /// The outcome that it stands for.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome(Ok(()))
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Outcome {
        Outcome(match self.map_err(Into::into) {
            Err(error) if matches!(error.downcast_ref(), Some(PlayError::Closed)) => Ok(()),
            result => result,
        })
    }
}
