//! One task hears and another one speaks.

use std::error::Error;

use crate::support::{IoBackend, builder, call, millis, over_each_back_end, serve, sound};
use macro_rules_attribute::apply;
use sidetone::{Call, CallReader, CallWriter, EndReason, Event, PlayError};
use sidetone_caller::EndCause;
use tokio::sync::mpsc::{Receiver, Sender, channel};

const HZ: u32 = 8_000;

/// 100 ms of a tone of 400 Hz and as much of silence.
fn beep() -> Vec<i16> {
    let tone = (0..HZ / 10).map(|at| if at / 10 % 2 == 0 { 6_000 } else { -6_000 });
    tone.chain(std::iter::repeat_n(0, HZ as usize / 10))
        .collect()
}

async fn hear(mut reader: CallReader, digits: Sender<u32>) {
    while let Some(event) = reader.next().await {
        match event {
            Event::Dtmf('#') => break,
            Event::Dtmf(key) => {
                // With more keys waiting than that, this one is passed over.
                let _ = key.to_digit(10).map(|digit| digits.try_send(digit));
            }
            _ => {}
        }
    }
}

async fn speak(
    writer: CallWriter,
    mut digits: Receiver<u32>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut player = writer.player(HZ)?;
    while let Some(digit) = digits.recv().await {
        for _ in 0..digit {
            player.play(&beep()).await?;
        }
        player.drained().await?;
    }
    Ok(())
}

async fn beeps(call: Call) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (reader, writer) = call.split();
    let (digits, wanted) = channel(32);
    // The call lives until both halves are gone; hearing ends first, and closes the channel.
    let hearing = tokio::spawn(hear(reader, digits));
    let spoken = speak(writer, wanted).await;
    hearing.await?;
    match spoken {
        Err(error) if error.downcast_ref() == Some(&PlayError::Closed) => Ok(()),
        spoken => spoken,
    }
}

#[apply(over_each_back_end)]
#[tokio::test(flavor = "multi_thread")]
async fn two_tasks_beep_as_often_as_the_digits_say(io: IoBackend) {
    let server = serve(builder(io), beeps).await;
    let caller = server
        .caller()
        .dtmf("12#", millis(200))
        .hang_up_after(millis(30_000));
    let record = call(caller).await;
    assert_eq!(record.ended.cause, EndCause::ServerHungUp);
    let tone = beep().iter().filter(|sample| **sample != 0).count();
    assert_eq!(sound(&record).len(), 3 * tone);
    assert_eq!(server.end().await[0].reason, EndReason::Finished);
}
