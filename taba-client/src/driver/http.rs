//! [`HttpSink`]: an Agent over HTTP/1.1, by TCP or Unix socket, on one connection that is kept open.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use taba_core::HttpReason;
use taba_core::wire::{self, Frame, Kind, Receipt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::address::{AgentAddress, Transport};
use crate::buffer::SealedBatch;
use crate::sink::{Sink, SinkError};

/// Reasons of an Agent that say something of the network, not of the Batch: the body ended early, or has other bytes.
const BROKEN_ON_THE_WAY: [&str; 2] = [HttpReason::UNREADABLE.word, "checksum"];
/// An answer has at most this many bytes; a full Batch refused Block by Block takes 30 KiB.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

type Cause = Box<dyn Error + Send + Sync>;
type Connection = SendRequest<Full<Bytes>>;

/// An Agent over HTTP/1.1: `POST /v2/events`, one frame a Batch.
///
/// It must be used inside a tokio runtime that drives I/O and time; the thread of this library is one.
#[derive(Debug)]
pub struct HttpSink {
    address: AgentAddress,
    timeout: Duration,
    /// An open connection without a request. It is taken out for use, so that a request that was dropped half-way never
    /// leaves its answer to the next.
    connection: Mutex<Option<Connection>>,
}

impl HttpSink {
    /// An Agent at `address`; `timeout` bounds connecting, sending and the answer, together.
    pub fn new(address: AgentAddress, timeout: Duration) -> Self {
        Self { address, timeout, connection: Mutex::new(None) }
    }

    async fn connect(&self) -> Result<Connection, Cause> {
        match &self.address.transport {
            Transport::Tcp(target) => {
                let stream = TcpStream::connect(target).await?;
                stream.set_nodelay(true)?;
                handshake(stream).await
            }
            #[cfg(unix)]
            Transport::Unix(path) => handshake(tokio::net::UnixStream::connect(path).await?).await,
            #[cfg(not(unix))]
            Transport::Unix(_) => Err("this system has no unix sockets".into()),
        }
    }

    fn request(&self, frame: Bytes) -> Result<Request<Full<Bytes>>, Cause> {
        let request = Request::post(self.address.path.as_str())
            .header(HOST, self.address.host.as_str())
            .header(CONTENT_TYPE, wire::CONTENT_TYPE);
        let headers = self.address.headers.iter();
        let request = headers.fold(request, |request, header| request.header(header.name(), header.value()));
        Ok(request.body(Full::new(frame))?)
    }

    /// One request and its whole answer.
    async fn exchange(&self, frame: &Bytes) -> Result<Response<Bytes>, Cause> {
        let kept = self.connection.lock().await.take();
        if let Some(mut connection) = kept {
            // The Agent may close an idle connection at any time. The Batch can be repeated, so that is no failure yet.
            if connection.ready().await.is_ok() {
                if let Ok(answer) = self.exchange_on(connection, frame.clone()).await {
                    return Ok(answer);
                }
            }
        }
        let connection = self.connect().await?;
        self.exchange_on(connection, frame.clone()).await
    }

    async fn exchange_on(&self, mut connection: Connection, frame: Bytes) -> Result<Response<Bytes>, Cause> {
        let (head, body) = connection.send_request(self.request(frame)?).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        *self.connection.lock().await = Some(connection);
        Ok(Response::from_parts(head, body))
    }
}

async fn handshake<S>(stream: S) -> Result<Connection, Cause>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the connection does; its error also reaches the request that waits for an answer.
    tokio::spawn(async move { drop(driver.await) });
    Ok(connection)
}

#[async_trait]
impl Sink for HttpSink {
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
        let frame = batch.frame();
        let answer = match timeout(self.timeout, self.exchange(&frame)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(cause)) => return Err(SinkError::Unreachable(cause)),
            Err(elapsed) => return Err(SinkError::Unreachable(elapsed.into())),
        };
        read(&answer, &batch)
    }
}

/// What an answer says about a Batch.
fn read(answer: &Response<Bytes>, batch: &SealedBatch) -> Result<Receipt, SinkError> {
    let status = answer.status();
    let reason = || {
        serde_json::from_slice::<serde_json::Value>(answer.body())
            .ok()?
            .get("reason")?
            .as_str()
            .map(str::to_owned)
    };
    match status {
        StatusCode::OK => {
            let unexpected =
                |error: &dyn Error| SinkError::Unexpected { what: format!("no receipt: {error}") };
            let frame = Frame::decode(answer.body(), Kind::Receipt).map_err(|error| unexpected(&error))?;
            let receipt = Receipt::decode(&frame.message).map_err(|error| unexpected(&error))?;
            if receipt.seq == batch.seq() {
                return Ok(receipt);
            }
            Err(SinkError::Unexpected {
                what: format!("a receipt for {} instead of {}", receipt.seq, batch.seq()),
            })
        }
        // An answer without a reason is not from an Agent, and a later try may reach one.
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => match reason() {
            // It did not see the Batch as it is. To give it up now would also count as dropped what an earlier try may
            // have brought there.
            Some(reason) if BROKEN_ON_THE_WAY.contains(&reason.as_str()) => {
                Err(SinkError::Unexpected { what: format!("the batch broke on its way: {reason}") })
            }
            Some(reason) => Err(SinkError::Rejected { status: status.as_u16(), reason }),
            None => Err(SinkError::Unexpected { what: format!("status {status} without a reason") }),
        },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => {
            let seconds =
                answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Err(SinkError::Busy { status: status.as_u16(), retry_after: seconds.map(Duration::from_secs) })
        }
        _ => Err(SinkError::Unexpected { what: format!("status {status}") }),
    }
}
