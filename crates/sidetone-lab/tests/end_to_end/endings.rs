//! Who ends a call, and what the dialplan makes of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use futures_util::future::{try_join, try_join_all};
use sidetone::{Admission, Call, EndReason, Event, Server, ServerBuilder};
use sidetone_caller::{Codec, ramp};
use sidetone_lab::ami::Originate;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;

use crate::person::samples;
use crate::serve::{Served, Way, dial, is_callers_end, place};
use crate::wire::{FRAME, SOON, contains};
use crate::{Lab, scenarios};

scenarios![
    a_caller_hangs_up,
    a_handler_that_returns_plays_out_and_the_dialplan_goes_on,
    a_handler_that_hangs_up_is_not_heard_any_more,
    a_handler_that_fails_ends_the_call_in_order,
    dial_without_option_g_hangs_the_caller_up,
    calls_rejected_look_completed,
    all_sixteen_keys_arrive,
];

const SLIN: Way = Way::Dial("slin");
const SLIN_ON: Way = Way::DialOn("slin");

async fn a_caller_hangs_up(lab: Arc<Lab>) -> anyhow::Result<()> {
    for way in [Way::Application, SLIN] {
        let (tell, mut last) = mpsc::unbounded_channel();
        let handler = move |mut call: Call| {
            let tell = tell.clone();
            async move {
                while let Some(event) = call.next().await {
                    if let Event::Ended(reason) = event {
                        tell.send(reason).unwrap();
                    }
                }
            }
        };
        let mut server = Served::start(Server::builder(), handler).await?;
        let call = place(&lab, server.address, way).await?;
        // A call that is over before its handler could begin never gets one.
        call.person.has_heard(15).await?;
        call.person.hang_up().await?;
        let ended = server.ended().await?;
        ensure!(ended.id == call.id);
        ensure!(is_callers_end(ended.reason), "{way:?}: {ended:?}");
        let last = timeout(SOON, last.recv()).await?;
        ensure!(
            last == Some(ended.reason),
            "{way:?}: the handler's last word is {last:?}"
        );
    }
    Ok(())
}

/// Half a second is queued when the handler is done.
const QUEUED: usize = 25 * FRAME;

async fn a_handler_that_returns_plays_out_and_the_dialplan_goes_on(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    let handler = async |call: Call| -> anyhow::Result<()> {
        let mut player = call.player(8_000)?;
        Ok(player.play(&ramp(1, 0, QUEUED)).await?)
    };
    let ended_by_itself = EndReason::Finished;
    for way in [Way::Application, SLIN_ON] {
        let heard = heard_until_the_dialplan_goes_on(&lab, way, handler, ended_by_itself).await?;
        ensure!(
            contains(&heard, &ramp(1, 0, QUEUED)),
            "{way:?}: it is not heard to its end"
        );
    }
    Ok(())
}

async fn a_handler_that_hangs_up_is_not_heard_any_more(lab: Arc<Lab>) -> anyhow::Result<()> {
    let handler = async |call: Call| -> anyhow::Result<()> {
        let mut player = call.player(8_000)?;
        player.play(&ramp(1, 0, 60 * 8_000)).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        call.hang_up();
        call.closed().await;
        Ok(())
    };
    for way in [Way::Application, SLIN_ON] {
        let heard = heard_until_the_dialplan_goes_on(&lab, way, handler, EndReason::HungUp).await?;
        ensure!(
            contains(&heard, &ramp(1, 0, QUEUED / 5)),
            "{way:?}: it never began"
        );
        ensure!(heard.len() < 8 * 8_000, "{way:?}: {} samples", heard.len());
    }
    Ok(())
}

async fn a_handler_that_fails_ends_the_call_in_order(lab: Arc<Lab>) -> anyhow::Result<()> {
    let handler = async |call: Call| -> anyhow::Result<()> {
        call.player(8_000)?.play(&ramp(1, 0, 60 * 8_000)).await?;
        anyhow::bail!("on purpose")
    };
    for way in [Way::Application, SLIN_ON] {
        let heard =
            heard_until_the_dialplan_goes_on(&lab, way, handler, EndReason::HandlerFailed).await?;
        ensure!(heard.len() < 8 * 8_000, "{way:?}: {} samples", heard.len());
    }
    Ok(())
}

/// What the caller hears of a call that the server ends, after which the dialplan must go on and see an answered call.
async fn heard_until_the_dialplan_goes_on(
    lab: &Lab,
    way: Way,
    handler: impl sidetone::Handler,
    reason: EndReason,
) -> anyhow::Result<Vec<i16>> {
    let mut server = Served::start(Server::builder(), handler).await?;
    let mut call = dial(lab, server.address, way, Codec::default()).await?;
    let event = call.reaches(way.after()).await?;
    if let Way::DialOn(_) = way {
        ensure!(event.get("dialstatus") == "ANSWER", "{event:?}");
    }
    call.person.ended(SOON).await?;
    let ended = server.ended().await?;
    ensure!(ended.reason == reason, "{way:?}: {ended:?}");
    Ok(samples(&call.person.heard()))
}

async fn dial_without_option_g_hangs_the_caller_up(lab: Arc<Lab>) -> anyhow::Result<()> {
    let server = Served::start(Server::builder(), async |call: Call| call.hang_up()).await?;
    let mut call = dial(&lab, server.address, SLIN, Codec::default()).await?;
    ensure!(
        !call.came_by(SLIN.after()).await?,
        "the dialplan went on behind Dial"
    );
    call.person.ended(SOON).await
}

/// By the limit, by address, by the hook: each reads the UUID and hangs up in order.
async fn calls_rejected_look_completed(lab: Arc<Lab>) -> anyhow::Result<()> {
    let settings: [(fn() -> ServerBuilder, EndReason); 3] = [
        (|| Server::builder().max_calls(0), EndReason::Full),
        (
            || Server::builder().allow("192.0.2.1".parse().unwrap()),
            EndReason::NotAllowed,
        ),
        (
            || Server::builder().admit(async |_| Admission::reject()),
            EndReason::Refused,
        ),
    ];
    let calls = settings
        .iter()
        .flat_map(|setting| [(Way::Application, setting), (SLIN_ON, setting)]);
    let rejected = calls.map(async |(way, (settings, reason))| {
        let mut server = Served::start(settings(), async |_: Call| ()).await?;
        let mut call = dial(&lab, server.address, way, Codec::default()).await?;
        let event = call.reaches(way.after()).await?;
        if let Way::DialOn(_) = way {
            ensure!(event.get("dialstatus") == "ANSWER", "{event:?}");
        }
        let ended = server.ended().await?;
        ensure!(
            ended.reason == *reason && ended.id == call.id,
            "{way:?}: {ended:?}"
        );
        call.person.ended(SOON).await
    });
    try_join_all(rejected).await.map(drop)
}

async fn all_sixteen_keys_arrive(lab: Arc<Lab>) -> anyhow::Result<()> {
    try_join(keys_arrive(&lab, "app"), keys_arrive(&lab, "dial"))
        .await
        .map(drop)
}

async fn keys_arrive(lab: &Lab, target: &str) -> anyhow::Result<()> {
    let mut pressed = keys(lab, target).await?;
    // On a busy machine two keys come at once, and Asterisk drops the second: that is no server's doing.
    for _ in 1..ATTEMPTS {
        if pressed != KEYS {
            eprintln!("    {target}: {pressed}");
            pressed = keys(lab, target).await?;
        }
    }
    ensure!(pressed == KEYS, "{target}: {pressed}");
    Ok(())
}

const KEYS: &str = "1234567890*#ABCD";

const ATTEMPTS: usize = 3;

/// The keys that the handler was told of by the end of a call whose caller pressed all of them.
async fn keys(lab: &Lab, target: &str) -> anyhow::Result<String> {
    let (tell, mut pressed) = mpsc::unbounded_channel();
    let handler = move |mut call: Call| {
        let tell = tell.clone();
        async move {
            while let Some(event) = call.next().await {
                if let Event::Dtmf(key) = event {
                    tell.send(key).unwrap();
                }
            }
        }
    };
    let mut server = Served::start(Server::builder(), handler).await?;
    let id = Uuid::new_v4();
    let call = Originate::exten(&format!("Local/{target}@target/n"), "caller", "dtmf")
        .variable("__U", &id.to_string())
        .variable("__D", &server.address.to_string())
        .variable("__C", "slin")
        .variable("__S", "0.5");
    lab.ami.originate(&call).await?;
    let ended = server.ended().await?;
    let mut keys = String::new();
    while keys.len() < usize::try_from(ended.counters.digits)? {
        keys.extend(timeout(SOON, pressed.recv()).await?);
    }
    ensure!(ended.id == id, "{target}: {ended:?}");
    Ok(keys)
}
