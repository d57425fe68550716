//! [`Sender`]: brings one request to its Server, and the answer back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use taba_core::Timestamp;
use taba_core::wire::{self, Ack, Frame, Kind, WireError};
use tokio::time::timeout;

use super::lines::Lines;
use crate::config::{BODY_BYTES_MAX, Compression, Config, Verified};
use crate::dispatcher::{Cause, Input, Request};

/// A connection that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of an error answer that are read, to tell what it says.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// Brings requests to Servers. Cloning is cheap; clones share their connections.
#[derive(Clone)]
pub(super) struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    /// Of each Server: where Lanes go, and where they are checked.
    uris: Arc<[(Uri, Uri)]>,
    timeout: Duration,
    compression: wire::Compression,
    lines: Arc<Lines>,
    /// How many VBuckets this Agent has.
    ours: u16,
    vbuckets: Arc<VBucketsSeen>,
}

/// How many VBuckets Servers have, as the last one said; 0 before any did.
#[derive(Debug, Default)]
pub(super) struct VBucketsSeen(AtomicU16);

impl VBucketsSeen {
    /// `None` before any Server said it.
    pub(super) fn get(&self) -> Option<u16> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| *count > 0)
    }

    /// A Server said how many it has; a difference is logged when it is new.
    fn take(&self, server: &str, theirs: u16, ours: u16) {
        if self.0.swap(theirs, Ordering::Relaxed) != theirs && theirs != ours {
            tracing::error!(
                server,
                theirs,
                ours,
                "this agent is set to another number of vbuckets than its servers: start it with `--vbuckets` as theirs; \
                 what they do not take is kept until then, and cut anew"
            );
        }
    }
}

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the request could not be sent")]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    #[error("the server said {status}: {message}")]
    Status { status: StatusCode, message: String, retry_after: Option<Duration> },
    #[error("the answer could not be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer makes no sense")]
    Wire(#[from] WireError),
}

impl SendError {
    /// What it says about the Batches of the request.
    fn cause(&self) -> Cause {
        match self {
            Self::Request(error) if error.is_connect() => Cause::Unreached,
            Self::Request(_) | Self::Body(_) => Cause::Broken,
            Self::Timeout(_) | Self::Wire(_) => Cause::Away,
            Self::Status { status, .. } => match status.as_u16() {
                413 => Cause::TooLarge,
                408 | 425 | 429 => Cause::Away,
                400..500 => Cause::Refused,
                // A Server failed on it; or a proxy saw the connection to one break.
                500 | 502 => Cause::Broken,
                _ => Cause::Away,
            },
        }
    }
}

impl Sender {
    pub(super) fn new(config: &Verified<Config>, lines: Arc<Lines>, vbuckets: Arc<VBucketsSeen>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(config.connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.requests_per_server_max)
            .build(connector);
        let uri = |url: &str, path: &str| {
            format!("{url}{path}").parse().expect("a ServerUrl was checked when it was made")
        };
        let both = |url: &str| (uri(url, "/v2/lanes"), uri(url, "/v2/check"));
        let compression = match config.compression {
            Compression::Lz4 => wire::Compression::Lz4,
            Compression::None => wire::Compression::None,
        };
        let uris = config.servers.iter().map(|server| both(server.url())).collect();
        Self {
            client,
            uris,
            timeout: config.request_timeout,
            compression,
            lines,
            ours: config.vbuckets().count(),
            vbuckets,
        }
    }

    /// Sends a request and waits for its answer, or for the reason that there is none.
    ///
    /// # Cancel safety
    /// Safe: the Lanes still hold what is sent, and whether it was stored is found out by sending it again.
    pub(super) async fn send(self, request: Request) -> Input {
        let id = request.id;
        let answer = match timeout(self.timeout, self.ask(&request)).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::Timeout(self.timeout)),
        };
        match answer {
            Ok((acks, server_time)) => Input::Answered { request: id, acks, server_time },
            Err(error) => {
                let server = self.server(&request);
                let why = taba_core::causes(&error);
                if let Some(suppressed) = self.lines.admit("request", &format!("{server} {why}")) {
                    tracing::warn!(
                        server,
                        batches = request.batches.len(),
                        error = why,
                        suppressed,
                        "a request failed; its batches are sent again"
                    );
                }
                let cause = error.cause();
                let retry_after = match error {
                    SendError::Status { retry_after, .. } => retry_after,
                    _ => None,
                };
                Input::Failed { request: id, cause, why, retry_after }
            }
        }
    }

    fn server(&self, request: &Request) -> &str {
        self.uris[request.server].0.authority().map_or("", |authority| authority.as_str())
    }

    async fn ask(&self, request: &Request) -> Result<(Vec<Ack>, Option<Timestamp>), SendError> {
        let frame = Frame::encode(Kind::Lanes, &request.message(), self.compression);
        let mut post = hyper::Request::new(Full::new(Bytes::from(frame)));
        *post.method_mut() = Method::POST;
        let (lanes, check) = &self.uris[request.server];
        *post.uri_mut() = if request.is_check { check.clone() } else { lanes.clone() };
        post.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(wire::CONTENT_TYPE));
        let response = self.client.request(post).await?;
        let (head, body) = response.into_parts();
        let is_ok = head.status == StatusCode::OK;
        let bytes_max = if is_ok { BODY_BYTES_MAX } else { ERROR_BYTES_MAX };
        let body = Limited::new(body, bytes_max).collect().await;
        if !is_ok {
            let text = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let message = String::from_utf8_lossy(&text).trim().chars().filter(|c| !c.is_control()).collect();
            let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            return Err(SendError::Status { status: head.status, message, retry_after });
        }
        let said =
            head.headers.get(wire::VBUCKETS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(theirs) = said {
            self.vbuckets.take(self.server(request), theirs, self.ours);
        }
        let frame = Frame::decode(&body.map_err(SendError::Body)?.to_bytes(), Kind::Acks)?;
        Ok((wire::decode_acks(&frame.message)?, server_time(&head.headers).or_else(|| date(&head.headers))))
    }
}

/// What time the Server has.
fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    let micros = headers.get(wire::TIME_HEADER)?.to_str().ok()?.parse().ok()?;
    Some(Timestamp::from_micros(micros))
}

/// When the answer was given, by the clock of who gave it: the Server, or a load balancer before it.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let since_epoch = date.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).ok()?))
}
