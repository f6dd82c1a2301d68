//! The one resource of Twilio's REST API that bots need: a call, to end it or to send it elsewhere.
//!
//! Protocol: Twilio's "Call resource", and the errors of its API.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, RawForm, State, rejection::RawFormRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use uuid::Uuid;

use super::App;
use crate::{
    action::Action,
    call::{RunningCall, rfc3339},
    config::{Route, TwilioAccount},
    event::GatewayEvent,
};

/// The longest `Twiml`, in bytes.
const LONGEST_TWIML: usize = 4000;

/// An error in Twilio's form.
#[derive(Debug)]
pub(super) struct TwilioError {
    status: StatusCode,
    code: u32,
    message: String,
}

impl TwilioError {
    fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn not_found(sid: &str) -> Self {
        let text = format!("The requested resource {sid:.64} was not found: there is no such call");
        Self::new(StatusCode::NOT_FOUND, 20404, text)
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 21218, message)
    }
}

impl IntoResponse for TwilioError {
    fn into_response(self) -> Response {
        let body = json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.status.as_u16(),
        });
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let basic = header::HeaderValue::from_static("Basic realm=\"sidetone\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}

/// A bot's call, in Twilio's form
///
/// The call's SID is `CA` and the digits of its UUID. Basic authentication with the route's `account_sid` and `auth_token`.
#[utoipa::path(
    get, path = "/2010-04-01/Accounts/{account}/Calls/{call}", tag = "twilio",
    params(
        ("account" = String, Path, description = "The account's SID"),
        ("call" = String, Path, description = "The call's SID, and `.json`"),
    ),
    responses((status = OK), (status = UNAUTHORIZED), (status = NOT_FOUND))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path((account, call)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, TwilioError> {
    let call = find(&app, &call, &headers)?;
    Ok(Json(resource(&call, &account, "in-progress")))
}

/// End a bot's call, or send it elsewhere
///
/// `Status=completed` hangs up. `Twiml` with `<Dial>` or `<Hangup/>` sets the result, and ends the call so that the dialplan goes on.
#[utoipa::path(
    post, path = "/2010-04-01/Accounts/{account}/Calls/{call}", tag = "twilio",
    params(
        ("account" = String, Path, description = "The account's SID"),
        ("call" = String, Path, description = "The call's SID, and `.json`"),
    ),
    responses((status = OK), (status = BAD_REQUEST), (status = UNAUTHORIZED), (status = NOT_FOUND))
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Path((account, call)): Path<(String, String)>,
    headers: HeaderMap,
    form: Result<RawForm, RawFormRejection>,
) -> Result<Json<Value>, TwilioError> {
    let call = find(&app, &call, &headers)?;
    let RawForm(form) = form.map_err(|error| TwilioError::bad_request(error.body_text()))?;
    let update = Update::parse(&form)?;
    // Without a result, that of the route stands, also if the bot breaks next.
    let result = update.action.clone().unwrap_or_else(|| call.result());
    call.set_result(result).map_err(TwilioError::bad_request)?;
    let detail = update
        .action
        .map_or(String::new(), |action| action.to_string());
    app.shared.registry.bus.publish(GatewayEvent::Control {
        token: format!("bot of route {}", call.context.route),
        action: "hangup",
        call: Some(call.context.id),
        detail,
    });
    call.hang_up();
    Ok(Json(resource(&call, &account, "completed")))
}

/// The call of this path, if who asks may know of it.
fn find(app: &App, call: &str, headers: &HeaderMap) -> Result<Arc<RunningCall>, TwilioError> {
    let credentials = credentials(headers).unwrap_or_default();
    let is_of = |route: &Route| {
        let bot = route.bot.as_ref();
        let account = bot.and_then(|bot| bot.account.as_ref());
        account.is_some_and(|account| account.is(&credentials))
    };
    let sid = call.strip_suffix(".json").unwrap_or(call);
    let id = sid.strip_prefix("CA").filter(|digits| digits.len() == 32);
    let id = id.and_then(|digits| Uuid::try_parse(digits).ok());
    let running = id.and_then(|id| app.shared.registry.call(id));
    // A call keeps the account that it began with, over a reload of the file.
    if let Some(running) = running.filter(|running| is_of(&running.route)) {
        return Ok(running);
    }
    let config = app.shared.registry.config();
    match config.routes.values().any(|route| is_of(route)) {
        true => Err(TwilioError::not_found(sid)),
        false if !app.access.note_failure() => {
            let text = "Too Many Requests: too many wrong tokens, wait a second";
            Err(TwilioError::new(StatusCode::TOO_MANY_REQUESTS, 20429, text))
        }
        false => {
            let text = "Authenticate: send the route's account_sid and auth_token, by Basic authentication";
            Err(TwilioError::new(StatusCode::UNAUTHORIZED, 20003, text))
        }
    }
}

impl TwilioAccount {
    fn is(&self, (sid, token): &(String, String)) -> bool {
        let is_sid = self.sid.as_ref().is_none_or(|known| known == sid);
        self.auth_token.is(token.as_bytes()) && is_sid
    }
}

/// User and password.
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    scheme
        .eq_ignore_ascii_case("basic")
        .then(|| (user.to_owned(), password.to_owned()))
}

fn resource(call: &RunningCall, account: &str, status: &str) -> Value {
    let context = &call.context;
    let sid = format!("CA{}", context.id.simple());
    json!({
        "sid": sid,
        "account_sid": account,
        "status": status,
        "from": context.params.get("from"),
        "to": context.params.get("to"),
        "direction": "inbound",
        "start_time": rfc3339(context.started),
        "api_version": "2010-04-01",
        "uri": format!("/2010-04-01/Accounts/{account}/Calls/{sid}.json"),
    })
}

/// What is asked of a call: that it ends, and perhaps what its result is.
#[derive(Debug, PartialEq, Eq)]
struct Update {
    action: Option<Action>,
}

impl Update {
    fn parse(form: &[u8]) -> Result<Self, TwilioError> {
        let mut update = None;
        for (name, value) in form_urlencoded::parse(form) {
            let found = match (&*name, &*value) {
                ("Status", "completed" | "canceled") => Self { action: None },
                ("Status", other) => {
                    let text = format!("Status {other:.64} can't be set: only completed can");
                    return Err(TwilioError::bad_request(text));
                }
                ("Twiml", text) => Self {
                    action: Some(twiml(text).map_err(TwilioError::bad_request)?),
                },
                (other, _) => {
                    let text = format!("{other:.64} is not supported here: use Status or Twiml");
                    return Err(TwilioError::bad_request(text));
                }
            };
            if update.replace(found).is_some() {
                let text = "give either Status or Twiml, and once";
                return Err(TwilioError::bad_request(text));
            }
        }
        update.ok_or_else(|| TwilioError::bad_request("give Status=completed, or Twiml"))
    }
}

/// The result that a `<Response>` with one `<Dial>` or `<Hangup>` stands for.
fn twiml(text: &str) -> Result<Action, String> {
    if text.len() > LONGEST_TWIML {
        return Err(format!("Twiml is longer than {LONGEST_TWIML} bytes"));
    }
    let document = roxmltree::Document::parse(text);
    let document = document.map_err(|error| format!("Twiml is not XML: {error}"))?;
    let response = document.root_element();
    if response.tag_name().name() != "Response" {
        return Err("Twiml begins with <Response>".into());
    }
    refuse_attributes(response)?;
    refuse_text(response)?;
    let mut verbs = response.children().filter(roxmltree::Node::is_element);
    let verb = verbs
        .next()
        .ok_or("<Response> has no verb: use <Dial> or <Hangup>")?;
    if let Some(second) = verbs.next() {
        let name = second.tag_name().name();
        return Err(format!(
            "<{name:.64}> can't follow: the call is over for the bot by then"
        ));
    }
    let name = verb.tag_name().name();
    refuse_attributes(verb)?;
    match name {
        "Hangup" => {
            refuse_text(verb)?;
            refuse_elements(verb)?;
            Ok(Action::Hangup)
        }
        "Dial" => format!("dial,{}", dialled(verb)?).parse(),
        other => Err(format!(
            "<{other:.64}> is not supported: use <Dial> or <Hangup>"
        )),
    }
}

/// The extension in `<Dial>`, or in the `<Number>` in it.
fn dialled(dial: roxmltree::Node<'_, '_>) -> Result<String, String> {
    let nouns = dial.children().filter(roxmltree::Node::is_element);
    let nouns: Vec<_> = nouns.collect();
    let number = match *nouns {
        [] => dial,
        [noun] if noun.tag_name().name() == "Number" => {
            // It would be another number beside that in <Number>.
            refuse_text(dial)?;
            refuse_attributes(noun)?;
            refuse_elements(noun)?;
            noun
        }
        [noun] => {
            let name = noun.tag_name().name();
            return Err(format!(
                "<{name:.64}> in <Dial> is not supported: use <Number>"
            ));
        }
        [_, second, ..] => {
            let name = second.tag_name().name();
            return Err(format!(
                "<Dial> takes one number: <{name:.64}> is one too many"
            ));
        }
    };
    Ok(text_of(number).trim().to_owned())
}

/// A comment divides a text.
fn text_of(element: roxmltree::Node<'_, '_>) -> String {
    let texts = element.children().filter(roxmltree::Node::is_text);
    texts.filter_map(|it| it.text()).collect()
}

fn refuse_text(element: roxmltree::Node<'_, '_>) -> Result<(), String> {
    let text = text_of(element);
    match text.trim() {
        "" => Ok(()),
        text => {
            let name = element.tag_name().name();
            Err(format!(
                "the text {text:.64?} in <{name:.64}> has no meaning there"
            ))
        }
    }
}

fn refuse_elements(element: roxmltree::Node<'_, '_>) -> Result<(), String> {
    match element.first_element_child() {
        None => Ok(()),
        Some(child) => {
            let (child, name) = (child.tag_name().name(), element.tag_name().name());
            Err(format!("<{child:.64}> in <{name:.64}> is not supported"))
        }
    }
}

fn refuse_attributes(element: roxmltree::Node<'_, '_>) -> Result<(), String> {
    match element.attributes().next() {
        None => Ok(()),
        Some(attribute) => {
            let (attribute, name) = (attribute.name(), element.tag_name().name());
            Err(format!(
                "the attribute {attribute:.64} of <{name:.64}> is not supported"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn update(form: &str) -> Result<Update, String> {
        Update::parse(form.as_bytes()).map_err(|error| error.message)
    }

    fn with_twiml(twiml: &str) -> Result<Option<Action>, String> {
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("Twiml", twiml)
            .finish();
        update(&form).map(|update| update.action)
    }

    #[test]
    fn a_call_can_be_ended_and_sent_elsewhere() {
        assert_eq!(update("Status=completed"), Ok(Update { action: None }));
        let dial: Action = "dial,+4930123".parse().unwrap();
        for twiml in [
            "<Response><Dial>+4930123</Dial></Response>",
            "<Response><Dial>+4930<!-- Berlin -->123</Dial></Response>",
            "<?xml version=\"1.0\"?>\n<Response>\n <Dial>\n <Number>+4930123</Number></Dial>\n</Response>",
        ] {
            assert_eq!(with_twiml(twiml), Ok(Some(dial.clone())), "{twiml}");
        }
        assert_eq!(
            with_twiml("<Response><Hangup/></Response>"),
            Ok(Some(Action::Hangup))
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let long = format!("<Response><Dial>{}</Dial></Response>", "1".repeat(4000));
        for (twiml, expected) in [
            ("", "not XML"),
            ("<Dial>1</Dial>", "begins with <Response>"),
            ("<Response/>", "no verb"),
            (
                "<Response><Say>hi</Say></Response>",
                "<Say> is not supported",
            ),
            (
                "<Response><Dial>1</Dial><Say>hi</Say></Response>",
                "<Say> can't follow",
            ),
            (
                "<Response><Dial action=\"/x\">1</Dial></Response>",
                "attribute action of <Dial>",
            ),
            (
                "<Response><Dial><Sip>sip:a@b</Sip></Dial></Response>",
                "<Sip>",
            ),
            (
                "<Response><Dial>1<Number>2</Number></Dial></Response>",
                "the text \"1\" in <Dial>",
            ),
            (
                "<Response><Dial><Number>2</Number> 1</Dial></Response>",
                "the text \"1\" in <Dial>",
            ),
            (
                "<Response><Dial><Number>1</Number><Number>2</Number></Dial></Response>",
                "one number: <Number>",
            ),
            (
                "<Response><Dial><Number>1<b/>2</Number></Dial></Response>",
                "<b> in <Number>",
            ),
            (
                "<Response><Dial><Number url=\"/x\">1</Number></Dial></Response>",
                "attribute url of <Number>",
            ),
            (
                "<Response>200<Hangup/></Response>",
                "the text \"200\" in <Response>",
            ),
            (
                "<Response to=\"x\"><Hangup/></Response>",
                "attribute to of <Response>",
            ),
            (
                "<Response><Hangup>200</Hangup></Response>",
                "the text \"200\" in <Hangup>",
            ),
            (
                "<Response><Hangup><Dial>200</Dial></Hangup></Response>",
                "<Dial> in <Hangup>",
            ),
            (
                "<Response><Dial>1,2</Dial></Response>",
                "can't go to a dialplan",
            ),
            (
                "<Response><Dial>${X}</Dial></Response>",
                "can't go to a dialplan",
            ),
            (
                "<Response><Dial></Dial></Response>",
                "can't go to a dialplan",
            ),
            (
                "<!DOCTYPE r [<!ENTITY x \"1\">]><Response><Dial>&x;</Dial></Response>",
                "",
            ),
            (long.as_str(), "longer than"),
        ] {
            let error = with_twiml(twiml).expect_err(twiml);
            assert!(error.contains(expected), "{twiml}: {error}");
        }
        for (form, expected) in [
            ("", "give Status"),
            ("Status=busy", "Status busy"),
            ("Url=http%3A%2F%2Fx", "Url is not supported"),
            ("Status=completed&Status=completed", "once"),
            ("Status=completed&Twiml=x", "not XML"),
        ] {
            let error = update(form).expect_err(form);
            assert!(error.contains(expected), "{form}: {error}");
        }
    }
}
