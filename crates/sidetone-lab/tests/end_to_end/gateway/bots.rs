//! Calls of a real Asterisk that the gateway gives to real bots: pipecat, by the protocols of Twilio and Vonage.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use sidetone_audio::g711::Law;
use sidetone_audio::tone::caller_voice;
use sidetone_caller::{Run, exact_runs};
use sidetone_lab::bots::{Bot, Program};
use sidetone_lab::phone::{Packet, Phone, PhoneOptions};
use uuid::Uuid;

use super::{ADMIN, Folder, Gateway, came_to, file, request, until};
use crate::alike::alike_in_pieces;
use crate::phones::{samples, speakable};
use crate::wire::SOON;
use crate::{Lab, scenarios, sound_file};

scenarios![
    pipecat_hears_the_caller_and_knows_of_the_call,
    pipecat_speaks_and_ends_the_call,
    pipecat_ends_the_call_by_twilios_resource,
    a_bot_that_is_away_leaves_the_call_to_the_dialplan,
    pipecat_speaks_wideband_by_vonages_protocol,
    galcymedia_hears_speaks_and_ends_the_call,
    plivos_sdk_hears_speaks_and_is_interrupted,
    the_example_for_pipecat_says_back_what_a_caller_says,
];
scenarios![fn interrupted: a_caller_who_interrupts_pipecat_hears_silence_at_once];

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

/// A gateway whose calls of the route `support` go to a bot.
fn route(dialect: &str, url: &str, more: &str) -> String {
    format!(
        "[route.support]\nbot = {{ dialect = \"{dialect}\", url = \"{url}\"{more} }}\n\
         when_bot_fails = {{ result = \"set,NO_BOT\" }}\n"
    )
}

/// The keys by which a bot is told an account, and signed to.
fn account() -> String {
    format!(", account_sid = \"{ACCOUNT}\", auth_token = {{ file = \"admin.key\" }}")
}

/// A gateway, a bot, and a phone that has called it.
struct Conversation {
    gateway: Gateway,
    bot: Bot,
    phone: Phone,
    id: Uuid,
    /// Where the dialplan's log begins.
    start: usize,
    _folder: Folder,
}

impl Conversation {
    async fn start(lab: &Lab, bot: Bot, number: &str, route: &str) -> anyhow::Result<Self> {
        let folder = Folder::with(lab, &file("", route))?;
        let gateway = Gateway::start(lab, &folder).await?;
        let start = lab.asterisk.log().len();
        let phone = Phone::call(&lab.asterisk, number, PhoneOptions::default()).await?;
        let started = until("the call comes", || gateway.log.all("call.started").pop()).await?;
        let id = started["call"].as_str().context("no UUID")?.parse()?;
        Ok(Self {
            gateway,
            bot,
            phone,
            id,
            start,
            _folder: folder,
        })
    }

    /// Ends the gateway, after a bot that had nothing to complain of.
    async fn end(self) -> anyhow::Result<()> {
        let complaints = self.bot.complaints();
        ensure!(complaints.is_empty(), "{complaints:?}");
        let notices = self.gateway.log.all("call.notice");
        ensure!(notices.is_empty(), "{notices:?}");
        self.gateway.end().await
    }
}

fn heard(packets: &[Packet]) -> Vec<i16> {
    samples(packets, Law::Ulaw)
}

fn total(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.length).sum()
}

async fn pipecat_hears_the_caller_and_knows_of_the_call(lab: Arc<Lab>) -> anyhow::Result<()> {
    let signed = ["--mode", "echo", "--auth-token", ADMIN, "--signed"];
    let bot = Bot::start(Program::PipecatTwilio, &signed).await?;
    let route = route("twilio", &bot.url(), &account());
    let call = Conversation::start(&lab, bot, "104", &route).await?;
    let told = call.bot.event("call").await?;
    ensure!(told["call"] == format!("CA{}", call.id.simple()), "{told}");
    ensure!(told["parameters"]["to"] == "104", "{told}");
    ensure!(call.bot.event("signature").await?["valid"] == true);
    let said = speakable(Law::Ulaw, 5, Duration::from_secs(3));
    call.phone.say(&said);
    call.phone.press("4");
    call.phone.quiet().await;
    let digit = call.bot.event("digit").await?;
    ensure!(digit["digit"] == "4", "{digit}");
    // What is said last is on its way back.
    until("the echo is complete", || {
        let runs = exact_runs(&said, &heard(&call.phone.heard()));
        (total(&runs) * 100 >= said.len() * 95).then_some(())
    })
    .await?;
    call.phone.hang_up().await?;
    call.bot.event("over").await?;
    let (gateway, bot) = (call.gateway, call.bot);
    let ended = gateway.log.event("call.ended", |_| true).await?;
    ensure!(ended["ended_by"] == "caller", "{ended}");
    let complaints = bot.complaints();
    ensure!(complaints.is_empty(), "{complaints:?}");
    gateway.end().await
}

async fn pipecat_speaks_and_ends_the_call(lab: Arc<Lab>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let speech = folder.path().join("speech.wav");
    let spoken = speakable(Law::Ulaw, 6, Duration::from_secs(3));
    sound_file::write(&speech, 8_000, &spoken)?;
    let speech = speech.to_str().context("no name")?;
    let options = ["--mode", "speak", "--file", speech, "--then", "end"];
    let bot = Bot::start(Program::PipecatTwilio, &options).await?;
    let route = route("twilio", &bot.url(), "");
    let mut call = Conversation::start(&lab, bot, "104", &route).await?;
    call.bot.event("over").await?;
    let steps = came_to(
        &lab,
        call.start,
        call.id,
        "result-continue@sidetone-result Playback(",
    )
    .await?;
    ensure!(!steps.is_empty());
    let heard = heard(&call.phone.ended(SOON).await?);
    let runs = exact_runs(&spoken, &heard);
    ensure!(total(&runs) == spoken.len(), "{runs:?} of {}", spoken.len());
    call.end().await
}

async fn pipecat_ends_the_call_by_twilios_resource(lab: Arc<Lab>) -> anyhow::Result<()> {
    // The gateway's address is known when it runs, and the bot's before: it is started by hand.
    let folder = Folder::with(&lab, &file("", &route("twilio", "ws://127.0.0.1:1/ws", "")))?;
    let gateway = Gateway::start(&lab, &folder).await?;
    let rest = format!("http://{}", gateway.http);
    let options = [
        "--mode",
        "hangup",
        "--seconds",
        "1",
        "--rest-url",
        &rest,
        "--auth-token",
        ADMIN,
        "--account-sid",
        ACCOUNT,
    ];
    let bot = Bot::start(Program::PipecatTwilio, &options).await?;
    let with_bot = file("", &route("twilio", &bot.url(), &account()));
    let with_bot = with_bot.replacen("127.0.0.1:0", &gateway.address.to_string(), 1);
    std::fs::write(folder.path("sidetone.toml"), with_bot)?;
    super::signal(&gateway.child, rustix::process::Signal::HUP)?;
    gateway.log.event("reloaded", |_| true).await?;
    let mut phone = Phone::call(&lab.asterisk, "104", PhoneOptions::default()).await?;
    bot.event("leaving").await?;
    let ended = gateway.log.event("call.ended", |_| true).await?;
    ensure!(ended["ended_by"] == "server", "{ended}");
    let control = gateway.log.event("control", |_| true).await?;
    ensure!(control["token"] == "bot of route support", "{control}");
    bot.event("over").await?;
    // It was told that this was well. That the connection is closed when it closes it is what it has asked for.
    let mut complaints = bot.complaints();
    complaints.retain(|it| !it.to_string().contains("while closing the websocket"));
    ensure!(complaints.is_empty(), "{complaints:?}");
    let refused = "/2010-04-01/Accounts/AC1/Calls/CA1.json";
    let (status, _) = request(gateway.http, "GET", refused, None).await?;
    ensure!(status == 401, "{status}");
    phone.ended(SOON).await?;
    gateway.end().await
}

async fn a_bot_that_is_away_leaves_the_call_to_the_dialplan(lab: Arc<Lab>) -> anyhow::Result<()> {
    let away = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await?
        .local_addr()?;
    let route = route("twilio", &format!("ws://{away}/ws"), "");
    let folder = Folder::with(&lab, &file("", &route))?;
    let gateway = Gateway::start(&lab, &folder).await?;
    let start = lab.asterisk.log().len();
    let mut phone = Phone::call(&lab.asterisk, "104", PhoneOptions::default()).await?;
    let started = until("the call comes", || gateway.log.all("call.started").pop()).await?;
    let id: Uuid = started["call"].as_str().context("no UUID")?.parse()?;
    let decided = "result-set@sidetone-result NoOp(the gateway says NO_BOT)";
    came_to(&lab, start, id, decided).await?;
    phone.ended(SOON).await?;
    let notice = gateway.log.event("call.notice", |_| true).await?;
    let text = notice["text"].as_str().unwrap_or_default();
    ensure!(text.starts_with("the bot can't be reached"), "{notice}");
    gateway.end().await
}

async fn pipecat_speaks_wideband_by_vonages_protocol(lab: Arc<Lab>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let speech = folder.path().join("speech.wav");
    let spoken = caller_voice(16_000, Duration::from_secs(2), 3);
    sound_file::write(&speech, 16_000, &spoken)?;
    let speech = speech.to_str().context("no name")?;
    let options = ["--mode", "speak", "--file", speech, "--then", "end"];
    let bot = Bot::start(Program::PipecatVonage, &options).await?;
    let route = route("vonage", &bot.url(), "");
    // 105 is a call with 16 kHz.
    let mut call = Conversation::start(&lab, bot, "105", &route).await?;
    let told = call
        .bot
        .reported(|report| report["message"]["event"] == "websocket:connected")
        .await?;
    ensure!(
        told["message"]["content-type"] == "audio/l16;rate=16000",
        "{told}"
    );
    call.bot.event("over").await?;
    let heard = heard(&call.phone.ended(SOON).await?);
    let narrow = caller_voice(8_000, Duration::from_secs(2), 3);
    let alike = alike_in_pieces(&narrow, &heard, 8_000);
    ensure!(alike > 0.9, "{alike}");
    call.end().await
}

async fn galcymedia_hears_speaks_and_ends_the_call(lab: Arc<Lab>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let speech = folder.path().join("speech.wav");
    let spoken = speakable(Law::Ulaw, 8, Duration::from_secs(3));
    sound_file::write(&speech, 8_000, &spoken)?;
    let speech = speech.to_str().context("no name")?;
    let options = ["--mode", "finish", "--file", speech];
    let bot = Bot::start(Program::Galcymedia, &options).await?;
    let route = route("asterisk", &bot.url(), "");
    let mut call = Conversation::start(&lab, bot, "104", &route).await?;
    let told = call.bot.event("call").await?;
    ensure!(told["variables"]["to"] == "104", "{told}");
    call.phone.press("9");
    let digit = call.bot.event("digit").await?;
    ensure!(digit["digit"] == "9", "{digit}");
    call.bot.event("over").await?;
    let heard = heard(&call.phone.ended(SOON).await?);
    let runs = exact_runs(&spoken, &heard);
    ensure!(total(&runs) == spoken.len(), "{runs:?} of {}", spoken.len());
    call.end().await
}

async fn plivos_sdk_hears_speaks_and_is_interrupted(lab: Arc<Lab>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let speech = folder.path().join("speech.wav");
    let spoken = speakable(Law::Ulaw, 9, Duration::from_secs(20));
    sound_file::write(&speech, 8_000, &spoken)?;
    let speech = speech.to_str().context("no name")?;
    let options = ["--mode", "interrupt", "--file", speech];
    let bot = Bot::start(Program::Plivo, &options).await?;
    let route = route("plivo", &bot.url(), "");
    let call = Conversation::start(&lab, bot, "104", &route).await?;
    until("the bot speaks", || {
        (sound(&call.phone.heard()).len() > 50).then_some(())
    })
    .await?;
    call.phone.press("3");
    call.bot.event("cleared").await?;
    // Most of 20 s was queued. Nothing of it is heard from now on.
    let cleared = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let last = sound(&call.phone.heard()).last().copied();
    let last = last.context("no sound")?.saturating_duration_since(cleared);
    ensure!(
        last < Duration::from_millis(500),
        "sound {last:?} after the clear"
    );
    call.phone.hang_up().await?;
    call.bot.event("over").await?;
    let (gateway, bot) = (call.gateway, call.bot);
    let complaints = bot.complaints();
    ensure!(complaints.is_empty(), "{complaints:?}");
    gateway.end().await
}

async fn the_example_for_pipecat_says_back_what_a_caller_says(lab: Arc<Lab>) -> anyhow::Result<()> {
    let bot = Bot::start(Program::PipecatExample, &[]).await?;
    let route = route("twilio", &bot.url(), "");
    let call = Conversation::start(&lab, bot, "104", &route).await?;
    let said = speakable(Law::Ulaw, 10, Duration::from_secs(2));
    call.phone.say(&said);
    call.phone.press("5");
    until("the echo is complete", || {
        let runs = exact_runs(&said, &heard(&call.phone.heard()));
        (total(&runs) * 100 >= said.len() * 95).then_some(())
    })
    .await?;
    until("the bot knows the digit", || {
        let printed = call.bot.printed();
        printed.contains("the caller pressed 5").then_some(())
    })
    .await?;
    call.phone.hang_up().await?;
    until("the bot is done", || {
        call.bot
            .printed()
            .contains("the call is over")
            .then_some(())
    })
    .await?;
    ensure!(call.bot.printed().contains("'to': '104'"));
    call.gateway.end().await
}

/// The time between a clear and the last sound that was heard of what it cut off.
async fn a_caller_who_interrupts_pipecat_hears_silence_at_once(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let speech = folder.path().join("speech.wav");
    sound_file::write(
        &speech,
        8_000,
        &speakable(Law::Ulaw, 7, Duration::from_secs(20)),
    )?;
    let speech = speech.to_str().context("no name")?;
    let options = ["--mode", "interrupt", "--file", speech];
    let bot = Bot::start(Program::PipecatTwilio, &options).await?;
    let route = route("twilio", &bot.url(), "");
    let call = Conversation::start(&lab, bot, "104", &route).await?;
    until("the bot speaks", || {
        (sound(&call.phone.heard()).len() > 100).then_some(())
    })
    .await?;
    call.phone.press("1");
    let clear = call.bot.event("clear").await?;
    let at = clear["at"].as_f64().context("no time")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let cleared = Instant::now() - (now - Duration::from_secs_f64(at));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let packets = call.phone.heard();
    let last = sound(&packets).last().copied().context("no sound")?;
    // What keeps packets apart besides their own length is this machine's, not ours.
    let spacing = packets.windows(2).map(|pair| pair[1].at - pair[0].at).max();
    let late = spacing
        .unwrap_or_default()
        .saturating_sub(Duration::from_millis(20));
    let silent_after = last.saturating_duration_since(cleared);
    eprintln!("    silent {silent_after:?} after the clear; packets up to {late:?} late");
    ensure!(
        silent_after <= Duration::from_millis(40) + late,
        "{silent_after:?} after the clear, and packets up to {late:?} late"
    );
    call.phone.hang_up().await?;
    Ok(())
}

/// When each packet came that holds more than silence.
fn sound(packets: &[Packet]) -> Vec<Instant> {
    let is_loud = |packet: &&Packet| {
        let mut samples = Vec::new();
        Law::Ulaw.decode(&packet.payload, &mut samples);
        samples.iter().any(|sample| sample.unsigned_abs() > 500)
    };
    packets
        .iter()
        .filter(is_loud)
        .map(|packet| packet.at)
        .collect()
}
