//! The simulated caller held against the real one: the same misbehaving server does the same to both, and the same must come of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sidetone_caller::{Caller, EndCause, Generation, Mode, Voice};
use sidetone_lab::ami::{Events, Originate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::wire::{FRAME, HANG_UP, Listener, SLIN, SOON};
use crate::{Lab, scenarios};

scenarios![
    the_application_and_the_simulated_one_agree,
    dial_and_the_simulated_channel_agree
];

/// What a server does once it has said some silence and heard some audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The payload comes long after its header: 5 ms are allowed.
    LatePayload,
    EmptyAudio,
    Kind(u8),
    /// The first byte of a header comes long before the other two.
    SplitHeader,
    /// Header and payload in one write each.
    TwoWrites,
    /// Nothing is sent for longer than 2 s, by either side.
    Silence,
    Fin,
    HangUp,
    Reset,
}

const FAULTS: [Fault; 12] = [
    Fault::LatePayload,
    Fault::EmptyAudio,
    Fault::Kind(0x01),
    Fault::Kind(0x02),
    Fault::Kind(0x03),
    Fault::Kind(0xff),
    Fault::SplitHeader,
    Fault::TwoWrites,
    Fault::Silence,
    Fault::Fin,
    Fault::HangUp,
    Fault::Reset,
];

/// How long after the fault a call has to be over if it is going to be.
const AFTERWARDS: Duration = Duration::from_millis(700);

/// The application's limit of silence is 2 s.
const SILENCE: Duration = Duration::from_millis(2_700);

/// A busy machine can make two writes into a late payload.
const ATTEMPTS: usize = 3;

async fn the_application_and_the_simulated_one_agree(lab: Arc<Lab>) -> anyhow::Result<()> {
    agree(&lab, Mode::Application).await
}

async fn dial_and_the_simulated_channel_agree(lab: Arc<Lab>) -> anyhow::Result<()> {
    agree(&lab, Mode::Channel).await
}

async fn agree(lab: &Lab, mode: Mode) -> anyhow::Result<()> {
    for fault in FAULTS {
        let mut attempt = 1;
        while let Err(error) = agrees(lab, mode, fault).await {
            let survivable = matches!(fault, Fault::TwoWrites | Fault::SplitHeader);
            if !survivable || attempt == ATTEMPTS {
                return Err(error.context(format!("{fault:?}")));
            }
            attempt += 1;
        }
    }
    Ok(())
}

async fn agrees(lab: &Lab, mode: Mode, fault: Fault) -> anyhow::Result<()> {
    let ((real, goes_on, log), (simulated, why)) =
        tokio::try_join!(real(lab, mode, fault), simulated(mode, fault))?;
    eprintln!("    {mode:?}, {fault:?}: {real:?}; {why}");
    ensure!(
        real == simulated,
        "the server saw {real:?} of Asterisk and {simulated:?} of the simulated caller"
    );
    // A call that survives is hung up in the end, in order.
    ensure!(
        (real == Seen::Survival) == (why == EndCause::ServerHungUp && fault != Fault::HangUp),
        "{why}"
    );
    // Behind Dial every end is the called party's hang-up.
    let expected = mode == Mode::Channel || why.dialplan_goes_on();
    ensure!(
        goes_on == expected,
        "the dialplan went on: {goes_on}; {why}"
    );
    let line = why.asterisk_log().unwrap_or_default();
    let logged = async {
        // Asterisk's log is written by a thread of its own.
        while !log_since(lab, log).contains(line) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let logged = timeout(SOON, logged).await;
    logged.with_context(|| {
        format!(
            "{line:?} is not in Asterisk's log:\n{}",
            log_since(lab, log)
        )
    })
}

fn log_since(lab: &Lab, before: usize) -> String {
    lab.asterisk.log().split_off(before)
}

/// What the server saw of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Fin,
    Reset,
    Survival,
    /// It closed the connection itself.
    Nothing,
}

/// What Asterisk makes of it: seen by the server and by the dialplan; and how long its log was before.
async fn real(lab: &Lab, mode: Mode, fault: Fault) -> anyhow::Result<(Seen, bool, usize)> {
    let server = Listener::bind().await?;
    let (target, place) = match mode {
        Mode::Application => ("app", "after-app"),
        Mode::Channel => ("dial-on", "after-dial"),
    };
    let caller = if fault == Fault::Silence {
        "wait"
    } else {
        "tone"
    };
    let tag = Uuid::new_v4().to_string();
    let call = Originate::exten(&format!("Local/{target}@target/n"), "caller", caller)
        .variable("__U", &tag)
        .variable("__D", &server.address().to_string())
        .variable("__C", "slin")
        .variable("__S", "30")
        .variable("__T", &tag);
    let mut events = lab.ami.events();
    let before = lab.asterisk.log().len();
    lab.ami.originate(&call).await?;
    let seen = misbehave(server.connection().await?, fault).await?;
    let goes_on = came_by(&mut events, &tag, place).await?;
    Ok((seen, goes_on, before))
}

async fn came_by(events: &mut Events, tag: &str, place: &str) -> anyhow::Result<bool> {
    let told = events
        .wait(SOON, |event| {
            event.is_lab(tag, place) || event.is_lab(tag, "hangup")
        })
        .await;
    Ok(told.context("the call does not end")?.get("where") == place)
}

/// What the simulated caller makes of it: seen by the server, and in its own words.
async fn simulated(mode: Mode, fault: Fault) -> anyhow::Result<(Seen, EndCause)> {
    let server = Listener::bind().await?;
    let voice = if fault == Fault::Silence {
        Voice::Nothing
    } else {
        Voice::Silence
    };
    let caller = Caller::new(server.address())
        .rules(Generation::G)
        .mode(mode)
        .say(voice)
        .hang_up_after(SOON);
    let calling = tokio::task::spawn_blocking(move || caller.call());
    let seen = misbehave(server.connection().await?, fault).await?;
    Ok((seen, calling.await??.ended.cause))
}

async fn misbehave(stream: TcpStream, fault: Fault) -> anyhow::Result<Seen> {
    let frame = frame();
    if fault == Fault::Reset {
        let mut stream = stream;
        converse(&mut stream, &frame).await?;
        stream.set_zero_linger()?;
        return Ok(Seen::Nothing);
    }
    let mut stream = stream;
    if fault != Fault::Silence {
        converse(&mut stream, &frame).await?;
    }
    let (reader, mut writer) = stream.into_split();
    // All the while it reads, so that the first thing it sees of an end is the end.
    let mut reading = tokio::spawn(end_of(reader));
    let start = Instant::now();
    // A write may already meet a connection that is closed, which the reader knows more about.
    let _ = perform(fault, &mut writer, &frame).await;
    let wait = if fault == Fault::Silence {
        SILENCE
    } else {
        AFTERWARDS
    };
    let seen = match timeout(wait, &mut reading).await {
        Ok(seen) => seen?,
        Err(_) => {
            writer.write_all(&[HANG_UP, 0, 0]).await?;
            writer.shutdown().await?;
            timeout(SOON, reading)
                .await
                .context("it neither dies nor hangs up")??;
            Seen::Survival
        }
    };
    if fault == Fault::Silence && seen != Seen::Survival {
        ensure!(
            start.elapsed() >= Duration::from_millis(1_900),
            "{:?}",
            start.elapsed()
        );
    }
    Ok(seen)
}

async fn perform(fault: Fault, writer: &mut OwnedWriteHalf, frame: &[u8]) -> std::io::Result<()> {
    // Longer than a machine stands still: else what comes late would not seem so to Asterisk.
    let long = Duration::from_millis(500);
    match fault {
        Fault::LatePayload => {
            writer.write_all(&frame[..3]).await?;
            sleep(long).await;
            writer.write_all(&frame[3..]).await
        }
        Fault::SplitHeader => {
            writer.write_all(&frame[..1]).await?;
            sleep(long).await;
            writer.write_all(&frame[1..]).await
        }
        Fault::TwoWrites => {
            writer.write_all(&frame[..3]).await?;
            writer.write_all(&frame[3..]).await
        }
        Fault::EmptyAudio => writer.write_all(&[SLIN, 0, 0]).await,
        Fault::Kind(kind) => writer.write_all(&[kind, 0, 1, b'1']).await,
        Fault::Fin => writer.shutdown().await,
        Fault::HangUp => writer.write_all(&[HANG_UP, 0, 0]).await,
        Fault::Silence | Fault::Reset => Ok(()),
    }
}

/// A tenth of a second of an ordinary call, after its UUID.
async fn converse(stream: &mut TcpStream, frame: &[u8]) -> anyhow::Result<()> {
    let mut uuid = [0; 19];
    timeout(SOON, stream.read_exact(&mut uuid)).await??;
    for _ in 0..5 {
        stream.write_all(frame).await?;
        let mut audio = [0; 3 + 2 * FRAME];
        timeout(SOON, stream.read_exact(&mut audio)).await??;
    }
    Ok(())
}

async fn end_of(mut reader: OwnedReadHalf) -> Seen {
    let mut audio = [0; 4_096];
    loop {
        match reader.read(&mut audio).await {
            Ok(0) => return Seen::Fin,
            Ok(_) => {}
            Err(_) => return Seen::Reset,
        }
    }
}

fn frame() -> Vec<u8> {
    let mut frame = vec![SLIN];
    frame.extend(u16::try_from(2 * FRAME).unwrap().to_be_bytes());
    frame.resize(3 + 2 * FRAME, 0);
    frame
}
