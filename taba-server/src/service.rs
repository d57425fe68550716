//! The HTTP interface of ingest: `POST /v2/lanes`, and `POST /v2/check`, which stores nothing. The request is one
//! frame of Lanes, the answer one frame of Acks: those to the Batches, then those to the Probes, each in order. If
//! the request as a whole cannot be read or accepted, it is a JSON error: `{"reason": "machine_word", "message": "for
//! people"}`.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use taba_core::limits::FRAME_BYTES_MAX;
use taba_core::wire::{self, Compression, FRAME_HEADER_BYTES, Frame, Kind, Lanes, WireError, encode_acks};
use taba_core::{HttpReason, StoreId};
use taba_listen::{BodyRefusal, NoRoom, Room, receive};

use crate::driver::ByteReservation;
use crate::query;
use crate::server::Server;
use crate::server_list::LiveServer;

const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX + FRAME_HEADER_BYTES;

/// Why a request was rejected as a whole. Nothing has changed.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error("the body is not {}", wire::CONTENT_TYPE)]
    ContentType,
    #[error("{0}")]
    Body(#[from] BodyRefusal),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("too many bytes are in open requests; send the same later")]
    Full,
    #[error("this server is shutting down; send the same to another one, or later")]
    ShuttingDown,
    #[error("the request is for store {meant}, and this server has {own}; see --store-id of taba-agent")]
    OtherStore { meant: StoreId, own: StoreId },
    #[error("this path has no such method")]
    Method,
    #[error("there is nothing at this path")]
    Path,
}

impl Rejection {
    fn reason(&self) -> HttpReason {
        match self {
            Self::ContentType => HttpReason::CONTENT_TYPE,
            Self::Body(BodyRefusal::TooLarge(_)) => HttpReason::TOO_LARGE,
            Self::Body(BodyRefusal::TooSlow(_)) => HttpReason::TOO_SLOW,
            Self::Body(BodyRefusal::Unreadable) => HttpReason::UNREADABLE,
            Self::Body(BodyRefusal::NoRoom) => HttpReason::FULL,
            Self::Wire(error) => error.into(),
            Self::Full => HttpReason::FULL,
            Self::ShuttingDown => HttpReason::STOPPING,
            Self::OtherStore { .. } => HttpReason::new("other_store", 409),
            Self::Path => HttpReason::UNKNOWN_PATH,
            Self::Method => HttpReason::METHOD_NOT_ALLOWED,
        }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let reason = self.reason();
        query::refuse(reason, reason.body(&self.to_string()), Duration::from_secs(1))
    }
}

impl Server {
    /// All HTTP routes, to serve or nest: the four routers below, with JSON errors for unknown paths and methods.
    pub fn router(&self) -> Router {
        let state = || self.query_state().clone();
        let queries =
            [query::read_routes(state()), query::admin_routes(state()), query::metrics_routes(state())];
        let all = queries.into_iter().fold(self.ingest_routes(), Router::merge);
        let all = all.fallback(|| async { Rejection::Path });
        self.guarded(all.method_not_allowed_fallback(|| async { Rejection::Method }))
    }

    /// These routes of yours behind what is in front of all routes of a Server: what a web page can make a browser send is
    /// refused, and counted.
    pub fn guarded(&self, routes: Router) -> Router {
        self.query_state().guarded(routes)
    }

    /// Routes for Agents: `POST /v2/lanes`, `POST /v2/check`, `GET /v2/store`, `GET /v2/servers`.
    ///
    /// This router and its siblings have no fallback, and no `/metrics` except
    /// [`metrics_router`](Self::metrics_router), so that each can have its own layers and be merged with your routes.
    pub fn ingest_router(&self) -> Router {
        self.guarded(self.ingest_routes())
    }

    fn ingest_routes(&self) -> Router {
        let router = Router::new().route("/v2/lanes", post(lanes)).route("/v2/check", post(check));
        router.route("/v2/store", get(store)).route("/v2/servers", get(servers)).with_state(self.clone())
    }

    /// Read-only queries: every `GET` under `/v2/`.
    pub fn query_router(&self) -> Router {
        query::read_router(self.query_state().clone())
    }

    /// Changes: `DELETE /v2/tabs`, `POST /v2/prune`, `POST /v2/spread`.
    pub fn admin_router(&self) -> Router {
        query::admin_router(self.query_state().clone())
    }

    /// `GET /metrics`.
    pub fn metrics_router(&self) -> Router {
        query::metrics_router(self.query_state().clone())
    }
}

async fn lanes(State(server): State<Server>, headers: HeaderMap, body: Body) -> Response {
    let answer = take(&server, &headers, body).await;
    if let Err(rejection) = &answer {
        server.tell_rejection(rejection.reason().word, rejection);
    }
    (headers_of(&server), answer).into_response()
}

/// This Server's store, its number of VBuckets, and the Tabs that are spread: Agents ask before they send.
async fn store(State(server): State<Server>) -> Response {
    let store = server.store();
    let identity = store.identity().map(|store| store.to_string());
    let mut about = json!({ "store": identity, "vbuckets": store.vbuckets().count() });
    if let Some(rules) = server.query_state().spread_for_agents().await {
        about["spread"] = json!(rules);
    }
    (headers_of(&server), axum::Json(about)).into_response()
}

/// The live Servers of this store, for Agents that discover them.
async fn servers(State(server): State<Server>) -> Response {
    let row = |live: LiveServer| {
        json!({
            "url": live.entry.url.url(),
            "weight": live.entry.url.weight(),
            "state": if live.entry.is_draining { "draining" } else { "serving" },
            "version": live.entry.version,
            "process": format!("{:016x}", live.entry.process),
            "age_ms": live.age.as_millis() as u64,
        })
    };
    let rows: Vec<_> = server.servers().into_iter().map(row).collect();
    (headers_of(&server), axum::Json(json!({ "servers": rows }))).into_response()
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let is_ours = headers.get(CONTENT_TYPE).is_some_and(|found| found == wire::CONTENT_TYPE);
    if is_ours { Ok(()) } else { Err(Rejection::ContentType) }
}

/// Rejects requests for another store.
fn check_store(server: &Server, headers: &HeaderMap) -> Result<(), Rejection> {
    let meant: Option<StoreId> =
        headers.get(wire::STORE_HEADER).and_then(|meant| meant.to_str().ok()?.parse().ok());
    match (meant, server.store().identity()) {
        (Some(meant), Some(own)) if meant.number != own.number => Err(Rejection::OtherStore { meant, own }),
        _ => Ok(()),
    }
}

async fn take(server: &Server, headers: &HeaderMap, body: Body) -> Result<Response, Rejection> {
    if server.is_stopping() {
        return Err(Rejection::ShuttingDown);
    }
    check_content_type(headers)?;
    check_store(server, headers)?;
    let (bytes, lanes) = {
        let (bytes, lanes, _room) = read(server, headers, body).await?;
        (bytes, lanes)
    };
    let room = server.reserve(bytes).map_err(|_| Rejection::Full)?;
    let acks = server.take(lanes.into(), Some(room)).await;
    let frame = Frame::encode(Kind::Acks, &encode_acks(&acks), Compression::None);
    Ok(([(CONTENT_TYPE, wire::CONTENT_TYPE)], frame).into_response())
}

/// The headers of every answer to an Agent: VBuckets, time, process, store and its processes.
fn headers_of(server: &Server) -> HeaderMap {
    let store = server.store();
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(wire::VBUCKETS_HEADER, store.vbuckets().count().into());
    headers.insert(wire::TIME_HEADER, server.clock()().as_micros().into());
    let numbers =
        [(wire::PROCESS_HEADER, Some(server.process())), (wire::STORE_PROCESSES_HEADER, store.processes())];
    headers.extend(numbers.into_iter().filter_map(|(name, number)| {
        let number = HeaderValue::try_from(format!("{:016x}", number?)).ok()?;
        Some((HeaderName::from_static(name), number))
    }));
    let identity = store.identity().and_then(|store| HeaderValue::try_from(store.to_string()).ok());
    headers.extend(identity.map(|store| (HeaderName::from_static(wire::STORE_HEADER), store)));
    headers
}

/// As `/v2/lanes` without storing: the answer says whether the Batches could be folded. So an Agent finds a Block
/// that makes a Server fail or crash.
async fn check(State(server): State<Server>, headers: HeaderMap, body: Body) -> Response {
    (headers_of(&server), fold(&server, &headers, body).await).into_response()
}

async fn fold(server: &Server, headers: &HeaderMap, body: Body) -> Result<Response, Rejection> {
    if server.is_stopping() {
        return Err(Rejection::ShuttingDown);
    }
    check_content_type(headers)?;
    check_store(server, headers)?;
    let (_, lanes, _room) = read(server, headers, body).await?;
    let acks = server.check_lanes(&lanes).await;
    let frame = Frame::encode(Kind::Acks, &encode_acks(&acks), Compression::None);
    Ok(([(CONTENT_TYPE, wire::CONTENT_TYPE)], frame).into_response())
}

/// The bytes that a Server may hold.
struct HeldBytes<'a>(&'a Server);

impl Room for HeldBytes<'_> {
    type Held = Option<ByteReservation>;

    async fn grow(&self, held: &mut Self::Held, bytes: usize) -> Result<(), NoRoom> {
        let more = self.0.reserve(bytes).map_err(|_| NoRoom)?;
        match held {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// The bytes of the message, the message, and the room that its body takes.
async fn read(
    server: &Server,
    headers: &HeaderMap,
    body: Body,
) -> Result<(usize, Lanes, Option<ByteReservation>), Rejection> {
    let (body, room) = receive(headers, body, BODY_BYTES_MAX, server.body_pace(), &HeldBytes(server)).await?;
    let frame = Frame::decode(&body, Kind::Lanes)?;
    Ok((frame.message.len(), Lanes::decode(&frame.message)?, room))
}
