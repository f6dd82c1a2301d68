use std::{env, error::Error, path::Path, sync::Arc, time::Duration};

use gcp_auth::{ConfigDefaultCredentials, CustomServiceAccount, TokenProvider};
use hyper_util::client::legacy::connect::HttpConnector;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tonic::{
    metadata::{Ascii, MetadataMap, MetadataValue},
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::SERVICE;
use crate::SpeechError;

const SCOPES: &[&str] = &["https://www.googleapis.com/auth/cloud-platform"];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without an acknowledgement from the other end for this long is dead.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Finds a dead connection that has nothing to send. Google closes connections that ping more
/// often.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// The service accepts 100 streams on a connection; more would wait for one to end.
const MAX_STREAMS: usize = 50;

/// How the service is reached, and with which credentials.
#[derive(Default)]
pub(super) struct Access {
    pub(super) endpoint: Option<String>,
    channel: Option<Channel>,
    channels: Mutex<Vec<Arc<SharedChannel>>>,
    credentials: OnceCell<Credentials>,
}

/// A connection. Each of its streams holds a reference.
pub(super) struct SharedChannel(pub(super) Channel);

/// The credentials: from a file if one was named, else the Application Default Credentials.
struct Credentials {
    tokens: Arc<dyn TokenProvider>,
    /// A user's credentials belong to no project, so requests have to name one for billing.
    personal: bool,
}

/// Who a request is from.
pub(super) struct Caller {
    pub(super) project: String,
    authorization: Option<MetadataValue<Ascii>>,
    quota_project: Option<String>,
}

impl Caller {
    /// Adds the headers of a request to a recognizer. Its name also routes the request to the right
    /// region.
    pub(super) fn sign(&self, name: &str, to: &mut MetadataMap) -> Result<(), SpeechError> {
        to.insert(
            "x-goog-request-params",
            header(&format!("recognizer={name}"))?,
        );
        if let Some(authorization) = &self.authorization {
            to.insert("authorization", authorization.clone());
        }
        if let Some(project) = &self.quota_project {
            to.insert("x-goog-user-project", header(project)?);
        }
        Ok(())
    }
}

fn header(value: &str) -> Result<MetadataValue<Ascii>, SpeechError> {
    value.parse().map_err(|_| {
        SpeechError::Settings(format!(
            "{SERVICE}: {value} has characters that no project, region or recognizer can have"
        ))
    })
}

impl Access {
    pub(super) fn over(channel: Channel) -> Self {
        Self {
            channel: Some(channel),
            ..Self::default()
        }
    }

    /// Uses the service account whose key is in this file.
    pub(super) fn set_credentials(&mut self, file: &Path) -> Result<(), SpeechError> {
        let account = CustomServiceAccount::from_file(file).map_err(|error| {
            SpeechError::Settings(format!(
                "{} can't be used as credentials ({}): name the JSON file with the key of a service account",
                file.display(),
                reason(&error)
            ))
        })?;
        self.credentials = OnceCell::new_with(Some(Credentials {
            tokens: Arc::new(account),
            personal: false,
        }));
        Ok(())
    }

    pub(super) fn address(&self, region: &str) -> String {
        match (&self.endpoint, &self.channel) {
            (_, Some(_)) => "an address of your own".into(),
            (Some(address), None) => address.clone(),
            (None, None) if region == "global" => "https://speech.googleapis.com".into(),
            (None, None) => format!("https://{region}-speech.googleapis.com"),
        }
    }

    /// A connection with capacity for a stream. It connects when it is first used.
    pub(super) fn channel(&self, region: &str) -> Result<Arc<SharedChannel>, SpeechError> {
        if let Some(channel) = &self.channel {
            return Ok(Arc::new(SharedChannel(channel.clone())));
        }
        let mut channels = self.channels.lock();
        let mut has_idle = false;
        channels.retain(|channel| {
            Arc::strong_count(channel) > 1 || !std::mem::replace(&mut has_idle, true)
        });
        if let Some(channel) = channels
            .iter()
            .find(|it| Arc::strong_count(it) <= MAX_STREAMS)
        {
            return Ok(Arc::clone(channel));
        }
        let channel = Arc::new(SharedChannel(self.connect(region)?));
        channels.push(Arc::clone(&channel));
        Ok(channel)
    }

    fn connect(&self, region: &str) -> Result<Channel, SpeechError> {
        let address = self.address(region);
        let settings = |error: tonic::transport::Error| {
            let reason = error
                .source()
                .map_or(error.to_string(), |it| it.to_string());
            SpeechError::Settings(format!("{SERVICE} at {address}: {reason}"))
        };
        let mut endpoint = Endpoint::from_shared(address.clone())
            .map_err(settings)?
            .user_agent(concat!("sidetone/", env!("CARGO_PKG_VERSION")))
            .map_err(settings)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        if address.starts_with("https:") {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(settings)?;
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
        Ok(endpoint.connect_with_connector_lazy(tcp))
    }

    pub(super) async fn caller(&self, project: Option<&String>) -> Result<Caller, SpeechError> {
        let variable = |name| env::var(name).ok().filter(|it: &String| !it.is_empty());
        let project = project
            .cloned()
            .or_else(|| variable("GOOGLE_CLOUD_PROJECT"));
        if !self.needs_credentials() {
            return Ok(Caller {
                project: project.ok_or_else(unknown_project)?,
                authorization: None,
                quota_project: None,
            });
        }
        let credentials = self.credentials.get_or_try_init(Credentials::find).await?;
        let token = credentials.tokens.token(SCOPES).await.map_err(no_token)?;
        let mut authorization = MetadataValue::try_from(format!("Bearer {}", token.as_str()))
            .map_err(|_| {
                SpeechError::Settings(format!("{SERVICE}: the token is not a valid header"))
            })?;
        authorization.set_sensitive(true);
        let project = match project {
            Some(project) => project,
            None => {
                let known = credentials.tokens.project_id().await;
                known.map_err(|_| unknown_project())?.as_ref().into()
            }
        };
        let quota_project = variable("GOOGLE_CLOUD_QUOTA_PROJECT")
            .or_else(|| credentials.personal.then(|| project.clone()));
        Ok(Caller {
            project,
            authorization: Some(authorization),
            quota_project,
        })
    }

    fn needs_credentials(&self) -> bool {
        let is_plain_http = |it: &String| it.starts_with("http:");
        self.channel.is_none() && !self.endpoint.as_ref().is_some_and(is_plain_http)
    }
}

impl Credentials {
    async fn find() -> Result<Self, SpeechError> {
        let personal = match env::var_os("GOOGLE_APPLICATION_CREDENTIALS") {
            Some(_) => None,
            None => ConfigDefaultCredentials::new().await.ok(),
        };
        Ok(match personal {
            Some(tokens) => Self {
                tokens: Arc::new(tokens),
                personal: true,
            },
            None => Self {
                tokens: gcp_auth::provider().await.map_err(no_credentials)?,
                personal: false,
            },
        })
    }
}

fn unknown_project() -> SpeechError {
    SpeechError::Settings(format!(
        "{SERVICE}: no project: name one in GOOGLE_CLOUD_PROJECT or in the settings"
    ))
}

fn no_credentials(error: gcp_auth::Error) -> SpeechError {
    match error {
        // They were found, but not accepted for a token.
        gcp_auth::Error::NoAuthMethod(_, _, personal)
            if !matches!(*personal, gcp_auth::Error::Io(..)) =>
        {
            no_token(*personal)
        }
        gcp_auth::Error::NoAuthMethod(..) => SpeechError::Settings(format!(
            "{SERVICE}: no credentials on this machine: name the file of a service account in \
             GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login"
        )),
        error => SpeechError::Settings(format!(
            "{SERVICE}: the credentials can't be used ({}): name the file of a service account in \
             GOOGLE_APPLICATION_CREDENTIALS",
            reason(&error)
        )),
    }
}

fn no_token(error: gcp_auth::Error) -> SpeechError {
    let reason = format!("no token for the credentials: {}", reason(&error));
    match error {
        gcp_auth::Error::Str(_) => SpeechError::Refused {
            service: SERVICE,
            reason,
        },
        _ => SpeechError::Unavailable {
            service: SERVICE,
            reason,
        },
    }
}

/// The error's text without what was read: a JSON error quotes its input, which may be a secret.
fn reason(error: &gcp_auth::Error) -> String {
    match error {
        gcp_auth::Error::Json(..) => "it is not a file as Google issues it".into(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// A key that opens nothing.
    const KEY: &str = include_str!("../../tests/it/google/key.pem");
    const TOKEN: &str = "ya29.topsecret";

    /// Serves one token to one valid request.
    fn token_service() -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while !request.windows(10).any(|it| it == b"assertion=") {
                let read = socket.read(&mut chunk).unwrap();
                request.extend(&chunk[..read]);
            }
            let body =
                format!(r#"{{"access_token":"{TOKEN}","expires_in":3599,"token_type":"Bearer"}}"#);
            let length = body.len();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            write!(socket, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
            String::from_utf8(request).unwrap()
        });
        (format!("http://{address}/token"), served)
    }

    fn written(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    #[tokio::test]
    async fn the_credentials_of_a_file_sign_requests_and_know_their_project() {
        let (token_uri, served) = token_service();
        let account = serde_json::json!({
            "type": "service_account",
            "project_id": "from-the-file",
            "private_key": KEY,
            "client_email": "sidetone@from-the-file.example",
            "token_uri": token_uri,
        });
        let file = written(&account.to_string());
        let mut access = Access::default();
        access.set_credentials(file.path()).unwrap();
        let sender = access.caller(None).await.unwrap();
        let named = env::var("GOOGLE_CLOUD_PROJECT");
        assert_eq!(sender.project, named.as_deref().unwrap_or("from-the-file"));
        let mut metadata = MetadataMap::new();
        sender
            .sign(
                "projects/from-the-file/locations/global/recognizers/_",
                &mut metadata,
            )
            .unwrap();
        assert_eq!(
            metadata.get("authorization").unwrap().to_str().unwrap(),
            format!("Bearer {TOKEN}")
        );
        assert!(!format!("{metadata:?}").contains(TOKEN), "{metadata:?}");
        assert!(served.join().unwrap().starts_with("POST /token "));
    }

    #[test]
    fn a_file_without_credentials_is_refused_and_not_repeated() {
        for content in [
            "",
            "topsecret",
            r#""topsecret""#,
            r#"{"private_key": ["topsecret"]}"#,
        ] {
            let file = written(content);
            let error = Access::default()
                .set_credentials(file.path())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(&file.path().display().to_string()),
                "{error}"
            );
            assert!(error.contains("service account"), "{error}");
            assert!(!error.contains("topsecret"), "{error}");
        }
    }
}
