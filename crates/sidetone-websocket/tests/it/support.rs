//! Servers on loopback.

use sidetone_websocket::{Connection, Endpoint, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    join,
    net::{TcpListener, TcpStream},
};
use tokio_websockets::{ServerBuilder, WebSocketStream};

pub(crate) type Peer = WebSocketStream<TcpStream>;

/// A listener, and its address as that of a WebSocket.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/path", listener.local_addr().unwrap());
    (listener, address)
}

/// Both ends of a connection.
pub(crate) async fn connected(request: &Request) -> (Connection, Peer) {
    let (listener, address) = listen().await;
    let endpoint = Endpoint::new(&address).unwrap();
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        ServerBuilder::new().accept(stream).await.unwrap().1
    };
    let (connection, peer) = join!(endpoint.connect(request), accept);
    (connection.unwrap(), peer)
}

/// A connection, and the other end's socket without WebSocket.
pub(crate) async fn connected_raw(request: &Request) -> (Connection, TcpStream) {
    let (connection, peer) = connected(request).await;
    (connection, peer.into_inner())
}

/// Reads a request, sends `response` and closes the connection.
pub(crate) async fn respond(listener: &TcpListener, response: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    stream.write_all(response.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    String::from_utf8(request).unwrap()
}
