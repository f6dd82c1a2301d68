//! From the UUID to a call, or to its rejection.

use std::sync::{Arc, atomic::Ordering};

use sidetone_proto::{EndReason, Time};
use uuid::Uuid;

use super::{Connection, Context};
use crate::media::{CallShared, MediaShared, closing::Closing};

impl Connection {
    /// The UUID was received: creates the call, or rejects it.
    pub(super) fn handle_identified(&mut self, id: Uuid, now: Time, context: &mut Context<'_>) {
        let shared = context.shared;
        self.waiting = None;
        if let Err(reason) = self.admit(shared) {
            self.machine.hang_up(now, reason);
            self.taps.end_preroll();
            self.rejected = Some(id);
            shared.identified.fetch_add(1, Ordering::AcqRel);
            shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
            return;
        }
        shared.counters.calls.fetch_add(1, Ordering::Relaxed);
        let call = Arc::new(CallShared::new(
            id,
            self.peer,
            now,
            shared.config.receive_buffer,
            shared.config.playback_buffer,
            Closing::new(
                shared.config.call.max_duration,
                shared.config.max_duration_warning,
            ),
            context.handle.clone(),
            context.token,
        ));
        call.status.set_codec(self.inbound.codec());
        self.call = Some(call);
        self.is_unannounced = true;
    }

    /// Counts the call as running, unless it is to be rejected.
    fn admit(&self, shared: &MediaShared) -> Result<(), EndReason> {
        if self.excess.is_some() {
            return Err(EndReason::TooManyConnects);
        }
        if shared.draining.load(Ordering::Acquire) {
            return Err(EndReason::Shutdown);
        }
        if !shared.networks.load().contains(self.peer.ip()) {
            return Err(EndReason::NotAllowed);
        }
        let max_calls = shared.max_calls.load(Ordering::Relaxed);
        if shared.running.fetch_add(1, Ordering::AcqRel) >= max_calls {
            shared.running.fetch_sub(1, Ordering::AcqRel);
            return Err(EndReason::Full);
        }
        Ok(())
    }

    /// Announces a new call once its first slot has been prepared. Before that, the audio of a fast handler would
    /// go out with the arrival of the UUID, and Dial mostly drops that: its bridge is not ready yet.
    pub(super) fn announce_call(&mut self, context: &Context<'_>) {
        if let Some(call) = &self.call
            && self.is_unannounced
        {
            self.is_unannounced = false;
            // In this order: a call that counts as identified has been announced.
            context.shared.arrivals.arrived(Arc::clone(call));
            context.shared.identified.fetch_add(1, Ordering::AcqRel);
        }
    }
}
