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
const CONNECT: Duration = Duration::from_secs(10);
/// After so long without a sign of the other end a connection is dead.
#[cfg(target_os = "linux")]
const DEAD: Duration = Duration::from_secs(10);
/// The same where only a question and no answer shows it. Google takes it amiss if asked too often.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// The service takes 100 streams on a connection; further ones would wait for one to end.
const STREAMS: usize = 50;

/// How the service is reached, and as whom.
#[derive(Default)]
pub(super) struct Access {
    pub(super) endpoint: Option<String>,
    given: Option<Channel>,
    lanes: Mutex<Vec<Arc<Lane>>>,
    identity: OnceCell<Identity>,
}

/// One connection. Whoever has a stream on it holds it.
pub(super) struct Lane(pub(super) Channel);

/// The credentials of a file that was named, or else Application Default Credentials.
struct Identity {
    tokens: Arc<dyn TokenProvider>,
    /// Credentials of a person belong to no project: the bill needs one.
    personal: bool,
}

/// What a request says of its sender.
pub(super) struct Sender {
    pub(super) project: String,
    authorization: Option<MetadataValue<Ascii>>,
    quota_project: Option<String>,
}

impl Sender {
    /// Signs a request for a recognizer, by whose name it also finds its way to the right region.
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
            "{SERVICE}: {value} has letters that no project, region or recognizer has"
        ))
    })
}

impl Access {
    pub(super) fn over(channel: Channel) -> Self {
        Self {
            given: Some(channel),
            ..Self::default()
        }
    }

    /// Is the service account whose key is in this file.
    pub(super) fn set_credentials(&mut self, file: &Path) -> Result<(), SpeechError> {
        let account = CustomServiceAccount::from_file(file).map_err(|error| {
            SpeechError::Settings(format!(
                "{} can't be used as credentials ({}): name the JSON file with the key of a service account",
                file.display(),
                reason(&error)
            ))
        })?;
        self.identity = OnceCell::new_with(Some(Identity {
            tokens: Arc::new(account),
            personal: false,
        }));
        Ok(())
    }

    pub(super) fn address(&self, region: &str) -> String {
        match (&self.endpoint, &self.given) {
            (_, Some(_)) => "an address of your own".into(),
            (Some(address), None) => address.clone(),
            (None, None) if region == "global" => "https://speech.googleapis.com".into(),
            (None, None) => format!("https://{region}-speech.googleapis.com"),
        }
    }

    /// A connection with room for a stream. It is made when it is first used.
    pub(super) fn lane(&self, region: &str) -> Result<Arc<Lane>, SpeechError> {
        if let Some(channel) = &self.given {
            return Ok(Arc::new(Lane(channel.clone())));
        }
        let mut lanes = self.lanes.lock();
        let mut kept = false;
        lanes.retain(|lane| Arc::strong_count(lane) > 1 || !std::mem::replace(&mut kept, true));
        if let Some(lane) = lanes.iter().find(|it| Arc::strong_count(it) <= STREAMS) {
            return Ok(Arc::clone(lane));
        }
        let lane = Arc::new(Lane(self.connect(region)?));
        lanes.push(Arc::clone(&lane));
        Ok(lane)
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
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1);
        if address.starts_with("https:") {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(settings)?;
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(DEAD));
        Ok(endpoint.connect_with_connector_lazy(tcp))
    }

    pub(super) async fn sender(&self, project: Option<&String>) -> Result<Sender, SpeechError> {
        let variable = |name| env::var(name).ok().filter(|it: &String| !it.is_empty());
        let project = project
            .cloned()
            .or_else(|| variable("GOOGLE_CLOUD_PROJECT"));
        if !self.needs_credentials() {
            return Ok(Sender {
                project: project.ok_or_else(unknown_project)?,
                authorization: None,
                quota_project: None,
            });
        }
        let identity = self.identity.get_or_try_init(Identity::find).await?;
        let token = identity.tokens.token(SCOPES).await.map_err(no_token)?;
        let mut authorization = MetadataValue::try_from(format!("Bearer {}", token.as_str()))
            .map_err(|_| SpeechError::Settings(format!("{SERVICE}: the token is none")))?;
        authorization.set_sensitive(true);
        let project = match project {
            Some(project) => project,
            None => {
                let known = identity.tokens.project_id().await;
                known.map_err(|_| unknown_project())?.as_ref().into()
            }
        };
        let quota_project = variable("GOOGLE_CLOUD_QUOTA_PROJECT")
            .or_else(|| identity.personal.then(|| project.clone()));
        Ok(Sender {
            project,
            authorization: Some(authorization),
            quota_project,
        })
    }

    fn needs_credentials(&self) -> bool {
        let plain = |it: &String| it.starts_with("http:");
        self.given.is_none() && !self.endpoint.as_ref().is_some_and(plain)
    }
}

impl Identity {
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
        "{SERVICE}: which project? Name it in GOOGLE_CLOUD_PROJECT or in the settings"
    ))
}

fn no_credentials(error: gcp_auth::Error) -> SpeechError {
    match error {
        // They are there, but could not be exchanged for a token.
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

/// What went wrong, without a word of what was read: a complaint about JSON repeats it, and it may be a secret.
fn reason(error: &gcp_auth::Error) -> String {
    match error {
        gcp_auth::Error::Json(..) => "it is not written as Google writes it".into(),
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

    /// Gives whoever asks properly, once, a token.
    fn token_service() -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !request.windows(10).any(|it| it == b"assertion=") {
                let read = socket.read(&mut piece).unwrap();
                request.extend(&piece[..read]);
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
        let sender = access.sender(None).await.unwrap();
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
