use std::{fmt, net::SocketAddr, ops::Range, time::Duration};

use uuid::Uuid;

use crate::{CallerError, Codec, Event, Generation, Mode, Rules, Voice, noise::noise};

/// From one digit to the next of the same [`Caller::dtmf`].
pub(crate) const DIGIT_SPACING: Duration = Duration::from_millis(250);

/// A frame is due up to this much after its slot, so that two frames are 14.5 to 25.5 ms apart, as measured on
/// Asterisk 22.10.
const ASTERISK_JITTER: Duration = Duration::from_micros(5_500);

/// A call to be placed: its server, what it sends and how it behaves.
///
/// All times count from the sending of the UUID.
///
/// ```no_run
/// use std::time::Duration;
///
/// use sidetone_caller::{Caller, Voice};
///
/// let record = Caller::new("127.0.0.1:9092".parse()?)
///     .say(Voice::Ramp(1))
///     .dtmf("12#", Duration::from_secs(1))
///     .hang_up_after(Duration::from_secs(3))
///     .call()?;
/// println!("{}: heard {} frames", record.ended.cause, record.heard.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Caller {
    pub(crate) address: SocketAddr,
    pub(crate) uuid: Uuid,
    pub(crate) rules: Rules,
    pub(crate) mode: Mode,
    pub(crate) codec: Codec,
    pub(crate) ptime: Duration,
    pub(crate) voice: Voice,
    pub(crate) digits: Vec<(Duration, char)>,
    pub(crate) mutes: Vec<Range<Duration>>,
    pub(crate) read_pauses: Vec<Range<Duration>>,
    pub(crate) jitter: Option<u64>,
    pub(crate) start_after: Duration,
    pub(crate) uuid_after: Duration,
    pub(crate) hang_up_after: Option<Duration>,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) keeps_frames: bool,
    pub(crate) observer: Observer,
}

impl Caller {
    /// A call to `address`, with a random UUID, from the application of generation [`G`](Generation::G). It sends silence in
    /// 8 kHz frames of 20 ms until the server hangs up.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            uuid: Uuid::new_v4(),
            rules: Generation::default().rules(),
            mode: Mode::default(),
            codec: Codec::default(),
            ptime: Duration::from_millis(20),
            voice: Voice::default(),
            digits: Vec::new(),
            mutes: Vec::new(),
            read_pauses: Vec::new(),
            jitter: None,
            start_after: Duration::ZERO,
            uuid_after: Duration::ZERO,
            hang_up_after: None,
            receive_buffer: None,
            send_buffer: None,
            keeps_frames: true,
            observer: Observer(None),
        }
    }

    /// Sends this UUID.
    #[must_use]
    pub fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = uuid;
        self
    }

    /// Behaves by these rules: those of a [`Generation`], or changed ones.
    #[must_use]
    pub fn rules(mut self, rules: impl Into<Rules>) -> Self {
        self.rules = rules.into();
        self
    }

    /// Calls from the application or from the channel driver.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sends audio of this codec.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sends frames of this duration, rounded down to whole samples. The rounding is not made up for.
    #[must_use]
    pub fn ptime(mut self, ptime: Duration) -> Self {
        self.ptime = ptime;
        self
    }

    /// Sends the audio of this voice.
    #[must_use]
    pub fn say(mut self, voice: impl Into<Voice>) -> Self {
        self.voice = voice.into();
        self
    }

    /// Presses these digits: the first at `when`, the others 250 ms apart. Call it again for more digits.
    #[must_use]
    pub fn dtmf(mut self, digits: &str, when: Duration) -> Self {
        let times = (0..).map(|index| when + DIGIT_SPACING * index);
        self.digits.extend(times.zip(digits.chars()));
        self.digits.sort_by_key(|(when, _)| *when);
        self
    }

    /// Sends no frames in this time. Afterwards the voice continues where it stopped.
    #[must_use]
    pub fn mute_between(mut self, from: Duration, to: Duration) -> Self {
        self.mutes.push(from..to);
        self
    }

    /// Reads nothing from the socket in this time.
    #[must_use]
    pub fn stop_reading_between(mut self, from: Duration, to: Duration) -> Self {
        self.read_pauses.push(from..to);
        self
    }

    /// Spaces frames as unevenly as Asterisk 22.10 does: 20 ms on average, 14.5 to 25.5 ms between two. The same seed gives
    /// the same spacing.
    #[must_use]
    pub fn jitter(mut self, seed: u64) -> Self {
        self.jitter = Some(seed);
        self
    }

    /// Connects after this delay, counted from the start of [`call_all`](crate::call_all) or [`call`](Self::call). It spreads
    /// the starts of many callers.
    #[must_use]
    pub fn start_after(mut self, delay: Duration) -> Self {
        self.start_after = delay;
        self
    }

    /// Sends the UUID this long after connecting, as ARI's create and dial do.
    #[must_use]
    pub fn uuid_after(mut self, delay: Duration) -> Self {
        self.uuid_after = delay;
        self
    }

    /// Hangs up after this time. Without it the call lasts until the server ends it.
    #[must_use]
    pub fn hang_up_after(mut self, duration: Duration) -> Self {
        self.hang_up_after = Some(duration);
        self
    }

    /// Sets the size of the receive buffer in bytes (`SO_RCVBUF`).
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Sets the size of the send buffer in bytes (`SO_SNDBUF`). A small one soon shows that a server does not read; the
    /// default takes minutes to fill.
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// Keeps no frames and no samples, only [`Counts`](crate::Counts), to save memory with thousands of calls.
    #[must_use]
    pub fn counts_only(mut self) -> Self {
        self.keeps_frames = false;
        self
    }

    /// Calls `observer` with each event while the call runs. It runs on the thread of all calls, so it must not block.
    #[must_use]
    pub fn observe(mut self, observer: impl FnMut(Event<'_>) + Send + 'static) -> Self {
        self.observer = Observer(Some(Box::new(observer)));
        self
    }

    /// Whether the digits and frames can be sent.
    pub(crate) fn check(&self) -> Result<(), CallerError> {
        let bytes = self.codec.frame_bytes(self.ptime);
        if bytes == 0 || bytes > usize::from(u16::MAX) {
            return Err(CallerError::InvalidFrame(bytes));
        }
        match self.digits.iter().find(|(_, digit)| !is_digit(*digit)) {
            Some((_, digit)) => Err(CallerError::InvalidDigit(*digit)),
            None => Ok(()),
        }
    }

    /// The first slot from `slot` on whose frame is not muted, and when the frame is due.
    pub(crate) fn next_frame(&self, mut slot: u64) -> Option<(u64, Duration)> {
        if self.voice.is_nothing() {
            return None;
        }
        let ptime = self.ptime.as_nanos() as u64;
        loop {
            let due = ptime.checked_mul(slot.checked_add(1)?)?;
            let due = Duration::from_nanos(due.checked_add(self.jitter_of(slot))?);
            let Some(mute) = self.mutes.iter().find(|mute| mute.contains(&due)) else {
                return Some((slot, due));
            };
            // Skips to the end of the mute, less one slot for the jitter.
            let end = u64::try_from(mute.end.as_nanos() / u128::from(ptime)).ok()?;
            slot = (slot + 1).max(end.saturating_sub(1));
        }
    }

    fn jitter_of(&self, slot: u64) -> u64 {
        self.jitter.map_or(0, |seed| {
            noise(seed, slot) % ASTERISK_JITTER.as_nanos() as u64
        })
    }
}

fn is_digit(digit: char) -> bool {
    matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D')
}

type Callback = Box<dyn FnMut(Event<'_>) + Send>;

pub(crate) struct Observer(Option<Callback>);

impl Observer {
    pub(crate) fn notify(&mut self, event: Event<'_>) {
        if let Some(observer) = &mut self.0 {
            observer(event);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer" } else { "None" })
    }
}
