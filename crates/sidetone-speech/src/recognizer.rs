use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{Audio, SpeechError, Transcripts};

/// A recognizer with its settings: a service and how to talk to it.
///
/// An engine only has to know one connection. What is around it – the buffer, trying again, what was lost –
/// is the same for all of them: see [`transcribe`](crate::transcribe).
pub trait Recognizer: Send + Sync + 'static {
    /// Where the voice goes, for people to read: a service and its address, without credentials.
    fn destination(&self) -> String;

    /// Holds one connection: reads `audio`, tells `transcripts`, until one of them ends.
    ///
    /// `Ok` says that everything read so far is dealt with: the audio is at its end and all transcripts are
    /// told, or the service closed an orderly connection; if there is more audio, another `run` follows at
    /// once. After an `Err` the next `run` begins, a while later, with the first audio that has no final
    /// transcript yet. It is dropped wherever it waits when nobody listens any more.
    fn run<'a>(
        &'a self,
        audio: Audio,
        transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>>;
}

impl<R: Recognizer + ?Sized> Recognizer for Arc<R> {
    fn destination(&self) -> String {
        (**self).destination()
    }

    fn run<'a>(
        &'a self,
        audio: Audio,
        transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        (**self).run(audio, transcripts)
    }
}

/// What the audio of a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Samples per second: 8000 for an ordinary call.
    pub hz: u32,
    /// The companding under which it came, if it did. The samples are linear in any case; an engine whose
    /// service takes G.711 sends it so, which is half the bytes and loses nothing, as companding what was
    /// expanded gives the same bytes again.
    pub law: Option<sidetone_audio::g711::Law>,
}

impl Format {
    /// Linear samples of this rate in Hz.
    pub fn linear(hz: u32) -> Self {
        Self { hz, law: None }
    }
}
