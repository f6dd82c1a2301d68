//! The end of a connection: the hang-up on the socket, and the report of the end to the handler and the server.

use std::{
    net::Shutdown,
    sync::{Arc, atomic::Ordering},
};

use sidetone_proto::{EndReason, Heard, Phase, SocketAction, Time};

use super::{Connection, Context};
use crate::{
    media::{CallShared, Excess, batch::Entry, codec::CallerAudio},
    stats::CallSummary,
};

/// How far the report of the call's end has come. Each step may have to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReport {
    Pending,
    /// The counters and the reason are final, the command queue is sealed, the taps are closed.
    Published,
    /// The handler has its last event, and the waiters have been collected.
    Delivered,
}

impl Connection {
    /// Reports what the poll has done, and closes the connection when it is over. Returns whether it stays open.
    pub(crate) fn poll_close(&mut self, now: Time, context: &mut Context<'_>) -> bool {
        self.announce_call(context);
        self.report_progress(context);
        let is_open = self.apply_socket_action(now);
        let is_end_reported = self.poll_end_report(now, context);
        is_open || !is_end_reported
    }

    /// Does to the socket what the call machine asks for. Returns false when the socket is to be closed.
    fn apply_socket_action(&mut self, now: Time) -> bool {
        loop {
            match self.machine.poll_socket_action(now) {
                SocketAction::Nothing => return true,
                SocketAction::ShutdownWrite => {
                    // It fails only on a broken connection, which the next read reports.
                    let _ = self.stream.shutdown(Shutdown::Write);
                }
                SocketAction::Close => return false,
            }
        }
    }

    /// Reports the end of the call to the handler and the server. Returns true when nothing is left to report.
    fn poll_end_report(&mut self, now: Time, context: &mut Context<'_>) -> bool {
        let (Phase::HangingUp { reason, .. }
        | Phase::Lingering { reason, .. }
        | Phase::Closed(reason)) = self.machine.phase()
        else {
            return false;
        };
        if self.end_report == EndReport::Delivered {
            return true;
        }
        // The completion of the last send polls this connection again.
        if self.machine.is_last_audio_in_flight() {
            return false;
        }
        let Some(call) = self.call.clone() else {
            self.report_end_without_call(reason, context);
            self.end_report = EndReport::Delivered;
            return true;
        };
        if self.end_report == EndReport::Pending {
            if !self.try_publish_end(&call, reason, now, context) {
                context.schedule_retry();
                return false;
            }
            self.end_report = EndReport::Published;
        }
        self.deliver_events(context);
        let are_waiters_taken = call.inbox.try_take_waiters(&mut context.scratch.wakes);
        if self.undelivered.is_empty() && are_waiters_taken {
            self.end_report = EndReport::Delivered;
            return true;
        }
        context.schedule_retry();
        false
    }

    /// Publishes the counters first and the end last. Returns false if the handler holds a lock.
    fn try_publish_end(
        &mut self,
        call: &Arc<CallShared>,
        reason: EndReason,
        now: Time,
        context: &mut Context<'_>,
    ) -> bool {
        self.inbound.release(&mut CallerAudio {
            batch: &mut context.scratch.batch,
            taps: &mut self.taps,
        });
        let playing = &self.playing;
        let is_published = call.status.try_set_counters(self.machine.counters())
            && call.commands.try_seal(
                &mut context.scratch.commands,
                &mut self.taps,
                |commands, taps| commands.discard_all(playing, taps),
            )
            && self.taps.try_end();
        if !is_published {
            return false;
        }
        // What the driver has not reported as sent counts as not sent.
        self.machine.playout().stop_all();
        self.poll_confirmed(context);
        for (_, playing) in self.playing.drain(..) {
            playing.finish(Heard::default());
        }
        context.shared.running.fetch_sub(1, Ordering::AcqRel);
        call.status.set_ended(reason, now);
        context.scratch.batch.push(Entry::Ended(reason));
        true
    }

    fn report_end_without_call(&self, reason: EndReason, context: &Context<'_>) {
        if let Some(id) = self.rejected {
            if self.excess == Some(Excess::Counted) {
                return;
            }
            let codec = self.inbound.codec();
            let summary = CallSummary::rejected(id, self.peer, codec, reason);
            return context.shared.arrivals.rejected(summary);
        }
        let counters = &context.shared.counters;
        if let EndReason::OtherProtocol(protocol) = reason {
            let count = &counters.other_protocols[protocol as usize];
            count.fetch_add(1, Ordering::Relaxed);
        }
        let is_closed_by_peer =
            matches!(reason, EndReason::NoIdentity | EndReason::ConnectionReset);
        if is_closed_by_peer && !self.machine.has_received() {
            counters.probes.fetch_add(1, Ordering::Relaxed);
        }
        // In this order: these are a part of `without_identity`, and are counted when that is.
        counters.without_identity.fetch_add(1, Ordering::Release);
        context.shared.arrivals.unidentified(self.peer, reason);
    }
}
