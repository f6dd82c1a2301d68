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
use sidetone_services::{
    Fault,
    realtime::{Answer, RealtimeServer, Script, Speech, Turn},
};
use tokio::sync::mpsc;
use tokio_websockets::Config;

use crate::support::{bot, call_as};

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

/// A bot, its service and the server of its calls.
struct Setup {
    bot: OpenAi,
    script: Script,
    codec: sidetone::Codec,
    fault: Fault,
    reconnects: u32,
}

impl Setup {
    fn new(bot: OpenAi, script: Script) -> Self {
        Self {
            bot,
            script,
            codec: sidetone::Codec::default(),
            fault: Fault::None,
            reconnects: 0,
        }
    }

    /// Has a caller talk with the bot.
    async fn talk(self, place: impl FnOnce(Caller) -> Caller) -> Talked {
        let service = RealtimeServer::start("sk-test", self.script).await.unwrap();
        service.set(self.fault);
        let endpoint = Endpoint::new(&service.endpoint()).unwrap();
        let bot = Bot::new(endpoint, self.bot).reconnects(self.reconnects);
        let (ended, mut ends) = mpsc::unbounded_channel();
        let events = Arc::<Mutex<Vec<BotEvent>>>::default();
        let asked = Arc::<Asked>::default();
        let (reported, tools) = (Arc::clone(&events), Arc::clone(&asked));
        let server = Server::builder().codec(self.codec);
        let server = server.bind("127.0.0.1:0").await.unwrap();
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
        let record = tokio::task::spawn_blocking(move || caller.call());
        let record = record.await.unwrap().unwrap();
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
}

/// Has a caller talk with a bot.
async fn talk(bot: OpenAi, script: Script, place: impl FnOnce(Caller) -> Caller) -> Talked {
    Setup::new(bot, script).talk(place).await
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

    /// What the service did not take. A response that is over when its cancelling arrives is nobody's fault.
    fn refusals(&self) -> Vec<Value> {
        let mut refusals = self.service.refusals();
        refusals.retain(|it| it["code"] != "response_cancel_not_active");
        refusals
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
    // The service interrupts in the middle of a response and after it, when it spoke as fast as it could.
    let calls = [
        (Interruption::ByService, 10),
        (Interruption::ByService, 50),
        (Interruption::ByClient, 10),
    ];
    let calls = calls.map(|(interruption, speed)| {
        let bot = openai().speaks_first(true).interruption(interruption);
        let script = Script {
            speed,
            ..ten_interruptions()
        };
        let call = tokio::spawn(talk(bot, script, |it| it.hang_up_after(ms(9500))));
        (interruption, call)
    });
    for (interruption, call) in calls {
        let talked = call.await.unwrap();
        assert_eq!(talked.refusals(), [] as [Value; 0]);
        assert_eq!(talked.complaints(), [] as [&BotEvent; 0]);
        assert!(
            matches!(talked.end, Ok(BotEnd::Call(_))),
            "{:?}",
            talked.end
        );
        assert_ten_truncations(&talked);
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

/// Each of ten speeches was cut off and truncated there, and the last one was heard.
fn assert_ten_truncations(talked: &Talked) {
    let speeches = talked.service.speeches();
    assert_eq!(speeches.len(), 11);
    for (number, speech) in speeches.iter().enumerate() {
        let heard = heard_ms(&talked.record, Law::Ulaw, speech);
        match speech.truncated_ms {
            Some(truncated) => assert!(
                heard.abs_diff(truncated) <= TOLERANCE_MS && heard > 0 && number < 10,
                "{number}: {heard} ms were heard, {truncated} ms told"
            ),
            None => assert_eq!((number, heard), (10, 400)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wideband_call_is_truncated_at_what_was_heard() {
    let mut script = ten_interruptions();
    script.turns.truncate(3);
    let bot = openai().speaks_first(true);
    let place = |it: Caller| it.codec(Codec::Slin(Rate::Slin16)).hang_up_after(ms(4000));
    let talked = talk(bot, script, place).await;
    assert_eq!(talked.refusals(), [] as [Value; 0]);
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
    let mut setup = Setup::new(bot, script);
    setup.codec = sidetone::Codec::Alaw;
    let talked = setup.talk(place).await;
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
    assert_eq!(talked.refusals(), [] as [Value; 0]);
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
    let mut setup = Setup::new(bot(), Script::default());
    setup.bot = OpenAi::new("sk-other", "gpt-realtime").unwrap();
    let talked = setup.talk(|it| it).await;
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
    assert_eq!(talked.refusals(), [] as [Value; 0]);
    let speeches = talked.service.speeches();
    let heard = heard_ms(&talked.record, Law::Ulaw, &speeches[0]);
    assert!(heard.abs_diff(speeches[0].truncated_ms.unwrap()) <= TOLERANCE_MS);
    assert_eq!(heard_ms(&talked.record, Law::Ulaw, &speeches[1]), 300);
    let text = &talked.sent("conversation.item.create")[0]["item"]["content"][0]["text"];
    assert_eq!(text, "The caller pressed 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_goes_on_after_its_connection_broke_once() {
    let mut setup = Setup::new(openai(), Script::default());
    setup.fault = Fault::CutAfter(ms(400));
    setup.reconnects = 1;
    let talked = setup.talk(|it| it.hang_up_after(ms(10_000))).await;
    assert!(
        matches!(talked.end, Err(BotFailure::Broken(_))),
        "{:?}",
        talked.end
    );
    assert_eq!(talked.service.connections(), 2);
    assert_eq!(talked.sent("session.update").len(), 2);
    // The one that goes on is told so, and speaks first.
    let [item] = &talked.sent("conversation.item.create")[..] else {
        panic!("{:?}", talked.service.log());
    };
    assert_eq!(item["item"]["role"], "system");
    assert_eq!(talked.sent("response.create").len(), 1);
}

#[tokio::test]
async fn a_service_that_never_takes_the_settings_is_given_up() {
    let bot = bot(openai(), Config::default(), |mut peer| async move {
        peer.read_all().await;
    })
    .await;
    // The caller sends no audio at all.
    let outcome = call_as(bot, |caller| {
        caller.mute_between(Duration::ZERO, ms(60_000))
    })
    .await;
    let failure = outcome.failure();
    assert!(
        matches!(failure, BotFailure::Unavailable(text) if text.contains("its settings within 10 s")),
        "{failure}"
    );
}
