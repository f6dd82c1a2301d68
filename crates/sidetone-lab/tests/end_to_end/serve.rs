//! The library as the server of a scenario, and calls to it whose caller the test owns.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use sidetone::{Call, CallSummary, EndReason, Event, Handler, Server, ServerBuilder, ServerHandle};
use sidetone_caller::Codec;
use sidetone_lab::ami::{Events, Message, Originate};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use uuid::Uuid;

use crate::Lab;
use crate::person::{Person, samples};
use crate::wire::{Listener, SOON};

/// A server of the library. Dropped, its calls are hung up.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) handle: ServerHandle,
    ends: UnboundedReceiver<CallSummary>,
    task: AbortHandle,
}

impl Served {
    pub(crate) async fn start(
        builder: ServerBuilder,
        handler: impl Handler,
    ) -> anyhow::Result<Self> {
        let (tell, ends) = mpsc::unbounded_channel();
        let server = builder
            // A scenario that is over asks no more.
            .on_call_end(move |summary| drop(tell.send(summary)))
            .bind("127.0.0.1:0")
            .await?;
        let (address, handle) = (server.local_addr(), server.handle());
        let task = tokio::spawn(server.serve(handler)).abort_handle();
        Ok(Self {
            address,
            handle,
            ends,
            task,
        })
    }

    /// An echo with the library's defaults, but for its [`PREBUFFER`].
    pub(crate) async fn echo() -> anyhow::Result<Self> {
        Self::start(Server::builder(), echo).await
    }

    /// What the server says of the next call that is over.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<CallSummary> {
        let summary = timeout(SOON, self.ends.recv()).await;
        summary
            .context("the server has no call that ended")?
            .context("the server is gone")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What an echo waits longer for each frame, so that it is whole where the machine stands still for a moment.
pub(crate) const PREBUFFER: Duration = Duration::from_millis(150);

/// Whether the caller ended it. An Asterisk that has audio unread in that moment resets the connection.
pub(crate) fn is_callers_end(reason: EndReason) -> bool {
    matches!(reason, EndReason::CallerHungUp | EndReason::ConnectionReset)
}

async fn echo(mut call: Call) {
    let mut line = call.live();
    line.set_prebuffer(PREBUFFER);
    while let Some(event) = call.next().await {
        if let Event::Audio(frame) = event {
            line.push(frame.samples());
        }
    }
}

/// How a call comes to the server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// `AudioSocket()`.
    Application,
    /// `Dial(AudioSocket/…/c(…))`.
    Dial(&'static str),
    /// The same with Dial's option `g`.
    DialOn(&'static str),
    /// `Dial(AudioSocket/…)` without a codec.
    DialPlain,
}

impl Way {
    fn exten(self) -> (&'static str, &'static str) {
        match self {
            Self::Application => ("app", ""),
            Self::Dial(codec) => ("dial", codec),
            Self::DialOn(codec) => ("dial-on", codec),
            Self::DialPlain => ("dial-plain", ""),
        }
    }

    /// Where the dialplan tells that the server is done with the call.
    pub(crate) fn after(self) -> &'static str {
        match self {
            Self::Application => "after-app",
            _ => "after-dial",
        }
    }
}

/// A call whose caller is a [`Person`].
pub(crate) struct Placed {
    pub(crate) id: Uuid,
    pub(crate) person: Person,
    pub(crate) events: Events,
    tag: String,
}

impl Placed {
    /// The caller says it; answers what the caller heard from then on until an echo of it must have come.
    pub(crate) async fn hears(&self, said: &[i16]) -> anyhow::Result<Vec<i16>> {
        let before = self.person.heard().len();
        self.person.say(said);
        self.person.quiet().await;
        let messages = self.person.heard().len();
        self.person.has_heard(messages + 15).await?;
        Ok(samples(&self.person.heard()[before..]))
    }

    /// Waits until the dialplan tells of this place.
    pub(crate) async fn reaches(&mut self, place: &str) -> anyhow::Result<Message> {
        let tag = &self.tag;
        let told = self
            .events
            .wait(SOON, |event| event.is_lab(tag, place))
            .await;
        told.with_context(|| format!("the dialplan does not reach {place}"))
    }

    /// Waits until the call is over and says whether the dialplan came by this place before.
    pub(crate) async fn came_by(&mut self, place: &str) -> anyhow::Result<bool> {
        let tag = &self.tag;
        let told = |event: &Message| event.is_lab(tag, place) || event.is_lab(tag, "hangup");
        Ok(self.events.wait(SOON, told).await?.get("where") == place)
    }
}

/// Places a call from a caller of slin to the server.
pub(crate) async fn place(lab: &Lab, server: SocketAddr, way: Way) -> anyhow::Result<Placed> {
    place_from(lab, server, way, Codec::default()).await
}

/// Places a call from a caller of that codec to the server, and answers when the caller hears the server's first frame: nothing
/// it says from then on is lost to the setting up.
pub(crate) async fn place_from(
    lab: &Lab,
    server: SocketAddr,
    way: Way,
    codec: Codec,
) -> anyhow::Result<Placed> {
    let placed = dial(lab, server, way, codec).await?;
    placed.person.has_heard(1).await?;
    Ok(placed)
}

/// Places a call and answers when Asterisk has rung the caller.
pub(crate) async fn dial(
    lab: &Lab,
    server: SocketAddr,
    way: Way,
    codec: Codec,
) -> anyhow::Result<Placed> {
    let phone = Listener::bind().await?;
    let (exten, server_codec) = way.exten();
    let id = Uuid::new_v4();
    let tag = id.to_string();
    let channel = format!(
        "AudioSocket/{}/{}/c({})",
        phone.address(),
        Uuid::new_v4(),
        name(codec)
    );
    let call = Originate::exten(&channel, "target", exten)
        .variable("U", &id.to_string())
        .variable("D", &server.to_string())
        .variable("C", server_codec)
        .variable("T", &tag)
        .answer_within(Duration::from_secs(10));
    let events = lab.ami.events();
    lab.ami.originate(&call).await?;
    let person = Person::answer(phone.connection().await?, codec).await?;
    Ok(Placed {
        id,
        person,
        events,
        tag,
    })
}

/// Asterisk's name of a caller's codec.
pub(crate) fn name(codec: Codec) -> &'static str {
    match codec {
        Codec::Slin(rate) => rate.name(),
        Codec::Ulaw => "ulaw",
        Codec::Alaw => "alaw",
    }
}
