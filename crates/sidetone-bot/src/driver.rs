//! Joins a call and a bot: connects, carries out what the conversation asks for, and returns how it ended.

use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    time::Duration,
};

use sidetone::{Call, CallHandle, EndReason, Event};
use sidetone_websocket::{Connection, Received};
use tokio::{
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout},
};

use crate::{
    bot::{Bot, BotEnd},
    caller_audio::CallerAudio,
    connecting::{Connected, caller_format, connect},
    dialect::{self, Action, CallEvent, Cleared, Conversation},
    failure::BotFailure,
    playout::{Clearing, Playout},
    session::{BotEvent, Session},
};

/// Messages that may wait for the bot to take them: 5 s of caller audio.
const MAX_QUEUED: usize = 250;
/// Other messages that may wait for the bot to take them: more than a clear of all marks answers.
const MAX_UNREAD: usize = 10_000;
/// A mark with a longer name is not queued, in bytes, and complained about.
const MAX_MARK_LEN: usize = 4096;
/// The rest of a longer transcript is cut off, in bytes.
const MAX_TRANSCRIPT: usize = 16 << 10;
/// Clears that may be under way.
const MAX_CLEARS: usize = 1_000;
/// Dropped frames that are reported together, while more are dropped.
const REPORTED_TOGETHER: u64 = 50;
/// How often a bot is pinged. One that has sent nothing from one ping to the next is gone.
const PING_EVERY: Duration = Duration::from_secs(20);
/// More that a bot does wrong ends its call.
const MAX_COMPLAINTS: u32 = 100;
/// How long a bot may take to take its settings.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// How long a tool may take.
const TOOL_WITHIN: Duration = Duration::from_secs(10);
/// How much of what it said is still played to the caller, when the bot has ended the conversation.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long a bot may take to close while the dialplan waits. Most take less, and see the whole end also when the process ends next.
const GOODBYE: Duration = Duration::from_millis(100);
/// The codes of a close that is a normal end (RFC 6455, 7.4), with and without a reason.
const NORMAL_CLOSURE: u16 = 1000;
const NO_STATUS: u16 = 1005;
/// The code with which a bot is left that breaks the rules.
const POLICY_VIOLATION: u16 = 1008;

/// Gives a call to a bot, until either ends it.
pub(crate) async fn run(
    bot: &Bot,
    call: &mut Call,
    session: Session,
) -> Result<BotEnd, BotFailure> {
    let mut playout = Playout::new(call.handle(), bot.prebuffer, bot.budget.share());
    let ended = run_connections(bot, call, session, &mut playout).await;
    if ended.is_err() {
        // Nobody asks what was heard of it.
        drop(playout.clear());
    }
    ended
}

/// Connects, and again where a bot can go on.
async fn run_connections(
    bot: &Bot,
    call: &mut Call,
    mut session: Session,
    playout: &mut Playout,
) -> Result<BotEnd, BotFailure> {
    let mut reconnects = match bot.dialect.can_reconnect() {
        true => bot.reconnects,
        false => 0,
    };
    loop {
        let (connection, digits) = match connect(bot, call, &session).await? {
            Connected::Bot(connection, digits) => (*connection, digits),
            Connected::CallEnded(reason) => return Ok(BotEnd::Call(reason)),
        };
        let caller = caller_format(call);
        let conversation = bot.dialect.start(&session, caller);
        let bridge = Bridge::new(connection, conversation, &session, playout, call.handle());
        match bridge.run(call, digits).await {
            Err(failure) if reconnects > 0 && is_of_connection(&failure) => {
                reconnects -= 1;
                session.is_reconnect = true;
                playout.reset();
                session.report(BotEvent::Reconnecting(failure));
            }
            Ok(BotEnd::Bot) => {
                say_last_words(call, playout).await;
                return Ok(BotEnd::Bot);
            }
            ended => return ended,
        }
    }
}

/// Whether another connection may be better.
const fn is_of_connection(failure: &BotFailure) -> bool {
    matches!(
        failure,
        BotFailure::Broken(_)
            | BotFailure::Closed { .. }
            | BotFailure::Silent
            | BotFailure::Expired(_)
    )
}

/// Plays what the bot said last, and hangs up.
async fn say_last_words(call: &mut Call, playout: &mut Playout) {
    let heard = timeout(LAST_WORDS, async {
        tokio::select! {
            () = playout.drained() => {}
            // Its audio is read, so that none of it is reported as dropped.
            () = async { while call.next().await.is_some() {} } => {}
        }
    });
    // What takes longer is cut off.
    let _ = heard.await;
    call.hang_up();
}

/// One connection of a bot to a call.
struct Bridge<'a> {
    connection: Connection,
    conversation: Box<dyn Conversation>,
    session: &'a Session,
    playout: &'a mut Playout,
    call: CallHandle,
    caller: CallerAudio,
    clearing: VecDeque<Clearing>,
    /// Marks that were reached while a clear before them was under way.
    reached: Vec<String>,
    tools: JoinSet<(String, Result<String, String>)>,
    has_ended: bool,
    ping: Interval,
    /// The bot has sent something since the last ping.
    is_alive: bool,
    connected_at: Instant,
    has_spoken: bool,
    complaints: u32,
    dropped: u64,
    actions: Vec<Action>,
    payload: Vec<u8>,
}

impl<'a> Bridge<'a> {
    fn new(
        connection: Connection,
        conversation: Box<dyn Conversation>,
        session: &'a Session,
        playout: &'a mut Playout,
        call: CallHandle,
    ) -> Self {
        let now = Instant::now();
        let mut ping = interval_at(now + PING_EVERY, PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            connection,
            caller: CallerAudio::new(conversation.caller_format()),
            conversation,
            session,
            playout,
            call,
            clearing: VecDeque::new(),
            reached: Vec::new(),
            tools: JoinSet::new(),
            has_ended: false,
            ping,
            is_alive: true,
            connected_at: now,
            has_spoken: false,
            complaints: 0,
            dropped: 0,
            actions: Vec::new(),
            payload: Vec::new(),
        }
    }

    async fn run(mut self, call: &mut Call, digits: Vec<char>) -> Result<BotEnd, BotFailure> {
        let ended = self.converse(call, digits).await;
        self.report_dropped();
        let code = match &ended {
            Ok(_) => {
                // It fails if too many messages wait already.
                let _ = self.dispatch(CallEvent::Ended);
                NORMAL_CLOSURE
            }
            Err(BotFailure::Protocol(_) | BotFailure::Flooded | BotFailure::OverBudget) => {
                POLICY_VIOLATION
            }
            Err(_) => return ended,
        };
        let mut closing = Box::pin(self.connection.close(code));
        // The dialplan does not wait for a bot that is slow to close.
        if timeout(GOODBYE, &mut closing).await.is_err() {
            tokio::spawn(closing);
        }
        ended
    }

    async fn converse(&mut self, call: &mut Call, digits: Vec<char>) -> Result<BotEnd, BotFailure> {
        self.dispatch(CallEvent::Connected)?;
        for digit in digits {
            self.session.report(BotEvent::Digit(digit));
            self.dispatch(CallEvent::Digit(digit))?;
        }
        while !self.has_ended {
            tokio::select! {
                event = call.next() => {
                    let reason = match event {
                        None => EndReason::Shutdown,
                        Some(Event::Ended(reason)) => reason,
                        Some(event) => {
                            self.handle_call(&event)?;
                            continue;
                        }
                    };
                    return Ok(BotEnd::Call(reason));
                }
                received = self.connection.next() => {
                    let received = received.map_err(|error| BotFailure::Broken(error.to_string()))?;
                    if self.handle_bot(received)? {
                        return Ok(BotEnd::Bot);
                    }
                }
                cleared = next_cleared(&mut self.clearing) => {
                    self.dispatch(CallEvent::Cleared(&cleared))?;
                    self.dispatch_reached()?;
                }
                Some(Ok((id, output))) = self.tools.join_next() => {
                    let output = output.as_deref().map_err(String::as_str);
                    self.dispatch(CallEvent::ToolResult { id: &id, output })?;
                }
                () = sleep_until(self.connected_at + SETTLED_WITHIN), if !self.conversation.is_settled() => {
                    let text = format!("it does not take its settings within {} s", SETTLED_WITHIN.as_secs());
                    return Err(BotFailure::Unavailable(text));
                }
                _ = self.ping.tick() => {
                    if !std::mem::take(&mut self.is_alive) {
                        return Err(BotFailure::Silent);
                    }
                    self.connection.ping();
                }
            }
        }
        Ok(BotEnd::Bot)
    }

    fn handle_call(&mut self, event: &Event<'_>) -> Result<(), BotFailure> {
        match event {
            Event::Audio(frame) => {
                self.caller
                    .push(frame.offset(), frame.rate().hz(), frame.samples());
                self.send_frames()?;
                self.playout.account()
            }
            Event::NoAudio { offset, duration } => {
                self.caller.push_silence(*offset, *duration);
                self.send_frames()
            }
            Event::Dtmf(digit) => {
                self.session.report(BotEvent::Digit(*digit));
                self.dispatch(CallEvent::Digit(*digit))
            }
            Event::MarkReached(mark) => {
                self.reached.extend(self.playout.take_reached(*mark));
                self.dispatch_reached()
            }
            Event::PlaybackDrained => self.dispatch(CallEvent::Drained),
            event => {
                self.session.report_call(event);
                Ok(())
            }
        }
    }

    /// Dispatches the marks that were reached. A clear that is under way comes before the marks behind it.
    fn dispatch_reached(&mut self) -> Result<(), BotFailure> {
        if self.clearing.is_empty() {
            for name in std::mem::take(&mut self.reached) {
                self.dispatch(CallEvent::MarkReached(&name))?;
            }
        }
        Ok(())
    }

    fn send_frames(&mut self) -> Result<(), BotFailure> {
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        while let Some(timestamp) = self.caller.take_frame(&mut payload) {
            self.dispatch(CallEvent::Audio {
                timestamp,
                payload: &payload,
            })?;
            payload.clear();
        }
        self.payload = payload;
        Ok(())
    }

    /// Whether the bot has ended the conversation.
    fn handle_bot(&mut self, received: Received) -> Result<bool, BotFailure> {
        self.is_alive = true;
        let message = match &received {
            Received::Text(text) => dialect::Received::Text(text),
            Received::Binary(bytes) => dialect::Received::Binary(bytes),
            Received::Pong => return Ok(false),
            // Without a code it is a normal end, too.
            Received::Closed {
                code: NORMAL_CLOSURE | NO_STATUS,
                ..
            } if self.conversation.ends_by_closing() => return Ok(true),
            Received::Closed { code, reason } => {
                return Err(BotFailure::Closed {
                    code: *code,
                    reason: reason.clone(),
                });
            }
        };
        let queued = self.playout.queued();
        self.conversation
            .handle_message(message, queued, &mut self.actions)?;
        self.apply_actions()?;
        Ok(false)
    }

    /// Gives the conversation an event, and carries out what it asks for.
    fn dispatch(&mut self, event: CallEvent<'_>) -> Result<(), BotFailure> {
        let queued = self.playout.queued();
        self.conversation
            .handle_event(event, queued, &mut self.actions);
        self.apply_actions()
    }

    fn apply_actions(&mut self) -> Result<(), BotFailure> {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            self.apply(action)?;
        }
        self.actions = actions;
        Ok(())
    }

    fn apply(&mut self, action: Action) -> Result<(), BotFailure> {
        match action {
            Action::Send(message) => {
                self.make_room();
                if self.connection.queued() >= MAX_UNREAD {
                    let text = "it does not read what it is sent";
                    return Err(BotFailure::Broken(text.into()));
                }
                self.connection.queue(message);
            }
            Action::Play {
                item,
                format,
                audio,
            } => {
                if !self.has_spoken && !audio.is_empty() {
                    self.has_spoken = true;
                    self.session.report(BotEvent::FirstAudio {
                        after: self.connected_at.elapsed(),
                    });
                }
                self.playout.play(item, format, &audio)?;
            }
            Action::EndItem(item) => self.playout.end_item(&item),
            Action::Mark(name) if name.len() > MAX_MARK_LEN => {
                let text = format!("a mark whose name is longer than {MAX_MARK_LEN} bytes");
                return self.complain(text);
            }
            Action::Mark(name) => self.playout.mark(name)?,
            Action::Clear if self.clearing.len() >= MAX_CLEARS => {
                let text = "it clears faster than a call can";
                return Err(BotFailure::Protocol(text.into()));
            }
            Action::Clear => self.clearing.push_back(self.playout.clear()),
            Action::Pause => self.playout.pause(),
            Action::Resume => self.playout.resume(),
            Action::CallTool {
                id,
                name,
                arguments,
            } => self.call_tool(id, &name, &arguments),
            Action::Transcript(mut transcript) => {
                let end = transcript.text.floor_char_boundary(MAX_TRANSCRIPT);
                transcript.text.truncate(end);
                self.session.report(BotEvent::Transcript(transcript));
            }
            Action::End => self.has_ended = true,
            Action::HangUp => self.call.hang_up(),
            Action::Complaint(text) => return self.complain(text.into()),
        }
        Ok(())
    }

    fn complain(&mut self, complaint: String) -> Result<(), BotFailure> {
        self.complaints += 1;
        if self.complaints > MAX_COMPLAINTS {
            return Err(BotFailure::Protocol(complaint));
        }
        self.session.report(BotEvent::Complaint(complaint));
        Ok(())
    }

    fn call_tool(&mut self, id: String, name: &str, arguments: &str) {
        let called = self.session.tools.as_ref();
        let called = called.map(|tools| tools.call(name, arguments));
        self.tools.spawn(async move {
            let output = match called {
                Some(called) => timeout(TOOL_WITHIN, called)
                    .await
                    .unwrap_or_else(|_| Err("it took too long".into())),
                None => Err("there are no tools".into()),
            };
            (id, output)
        });
    }

    /// Drops caller audio that the bot does not take, the oldest first.
    fn make_room(&mut self) {
        let conversation = &self.conversation;
        let is_dropped = self.connection.queued() >= MAX_QUEUED
            && self
                .connection
                .drop_oldest(|message| conversation.is_caller_audio(message));
        self.dropped += u64::from(is_dropped);
        if !is_dropped || self.dropped >= REPORTED_TOGETHER {
            self.report_dropped();
        }
    }

    fn report_dropped(&mut self) {
        let frames = std::mem::take(&mut self.dropped);
        if frames > 0 {
            self.session.report(BotEvent::Dropped { frames });
        }
    }
}

/// Waits for the first clear that is under way; without one, forever.
async fn next_cleared(clearing: &mut VecDeque<Clearing>) -> Cleared {
    let Some(first) = clearing.front_mut() else {
        return pending().await;
    };
    let cleared = poll_fn(|context| first.as_mut().poll(context)).await;
    clearing.pop_front();
    cleared
}
