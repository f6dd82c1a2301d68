use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{Audio, SpeechError, Transcripts};

/// A provider's service, with its settings and how to talk to it.
///
/// An implementation handles one connection at a time. Buffering, reconnecting and reporting losses are
/// the same for all of them: see [`transcribe`](crate::transcribe).
pub trait Recognizer: Send + Sync + 'static {
    /// Where the caller's voice is sent, for people to read: a service and its address, without
    /// credentials.
    fn destination(&self) -> String;

    /// Runs one connection: reads `audio` and sends `transcripts` until one of them ends.
    ///
    /// `Ok` acknowledges everything read so far: either the audio has ended and every transcript was
    /// sent, or the service closed the connection in order. If there is more audio, `run` is called again
    /// at once.
    ///
    /// # Errors
    ///
    /// Why the connection failed. After a backoff `run` is called again, and its audio begins where
    /// final transcripts end; not so if the error [is final](SpeechError::is_final).
    ///
    /// # Cancel safety
    ///
    /// The future is dropped at any await point once the [`SpeechEvents`](crate::SpeechEvents) are dropped
    /// or the call has been over for too long.
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

/// The format of a call's audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Samples per second: 8000 for an ordinary call.
    pub hz: u32,
    /// The G.711 law the audio was sent with, if any. The samples are linear in any case. A recognizer
    /// whose service takes G.711 encodes them again, which halves the bytes and loses nothing: encoding
    /// what was decoded gives the same bytes.
    pub law: Option<sidetone_audio::g711::Law>,
}

impl Format {
    /// Linear samples at this rate in Hz.
    pub fn linear(hz: u32) -> Self {
        Self { hz, law: None }
    }
}
