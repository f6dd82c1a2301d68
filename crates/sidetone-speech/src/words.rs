//! What a service says is wrong, in its own words.

use http::Uri;
use serde_json::Value;

/// Up to here, in characters.
const LONGEST: usize = 200;
/// Where services put it, the likelier place first.
const PLACES: [&str; 10] = [
    "error",
    "err_msg",
    "message",
    "detail",
    "description",
    "error_description",
    "reason",
    "msg",
    "err_code",
    "title",
];

/// What an answer says, in one short line: of JSON the message in it, of a web page its title. Nothing of it
/// is one of the `secrets`, which some services repeat.
pub(crate) fn of(body: &[u8], secrets: &[&str]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let said = match json.as_ref().and_then(message) {
        Some(message) => message.to_owned(),
        None if is_page(&text) => page(&text),
        None => text.into_owned(),
    };
    line(&said, secrets)
}

/// The message in what was read as JSON, if there is one.
pub(crate) fn message(json: &Value) -> Option<&str> {
    match json {
        Value::String(text) => Some(text.trim()).filter(|it| !it.is_empty()),
        Value::Array(all) => all.iter().find_map(message),
        Value::Object(fields) => PLACES
            .iter()
            .filter_map(|place| fields.get(*place))
            .find_map(message),
        _ => None,
    }
}

/// Whether this is a page for people, which no service says anything in.
fn is_page(text: &str) -> bool {
    let begin = text.trim_start().get(..5).unwrap_or_default();
    ["<!doc", "<html", "<?xml", "<head"]
        .iter()
        .any(|it| begin.eq_ignore_ascii_case(it))
}

/// A text from a service in one short line without secrets.
pub(crate) fn line(text: &str, secrets: &[&str]) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for secret in secrets.iter().filter(|it| !it.is_empty()) {
        line = line.replace(secret, "…");
    }
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Describes a redirect from `from`, with its target.
pub(crate) fn moved(status: u16, to: Option<&str>, from: &Uri, secrets: &[&str]) -> String {
    let Some(to) = to.map(str::trim).filter(|it| !it.is_empty()) else {
        return format!("status {status}: it has moved, and does not say where to");
    };
    let (scheme, authority) = (from.scheme_str(), from.authority());
    let to = match (scheme, authority) {
        // On the same server.
        (Some(scheme), Some(authority)) if to.starts_with('/') && !to.starts_with("//") => {
            line(&format!("{scheme}://{authority}{to}"), secrets)
        }
        _ => line(to, secrets),
    };
    format!("status {status}: it has moved to {to}: if that can be trusted, give that address")
}

fn page(text: &str) -> String {
    let begin = text.find("<title>").map(|it| it + "<title>".len());
    let title = begin.and_then(|it| text[it..].split('<').next());
    match title.map(str::trim).filter(|it| !it.is_empty()) {
        Some(title) => format!("a web page, \"{title}\""),
        None => "a web page".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_found_wherever_services_put_it() {
        for (body, said) in [
            (
                r#"{"error":{"message":"no such model","code":404}}"#,
                "no such model",
            ),
            (r#"{"error":"no such model"}"#, "no such model"),
            (
                r#"{"detail":[{"loc":["body"],"msg":"no such model"}]}"#,
                "no such model",
            ),
            (
                r#"{"error":true,"message":"no such model"}"#,
                "no such model",
            ),
            (
                r#"{"err_code":"INVALID_AUTH","err_msg":"Invalid credentials.","request_id":"x"}"#,
                "Invalid credentials.",
            ),
            (
                r#"[{"error":{"message":"no such model"}}]"#,
                "no such model",
            ),
            (r#"{"other":1}"#, r#"{"other":1}"#),
            ("no such\n model\n", "no such model"),
            (
                "<html>\n<head><title>502 Bad Gateway</title></head>",
                "a web page, \"502 Bad Gateway\"",
            ),
            ("<!DOCTYPE html><p>", "a web page"),
            ("", ""),
        ] {
            assert_eq!(of(body.as_bytes(), &[]), said, "{body}");
        }
    }

    #[test]
    fn a_move_names_its_target() {
        let from = Uri::from_static("http://host:8000/v1");
        let told = |to| moved(308, to, &from, &["key"]);
        assert!(told(Some("/v2?a=key")).contains("to http://host:8000/v2?a=…: if"));
        assert!(told(Some("https://other/v1")).contains("to https://other/v1: if"));
        assert!(told(None).contains("does not say"));
    }

    #[test]
    fn it_is_short_and_without_secrets() {
        let said = of(format!("key {}", "é".repeat(1000)).as_bytes(), &["key", ""]);
        assert_eq!(said, format!("… {}…", "é".repeat(198)));
        assert_eq!(of(b"\xff", &[]), "\u{fffd}");
    }
}
