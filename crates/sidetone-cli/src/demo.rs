//! `sidetone demo`: a server, one call to it, and what became of it.

mod judge;
mod story;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use sidetone::{Call, Clip, Event, Networks, PlayError, ServerHandle};
use sidetone_audio::tone;
use sidetone_caller::{CallRecord, Caller, CallerError, Codec, Stop};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    args::{CodecName, Demo},
    board::Watch,
    dialplan,
    failure::{Failure, Verdict, complain},
    report::{Style, Teller},
    service::{Manner, Service},
    signals::FirstSignal,
    tracks::TrackFile,
};
use judge::Judgement;
use story::Story;

const FILE: &str = "demo.wav";
const RATE: u32 = 8_000;
const SEED: u64 = 7;
/// When the caller begins to speak, after the greeting.
const SPEAKS_AT: Duration = Duration::from_millis(2_400);
const SPEAKS_FOR: Duration = Duration::from_millis(3_200);
const DIGITS: &str = "42#";
const PRESSES_AT: Duration = Duration::from_millis(5_900);
const HANGS_UP_AT: Duration = Duration::from_millis(7_000);

pub(crate) async fn run(options: Demo) -> Result<Verdict, Failure> {
    let id = Uuid::new_v4();
    let greeting = Clip::from_samples(RATE, tone::greeting(RATE)).map_err(Failure::new)?;
    let manner = Manner {
        record: options.recording.dir,
        style: Style::readable(),
        also_allow: Some(this_machine()),
        unreported: Some(id),
    };
    let file = TrackFile::create(Path::new(FILE))?;
    let service = Service::open(&options.serving, manner).await?;
    let story = Story::new(id, service.teller());
    let caller = place_call(&service, id, options.serving.codec, &story);
    story.begin(service.address());
    let stop = Stop::new().map_err(Failure::new)?;
    let calling = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || caller.call_until(&stop))
    };
    let mut signal = FirstSignal::new();
    let interrupted = tokio::spawn(async move {
        signal.comes().await;
        stop.stop();
    });
    let after = After {
        handle: service.handle(),
        teller: service.teller(),
        address: service.address(),
        once: options.once,
        file,
    };
    let judging = tokio::spawn(after.conclude(calling, interrupted));
    let served = service
        .run(move |call, watch| answer(call, watch, greeting.clone(), story.clone()))
        .await?;
    let judged = judging.await.map_err(Failure::new)?;
    Ok(if options.once { judged } else { served })
}

/// The demonstration comes from this machine, wherever other calls may come from.
fn this_machine() -> Networks {
    let own = if_addrs::get_if_addrs().unwrap_or_default();
    let own: Vec<IpAddr> = own.iter().map(if_addrs::Interface::ip).collect();
    own.iter().fold(Networks::loopback(), |networks, ip| {
        match ip.to_string().parse() {
            Ok(network) => networks.and(network),
            Err(_) => networks,
        }
    })
}

fn place_call(service: &Service, id: Uuid, codec: CodecName, story: &Arc<Story>) -> Caller {
    // Of several addresses the last one is loopback.
    let address = dialplan::reachable(service.address()).pop();
    let address = address.unwrap_or(service.address());
    let codec = match codec {
        CodecName::Ulaw => Codec::Ulaw,
        CodecName::Alaw => Codec::Alaw,
        CodecName::Slin | CodecName::Auto => Codec::default(),
    };
    let story = Arc::clone(story);
    Caller::new(address)
        .uuid(id)
        .codec(codec)
        .say([vec![0; samples_in(SPEAKS_AT)], voice()].concat())
        .dtmf(DIGITS, PRESSES_AT)
        .hang_up_after(HANGS_UP_AT)
        .observe(move |event| story.caller(event))
}

fn voice() -> Vec<i16> {
    tone::caller_voice(RATE, SPEAKS_FOR, SEED)
}

fn samples_in(time: Duration) -> usize {
    (time.as_millis() * u128::from(RATE) / 1000) as usize
}

/// The handler: greets, then echoes.
async fn answer(
    mut call: Call,
    mut watch: Watch,
    greeting: Clip,
    story: Arc<Story>,
) -> Result<(), PlayError> {
    let id = call.id();
    let Ok(mut player) = call.player(RATE) else {
        return Ok(());
    };
    let greeted = player.play_clip(&greeting).await?;
    story.server(id, "answers and plays a greeting");
    let mut line = call.live();
    let mut echoes = false;
    while let Some(event) = watch.next(&mut call).await {
        match event {
            Event::Audio(frame) if greeted.is_finished() => {
                line.push(frame.samples());
                if !std::mem::replace(&mut echoes, true) {
                    story.server(id, "has played it, and echoes from now on");
                }
            }
            Event::Dtmf(digit) => story.server(id, &format!("hears the digit {digit}")),
            Event::Ended(reason) => story.server(id, &format!("ends the call: {reason}")),
            _ => {}
        }
    }
    Ok(())
}

/// What is done when the call is over.
struct After {
    handle: ServerHandle,
    teller: Teller,
    address: SocketAddr,
    once: bool,
    file: TrackFile,
}

impl After {
    async fn conclude(
        self,
        calling: JoinHandle<Result<CallRecord, CallerError>>,
        interrupted: JoinHandle<()>,
    ) -> Verdict {
        let called = calling.await;
        if interrupted.is_finished() {
            return Verdict::Bad; // Whoever ended it before its time knows that.
        }
        let judged = match called {
            Ok(Ok(record)) => judge(record, self.file, &self.teller).await,
            Ok(Err(error)) => Err(Failure::new(error)),
            Err(error) => Err(Failure::new(error)),
        };
        if self.once {
            self.handle.shutdown(Duration::ZERO);
        } else {
            let lines = story::invitation(self.address, &dialplan::lines(self.address));
            lines.into_iter().for_each(|line| self.teller.say(line));
        }
        judged.unwrap_or_else(|failure| {
            complain(&format!("the demonstration failed: {failure}"));
            Verdict::Bad
        })
    }
}

async fn judge(record: CallRecord, file: TrackFile, teller: &Teller) -> Result<Verdict, Failure> {
    let judging = tokio::task::spawn_blocking(move || {
        file.write(&record)?;
        Ok(Judgement::of(&record))
    });
    let judgement = judging.await.map_err(Failure::new)??;
    let lines = judgement.lines();
    lines.into_iter().for_each(|line| teller.say(line));
    Ok(judgement.verdict())
}
