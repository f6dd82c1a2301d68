//! The end of a call: its limits, the hang-up and the socket.

use std::time::Duration;

use super::{CallMachine, EndReason, Phase, SocketAction};
use crate::Time;

/// How long a call that was ended here may take to close: its last bytes, then the other side's end of stream.
const LINGER: Duration = Duration::from_secs(1);

impl CallMachine {
    /// Ends the call: the queue is discarded, the hang-up message goes out at once. A call that has ended keeps its
    /// first reason.
    pub fn hang_up(&mut self, now: Time, reason: EndReason) {
        if matches!(
            self.phase,
            Phase::Opening | Phase::Running | Phase::Finishing(_)
        ) {
            self.begin_hangup(now, reason);
        }
    }

    /// Ends the call when everything queued has been played: the hang-up message takes the place of the slot after the
    /// last.
    pub fn finish(&mut self, reason: EndReason) {
        if self.phase == Phase::Running {
            self.phase = Phase::Finishing(reason);
        }
    }

    /// What to do to the socket now.
    pub fn poll_socket_action(&mut self, now: Time) -> SocketAction {
        match self.phase {
            Phase::HangingUp {
                reason,
                is_encoded: true,
                ..
            } if self.unsent.is_clear() => {
                self.phase = Phase::Lingering {
                    reason,
                    until: now + LINGER,
                };
                SocketAction::ShutdownWrite
            }
            Phase::HangingUp { reason, until, .. } | Phase::Lingering { reason, until }
                if now >= until =>
            {
                self.phase = Phase::Closed(reason);
                SocketAction::Close
            }
            Phase::Closed(_) => SocketAction::Close,
            _ => SocketAction::Nothing,
        }
    }

    pub(super) fn begin_hangup(&mut self, now: Time, reason: EndReason) {
        self.enter_hangup(now, reason, false);
    }

    /// Handles a hang-up of the other side. It needs no answer but the shutdown.
    pub(super) fn handle_hangup(&mut self, now: Time) {
        self.enter_hangup(now, EndReason::HangupMessage, true);
    }

    fn enter_hangup(&mut self, now: Time, reason: EndReason, is_encoded: bool) {
        self.playout.stop_all();
        self.jitter_buffer.clear();
        self.phase = Phase::HangingUp {
            reason,
            until: now + LINGER,
            is_encoded,
        };
    }

    /// Ends the call if it has reached one of its limits.
    pub(super) fn check_limits(&mut self, now: Time) {
        let has_reached =
            |limit: Option<Duration>, time: Duration| limit.is_some_and(|limit| time >= limit);
        match self.phase {
            Phase::Opening if now >= self.accepted + self.config.identity_timeout => {
                self.hang_up(now, EndReason::IdentityTimeout);
            }
            Phase::Running | Phase::Finishing(_) => {
                if has_reached(self.config.max_duration, self.age(now)) {
                    self.hang_up(now, EndReason::MaxDuration);
                } else if has_reached(self.config.idle_timeout, now - self.last_inbound) {
                    self.hang_up(now, EndReason::IdleTimeout);
                }
            }
            _ => {}
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.playout.is_empty() && self.jitter_buffer.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(
            self.phase,
            Phase::HangingUp { .. } | Phase::Lingering { .. } | Phase::Closed(_)
        )
    }
}
