//! [`LimitedListener`]: a listener that accepts a limited number of connections; further ones wait.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// After so long without a word a peer is asked whether it is there.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often it is asked until it is taken for gone.
const PEER_ASK_INTERVAL: Duration = Duration::from_secs(10);

/// Has the system ask, after a minute of silence, whether the peer is still there: the connection of one that vanished without a
/// word would stay for good.
pub(super) fn notice_if_gone(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(PEER_SILENCE_MAX).with_interval(PEER_ASK_INTERVAL);
    // Without it the connection is as good.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// A listener with a limited number of connections.
pub(super) struct LimitedListener<L> {
    inner: L,
    permits: Arc<Semaphore>,
}

/// A connection, which returns its permit when it closes.
pub(super) struct PermittedConnection<I> {
    io: I,
    _permit: OwnedSemaphorePermit,
}

impl<L> LimitedListener<L> {
    /// Listeners that share `permits` share the bound.
    pub(super) fn new(inner: L, permits: Arc<Semaphore>) -> Self {
        Self { inner, permits }
    }
}

impl<L: Listener<Io: Unpin>> Listener for LimitedListener<L> {
    type Io = PermittedConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (io, addr) = self.inner.accept().await;
        (PermittedConnection { io, _permit: permit }, addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for PermittedConnection<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for PermittedConnection<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
