//! Which I/O back end a server takes, and that it says so.
#![allow(clippy::unwrap_used)]

use sidetone::{IoBackend, Server};

/// Whether a server with this back end runs over io_uring, or why it can't start.
async fn is_io_uring(io_backend: IoBackend) -> Result<bool, sidetone::ServeError> {
    let server = Server::builder()
        .io_backend(io_backend)
        .bind("127.0.0.1:0")
        .await?;
    Ok(server.handle().stats().io_uring)
}

#[tokio::test]
async fn the_back_end_that_is_named_is_taken() {
    assert!(!is_io_uring(IoBackend::Epoll).await.unwrap());
    // Where it is not available, starting fails. It never falls back to epoll.
    assert!(is_io_uring(IoBackend::IoUring).await.unwrap_or(true));
}

#[tokio::test]
async fn left_to_itself_a_server_takes_io_uring_where_that_works() {
    let expected = match std::env::var("SIDETONE_IO_BACKEND") {
        Ok(named) => named == "io_uring",
        Err(_) => is_io_uring(IoBackend::IoUring).await.is_ok(),
    };
    assert_eq!(is_io_uring(IoBackend::Auto).await.unwrap(), expected);
}
