use std::time::Duration;

/// What somebody said. Times are on the call's own clock, which begins with the UUID.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    /// The words as the recognizer writes them, without white space around them.
    pub text: String,
    /// Whether this is its last word on that piece of the call. An interim transcript is replaced by the
    /// next one, interim or final.
    pub is_final: bool,
    /// Where the piece begins.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
    /// How sure the recognizer is, from 0 to 1.
    pub confidence: Option<f32>,
    /// Each word with its time, if the recognizer tells.
    pub words: Vec<Word>,
    /// The language found, as a BCP-47 tag such as `en-US`.
    pub language: Option<String>,
    /// For an interim transcript: how likely it is to stay, from 0 to 1.
    pub stability: Option<f32>,
}

impl Transcript {
    /// A transcript of nothing but its text and its place.
    pub fn new(text: impl Into<String>, is_final: bool, start: Duration, end: Duration) -> Self {
        Self {
            text: text.into(),
            is_final,
            start,
            end,
            confidence: None,
            words: Vec::new(),
            language: None,
            stability: None,
        }
    }
}

/// One word of a [`Transcript`].
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Where it begins on the call's clock.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
    /// How sure the recognizer is, from 0 to 1.
    pub confidence: Option<f32>,
}
