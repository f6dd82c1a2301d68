//! Bots that a test writes, and calls with them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sidetone::{Call, Codec, Server, Uuid};
use sidetone_audio::g711::Law;
use sidetone_bot::{
    Bot, BotEnd, BotEvent, BotFailure, Endpoint, Session,
    dialect::{Dialect, Twilio},
};
use sidetone_caller::{CallRecord, Caller, Event, Run, call_all, exact_runs, ramp};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_websockets::{Config, Message, ServerBuilder as WebSocketBuilder, WebSocketStream};

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a call came to.
pub(crate) struct Outcome {
    pub(crate) record: CallRecord,
    pub(crate) result: Result<BotEnd, BotFailure>,
    pub(crate) events: Vec<BotEvent>,
}

impl Outcome {
    /// After the bot had failed, the call was its handler's own: what was played then was heard whole, and the call was ended.
    #[track_caller]
    pub(crate) fn assert_call_went_on(&self) {
        let heard = only(self.record.find(&failure_sound()));
        assert_eq!(heard.length, failure_sound().len());
        assert!(
            !self.record.ended.cause.is_fault(),
            "{:?}",
            self.record.ended
        );
    }

    #[track_caller]
    pub(crate) fn failure(&self) -> &BotFailure {
        self.assert_call_went_on();
        self.result.as_ref().unwrap_err()
    }

    pub(crate) fn complaints(&self) -> Vec<&str> {
        let mut complaints = Vec::new();
        for event in &self.events {
            if let BotEvent::Complaint(text) = event {
                complaints.push(text.as_str());
            }
        }
        complaints
    }
}

/// The one stretch in which something was heard.
#[track_caller]
pub(crate) fn only(runs: Vec<Run>) -> Run {
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0]
}

/// All but silence.
pub(crate) fn sounding(samples: &[i16]) -> Vec<i16> {
    samples.iter().copied().filter(|it| *it != 0).collect()
}

/// The caller heard this once and whole, perhaps with silence between pieces that the bot sent late.
#[track_caller]
pub(crate) fn assert_heard(record: &CallRecord, said: &[i16]) {
    let said = sounding(said);
    let heard = only(exact_runs(&said, &sounding(record.heard_samples())));
    assert_eq!((heard.source, heard.length), (0, said.len()));
}

/// What a caller hears after a bot has failed.
pub(crate) fn failure_sound() -> Vec<i16> {
    ramp(99, 0, 800)
}

/// So many samples at 8 kHz that µ-law changes nothing of.
pub(crate) fn speech(seed: u64, samples: usize) -> Vec<i16> {
    let (mut bytes, mut heard) = (Vec::new(), Vec::new());
    Law::Ulaw.encode(&ramp(seed, 0, samples), &mut bytes);
    Law::Ulaw.decode(&bytes, &mut heard);
    heard
}

/// One call with a bot.
pub(crate) async fn call_with(bot: Bot) -> Outcome {
    call_as(bot, |caller| caller).await
}

/// One call with a bot, from a caller with settings.
pub(crate) async fn call_as(
    bot: Bot,
    settings: impl FnOnce(Caller) -> Caller + Send + 'static,
) -> Outcome {
    let outcomes = Calls::default().with(bot, settings).run().await;
    outcomes.into_iter().next().unwrap()
}

type Settings = Box<dyn FnOnce(Caller) -> Caller + Send>;
type Watch = Arc<dyn Fn(&BotEvent) + Send + Sync>;
type Report = (u128, Result<BotEnd, BotFailure>, Vec<BotEvent>);

/// Calls at the same time, each with a bot.
#[derive(Default)]
pub(crate) struct Calls {
    bots: Vec<Bot>,
    callers: Vec<Settings>,
    codec: Option<Codec>,
    watch: Option<Watch>,
}

impl Calls {
    /// Adds a call. The caller hangs up after a minute unless the settings say otherwise.
    pub(crate) fn with(
        mut self,
        bot: Bot,
        settings: impl FnOnce(Caller) -> Caller + Send + 'static,
    ) -> Self {
        self.bots.push(bot);
        self.callers.push(Box::new(settings));
        self
    }

    /// What the server takes for the callers' codec.
    pub(crate) fn codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// Calls `watch` with each event of a bot, when it happens.
    pub(crate) fn watch(mut self, watch: impl Fn(&BotEvent) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// Makes the calls and waits for their end.
    pub(crate) async fn run(self) -> Vec<Outcome> {
        let Self {
            bots,
            callers,
            codec,
            watch,
        } = self;
        let reports = Arc::<Mutex<Vec<Report>>>::default();
        let reported = Arc::clone(&reports);
        let settings = Server::builder().codec(codec.unwrap_or_default());
        let server = settings.bind("127.0.0.1:0").await.unwrap();
        let (address, handle) = (server.local_addr(), server.handle());
        let serving = tokio::spawn(server.serve(move |mut call: Call| {
            let (reported, watch) = (Arc::clone(&reported), watch.clone());
            let bot = bots[call.id().as_u128() as usize].clone();
            async move {
                let report = answer(bot, &mut call, watch).await;
                reported.lock().unwrap().push(report);
            }
        }));
        let callers = callers.into_iter().enumerate().map(|(number, settings)| {
            let caller = Caller::new(address).uuid(Uuid::from_u128(number as u128));
            settings(caller.hang_up_after(Duration::from_secs(60)))
        });
        let callers: Vec<_> = callers.collect();
        let records = tokio::task::spawn_blocking(move || call_all(callers));
        let records = records.await.unwrap();
        // Those whose caller hung up first may still say goodbye.
        handle.shutdown(Duration::from_secs(5));
        serving.await.unwrap().unwrap();
        let mut reports = std::mem::take(&mut *reports.lock().unwrap());
        reports.sort_by_key(|(number, ..)| *number);
        assert_eq!(reports.len(), records.len());
        let both = records.into_iter().zip(reports);
        let outcome = |(record, (_, result, events)): (Result<CallRecord, _>, Report)| Outcome {
            record: record.unwrap(),
            result,
            events,
        };
        both.map(outcome).collect()
    }
}

/// Gives a call to a bot, and plays what a caller hears when that fails.
async fn answer(bot: Bot, call: &mut Call, watch: Option<Watch>) -> Report {
    let events = Arc::<Mutex<Vec<BotEvent>>>::default();
    let noted = Arc::clone(&events);
    let session = Session::new(call)
        .param("from", "+4930123")
        .on_event(move |event| {
            if let Some(watch) = &watch {
                watch(&event);
            }
            noted.lock().unwrap().push(event);
        });
    let result = bot.run(call, session).await;
    if result.is_err() {
        let mut player = call.player(8_000).unwrap();
        player.play(&failure_sound()).await.unwrap();
        player.drained().await.unwrap();
    }
    let events = events.lock().unwrap().clone();
    (call.id().as_u128(), result, events)
}

/// What a caller has heard so far, in samples.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hearing {
    /// Samples that were not silent.
    pub(crate) sounding: usize,
    /// Silent samples since the last one of them.
    pub(crate) silent: usize,
}

/// A caller's settings with which a bot knows what the caller has heard.
pub(crate) fn hearing() -> (
    impl FnOnce(Caller) -> Caller + Send + 'static,
    watch::Receiver<Hearing>,
) {
    let (sender, receiver) = watch::channel(Hearing::default());
    let settings = move |caller: Caller| {
        caller.observe(move |event| {
            if let Event::Heard { samples, .. } = event {
                sender.send_modify(|heard| {
                    for sample in samples {
                        match *sample {
                            0 => heard.silent += 1,
                            _ => {
                                heard.sounding += 1;
                                heard.silent = 0;
                            }
                        }
                    }
                });
            }
        })
    };
    (settings, receiver)
}

/// A listener on loopback, and its address as that of a WebSocket.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/bot", listener.local_addr().unwrap());
    (listener, address)
}

/// A bot at this address.
pub(crate) fn bot_at(address: &str, dialect: impl Dialect) -> Bot {
    Bot::new(Endpoint::new(address).unwrap(), dialect)
}

/// A bot for Twilio, which does `script` on each connection.
pub(crate) async fn twilio<F, Fut>(script: F) -> Bot
where
    F: Fn(Peer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    bot(Twilio::default(), Config::default(), script).await
}

/// A bot, which does `script` on each connection.
pub(crate) async fn bot<F, Fut>(dialect: impl Dialect, config: Config, script: F) -> Bot
where
    F: Fn(Peer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let accepted = WebSocketBuilder::new().config(config).accept(stream).await;
            tokio::spawn(script(Peer(accepted.unwrap().1)));
        }
    });
    bot_at(&address, dialect)
}

/// The bot's end of a connection.
pub(crate) struct Peer(pub(crate) WebSocketStream<TcpStream>);

impl Peer {
    /// Sends text. The call may be over by then.
    pub(crate) async fn send(&mut self, message: Value) {
        let _ = self.0.send(Message::text(message.to_string())).await;
    }

    pub(crate) async fn send_binary(&mut self, bytes: Vec<u8>) {
        let _ = self.0.send(Message::binary(bytes)).await;
    }

    /// Sends audio as Twilio's bots do.
    pub(crate) async fn say(&mut self, samples: &[i16]) {
        self.send(media(samples)).await;
    }

    pub(crate) async fn mark(&mut self, name: &str) {
        self.send(json!({"event": "mark", "mark": {"name": name}}))
            .await;
    }

    pub(crate) async fn clear(&mut self) {
        self.send(json!({"event": "clear"})).await;
    }

    /// The next text, as JSON. `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        while let Some(Ok(message)) = self.0.next().await {
            if let Some(text) = message.as_text() {
                return Some(serde_json::from_str(text).unwrap());
            }
        }
        None
    }

    /// The next message of this event.
    pub(crate) async fn event(&mut self, event: &str) -> Value {
        loop {
            let message = self.next().await.unwrap();
            if message["event"] == event {
                return message;
            }
        }
    }

    /// The name of the next mark.
    pub(crate) async fn reached(&mut self) -> String {
        let mark = self.event("mark").await;
        mark["mark"]["name"].as_str().unwrap().to_owned()
    }

    /// Waits until the caller has said so many frames of 20 ms.
    pub(crate) async fn listen(&mut self, frames: usize) {
        for _ in 0..frames {
            self.event("media").await;
        }
    }

    /// Reads until the connection is over.
    pub(crate) async fn read_all(&mut self) {
        while let Some(Ok(_)) = self.0.next().await {}
    }

    /// Closes with a code, once what the bot has sent was taken.
    pub(crate) async fn close(mut self, code: u16) {
        let code = code.try_into().unwrap();
        let _ = self.0.send(Message::close(Some(code), "enough")).await;
        self.read_all().await;
    }
}

/// Audio as Twilio's bots send it.
pub(crate) fn media(samples: &[i16]) -> Value {
    let mut bytes = Vec::new();
    Law::Ulaw.encode(samples, &mut bytes);
    json!({"event": "media", "media": {"payload": STANDARD.encode(bytes)}})
}
