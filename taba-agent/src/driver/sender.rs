//! [`RequestSender`]: sends one request to its Server, and receives the answer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::http::response::Parts;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use taba_core::wire::{self, Ack, FRAME_HEADER_BYTES, Frame, Kind, WireError};
use taba_core::{LogThrottle, RequestHeader, ServerUrl, SpreadRules, StoreId, Timestamp};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::options::AgentOptions;
use super::stores::{StoreMismatch, Stores};
use crate::discovery::ListedServer;
use crate::dispatcher::{FailureCause, Input, Request};
use crate::units::BODY_BYTES_MAX;

/// Idle connections are closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes of a list of Servers, or of rules of spread, that are read.
const LIST_BYTES_MAX: usize = 1 << 20;
/// Bytes of an error answer that are read for its message.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// Sends requests to Servers. Cheap to clone: clones share the connections.
#[derive(Clone)]
pub(super) struct RequestSender {
    client: Client<HttpConnector, Full<Bytes>>,
    /// Headers of each request; the values are marked as secrets.
    headers: HeaderMap,
    timeout: Duration,
    compression: wire::Compression,
    lines: Arc<LogThrottle>,
    /// This Agent's number of VBuckets.
    ours: u16,
    vbuckets: Arc<VBucketsSeen>,
    stores: Arc<Stores>,
    spread: Arc<SpreadSeen>,
    processes: Arc<Processes>,
    /// Some process has answered that had not before.
    has_new: Arc<Notify>,
}

/// What the log calls a Server: host, port and prefix.
fn name(server: &ServerUrl) -> &str {
    server.url().strip_prefix("http://").unwrap_or(server.url())
}

fn uri(server: &ServerUrl, path: &str) -> Uri {
    format!("{}{path}", server.url()).parse().expect("a ServerUrl was checked when it was made")
}

/// The number of VBuckets that a Server last reported; 0 if none did.
#[derive(Debug, Default)]
pub(super) struct VBucketsSeen(AtomicU16);

impl VBucketsSeen {
    /// `None` before any report.
    pub(super) fn get(&self) -> Option<u16> {
        Some(self.0.load(Ordering::Relaxed)).filter(|count| *count > 0)
    }

    /// A Server reported its number; a new difference is logged.
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

/// Which Tabs are spread, as a Server said last; `None` once that is known here.
#[derive(Debug, Default)]
pub(super) struct SpreadSeen(Mutex<Option<SpreadRules>>);

impl SpreadSeen {
    fn lock(&self) -> MutexGuard<'_, Option<SpreadRules>> {
        // It is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was said since it was last asked.
    pub(super) fn take(&self) -> Option<SpreadRules> {
        self.lock().take()
    }
}

/// What a Server says at `/v2/store` of Tabs that are spread; later versions may say more.
#[derive(Debug, serde::Deserialize)]
struct StoreRow {
    /// Absent when it does not know, or is of an earlier version.
    spread: Option<SpreadRules>,
}

/// The seen processes of Servers and stores, the latest last. Behind a load balancer answers come from several; one that was
/// dropped here and returns costs a round of Probes.
#[derive(Debug, Default)]
struct Processes(Mutex<VecDeque<HeaderValue>>);

impl Processes {
    const MAX: usize = 1_024;

    /// Whether an answer is from a new process, or its store has a new one.
    fn is_new(&self, headers: &HeaderMap) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        for name in [wire::PROCESS_HEADER, wire::STORE_PROCESSES_HEADER] {
            let Some(process) = headers.get(name).filter(|process| !seen.contains(process)) else { continue };
            seen.push_back(process.clone());
            is_new = true;
        }
        while seen.len() > Self::MAX {
            seen.pop_front();
        }
        is_new
    }
}

/// The list of Servers as a Server gives it; later versions may say more.
#[derive(Debug, serde::Deserialize)]
struct ServerRows {
    servers: Vec<ServerRow>,
}

#[derive(Debug, serde::Deserialize)]
struct ServerRow {
    url: String,
    weight: u32,
    state: String,
    #[serde(default)]
    version: String,
}

impl ServerRow {
    /// `None` when its address is none that this Agent could use.
    fn listed(self) -> Option<ListedServer> {
        let url = format!("{};weight={}", self.url, self.weight).parse().ok()?;
        Some(ListedServer { url, is_draining: self.state == "draining", version: self.version })
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the request could not be sent")]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error("the server could not be asked which store it has")]
    Ask(#[source] hyper_util::client::legacy::Error),
    #[error("the server was asked which store it has, and said {0}")]
    NotTold(StatusCode),
    #[error("the server was asked for all servers, and said {0}")]
    NoList(StatusCode),
    #[error("the list of servers cannot be read")]
    List(#[from] serde_json::Error),
    #[error(transparent)]
    Store(#[from] StoreMismatch),
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
    /// The class of the failure.
    fn cause(&self) -> FailureCause {
        match self {
            Self::Request(error) | Self::Ask(error) if error.is_connect() => FailureCause::Unreached,
            // Nothing of the request has left this machine.
            Self::Ask(_) | Self::NotTold(_) | Self::NoList(_) | Self::List(_) | Self::Store(_) => {
                FailureCause::Away
            }
            Self::Request(_) | Self::Body(_) => FailureCause::Broken,
            Self::Timeout(_) | Self::Wire(_) => FailureCause::Away,
            Self::Status { status, .. } => match status.as_u16() {
                413 => FailureCause::TooLarge,
                // 409: the Server has another store. 421: it is asked under a name that it does not have.
                408 | 409 | 421 | 425 | 429 => FailureCause::Away,
                400..500 => FailureCause::Refused,
                // A Server failed at it; or a proxy's connection to one broke.
                500 | 502 => FailureCause::Broken,
                _ => FailureCause::Away,
            },
        }
    }
}

impl RequestSender {
    pub(super) fn new(
        options: &AgentOptions,
        lines: Arc<LogThrottle>,
        (vbuckets, stores, spread): (Arc<VBucketsSeen>, Arc<Stores>, Arc<SpreadSeen>),
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(options.connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.relay.dispatcher.requests_per_server_max)
            .build(connector);
        let header = |header: &RequestHeader| {
            let name =
                HeaderName::try_from(header.name()).expect("a RequestHeader was checked when it was made");
            let mut value =
                HeaderValue::try_from(header.value()).expect("a RequestHeader was checked when it was made");
            value.set_sensitive(true);
            (name, value)
        };
        let headers = options.server_header.iter().map(header).collect();
        Self {
            client,
            headers,
            timeout: options.request_timeout,
            compression: options.compression,
            lines,
            ours: options.relay.vbuckets.count(),
            vbuckets,
            stores,
            spread,
            processes: Arc::default(),
            has_new: Arc::default(),
        }
    }

    /// Sends a request and waits for its answer or error.
    ///
    /// # Cancel safety
    /// Safe: the Lanes still hold the content; sending it again shows whether it was stored.
    pub(super) async fn send(self, request: Request) -> Input {
        let id = request.id;
        let answer = match timeout(self.timeout, self.ask(&request)).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::Timeout(self.timeout)),
        };
        match answer {
            Ok((acks, server_time)) => Input::Answered { request: id, acks, server_time },
            Err(error) => {
                let server = name(&request.url);
                let why = taba_core::causes(&error);
                if let SendError::Store(error) = &error {
                    self.tell_store(&request.url, error);
                } else if let Some(suppressed) = self.lines.admit("request", &format!("{server} {why}")) {
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

    /// Asks a Server for its store, VBuckets and process, to report mismatches, and to detect that a store has lost
    /// data. Other errors are reported when there is something to send.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn greet(self, server: ServerUrl) -> Input {
        if let Ok(Err(SendError::Store(error))) = timeout(self.timeout, self.ask_store(&server)).await {
            self.tell_store(&server, &error);
        }
        Input::Tick
    }

    /// Waits until an answer was from a new process, of a Server or of its store.
    ///
    /// # Cancel safety
    /// Safe: what was not waited for is answered the next time.
    pub(super) async fn new_process(&self) {
        self.has_new.notified().await;
    }

    /// Asks a Server for all Servers of its store.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn ask_servers(&self, server: &ServerUrl) -> Result<Vec<ListedServer>, String> {
        let asked = async {
            let (head, body) = self.get(server, "/v2/servers").await?;
            if head.status != StatusCode::OK {
                return Err(SendError::NoList(head.status));
            }
            self.hear(server, &head.headers).await?;
            let body = Limited::new(body, LIST_BYTES_MAX).collect().await.map_err(SendError::Body)?;
            let list: ServerRows = serde_json::from_slice(&body.to_bytes())?;
            Ok(list.servers.into_iter().filter_map(ServerRow::listed).collect())
        };
        let answer = timeout(self.timeout, asked).await;
        let answer = answer.unwrap_or(Err(SendError::Timeout(self.timeout)));
        answer.map_err(|error| format!("{}: {}", name(server), taba_core::causes(&error)))
    }

    /// Whether a Server answers, and has the store that is delivered to.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn reach(&self, server: &ServerUrl) -> Result<(), String> {
        let answer = timeout(self.timeout, self.ask_store(server)).await;
        let answer = answer.unwrap_or(Err(SendError::Timeout(self.timeout)));
        answer.map(drop).map_err(|error| taba_core::causes(&error))
    }

    /// The addresses of a name, `HOST:PORT`.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn resolve(&self, host_port: &str) -> Result<Vec<IpAddr>, String> {
        let found = timeout(self.timeout, tokio::net::lookup_host(host_port)).await;
        let found = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        Ok(found.map_err(|error| error.to_string())?.map(|address| address.ip()).collect())
    }

    fn tell_store(&self, server: &ServerUrl, error: &StoreMismatch) {
        let (server, why) = (name(server), taba_core::causes(error));
        if let Some(suppressed) = self.lines.admit("store", &format!("{server} {why}")) {
            tracing::error!(server, error = why, suppressed, "nothing is sent to this server; all is kept");
        }
    }

    /// Asks a Server for its store, unless it has said before that it is the one that is delivered to.
    async fn agree(&self, server: &ServerUrl) -> Result<(), SendError> {
        if !self.stores.may_send(server.url()) {
            self.ask_store(server).await?;
        }
        Ok(())
    }

    async fn get(&self, server: &ServerUrl, path: &str) -> Result<(Parts, Incoming), SendError> {
        let mut get = hyper::Request::new(Full::default());
        *get.uri_mut() = uri(server, path);
        *get.headers_mut() = self.headers.clone();
        Ok(self.client.request(get).await.map_err(SendError::Ask)?.into_parts())
    }

    async fn ask_store(&self, server: &ServerUrl) -> Result<HeaderMap, SendError> {
        let (head, body) = self.get(server, "/v2/store").await?;
        // Read in any case, so that the connection can be used again.
        let body =
            Limited::new(body, LIST_BYTES_MAX).collect().await.map(http_body_util::Collected::to_bytes);
        // A Server without this path, or a proxy that blocks it, gives no information.
        if head.status.is_server_error() || matches!(head.status.as_u16(), 408 | 421 | 425 | 429) {
            return Err(SendError::NotTold(head.status));
        }
        self.hear(server, &head.headers).await?;
        let said = body.ok().and_then(|body| serde_json::from_slice::<StoreRow>(&body).ok());
        if let Some(rules) = said.and_then(|said| said.spread) {
            *self.spread.lock() = Some(rules);
        }
        Ok(head.headers)
    }

    /// What an answer says of its Server.
    async fn hear(&self, server: &ServerUrl, headers: &HeaderMap) -> Result<(), SendError> {
        let said = headers.get(wire::VBUCKETS_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(theirs) = said {
            self.vbuckets.take(name(server), theirs, self.ours);
        }
        if self.processes.is_new(headers) {
            self.has_new.notify_one();
        }
        Ok(self.stores.meet(server.url(), store_of(headers)).await?)
    }

    async fn ask(&self, request: &Request) -> Result<(Vec<Ack>, Option<Timestamp>), SendError> {
        self.agree(&request.url).await?;
        let frame = Bytes::from(Frame::encode(Kind::Lanes, &request.message(), self.compression));
        let (mut head, mut body) = self.post(request, frame.clone()).await?;
        if head.status == StatusCode::CONFLICT && store_of(&head.headers).is_some() {
            // It has another store than it had. Where that is in order, it takes the same request.
            self.hear(&request.url, &head.headers).await?;
            (head, body) = self.post(request, frame).await?;
        }
        let is_ok = head.status == StatusCode::OK;
        let acks_bytes_max = FRAME_HEADER_BYTES + request.acks_bytes_max();
        let bytes_max = if is_ok { acks_bytes_max.min(BODY_BYTES_MAX) } else { ERROR_BYTES_MAX };
        let body = Limited::new(body, bytes_max).collect().await;
        if !is_ok {
            let text = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let message = taba_core::printable(String::from_utf8_lossy(&text).trim()).into_owned();
            let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            return Err(SendError::Status { status: head.status, message, retry_after });
        }
        // It took the request; if it has another store all the same, nothing more is sent to it.
        if let Err(SendError::Store(error)) = self.hear(&request.url, &head.headers).await {
            self.tell_store(&request.url, &error);
        }
        let frame = Frame::decode(&body.map_err(SendError::Body)?.to_bytes(), Kind::Acks)?;
        Ok((wire::decode_acks(&frame.message)?, server_time(&head.headers).or_else(|| date(&head.headers))))
    }

    /// Sends the frame of a request once.
    async fn post(&self, request: &Request, frame: Bytes) -> Result<(Parts, Incoming), SendError> {
        let mut post = hyper::Request::new(Full::new(frame));
        *post.method_mut() = Method::POST;
        *post.uri_mut() = uri(&request.url, if request.is_check { "/v2/check" } else { "/v2/lanes" });
        *post.headers_mut() = self.headers.clone();
        let headers = post.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(wire::CONTENT_TYPE));
        let store = self.stores.chosen().and_then(|store| HeaderValue::try_from(store.to_string()).ok());
        headers.extend(store.map(|store| (HeaderName::from_static(wire::STORE_HEADER), store)));
        Ok(self.client.request(post).await?.into_parts())
    }
}

/// The Server's store.
fn store_of(headers: &HeaderMap) -> Option<StoreId> {
    headers.get(wire::STORE_HEADER)?.to_str().ok()?.parse().ok()
}

/// The Server's time.
fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    let micros = headers.get(wire::TIME_HEADER)?.to_str().ok()?.parse().ok()?;
    Some(Timestamp::from_micros(micros))
}

/// The time of the answer, by the clock of the Server or a load balancer.
fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let since_epoch = date.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).ok()?))
}
