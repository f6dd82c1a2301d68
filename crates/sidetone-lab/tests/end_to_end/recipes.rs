//! The dialplan lines that the documentation tells people to paste: each is called here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use md5::{Digest, Md5};
use sidetone::{CallHandle, Rate, ServerHandle};
use sidetone_audio::tone::caller_voice;
use sidetone_lab::ami::Originate;
use sidetone_lab::phone::{Phone, PhoneError, PhoneOptions};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::alike::{alike, alike_in_pieces};
use crate::hearing::{self, report};
use crate::phones::samples;
use crate::serve::Served;
use crate::wire::SOON;
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
    echoes(&lab, "100", Rate::Slin).await
}

async fn dial(lab: Arc<Lab>) -> anyhow::Result<()> {
    echoes(&lab, "101", Rate::Slin16).await
}

async fn the_softphone_extension(lab: Arc<Lab>) -> anyhow::Result<()> {
    echoes(&lab, "9092", Rate::Slin).await
}

/// A phone dials a recipe's number, hears the echo of what it says, and is hung up by the server.
async fn echoes(lab: &Lab, number: &str, rate: Rate) -> anyhow::Result<()> {
    let server = Served::echo().await?;
    recipes_take(lab, &server).await?;
    let options = PhoneOptions::default();
    let law = options.law;
    let mut phone = Phone::call(&lab.asterisk, number, options).await?;
    let call = next_call(&server.handle, 1).await?;
    let said = caller_voice(8_000, Duration::from_secs(2), 1);
    phone.say(&said);
    phone.quiet().await;
    sleep(Duration::from_secs(1)).await;
    ensure!(call.stats().rate == rate, "{:?}", call.stats().rate);
    call.hang_up();
    let heard = samples(&phone.ended(SOON).await?, law);
    // A live echo may give up a frame to stay close, which moves all behind it.
    let pieces = said.chunks(4_000);
    let alike = pieces.map(|piece| alike(piece, &heard, 8_000));
    let alike: Vec<f64> = alike.collect();
    let good = alike.iter().filter(|likeness| **likeness > 0.95).count();
    ensure!(
        good + 1 >= alike.len(),
        "the pieces of the echo are like what was said to {alike:.3?}"
    );
    Ok(())
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
    let server = Served::echo().await?;
    recipes_take(&lab, &server).await?;
    let call = || Phone::call(&lab.asterisk, "102", PhoneOptions::default());
    let mut phones = Vec::new();
    for number in 1..=20 {
        phones.push(call().await?);
        next_call(&server.handle, number).await?;
    }
    match call().await {
        Err(PhoneError::Refused { status }) => ensure!(status.starts_with("486"), "{status}"),
        other => bail!("{other:?}"),
    }
    let first = server.handle.calls().remove(0);
    first.hang_up();
    first.closed().await;
    // Whose phone that was takes a moment to be told.
    let another = async {
        loop {
            match call().await {
                Err(PhoneError::Refused { .. }) => sleep(Duration::from_millis(50)).await,
                taken => return taken,
            }
        }
    };
    phones.push(
        timeout(SOON, another)
            .await
            .context("the line stays busy")??,
    );
    for phone in phones {
        phone.hang_up().await?;
    }
    Ok(())
}

async fn an_ordinary_call_is_transcribed(lab: Arc<Lab>) -> anyhow::Result<()> {
    let (tell, mut reports) = mpsc::unbounded_channel();
    let handler = hearing::play(Vec::new(), tell);
    let server = Served::start(hearing::builder(), handler).await?;
    recipes_take(&lab, &server).await?;
    // The other party is Asterisk's steady tone of 1 kHz.
    let phone = Phone::call(&lab.asterisk, "81000", PhoneOptions::default()).await?;
    next_call(&server.handle, 1).await?;
    let said = caller_voice(8_000, Duration::from_secs(3), 1);
    phone.say(&vec![0; 8_000]);
    phone.say(&said);
    phone.quiet().await;
    sleep(Duration::from_millis(500)).await;
    let back = phone.hang_up().await?;
    ensure!(
        back.len() > 150,
        "the two parties do not talk to each other: {} packets",
        back.len()
    );
    let heard = report(&mut reports).await?.samples;

    let likeness = alike_in_pieces(&without_tone(&said), &without_tone(&heard), 8_000);
    ensure!(
        likeness > 0.9,
        "what the caller says is heard as like it as {likeness:.3}"
    );
    let tone = heard.chunks(800).filter(|part| is_tone(part)).count();
    ensure!(
        tone >= 5,
        "the other party is heard alone in {tone} of {} tenths of a second",
        heard.len() / 800
    );
    Ok(())
}

/// Takes away what repeats itself every millisecond.
fn without_tone(samples: &[i16]) -> Vec<i16> {
    let pairs = samples.iter().zip(samples.iter().skip(8));
    pairs.map(|(one, next)| next.wrapping_sub(*one)).collect()
}

/// Whether there is something loud that repeats itself every millisecond, and hardly anything else.
fn is_tone(samples: &[i16]) -> bool {
    let loudest = |samples: &[i16]| {
        let levels = samples.iter().map(|sample| sample.unsigned_abs());
        levels.max().unwrap_or_default()
    };
    loudest(samples) > 1_000 && loudest(&without_tone(samples)) < loudest(samples) / 10
}

async fn a_freepbx_destination_returns(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Served::echo().await?;
    recipes_take(&lab, &server).await?;
    let mut events = lab.ami.events();
    let call =
        Originate::exten("Local/s@lab-freepbx/n", "caller", "tone").variable("__T", "freepbx");
    lab.ami.originate(&call).await?;
    let call = next_call(&server.handle, 1).await?;
    ensure!(!call.id().is_nil());
    call.hang_up();
    events
        .wait(SOON, |event| event.is_lab("freepbx", "returned"))
        .await?;
    Ok(())
}

/// From now on the recipes bring their calls to this server.
async fn recipes_take(lab: &Lab, server: &Served) -> anyhow::Result<()> {
    let address = server.address.to_string();
    Ok(lab.ami.set_global("D", &address).await?)
}

/// The latest call, once there are so many.
async fn next_call(server: &ServerHandle, number: usize) -> anyhow::Result<CallHandle> {
    let coming = async {
        loop {
            if let Some(call) = server.calls().get(number - 1) {
                return call.clone();
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, coming)
        .await
        .context("the call does not come to the server")
}
