use std::{fmt, time::Duration};

use sidetone_audio::resample::Resampler;
use sidetone_proto::Rate;

use crate::media::{CallRef, clock};

/// Audio that is made while it plays: an echo, a relay from another call, a voice that is being generated.
///
/// It starts at once, then waits as long as the jitter with which it is pushed asks for, and never holds more than
/// 80 ms: pushing never waits and never fails. What comes while queued audio plays is dropped. Where gaps are worse
/// than delay, give it a [prebuffer](Self::set_prebuffer).
///
/// Made by [`Call::live`](crate::Call::live) and [`Call::live_at`](crate::Call::live_at).
pub struct LiveAudio {
    shared: CallRef,
    /// The rate of what is pushed; that of the call's frames, unless given.
    hz: Option<u32>,
    keeps_bursts: bool,
    resampler: Option<Box<(u32, Rate, Resampler)>>,
    resampled: Vec<i16>,
}

impl LiveAudio {
    pub(crate) fn new(shared: CallRef, hz: Option<u32>) -> Self {
        Self {
            shared,
            hz,
            keeps_bursts: false,
            resampler: None,
            resampled: Vec::new(),
        }
    }

    /// Adds samples, to be heard as soon as possible. After the end of the call they go nowhere.
    pub fn push(&mut self, samples: &[i16]) {
        let rate = self.shared.rate();
        let hz = self.hz.unwrap_or(self.shared.inbound_rate().hz());
        match hz == rate.hz() {
            true => push(&self.shared, rate, samples, self.keeps_bursts),
            false => self.push_resampled(hz, rate, samples),
        }
    }

    /// Delays audio by `prebuffer` more than its jitter requires. Pushes may then be late by that much, now and then, without a
    /// gap. At most 80 ms and twice the prebuffer are held. The default is none.
    ///
    /// It holds from the beginning of live audio, so set it before the first [`push`](Self::push); else
    /// from the next beginning on, after a pause of 100 ms.
    ///
    /// ```
    /// use {sidetone::{Call, Event}, std::time::Duration};
    ///
    /// /// An echo that is whole even where the machine is busy elsewhere for 100 ms.
    /// async fn echo(mut call: Call) {
    ///     let mut line = call.live();
    ///     line.set_prebuffer(Duration::from_millis(100));
    ///     while let Some(event) = call.next().await {
    ///         if let Event::Audio(frame) = event {
    ///             line.push(frame.samples());
    ///         }
    ///     }
    /// }
    /// ```
    pub fn set_prebuffer(&self, prebuffer: Duration) {
        // After the end of the call there is nothing that could wait.
        let _ = self
            .shared
            .command(|commands| commands.live_prebuffer(prebuffer));
    }

    /// Plays what is pushed at once whole from now on, instead of keeping the delay below 80 ms: for a program that answers in
    /// pieces, and now and then with a whole announcement, or late and with all that it owes.
    ///
    /// What comes too early waits, up to ten minutes of it. A push of more than 80 ms is an announcement: it is played whole, and
    /// what is pushed after it waits for its turn. If shorter pushes wait longer than their jitter asks for, for seconds and while
    /// more come, the surplus is cut out. That, and what waits when the call changes its rate, is counted in
    /// [`Counters::live_dropped`](crate::Counters). What comes while queued audio plays goes as ever.
    ///
    /// ```
    /// /// A greeting at once, and then what a program makes.
    /// fn speak(call: &sidetone::Call, greeting: &[i16]) {
    ///     let mut line = call.live();
    ///     line.keep_bursts();
    ///     line.push(greeting);
    /// }
    /// ```
    pub fn keep_bursts(&mut self) {
        self.keeps_bursts = true;
        // After the end of the call there is nothing that could be kept.
        let _ = self.shared.command(|commands| commands.keep_bursts());
    }

    fn push_resampled(&mut self, hz: u32, rate: Rate, samples: &[i16]) {
        let made = self.resampler.as_ref();
        if made.is_none_or(|made| (made.0, made.1) != (hz, rate)) {
            self.resampler = Resampler::new(hz, rate.hz())
                .ok()
                .map(|resampler| Box::new((hz, rate, resampler)));
        }
        if let Some(made) = &mut self.resampler {
            self.resampled.clear();
            made.2.process(samples, &mut self.resampled);
            push(&self.shared, rate, &self.resampled, self.keeps_bursts);
        }
    }
}

fn push(shared: &CallRef, rate: Rate, samples: &[i16], keeps_bursts: bool) {
    let now = clock::now();
    // Live audio that is cleared or comes after the end is simply not heard.
    let _ = shared.submit(
        shared.generation(),
        Duration::ZERO,
        |commands| match keeps_bursts {
            true => commands.live_whole(rate, now, samples),
            false => commands.live(rate, now, samples),
        },
    );
    shared.note_live();
}

impl fmt::Debug for LiveAudio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveAudio")
            .field("call", &self.shared.id)
            .finish_non_exhaustive()
    }
}
