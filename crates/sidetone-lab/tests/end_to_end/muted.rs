//! What becomes of what a phone said when it is muted: from then on nothing comes of it, not even silence.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use sidetone::{Call, Event, Handler};
use sidetone_audio::g711::Law;
use sidetone_audio::tone::caller_voice;
use sidetone_audio::vad::{VoiceDetector, VoiceEvent};
use sidetone_caller::exact_runs;
use sidetone_lab::phone::{Phone, PhoneOptions};
use sidetone_services::synthesize;
use sidetone_services::vosk::VoskServer;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;
use uuid::Uuid;

use crate::binary::Running;
use crate::hearing::{self, arrived};
use crate::serve::Served;
use crate::wire::SOON;
use crate::{Lab, scenarios};

scenarios![
    what_was_said_before_a_mute_has_its_end,
    words_before_a_mute_are_written_down,
];

/// By the application, and by Dial.
const NUMBERS: [&str; 2] = ["app", "dial_slin"];

const HZ: u32 = 8_000;

/// What a handler is told of its caller.
#[derive(Debug)]
enum Told {
    Audio {
        at: Duration,
        samples: Vec<i16>,
    },
    NoAudio {
        at: Duration,
        duration: Duration,
    },
    /// On the detector's clock, which begins with the first sample.
    SpeechEnded {
        at: Duration,
    },
}

async fn what_was_said_before_a_mute_has_its_end(lab: Arc<Lab>) -> anyhow::Result<()> {
    let mut said = caller_voice(HZ, Duration::from_secs(3), 7);
    // As the phone sends it: of whole packets, and of what its law can say. It ends in the middle of a word.
    let loud = said.iter().rposition(|sample| sample.abs() > 4_000);
    said.truncate(loud.context("nobody speaks")? / 160 * 160);
    let law = Law::Ulaw;
    let said: Vec<i16> = said
        .into_iter()
        .map(|sample| law.decode_byte(law.encode_sample(sample)))
        .collect();
    for number in NUMBERS {
        let (tell, mut told) = mpsc::unbounded_channel();
        let server = Served::start(hearing::builder(), listen(tell)).await?;
        let id = Uuid::new_v4();
        let number = format!("{number}-{}-{id}", server.address.port());
        let phone = Phone::call(&lab.asterisk, &number, PhoneOptions::default()).await?;
        let call = arrived(&server.handle, id).await?;
        phone.say(&vec![0; HZ as usize]);
        phone.say(&said);
        phone.mute();
        let judged = judge(&said, &mut told).await;
        judged.with_context(|| number.clone())?;
        ensure!(call.ended().is_none(), "{number}: it ended while muted");
        phone.hang_up().await?;
        call.closed().await;
    }
    Ok(())
}

/// Tells all that it hears.
fn listen(tell: UnboundedSender<Told>) -> impl Handler {
    move |mut call: Call| {
        let tell = tell.clone();
        async move {
            let mut detector = VoiceDetector::new(HZ).unwrap();
            while let Some(event) = call.next().await {
                let (told, heard): (_, Vec<_>) = match event {
                    Event::Audio(frame) => {
                        let (at, samples) = (frame.offset(), frame.samples().to_vec());
                        let heard = detector.push(&samples).collect();
                        (Told::Audio { at, samples }, heard)
                    }
                    Event::NoAudio {
                        offset: at,
                        duration,
                    } => {
                        let heard = detector.push_silence(duration).collect();
                        (Told::NoAudio { at, duration }, heard)
                    }
                    _ => continue,
                };
                // The scenario may have seen enough.
                let _ = tell.send(told);
                for voice in heard {
                    if let VoiceEvent::SpeechEnded { at } = voice {
                        let _ = tell.send(Told::SpeechEnded { at });
                    }
                }
            }
        }
    }
}

/// Hears a call in which `said` is the last that comes.
async fn judge(said: &[i16], told: &mut UnboundedReceiver<Told>) -> anyhow::Result<()> {
    let (mut samples, mut first, mut due) = (Vec::new(), None, Duration::ZERO);
    let mut silent_from = None;
    let mut ends = Vec::new();
    let mut told = async || {
        let next = timeout(SOON, told.recv()).await;
        next.context("nothing more is told")?.context("it is over")
    };
    let is_said = |samples: &[i16]| {
        let runs = exact_runs(said, samples);
        let run = runs
            .last()
            .filter(|run| run.source + run.length == said.len());
        run.map(|run| run.heard + run.length)
    };
    // Until a second of nothing was told; nothing may be missing before what was said.
    let last = loop {
        match told().await? {
            Told::Audio { at, samples: more } => {
                ensure!(
                    silent_from.is_none() || is_said(&samples).is_none(),
                    "the mute ends"
                );
                first.get_or_insert(at);
                due = at + length(more.len());
                samples.extend(more);
                silent_from = None;
            }
            Told::SpeechEnded { at } => ends.push((at, silent_from.is_some())),
            Told::NoAudio { at, duration } => {
                let begin = *silent_from.get_or_insert(at);
                let Some(end) = is_said(&samples) else {
                    continue;
                };
                if at + duration - begin >= Duration::from_secs(1) {
                    break end;
                }
            }
        }
    };
    let (first, begin) = (
        first.context("no audio")?,
        silent_from.context("no silence")?,
    );
    ensure!(
        samples[last..].iter().all(|sample| *sample == 0),
        "something was heard after the last word"
    );
    ensure!(
        begin == due,
        "no audio from {begin:?} on, and the last of it ended at {due:?}"
    );
    let sent = exact_runs(said, &samples);
    ensure!(
        sent.iter().map(|run| run.length).sum::<usize>() >= said.len() * 99 / 100,
        "what the phone said came in these pieces: {sent:?}"
    );
    let Some((end, true)) = ends.pop() else {
        anyhow::bail!("speech has not ended with the silence: {ends:?}");
    };
    // Where it ends for a detector that hears what the phone sent, and silence.
    let start = last - said.len();
    let control = [&vec![0; start], said, &vec![0; HZ as usize]].concat();
    let mut detector = VoiceDetector::new(HZ)?;
    let control = detector.push(&control).filter_map(|event| match event {
        VoiceEvent::SpeechEnded { at } => Some(at),
        VoiceEvent::SpeechStarted { .. } => None,
    });
    let control = control.last().context("the control hears no speech")?;
    // On the call's clock, on which the last sample of it ended where the silence begins.
    let (end, control) = (first + end, begin + control - length(last));
    ensure!(
        end.abs_diff(control) <= Duration::from_millis(50),
        "speech ended at {end:?}, and that of the phone at {control:?}"
    );
    Ok(())
}

fn length(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 125)
}

async fn words_before_a_mute_are_written_down(lab: Arc<Lab>) -> anyhow::Result<()> {
    let vosk = VoskServer::start().await?;
    let endpoint = vosk.endpoint();
    let words = ["transcribe", "--engine", "vosk", "--endpoint", &endpoint];
    let options = ["--json", "--stop-word", "goodbye"];
    let mut command =
        Running::serve(lab.asterisk.folder(), &[&words[..], &options].concat()).await?;
    for number in NUMBERS {
        let id = Uuid::new_v4();
        let called = format!("{number}-{}-{id}", command.address.port());
        let mut phone = Phone::call(&lab.asterisk, &called, PhoneOptions::default()).await?;
        command.event("call_started").await?;
        phone.say(&vec![0; HZ as usize]);
        let mut said = synthesize(&["say", "goodbye"], HZ);
        // Without the pause that is said with them.
        said.truncate(said.len() - HZ as usize * 7 / 10);
        phone.say(&said);
        phone.mute();
        let told = command.event("transcript").await?;
        ensure!(
            told["text"] == "say goodbye" && told["id"] == id.to_string(),
            "{number}: {told}"
        );
        let hanging_up = command.event("hanging_up").await?;
        ensure!(hanging_up["reason"] == "stop_word", "{hanging_up}");
        let ended = command.event("call_ended").await?;
        ensure!(ended["ended_by"] == "server", "{number}: {ended}");
        phone.ended(SOON).await?;
    }
    command.end().await
}
