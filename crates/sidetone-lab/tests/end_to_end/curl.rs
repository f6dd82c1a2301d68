//! What a dialplan makes of a web server's answer when it asks with `CURL()`, and how it places a call by such an answer.
//!
//! What `CURL()` of Asterisk 22 does, as far as a server and the author of a dialplan have to know:
//!
//! - **Status.** The value is the body, whatever the status: an error page of a 404 or 503 is taken for the answer, and only an
//!   empty body can be told from one. `CURLOPT(failurecodes)` lists statuses whose body is to be dropped. Redirects are not followed.
//! - **No answer.** A refused connection and a time-out give the empty string and a line in the log; the dialplan goes on. A
//!   time-out *within* the body gives the part that has come, so what it is has to be checked to its end.
//! - **Time.** `CURLOPT(conntimeout)` and `CURLOPT(httptimeout)` are seconds, with fractions. The second covers all of it, name
//!   look-up and connecting included. Its default is 180 s, in which the caller hears nothing. Options hold for the channel they are
//!   set on.
//! - **Blanks.** White space at the end of the body is cut off, so a final newline does no harm; in front and inside it stays.
//! - **Commas in the answer.** `Set(A=${CURL(…)})` keeps commas, quotes, backslashes and equals signs, and evaluates nothing:
//!   `${…}` and `$[…]` stay text. An application splits at commas after the variables are put in: `AudioSocket(${TICKET})` with the
//!   ticket `UUID,HOST:PORT` has two arguments. `CUT(TICKET,\,,1)` and `FIELDQTY(TICKET,\,)` take the comma with a backslash.
//! - **Commas in the question.** What comes after a comma in the address is sent as the body of a POST; `URIENCODE` makes `%2C` of it.
//! - **Headers.** `Set(CURLOPT(httpheader)=Name: value)` adds a header, commas and all, and one of curl's own of that name
//!   gives way. Asterisk's verbose log shows the line with the value filled in, a secret token too.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Redirect;
use axum::routing::{any, get};
use futures_util::{StreamExt, stream};
use sidetone_lab::ami::{Events, Message, Originate};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::wire::{Listener, SOON};
use crate::{Lab, scenarios};

scenarios![
    an_answer_is_its_body_whatever_the_status,
    options_add_headers_and_drop_failures,
    a_ticket_places_its_call,
    without_a_ticket_the_call_goes_elsewhere,
];

/// What is asked for, and the answer that the dialplan has then.
const ANSWERS: [(&str, &str); 12] = [
    ("text/200", "some text"),
    ("text/404", "some text"),
    ("text/503", "some text"),
    ("empty/200", ""),
    ("empty/404", ""),
    ("empty/503", ""),
    ("moved", ""),
    ("late", ""),
    ("cut-short", CUT_SHORT),
    ("dialplan", DIALPLAN),
    ("question?a=b&c=d%2Ce", "GET a=b&c=d%2Ce "),
    ("question?a,b=c", "POST a b=c"),
];

/// What would be something else to a dialplan that evaluates it.
const DIALPLAN: &str = " \"a\",${PATH},$[1 + 1],=b)\\,c;d|e\r\nf";

/// What comes of a longer answer in time.
const CUT_SHORT: &str = "3f0e8a52-7a1c-4b1d-9d55-6b1f4a2c7e90,127.0.0";

async fn an_answer_is_its_body_whatever_the_status(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = WebServer::start("").await?;
    for (path, expected) in ANSWERS {
        let answer = ask(&lab, &server.url(path), "", "").await?;
        ensure!(answer == expected.trim_end(), "{path}: {answer:?}");
    }
    let answer = ask(&lab, &format!("http://{}/", refusing()?), "", "").await?;
    ensure!(answer.is_empty(), "refused: {answer:?}");
    Ok(())
}

async fn options_add_headers_and_drop_failures(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = WebServer::start("").await?;
    for (header, expected) in [
        ("", "*/* and <>"),
        ("Accept: text/plain", "text/plain and <>"),
        ("Authorization: a, \"b\"", "*/* and <a, \"b\">"),
    ] {
        let option = if header.is_empty() { "" } else { "httpheader" };
        let answer = ask(&lab, &server.url("headers"), option, header).await?;
        ensure!(answer == expected, "{header}: {answer}");
    }
    for (path, expected) in [
        ("text/404", ""),
        ("text/503", ""),
        ("text/500", "some text"),
    ] {
        let answer = ask(&lab, &server.url(path), "failurecodes", "404,503").await?;
        ensure!(answer == expected, "{path}: {answer}");
    }
    Ok(())
}

async fn a_ticket_places_its_call(lab: Arc<Lab>) -> anyhow::Result<()> {
    let calls = Listener::bind().await?;
    for way in ["whole", "cut"] {
        let id = Uuid::new_v4();
        let server = WebServer::start(&format!("{id},{}\n", calls.address())).await?;
        let (tag, mut events) = place(&lab, way, &server.url("ticket")).await?;
        let line = calls.line().await?;
        ensure!(line.id == id, "{way}: {}", line.id);
        line.hang_up().await?;
        let event = events.wait(SOON, |event| event.get("tag") == tag).await?;
        ensure!(event.get("where") == "after-app", "{way}: {event:?}");
    }
    Ok(())
}

async fn without_a_ticket_the_call_goes_elsewhere(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = WebServer::start("").await?;
    let paths = [
        "empty/503",
        "text/503",
        "text/200",
        "late",
        "cut-short",
        "dialplan",
    ];
    let mut urls: Vec<String> = paths.into_iter().map(|path| server.url(path)).collect();
    urls.push(format!("http://{}/", refusing()?));
    for url in urls {
        let (tag, mut events) = place(&lab, "whole", &url).await?;
        let event = events.wait(SOON, |event| event.get("tag") == tag).await?;
        ensure!(event.get("where") == "no-ticket", "{url}: {event:?}");
    }
    Ok(())
}

/// What the dialplan has of the answer to one question, asked with an option of `CURL()`.
async fn ask(lab: &Lab, url: &str, option: &str, value: &str) -> anyhow::Result<String> {
    let tag = Uuid::new_v4().to_string();
    // Commas would end a variable of the call.
    for (name, value) in [("A", url), ("N", option), ("V", value)] {
        lab.ami.set_global(name, value).await?;
    }
    let call = Originate::exten("Local/ask@lab-curl/n", "caller", "wait")
        .variable("__W", "0.5")
        .variable("__T", &tag);
    let mut events = lab.ami.events();
    lab.ami.originate(&call).await?;
    let event = events
        .wait(SOON, |event| event.is_lab(&tag, "curl"))
        .await?;
    answer(&event).with_context(|| format!("{url}: {event:?}"))
}

fn answer(event: &Message) -> anyhow::Result<String> {
    let answer = percent_encoding::percent_decode_str(event.get("answer")).decode_utf8()?;
    let fields = if answer.is_empty() {
        0
    } else {
        answer.split(',').count()
    };
    ensure!(
        event.get("fields") == fields.to_string(),
        "FIELDQTY is not {fields}"
    );
    Ok(answer.into_owned())
}

/// A call that asks there for its ticket, and what the dialplan tells under its tag.
async fn place(lab: &Lab, way: &str, url: &str) -> anyhow::Result<(String, Events)> {
    let tag = Uuid::new_v4().to_string();
    let call = Originate::exten(
        &format!("Local/ticket-{way}@lab-ticket/n"),
        "caller",
        "wait",
    )
    .variable("__A", url)
    .variable("__S", "30")
    .variable("__T", &tag);
    let events = lab.ami.events();
    lab.ami.originate(&call).await?;
    Ok((tag, events))
}

/// An address at which nobody listens.
fn refusing() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Gives answers of every kind, until dropped.
struct WebServer {
    address: SocketAddr,
    task: AbortHandle,
}

impl WebServer {
    async fn start(ticket: &str) -> anyhow::Result<Self> {
        let ticket = ticket.to_owned();
        let status = |text: &'static str| {
            get(async move |Path(status): Path<u16>| {
                StatusCode::from_u16(status)
                    .map(|status| (status, text))
                    .unwrap()
            })
        };
        let cut_short = async || {
            let part = stream::iter([Ok::<_, std::io::Error>(Bytes::from(CUT_SHORT))]);
            Body::from_stream(part.chain(stream::pending()))
        };
        let router = Router::new()
            .route("/ticket", get(async || ticket))
            .route("/text/{status}", status("some text"))
            .route("/empty/{status}", status(""))
            .route("/moved", get(async || Redirect::to("/text/200")))
            .route("/late", get(std::future::pending::<()>))
            .route("/cut-short", get(cut_short))
            .route("/dialplan", get(async || format!("{DIALPLAN}\r\n\n ")))
            .route("/question", any(question))
            .route("/headers", get(headers));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { address, task })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn question(method: Method, RawQuery(query): RawQuery, body: String) -> String {
    format!("{method} {} {body}", query.unwrap_or_default())
}

async fn headers(headers: HeaderMap) -> String {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let [accept, authorization] = ["accept", "authorization"].map(|name| value(name).unwrap_or(""));
    format!("{accept} and <{authorization}>")
}
