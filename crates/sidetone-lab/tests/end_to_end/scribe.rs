//! A handler that has its call written down.

use std::time::Instant;

use sidetone::{Call, Event, Frame};
use sidetone_speech::{Format, Recognizer, SpeechEvent, transcribe};

/// All that the recogniser told of the call, and when; `hear` gets every frame as well.
pub(crate) async fn write_down(
    call: &mut Call,
    recognizer: impl Recognizer,
    mut hear: impl FnMut(&Frame<'_>),
) -> Vec<(Instant, SpeechEvent)> {
    let (mut input, mut events) = transcribe(recognizer, Format::linear(8_000));
    let mut told = Vec::new();
    loop {
        tokio::select! {
            event = call.next() => match event {
                Some(Event::Audio(frame)) => {
                    input.push(frame.offset(), frame.samples());
                    hear(&frame);
                }
                Some(_) => {}
                None => break,
            },
            Some(event) = events.next() => told.push((Instant::now(), event)),
        }
    }
    input.finish();
    while let Some(event) = events.next().await {
        told.push((Instant::now(), event));
    }
    told
}
