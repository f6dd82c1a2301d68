//! Tickets and results: what the documentation's dialplan makes of them, with `AudioSocket()` and with `Dial()`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use sidetone_audio::tone::caller_voice;
use sidetone_caller::{Caller, Voice};
use sidetone_lab::phone::{Phone, PhoneOptions};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Dialplan, Folder, Gateway, Receiver, came_to, file, hook, request, until};
use crate::phones::samples;
use crate::wire::SOON;
use crate::{Lab, scenarios};

scenarios![
    a_ticket_describes_a_call_and_its_result_says_what_comes_next,
    a_call_that_is_not_expected_is_rejected_for_its_reason,
    a_gateway_that_takes_no_call_is_told_before_anything_connects,
];

/// The numbers of the dialplan, the sampling rates of the calls, and how these come to the gateway.
const WAYS: [(&str, u32, &str); 2] = [
    ("104", 8_000, "104@lab-phone AudioSocket("),
    ("105", 16_000, "105@lab-phone Dial(AudioSocket/"),
];

/// Results, and where the dialplan goes for each.
const RESULTS: [(&str, &str); 4] = [
    ("continue", "result-continue@sidetone-result Playback("),
    ("hangup", "result-hangup@sidetone-result Hangup("),
    (
        "dial,1000",
        "result-dial@sidetone-result Dial(Local/1000@party,30)",
    ),
    (
        "set,SOLD",
        "result-set@sidetone-result NoOp(the gateway says SOLD)",
    ),
];

const NO_RESULT: &str = "result-@sidetone-result Hangup(";
const ELSEWHERE: &str = "s@sidetone-elsewhere Playback(";

async fn a_ticket_describes_a_call_and_its_result_says_what_comes_next(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let events = ["call.started", "call.ended", "recording.ended"];
    let route = "[route.support]\necho = {}\nrecord = true\ndial = [\"_1XXX\"]\n";
    let rest = hook(&receiver.url("hooks"), &events) + route;
    let folder = Folder::with(&lab, &file("", &rest))?;
    let gateway = Gateway::start(&lab, &folder).await?;
    let start = lab.asterisk.log().len();
    let mut calls = Vec::new();
    for way in WAYS {
        for result in RESULTS {
            let phone = Phone::call(&lab.asterisk, way.0, PhoneOptions::default()).await?;
            let number = calls.len();
            let started = || gateway.log.all("call.started").get(number).cloned();
            let started = until("the call comes", started).await?;
            let id: Uuid = started["call"].as_str().context("no UUID")?.parse()?;
            calls.push(TicketCall {
                phone,
                id,
                way,
                result,
            });
        }
    }
    let calls = calls
        .into_iter()
        .map(|call| call.go_through(&lab, start, &gateway, &receiver, &folder));
    try_join_all(calls).await?;
    receiver.saw_nothing_wrong()?;
    gateway.end().await
}

/// A phone's call to the gateway, and how it is to end.
struct TicketCall {
    phone: Phone,
    id: Uuid,
    way: (&'static str, u32, &'static str),
    result: (&'static str, &'static str),
}

impl TicketCall {
    async fn go_through(
        mut self,
        lab: &Lab,
        start: usize,
        gateway: &Gateway,
        receiver: &Receiver,
        folder: &Folder,
    ) -> anyhow::Result<()> {
        let id = self.id.to_string();
        self.phone
            .say(&caller_voice(8_000, Duration::from_secs(1), 1));
        self.phone.quiet().await;
        let path = format!("/v1/calls/{id}");
        let result = json!({"result": self.result.0});
        gateway
            .act("PUT", &format!("{path}/result"), Some(result))
            .await?;
        gateway.act("POST", &format!("{path}/hangup"), None).await?;

        let steps = came_to(lab, start, self.id, self.result.1).await?;
        let (_, rate, came_by) = self.way;
        ensure!(
            steps.iter().any(|step| step.starts_with(came_by)),
            "{steps:#?}"
        );
        match self.result.0.starts_with("dial") {
            true => self.hears_a_tone().await?,
            false => drop(self.phone.ended(SOON).await?),
        }

        for kind in ["call.started", "call.ended", "recording.ended"] {
            let logged = gateway.log.event(kind, |data| data["call"] == id).await?;
            let sent = receiver.hook(|hook| hook.kind == kind && hook.data["call"] == id);
            let sent = sent.await?.data;
            ensure!(sent == logged, "{kind}: {sent} is sent, {logged} logged");
            self.is_described(&sent)?;
            ensure!(
                kind != "call.ended" || sent["result"] == self.result.0,
                "{sent}"
            );
        }
        let side_file = std::fs::read(folder.path(&format!("recordings/{id}.json")))?;
        let side_file: Value = serde_json::from_slice(&side_file)?;
        self.is_described(&side_file)?;
        let recording = side_file["recordings"][0]["files"][0].as_str();
        let recording = recording.with_context(|| side_file.to_string())?;
        ensure!(recording.contains(&id), "{recording}");
        has_a_caller(&folder.path("recordings").join(recording), rate)?;
        self.phone.hang_up().await?;
        Ok(())
    }

    /// That this event, or file, has the data of the ticket.
    fn is_described(&self, data: &Value) -> anyhow::Result<()> {
        let params = json!({"from": "phone", "to": self.way.0});
        ensure!(
            data["params"] == params && data["route"] == "support",
            "not {params}: {data}"
        );
        Ok(())
    }

    /// Waits until the party that the dialplan dialled is heard.
    async fn hears_a_tone(&self) -> anyhow::Result<()> {
        let law = PhoneOptions::default().law;
        let has_come = || {
            let heard = self.phone.heard();
            let last = heard.get(heard.len().checked_sub(10)?..)?;
            let is_loud = |sample: &i16| sample.unsigned_abs() > 4_000;
            let loud = samples(last, law).iter().filter(|it| is_loud(it)).count();
            (loud > 500).then_some(())
        };
        until("the tone of the other party", has_come).await
    }
}

/// Opens a recording, in which the caller says something.
pub(super) fn has_a_caller(path: &Path, rate: u32) -> anyhow::Result<()> {
    let mut wav = hound::WavReader::open(path).with_context(|| path.display().to_string())?;
    let spec = wav.spec();
    ensure!(spec.channels == 2 && spec.sample_rate == rate, "{spec:?}");
    let caller = wav.samples::<i16>().step_by(2);
    let caller = caller.collect::<Result<Vec<i16>, _>>()?;
    let loud = caller.iter().filter(|it| it.unsigned_abs() > 1_000).count();
    ensure!(
        loud > caller.len() / 20 && caller.len() > rate as usize / 2,
        "{}: {loud} loud samples of {}",
        path.display(),
        caller.len()
    );
    Ok(())
}

async fn a_call_that_is_not_expected_is_rejected_for_its_reason(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let server = "ticket_lifetime = \"1s\"";
    let rest = "[route.support]\necho = {}\nresult = \"hangup\"\n";
    let folder = Folder::with(&lab, &file(server, rest))?;
    let gateway = Gateway::start(&lab, &folder).await?;
    let unexpected = Unexpected::start(&gateway).await?;
    lab.ami
        .set_global("H", &unexpected.address.to_string())
        .await?;

    unexpected.hand_out(Uuid::new_v4());
    is_rejected(&lab, &gateway, "no_ticket", NO_RESULT).await?;

    let used = mint(&gateway).await?;
    spawn_blocking(caller(&gateway, used, Duration::from_millis(200))).await??;
    unexpected.hand_out(used);
    // The gateway has a result by this UUID, of the call that was let in.
    let result_of_the_first = RESULTS[1].1;
    is_rejected(&lab, &gateway, "ticket_used", result_of_the_first).await?;

    let expired = mint(&gateway).await?;
    sleep(Duration::from_millis(1_100)).await;
    unexpected.hand_out(expired);
    is_rejected(&lab, &gateway, "ticket_expired", NO_RESULT).await?;

    let connected = mint(&gateway).await?;
    let first = spawn_blocking(caller(&gateway, connected, Duration::from_secs(60)));
    let has_come = |data: &Value| data["call"] == connected.to_string();
    gateway.log.event("call.started", has_come).await?;
    unexpected.hand_out(connected);
    is_rejected(&lab, &gateway, "already_connected", NO_RESULT).await?;
    let hangup = format!("/v1/calls/{connected}/hangup");
    gateway.act("POST", &hangup, None).await?;
    first.await??;

    let rejected = &gateway.get("/v1/status").await?["rejected"];
    let each_way = WAYS.len();
    let expected = json!({
        "no_ticket": each_way, "ticket_used": each_way, "ticket_expired": each_way, "already_connected": each_way,
    });
    ensure!(*rejected == expected, "{rejected}");
    ensure!(gateway.log.all("call.started").len() == 2);
    gateway.end().await
}

/// A caller of the gateway without an Asterisk.
fn caller(
    gateway: &Gateway,
    id: Uuid,
    stay: Duration,
) -> impl FnOnce() -> anyhow::Result<()> + Send + 'static {
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .say(Voice::Ramp(1))
        .hang_up_after(stay);
    move || Ok(caller.call().map(drop)?)
}

async fn mint(gateway: &Gateway) -> anyhow::Result<Uuid> {
    let ticket = gateway.ticket("route=support").await?;
    let (id, _) = ticket.split_once(',').context("no comma")?;
    Ok(id.parse()?)
}

/// A phone calls in both ways; the gateway rejects it for this reason, and the dialplan ends with this step.
async fn is_rejected(lab: &Lab, gateway: &Gateway, reason: &str, last: &str) -> anyhow::Result<()> {
    let start = lab.asterisk.log().len();
    let call = async |way: (&'static str, u32, &'static str)| {
        let mut phone = Phone::call(&lab.asterisk, way.0, PhoneOptions::default()).await?;
        phone.ended(SOON).await?;
        anyhow::Ok(())
    };
    try_join_all(WAYS.map(call))
        .await
        .with_context(|| reason.to_owned())?;
    // The log is written a moment later.
    let has_come = || {
        let dialplan = Dialplan::since(lab, start);
        let is_connected = WAYS.iter().all(|way| dialplan.count(way.2) == 1);
        (is_connected && dialplan.count(last) == WAYS.len()).then_some(())
    };
    let came = until("the end of the dialplan", has_come).await;
    came.with_context(|| format!("{reason}, {last}: {:#?}", Dialplan::since(lab, start).0))?;
    let told = gateway.log.all("call.rejected");
    let told = told.iter().filter(|data| data["reason"] == reason).count();
    ensure!(told == WAYS.len(), "{reason} is told {told} times");
    Ok(())
}

/// Stands between the dialplan and the gateway, and hands out tickets that are no good.
struct Unexpected {
    address: SocketAddr,
    ticket: Arc<Mutex<String>>,
    calls: SocketAddr,
    task: AbortHandle,
}

#[derive(Clone)]
struct Behind {
    ticket: Arc<Mutex<String>>,
    http: SocketAddr,
}

impl Unexpected {
    async fn start(gateway: &Gateway) -> anyhow::Result<Self> {
        let ticket = Arc::<Mutex<String>>::default();
        let behind = Behind {
            ticket: Arc::clone(&ticket),
            http: gateway.http,
        };
        let router = Router::new()
            .route("/v1/tickets", get(hand_out))
            .fallback(pass_on)
            .with_state(behind);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async { axum::serve(listener, router).await }).abort_handle();
        Ok(Self {
            address,
            ticket,
            calls: gateway.address,
            task,
        })
    }

    fn hand_out(&self, id: Uuid) {
        let mut ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        *ticket = format!("{id},{}", self.calls);
    }
}

impl Drop for Unexpected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn hand_out(State(behind): State<Behind>, RawQuery(query): RawQuery) -> String {
    let ticket = behind.ticket.lock().unwrap_or_else(PoisonError::into_inner);
    let is_dial = query.is_some_and(|query| query.contains("format=dial"));
    match ticket.split_once(',') {
        Some((id, address)) if is_dial => format!("AudioSocket/{address}/{id}"),
        _ => ticket.clone(),
    }
}

async fn pass_on(State(behind): State<Behind>, uri: Uri) -> (StatusCode, String) {
    let answer = request(behind.http, "GET", uri.path(), None).await;
    let (status, body) = answer.unwrap_or((502, String::new()));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, body)
}

async fn a_gateway_that_takes_no_call_is_told_before_anything_connects(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let rest = "[route.support]\necho = {}\n";
    let folder = Folder::with(&lab, &file("max_calls = 1", rest))?;
    let gateway = Gateway::start(&lab, &folder).await?;
    let deadline = json!({"deadline_s": 60});
    gateway.act("POST", "/v1/drain", Some(deadline)).await?;
    is_not_ready(&gateway, "draining").await?;
    goes_elsewhere(&lab, "draining").await?;
    gateway.act("DELETE", "/v1/drain", None).await?;

    // Its call has the only place.
    mint(&gateway).await?;
    is_not_ready(&gateway, "full").await?;
    goes_elsewhere(&lab, "full").await?;
    ensure!(gateway.log.all("call.rejected").is_empty());

    // What hangs takes what the time-out of the dialplan is.
    let hanging = std::net::TcpListener::bind("127.0.0.1:0")?;
    lab.ami
        .set_global("H", &hanging.local_addr()?.to_string())
        .await?;
    goes_elsewhere(&lab, "hanging").await?;
    let http = gateway.http.to_string();
    gateway.end().await?;
    lab.ami.set_global("H", &http).await?;
    goes_elsewhere(&lab, "away").await
}

async fn is_not_ready(gateway: &Gateway, reason: &str) -> anyhow::Result<()> {
    let status = gateway.get("/v1/status").await?;
    let reasons = &status["not_ready_because"];
    ensure!(*reasons == json!([reason]), "{reasons}");
    Ok(())
}

/// A phone calls in both ways, and the dialplan goes elsewhere without having connected anything.
async fn goes_elsewhere(lab: &Lab, why: &str) -> anyhow::Result<()> {
    let start = lab.asterisk.log().len();
    let call = async |way: (&'static str, u32, &'static str)| {
        let mut phone = Phone::call(&lab.asterisk, way.0, PhoneOptions::default()).await?;
        phone.ended(SOON).await?;
        anyhow::Ok(())
    };
    try_join_all(WAYS.map(call))
        .await
        .with_context(|| why.to_owned())?;
    let are_elsewhere = || {
        let dialplan = Dialplan::since(lab, start);
        (dialplan.count(ELSEWHERE) == WAYS.len()).then_some(dialplan)
    };
    let dialplan = until("both are elsewhere", are_elsewhere).await;
    let dialplan = dialplan.with_context(|| why.to_owned())?;
    let connected = WAYS.map(|way| dialplan.count(way.2));
    ensure!(connected == [0; 2], "{why}: {:#?}", dialplan.0);
    Ok(())
}
