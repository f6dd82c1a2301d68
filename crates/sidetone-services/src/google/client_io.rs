use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::Notify,
    time::sleep,
};

use super::USER_TIMEOUT;

/// `ETIMEDOUT` on Linux.
const TIMED_OUT: i32 = 110;

/// A client's end of a connection, which times out some time after the network was unplugged.
pub(super) struct ClientIo {
    io: DuplexStream,
    death: Option<BoxFuture<'static, ()>>,
}

impl ClientIo {
    pub(super) fn new(io: DuplexStream, pulled: &Arc<Notify>) -> Self {
        let pulled = Arc::clone(pulled);
        let death = async move {
            pulled.notified().await;
            sleep(USER_TIMEOUT).await;
        };
        Self {
            io,
            death: Some(death.boxed()),
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let alive = |death: &mut BoxFuture<'_, ()>| death.poll_unpin(context).is_pending();
        if !self.death.as_mut().is_some_and(alive) {
            self.death = None;
            return Poll::Ready(Err(io::Error::from_raw_os_error(TIMED_OUT)));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
