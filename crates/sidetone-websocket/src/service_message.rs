//! The error message in a service's reply: found, shortened, and cleared of secrets.
//!
//! Every text that this returns is one line of at most 200 characters and an ellipsis, for a log or
//! an operator.

use http::Uri;
use serde_json::Value;

/// The longest message, in characters.
const MAX_CHARS: usize = 200;
/// The JSON fields in which services put it, the likelier ones first.
const FIELDS: [&str; 10] = [
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

/// The message of a reply, as one short line: in JSON the field that holds it, of a web page the title.
/// Each of the `secrets` is replaced, since some services repeat them.
pub fn from_body(body: &[u8], secrets: &[&str]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = match json.as_ref().and_then(find) {
        Some(message) => message.to_owned(),
        None if is_web_page(&text) => describe_web_page(&text),
        None => text.into_owned(),
    };
    one_line(&message, secrets)
}

/// The message in a JSON value, if there is one, as the service wrote it.
pub fn find(json: &Value) -> Option<&str> {
    match json {
        Value::String(text) => Some(text.trim()).filter(|it| !it.is_empty()),
        Value::Array(all) => all.iter().find_map(find),
        Value::Object(fields) => FIELDS
            .iter()
            .filter_map(|field| fields.get(*field))
            .find_map(find),
        _ => None,
    }
}

fn is_web_page(text: &str) -> bool {
    let begin = text.trim_start().get(..5).unwrap_or_default();
    ["<!doc", "<html", "<?xml", "<head"]
        .iter()
        .any(|it| begin.eq_ignore_ascii_case(it))
}

/// A service's text as one short line without secrets.
pub fn one_line(text: &str, secrets: &[&str]) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for secret in secrets.iter().filter(|it| !it.is_empty()) {
        line = line.replace(secret, "…");
    }
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Describes a redirect from `from`, with its target.
pub fn redirect(status: u16, to: Option<&str>, from: &Uri, secrets: &[&str]) -> String {
    let Some(to) = to.map(str::trim).filter(|it| !it.is_empty()) else {
        return format!("status {status}: it has moved, and does not say where to");
    };
    let (scheme, authority) = (from.scheme_str(), from.authority());
    let to = match (scheme, authority) {
        // On the same server.
        (Some(scheme), Some(authority)) if to.starts_with('/') && !to.starts_with("//") => {
            one_line(&format!("{scheme}://{authority}{to}"), secrets)
        }
        _ => one_line(to, secrets),
    };
    format!("status {status}: it has moved to {to}; if you trust that address, use it instead")
}

fn describe_web_page(text: &str) -> String {
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
    fn the_message_is_found_in_every_field() {
        for (body, message) in [
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
            assert_eq!(from_body(body.as_bytes(), &[]), message, "{body}");
        }
    }

    #[test]
    fn a_redirect_names_its_target() {
        let from = Uri::from_static("http://host:8000/v1");
        let described = |to| redirect(308, to, &from, &["key"]);
        assert!(described(Some("/v2?a=key")).contains("to http://host:8000/v2?a=…; if"));
        assert!(described(Some("https://other/v1")).contains("to https://other/v1; if"));
        assert!(described(None).contains("does not say"));
    }

    #[test]
    fn a_message_is_short_and_without_secrets() {
        let message = from_body(format!("key {}", "é".repeat(1000)).as_bytes(), &["key", ""]);
        assert_eq!(message, format!("… {}…", "é".repeat(198)));
        assert_eq!(from_body(b"\xff", &[]), "\u{fffd}");
    }
}
