//! The dialplan lines that the documentation tells people to paste: each is called here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use md5::{Digest, Md5};
use sidetone_lab::ami::Originate;
use sidetone_lab::phone::{Phone, PhoneError, PhoneOptions};
use tokio::net::UdpSocket;

use crate::wire::{Line, Listener, SLIN, SOON};
use crate::{Lab, scenarios};

scenarios![
    the_application,
    dial,
    the_softphone_extension,
    the_softphone_account,
    the_twenty_first_call_finds_the_line_busy,
    an_ordinary_call_is_transcribed,
    a_freepbx_destination_returns,
];

async fn the_application(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (phone, mut line) = dialled(&lab, "100").await?;
    ensure!(line.read_kind(SLIN).await?.len() == 320);
    line.hang_up().await?;
    hung_up(phone).await
}

async fn dial(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (phone, mut line) = dialled(&lab, "101").await?;
    ensure!(line.read_kind(0x12).await?.len() == 640, "16 kHz");
    line.hang_up().await?;
    hung_up(phone).await
}

async fn the_softphone_extension(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (phone, mut line) = dialled(&lab, "9092").await?;
    ensure!(line.read_kind(SLIN).await?.len() == 320);
    line.hang_up().await?;
    hung_up(phone).await
}

async fn the_softphone_account(lab: Arc<Lab>) -> anyhow::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(lab.asterisk.sip()).await?;
    let challenge = register(&socket, 1, "").await?;
    ensure!(challenge.starts_with("SIP/2.0 401"), "{challenge}");
    let part = |name: &str| {
        challenge
            .split(&format!("{name}=\""))
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or("")
    };
    let (realm, nonce) = (part("realm"), part("nonce"));
    let account = hash(&format!("softphone:{realm}:sidetone"));
    let request = hash("REGISTER:sip:127.0.0.1");
    let response = hash(&format!("{account}:{nonce}:00000001:lab:auth:{request}"));
    let proof = format!(
        "Authorization: Digest username=\"softphone\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"sip:127.0.0.1\", \
         response=\"{response}\", algorithm=MD5, cnonce=\"lab\", qop=auth, nc=00000001, opaque=\"{}\"\r\n",
        part("opaque")
    );
    let answer = register(&socket, 2, &proof).await?;
    ensure!(answer.starts_with("SIP/2.0 200"), "{answer}");
    Ok(())
}

/// Sends a REGISTER as a softphone does (RFC 3261, 10.2) and answers what comes back.
async fn register(socket: &UdpSocket, number: u32, proof: &str) -> anyhow::Result<String> {
    let here = socket.local_addr()?;
    let request = format!(
        "REGISTER sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {here};branch=z9hG4bKregister{number};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:softphone@127.0.0.1>;tag=a\r\nTo: <sip:softphone@127.0.0.1>\r\nCall-ID: register-{here}\r\n\
         CSeq: {number} REGISTER\r\nContact: <sip:softphone@{here}>\r\n{proof}Content-Length: 0\r\n\r\n"
    );
    socket.send(request.as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let length = tokio::time::timeout(SOON, socket.recv(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn hash(text: &str) -> String {
    Md5::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

async fn the_twenty_first_call_finds_the_line_busy(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = server_of(&lab).await?;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let phone = Phone::call(&lab.asterisk, "102", PhoneOptions::default()).await?;
        calls.push((phone, server.line().await?));
    }
    match Phone::call(&lab.asterisk, "102", PhoneOptions::default()).await {
        Err(PhoneError::Refused { status }) => ensure!(status.starts_with("486"), "{status}"),
        other => bail!("{other:?}"),
    }
    for (phone, line) in calls {
        line.hang_up().await?;
        hung_up(phone).await?;
    }
    Ok(())
}

async fn an_ordinary_call_is_transcribed(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = server_of(&lab).await?;
    // The caller says something only now and then; the other party is a steady tone, well below.
    let phone = Phone::call(&lab.asterisk, "81000", PhoneOptions::default()).await?;
    let mut line = server.line().await?;
    let quieter =
        |heard: &[i16]| heard.iter().filter(|sample| sample.abs() > 1_000).count() > 4_000;
    line.talk(&[], quieter).await?;
    phone.say(&[30_000; 16_000]);
    line.talk(&[], |heard| {
        heard.iter().filter(|sample| **sample > 20_000).count() > 4_000
    })
    .await?;
    ensure!(
        phone.heard().len() > 50,
        "the two parties no longer talk to each other"
    );
    phone.hang_up().await?;
    tokio::time::timeout(SOON, line.read_to_end()).await?
}

async fn a_freepbx_destination_returns(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = server_of(&lab).await?;
    let mut events = lab.ami.events();
    let call =
        Originate::exten("Local/s@lab-freepbx/n", "caller", "tone").variable("__T", "freepbx");
    lab.ami.originate(&call).await?;
    let mut line = server.line().await?;
    ensure!(!line.id.is_nil());
    line.read_kind(SLIN).await?;
    line.hang_up().await?;
    events
        .wait(SOON, |event| event.is_lab("freepbx", "returned"))
        .await?;
    Ok(())
}

/// A server at the address that the recipes take.
async fn server_of(lab: &Lab) -> anyhow::Result<Listener> {
    let server = Listener::bind().await?;
    lab.ami
        .set_global("D", &server.address().to_string())
        .await?;
    Ok(server)
}

/// A phone that dialled a recipe's number, and the server's end of the call.
async fn dialled(lab: &Lab, number: &str) -> anyhow::Result<(Phone, Line)> {
    let server = server_of(lab).await?;
    let phone = Phone::call(&lab.asterisk, number, PhoneOptions::default()).await?;
    Ok((phone, server.line().await?))
}

async fn hung_up(mut phone: Phone) -> anyhow::Result<()> {
    phone.ended(Duration::from_secs(10)).await?;
    Ok(())
}
