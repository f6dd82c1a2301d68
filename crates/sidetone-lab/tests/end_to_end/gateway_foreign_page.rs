//! A page of another origin, in a browser of the gateway's machine, tries to use the gateway.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::http::{Method, Uri};
use axum::response::Html;
use serde_json::Value;
use sidetone_caller::{Caller, EndCause, Voice};
use sidetone_lab::Browser;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::gateway_daemon::{Daemon, TOKEN, place, record};
use crate::gateway_page::log_in;
use crate::{Lab, available, scenarios};

scenarios![a_page_of_another_origin_gets_nothing_done];

/// All that a page can do to an address: `arguments` are the address and the UUID of a call. It answers what came of it that the
/// page can read.
const TRICKS: &str = r#"
const [base, call] = arguments;
const within = promise => Promise.race([promise, new Promise(resolve => setTimeout(resolve, 3000))]);
const done = [], tries = [];
const attempt = (by, action) => tries.push(within((async () => { if (await action()) done.push(by); })().catch(() => {})));
const url = (path, by) => `${base}${path}${path.includes("?") ? "&" : "?"}by=${by}`;
const ticket = "/v1/tickets?route=echo";
const of = `/v1/calls/${call}`;
const reads = [ticket, ticket + "&format=dial", "/v1/calls", of, of + "/listen", of + "/result", "/v1/status", "/v1/events",
    "/v1/session", "/metrics", "/openapi.json", "/"];
const writes = [["POST", of + "/hangup", ""], ["POST", of + "/clear", ""], ["POST", of + "/record", '{"action":"start"}'],
    ["POST", of + "/play", '{"file":"a.wav"}'], ["POST", "/v1/drain", '{"deadline_s":0}'], ["PUT", of + "/result", '{"result":"hangup"}'],
    ["DELETE", "/v1/drain", undefined], ["DELETE", "/v1/session", undefined]];
// A page may read its own origin's errors.
const readable = response => response.type === "cors" || response.ok;

for (const mode of ["no-cors", "cors"]) {
    for (const path of reads) {
        for (const method of ["GET", "HEAD"]) {
            const by = `fetch-${mode}-${method}`;
            attempt(by + path, async () => readable(await fetch(url(path, by), { method, mode, credentials: "include" })));
        }
    }
    for (const [method, path, body] of writes) {
        for (const type of ["text/plain", "application/json"]) {
            const by = `fetch-${mode}-${method}`, headers = { "Content-Type": type };
            attempt(by + path, async () => readable(await fetch(url(path, by), { method, mode, body, headers, credentials: "include" })));
        }
    }
}
attempt("preflight", async () => readable(await fetch(url(of + "/hangup", "preflight"),
    { method: "POST", headers: { "X-CSRF-Token": "a", Authorization: "Bearer a" }, credentials: "include" })));

const element = (tag, properties) => Object.assign(document.createElement(tag), properties);
const shown = (by, tag, attribute, path, happens, extra = {}) => attempt(by + path, () => new Promise((resolve, reject) => {
    const made = element(tag, extra);
    for (const event of happens) made.addEventListener(event, () => resolve(true));
    made.addEventListener("error", reject);
    made[attribute] = url(path, by);
    document.body.append(made);
    made.load?.();
}));
for (const path of [ticket, "/v1/calls", of + "/listen", "/"]) {
    shown("img", "img", "src", path, ["load"]);
    shown("script", "script", "src", path, ["load"]);
    shown("style", "link", "href", path, ["load"], { rel: "stylesheet" });
    shown("audio", "audio", "src", path, ["loadedmetadata", "canplay"], { preload: "auto" });
    shown("video", "video", "src", path, ["loadedmetadata", "canplay"], { preload: "auto", crossOrigin: "use-credentials" });
    // An error is shown in a frame, too; what counts is whether it can be read.
    for (const [tag, attribute] of [["iframe", "src"], ["object", "data"], ["embed", "src"]]) {
        attempt(tag + path, async () => {
            const frame = element(tag, { [attribute]: url(path, tag) });
            document.body.append(frame);
            await new Promise(resolve => { frame.onload = frame.onerror = resolve; });
            const text = frame.contentDocument?.body?.innerText ?? "";
            return text !== "" && !text.includes('"status"');
        });
    }
}
let number = 0;
for (const [method, path] of [["GET", ticket], ["POST", ticket], ...writes]) {
    for (const enctype of ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]) {
        const name = `frame-${number++}`, frame = element("iframe", { name });
        const form = element("form", { method: method === "GET" ? "GET" : "POST", enctype, action: url(path, "form"), target: name });
        for (const [key, value] of [["route", "echo"], ["by", "form"], ["_method", method]]) form.append(element("input", { name: key, value }));
        document.body.append(frame, form);
        attempt("form", () => new Promise(resolve => { frame.onload = () => resolve(false); form.submit(); }));
    }
}
attempt("events", () => new Promise((resolve, reject) => {
    const source = new EventSource(url("/v1/events", "events"), { withCredentials: true });
    source.onopen = source.onmessage = () => resolve(true);
    source.onerror = () => { source.close(); reject(); };
}));
attempt("websocket", () => new Promise((resolve, reject) => {
    const socket = new WebSocket(url("/v1/events", "websocket").replace("http:", "ws:"));
    socket.onopen = () => resolve(true);
    socket.onerror = reject;
}));
for (const [, path, body] of writes) navigator.sendBeacon(url(path, "beacon"), body ?? "");
navigator.sendBeacon(url(ticket, "beacon"));
const ping = element("a", { href: "about:blank", target: "_blank", ping: url(of + "/hangup", "ping") });
document.body.append(ping);
return Promise.all(tries).then(() => done);
"#;

/// What of it reaches any server that is not on its guard.
const REACHES: [&str; 19] = [
    "GET fetch-no-cors-GET",
    "HEAD fetch-no-cors-HEAD",
    "GET fetch-cors-GET",
    "HEAD fetch-cors-HEAD",
    "POST fetch-no-cors-POST",
    "POST fetch-cors-POST",
    "OPTIONS fetch-cors-PUT",
    "OPTIONS fetch-cors-DELETE",
    "OPTIONS preflight",
    "GET img",
    "GET script",
    "GET style",
    "GET audio",
    "GET video",
    "GET iframe",
    "GET form",
    "POST form",
    "GET events",
    "POST beacon",
];

async fn a_page_of_another_origin_gets_nothing_done(lab: Arc<Lab>) -> anyhow::Result<()> {
    let Some(browser) = available(Browser::start().await)? else {
        return Ok(());
    };
    // No token may mint tickets, so that everything on this machine may, but for pages.
    let routes =
        "[route.echo]\necho = {}\nresult = \"set,UNTOUCHED\"\n[recording]\ndir = \"recordings\"\n";
    let server = "tickets = \"optional\"\ndefault_route = \"echo\"";
    let gateway = Daemon::start(lab.asterisk.folder(), server, routes).await?;
    let foreign = ForeignSite::start().await?;
    let id = Uuid::new_v4();
    let caller = Caller::new(gateway.address)
        .uuid(id)
        .say(Voice::Ramp(1))
        .hang_up_after(Duration::from_secs(120));
    let call = place(caller);
    gateway.started(id).await?;

    let (port, other) = (gateway.http.port(), foreign.port);
    let ours = ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{port}"));
    // That the tricks are any good is seen where nobody is on guard.
    browser.open(&format!("http://evil.test:{other}/")).await?;
    tricks(&browser, &format!("http://127.0.0.1:{other}"), id).await?;
    let reached = foreign.asked.lock().unwrap().clone();
    for trick in REACHES {
        ensure!(reached.contains(trick), "{trick} is not in {reached:?}");
    }

    // Without a session, and with one, whose cookie is sent to each port of its host.
    for has_session in [false, true] {
        if has_session {
            log_in(&browser, &gateway).await?;
        }
        for (site, base) in [
            ("evil.test", &ours[0]),
            ("evil.test", &ours[1]),
            ("127.0.0.1", &ours[0]),
            ("localhost", &ours[1]),
        ] {
            browser.open(&format!("http://{site}:{other}/")).await?;
            let done = tricks(&browser, base, id).await?;
            let context = format!("{site} at {base}, with a session: {has_session}");
            ensure!(done == Value::Array(vec![]), "{context}: {done}");
            nothing_is_done(&gateway, id).await.context(context)?;
        }
        // A name that led to the page's own server, and leads here now.
        let rebound = format!("http://rebound.test:{port}");
        browser.open(&format!("{rebound}/")).await?;
        let done = tricks(&browser, &rebound, id).await?;
        ensure!(done == Value::Array(vec![]), "rebound: {done}");
        nothing_is_done(&gateway, id).await.context("rebound")?;
        // A link, and a form that leaves its page.
        for script in [
            format!("location.href = '{}/v1/tickets?route=echo'", ours[0]),
            format!(
                "document.body.innerHTML = '<form method=POST action=\"{}/v1/calls/{id}/hangup\"></form>'; document.forms[0].submit()",
                ours[0]
            ),
        ] {
            browser.open(&format!("http://evil.test:{other}/")).await?;
            browser.run(&script, vec![]).await?;
            browser
                .wait("location.hostname === '127.0.0.1' && document.body.innerText.includes('other sites')")
                .await?;
            nothing_is_done(&gateway, id).await.context(script)?;
        }
    }

    // The page itself is still logged in, and does all that: a ticket by the machine's right, and by the session's the end of the call.
    browser.open(&gateway.url("/")).await?;
    let own = "
        const session = await (await fetch('/v1/session')).json();
        const ticket = await fetch('/v1/tickets?route=echo', { credentials: 'omit' });
        const end = await fetch(`/v1/calls/${arguments[0]}/hangup`, { method: 'POST', headers: { 'X-CSRF-Token': session.csrf } });
        return [ticket.status, end.status];";
    let own = format!("return (async (...arguments) => {{ {own} }})(...arguments)");
    let done = browser.run(&own, vec![id.to_string().into()]).await?;
    ensure!(done == serde_json::json!([200, 204]), "{done}");
    let record = record(call).await?;
    ensure!(
        record.ended.cause == EndCause::ServerHungUp,
        "{:?}",
        record.ended
    );
    let metrics = gateway.metrics().await?;
    ensure!(metrics.contains("\nsidetone_tickets_minted_total 1\n"));
    browser.close().await?;
    Ok(())
}

async fn tricks(browser: &Browser, base: &str, call: Uuid) -> anyhow::Result<Value> {
    let arguments = vec![base.into(), call.to_string().into()];
    Ok(browser.run(TRICKS, arguments).await?)
}

/// Checks that no ticket was minted, and that the call is as it was.
async fn nothing_is_done(gateway: &Daemon, id: Uuid) -> anyhow::Result<()> {
    let metrics = gateway.metrics().await?;
    for line in [
        "sidetone_calls 1",
        "sidetone_tickets_minted_total 0",
        "sidetone_draining 0",
        "sidetone_recordings_open 0",
    ] {
        ensure!(
            metrics.lines().any(|it| it == line),
            "not {line}: {metrics}"
        );
    }
    let (status, call) = gateway
        .ask("GET", &format!("/v1/calls/{id}"), Some(TOKEN))
        .await?;
    ensure!(
        status == 200 && call.contains("\"result\":\"set,UNTOUCHED\""),
        "{status} {call}"
    );
    let controlled = gateway.events("control");
    ensure!(controlled.is_empty(), "{controlled:?}");
    Ok(())
}

/// A web server that somebody else controls. It notes what it is asked for.
struct ForeignSite {
    port: u16,
    /// Method, and trick.
    asked: Arc<Mutex<BTreeSet<String>>>,
    task: AbortHandle,
}

impl ForeignSite {
    async fn start() -> anyhow::Result<Self> {
        let asked = Arc::<Mutex<BTreeSet<String>>>::default();
        let noting = Arc::clone(&asked);
        let answer = async move |method: Method, uri: Uri| {
            let query = uri.query().unwrap_or_default();
            let tricks = query.split('&').filter_map(|it| it.strip_prefix("by="));
            for trick in tricks {
                noting.lock().unwrap().insert(format!("{method} {trick}"));
            }
            Html("<!doctype html><body>A page")
        };
        let router = Router::new().fallback(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { port, asked, task })
    }
}

impl Drop for ForeignSite {
    fn drop(&mut self) {
        self.task.abort();
    }
}
