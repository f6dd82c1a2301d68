//! Ways in which there is no connection, and what is said about them.

use std::{io, time::Duration};

use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, COOKIE, HOST, SEC_WEBSOCKET_PROTOCOL},
};
use sidetone_websocket::{ConnectError, Endpoint, Request};
use tokio::{join, net::TcpListener};
use tokio_websockets::ServerBuilder;

use crate::support::{connected, listen, respond};

/// What a server that answers every request with `response` is said to do, and what it was asked.
async fn refused(query: &str, request: &Request, response: &str) -> (ConnectError, String) {
    let (listener, address) = listen().await;
    let endpoint = Endpoint::new(&format!("{address}{query}")).unwrap();
    let (connected, asked) = join!(endpoint.connect(request), respond(&listener, response));
    (connected.unwrap_err(), asked)
}

fn response(status: u16, headers: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {len}\r\n{headers}\r\n{body}")
}

fn header(name: HeaderName, value: &str) -> (HeaderName, HeaderValue) {
    (name, HeaderValue::try_from(value).unwrap())
}

fn reason(error: &ConnectError) -> &str {
    let (ConnectError::Refused { reason, .. } | ConnectError::Unavailable { reason }) = error;
    reason
}

#[tokio::test]
async fn a_refusal_has_its_status_and_what_the_service_says() {
    let say = r#"{"error":{"message":"no such bot"}}"#;
    let page = "<html><title>Bad Gateway</title>";
    for (status, body, is_temporary, expected) in [
        (
            200,
            "hello",
            false,
            "not as a WebSocket: is the address right?: hello",
        ),
        (400, say, false, "status 400: no such bot"),
        (401, "", false, "status 401: are the credentials right?"),
        (403, say, false, "are the credentials right?: no such bot"),
        (404, "", false, "is the address right?"),
        (408, "", true, "status 408"),
        (429, "", true, "too many requests"),
        (502, page, true, "status 502: a web page, \"Bad Gateway\""),
    ] {
        let (error, _) = refused("", &Request::default(), &response(status, "", body)).await;
        assert_eq!(error.is_temporary(), is_temporary, "{error}");
        let ConnectError::Refused { status: it, reason } = &error else {
            panic!("{error}");
        };
        assert_eq!(*it, status);
        assert!(reason.ends_with(expected), "{reason}");
        assert_eq!(error.to_string(), *reason);
    }
}

#[tokio::test]
async fn a_redirect_names_its_target() {
    let moved = response(307, "Location: /elsewhere\r\n", "");
    let (error, _) = refused("", &Request::default(), &moved).await;
    assert!(matches!(error, ConnectError::Refused { status: 307, .. }));
    assert!(
        reason(&error).contains("moved to ws://127.0.0.1:"),
        "{error}"
    );
    assert!(reason(&error).contains("/elsewhere;"), "{error}");
}

#[tokio::test]
async fn no_error_and_no_debug_output_shows_a_secret() {
    let secrets = [
        "SECRETKEY",
        "SECRETCOOKIE",
        "SECRETTOKEN",
        "SECRET TOKEN",
        "SECRET%20TOKEN",
    ];
    let request = Request {
        query: "call=7".into(),
        headers: vec![
            header(AUTHORIZATION, "Bearer SECRETKEY"),
            header(COOKIE, "SECRETCOOKIE"),
        ],
        ..Request::default()
    };
    let query = "?token=SECRETTOKEN&other=SECRET%20TOKEN&n=1";
    let all = secrets.join(",");
    let location = format!("Location: /elsewhere{query}\r\n");
    let chosen = "Upgrade: websocket\r\nSec-WebSocket-Accept: SECRETKEY\r\n";
    for response in [
        response(403, "", &format!("not with {all}")),
        response(302, &location, ""),
        response(101, chosen, ""),
        format!("SSH-2.0-{all}\r\n\r\n"),
    ] {
        let (error, asked) = refused(query, &request, &response).await;
        assert!(
            asked.contains(&format!("GET /path{query}&call=7 ")),
            "{asked}"
        );
        assert!(asked.contains("authorization: Bearer SECRETKEY"), "{asked}");
        let shown = format!("{error} {error:?} {request:?}");
        assert!(!shown.contains("SECRET"), "{shown}");
    }
    let endpoint = Endpoint::new("ws://h/path?token=SECRET").unwrap();
    assert_eq!(endpoint.to_string(), "ws://h/path");
    assert_eq!(format!("{endpoint:?}"), "Endpoint(ws://h/path)");
    // What is short is no secret, and stays readable.
    let (error, _) = refused("?n=1", &request, &response(411, "", "11 calls")).await;
    assert!(reason(&error).ends_with("status 411: 11 calls"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_quoted() {
    let (error, _) = refused("", &Request::default(), "SSH-2.0-OpenSSH_9.2\r\n").await;
    assert!(error.is_temporary());
    let expected = "it does not speak WebSocket: SSH-2.0-OpenSSH_9.2";
    assert_eq!(reason(&error), expected);
    for response in ["", "HTTP/1.1 101 Switching Protocols\r\nUpg"] {
        let (error, _) = refused("", &Request::default(), response).await;
        let expected = "it closed the connection without a whole reply";
        assert_eq!(reason(&error), expected);
    }
}

#[tokio::test]
async fn an_unknown_name_and_a_closed_port_are_told_apart() {
    // Too long for DNS, so no server needs to be asked.
    let name = "x".repeat(64);
    let endpoint = Endpoint::new(&format!("ws://{name}.invalid/")).unwrap();
    let error = endpoint.connect(&Request::default()).await.unwrap_err();
    assert!(error.is_temporary());
    assert!(
        reason(&error).starts_with("its name can't be looked up: "),
        "{error}"
    );

    let (listener, address) = listen().await;
    drop(listener);
    let endpoint = Endpoint::new(&address).unwrap();
    let error = endpoint.connect(&Request::default()).await.unwrap_err();
    assert!(reason(&error).starts_with("no connection: "), "{error}");
    let refused = io::Error::from_raw_os_error(111).to_string();
    assert!(reason(&error).ends_with(&refused), "{error}");
}

/// Virtual time advances only while no task has work.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_unavailable_in_time() {
    let (_listener, address) = listen().await;
    let endpoint = Endpoint::new(&address).unwrap();
    for (timeout, expected) in [
        (Duration::from_secs(10), "no reply within 10 s"),
        (Duration::from_millis(1500), "no reply within 1.5 s"),
    ] {
        let request = Request {
            timeout,
            ..Request::default()
        };
        let error = endpoint.connect(&request).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unavailable { .. }));
        assert_eq!(reason(&error), expected);
    }
}

#[tokio::test]
async fn the_longest_timeout_is_no_overflow() {
    let request = Request {
        timeout: Duration::MAX,
        ..Request::default()
    };
    connected(&request).await;
}

async fn connect_to_one_that_speaks(
    subprotocol: Option<&'static str>,
    request: &Request,
) -> (Result<(), ConnectError>, Option<HeaderValue>) {
    let (listener, address) = listen().await;
    let endpoint = Endpoint::new(&address).unwrap();
    let accept = async |listener: TcpListener| {
        let (stream, _) = listener.accept().await.unwrap();
        let mut builder = ServerBuilder::new();
        if let Some(subprotocol) = subprotocol {
            let value = HeaderValue::from_static(subprotocol);
            builder = builder.add_header(SEC_WEBSOCKET_PROTOCOL, value).unwrap();
        }
        let (request, _socket) = builder.accept(stream).await.unwrap();
        request.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned()
    };
    let (connected, asked) = join!(endpoint.connect(request), accept(listener));
    (connected.map(|_| ()), asked)
}

#[tokio::test]
async fn a_subprotocol_is_asked_for_and_no_other_is_accepted() {
    let media = Request {
        subprotocol: Some("media"),
        ..Request::default()
    };
    for answer in [Some("media"), None] {
        let (connected, asked) = connect_to_one_that_speaks(answer, &media).await;
        connected.unwrap();
        assert_eq!(asked.unwrap(), "media");
    }
    for (request, expected) in [
        (media, "it speaks the subprotocol \"chat\", not \"media\""),
        (Request::default(), "which it was not asked for"),
    ] {
        let (connected, _) = connect_to_one_that_speaks(Some("chat"), &request).await;
        let error = connected.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { status: 101, .. }));
        assert!(!error.is_temporary());
        assert!(reason(&error).contains(expected), "{error}");
    }
}

#[tokio::test]
async fn the_headers_of_the_handshake_cannot_be_set() {
    let endpoint = Endpoint::new("ws://127.0.0.1:1").unwrap();
    for name in [HOST, SEC_WEBSOCKET_PROTOCOL] {
        let request = Request {
            headers: vec![header(name.clone(), "x")],
            ..Request::default()
        };
        let error = endpoint.connect(&request).await.unwrap_err();
        let expected = format!("the header {name} belongs to the handshake");
        assert!(reason(&error).contains(&expected), "{error}");
    }
}
