//! The Asterisk REST Interface: channels, bridges and external media, driven from outside the dialplan.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_websockets::ClientBuilder;

use crate::asterisk::Asterisk;
use crate::http::{self, percent_encoded};

/// User and password, as the lab's `ari.conf` has them.
const KEY: &str = "lab:lab";

/// How long Asterisk may take to answer a request.
const ANSWER: Duration = Duration::from_secs(10);

/// One Stasis application: its events, and the requests that steer its channels. Names are those of the channels' ids.
///
/// Asterisk's rule that a scenario has to keep: wait for a channel's `StasisStart` ([`Ari::started`]) before it is added to a
/// bridge, or Asterisk's audio thread may freeze (asterisk#2089).
///
/// ```no_run
/// # async fn example(asterisk: &sidetone_lab::Asterisk) -> Result<(), sidetone_lab::ari::AriError> {
/// use std::time::Duration;
/// use sidetone_lab::ari::Ari;
///
/// let mut ari = Ari::connect(asterisk, "bot").await?;
/// let server = ari.external_media("127.0.0.1:9092", "6b36bd2c-9d4c-4f5e-a1f9-000000000001", "slin16").await?;
/// ari.started(&server, Duration::from_secs(5)).await?;
/// let bridge = ari.bridge().await?;
/// ari.add_channel(&bridge, &server).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Ari {
    address: SocketAddr,
    application: String,
    http: ureq::Agent,
    events: mpsc::UnboundedReceiver<Value>,
    // Events that were passed over in waiting for another.
    kept: Vec<Value>,
    reader: AbortHandle,
}

impl Ari {
    /// Registers the application of this name and hears its events from now on.
    ///
    /// # Errors
    ///
    /// If Asterisk's HTTP server can't be reached, or its ARI is not there.
    pub async fn connect(asterisk: &Asterisk, application: &str) -> Result<Self, AriError> {
        let address = asterisk.http();
        let uri = format!("ws://{address}/ari/events?app={application}&api_key={KEY}");
        let uri = uri
            .parse::<ureq::http::Uri>()
            .map_err(|error| AriError::Events(error.to_string()))?;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| AriError::Events(error.to_string()))?;
        let opened = ClientBuilder::from_uri(uri).connect_on(stream).await;
        let (mut socket, _) = opened.map_err(|error| AriError::Events(error.to_string()))?;
        let (tell, events) = mpsc::unbounded_channel();
        let reader = tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                let event = message
                    .as_text()
                    .and_then(|text| serde_json::from_str(text).ok());
                if let Some(event) = event
                    && tell.send(event).is_err()
                {
                    break;
                }
            }
        });
        let http = http::agent(ANSWER);
        let application = application.to_owned();
        Ok(Self {
            address,
            application,
            http,
            events,
            kept: Vec::new(),
            reader: reader.abort_handle(),
        })
    }

    /// Places a call to an endpoint (`Local/tone@caller`, say) whose channel comes to this application when it has answered.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] with Asterisk's reason; so for every request.
    pub async fn originate(&self, endpoint: &str) -> Result<String, AriError> {
        let query = [("endpoint", endpoint), ("app", &self.application)];
        id_of(&self.request("POST", "channels", &query).await?)
    }

    /// Connects a channel to an AudioSocket server at `host` (`127.0.0.1:9092`), with the call's UUID and a codec of Asterisk's
    /// (`slin`, `slin16`, `ulaw` …). The connection is made, and the UUID said, before this answers.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] with Asterisk's reason.
    pub async fn external_media(
        &self,
        host: &str,
        uuid: &str,
        format: &str,
    ) -> Result<String, AriError> {
        let query = [
            ("app", self.application.as_str()),
            ("external_host", host),
            ("encapsulation", "audiosocket"),
            ("transport", "tcp"),
            ("format", format),
            ("data", uuid),
        ];
        id_of(
            &self
                .request("POST", "channels/externalMedia", &query)
                .await?,
        )
    }

    /// Creates a channel (`AudioSocket/HOST:PORT/UUID/c(slin)`, say) without dialling it. An AudioSocket channel connects now and
    /// says its UUID only when it is dialled.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] with Asterisk's reason.
    pub async fn create(&self, endpoint: &str) -> Result<String, AriError> {
        let query = [("endpoint", endpoint), ("app", &self.application)];
        id_of(&self.request("POST", "channels/create", &query).await?)
    }

    /// Dials a channel that was created.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] with Asterisk's reason.
    pub async fn dial(&self, channel: &str) -> Result<(), AriError> {
        self.request("POST", &format!("channels/{channel}/dial"), &[])
            .await
            .map(drop)
    }

    /// Makes a mixing bridge.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] with Asterisk's reason.
    pub async fn bridge(&self) -> Result<String, AriError> {
        id_of(
            &self
                .request("POST", "bridges", &[("type", "mixing")])
                .await?,
        )
    }

    /// Adds a channel to a bridge; wait for its [`started`](Self::started) first.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] with Asterisk's reason.
    pub async fn add_channel(&self, bridge: &str, channel: &str) -> Result<(), AriError> {
        self.request(
            "POST",
            &format!("bridges/{bridge}/addChannel"),
            &[("channel", channel)],
        )
        .await
        .map(drop)
    }

    /// Hangs a channel up.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] if it is gone already.
    pub async fn hang_up(&self, channel: &str) -> Result<(), AriError> {
        self.request("DELETE", &format!("channels/{channel}"), &[])
            .await
            .map(drop)
    }

    /// Takes a bridge down; its channels stay.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] if it is gone already.
    pub async fn remove_bridge(&self, bridge: &str) -> Result<(), AriError> {
        self.request("DELETE", &format!("bridges/{bridge}"), &[])
            .await
            .map(drop)
    }

    /// Waits until a channel has come to this application: Asterisk's `StasisStart`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub async fn started(&mut self, channel: &str, limit: Duration) -> Result<(), AriError> {
        self.wait(limit, |event| {
            event["type"] == "StasisStart" && event["channel"]["id"] == channel
        })
        .await
        .map(drop)
    }

    /// Waits until a channel has left this application, by hang-up for one: Asterisk's `StasisEnd`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub async fn ended(&mut self, channel: &str, limit: Duration) -> Result<(), AriError> {
        self.wait(limit, |event| {
            event["type"] == "StasisEnd" && event["channel"]["id"] == channel
        })
        .await
        .map(drop)
    }

    /// The first event that fits and has not been answered by an earlier wait, whether it came already or is still to come.
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`AriError::Late`] if none has come within `limit`.
    pub async fn wait(
        &mut self,
        limit: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, AriError> {
        if let Some(found) = self.kept.iter().position(&fits) {
            return Ok(self.kept.remove(found));
        }
        let deadline = Instant::now() + limit;
        loop {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) if fits(&event) => return Ok(event),
                Ok(Some(event)) => self.kept.push(event),
                Ok(None) => return Err(AriError::Events("Asterisk closed the connection".into())),
                Err(_) => return Err(AriError::Late { limit }),
            }
        }
    }

    /// Makes any request: `method` is GET, POST or DELETE, `path` what comes after `/ari/`. Answers the JSON, or null for none.
    ///
    /// # Errors
    ///
    /// [`AriError::Refused`] with Asterisk's reason.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Value, AriError> {
        let mut uri = format!("http://{}/ari/{path}?api_key={KEY}", self.address);
        for (key, value) in query {
            uri.push_str(&format!("&{key}={}", percent_encoded(value)));
        }
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(uri)
            .body(());
        let request = request.map_err(ureq::Error::from)?;
        let (status, body) = http::send(&self.http, request).await?;
        let text = String::from_utf8_lossy(&body);
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
            return Ok(json);
        }
        Err(AriError::Refused {
            request: format!("{method} {path}"),
            reason: format!("{status} {text}"),
        })
    }
}

impl Drop for Ari {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What can go wrong with ARI.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AriError {
    /// A request got no answer.
    #[error("Asterisk's HTTP server can't be reached: {0}")]
    Http(#[from] ureq::Error),
    /// The events' connection could not be made, or ended.
    #[error("ARI's events are not available: {0}")]
    Events(String),
    /// Asterisk refused a request.
    #[error("Asterisk refused {request}: {reason}")]
    Refused {
        /// Method and path.
        request: String,
        /// Status and Asterisk's words.
        reason: String,
    },
    /// What was waited for did not come.
    #[error("no event that fits came within {limit:?}; Asterisk's log says what happened instead")]
    Late {
        /// How long it was waited for.
        limit: Duration,
    },
}

fn id_of(thing: &Value) -> Result<String, AriError> {
    let id = thing["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| AriError::Refused {
        request: "a request".into(),
        reason: format!("no id in {thing}"),
    })
}
