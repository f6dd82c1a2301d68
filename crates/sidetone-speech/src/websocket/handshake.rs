//! What comes before a WebSocket. Whoever refuses one says why in an answer that the WebSocket knows nothing of.

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
    time::timeout,
};

/// No service needs more to begin a WebSocket or to refuse one, in bytes.
const LONGEST: usize = 16 * 1024;
/// The rest of a refusal is not waited for any longer.
const REST: Duration = Duration::from_secs(1);
/// So many headers are looked through for where a service has moved to.
const HEADERS: usize = 64;

/// A stream over which a WebSocket begins. It keeps what comes until then.
pub(super) struct Beginning<S> {
    /// There until it is dropped.
    stream: Option<S>,
    came: Option<Vec<u8>>,
    refused: Arc<Mutex<Option<Refused<S>>>>,
}

/// Where a stream is left over which no WebSocket has begun.
pub(super) struct Left<S>(Arc<Mutex<Option<Refused<S>>>>);

/// A stream over which a WebSocket was refused, and what has come.
pub(super) struct Refused<S> {
    stream: S,
    came: Vec<u8>,
}

/// Why it was, as far as it was said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

impl<S> Beginning<S> {
    pub(super) fn new(stream: S) -> (Self, Left<S>) {
        let refused = Arc::default();
        let beginning = Self {
            stream: Some(stream),
            came: Some(Vec::new()),
            refused: Arc::clone(&refused),
        };
        (beginning, Left(refused))
    }

    /// It has begun: nothing is kept any more.
    pub(super) fn begun(&mut self) {
        self.came = None;
    }
}

impl<S> Drop for Beginning<S> {
    fn drop(&mut self) {
        if let (Some(stream), Some(came)) = (self.stream.take(), self.came.take()) {
            *self.refused.lock() = Some(Refused { stream, came });
        }
    }
}

impl<S: AsyncRead + Unpin> Left<S> {
    /// What was said in place of beginning a WebSocket.
    pub(super) async fn refusal(self) -> Refusal {
        let Some(mut refused) = self.0.lock().take() else {
            return Refusal::default();
        };
        // Whatever has come by then has to do.
        let _ = timeout(REST, refused.complete()).await;
        read(&refused.came).0
    }
}

impl<S: AsyncRead + Unpin> Refused<S> {
    async fn complete(&mut self) -> io::Result<()> {
        while !read(&self.came).1 && self.came.len() < LONGEST {
            if self.stream.read_buf(&mut self.came).await? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Reads an answer, and says whether it is whole.
fn read(came: &[u8]) -> (Refusal, bool) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = response.parse(came) else {
        // Something else than HTTP.
        let refusal = Refusal {
            location: None,
            body: came.to_vec(),
        };
        return (refusal, true);
    };
    let value = |name: &str| {
        let mut headers = response.headers.iter();
        let header = headers.find(|it| it.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(header.value).into_owned())
    };
    let rest = &came[length..];
    let chunked = value("transfer-encoding").is_some_and(|it| it.ends_with("chunked"));
    let announced = value("content-length").and_then(|it| it.trim().parse::<usize>().ok());
    let (body, whole) = match (chunked, announced) {
        (true, _) => chunks(rest),
        (false, Some(length)) => (
            rest[..length.min(rest.len())].to_vec(),
            rest.len() >= length,
        ),
        (false, None) => (rest.to_vec(), false),
    };
    let location = value("location");
    (Refusal { location, body }, whole)
}

/// The content of the chunks that came, and whether the last one is among them.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((begin, length))) = httparse::parse_chunk_size(rest) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 {
            return (body, true);
        }
        let end = begin.saturating_add(length);
        body.extend_from_slice(&rest[begin..end.min(rest.len())]);
        // A line's end follows each.
        rest = rest.get(end.saturating_add(2)..).unwrap_or_default();
    }
    (body, false)
}

impl<S: AsyncRead + Unpin> AsyncRead for Beginning<S> {
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
        if let Some(came) = &mut this.came {
            came.extend_from_slice(&into.filled()[before..]);
            if came.len() > LONGEST {
                let text = "its answer is longer than the beginning of a WebSocket can be";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Beginning<S> {
    fn with<T>(
        self: Pin<&mut Self>,
        write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.get_mut().stream {
            Some(stream) => write(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Beginning<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|it| it.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|it| it.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(S::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|it| it.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|it| it.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_however_it_is_cut() {
        let lengthy = "HTTP/1.1 308 No\r\nlocation: wss://other\r\nContent-Length: 5\r\n\r\nwhy so";
        let chunked =
            "HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhy\r\n2\r\n ?\r\n0\r\n\r\n";
        let open = "HTTP/1.1 400 No\r\nServer: x\r\n\r\nwhy ?";
        for (answer, location, body, ends) in [
            (lengthy, Some("wss://other"), "why s", true),
            (chunked, None, "why ?", true),
            (open, None, "why ?", false),
        ] {
            let (refusal, whole) = read(answer.as_bytes());
            assert_eq!(refusal.location.as_deref(), location);
            assert_eq!(String::from_utf8_lossy(&refusal.body), body);
            assert_eq!(whole, ends, "{answer}");
            // A piece of it is no more than that.
            let head = answer.find("\r\n\r\n").unwrap_or_default() + 4;
            for cut in head..answer.len() - 6 {
                let (refusal, whole) = read(&answer.as_bytes()[..cut]);
                assert!(body.as_bytes().starts_with(&refusal.body), "{refusal:?}");
                assert!(!whole, "{}", &answer[..cut]);
            }
        }
        let (refusal, whole) = read(b"SSH-2.0-OpenSSH_9.2\r\n");
        assert_eq!(refusal.body, b"SSH-2.0-OpenSSH_9.2\r\n");
        assert!(whole);
    }
}
