//! Connections over TLS.

use std::{env, fs, path::Path, process::Stdio, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    generate_simple_self_signed,
};
use sidetone_websocket::{
    AddressError, ConnectError, Connection, Endpoint, Message, Received, Request,
    tls::{
        TlsError,
        rustls::{
            ServerConfig,
            crypto::ring,
            pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        },
    },
};
use tempfile::TempDir;
use tokio::{join, net::TcpListener, process::Command};
use tokio_rustls::TlsAcceptor;
use tokio_websockets::ServerBuilder;

const THIS: &str = "tls::certificates_are_checked";
/// Set for the process that does the test.
const CHILD: &str = "TEST_WEBSOCKET_TLS";
/// Where rustls-native-certs finds what the machine trusts.
const TRUSTED: &str = "SSL_CERT_FILE";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Connects to a server with a certificate for `name`, which answers one message with itself.
async fn connect(
    endpoint: impl FnOnce(&str) -> Endpoint,
    authority: &Authority,
    name: &str,
) -> Result<Connection, ConnectError> {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
            return;
        };
        let (_, mut socket) = ServerBuilder::new().accept(stream).await.unwrap();
        tokio::spawn(async move {
            let message = socket.next().await.unwrap().unwrap();
            socket.send(message).await.unwrap();
            while socket.next().await.is_some() {}
        });
    };
    let endpoint = endpoint(&format!("wss://localhost:{port}/"));
    let request = Request::default();
    join!(endpoint.connect(&request), serve).0
}

async fn assert_echo(connection: Result<Connection, ConnectError>) {
    let mut connection = connection.unwrap();
    // More than TLS puts into one record.
    let text = "x".repeat(100_000);
    connection.queue(Message::Text(text.clone()));
    assert_eq!(connection.next().await, Ok(Received::Text(text)));
    connection.close(1000).await;
}

fn assert_untrusted(connected: Result<Connection, ConnectError>, expected: &str) {
    let error = connected.unwrap_err();
    assert!(matches!(error, ConnectError::Unavailable { .. }));
    let text = error.to_string();
    assert!(
        text.starts_with("no TLS: ") && text.contains(expected),
        "{text}"
    );
}

/// What the process does that trusts only the authority in this file.
async fn run(trusted: &Path) {
    let (public, private) = (authority("public"), authority("private"));
    fs::write(trusted, public.pem()).unwrap();
    let private_file = trusted.with_file_name("private.pem");
    fs::write(&private_file, private.pem()).unwrap();
    let system = |address: &str| Endpoint::new(address).unwrap();
    let with_private = |address: &str| system(address).with_roots(&private_file).unwrap();

    assert_echo(connect(system, &public, "localhost").await).await;
    assert_echo(connect(with_private, &private, "localhost").await).await;
    let connected = connect(with_private, &private, "elsewhere.example").await;
    assert_untrusted(connected, "not valid for name");
    assert_untrusted(
        connect(system, &private, "localhost").await,
        "UnknownIssuer",
    );
    // The file's authorities are trusted in place of the machine's.
    let connected = connect(with_private, &public, "localhost").await;
    assert_untrusted(
        connected,
        "UnknownIssuer: is its authority among those trusted",
    );

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = system(&format!("wss://{}/", listener.local_addr().unwrap()));
    // Virtual time advances only while no task has work.
    tokio::time::pause();
    let error = silent.connect(&Request::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "no TLS within 10 s");

    let with_roots = |file: &Path| system("wss://localhost/").with_roots(file).unwrap_err();
    let missing = with_roots(Path::new("missing.pem")).to_string();
    assert!(
        missing.starts_with("the certificates in missing.pem"),
        "{missing}"
    );
    let key = generate_simple_self_signed(["x".to_owned()])
        .unwrap()
        .signing_key;
    for content in ["", &key.serialize_pem()] {
        fs::write(&private_file, content).unwrap();
        let empty = with_roots(&private_file).to_string();
        assert!(empty.contains("-----BEGIN CERTIFICATE-----"), "{empty}");
    }
    fs::write(trusted, "").unwrap();
    let error = Endpoint::new("wss://localhost/").unwrap_err();
    assert_eq!(error, AddressError::Tls(TlsError::NoCertificates));
    // Which only those need that use them.
    let plain = Endpoint::new("ws://localhost/").unwrap();
    let error = plain.with_roots(&private_file).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("ws://localhost/ has no certificate"),
        "{error}"
    );
}

/// In a process of its own, since what the machine trusts is set in the environment.
#[tokio::test]
async fn certificates_are_checked() {
    if let (Some(_), Some(trusted)) = (env::var_os(CHILD), env::var_os(TRUSTED)) {
        return run(Path::new(&trusted)).await;
    }
    let directory = TempDir::new().unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", THIS])
        .env(CHILD, "1")
        .env(TRUSTED, directory.path().join("trusted.pem"))
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}
