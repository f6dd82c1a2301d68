//! Google Cloud Speech-to-Text v2, streaming over gRPC.
//!
//! This module handles the service's limits, so that a call can be of any length and have any
//! pauses:
//!
//! - A stream lasts five minutes at most. The next one opens before that, in a pause if there is
//!   one, and replays what has no final transcript yet. No word is lost and none comes twice.
//! - The service ends a stream after 10 s without audio. After 3 s without audio this module closes
//!   it, which also brings the last final transcript. The next audio opens a new stream.
//! - Audio must come in requests of at most 15 kB, about as fast as it is spoken. Requests hold 100
//!   ms, and what is replayed is sent at twice its speed at most.

mod access;
mod handover;
mod http_status;
mod reply;
mod request;
mod stream;

use std::{fmt, path::Path, time::Duration};

use futures_util::future::BoxFuture;
use tonic::transport::Channel;

use self::{access::Access, stream::Stream};
use crate::{Audio, Recognizer, SpeechError, Transcripts};

const SERVICE: &str = "Google Speech-to-Text";
/// The service ends a stream after 300 s.
const STREAM_LIMIT: Duration = Duration::from_secs(290);

/// The recognizer for Google Cloud Speech-to-Text.
///
/// One of these serves any number of calls: share it in an [`Arc`](std::sync::Arc), and they share
/// its connections and credentials. The credentials are those of the file named with
/// [`credentials`](Self::credentials), else the Application Default Credentials: the service
/// account in the file that `GOOGLE_APPLICATION_CREDENTIALS` names, else those of `gcloud auth
/// application-default login`, else the machine's own on Google Cloud. They are read with the first
/// call, and never logged.
///
/// The project is the one set with [`project`](Self::project), else that of `GOOGLE_CLOUD_PROJECT`,
/// else that of the credentials.
///
/// ```
/// use sidetone_speech::{Format, Recognizer, google::Google, transcribe};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let google = Google::new(["en-GB"]).region("europe-west4").model("chirp_2").phrases(["Sidetone"]);
/// assert_eq!(google.destination(), "Google Speech-to-Text at https://europe-west4-speech.googleapis.com");
/// let (input, events) = transcribe(google, Format::linear(8000));
/// # }
/// ```
pub struct Google {
    request: request::Settings,
    features: request::Features,
    access: Access,
    stream_limit: Duration,
}

impl Google {
    /// Recognizes speech in the first of these languages, or in any of them if the model can tell
    /// them apart. Give one to three BCP-47 tags such as `en-US`, or none for a recognizer that was
    /// created with its own.
    pub fn new<L: Into<String>>(languages: impl IntoIterator<Item = L>) -> Self {
        Self {
            request: request::Settings {
                languages: languages.into_iter().map(Into::into).collect(),
                region: "global".into(),
                recognizer: "_".into(),
                ..request::Settings::default()
            },
            features: request::Features::default(),
            access: Access::default(),
            stream_limit: STREAM_LIMIT,
        }
    }

    /// Sets the project, which is billed.
    #[must_use]
    pub fn project(mut self, id: impl Into<String>) -> Self {
        self.request.project = Some(id.into());
        self
    }

    /// Sets the recognizer's region, where the caller's voice is sent: `europe-west4`, `eu`, `us`,
    /// …. The default is `global`. Not every region has every model.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.request.region = region.into();
        self
    }

    /// Uses a recognizer that was created beforehand, by its ID. Its settings apply wherever none
    /// are made here.
    #[must_use]
    pub fn recognizer(mut self, id: impl Into<String>) -> Self {
        self.request.recognizer = id.into();
        self
    }

    /// Sets the model. The default is the recognizer's own if one is named, else `telephony` for
    /// calls at 8 kHz and `long` for higher rates.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.request.model = Some(name.into());
        self
    }

    /// Sets words and phrases to expect, at most 500 for most models.
    #[must_use]
    pub fn phrases<P: Into<String>>(mut self, phrases: impl IntoIterator<Item = P>) -> Self {
        self.request.phrases = phrases.into_iter().map(Into::into).collect();
        self
    }

    /// Uses a service account's key in place of the Application Default Credentials. `file` is the
    /// JSON file that Google issued. Its content is never logged.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if the file can't be read or holds no such key.
    pub fn credentials(mut self, file: impl AsRef<Path>) -> Result<Self, SpeechError> {
        self.access.set_credentials(file.as_ref())?;
        Ok(self)
    }

    /// Uses another address, such as that of a proxy or of a test server. With `http://…` the
    /// connection is not encrypted and no credentials are sent; set the [`project`](Self::project)
    /// then.
    #[must_use]
    pub fn endpoint(mut self, address: impl Into<String>) -> Self {
        self.access.endpoint = Some(address.into());
        self
    }

    /// Uses a channel made elsewhere, for what an address can't express: a Unix socket, an
    /// in-memory pipe, a tunnel. No credentials are sent over it.
    ///
    /// ```
    /// use sidetone_speech::google::Google;
    /// use tonic::transport::Endpoint;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let channel = Endpoint::from_static("http://127.0.0.1:4000").connect_lazy();
    /// let google = Google::new(["en-US"]).project("test").channel(channel);
    /// # }
    /// ```
    #[must_use]
    pub fn channel(mut self, channel: Channel) -> Self {
        self.access = Access::over(channel);
        self
    }

    /// Sets how long a stream lasts at most. The default is 290 s, as the service ends it after 300
    /// s. From 14/15 of the limit on, a pause ends it.
    #[must_use]
    pub fn stream_limit(mut self, limit: Duration) -> Self {
        self.stream_limit = limit;
        self
    }
}

impl Recognizer for Google {
    fn destination(&self) -> String {
        format!("{SERVICE} at {}", self.access.address(&self.request.region))
    }

    fn run<'a>(
        &'a self,
        audio: Audio,
        mut transcripts: Transcripts,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(async move {
            let mut stream = Stream::open(self, audio).await?;
            loop {
                let ended = stream.run(&mut transcripts).await?;
                let audio = match ended {
                    stream::Ended::NoAudio => return stream.finish(&mut transcripts).await,
                    stream::Ended::TooLong => stream.hand_over(&mut transcripts).await,
                    stream::Ended::ByService => stream.into_audio(),
                };
                stream = Stream::open(self, audio.replay()).await?;
            }
        })
    }
}

impl fmt::Debug for Google {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Google")
            .field("request", &self.request)
            .field("stream_limit", &self.stream_limit)
            .finish_non_exhaustive()
    }
}
