//! Hooks over TLS.

use std::{env, fs, net::SocketAddr, path::Path, process::Stdio, sync::Arc};

use axum::serve::Listener;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use sidetone_gateway::hooks::{Hooks, HooksError};
use sidetone_websocket::tls::TlsError;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};

use super::{
    A, B, QUICK,
    receiver::{Answer, Receiver, endpoint},
    send, wait_until,
};

const THIS: &str = "hooks::tls::certificates_are_checked_against_those_that_the_machine_trusts";
/// Set for the process that does the test.
const CHILD: &str = "TEST_HOOKS_TLS";
/// Where rustls-native-certs finds what the machine trusts.
const TRUSTED: &str = "SSL_CERT_FILE";

/// Accepts TLS connections, and goes on after those that fail.
struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

async fn start(certified: &CertifiedKey<KeyPair>) -> Receiver {
    let key = certified.signing_key.serialize_der();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TlsListener { listener, acceptor };
    Receiver::start_on(listener, address, |_| Answer::Status(200))
}

/// What the process does that trusts only what is in this file.
async fn run(trusted: &Path) {
    let (known, unknown) = (certificate(), certificate());
    fs::write(trusted, known.cert.pem()).unwrap();
    let (mut known, unknown) = (start(&known).await, start(&unknown).await);
    let url = |it: &Receiver, host| format!("https://{host}:{}/", it.address.port());
    let open = |url: &str| Hooks::open_with(vec![endpoint(url)], None, QUICK).unwrap();
    let hooks = open(&url(&known, "localhost"));
    send(&hooks, A, 1);
    send(&hooks, B, 2);
    assert_eq!(known.take(2).await.len(), 2);
    wait_until(&hooks, |it| it.delivered == 2 && it.failed == 0).await;
    // The right certificate for another name, and one that nobody vouches for.
    for url in [url(&known, "127.0.0.1"), url(&unknown, "localhost")] {
        let hooks = open(&url);
        send(&hooks, A, 3);
        wait_until(&hooks, |it| it.failed >= 2 && it.delivered == 0).await;
    }
    assert_eq!((known.pending(), unknown.pending()), (0, 0));
    fs::write(trusted, "").unwrap();
    let error = Hooks::open(vec![endpoint("https://localhost/")], None).unwrap_err();
    assert!(
        matches!(error, HooksError::Tls(TlsError::NoCertificates)),
        "{error}"
    );
    // Which only those need that use them.
    Hooks::open(vec![endpoint("http://localhost/")], None).unwrap();
}

#[tokio::test]
async fn certificates_are_checked_against_those_that_the_machine_trusts() {
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
