/// Bytes that block the next message: the remainder of one that the kernel accepted in part, or a send whose result is
/// not known yet.
///
/// Nothing else may be written before them: Asterisk would take the next header for payload.
#[derive(Debug, Default)]
pub struct Unsent {
    remainder: Vec<u8>,
    /// Bytes of a send whose result is not known yet.
    in_flight: Option<usize>,
}

impl Unsent {
    /// Keeps what remains of `wire` after its first `sent` bytes, and ends any send in flight.
    pub fn set_remainder(&mut self, wire: &[u8], sent: usize) {
        self.in_flight = None;
        self.remainder.clear();
        self.remainder
            .extend_from_slice(wire.get(sent..).unwrap_or_default());
        if self.remainder.is_empty() {
            self.remainder = Vec::new();
        }
    }

    /// A send of `bytes` bytes has begun, whose result will be known later.
    pub fn set_in_flight(&mut self, bytes: usize) {
        self.in_flight = Some(bytes);
        self.remainder = Vec::new();
    }

    /// The bytes that must go out first.
    pub fn remainder(&self) -> &[u8] {
        &self.remainder
    }

    /// Whether there is a send whose result is not known yet.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// How many bytes are not known to have been accepted by the kernel.
    pub fn bytes(&self) -> usize {
        self.remainder.len() + self.in_flight.unwrap_or(0)
    }

    /// Whether the next message may go out.
    pub fn is_clear(&self) -> bool {
        self.remainder.is_empty() && self.in_flight.is_none()
    }
}
