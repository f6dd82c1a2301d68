/// What is in the way of the next message: the rest of one that the kernel took only a part of, or one whose
/// fate is not known yet.
///
/// Nothing else may be written before it: Asterisk would take the next header for payload.
#[derive(Debug, Default)]
pub struct Unsent {
    rest: Vec<u8>,
    /// How many bytes are under way.
    under_way: Option<usize>,
}

impl Unsent {
    /// Takes note that only `sent` bytes of `wire` went out.
    pub fn keep(&mut self, wire: &[u8], sent: usize) {
        self.under_way = None;
        self.rest.clear();
        self.rest
            .extend_from_slice(wire.get(sent..).unwrap_or_default());
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
    }

    /// Somebody else has so many bytes now, and will say what became of them.
    pub fn hand_over(&mut self, bytes: usize) {
        self.under_way = Some(bytes);
        self.rest = Vec::new();
    }

    /// The bytes that must go first.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Whether somebody else has bytes of which it is not known whether they were sent.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// How many bytes are not known to have been sent.
    pub fn length(&self) -> usize {
        self.rest.len() + self.under_way.unwrap_or(0)
    }

    /// Whether nothing is in the way of the next message.
    pub fn is_clear(&self) -> bool {
        self.rest.is_empty() && self.under_way.is_none()
    }
}
