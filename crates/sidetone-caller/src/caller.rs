use {
    crate::error::CallerError,
    crate::{Codec, Event, Generation, Mode, Rules, Voice, noise::noise},
    std::{fmt, net::SocketAddr, ops::Range, time::Duration},
    uuid::Uuid,
};

/// From one digit of a row to the next.
pub(crate) const DIGIT_SPACING: Duration = Duration::from_millis(250);

/// A frame leaves up to this much after its place on the 20 ms grid, so that the distance of two frames
/// lies between 14.5 and 25.5 ms: the usual spread of Asterisk 22.10.
const ASTERISK_JITTER: Duration = Duration::from_micros(5_500);

/// A call to be placed: where it goes, what it says, how it behaves.
///
/// All times count from the moment the UUID is sent.
///
/// ```no_run
/// use {sidetone_caller::{Caller, Voice}, std::time::Duration};
///
/// let record = Caller::new("127.0.0.1:9092".parse()?)
///     .say(Voice::Ramp(1))
///     .dtmf("12#", Duration::from_secs(1))
///     .hang_up_after(Duration::from_secs(3))
///     .call()?;
/// println!("{}: heard {} frames", record.ended.why, record.heard.len());
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
    pub(crate) deaf: Vec<Range<Duration>>,
    pub(crate) jitter: Option<u64>,
    pub(crate) start_after: Duration,
    pub(crate) uuid_after: Duration,
    pub(crate) hang_up_after: Option<Duration>,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) records: bool,
    pub(crate) observer: Observer,
}

impl Caller {
    /// A call to `address`: a random UUID, the application of generation [`G`](Generation::G), silence in
    /// 8 kHz frames of 20 ms, until the server hangs up.
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
            deaf: Vec::new(),
            jitter: None,
            start_after: Duration::ZERO,
            uuid_after: Duration::ZERO,
            hang_up_after: None,
            receive_buffer: None,
            send_buffer: None,
            records: true,
            observer: Observer(None),
        }
    }

    /// Says this UUID.
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

    /// Comes from the application or from the channel driver.
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

    /// Sends frames this long. Each is a whole number of samples; what is left over is not made up for.
    #[must_use]
    pub fn ptime(mut self, ptime: Duration) -> Self {
        self.ptime = ptime;
        self
    }

    /// Says this.
    #[must_use]
    pub fn say(mut self, voice: impl Into<Voice>) -> Self {
        self.voice = voice.into();
        self
    }

    /// Presses these digits: the first message at `when`, the others 250 ms apart. Can be called again for
    /// more.
    #[must_use]
    pub fn dtmf(mut self, digits: &str, when: Duration) -> Self {
        let times = (0..).map(|place| when + DIGIT_SPACING * place);
        self.digits.extend(times.zip(digits.chars()));
        self.digits.sort_by_key(|(when, _)| *when);
        self
    }

    /// Sends no frames in this time. What the voice says goes on afterwards where it stopped.
    #[must_use]
    pub fn mute_between(mut self, from: Duration, to: Duration) -> Self {
        self.mutes.push(from..to);
        self
    }

    /// Reads nothing in this time.
    #[must_use]
    pub fn stop_reading_between(mut self, from: Duration, to: Duration) -> Self {
        self.deaf.push(from..to);
        self
    }

    /// Spaces frames as unevenly as Asterisk does: 20 ms in the mean, 14.5 to 25.5 ms between two. The same
    /// seed gives the same spacing.
    #[must_use]
    pub fn jitter(mut self, seed: u64) -> Self {
        self.jitter = Some(seed);
        self
    }

    /// Connects only after this, counted from the start of the whole run: many callers that start at once
    /// are spread by it.
    #[must_use]
    pub fn start_after(mut self, delay: Duration) -> Self {
        self.start_after = delay;
        self
    }

    /// Says the UUID only this long after connecting, as ARI's create and dial do.
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

    /// Asks for a receive buffer of so many bytes (`SO_RCVBUF`).
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Asks for a send buffer of so many bytes (`SO_SNDBUF`): a small one makes a server that does not read
    /// show early. The default takes minutes to fill.
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// Keeps no frames and no sound, only [`Counts`](crate::Counts): for calls by the thousand.
    #[must_use]
    pub fn counts_only(mut self) -> Self {
        self.records = false;
        self
    }

    /// Tells `observer` what happens while it happens. It runs on the thread of all calls of the run, so it
    /// must not block.
    #[must_use]
    pub fn observe(mut self, observer: impl FnMut(Event<'_>) + Send + 'static) -> Self {
        self.observer = Observer(Some(Box::new(observer)));
        self
    }

    /// Whether what was asked for can be sent.
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

    /// The first frame of the caller's clock from `slot` on that is not muted, and when it is due.
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
            // Straight to the end of the mute, less one for the jitter.
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

type Watcher = Box<dyn FnMut(Event<'_>) + Send>;

pub(crate) struct Observer(Option<Watcher>);

impl Observer {
    pub(crate) fn tell(&mut self, event: Event<'_>) {
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
