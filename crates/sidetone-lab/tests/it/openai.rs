//! The dialect of OpenAI's Realtime API and its stand-in, held against the models of OpenAI's own SDK: every message of a conversation
//! in which everything happens, in both directions.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use sidetone::{Call, Rate, Server};
use sidetone_bot::{
    Bot, Endpoint, Session, ToolResult, Tools,
    dialect::{
        OpenAi,
        openai::{Eagerness, Interruption, TurnDetection},
    },
};
use sidetone_caller::{Caller, Codec, Voice};
use sidetone_lab::{
    StartError,
    bots::{Direction, judge_openai},
};
use sidetone_services::realtime::{Answer, Logged, RealtimeServer, Script, Turn};
use tokio::sync::mpsc;

use crate::skip;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct Sunny;

impl Tools for Sunny {
    fn call(&self, name: &str, _arguments: &str) -> ToolResult {
        let output = match name {
            "weather" => Ok("sunny".into()),
            _ => Err("not allowed".into()),
        };
        Box::pin(async { output })
    }
}

fn bot() -> OpenAi {
    OpenAi::new("sk-test", "gpt-realtime")
        .unwrap()
        .voice("marin")
        .instructions("You talk to {from}.")
        .speaks_first(true)
        .answers_digits(true)
        .transcribe("gpt-4o-mini-transcribe", Some("en".into()))
        .tools(r#"[{"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}]"#)
        .unwrap()
        .allow_hang_up()
        .allow_transfer("100 is sales")
}

fn turn(after: u64, answer: Answer) -> Turn {
    Turn {
        after: ms(after),
        speech: ms(100),
        answer,
    }
}

/// All messages of a conversation that a bot ends, or its service.
async fn conversation(
    bot: OpenAi,
    script: Script,
    codec: Codec,
    is_reconnect: bool,
) -> Vec<Logged> {
    let service = RealtimeServer::start("sk-test", script).await.unwrap();
    let endpoint = Endpoint::new(&service.endpoint()).unwrap();
    let mut bot = Bot::new(endpoint, bot);
    if is_reconnect {
        bot = bot.reconnects(1);
    }
    let server = Server::builder().bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let serving = tokio::spawn(server.serve(move |mut call: Call| {
        let (bot, ended) = (bot.clone(), ended.clone());
        let session = Session::new(&call)
            .param("from", "+49 30")
            .tools(std::sync::Arc::new(Sunny));
        async move {
            let _ = ended.send(bot.run(&mut call, session).await);
        }
    }));
    let caller = Caller::new(address)
        .codec(codec)
        .say(Voice::Ramp(1))
        .dtmf("5", ms(900))
        .hang_up_after(ms(15_000));
    let calling = tokio::task::spawn_blocking(move || caller.call());
    let _ = ends.recv().await.unwrap();
    calling.await.unwrap().unwrap();
    serving.abort();
    service.log()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_both_sides_is_one_of_openais() {
    let everything = Script {
        requested: [
            Answer::Speech(ms(5000)),
            Answer::Speech(ms(5000)),
            Answer::Call(ms(100), "transfer", r#"{"to":"666"}"#),
            Answer::Failure("server_error"),
            Answer::Call(ms(100), "hang_up", "{}"),
        ]
        .into(),
        turns: [
            turn(300, Answer::Speech(ms(5000))),
            turn(900, Answer::Call(ms(100), "weather", "{}")),
        ]
        .into(),
        ..Script::default()
    };
    let expiring = Script {
        expires_after: ms(600),
        // It is still at it when the caller interrupts.
        speed: 2,
        turns: [turn(200, Answer::Speech(ms(5000)))].into(),
        ..Script::default()
    };
    let by_meaning = TurnDetection::Meaning {
        eagerness: Some(Eagerness::High),
    };
    let by_silence = TurnDetection::Silence {
        threshold: Some(0.6),
        prefix_padding: Some(ms(300)),
        silence: Some(ms(500)),
        idle_timeout: Some(ms(6000)),
    };
    let wideband = bot()
        .turn_detection(by_meaning)
        .unwrap()
        .interruption(Interruption::ByClient);
    let bot = bot().turn_detection(by_silence).unwrap();
    let narrow = Codec::Slin(Rate::Slin);
    let wide = Codec::Slin(Rate::Slin16);
    let mut log = conversation(bot, everything, narrow, false).await;
    log.extend(conversation(wideband, expiring, wide, true).await);

    let kinds: BTreeSet<&str> = log
        .iter()
        .filter_map(|it| it.message["type"].as_str())
        .collect();
    for kind in KINDS {
        assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
    }
    let messages: Vec<(Direction, Value)> = log
        .into_iter()
        .map(|it| match it.from_client {
            true => (Direction::Client, it.message),
            false => (Direction::Server, it.message),
        })
        .collect();
    let verdicts = match judge_openai(&messages).await {
        Ok(verdicts) => verdicts,
        Err(error @ StartError::Fetch(_)) => return skip(&error.to_string()),
        Err(error) => panic!("{error}"),
    };
    for ((direction, message), verdict) in messages.iter().zip(verdicts) {
        let is_sound = verdict.errors.is_empty() && verdict.unknown.is_empty();
        let shown = message.to_string();
        assert!(is_sound, "{direction:?} {shown:.500}: {verdict:?}");
    }
}

/// What has to come about in these conversations.
const KINDS: [&str; 28] = [
    "session.update",
    "input_audio_buffer.append",
    "conversation.item.create",
    "conversation.item.truncate",
    "response.create",
    "response.cancel",
    "session.created",
    "session.updated",
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    "conversation.item.truncated",
    "conversation.item.input_audio_transcription.completed",
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_audio.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.delta",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.done",
    "error",
];
