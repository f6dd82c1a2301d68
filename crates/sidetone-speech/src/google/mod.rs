//! Google Cloud Speech-to-Text v2, streaming over gRPC.
//!
//! What the service limits is dealt with here, so that a call may be as long and as silent as it likes:
//!
//! - A stream lasts five minutes at most. The next one begins before that, in a pause if there is one, and hears
//!   again what has no final transcript yet; no word is lost and none comes twice.
//! - A stream without audio is ended after 10 s. Where none comes for 3 s it is closed, which also brings the
//!   final transcript of what was said last, and the next one begins with the next audio.
//! - Audio must come in pieces of at most 15 kB, about as fast as it is spoken: pieces are 100 ms long, and
//!   what has to be heard again goes out at no more than twice its speed.

mod access;
mod ending;
mod plain;
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

/// The engine for Google Cloud Speech-to-Text.
///
/// One of these serves any number of calls: share it in an [`Arc`](std::sync::Arc), and they share its
/// connections and credentials. Unless [`credentials`](Self::credentials) names a file, these are the Application
/// Default Credentials: the service account in the file that `GOOGLE_APPLICATION_CREDENTIALS` names, else those of `gcloud auth application-default login`, else the
/// machine's own on Google Cloud. They are looked for with the first call, and never logged.
///
/// The project is the one that is set, else that of `GOOGLE_CLOUD_PROJECT`, else that of the credentials.
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
    /// For speech in the first of these languages, or in any of them where the model can tell them apart:
    /// BCP-47 tags such as `en-US`, three at most. There need not be any for a recognizer that was
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

    /// The project that pays.
    #[must_use]
    pub fn project(mut self, id: impl Into<String>) -> Self {
        self.request.project = Some(id.into());
        self
    }

    /// Where the recognizer is, and so where the voice goes: `global` unless set, else a region such as
    /// `europe-west4`, or `eu` or `us`. Not every model is everywhere.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.request.region = region.into();
        self
    }

    /// A recognizer that was created beforehand, by its id; its own settings hold wherever none are made here.
    #[must_use]
    pub fn recognizer(mut self, id: impl Into<String>) -> Self {
        self.request.recognizer = id.into();
        self
    }

    /// The model. Unless set it is the recognizer's own if one is named, else `telephony` for calls of 8 kHz
    /// and `long` for better ones.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.request.model = Some(name.into());
        self
    }

    /// Words and phrases that are likelier here than elsewhere, at most 500 of them for most models.
    #[must_use]
    pub fn phrases<P: Into<String>>(mut self, phrases: impl IntoIterator<Item = P>) -> Self {
        self.request.phrases = phrases.into_iter().map(Into::into).collect();
        self
    }

    /// The JSON file with the key of a service account, in place of the Application Default Credentials. What is in
    /// it is never logged.
    ///
    /// # Errors
    ///
    /// [`SpeechError::Settings`] if it can't be read or holds no such key.
    pub fn credentials(mut self, file: impl AsRef<Path>) -> Result<Self, SpeechError> {
        self.access.set_credentials(file.as_ref())?;
        Ok(self)
    }

    /// Another address, such as that of a proxy or of a test server. With `http://` the connection is in the
    /// clear and no credentials are sent: the project has to be named then.
    #[must_use]
    pub fn endpoint(mut self, address: impl Into<String>) -> Self {
        self.access.endpoint = Some(address.into());
        self
    }

    /// Speaks over this channel, made elsewhere, for what an address can't express: a Unix socket, a pipe in
    /// memory, a tunnel. No credentials are sent over it.
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

    /// How long a stream lasts at most; 290 s unless set, as the service ends it after 300. From 14/15 of it on
    /// a pause is looked for.
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
                let ended = stream.speak(&mut transcripts).await?;
                let audio = match ended {
                    stream::Ended::NoAudio => return stream.finish(&mut transcripts).await,
                    stream::Ended::TooLong => stream.hand_over(&mut transcripts).await,
                    stream::Ended::ByService => stream.into_audio(),
                };
                stream = Stream::open(self, audio.again()).await?;
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
