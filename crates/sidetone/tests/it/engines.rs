//! Which way to talk to the kernel a server takes, and that it says so.
#![allow(clippy::unwrap_used)]

use sidetone::{Engine, Server};

/// Whether a server with this engine runs over io_uring, or why it can't start.
async fn is_io_uring(engine: Engine) -> Result<bool, sidetone::ServeError> {
    let server = Server::builder().engine(engine).bind("127.0.0.1:0").await?;
    Ok(server.handle().stats().io_uring)
}

#[tokio::test]
async fn the_engine_that_is_named_is_taken() {
    assert!(!is_io_uring(Engine::Epoll).await.unwrap());
    // Where it can't be had, starting fails; it never ends in another engine.
    assert!(is_io_uring(Engine::IoUring).await.unwrap_or(true));
}

#[tokio::test]
async fn left_to_itself_a_server_takes_io_uring_where_that_works() {
    let expected = match std::env::var("SIDETONE_ENGINE") {
        Ok(named) => named == "io_uring",
        Err(_) => is_io_uring(Engine::IoUring).await.is_ok(),
    };
    assert_eq!(is_io_uring(Engine::Auto).await.unwrap(), expected);
}
