//! The calls of a gateway: who gets in, who is there, and what they leave behind.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sidetone::{Admission, CallInfo, CallSummary, EndReason, HandlerError};
use sidetone_bot::Budget;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    bots::Bots,
    bus::Bus,
    call::{Params, RunningCall},
    capacity::wanted_calls,
    config::{Config, Route, TicketPolicy},
    event::GatewayEvent,
    handover::HandoverDir,
    rate_limit::RateLimit,
    rejection::Rejection,
    results::{CallResult, Results},
    ticket::{ClaimError, Counts, MintError, Saved, Ticket, Tickets},
    totals::Totals,
    with_sources,
};

/// Rejected calls that are reported each second. Others are counted.
const REJECTED_PER_SECOND: u32 = 100;

/// Everything that admission, handlers and the HTTP API share.
#[derive(Debug)]
pub(crate) struct Registry {
    config: ArcSwap<Config>,
    state: Mutex<State>,
    rejections: Mutex<RateLimit>,
    pub(crate) bus: Bus,
    pub(crate) bots: Bots,
    /// What the bots of all calls may have queued.
    pub(crate) bot_budget: Budget,
    /// The calls that there can be, whatever the file says.
    capacity: usize,
    /// Where results are left for the process that follows.
    leaving: OnceLock<HandoverDir>,
    is_closing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    tickets: Tickets,
    running: HashMap<Uuid, Arc<RunningCall>>,
    results: Results,
    /// When the calls are hung up, since an operator wants the gateway to be without calls.
    draining: Option<Instant>,
    /// The process ends, and none follows that would take a call with a new ticket.
    is_last: bool,
    totals: Totals,
}

impl State {
    /// Whether a route has as many calls as it may have, with those that its unused tickets stand for.
    fn is_full(&mut self, route: &Route, now: Instant) -> bool {
        route.max_calls.is_some_and(|max| {
            let calls = self.running.values();
            let running = calls.filter(|call| call.route.name == route.name).count();
            running + self.tickets.unused_of(&route.name, now) >= max
        })
    }
}

/// The data of a call that was let in, until its handler takes it.
pub(crate) type Admitted = Mutex<Option<Handled>>;

/// Held while a call is handled. The call's end is reported when this is dropped and the call is over, so that nothing is
/// reported of a call after its end.
#[derive(Debug)]
pub(crate) struct Handled {
    pub(crate) call: Arc<RunningCall>,
    registry: Arc<Registry>,
}

impl Drop for Handled {
    fn drop(&mut self) {
        self.call.set_handled();
        self.registry.report_end_if_over(&self.call);
    }
}

/// Why there is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTicket {
    /// All calls are taken, or promised.
    Full,
    RouteFull,
    Draining,
    TooManyUnused,
    UnknownRoute,
}

/// What there is to know of a call's result.
pub(crate) enum ResultState {
    Over(CallResult),
    Running(Arc<RunningCall>),
    Unknown,
}

impl Registry {
    pub(crate) fn new(config: Config, capacity: usize, bus: Bus) -> Self {
        Self {
            bot_budget: Budget::new(config.server.bot_memory),
            config: ArcSwap::from_pointee(config),
            state: Mutex::default(),
            rejections: Mutex::new(RateLimit::new(REJECTED_PER_SECOND)),
            bus,
            bots: Bots::default(),
            capacity,
            leaving: OnceLock::new(),
            is_closing: watch::Sender::new(false),
        }
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// New calls and requests go by this configuration.
    pub(crate) fn set_config(&self, config: Config) {
        self.bus.set_with_digits(config.server.log_digits);
        self.config.store(Arc::new(config));
    }

    pub(crate) fn max_calls(&self) -> usize {
        wanted_calls(&self.config()).min(self.capacity)
    }

    /// Mints a ticket.
    pub(crate) fn mint(
        &self,
        route: &str,
        params: Params,
        minted_by: Option<String>,
        max_unused: Option<usize>,
        now: Instant,
    ) -> Result<Uuid, NoTicket> {
        let config = self.config();
        let wanted = config.routes.get(route).ok_or(NoTicket::UnknownRoute)?;
        let max_calls = self.max_calls();
        let mut state = self.state.lock();
        if state.draining.is_some() || state.is_last {
            return Err(NoTicket::Draining);
        }
        if state.running.len() + state.tickets.unused(now) >= max_calls {
            return Err(NoTicket::Full);
        }
        if state.is_full(wanted, now) {
            return Err(NoTicket::RouteFull);
        }
        let ticket = Ticket {
            route: route.into(),
            params: Arc::new(params),
            minted_by,
        };
        let max_unused = max_unused.unwrap_or(max_calls.div_ceil(2));
        let expires = now + config.server.ticket_lifetime;
        let minted = state.tickets.mint(ticket, max_unused, now, expires);
        minted.map_err(|MintError::TooManyUnused| NoTicket::TooManyUnused)
    }

    /// Lets a call in, or not.
    pub(crate) fn admit(self: &Arc<Self>, info: CallInfo) -> Admission {
        match self.admitted(info, Instant::now()) {
            Ok(call) => {
                let longest = call.route.max_duration;
                let longest = longest.or(self.config().server.max_duration);
                let handled = Handled {
                    call,
                    registry: Arc::clone(self),
                };
                let data: Admitted = Mutex::new(Some(handled));
                let admission = Admission::accept_with(data);
                match longest {
                    Some(longest) => admission.max_duration(longest),
                    None => admission,
                }
            }
            Err(rejection) => Admission::reject_with(rejection),
        }
    }

    fn admitted(&self, info: CallInfo, now: Instant) -> Result<Arc<RunningCall>, Rejection> {
        let config = self.config();
        let max_calls = self.max_calls();
        let mut state = self.state.lock();
        if state.running.contains_key(&info.id) {
            return Err(Rejection::AlreadyConnected);
        }
        let ticket = match state.tickets.claim(info.id, now) {
            Ok(ticket) => ticket,
            Err(ClaimError::Unknown) if config.server.tickets == TicketPolicy::Optional => {
                if state.draining.is_some() {
                    return Err(Rejection::Draining);
                }
                if state.running.len() + state.tickets.unused(now) >= max_calls {
                    return Err(Rejection::Full);
                }
                let route = config.server.default_route.clone();
                let route = route.ok_or(Rejection::NoRoute)?;
                if let Some(wanted) = config.routes.get(&route)
                    && state.is_full(wanted, now)
                {
                    return Err(Rejection::RouteFull);
                }
                Ticket {
                    route,
                    params: Arc::default(),
                    minted_by: None,
                }
            }
            Err(error) => return Err(error.into()),
        };
        let route = config.routes.get(&ticket.route);
        let route = Arc::clone(route.ok_or(Rejection::RouteGone)?);
        let call = Arc::new(RunningCall::new(info, ticket, route, now));
        state.running.insert(info.id, Arc::clone(&call));
        drop(state);
        self.bus
            .publish(GatewayEvent::Started(Arc::clone(&call.context)));
        Ok(call)
    }

    /// Takes note of a call that is over or was rejected.
    pub(crate) fn end(&self, summary: CallSummary) {
        let call = match summary.reason.is_rejected() {
            true => None,
            false => self.state.lock().running.get(&summary.id).cloned(),
        };
        match call {
            Some(call) if call.context.peer == summary.peer => {
                call.set_summary(summary);
                self.report_end_if_over(&call);
            }
            _ => {
                let rejection = summary.data::<Rejection>();
                self.reject(&summary, rejection.map(|it| *it));
            }
        }
    }

    fn report_end_if_over(&self, call: &Arc<RunningCall>) {
        let Some(summary) = call.take_end() else {
            return;
        };
        let result = CallResult {
            action: call.result(),
            minted_by: call.context.minted_by.clone(),
        };
        {
            let mut state = self.state.lock();
            state.running.remove(&summary.id);
            state
                .results
                .add(summary.id, result.clone(), Instant::now());
            state.totals.add_ended(&summary);
        }
        if let Some(dir) = self.leaving.get()
            && let Err(error) = dir.leave_result(summary.id, &result)
        {
            self.bus.publish(GatewayEvent::CallNotice {
                call: Arc::clone(&call.context),
                text: format!("the dialplan can't get the result, since state_dir fails: {error}"),
            });
        }
        self.bus.publish(GatewayEvent::Ended {
            call: Arc::clone(&call.context),
            summary,
            result: result.action.to_string(),
        });
        call.set_over();
    }

    fn reject(&self, summary: &CallSummary, rejection: Option<Rejection>) {
        let reason = match (rejection, summary.reason) {
            (Some(rejection), _) => rejection.name(),
            (None, EndReason::Full) => Rejection::Full.name(),
            (None, reason) => reason.name(),
        };
        let text = match rejection {
            Some(rejection) => rejection.text().to_owned(),
            None => summary.reason.to_string(),
        };
        self.state.lock().totals.add_rejected(reason);
        self.report_suppressed();
        if self.rejections.lock().allows(Instant::now(), 1) {
            self.bus.publish(GatewayEvent::Rejected {
                id: summary.id,
                peer: summary.peer,
                reason,
                text,
            });
        }
    }

    /// Reports how many rejections were not reported one by one, once a second.
    pub(crate) fn report_suppressed(&self) {
        let count = self.rejections.lock().take_due(Instant::now());
        if let Some(rejected) = count {
            self.bus.publish(GatewayEvent::Suppressed { rejected });
        }
    }

    pub(crate) fn running(&self) -> Vec<Arc<RunningCall>> {
        self.state.lock().running.values().cloned().collect()
    }

    pub(crate) fn call(&self, id: Uuid) -> Option<Arc<RunningCall>> {
        self.state.lock().running.get(&id).cloned()
    }

    pub(crate) fn result(&self, id: Uuid, now: Instant) -> ResultState {
        let mut state = self.state.lock();
        if let Some(call) = state.running.get(&id) {
            return ResultState::Running(Arc::clone(call));
        }
        match state.results.get(id, now) {
            Some(result) => ResultState::Over(result.clone()),
            None => ResultState::Unknown,
        }
    }

    /// What has been counted of calls that are over, and those that are running, at one moment: a call is in one of them, so
    /// that no sum of both ever falls.
    pub(crate) fn totals(&self) -> (Totals, Vec<Arc<RunningCall>>) {
        let state = self.state.lock();
        let running = state.running.values().cloned().collect();
        (state.totals.clone(), running)
    }

    /// Unused tickets, and what became of the others.
    pub(crate) fn tickets(&self, now: Instant) -> (usize, Counts) {
        let mut state = self.state.lock();
        (state.tickets.unused(now), state.tickets.counts())
    }

    /// Lets no new calls in, and says when the last ones are to be hung up; `None` ends that.
    pub(crate) fn drain(&self, until: Option<Instant>) {
        self.state.lock().draining = until;
    }

    pub(crate) fn draining(&self) -> Option<Instant> {
        self.state.lock().draining
    }

    /// Mints no more tickets, since no process follows that would take their calls.
    pub(crate) fn end_tickets(&self) {
        self.state.lock().is_last = true;
    }

    /// The process ends when its calls are over.
    pub(crate) fn close(&self) {
        self.is_closing.send_replace(true);
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.is_closing.borrow()
    }

    /// Waits until the process is to end.
    pub(crate) async fn closed(&self) {
        // It fails only if the sender is gone, and that is `self`.
        let _ = self
            .is_closing
            .subscribe()
            .wait_for(|closing| *closing)
            .await;
    }

    /// Leaves the results of calls there from now on.
    pub(crate) fn leave_results_in(&self, dir: HandoverDir) {
        let _ = self.leaving.set(dir);
    }

    /// A handler failed; its call is hung up.
    pub(crate) fn report_handler_error(&self, info: CallInfo, error: &HandlerError) {
        if let Some(call) = self.call(info.id) {
            self.bus.publish(GatewayEvent::CallNotice {
                call: Arc::clone(&call.context),
                text: format!("the call failed: {}", with_sources(error)),
            });
        }
    }

    pub(crate) fn save_tickets(&self) -> Saved {
        let mut state = self.state.lock();
        state.tickets.save(Instant::now(), SystemTime::now())
    }

    pub(crate) fn restore_tickets(&self, saved: Saved) -> usize {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.tickets.restore(saved, now, SystemTime::now())
    }

    /// The results that are kept.
    pub(crate) fn results(&self) -> Vec<(Uuid, CallResult)> {
        self.state.lock().results.all()
    }

    pub(crate) fn restore_results(&self, results: Vec<(Uuid, CallResult)>) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        for (id, result) in results {
            state.results.add(id, result, now);
        }
    }

    /// Waits until every call's end has been reported, for `longest` at most.
    pub(crate) async fn settle(&self, longest: Duration) {
        let all = async {
            for call in self.running() {
                call.over().await;
            }
        };
        let _ = tokio::time::timeout(longest, all).await;
    }
}
