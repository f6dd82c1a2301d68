use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use super::CallReader;
use crate::event::{Event, OwnedEvent};

/// The events of a call as a stream. After [`OwnedEvent::Ended`] there is none.
///
/// Each frame is copied, where [`Call::next`](crate::Call::next) lends it: use that one unless combinators make
/// up for it. Dropped, the stream ends the call as a dropped [`Call`](crate::Call) does, unless the other half
/// of a [split](crate::Call::split) call lives.
///
/// ```
/// use futures_util::{StreamExt, future::ready};
/// use sidetone::{Call, OwnedEvent};
///
/// /// Reads four digits, or fewer if the caller hangs up.
/// async fn pin(call: Call) {
///     let digits = call.into_stream().filter_map(|event| {
///         ready(match event {
///             OwnedEvent::Dtmf(digit) => Some(digit),
///             _ => None,
///         })
///     });
///     let pin: String = digits.take(4).collect().await;
///     println!("{pin}");
/// }
/// ```
#[derive(Debug)]
pub struct EventStream {
    reader: CallReader,
}

impl EventStream {
    pub(super) fn new(reader: CallReader) -> Self {
        Self { reader }
    }
}

impl Stream for EventStream {
    type Item = OwnedEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<OwnedEvent>> {
        ready!(self.reader.poll_filled(context));
        Poll::Ready(self.reader.take().map(Event::into_owned))
    }
}
