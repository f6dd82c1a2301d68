use std::time::Duration;

/// What was said in one part of the call. Times are on the call's clock, which starts with the message
/// that holds the call's UUID.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcript {
    /// The words as the recognizer writes them, without white space around them.
    pub text: String,
    /// Whether the transcript is final. An interim transcript is replaced by the next one, interim or
    /// final.
    pub is_final: bool,
    /// Where the speech begins.
    pub start: Duration,
    /// Where it ends.
    pub end: Duration,
    /// The recognizer's confidence, from 0 to 1.
    pub confidence: Option<f32>,
    /// Each word with its time, if the recognizer reports them.
    pub words: Vec<Word>,
    /// The language recognized, as a BCP-47 tag such as `en-US`.
    pub language: Option<String>,
    /// For an interim transcript: how likely it is to stay, from 0 to 1.
    pub stability: Option<f32>,
}

impl Transcript {
    /// A transcript that has a text and a place only.
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
    /// The recognizer's confidence, from 0 to 1.
    pub confidence: Option<f32>,
}
