//! [`serve`]: the accept loop, and a task for each connection.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_service::Service;

use crate::connections::{Connection, Connections, HEAD_BYTES_MAX, OpenConnection};
use crate::life::Life;
use crate::watched::Watched;

/// After so long without a word a peer is asked whether it is there.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often it is asked until it is taken for gone.
const PEER_ASK_INTERVAL: Duration = Duration::from_secs(10);
/// How long to wait after the system had no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that connections come from.
pub trait Accept: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection, and the address that it comes from.
    ///
    /// # Errors
    /// As the system's `accept`.
    fn next(&mut self) -> impl Future<Output = io::Result<(Self::Io, IpAddr)>> + Send;
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn next(&mut self) -> io::Result<(TcpStream, IpAddr)> {
        let (stream, peer) = self.accept().await?;
        // Without it answers are only slower.
        let _ = stream.set_nodelay(true);
        // Without it the connection of a peer that vanished without a word stays until a bound here closes it.
        let keepalive = TcpKeepalive::new().with_time(PEER_SILENCE_MAX).with_interval(PEER_ASK_INTERVAL);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        Ok((stream, peer.ip()))
    }
}

#[cfg(unix)]
impl Accept for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;

    /// All of them share an address: they come from this machine.
    async fn next(&mut self) -> io::Result<(Self::Io, IpAddr)> {
        Ok((self.accept().await?.0, Ipv4Addr::LOCALHOST.into()))
    }
}

/// Serves connections until the sender of `stop` is dropped; then accepts no more, and returns once those with a request in hand
/// have answered it.
///
/// # Cancel safety
/// When dropped, all its connections are closed.
pub async fn serve(
    mut listener: impl Accept,
    router: Router,
    connections: Arc<Connections>,
    stop: watch::Receiver<()>,
) {
    let mut tasks = JoinSet::new();
    let mut stopping = stop.clone();
    let accepting = async {
        loop {
            let (io, peer) = match next(&mut listener, &mut tasks).await {
                Ok(accepted) => accepted,
                Err(error) if is_of_its_peer(&error) => continue,
                Err(_) => {
                    // Out of file descriptors, mostly.
                    connections.close_one();
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let open = connections.admit(peer).await;
            tasks.spawn(live(io, open, router.clone(), stop.clone()));
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stopped(&mut stopping) => {}
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// The next connection; meanwhile, tasks that have ended are taken away.
async fn next<L: Accept>(listener: &mut L, tasks: &mut JoinSet<()>) -> io::Result<(L::Io, IpAddr)> {
    loop {
        tokio::select! {
            accepted = listener.next() => return accepted,
            // A panic of a handler ends its own connection only.
            Some(_) = tasks.join_next() => {}
        }
    }
}

fn is_of_its_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Returns when the sender was dropped.
async fn stopped(stop: &mut watch::Receiver<()>) {
    while stop.changed().await.is_ok() {}
}

async fn live(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    open: OpenConnection,
    router: Router,
    mut stop: watch::Receiver<()>,
) {
    let connection = Arc::clone(&open.connection);
    let service = Requests { router, connection: Arc::clone(&connection) };
    let io = TokioIo::new(Watched { io, connection });
    let mut http = pin!(http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).serve_connection(io, service));
    let serving = async {
        tokio::select! {
            // An error is its peer's: what was asked is asked again.
            _ = http.as_mut() => return,
            () = stopped(&mut stop) => http.as_mut().graceful_shutdown(),
        }
        let _ = http.await;
    };
    tokio::select! {
        () = serving => {}
        () = open.overdue() => {}
    }
}

/// The requests of one connection.
struct Requests {
    router: Router,
    connection: Arc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response<CountedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.connection.change(|life, _| life.request_came());
        let served = Served(Arc::clone(&self.connection));
        let answer = self.router.clone().call(request.map(Body::new));
        Box::pin(async move { Ok(answer.await?.map(|body| CountedBody { body, _served: served })) })
    }
}

/// A request in hand, until its answer is out.
struct Served(Arc<Connection>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.change(Life::answered);
    }
}

/// The body of an answer.
struct CountedBody {
    body: Body,
    _served: Served,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
