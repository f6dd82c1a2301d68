use std::time::Duration;

use parking_lot::Mutex;
use sidetone_proto::{Rate, Time};

use crate::media::{Side, TapFrame, clock};

/// Pauses that are kept until what they concern has been written. More of them become one, so that nobody who plays with
/// the button takes memory.
const MAX_PAUSES: usize = 64;

/// A pause concerns no audio any more when it has been over for this long and the tap was emptied: longer than audio can be
/// held back anywhere.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// Offsets count samples of the caller's clock. Where it is slow, they lag more and more though nothing is late: by a part in
/// so many, which is more than any clock is off.
const MAX_DRIFT: i64 = 2_000;

/// Audio that comes later than this was held back.
const MAX_JITTER: Duration = Duration::from_millis(60);

/// What a program asks of a recording, for the thread that writes it.
///
/// The time of a request is read under the lock. The writer empties its tap first and takes the lock second. So a request
/// precedes no frame in its hands that it does not know of.
#[derive(Debug, Default)]
pub(super) struct Control(Mutex<Requests>);

#[derive(Debug, Default)]
pub(super) struct Requests {
    /// In order; only the last one may be open.
    pauses: Vec<Pause>,
    /// How long the pauses were that are not kept any more.
    paused: Duration,
    stopped: Option<Time>,
    /// The recording is over since then.
    ended: Option<Time>,
}

/// Time whose audio is not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    from: Time,
    /// `None` while it lasts.
    to: Option<Time>,
}

/// Replaces what was said in a pause by silence.
#[derive(Debug, Default)]
pub(super) struct PauseFilter {
    /// By how much the caller's audio comes later than its offset says at least, in nanoseconds.
    least_lag: Option<i64>,
    silenced: Vec<i16>,
}

/// The program's side.
impl Control {
    pub(super) fn pause(&self) {
        let mut requests = self.0.lock();
        requests.pause(clock::now());
    }

    pub(super) fn resume(&self) {
        let mut requests = self.0.lock();
        requests.resume(clock::now());
    }

    pub(super) fn stop(&self) {
        let mut requests = self.0.lock();
        requests.stop(clock::now());
    }

    pub(super) fn is_paused(&self) -> bool {
        let requests = self.0.lock();
        requests.ended.is_none() && requests.is_paused()
    }

    pub(super) fn paused(&self) -> Duration {
        let requests = self.0.lock();
        requests.paused(clock::now())
    }
}

/// The writer's side.
impl Control {
    pub(super) fn is_stopped(&self) -> bool {
        self.0.lock().stopped.is_some()
    }

    /// Fills in the pauses, and returns when the recording was stopped. To be called after the tap has been emptied.
    pub(super) fn read(&self, pauses: &mut Vec<Pause>) -> Option<Time> {
        let requests = self.0.lock();
        pauses.clone_from(&requests.pauses);
        requests.stopped
    }

    /// Forgets the pauses that can concern nothing that comes after `now`.
    pub(super) fn forget_before(&self, now: Time) {
        self.0.lock().forget_before(now);
    }

    /// The recording is over. Returns how long it was paused.
    pub(super) fn end(&self, at: Time) -> Duration {
        let mut requests = self.0.lock();
        let at = requests.stopped.unwrap_or(at);
        let ended = *requests.ended.get_or_insert(at);
        requests.paused(ended)
    }
}

impl Requests {
    fn is_paused(&self) -> bool {
        self.pauses.last().is_some_and(|last| last.to.is_none())
    }

    fn pause(&mut self, now: Time) {
        if self.is_over() || self.is_paused() {
            return;
        }
        let is_full = self.pauses.len() == MAX_PAUSES;
        match self.pauses.last_mut() {
            Some(last) if is_full => last.to = None,
            _ => self.pauses.push(Pause {
                from: now,
                to: None,
            }),
        }
    }

    fn resume(&mut self, now: Time) {
        if !self.is_over()
            && let Some(last) = self.pauses.last_mut()
        {
            last.to.get_or_insert(now);
        }
    }

    fn stop(&mut self, now: Time) {
        if !self.is_over() {
            self.stopped = Some(now);
        }
    }

    fn is_over(&self) -> bool {
        self.stopped.is_some() || self.ended.is_some()
    }

    fn forget_before(&mut self, now: Time) {
        let paused = &mut self.paused;
        self.pauses.retain(|pause| match pause.to {
            Some(to) if to + KEPT_FOR < now => {
                *paused += to - pause.from;
                false
            }
            _ => true,
        });
    }

    /// How long the recording has been paused by `now`, in all.
    fn paused(&self, now: Time) -> Duration {
        let end = self.stopped.or(self.ended).unwrap_or(now);
        let lengths = self.pauses.iter();
        let lengths = lengths.map(|pause| pause.to.unwrap_or(end).min(end) - pause.from);
        self.paused + lengths.sum::<Duration>()
    }
}

impl PauseFilter {
    /// The samples of a frame, with silence where they belong to one of the pauses. The call began at `began`.
    ///
    /// The file is silent from the moment of the pause on. What the caller said before the resumption stays out of it, too,
    /// even if it comes after it: a frame of 20 ms always does, and after a freeze seconds may.
    pub(super) fn apply<'a>(
        &'a mut self,
        pauses: &[Pause],
        began: Time,
        frame: &TapFrame,
        samples: &'a [i16],
    ) -> &'a [i16] {
        let produced = match frame.side {
            Side::Caller => self.spoken_at(began, frame, samples.len()),
            Side::Server => frame.at,
        };
        let silent = |pause: &Pause| pause.silent_part(frame.rate, frame.at, produced);
        let mut is_copied = false;
        for (first, end) in pauses.iter().map(silent) {
            let end = end.min(samples.len());
            if first < end {
                if !std::mem::replace(&mut is_copied, true) {
                    self.silenced.clear();
                    self.silenced.extend_from_slice(samples);
                }
                self.silenced[first..end].fill(0);
            }
        }
        match is_copied {
            true => &self.silenced,
            false => samples,
        }
    }

    /// When the caller said the first sample of a frame, at the latest.
    fn spoken_at(&mut self, began: Time, frame: &TapFrame, samples: usize) -> Time {
        let length = frame.rate.duration(samples as u64).as_nanos() as i64;
        let lag = frame.at.nanos_since(began + frame.offset) - length;
        let least = self.least_lag.map_or(lag, |least| {
            let is_late = lag - least > MAX_JITTER.as_nanos() as i64;
            let drift = if is_late { 0 } else { length / MAX_DRIFT };
            lag.min(least + drift)
        });
        self.least_lag = Some(least);
        frame.at.shifted(least - lag - length)
    }
}

impl Pause {
    /// The samples of a frame from the first to before the second belong to this pause. The frame came at `at` and its first
    /// sample was produced at `produced`.
    fn silent_part(&self, rate: Rate, at: Time, produced: Time) -> (usize, usize) {
        let first = rate.samples_in(self.from - at);
        let end = match self.to {
            None => u64::MAX,
            Some(to) if to <= produced => 0,
            // Also the sample in which it is resumed.
            Some(to) => rate.samples_in(to - produced) + 1,
        };
        let clamp = |samples| usize::try_from(samples).unwrap_or(usize::MAX);
        (clamp(first), clamp(end))
    }
}

#[cfg(test)]
mod tests;
