//! Every type that a public signature names has a name in this crate.
#![allow(clippy::unwrap_used)]

use std::error::Error;

use sidetone::{
    CallError, Clip, ClipError, FileName, IoBackend, Kind, Server, SoundError, UnsupportedRate,
};

#[test]
fn the_errors_of_clips_can_be_matched_to_the_last() {
    let UnsupportedRate { rate, .. } = match Clip::from_samples(1, vec![0]).unwrap_err() {
        ClipError::Rate(error) => error,
        error => panic!("{error}"),
    };
    assert_eq!(rate, 1);
    let ClipError::Sound(error) = Clip::open("/no such file").unwrap_err() else {
        panic!("it is no error of the file");
    };
    let name: &FileName = match &error {
        SoundError::Missing { name } => name,
        error => panic!("{error}"),
    };
    assert_eq!(name.path().unwrap().to_str(), Some("/no such file"));
}

#[test]
fn the_kind_of_an_unexpected_message_can_be_named() {
    let kind = |error: &CallError| -> Option<Kind> {
        match error {
            CallError::UnexpectedPayload { kind, .. } => Some(*kind),
            _ => None,
        }
    };
    assert_eq!(kind(&CallError::Memory), None);
}

#[test]
fn an_io_backend_has_the_name_that_the_environment_gives_it() {
    let names = [IoBackend::Auto, IoBackend::Epoll, IoBackend::IoUring].map(|it| it.to_string());
    assert_eq!(names, ["auto", "epoll", "io_uring"]);
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error_with_its_source() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::builder().bind(address).await.unwrap_err();
    let source = error.source().unwrap().downcast_ref::<std::io::Error>();
    assert_eq!(source.unwrap().kind(), std::io::ErrorKind::AddrInUse);
}
