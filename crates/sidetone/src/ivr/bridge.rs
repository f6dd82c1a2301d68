use sidetone_proto::EndReason;

use crate::{Call, Event, Frame, LiveAudio};

/// Which of two bridged calls ended, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The first one.
    First(EndReason),
    /// The second one.
    Second(EndReason),
}

/// Connects two calls: each hears what the other says, as soon as its jitter allows. What is queued on them is cleared first.
///
/// It returns when one of them ends, and says which. The other one goes on: play something to it, bridge it with another
/// call, or drop it. Keys are passed over, for AudioSocket can't send them.
///
/// # Cancel safety
///
/// This function is cancellation safe: dropped, it leaves both calls running, without a connection between them.
///
/// ```
/// use sidetone::{Call, ivr::{self, Left}};
///
/// async fn talk(mut caller: Call, mut agent: Call) {
///     if let Left::Second(reason) = ivr::bridge(&mut caller, &mut agent).await {
///         println!("the agent left: {reason}");
///     }
/// }
/// ```
pub async fn bridge(first: &mut Call, second: &mut Call) -> Left {
    // The clearing holds from now on, whether it is awaited or not.
    drop((first.clear(), second.clear()));
    let (mut to_first, mut to_second) = (Relay::default(), Relay::default());
    let handles = (first.handle(), second.handle());
    loop {
        tokio::select! {
            event = first.next() => match event {
                Some(Event::Audio(frame)) => to_second.push(second, &frame),
                Some(Event::Ended(reason)) => return Left::First(reason),
                Some(_) => {}
                None => return Left::First(handles.0.closed().await),
            },
            event = second.next() => match event {
                Some(Event::Audio(frame)) => to_first.push(first, &frame),
                Some(Event::Ended(reason)) => return Left::Second(reason),
                Some(_) => {}
                None => return Left::Second(handles.1.closed().await),
            },
        }
    }
}

/// Live audio to one call, at whatever rate the other one has.
#[derive(Default)]
struct Relay(Option<(u32, LiveAudio)>);

impl Relay {
    fn push(&mut self, to: &Call, frame: &Frame<'_>) {
        let hz = frame.rate().hz();
        if self.0.as_ref().is_none_or(|(made_for, _)| *made_for != hz) {
            // Rates of calls can be resampled.
            self.0 = to.live_at(hz).ok().map(|live| (hz, live));
        }
        if let Some((_, live)) = &mut self.0 {
            live.push(frame.samples());
        }
    }
}
