//! Many calls at once. Callers are AudioSocket channels that the scenario holds: what they hear is what counts.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use sidetone::{Server, ServerBuilder, ServerHandle};
use sidetone_caller::ramp;
use sidetone_lab::ami::{Events, Message, Originate};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

use crate::far_end::{Exchange, Heard, Lateness, Stay};
use crate::hearing::{self, Report, report};
use crate::serve::Served;
use crate::wire::SOON;
use crate::{Lab, scenarios};

scenarios![
    two_hundred_calls_keep_every_sample_both_ways,
    calls_beyond_the_limit_are_rejected_without_harm_to_the_others,
    a_listener_is_handed_over_and_no_call_is_refused,
];

/// How fast calls are placed, per second.
const PLACED_PER_SECOND: u64 = 50;

/// How the dialplan brings a call to the server, and where it tells that the server is done with it.
const APPLICATION: (&str, &str) = ("app", "after-app");
const DIAL_ON: (&str, &str) = ("dial-on", "after-dial");

async fn two_hundred_calls_keep_every_sample_both_ways(lab: Arc<Lab>) -> anyhow::Result<()> {
    const CALLS: usize = 200;
    // Far longer than it takes to place them all.
    const SOUND: Duration = Duration::from_secs(8);
    let mut crowd = Crowd::new(&lab).await?;
    let fixture = Fixture::start(hearing::builder(), SOUND).await?;
    let mut callers = HashMap::new();
    for seed in 1..=CALLS as u64 {
        fixture.place(&mut crowd, seed, &mut callers).await?;
    }
    all_there(&fixture.server.handle, CALLS).await?;
    fixture.whole_calls(callers).await.map(drop)
}

/// A server that plays a sound to every caller, each of whom says as much meanwhile.
struct Fixture {
    server: Served,
    plays: Vec<i16>,
    sound: Duration,
    reports: UnboundedReceiver<Report>,
}

/// Calls by their UUIDs, with what their callers say.
type Callers = HashMap<Uuid, (Placed, Vec<i16>)>;

impl Fixture {
    async fn start(builder: ServerBuilder, sound: Duration) -> anyhow::Result<Self> {
        let plays = ramp(0, 0, samples(sound));
        let (tell, reports) = mpsc::unbounded_channel();
        let server = Served::start(builder, hearing::play(plays.clone(), tell)).await?;
        Ok(Self {
            server,
            plays,
            sound,
            reports,
        })
    }

    async fn place(
        &self,
        crowd: &mut Crowd<'_>,
        seed: u64,
        callers: &mut Callers,
    ) -> anyhow::Result<()> {
        let said = ramp(seed, 0, samples(self.sound));
        // A second more, in which what is said last arrives.
        let stay = Stay {
            until_heard: self.plays.len() + 8_000,
            at_most: 5 * self.sound,
        };
        let server = self.server.address;
        let call = crowd.place(server, APPLICATION, said.clone(), stay).await?;
        callers.insert(call.id, (call, said));
        Ok(())
    }

    /// Checks that every sample of every call came through, both ways, and answers how late those were that the callers heard.
    async fn whole_calls(mut self, callers: Callers) -> anyhow::Result<Lateness> {
        let mut reports = HashMap::new();
        for _ in 0..callers.len() {
            let report = report(&mut self.reports).await?;
            reports.insert(report.id, report);
        }
        let mut late = Vec::new();
        for (id, (call, said)) in callers {
            let heard = call.heard().await?.lateness(&self.plays);
            late.push(heard.context("what the server played")?);
            let report = reports.remove(&id).context("a call without a report")?;
            got_whole(&report, &said).context("what the caller said")?;
        }
        Ok(Lateness::of_all(late))
    }
}

fn got_whole(report: &Report, said: &[i16]) -> anyhow::Result<()> {
    let runs = sidetone_caller::exact_runs(said, &report.samples);
    ensure!(
        runs.len() == 1 && runs[0].length >= said.len(),
        "heard in these pieces, with {} frames missed by the handler: {runs:?}",
        report.lagged
    );
    Ok(())
}

async fn calls_beyond_the_limit_are_rejected_without_harm_to_the_others(
    lab: Arc<Lab>,
) -> anyhow::Result<()> {
    const CALLS: usize = 50;
    const BEYOND: usize = 50;
    const SOUND: Duration = Duration::from_secs(6);
    let mut crowd = Crowd::new(&lab).await?;
    let limited = Fixture::start(hearing::builder().max_calls(CALLS), SOUND).await?;
    // Its callers see the same load of the machine and of Asterisk, but nobody of theirs is rejected.
    let control = Fixture::start(hearing::builder(), SOUND).await?;
    let (mut callers, mut control_callers) = (HashMap::new(), HashMap::new());
    for seed in 1..=CALLS as u64 {
        limited.place(&mut crowd, seed, &mut callers).await?;
        control
            .place(&mut crowd, seed, &mut control_callers)
            .await?;
    }
    all_there(&limited.server.handle, CALLS).await?;

    let mut rejected = Vec::new();
    for number in 0..BEYOND {
        let way = [APPLICATION, DIAL_ON][number % 2];
        let server = limited.server.address;
        rejected.push(
            crowd
                .place(server, way, Vec::new(), Stay::TO_THE_END)
                .await?,
        );
    }
    for call in rejected {
        let place = call.place;
        crowd.outcomes.of(&call).await?;
        let heard = call.heard().await?;
        ensure!(
            heard.is_silent() && heard.was_hung_up,
            "a call that was rejected ({place}) heard something, or stayed"
        );
    }

    let (found, usual) = (
        limited.whole_calls(callers).await?,
        control.whole_calls(control_callers).await?,
    );
    for thousandths in [990, 999] {
        let (found, usual) = (found.at(thousandths), usual.at(thousandths));
        ensure!(
            found <= 3 * usual + Duration::from_millis(20),
            "of 1000 messages {thousandths} are at most {found:?} late, and {usual:?} where nobody is rejected"
        );
    }
    Ok(())
}

async fn a_listener_is_handed_over_and_no_call_is_refused(lab: Arc<Lab>) -> anyhow::Result<()> {
    const BEFORE: usize = 150;
    const AFTER: usize = 150;
    const LONG: usize = 20;
    let short_sound = Duration::from_secs(1);
    let (first_plays, then_plays) = (
        ramp(1, 0, samples(short_sound)),
        ramp(2, 0, samples(short_sound)),
    );
    // Still playing when all the others are over.
    let long_sound = ramp(3, 0, samples(Duration::from_secs(10)));

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let successor = listener.try_clone()?;
    let long_calls: Arc<std::sync::Mutex<HashSet<Uuid>>> = Arc::default();
    let first = {
        let (long_calls, short, long) = (
            Arc::clone(&long_calls),
            first_plays.clone(),
            long_sound.clone(),
        );
        move |call: sidetone::Call| {
            let is_long = long_calls.lock().unwrap().contains(&call.id());
            let sound = if is_long { long.clone() } else { short.clone() };
            async move { call.player(8_000).unwrap().play(&sound).await }
        }
    };
    let (first_handle, first_serving) = serving(Server::builder().from_listener(listener)?, first);

    let mut crowd = Crowd::new(&lab).await?;
    let mut long = Vec::new();
    for _ in 0..LONG {
        let id = Uuid::new_v4();
        long_calls.lock().unwrap().insert(id);
        long.push(
            crowd
                .place_as(id, address, APPLICATION, Vec::new(), Stay::TO_THE_END)
                .await?,
        );
    }
    let mut before = Vec::new();
    for _ in 0..BEFORE {
        before.push(
            crowd
                .place(address, APPLICATION, Vec::new(), Stay::TO_THE_END)
                .await?,
        );
    }

    let plays = then_plays.clone();
    let second = move |call: sidetone::Call| {
        let sound = plays.clone();
        async move { call.player(8_000).unwrap().play(&sound).await }
    };
    let (_second_handle, second_serving) =
        serving(Server::builder().from_listener(successor)?, second);
    first_handle.hand_over(Duration::from_secs(30));
    let mut after = Vec::new();
    for _ in 0..AFTER {
        after.push(
            crowd
                .place(address, APPLICATION, Vec::new(), Stay::TO_THE_END)
                .await?,
        );
    }

    let (mut by_first, mut by_second) = (0, 0);
    for (number, call) in before.into_iter().chain(after).enumerate() {
        // A call that was refused is hung up and never comes to this place of the dialplan.
        crowd
            .outcomes
            .of(&call)
            .await
            .with_context(|| format!("call {number}"))?;
        let heard = call.heard().await?;
        if heard.lateness(&first_plays).is_ok() {
            by_first += 1;
        } else {
            heard
                .lateness(&then_plays)
                .with_context(|| format!("call {number}"))?;
            by_second += 1;
        }
    }
    // Those that were on their way when the listener changed hands may have come to either.
    ensure!(
        by_first >= BEFORE / 2 && by_second >= AFTER / 2,
        "{by_first} calls by the first server, {by_second} by the second"
    );
    for call in long {
        crowd.outcomes.of(&call).await.context("a long call")?;
        call.heard()
            .await?
            .lateness(&long_sound)
            .context("a long call")?;
    }
    timeout(SOON, first_serving)
        .await
        .context("the first server has no calls and does not end")???;
    second_serving.abort();
    Ok(())
}

type ServingTask = JoinHandle<Result<(), sidetone::ServeError>>;

fn serving(server: Server, handler: impl sidetone::Handler) -> (ServerHandle, ServingTask) {
    (server.handle(), tokio::spawn(server.serve(handler)))
}

/// Waits until so many calls are there at once: placed is not yet arrived.
async fn all_there(server: &ServerHandle, calls: usize) -> anyhow::Result<()> {
    let arriving = async {
        while server.stats().running < calls {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, arriving)
        .await
        .with_context(|| format!("{} of {calls} calls are there", server.stats().running))
}

fn samples(length: Duration) -> usize {
    usize::try_from(length.as_millis()).unwrap() * 8
}

/// Places calls, one every so often.
struct Crowd<'a> {
    lab: &'a Lab,
    exchange: Exchange,
    outcomes: Outcomes,
    clock: tokio::time::Interval,
}

/// A call that was placed.
struct Placed {
    id: Uuid,
    /// Where the dialplan tells that the server is done with it.
    place: &'static str,
    talking: JoinHandle<anyhow::Result<Heard>>,
}

impl Placed {
    async fn heard(self) -> anyhow::Result<Heard> {
        self.talking.await?
    }
}

impl<'a> Crowd<'a> {
    async fn new(lab: &'a Lab) -> anyhow::Result<Self> {
        let mut clock = interval(Duration::from_secs(1) / u32::try_from(PLACED_PER_SECOND)?);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            lab,
            exchange: Exchange::open().await?,
            outcomes: Outcomes {
                events: lab.ami.events(),
                seen: HashSet::new(),
            },
            clock,
        })
    }

    /// Places a call when its time has come; its caller says `said` and leaves after `stay`.
    async fn place(
        &mut self,
        server: SocketAddr,
        way: (&str, &'static str),
        said: Vec<i16>,
        stay: Stay,
    ) -> anyhow::Result<Placed> {
        self.place_as(Uuid::new_v4(), server, way, said, stay).await
    }

    async fn place_as(
        &mut self,
        id: Uuid,
        server: SocketAddr,
        (exten, place): (&str, &'static str),
        said: Vec<i16>,
        stay: Stay,
    ) -> anyhow::Result<Placed> {
        self.clock.tick().await;
        let (channel, caller) = self.exchange.caller();
        let call = Originate::exten(&channel, "target", exten)
            .variable("U", &id.to_string())
            .variable("D", &server.to_string())
            .variable("C", "slin")
            .variable("T", &id.to_string());
        self.lab.ami.originate(&call).await?;
        let talking = tokio::spawn(async move { caller.answered().await?.talk(&said, stay).await });
        Ok(Placed { id, place, talking })
    }
}

/// What the dialplan tells of the calls.
struct Outcomes {
    events: Events,
    seen: HashSet<(String, String)>,
}

impl Outcomes {
    /// Waits until the dialplan goes on after the server, as it does when the server ended the call in order.
    async fn of(&mut self, call: &Placed) -> anyhow::Result<()> {
        let wanted = (call.id.to_string(), call.place.to_owned());
        let hung_up = (call.id.to_string(), "hangup".to_owned());
        while !self.seen.contains(&wanted) {
            ensure!(
                !self.seen.contains(&hung_up),
                "Asterisk hung up: the dialplan did not come to {}",
                call.place
            );
            let told = |event: &Message| event.is("UserEvent");
            let event = self.events.wait(2 * SOON, told).await?;
            let (tag, place) = (event.get("tag"), event.get("where"));
            ensure!(
                place != "after-dial" || event.get("dialstatus") == "ANSWER",
                "{event:?}"
            );
            self.seen.insert((tag.to_owned(), place.to_owned()));
        }
        Ok(())
    }
}
