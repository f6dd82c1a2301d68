/// The rest of a message that the kernel took only a part of.
///
/// Nothing else may be written before it: Asterisk would take the next header for payload.
#[derive(Debug, Default)]
pub struct Unsent(Vec<u8>);

impl Unsent {
    /// Takes note that only `sent` bytes of `wire` went out.
    pub fn keep(&mut self, wire: &[u8], sent: usize) {
        self.0.clear();
        self.0
            .extend_from_slice(wire.get(sent..).unwrap_or_default());
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// The bytes that must go first.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether nothing is in the way of the next message.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
