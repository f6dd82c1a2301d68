//! What goes out: slots on their schedule, what a socket did not take, and what was heard.

use std::time::Duration;

use super::{CallMachine, Notice, Phase};
use crate::{Due, Outbound, Pulled, Rate, Time, encode_samples};

/// At most this many slots are written in one poll when some are late.
const MAX_SLOTS_PER_POLL: usize = 2;

impl CallMachine {
    /// Appends what is due at `now` to `wire`: nothing, one or two slots, or the hang-up message.
    ///
    /// `pcm` is a scratch buffer. What is appended must be sent before anything else and reported to
    /// [`handle_transmitted`](Self::handle_transmitted) or [`handle_send_pending`](Self::handle_send_pending). While
    /// bytes of an earlier message are unsent, slots pass unused.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        wire: &mut Vec<u8>,
        pcm: &mut Vec<i16>,
        notices: &mut dyn FnMut(Notice<'_>),
    ) {
        self.check_limits(now);
        self.report_no_audio(now, notices);
        self.align_to_live_audio(now);
        for _ in 0..MAX_SLOTS_PER_POLL {
            if !self.poll_slot(now, wire, pcm, notices) {
                break;
            }
        }
        if let Phase::HangingUp { is_encoded, .. } = &mut self.phase
            && !*is_encoded
            && self.unsent.is_clear()
        {
            *is_encoded = true;
            Outbound::Hangup.encode(wire);
        }
    }

    /// Appends the bytes that an earlier send left over. They go out as soon as the socket takes them.
    pub fn poll_unsent(&mut self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(self.unsent.remainder());
    }

    /// Handles the result of a send: the socket took the first `sent` bytes of `wire`, which a poll has filled.
    pub fn handle_transmitted(&mut self, wire: &[u8], sent: usize) {
        if sent < wire.len() {
            self.counters.short_writes += 1;
        }
        self.unsent.set_remainder(wire, sent);
    }

    /// Handles a send whose result is not known yet: `bytes` bytes are in flight.
    ///
    /// The caller reports the bytes that were not sent to [`handle_transmitted`](Self::handle_transmitted) later. Until
    /// then slots pass unused.
    pub fn handle_send_pending(&mut self, bytes: usize) {
        self.unsent.set_in_flight(bytes);
    }

    /// Whether [`poll_heard`](Self::poll_heard) may have something to report, and no send is pending.
    pub fn wants_poll_heard(&self) -> bool {
        self.playout.has_unreported() && !self.unsent.is_in_flight()
    }

    /// Whether the last audio is in flight together with the hang-up, so that what was heard of it will soon be known.
    pub fn is_last_audio_in_flight(&self) -> bool {
        let is_hanging_up = matches!(self.phase, Phase::HangingUp { .. });
        is_hanging_up && self.playout.has_unreported() && self.unsent.is_in_flight()
    }

    /// Reports what was heard of the audio that has been played, stopped or cleared.
    ///
    /// `unsent` is the number of bytes in the socket's send queue, or `None` if that can't be known. Bytes in flight
    /// count as not sent. While [`wants_poll_heard`](Self::wants_poll_heard) holds, the caller calls this again after
    /// the next slot.
    pub fn poll_heard(&mut self, unsent: Option<usize>, notices: &mut dyn FnMut(Notice<'_>)) {
        self.playout
            .poll_heard(self.unsent.bytes(), unsent, notices);
    }

    /// Whether bytes wait for the socket to become writable.
    pub fn wants_writable(&self) -> bool {
        !self.unsent.remainder().is_empty()
    }

    /// Appends the next slot if it is due; false if there is no other to look at now.
    fn poll_slot(
        &mut self,
        now: Time,
        wire: &mut Vec<u8>,
        pcm: &mut Vec<i16>,
        notices: &mut dyn FnMut(Notice<'_>),
    ) -> bool {
        if !matches!(self.phase, Phase::Running | Phase::Finishing(_)) || self.started.is_none() {
            return false;
        }
        let has_waited = self.slot_waits_until.is_some();
        self.slot_waits_until = self.poll_wait(now);
        if self.slot_waits_until.is_some() {
            return false;
        }
        if has_waited
            && let Some(place) = self.jitter_buffer.poll_reschedule(now, self.pacer.next())
        {
            self.pacer.restart(place);
        }
        let late = match self.pacer.due(now, self.rate.slot()) {
            Due::NotYet => return false,
            Due::Now { late } => late,
            Due::Slipped { missed, late } => {
                self.counters.slips += 1;
                self.counters.slots_missed += missed;
                late
            }
        };
        self.counters.record_lateness(late);
        if !self.unsent.is_clear() {
            self.counters.slots_skipped += 1;
            self.pacer.advance(self.rate.slot());
            return true;
        }
        if let Phase::Finishing(reason) = self.phase {
            self.playout.end_all();
            if self.is_finished() {
                self.begin_hangup(now, reason);
                return false;
            }
        }
        let rate = self.make_slot(now, late, pcm, notices);
        encode_samples(rate, pcm, wire);
        self.counters.frames_out += (pcm.len() / rate.message_samples()) as u64;
        self.pacer.advance(rate.slot());
        if let Some(shift) = self.jitter_buffer.requested_shift(self.pacer.next()) {
            self.pacer.step(shift);
        }
        true
    }

    /// Moves the schedule to the call's first live audio. It begins in silence, so nothing that plays is moved.
    fn align_to_live_audio(&mut self, now: Time) {
        if self.phase == Phase::Running
            && self.unsent.is_clear()
            && self.playout.is_empty()
            && let Some(start) = self.jitter_buffer.poll_start()
        {
            self.pacer.restart(start.max(now));
        }
    }

    /// Until when the next slot waits for live audio, if it is due and has none.
    fn poll_wait(&mut self, now: Time) -> Option<Time> {
        let slot = self.pacer.next();
        let needs_audio = self.phase == Phase::Running
            && now >= slot
            && self.unsent.is_clear()
            && self.playout.is_silent();
        if needs_audio {
            self.jitter_buffer.poll_wait(now, slot)
        } else {
            None
        }
    }

    /// Fills `pcm` with the next slot and returns its rate.
    fn make_slot(
        &mut self,
        now: Time,
        late: Duration,
        pcm: &mut Vec<i16>,
        notices: &mut dyn FnMut(Notice<'_>),
    ) -> Rate {
        pcm.clear();
        let queued = self.playout.pull(now, self.rate, pcm);
        let rate = match queued {
            Some(rate) => {
                self.jitter_buffer.clear();
                rate
            }
            // By the slot's own time: a slot that is written late does not make its audio early.
            None => match self.jitter_buffer.pull(self.pacer.next().min(now), pcm) {
                Pulled::Audio(rate) => rate,
                Pulled::Underrun(rate) => {
                    notices(Notice::Underrun);
                    rate
                }
                Pulled::Nothing => self.rate,
            },
        };
        if pcm.is_empty() {
            self.counters.silent_slots += 1;
            pcm.resize(rate.slot_samples(), 0);
        }
        if queued.is_none() {
            self.playout.record_other_slot(rate);
        }
        notices(Notice::Slot {
            rate,
            samples: pcm,
            late,
        });
        rate
    }
}
