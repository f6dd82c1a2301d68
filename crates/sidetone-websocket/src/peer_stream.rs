//! The stream below a WebSocket, which keeps what the WebSocket client would lose.
//!
//! A service that refuses the upgrade says why in a body that the client does not read. One that
//! closes an open connection says why in what is still to be read when writing fails, and the client
//! reads nothing after that.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

/// The longest reply accepted during the handshake, in bytes.
const MAX_HANDSHAKE_LEN: usize = 16 * 1024;
/// How long to wait for the rest of a refusal.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// How many headers are searched for the location of a redirect.
const MAX_HEADERS: usize = 64;

/// A stream that keeps what it receives until the WebSocket handshake is done. Afterwards a failed
/// write is kept, not returned, and what is written then is discarded.
pub(crate) struct PeerStream<S> {
    /// `Some` until it is dropped.
    stream: Option<S>,
    /// `Some` during the handshake.
    received: Option<Vec<u8>>,
    write_error: Option<io::Error>,
    /// Whether all that the other side sent was read.
    has_ended: bool,
    refused: Arc<Mutex<Option<Refused<S>>>>,
}

/// Where a [`PeerStream`] leaves itself if the handshake fails.
pub(crate) struct RefusedSlot<S>(Arc<Mutex<Option<Refused<S>>>>);

/// The stream of a refused handshake, and what it has received.
pub(crate) struct Refused<S> {
    stream: S,
    received: Vec<u8>,
    has_ended: bool,
}

/// The reason for a refusal, as far as it was sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) location: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl<S> PeerStream<S> {
    pub(crate) fn new(stream: S) -> (Self, RefusedSlot<S>) {
        let refused = Arc::default();
        let handshake = Self {
            stream: Some(stream),
            received: Some(Vec::new()),
            write_error: None,
            has_ended: false,
            refused: Arc::clone(&refused),
        };
        (handshake, RefusedSlot(refused))
    }

    /// Ends the handshake: from here on nothing is kept.
    pub(crate) fn established(&mut self) {
        self.received = None;
    }

    /// Whether all that the other side sent was read.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Why nothing can be written any more.
    pub(crate) fn write_error(&self) -> Option<&io::Error> {
        self.write_error.as_ref()
    }
}

impl<S> Drop for PeerStream<S> {
    fn drop(&mut self) {
        if let (Some(stream), Some(received)) = (self.stream.take(), self.received.take()) {
            *self.refused.lock() = Some(Refused {
                stream,
                received,
                has_ended: self.has_ended,
            });
        }
    }
}

impl<S: AsyncRead + Unpin> RefusedSlot<S> {
    /// Whether the reply ended before it was complete.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|it| it.has_ended)
    }

    /// What the service sent in place of the upgrade, with the rest of it that comes by `deadline`.
    pub(crate) async fn refusal(self, deadline: Instant) -> Refusal {
        let Some(mut refused) = self.0.lock().take() else {
            return Refusal::default();
        };
        // On a timeout, what was received so far has to do.
        let deadline = deadline.min(Instant::now() + REST_TIMEOUT);
        let _ = timeout_at(deadline, refused.read_rest()).await;
        parse(&refused.received).0
    }
}

impl<S: AsyncRead + Unpin> Refused<S> {
    async fn read_rest(&mut self) -> io::Result<()> {
        while !parse(&self.received).1 && self.received.len() < MAX_HANDSHAKE_LEN {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Parses a reply, and returns whether it is complete.
fn parse(received: &[u8]) -> (Refusal, bool) {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = response.parse(received) else {
        // Not HTTP.
        let refusal = Refusal {
            location: None,
            body: received.to_vec(),
        };
        return (refusal, true);
    };
    let value = |name: &str| {
        let mut headers = response.headers.iter();
        let header = headers.find(|it| it.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(header.value).into_owned())
    };
    let rest = &received[length..];
    let chunked = value("transfer-encoding").is_some_and(|it| it.ends_with("chunked"));
    let content_length = value("content-length").and_then(|it| it.trim().parse::<usize>().ok());
    let (body, is_complete) = match (chunked, content_length) {
        (true, _) => dechunk(rest),
        (false, Some(length)) => (
            rest[..length.min(rest.len())].to_vec(),
            rest.len() >= length,
        ),
        (false, None) => (rest.to_vec(), false),
    };
    let location = value("location");
    (Refusal { location, body }, is_complete)
}

/// The content of the chunks received, and whether the last one is among them.
fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((begin, length))) = httparse::parse_chunk_size(rest) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 {
            return (body, true);
        }
        let end = begin.saturating_add(length);
        body.extend_from_slice(&rest[begin..end.min(rest.len())]);
        // Each chunk ends with CR LF.
        rest = rest.get(end.saturating_add(2)..).unwrap_or_default();
    }
    (body, false)
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Ok(()));
        };
        let before = into.filled().len();
        ready!(Pin::new(stream).poll_read(context, into))?;
        this.has_ended |= into.filled().len() == before && into.remaining() > 0;
        if let Some(received) = &mut this.received {
            received.extend_from_slice(&into.filled()[before..]);
            if received.len() > MAX_HANDSHAKE_LEN {
                let text = "its reply is longer than the handshake of a WebSocket can be";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> PeerStream<S> {
    /// Does `write`, or returns `discarded` if no write can succeed any more.
    fn with_stream<T>(
        self: Pin<&mut Self>,
        discarded: T,
        write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let this = self.get_mut();
        if this.write_error.is_some() {
            return Poll::Ready(Ok(discarded));
        }
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match write(Pin::new(stream)) {
            Poll::Ready(Err(error)) if this.received.is_none() => {
                this.write_error = Some(error);
                Poll::Ready(Ok(discarded))
            }
            written => written,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with_stream(bytes.len(), |it| it.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|it| it.len()).sum();
        self.with_stream(all, |it| it.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(S::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream((), |it| it.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream((), |it| it.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_parses_wherever_it_is_split() {
        let lengthy = "HTTP/1.1 308 No\r\nlocation: wss://other\r\nContent-Length: 5\r\n\r\nwhy so";
        let chunked =
            "HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhy\r\n2\r\n ?\r\n0\r\n\r\n";
        let open = "HTTP/1.1 400 No\r\nServer: x\r\n\r\nwhy ?";
        for (answer, location, body, ends) in [
            (lengthy, Some("wss://other"), "why s", true),
            (chunked, None, "why ?", true),
            (open, None, "why ?", false),
        ] {
            let (refusal, is_complete) = parse(answer.as_bytes());
            assert_eq!(refusal.location.as_deref(), location);
            assert_eq!(String::from_utf8_lossy(&refusal.body), body);
            assert_eq!(is_complete, ends, "{answer}");
            // A prefix of the reply is a prefix of the refusal.
            let head = answer.find("\r\n\r\n").unwrap_or_default() + 4;
            for cut in head..answer.len() - 6 {
                let (refusal, is_complete) = parse(&answer.as_bytes()[..cut]);
                assert!(body.as_bytes().starts_with(&refusal.body), "{refusal:?}");
                assert!(!is_complete, "{}", &answer[..cut]);
            }
        }
        let (refusal, is_complete) = parse(b"SSH-2.0-OpenSSH_9.2\r\n");
        assert_eq!(refusal.body, b"SSH-2.0-OpenSSH_9.2\r\n");
        assert!(is_complete);
    }
}
