//! The stand-in of the Realtime API on the one side, a caller on the other.
#![allow(clippy::unwrap_used)]

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use sidetone::{Call, Rate, Server};
use sidetone_audio::g711::Law;
use sidetone_bot::{
    Bot, BotEnd, BotEvent, BotFailure, Endpoint, Session, ToolResult, Tools,
    dialect::{OpenAi, Speaker, openai::Interruption},
};
use sidetone_caller::{CallRecord, Caller, Codec, Voice, exact_runs};
use sidetone_services::realtime::{Answer, RealtimeServer, Script, Speech, Turn};
use tokio::sync::mpsc;

/// How far a truncation may be from what the caller heard.
const TOLERANCE_MS: u64 = 20;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn openai() -> OpenAi {
    OpenAi::new("sk-test", "gpt-realtime").unwrap()
}

/// Does nothing, and keeps what it was asked for.
#[derive(Default)]
struct Asked(Mutex<Vec<(String, String)>>);

impl Tools for Asked {
    fn call(&self, name: &str, arguments: &str) -> ToolResult {
        self.0.lock().unwrap().push((name.into(), arguments.into()));
        Box::pin(async { Ok("done".into()) })
    }
}

/// A call that is over.
struct Talked {
    service: RealtimeServer,
    end: Result<BotEnd, BotFailure>,
    events: Vec<BotEvent>,
    asked: Vec<(String, String)>,
    record: CallRecord,
}

/// Has a caller talk with a bot.
async fn talk(bot: OpenAi, script: Script, place: impl FnOnce(Caller) -> Caller) -> Talked {
    talk_with("sk-test", sidetone::Codec::default(), bot, script, place).await
}

async fn talk_with(
    key: &str,
    codec: sidetone::Codec,
    bot: OpenAi,
    script: Script,
    place: impl FnOnce(Caller) -> Caller,
) -> Talked {
    let service = RealtimeServer::start(key, script).await.unwrap();
    let endpoint = Endpoint::new(&service.endpoint()).unwrap();
    let bot = Bot::new(endpoint, bot);
    let (ended, mut ends) = mpsc::unbounded_channel();
    let events = Arc::<Mutex<Vec<BotEvent>>>::default();
    let asked = Arc::<Asked>::default();
    let (reported, tools) = (Arc::clone(&events), Arc::clone(&asked));
    let server = Server::builder()
        .codec(codec)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address = server.local_addr();
    let serving = tokio::spawn(server.serve(move |mut call: Call| {
        let (bot, ended) = (bot.clone(), ended.clone());
        let reported = Arc::clone(&reported);
        let session = Session::new(&call)
            .on_event(move |event| reported.lock().unwrap().push(event))
            .tools(tools.clone());
        async move {
            let end = bot.run(&mut call, session).await;
            let _ = ended.send(end);
        }
    }));
    let caller = place(Caller::new(address).say(Voice::Ramp(1)));
    let record = tokio::task::spawn_blocking(move || caller.call())
        .await
        .unwrap()
        .unwrap();
    let end = ends.recv().await.unwrap();
    serving.abort();
    let events = std::mem::take(&mut *events.lock().unwrap());
    let asked = std::mem::take(&mut *asked.0.lock().unwrap());
    Talked {
        service,
        end,
        events,
        asked,
        record,
    }
}

/// Ten interruptions, each later in its answer than the one before, and then an answer that is heard to its end.
fn ten_interruptions() -> Script {
    let turns = (0..10).map(|number| Turn {
        after: ms(240 + 61 * number),
        speech: ms(140),
        answer: match number {
            9 => Answer::Speech(ms(400)),
            _ => Answer::Speech(ms(5000)),
        },
    });
    Script {
        turns: turns.collect(),
        requested: [Answer::Speech(ms(5000))].into(),
        ..Script::default()
    }
}

impl Talked {
    /// What the client sent, of this type.
    fn sent(&self, kind: &str) -> Vec<Value> {
        let log = self.service.log().into_iter();
        let sent = log.filter(|it| it.from_client && it.message["type"] == kind);
        sent.map(|it| it.message).collect()
    }

    fn complaints(&self) -> Vec<&BotEvent> {
        let events = self.events.iter();
        events
            .filter(|it| matches!(it, BotEvent::Complaint(_)))
            .collect()
    }
}

/// The milliseconds of speech that a caller heard, by its samples' bits.
fn heard_ms(record: &CallRecord, law: Law, speech: &Speech) -> u64 {
    let mut samples = Vec::new();
    law.decode(&speech.audio, &mut samples);
    let runs = record.find(&samples);
    // All of it from its beginning on, in one piece.
    let end = runs.iter().fold(0, |end, run| {
        assert!(run.source <= end + 8, "{runs:?}");
        run.source + run.length
    });
    end as u64 / 8
}

/// The milliseconds of speech that a caller heard, by its samples' levels.
fn heard_of_level(record: &CallRecord, levels: Range<i16>) -> u64 {
    let samples = record.heard_samples().iter();
    let of_level = samples.filter(|it| levels.contains(it)).count();
    of_level as u64 * 1000 / u64::from(record.codec.rate().hz())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_ten_interruptions_is_truncated_at_what_was_heard() {
    for interruption in [Interruption::ByService, Interruption::ByClient] {
        let bot = openai().speaks_first(true).interruption(interruption);
        let talked = talk(bot, ten_interruptions(), |it| it.hang_up_after(ms(8500))).await;
        assert_eq!(
            talked.service.refusals(),
            [] as [Value; 0],
            "{interruption:?}"
        );
        assert_eq!(
            talked.complaints(),
            [] as [&BotEvent; 0],
            "{interruption:?}"
        );
        assert!(
            matches!(talked.end, Ok(BotEnd::Call(_))),
            "{:?}",
            talked.end
        );
        let speeches = talked.service.speeches();
        assert_eq!(speeches.len(), 11, "{interruption:?}");
        for (number, speech) in speeches.iter().enumerate() {
            let heard = heard_ms(&talked.record, Law::Ulaw, speech);
            match speech.truncated_ms {
                Some(truncated) => assert!(
                    heard.abs_diff(truncated) <= TOLERANCE_MS && heard > 0 && number < 10,
                    "{number}: {heard} ms were heard, {truncated} ms told"
                ),
                // The last one.
                None => assert_eq!((number, heard), (10, 400)),
            }
        }
        // What the service would not stop by itself.
        let cancelled = talked.sent("response.cancel").len();
        assert_eq!(cancelled > 0, interruption == Interruption::ByClient);
        // The caller's audio reached it as it was sent.
        let mut input = Vec::new();
        Law::Ulaw.decode(&talked.service.input(), &mut input);
        let (mut codes, mut said) = (Vec::new(), Vec::new());
        Law::Ulaw.encode(talked.record.sent_samples(), &mut codes);
        Law::Ulaw.decode(&codes, &mut said);
        let same: usize = exact_runs(&said, &input).iter().map(|it| it.length).sum();
        assert!(
            same > input.len() * 9 / 10,
            "{same} of {} samples",
            input.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wideband_call_is_truncated_at_what_was_heard() {
    let mut script = ten_interruptions();
    script.turns.truncate(3);
    let bot = openai().speaks_first(true);
    let place = |it: Caller| it.codec(Codec::Slin(Rate::Slin16)).hang_up_after(ms(1800));
    let talked = talk(bot, script, place).await;
    assert_eq!(talked.service.refusals(), [] as [Value; 0]);
    let settings = &talked.sent("session.update")[0]["session"]["audio"];
    assert_eq!(settings["output"]["format"]["rate"], 24_000);
    let speeches = talked.service.speeches();
    assert_eq!(speeches.len(), 4);
    for (number, speech) in speeches[..3].iter().enumerate() {
        // A level of its own, more or less where it begins and ends.
        let level = 1000 + 500 * number as i16;
        let heard = heard_of_level(&talked.record, level - 200..level + 200);
        let truncated = speech.truncated_ms.unwrap();
        let difference = heard.abs_diff(truncated);
        assert!(
            difference <= TOLERANCE_MS,
            "{number}: {heard} ms were heard, {truncated} ms told"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_a_law_call_is_not_transcoded() {
    let bot = openai().speaks_first(true);
    let script = Script {
        requested: [Answer::Speech(ms(400))].into(),
        ..Script::default()
    };
    let place = |it: Caller| it.codec(Codec::Alaw).hang_up_after(ms(1500));
    let talked = talk_with("sk-test", sidetone::Codec::Alaw, bot, script, place).await;
    let settings = &talked.sent("session.update")[0]["session"]["audio"];
    for side in ["input", "output"] {
        assert_eq!(settings[side]["format"]["type"], "audio/pcma");
    }
    assert_eq!(
        heard_ms(&talked.record, Law::Alaw, &talked.service.speeches()[0]),
        400
    );
    let mut codes = Vec::new();
    Law::Alaw.encode(talked.record.sent_samples(), &mut codes);
    let input = talked.service.input();
    let at = codes
        .windows(160)
        .position(|it| *it == input[..160])
        .unwrap();
    let same = codes[at..]
        .iter()
        .zip(&input)
        .take_while(|(sent, came)| sent == came);
    assert!(same.count() > 160);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_says_goodbye_and_hangs_up() {
    let script = Script {
        requested: [Answer::Call(ms(700), "hang_up", "{}")].into(),
        ..Script::default()
    };
    let bot = openai().speaks_first(true).allow_hang_up();
    let talked = talk(bot, script, |it| it.hang_up_after(ms(10_000))).await;
    assert_eq!(talked.end, Ok(BotEnd::Bot));
    let speeches = talked.service.speeches();
    assert_eq!(heard_ms(&talked.record, Law::Ulaw, &speeches[0]), 700);
    let transcript = talked.events.iter().find_map(|it| match it {
        BotEvent::Transcript(it) => Some((it.speaker, it.text.as_str())),
        _ => None,
    });
    assert_eq!(transcript, Some((Speaker::Bot, "word word")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_transfers_the_caller() {
    let script = Script {
        requested: [
            Answer::Call(ms(100), "weather", r#"{"at":"Oslo"}"#),
            Answer::Call(ms(300), "transfer", r#"{"to":"100"}"#),
        ]
        .into(),
        ..Script::default()
    };
    let bot = openai()
        .speaks_first(true)
        .tools(r#"[{"name": "weather"}]"#)
        .unwrap()
        .allow_transfer("100 is sales");
    let talked = talk(bot, script, |it| it.hang_up_after(ms(10_000))).await;
    assert_eq!(talked.end, Ok(BotEnd::Bot));
    assert_eq!(talked.service.refusals(), [] as [Value; 0]);
    let asked = talked
        .asked
        .iter()
        .map(|(name, arguments)| (name.as_str(), arguments.as_str()));
    let expected = [
        ("weather", r#"{"at":"Oslo"}"#),
        ("transfer", r#"{"to":"100"}"#),
    ];
    assert_eq!(asked.collect::<Vec<_>>(), expected);
    assert_eq!(
        talked.sent("conversation.item.create")[0]["item"]["output"],
        "done"
    );
    let speeches = talked.service.speeches();
    assert_eq!(heard_ms(&talked.record, Law::Ulaw, &speeches[1]), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_go_on_is_a_failure_by_name() {
    let failing = |code| Script {
        requested: [Answer::Failure(code), Answer::Failure(code)].into(),
        ..Script::default()
    };
    let expiring = Script {
        expires_after: ms(200),
        ..Script::default()
    };
    let bot = || openai().speaks_first(true);
    let cases = [
        (bot(), expiring, "expired"),
        (bot(), failing("rate_limit_exceeded"), "rate_limited"),
        (bot(), failing("insufficient_quota"), "rejected"),
        (bot(), failing("server_error"), "rejected"),
        (bot().voice("nobody"), Script::default(), "rejected"),
    ];
    for (bot, script, kind) in cases {
        let talked = talk(bot, script, |it| it.hang_up_after(ms(10_000))).await;
        assert_eq!(talked.end.unwrap_err().kind(), kind);
    }
    let codec = sidetone::Codec::default();
    let talked = talk_with("sk-other", codec, bot(), Script::default(), |it| it).await;
    assert!(matches!(
        talked.end,
        Err(BotFailure::Refused { status: 401, .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn digits_interrupt_and_are_answered() {
    let script = Script {
        requested: [Answer::Speech(ms(5000)), Answer::Speech(ms(300))].into(),
        ..Script::default()
    };
    let bot = openai().speaks_first(true).answers_digits(true);
    let talked = talk(bot, script, |it| {
        it.dtmf("5", ms(600)).hang_up_after(ms(2000))
    })
    .await;
    assert_eq!(talked.service.refusals(), [] as [Value; 0]);
    let speeches = talked.service.speeches();
    let heard = heard_ms(&talked.record, Law::Ulaw, &speeches[0]);
    assert!(heard.abs_diff(speeches[0].truncated_ms.unwrap()) <= TOLERANCE_MS);
    assert_eq!(heard_ms(&talked.record, Law::Ulaw, &speeches[1]), 300);
    let text = &talked.sent("conversation.item.create")[0]["item"]["content"][0]["text"];
    assert_eq!(text, "The caller pressed 5");
}
