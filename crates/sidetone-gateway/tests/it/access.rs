//! Who may do what.

use serde_json::json;
use uuid::Uuid;

use crate::kit::{ADMIN, Answer, ECHO, OPEN, TestGateway};

/// What needs a token, on loopback too.
fn guarded() -> Vec<(&'static str, String)> {
    let call = |rest: &str| format!("/v1/calls/{}{rest}", Uuid::nil());
    vec![
        ("GET", "/v1/calls".into()),
        ("GET", call("")),
        ("GET", "/v1/status".into()),
        ("GET", "/v1/events".into()),
        ("GET", call("/listen")),
        ("GET", "/metrics".into()),
        ("GET", "/openapi.json".into()),
        ("GET", "/v1/session".into()),
        ("DELETE", "/v1/session".into()),
        ("POST", call("/hangup")),
        ("POST", call("/play")),
        ("POST", call("/clear")),
        ("POST", call("/record")),
        ("PUT", call("/result")),
        ("POST", "/v1/drain".into()),
        ("DELETE", "/v1/drain".into()),
    ]
}

#[test]
fn without_a_token_there_is_health_and_on_loopback_what_dialplans_need() {
    let gateway = TestGateway::start(OPEN, ECHO);
    for (method, path) in guarded() {
        let answer = gateway.request(method, &path, &[], None);
        assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
        for token in ["", "Bearer", "Bearer wrong-secret-of-admin", "Basic YTpi"] {
            let answer = gateway.request(method, &path, &[("authorization", token)], None);
            assert!(
                [401, 429].contains(&answer.status),
                "{method} {path} {token}"
            );
        }
    }
    for path in ["/livez", "/readyz", "/", "/v1/tickets"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_proxy_on_this_machine_speaks_for_others() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let headers = [("x-forwarded-for", "192.0.2.1")];
    let answer = gateway.request("GET", "/v1/tickets", &headers, None);
    assert_eq!((answer.status, answer.body.as_str()), (401, ""));
}

#[test]
fn a_token_may_do_what_the_file_says_and_no_more() {
    let token =
        "[[http.token]]\nname = \"wall\"\nsecret = { file = \"wall.key\" }\nmay = [\"read\"]\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wall.key"), "the-secret-of-the-wall\n").unwrap();
    let gateway = TestGateway::start_in(folder, OPEN, &format!("{token}{ECHO}"));
    let headers = [("authorization", "Bearer the-secret-of-the-wall")];
    let status = |method: &str, path: &str| gateway.request(method, path, &headers, None).status;
    assert_eq!(status("GET", "/v1/calls"), 200);
    assert_eq!(status("GET", "/metrics"), 200);
    assert_eq!(status("DELETE", "/v1/drain"), 403);
    assert_eq!(
        status("POST", &format!("/v1/calls/{}/hangup", Uuid::nil())),
        403
    );
    assert_eq!(
        status("GET", &format!("/v1/calls/{}/listen", Uuid::nil())),
        403
    );
    assert_eq!(status("GET", "/v1/tickets"), 403);
}

fn log_in(gateway: &TestGateway, token: &str) -> Answer {
    gateway.request("POST", "/v1/session", &[], Some(json!({"token": token})))
}

#[test]
fn the_page_logs_in_to_a_session_that_confirms_what_it_changes() {
    let gateway = TestGateway::start(OPEN, ECHO);
    assert_eq!(log_in(&gateway, "not-the-secret-of-admin").status, 401);
    let answer = log_in(&gateway, ADMIN);
    assert_eq!(answer.status, 200);
    let set = answer.headers["set-cookie"].to_str().unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(attribute), "{set}");
    }
    let cookie = set.split(';').next().unwrap();
    let csrf = answer.json()["csrf"].as_str().unwrap().to_owned();
    let with = |method: &str, path: &str, more: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie)], more].concat();
        gateway.request(method, path, &headers, None).status
    };
    assert_eq!(with("GET", "/v1/calls", &[]), 200);
    assert_eq!(with("DELETE", "/v1/drain", &[]), 403);
    assert_eq!(
        with("DELETE", "/v1/drain", &[("x-csrf-token", "guess")]),
        403
    );
    assert_eq!(with("DELETE", "/v1/drain", &[("x-csrf-token", &csrf)]), 204);
    let answer = gateway.request("GET", "/v1/session", &[("cookie", cookie)], None);
    assert_eq!(answer.json()["csrf"], csrf.as_str());
    assert_eq!(answer.json()["may"], json!(["read", "listen", "control"]));
    assert_eq!(
        gateway.event("control", |it| it["action"] == "drain.end")["token"],
        "admin"
    );
}

#[test]
fn a_session_mints_no_ticket_unless_the_page_itself_asks() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.key"), "the-secret-of-all").unwrap();
    let token = "[[http.token]]\nname = \"all\"\nsecret = { file = \"all.key\" }\nmay = [\"tickets\", \"read\"]\n";
    let gateway = TestGateway::start_in(folder, OPEN, &format!("{token}{ECHO}"));
    let answer = log_in(&gateway, "the-secret-of-all");
    let set = answer.headers["set-cookie"].to_str().unwrap();
    let cookie = ("cookie", set.split(';').next().unwrap());
    let csrf = answer.json()["csrf"].as_str().unwrap().to_owned();
    let mint = |headers: &[(&str, &str)]| {
        let answer = gateway.request("GET", "/v1/tickets?route=echo", headers, None);
        answer.status
    };
    // As for an image in a page that another server of this host has; it has no Sec-Fetch-Site on a network without TLS.
    assert_eq!(mint(&[cookie]), 403);
    assert_eq!(mint(&[cookie, ("x-csrf-token", &csrf)]), 200);
}

#[test]
fn wrong_tokens_are_refused_unseen_when_they_come_too_fast() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let refused = (0..200).map(|_| log_in(&gateway, "a-guess-at-the-secret").status);
    let refused: Vec<u16> = refused.collect();
    assert!(refused.iter().all(|status| [401, 429].contains(status)));
    assert!(refused.contains(&429));
}

#[test]
fn foreign_pages_and_names_get_nothing_done() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let foreign = [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ];
    for header in foreign {
        for path in ["/v1/tickets", "/livez", "/"] {
            let answer = gateway.request("GET", path, &[header], None);
            assert_eq!(answer.status, 403, "{header:?} {path}");
        }
    }
    let answer = gateway.request("GET", "/v1/tickets", &[("host", "evil.example")], None);
    assert_eq!(answer.status, 421);
    let status = gateway.admin("GET", "/v1/status", None).json();
    assert_eq!(status["unused_tickets"], 0);
}

#[test]
fn the_page_takes_nothing_from_elsewhere() {
    let gateway = TestGateway::start(OPEN, ECHO);
    let page = gateway.get("/");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["x-frame-options"], "DENY");
}
