//! An echo of the library's that keeps what it was told and when: what a caller may lose to a busy machine, and not to the server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use sidetone::{Call, CodecNotice, Event, Rate, ServerBuilder};
use sidetone_caller::exact_runs;

use crate::serve::Served;
use crate::wire::FRAME;

/// What a live source covers once in [`BETWEEN_LONG_WAITS`]: frames that come later than this may leave a gap.
const COVERED: Duration = Duration::from_millis(12);
/// What it covers for all other frames.
const ALWAYS_COVERED: Duration = Duration::from_millis(3);
const BETWEEN_LONG_WAITS: Duration = Duration::from_secs(1);

/// An echo for one call.
pub(crate) struct Echo {
    pub(crate) served: Served,
    /// How much longer than its jitter asks for, each frame waits.
    prebuffer: Duration,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    /// When each frame came, and how much audio was before it.
    frames: Vec<(Instant, Duration)>,
    sounded: Duration,
    rates: Vec<Rate>,
    codec: Vec<CodecNotice>,
}

impl Echo {
    pub(crate) async fn start(builder: ServerBuilder) -> anyhow::Result<Self> {
        Self::prebuffered(builder, Duration::ZERO).await
    }

    pub(crate) async fn prebuffered(
        builder: ServerBuilder,
        prebuffer: Duration,
    ) -> anyhow::Result<Self> {
        let notes = Arc::<Mutex<Notes>>::default();
        let noted = Arc::clone(&notes);
        let handler = move |call| echo(call, prebuffer, Arc::clone(&noted));
        let served = Served::start(builder, handler).await?;
        Ok(Self {
            served,
            prebuffer,
            notes,
        })
    }

    /// The rates at which audio came in, each time it changed.
    pub(crate) fn rates(&self) -> Vec<Rate> {
        self.notes.lock().unwrap().rates.clone()
    }

    /// What the server said of the codec.
    pub(crate) fn notices(&self) -> Vec<CodecNotice> {
        self.notes.lock().unwrap().codec.clone()
    }

    /// How often the machine was too busy for an echo to be whole: frames reached the handler later than a live source covers,
    /// wherever on their way they were held up. None on a machine that has nothing else to do.
    pub(crate) fn disturbances(&self) -> usize {
        let notes = self.notes.lock().unwrap();
        let Some((start, _)) = notes.frames.first() else {
            return 0;
        };
        let offset = |(at, sounded): &(Instant, Duration)| {
            (*at - *start).as_nanos() as i64 - sounded.as_nanos() as i64
        };
        let earliest = notes.frames.iter().map(offset).min().unwrap_or_default();
        let is_within =
            |late: i64, covered: Duration| late <= (covered + self.prebuffer).as_nanos() as i64;
        let mut last_wait: Option<Instant> = None;
        let mut disturbances = 0;
        for frame in &notes.frames {
            let late = offset(frame) - earliest;
            if is_within(late, ALWAYS_COVERED) {
                continue;
            }
            let may_wait = last_wait.is_none_or(|last| frame.0 - last >= BETWEEN_LONG_WAITS);
            if !may_wait || !is_within(late, COVERED) {
                disturbances += 1;
            }
            last_wait = Some(frame.0);
        }
        disturbances
    }

    /// All that was said came back bit by bit in one piece, now that the call is over, but for what the machine disturbed: each
    /// disturbance can leave a gap, and a frame too many that is dropped later. Whatever broke, the server has counted.
    pub(crate) async fn is_exact(&mut self, said: &[i16], heard: &[i16]) -> anyhow::Result<()> {
        self.is_exact_but_for(0, said, heard).await
    }

    /// The same, with so many stalls more that only the caller noticed.
    pub(crate) async fn is_exact_but_for(
        &mut self,
        stalls: usize,
        said: &[i16],
        heard: &[i16],
    ) -> anyhow::Result<()> {
        let ended = self.served.ended().await?;
        let counted = ended.counters;
        // By the live source, or because the handler was late.
        let dropped = counted.live_dropped + ended.lagged;
        let runs = exact_runs(said, heard);
        let disturbances = self.disturbances() + stalls;
        let whole: usize = runs.iter().map(|run| run.length.min(said.len())).sum();
        let (breaks, lost) = (
            runs.len().saturating_sub(1),
            said.len().saturating_sub(whole),
        );
        if disturbances > 0 {
            eprintln!(
                "    the machine was too busy {disturbances} times: {breaks} breaks, {lost} samples lost"
            );
        }
        ensure!(!runs.is_empty(), "nothing came back; {counted:?}");
        ensure!(
            breaks <= 2 * disturbances,
            "{disturbances} disturbances, yet {runs:?}; {counted:?}"
        );
        ensure!(
            breaks as u64 <= counted.underruns + dropped,
            "not all of it is counted: {runs:?}; {counted:?}"
        );
        // Dropped frames are lost to the caller, gaps only come between. Where everything stands still, Asterisk can lose a frame, too.
        let slot = self
            .rates()
            .first()
            .map_or(FRAME, |rate| rate.slot_samples());
        ensure!(
            lost as u64 <= slot as u64 * (dropped + disturbances as u64),
            "{lost} samples are lost: {runs:?}; {counted:?}"
        );
        Ok(())
    }
}

async fn echo(mut call: Call, prebuffer: Duration, notes: Arc<Mutex<Notes>>) {
    let mut line = call.live();
    line.set_prebuffer(prebuffer);
    while let Some(event) = call.next().await {
        match event {
            Event::Audio(frame) => {
                line.push(frame.samples());
                let mut notes = notes.lock().unwrap();
                let came = (Instant::now(), notes.sounded);
                notes.frames.push(came);
                notes.sounded += frame.duration();
                if notes.rates.last() != Some(&frame.rate()) {
                    notes.rates.push(frame.rate());
                }
            }
            Event::Codec(notice) => notes.lock().unwrap().codec.push(notice),
            _ => {}
        }
    }
}
