//! What happened on the connection, reported to the handler.

use sidetone_driver::unsent_bytes;
use sidetone_proto::Notice;

use super::{Connection, Context};
use crate::{event::Mark, media::batch::Entry};

impl Connection {
    /// Reports everything that has happened: what was heard, completed clears, events, progress.
    pub(super) fn report_progress(&mut self, context: &mut Context<'_>) {
        if self.machine.wants_poll_heard() {
            self.poll_confirmed(context);
        }
        self.publish_clear(context);
        self.deliver_events(context);
        self.wake_waiters(context);
    }

    /// Asks the kernel how much is unsent, and so finds what was heard of the items that have left the queue.
    pub(super) fn poll_confirmed(&mut self, context: &mut Context<'_>) {
        let unsent = unsent_bytes(&self.stream).ok();
        let (playing, clear) = (&mut self.playing, &mut self.pending_clear);
        let (batch, has_progress) = (&mut context.scratch.batch, &mut self.has_progress);
        self.machine.poll_heard(unsent, &mut |notice| match notice {
            Notice::Ended {
                item,
                is_whole,
                heard,
            } => {
                *has_progress = true;
                match playing.iter().position(|(id, _)| *id == item) {
                    Some(index) => {
                        let (_, playing) = playing.swap_remove(index);
                        if is_whole {
                            playing.note_whole();
                        }
                        playing.finish(heard);
                    }
                    None if is_whole => batch.push(Entry::Mark(Mark(item.0))),
                    None => {}
                }
            }
            Notice::Cleared(heard) => {
                if let Some(clear) = clear {
                    clear.heard = clear.heard.and(heard);
                    clear.is_playout_confirmed = true;
                }
            }
            Notice::Drained => batch.push(Entry::Drained),
            Notice::Slot { .. } | Notice::Underrun | Notice::NoAudio { .. } => {}
        });
    }

    fn publish_clear(&mut self, context: &mut Context<'_>) {
        if let Some(clear) = self.pending_clear
            && let Some(call) = &self.call
            && clear.is_playout_confirmed
            && clear.has_all_commands
        {
            if call.status.try_set_cleared(self.generation, clear.heard) {
                self.pending_clear = None;
                self.has_progress = true;
            } else {
                context.schedule_retry();
            }
        }
    }

    /// Moves the collected events to the inbox and collects the waker of the handler. Returns how many unread events
    /// there are that are never dropped.
    pub(super) fn deliver_events(&mut self, context: &mut Context<'_>) -> usize {
        let batch = &mut context.scratch.batch;
        let Some(call) = &self.call else {
            batch.clear();
            return 0;
        };
        if batch.is_empty() && self.undelivered.is_empty() {
            return 0;
        }
        match call.inbox.try_unread() {
            Some(mut unread) => {
                if !self.undelivered.is_empty() {
                    unread.batch.append(&mut self.undelivered);
                }
                unread.batch.append(batch);
                let dropped = unread.batch.drop_oldest(call.receive_buffer);
                call.inbox.set_waiting(unread.batch.buffered());
                call.status.add_lagged(dropped);
                context.scratch.wakes.extend(unread.waker.take());
                unread.batch.never_dropped()
            }
            None => {
                self.undelivered.append(batch);
                let dropped = self.undelivered.drop_oldest(call.receive_buffer);
                call.status.add_lagged(dropped);
                context.schedule_retry();
                self.undelivered.never_dropped()
            }
        }
    }

    fn wake_waiters(&mut self, context: &mut Context<'_>) {
        if self.has_progress
            && let Some(call) = &self.call
        {
            self.has_progress = !call.inbox.try_take_waiters(&mut context.scratch.wakes);
            if self.has_progress {
                context.schedule_retry();
            }
        }
    }
}
