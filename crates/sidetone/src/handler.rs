use std::{
    error::Error,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use crate::{
    Call,
    error::{HandlerError, is_hang_up},
};

/// What is done with each call: any async function that takes a [`Call`].
///
/// ```no_run
/// use sidetone::{Call, Clip, PlayError, Server};
///
/// async fn greet(call: Call, greeting: Clip) -> Result<(), PlayError> {
///     call.player(8_000).expect("a rate that can be resampled").play_clip(&greeting).await?;
///     Ok(())
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let greeting = Clip::open("greeting.wav")?;
/// let server = Server::builder().bind("127.0.0.1:9092").await?;
/// // What all calls share is cloned for each: a call's future owns what it uses.
/// server.serve(move |call: Call| greet(call, greeting.clone())).await?;
/// # Ok(()) }
/// ```
///
/// With an async block in place of a function, clone before the block begins:
///
/// ```
/// # use {sidetone::{Call, Handler}, std::sync::Arc};
/// # fn handler(menu: Arc<String>) -> impl Handler {
/// move |mut call: Call| {
///     let menu = Arc::clone(&menu);
///     async move {
///         while call.next().await.is_some() {}
///         println!("{menu}");
///     }
/// }
/// # }
/// ```
///
/// # The end of a handler
///
/// It may return nothing or a `Result`. After `Ok` what is queued plays out, then the call is hung up; after
/// an error, or a panic, it is hung up at once, and the failure is logged, or given to
/// [`ServerBuilder::on_handler_error`](crate::ServerBuilder::on_handler_error).
///
/// [`PlayError::Closed`](crate::PlayError::Closed) is no failure: that the caller hung up is
/// a normal end, so a handler can use `?` on everything that plays. That holds for every error that has it among its
/// [sources](Error::source): an enum of your own, a boxed error, `anyhow` with context.
///
/// # What can't be a handler
///
/// A closure says what it takes, `|call: Call|`: the compiler can't tell. And it is called for every call, so what it captures
/// can't be moved into the future:
///
/// ```compile_fail
/// # use sidetone::{Call, Handler};
/// # fn handler(menu: String) -> impl Handler {
/// move |call: Call| async move { println!("{} hears {menu}", call.id()) }
/// # }
/// ```
///
/// Its future must be `Send`: nothing that is not may be held over an `.await`. And it returns `()` or `Result<(), E>`, with an
/// `E` that becomes a `Box<dyn Error + Send + Sync>`:
///
/// ```compile_fail
/// # use sidetone::{Call, Handler};
/// # fn handler() -> impl Handler {
/// async fn count(call: Call) -> u32 { 1 }
/// count
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't handle calls",
    label = "not an async function of one `Call`",
    note = "a handler is an async function like `async fn handle(call: Call)`, which may return a `Result<(), E>`",
    note = "a closure says what it takes, and clones for each call what all of them share: `move |call: Call| {{ let shared = shared.clone(); async move {{ … }} }}`"
)]
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
pub struct Outcome(pub(crate) Result<(), HandlerError>);

/// What a handler may return: nothing, or a `Result<(), E>`.
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "neither `()` nor `Result<(), E>`",
    note = "a handler returns nothing, or a `Result<(), E>` whose `E` becomes a `Box<dyn Error + Send + Sync>`: an error type, `anyhow::Error`, a `String`"
)]
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
            Err(error) if is_hang_up(&*error) => Ok(()),
            result => result.map_err(HandlerError::Returned),
        })
    }
}

/// Runs a handler to its end, which may be a panic.
pub(crate) async fn run<H: Handler>(handler: &H, call: Call) -> Result<(), HandlerError> {
    // The handler may panic before there is a future, too.
    let mut handling = pin!(async { handler.handle(call).await });
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(context)));
        match polled {
            Ok(polled) => polled.map(|Outcome(result)| result),
            Err(panic) => Poll::Ready(Err(HandlerError::from_panic(&*panic))),
        }
    })
    .await
}
