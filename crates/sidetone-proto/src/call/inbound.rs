//! What comes in: messages, the end of the stream, and where audio is missing.

use std::time::Duration;

use super::{CallMachine, EndReason, Notice, OtherProtocol, Phase, Received};
use crate::{Batch, ClockRecovery, Kind, Message, Pacer, Rate, Time, decoder::whole_messages};

/// A span without audio is reported in steps of this length in its first second.
const NO_AUDIO_FIRST_STEP: Duration = Duration::from_millis(100);

/// The same later, and how long the first steps last.
const NO_AUDIO_STEP: Duration = Duration::from_secs(1);

impl CallMachine {
    /// Handles bytes that were read at `now`, in order and however they were cut.
    ///
    /// | what comes | what happens |
    /// |---|---|
    /// | the first bytes are those of [another protocol](OtherProtocol) | ends the connection |
    /// | UUID | the schedule begins, a slot is due at once |
    /// | a second UUID | ignored, counted |
    /// | audio or DTMF before the UUID | dropped, counted: there is no call yet |
    /// | audio of length 0 | ignored, counted |
    /// | audio of any other length up to 65535 | one frame |
    /// | unknown kind | its payload is skipped, counted |
    /// | a known kind of impossible length | skipped, reported, counted; as the UUID it ends the call |
    /// | error | reported; with the hang-up bit it ends the call |
    /// | hang-up | ends the call |
    /// | anything after the end | discarded, counted in bytes |
    pub fn handle_received(&mut self, now: Time, bytes: &[u8], sink: &mut dyn FnMut(Received<'_>)) {
        if !std::mem::replace(&mut self.has_received, true)
            && let Some(protocol) = OtherProtocol::of(bytes)
        {
            self.phase = Phase::Closed(EndReason::OtherProtocol(protocol));
        }
        let mut decoder = std::mem::take(&mut self.decoder);
        let mut rest = bytes;
        let mut is_first_audio = true;
        loop {
            if self.is_over() {
                self.counters.bytes_after_end += rest.len() as u64;
                break;
            }
            let decoded = decoder.decode(rest);
            rest = &rest[decoded.consumed..];
            let Some(message) = decoded.message else {
                break;
            };
            match message {
                Message::Audio(audio) if audio.bytes.is_empty() => self.counters.empty_audio += 1,
                Message::Audio(audio) if self.started.is_some() => {
                    let duration = self.duration_of(audio.rate, audio.bytes.len());
                    if is_first_audio && !duration.is_zero() {
                        is_first_audio = false;
                        self.handle_batch(now, audio.rate, duration, rest);
                    }
                    self.count_audio(audio.rate, audio.bytes.len());
                    let offset = self.position;
                    self.position += duration;
                    sink(Received::Audio {
                        rate: audio.rate,
                        bytes: audio.bytes,
                        offset,
                    });
                }
                message => self.handle_control(now, message, sink),
            }
        }
        // Most reads end with a message. Then there is nothing to keep, and this check is cheaper than the copy.
        if decoder.is_mid_message() || decoder.memory() > 0 {
            self.decoder = decoder;
        }
    }

    /// Handles the end of the stream: the other side closed its direction, as Asterisk does whenever a call ends.
    pub fn handle_end_of_stream(&mut self) {
        self.playout.stop_all();
        self.phase = Phase::Closed(match self.phase {
            Phase::Opening => EndReason::NoIdentity,
            Phase::Running | Phase::Finishing(_) => EndReason::CallerHungUp,
            Phase::HangingUp { reason, .. }
            | Phase::Lingering { reason, .. }
            | Phase::Closed(reason) => reason,
        });
    }

    /// Handles the loss of the connection.
    ///
    /// After our own hang-up that is a normal end. A reset after audio counts as the caller's hang-up: in `Dial`,
    /// Asterisk may close with our audio unread when the caller hangs up, and then its host resets the connection.
    pub fn handle_connection_lost(&mut self, reason: EndReason) {
        self.playout.stop_all();
        self.phase = Phase::Closed(match self.phase {
            Phase::HangingUp { reason, .. }
            | Phase::Lingering { reason, .. }
            | Phase::Closed(reason) => reason,
            _ if reason == EndReason::ConnectionReset && self.counters.frames_in > 0 => {
                self.counters.reset = true;
                EndReason::CallerHungUp
            }
            _ => reason,
        });
    }

    /// Sets whether inbound `0x10` carries one byte a sample (µ-law or A-law) instead of two.
    ///
    /// A change after audio came in discards the gaps counted so far, since their lengths were computed with the wrong
    /// sample size.
    pub fn set_companded(&mut self, companded: bool) {
        if companded != self.companded {
            self.forget_gaps();
        }
        self.companded = companded;
    }

    /// Sets the rate of the linear samples that inbound `0x10` carries, if it is not the 8 kHz that the kind names.
    /// Asterisk sends other rates this way up to the releases that know other kinds.
    ///
    /// If audio that has come already is of the new rate, too, `moved` is the place on the call's clock that its first
    /// frame was given, and the one where it belongs.
    ///
    /// A change discards the gaps counted so far, as [`set_companded`](Self::set_companded) does.
    pub fn set_linear_rate(&mut self, rate: Rate, moved: Option<(Duration, Duration)>) {
        if rate == self.linear_rate {
            return;
        }
        if let Some((from, to)) = moved {
            let counted = self.position.saturating_sub(from) * self.linear_rate.hz();
            self.position = to + counted / rate.hz();
        }
        self.linear_rate = rate;
        self.forget_gaps();
    }

    fn handle_control(
        &mut self,
        now: Time,
        message: Message<'_>,
        sink: &mut dyn FnMut(Received<'_>),
    ) {
        match message {
            Message::Uuid(_) if self.started.is_some() => self.counters.second_uuids += 1,
            Message::Uuid(uuid) => {
                self.started = Some(now);
                self.last_inbound = now;
                self.last_audio = now;
                self.pacer = Pacer::new(now);
                self.clock_recovery = ClockRecovery::new(now);
                self.phase = match self.phase {
                    Phase::Opening => Phase::Running,
                    other => other,
                };
                sink(Received::Identified(uuid));
            }
            Message::Audio(_) => self.counters.before_uuid += 1,
            Message::Dtmf(_) if self.started.is_none() => self.counters.before_uuid += 1,
            Message::Dtmf(digit) => {
                self.counters.digits += 1;
                self.last_inbound = now;
                sink(Received::Dtmf {
                    digit,
                    offset: self.age(now),
                });
            }
            Message::Error(errors) => {
                self.counters.peer_errors += 1;
                sink(Received::PeerErrors(errors));
                if errors.hangup() {
                    self.handle_hangup(now);
                }
            }
            Message::Unknown { .. } => self.counters.unknown += 1,
            Message::Malformed { kind, length } => {
                self.counters.malformed += 1;
                sink(Received::Malformed { kind, length });
                if kind == Kind::Uuid && self.started.is_none() {
                    self.hang_up(now, EndReason::MalformedIdentity);
                }
            }
            Message::Hangup => self.handle_hangup(now),
        }
    }

    /// Handles the arrival of all audio that one read brought: a frame that lasts `frame`, with `rest` behind it.
    fn handle_batch(&mut self, now: Time, rate: Rate, frame: Duration, rest: &[u8]) {
        let is_last = |message: &Message<'_>| match message {
            Message::Hangup => true,
            Message::Error(errors) => errors.hangup(),
            _ => false,
        };
        let mut batch = Batch {
            read: frame + self.duration_of(rate, rest.len()),
            ..Batch::of(frame)
        };
        for message in whole_messages(rest).take_while(|message| !is_last(message)) {
            if let Message::Audio(audio) = message
                && !audio.bytes.is_empty()
            {
                batch.last_frame = self.duration_of(audio.rate, audio.bytes.len());
                batch.audio += batch.last_frame;
            }
        }
        let is_locked = self.clock_recovery.is_locked();
        let arrival = self.clock_recovery.handle_arrival(now, batch);
        self.position += arrival.missing;
        // Before the first audio nothing can be missed.
        if arrival.missing > Duration::ZERO && is_locked {
            self.counters.gaps += 1;
            self.counters.gap_time += arrival.missing;
        }
        self.pacer.slew(arrival.shift);
        self.last_inbound = now;
        self.last_audio = now;
        self.reported_no_audio = Duration::ZERO;
    }

    fn count_audio(&mut self, rate: Rate, length: usize) {
        self.counters.frames_in += 1;
        if rate != Rate::Slin {
            self.rate = rate;
        }
        let is_bytes = self.companded && rate == Rate::Slin;
        if !is_bytes && !length.is_multiple_of(2) {
            self.counters.odd_lengths += 1;
        }
    }

    fn forget_gaps(&mut self) {
        if let Some(started) = self.started {
            self.clock_recovery = ClockRecovery::new(started + self.position);
            self.counters.gaps = 0;
            self.counters.gap_time = Duration::ZERO;
        }
    }

    fn duration_of(&self, rate: Rate, bytes: usize) -> Duration {
        let samples = if self.companded && rate == Rate::Slin {
            bytes
        } else {
            bytes / 2
        };
        let rate = match rate {
            Rate::Slin => self.linear_rate,
            wideband => wideband,
        };
        rate.duration(samples as u64)
    }

    /// Reports the time without audio that is not reported yet.
    pub(super) fn report_no_audio(&mut self, now: Time, notices: &mut dyn FnMut(Notice<'_>)) {
        if self.phase != Phase::Running {
            return;
        }
        let silent = (now - self.last_audio).saturating_sub(self.rate.slot());
        loop {
            let duration = if self.reported_no_audio < NO_AUDIO_STEP {
                NO_AUDIO_FIRST_STEP
            } else {
                NO_AUDIO_STEP
            };
            if silent < self.reported_no_audio + duration {
                return;
            }
            let offset = self.position + self.reported_no_audio;
            self.reported_no_audio += duration;
            notices(Notice::NoAudio { offset, duration });
        }
    }
}
