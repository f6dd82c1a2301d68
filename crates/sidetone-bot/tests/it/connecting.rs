//! The way to a bot, and what a caller hears meanwhile.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use sidetone::Clip;
use sidetone_bot::{BotEvent, BotFailure, Endpoint, dialect::Twilio};
use sidetone_caller::{Event, ramp};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use tokio_websockets::ServerBuilder;

use crate::support::{Peer, bot_at, call_as, call_with, listen, millis, only, speech};

/// 100 ms.
fn comfort_sound() -> Vec<i16> {
    ramp(5, 0, 800)
}

fn comfort() -> Clip {
    Clip::from_samples(8_000, comfort_sound()).unwrap()
}

#[tokio::test]
async fn a_bot_that_never_answers_is_given_up_and_the_caller_hears_comfort_meanwhile() {
    let (listener, address) = listen().await;
    let accepting = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let bot = bot_at(&address, Twilio::default());
    let bot = bot.connect_within(millis(1_000)).comfort(&comfort());
    let outcome = call_with(bot).await;
    let failure = outcome.failure();
    assert!(
        matches!(failure, BotFailure::Unavailable(text) if text.contains("within 1 s")),
        "{failure}"
    );
    // Over and over, until the failure.
    let runs = outcome.record.find(&comfort_sound());
    let heard: usize = runs.iter().map(|it| it.length).sum();
    assert!(runs.len() >= 5 && heard <= 2 * 8_000, "{runs:?}");
    accepting.abort();
}

#[tokio::test]
async fn comfort_ends_when_the_bot_takes_the_call_and_no_digit_is_lost() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // It is late.
        tokio::time::sleep(millis(500)).await;
        let (_, socket) = ServerBuilder::new().accept(stream).await.unwrap();
        let mut bot = Peer(socket);
        bot.event("start").await;
        bot.say(&speech(1, 1_600)).await;
        for digit in ["1", "#"] {
            assert_eq!(bot.event("dtmf").await["dtmf"]["digit"], digit);
        }
        bot.close(1000).await;
    });
    let bot = bot_at(&address, Twilio::default()).comfort(&comfort());
    let outcome = call_as(bot, |caller| caller.dtmf("1#", millis(100))).await;
    let said = only(outcome.record.find(&speech(1, 1_600)));
    assert_eq!(said.length, 1_600);
    let comfort = outcome.record.find(&comfort_sound());
    assert!(!comfort.is_empty());
    assert!(
        comfort
            .iter()
            .all(|run| run.heard + run.length <= said.heard)
    );
    let digits = outcome
        .events
        .iter()
        .filter(|it| matches!(it, BotEvent::Digit(_)));
    assert_eq!(digits.count(), 2);
    outcome.result.unwrap();
}

#[tokio::test]
async fn a_caller_may_hang_up_while_the_bot_is_awaited() {
    let (listener, address) = listen().await;
    let waiting = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Until it is given up.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let bot = bot_at(&address, Twilio::default()).connect_within(millis(60_000));
    let outcome = call_as(bot, |caller| caller.hang_up_after(millis(300))).await;
    assert!(
        matches!(outcome.result, Ok(sidetone_bot::BotEnd::Call(_))),
        "{:?}",
        outcome.result
    );
    waiting.await.unwrap();
}

#[tokio::test]
async fn a_bot_that_refuses_is_quoted() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let response = "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno thanks";
        stream.write_all(response.as_bytes()).await.unwrap();
    });
    let outcome = call_with(bot_at(&address, Twilio::default())).await;
    match outcome.failure() {
        BotFailure::Refused {
            status: 403,
            reason,
        } => assert!(reason.contains("no thanks"), "{reason}"),
        other => panic!("{other}"),
    }
}

/// The runtime looks names up on threads that it has for blocking work. When these are busy, the answer is late.
#[test]
fn a_name_whose_address_comes_late_is_waited_for_as_long_as_a_bot_may_take() {
    // One of them is for the caller.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (listener, address) = listen().await;
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (_, socket) = ServerBuilder::new().accept(stream).await.unwrap();
            let mut bot = Peer(socket);
            bot.event("start").await;
            bot.say(&speech(1, 1_600)).await;
            bot.close(1000).await;
        });
        let named = address.replace(&format!("127.0.0.1:{port}"), &format!("localhost:{port}"));
        assert_ne!(named, address);
        for is_too_late in [false, true] {
            let (release, released) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || released.recv());
            let bot = bot_at(&named, Twilio::default()).comfort(&comfort());
            let bot = bot.connect_within(millis(if is_too_late { 500 } else { 60_000 }));
            let mut heard = 0;
            let outcome = call_as(bot, move |caller| {
                caller.observe(move |event| {
                    if let Event::Heard { samples, .. } = event {
                        heard += samples.iter().filter(|it| **it != 0).count();
                    }
                    // In the third round of the comfort sound, or never.
                    if !is_too_late && heard > 2 * 800 {
                        let _ = release.send(());
                    }
                })
            })
            .await;
            let heard = outcome.record.find(&comfort_sound());
            assert!(heard.len() >= 2, "{heard:?}");
            match is_too_late {
                true => assert_eq!(outcome.failure().kind(), "unavailable"),
                false => {
                    let said = only(outcome.record.find(&speech(1, 1_600)));
                    assert_eq!(said.length, 1_600);
                    outcome.result.unwrap();
                }
            }
            // It ends with its sender.
            let _ = busy.await.unwrap();
        }
    });
}

#[tokio::test]
async fn nobody_there_and_no_such_name_are_failures_like_others() {
    // Nothing listens on a port that was just given back.
    let (listener, address) = listen().await;
    drop(listener);
    // A name that does not exist, whether that is said at once, late or never.
    for address in [address.as_str(), "ws://bot.invalid/"] {
        let bot = bot_at(address, Twilio::default()).connect_within(millis(1_000));
        let outcome = call_with(bot.comfort(&comfort())).await;
        assert_eq!(outcome.failure().kind(), "unavailable");
        assert!(outcome.failure().is_outage());
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_no_bot() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["bot.example".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(
            TlsAcceptor::from(Arc::new(config))
                .accept(stream)
                .await
                .is_err()
        );
    });
    let endpoint = Endpoint::new(&format!("wss://localhost:{port}/")).unwrap();
    let endpoint = endpoint.with_roots(&roots).unwrap();
    let outcome = call_with(sidetone_bot::Bot::new(endpoint, Twilio::default())).await;
    let failure = outcome.failure();
    assert!(
        matches!(failure, BotFailure::Unavailable(text) if text.contains("TLS")),
        "{failure}"
    );
}
