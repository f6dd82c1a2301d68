//! What the handler asked for, applied to the call machine.

use std::time::Duration;

use sidetone_proto::{EndReason, Heard, Time};

use super::{Connection, Context};
use crate::media::{
    EndWanted,
    commands::{CommandQueue, Destination},
};

/// A clear whose result has not been published.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PendingClear {
    pub(super) heard: Heard,
    /// The playout queue has reported what was heard of its part.
    pub(super) is_playout_confirmed: bool,
    /// All commands that were queued before the clear have been taken.
    pub(super) has_all_commands: bool,
}

impl Connection {
    /// Applies what the handler has asked for since the last poll. The order of the reads matters:
    /// `shared/commands.rs` says why.
    pub(super) fn apply_commands(&mut self, now: Time, context: &mut Context<'_>) {
        // A reference, not a clone: a reference count for each slot of each call shows in a profile.
        let Some(call) = &self.call else {
            return;
        };
        let commands = &call.commands;
        commands.reset_poll_request();
        self.machine.set_max_duration(call.closing.max_duration());
        let (end_wanted, seen) = (commands.end_wanted(), commands.generation());
        let is_preroll_over = self.taps.keeps_preroll() && commands.is_preroll_over(now);
        let taken = commands.try_take(&mut context.scratch.commands);
        let is_contended = taken.is_none() && commands.is_filled();
        let generation = taken.unwrap_or(seen);
        if generation != self.generation {
            self.apply_clear(generation);
        }
        if taken.is_some() {
            self.apply_taken(now, generation, &mut context.scratch.commands);
        }
        if is_contended {
            context.schedule_retry();
        } else if is_preroll_over {
            self.taps.end_preroll();
        }
        if let Some(clear) = &mut self.pending_clear {
            clear.has_all_commands = !is_contended;
        }
        self.apply_end(now, end_wanted, is_contended);
    }

    fn apply_clear(&mut self, generation: u64) {
        self.generation = generation;
        self.machine.playout().clear();
        self.machine.jitter_buffer().clear();
        if let Some(call) = &self.call {
            call.set_queued(Duration::ZERO, Duration::ZERO);
        }
        self.pending_clear
            .get_or_insert_default()
            .is_playout_confirmed = false;
    }

    fn apply_taken(&mut self, now: Time, generation: u64, commands: &mut CommandQueue) {
        let mut destination = Destination {
            machine: &mut self.machine,
            playing: &mut self.playing,
            taps: &mut self.taps,
        };
        let applied = commands.apply(now, generation, &mut destination);
        if let Some(call) = &self.call {
            call.set_queued(applied.audio, self.machine.playout().queued());
        }
        if let Some(clear) = &mut self.pending_clear {
            clear.heard.unheard += applied.discarded;
        }
    }

    fn apply_end(&mut self, now: Time, wanted: EndWanted, is_contended: bool) {
        let machine = &mut self.machine;
        match wanted {
            EndWanted::No => {}
            // Commands that precede the end may still be in the queue.
            EndWanted::Finish if is_contended => {}
            EndWanted::Finish => machine.finish(EndReason::Finished),
            EndWanted::HangUp => machine.hang_up(now, EndReason::HungUp),
            EndWanted::Fail => machine.hang_up(now, EndReason::HandlerFailed),
            EndWanted::Refuse => machine.hang_up(now, EndReason::Refused),
            EndWanted::Shutdown => machine.hang_up(now, EndReason::Shutdown),
        }
    }
}
