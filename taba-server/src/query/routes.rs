//! The HTTP interface of queries: each handler parses parameters, calls a function, and encodes its result.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;
use serde_json::{Map, Value, json};
use taba_core::HttpReason;

use super::aggregates::{aggregates, super_aggregate};
use super::answer::{AnswerShape, respond, respond_all};
use super::context::Query;
use super::error::{QueryError, refuse};
use super::ledger::{ledger, ledger_totals};
use super::lists::{clients, names, types};
use super::missing::PartialAnswer;
use super::negotiate::Media;
use super::params::{ANY_LABEL, Params, REMOVAL, params};
use super::projection::projections;
use super::removal;
use super::row::{AccountRow, write_account, write_object};
use super::spread::{set_spread, spread_rules};
use super::state::QueryState;
use super::{admission, metrics, times, watch};

const TABS: &[&str] =
    &["name", "base", "type", ANY_LABEL, "client", "re", "reserved", "by", "at", "detail", "limit", "from"];
const PROJECTIONS: &[&str] =
    &["name", "base", "type", ANY_LABEL, "client", "re", "reserved", "at", "detail", "limit", "from"];
const SUPER: &[&str] = &["name", "base", "type", ANY_LABEL, "client", "re", "reserved", "at", "detail"];
const LISTS: &[&str] = &["name", "base", "type", ANY_LABEL, "client", "re", "reserved", "limit", "from"];
const FORGET: &[&str] = &["client", "from"];
const SPREAD: &[&str] = &["name", "prefix", "spread"];
const LEDGER: &[&str] = &["client", "re", "limit", "from", "totals"];

type Answer = Result<Response, QueryError>;

/// The three routers below, with JSON errors for unsupported methods. None has a fallback, so they can be merged into
/// a router with one.
pub fn router(state: QueryState) -> Router {
    let guard = state.clone();
    let all = read_routes(state.clone()).merge(admin_routes(state.clone())).merge(metrics_routes(state));
    guard.guarded(all.method_not_allowed_fallback(wrong_method))
}

async fn wrong_method() -> Response {
    let reason = HttpReason::METHOD_NOT_ALLOWED;
    refuse(reason, reason.body("this path has no such method"), Duration::ZERO)
}

/// Read-only queries.
pub fn read_router(state: QueryState) -> Router {
    state.clone().guarded(read_routes(state))
}

pub(crate) fn read_routes(state: QueryState) -> Router {
    let routes = Router::new()
        .route("/v2/tabs", get(get_tabs))
        .route("/v2/projections", get(get_projections))
        .route("/v2/super", get(get_super))
        .route("/v2/clients", get(get_clients))
        .route("/v2/names", get(get_names))
        .route("/v2/types", get(get_types))
        .route("/v2/ledger", get(get_ledger))
        .route("/v2/spread", get(get_spread));
    let routes = limited(routes, &state)
        .route("/v2/status", get(get_status))
        .route("/v2/watch", get(watch::get_watch));
    counted(routes, state)
}

/// Deletion, pruning, and changes of the spread.
pub fn admin_router(state: QueryState) -> Router {
    state.clone().guarded(admin_routes(state))
}

pub(crate) fn admin_routes(state: QueryState) -> Router {
    let routes = Router::new().route("/v2/tabs", delete(delete_tabs)).route("/v2/prune", post(post_prune));
    let routes = routes.route("/v2/clients", delete(delete_client));
    counted(limited(routes.route("/v2/spread", post(post_spread)), &state), state)
}

/// Metrics for a scraper.
pub fn metrics_router(state: QueryState) -> Router {
    state.clone().guarded(metrics_routes(state))
}

pub(crate) fn metrics_routes(state: QueryState) -> Router {
    counted(Router::new().route("/metrics", get(metrics::get_metrics)), state)
}

fn limited(routes: Router<QueryState>, state: &QueryState) -> Router<QueryState> {
    routes.route_layer(axum::middleware::from_fn_with_state(state.clone(), admission::admit))
}

fn counted(routes: Router<QueryState>, state: QueryState) -> Router {
    let counted = axum::middleware::from_fn_with_state(state.clone(), count);
    routes.route_layer(counted).with_state(state)
}

async fn count(
    State(state): State<QueryState>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    state.shared.counters.query();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status();
    if !status.is_success() {
        state.shared.counters.failure();
        tell_refusal(&state, status, &path);
    }
    response
}

/// Failures are logged as warnings for the operator; invalid queries, at debug level.
fn tell_refusal(state: &QueryState, status: StatusCode, path: &str) {
    if !status.is_server_error() {
        tracing::debug!(status = status.as_u16(), path, "a query was refused");
    } else if let Some(suppressed) = state.shared.log.admit("query", status.as_str()) {
        tracing::warn!(status = status.as_u16(), path, suppressed, "a query could not be answered");
    }
}

/// The form of an answer about Projections.
fn shape(
    state: &QueryState,
    headers: &HeaderMap,
    params: &Params,
    query: Option<&Query>,
) -> Result<AnswerShape, QueryError> {
    let now = state.now();
    let mut head = Map::new();
    if let Some(query) = query {
        head.insert("at".to_owned(), times::show(query.at.unwrap_or(now)).into());
    }
    head.insert("as_of".to_owned(), times::show(state.status.as_of(now)).into());
    Ok(AnswerShape {
        media: Media::of(headers)?,
        rows_max: params.limit(&state.limits)?,
        head,
        foot: String::new(),
    })
}

async fn get_tabs(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let params = params(raw.as_ref(), TABS)?;
    let query = params.query(&state.limits)?;
    let shape = shape(&state, &headers, &params, Some(&query))?;
    respond(&state, shape, aggregates(&state, query)).await
}

async fn get_projections(
    State(state): State<QueryState>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let params = params(raw.as_ref(), PROJECTIONS)?;
    let query = params.query_of_clients(&state.limits)?;
    let shape = shape(&state, &headers, &params, Some(&query))?;
    respond(&state, shape, projections(&state, query)).await
}

async fn get_super(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let params = params(raw.as_ref(), SUPER)?;
    let query = params.query(&state.limits)?;
    let shape = shape(&state, &headers, &params, Some(&query))?;
    let PartialAnswer { value: (aggregate, faults), missing } = super_aggregate(&state, query).await?;
    respond_all(&state, shape, aggregate.into_iter().collect(), faults, missing).await
}

async fn get_clients(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let params = params(raw.as_ref(), LISTS)?;
    let selection = params.selection(&state.limits)?;
    let shape = shape(&state, &headers, &params, None)?;
    let (from, mut clients) = (params.first_client()?, clients(&state, &selection).await?);
    clients.value.retain(|row| from.as_ref().is_none_or(|from| *from <= row.client));
    respond_all(&state, shape, clients.value, Vec::new(), clients.missing).await
}

async fn get_names(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let params = params(raw.as_ref(), LISTS)?;
    let mut selection = params.selection(&state.limits)?;
    if let Some(from) = params.first_tab()? {
        selection = selection.from(from);
    }
    let shape = shape(&state, &headers, &params, None)?;
    let names = names(&state, &selection).await?;
    respond_all(&state, shape, names.value, Vec::new(), names.missing).await
}

async fn get_types(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let params = params(raw.as_ref(), LISTS)?;
    let selection = params.selection(&state.limits)?;
    let shape = shape(&state, &headers, &params, None)?;
    let (from, mut types) = (params.first_type()?, types(&state, &selection).await?);
    types.value.retain(|row| from.as_ref().is_none_or(|from| *from <= row.tab_type));
    respond_all(&state, shape, types.value, Vec::new(), types.missing).await
}

async fn get_ledger(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let params = params(raw.as_ref(), LEDGER)?;
    let selection = params.selection(&state.limits)?;
    let mut shape = shape(&state, &headers, &params, None)?;
    let ledger =
        if params.totals()? { ledger_totals(&state).await? } else { ledger(&state, &selection).await? };
    shape.head.insert("totals".to_owned(), json!(ledger.totals));
    write_account("total", &ledger.totals, &mut shape.foot);
    let from = params.first_client()?;
    let accounts =
        ledger.accounts.into_iter().filter(|(client, _)| from.as_ref().is_none_or(|from| from <= client));
    let accounts = accounts.map(|(client, account)| AccountRow { client, account });
    respond_all(&state, shape, accounts.collect(), ledger.faults, ledger.missing).await
}

async fn get_status(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    params(raw.as_ref(), &[])?;
    let now = state.now();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now": times::show(now),
        "as_of": times::show(state.status.as_of(now)),
        "vbuckets": state.store.vbuckets().count(),
        "store": state.store.identity().map(|store| store.to_string()),
        "types": state.handlers.types().collect::<Vec<_>>(),
        "ingest": state.status.report(),
        "queries": state.report(),
        "requests_refused": state.guard.refused().collect::<BTreeMap<_, _>>(),
    });
    object(&headers, &status)
}

async fn delete_tabs(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let params = params(raw.as_ref(), REMOVAL)?;
    let (selection, from) = (params.selection(&state.limits)?, params.removal_from()?);
    Media::of(&headers)?;
    object(&headers, &json!({ "removed": removal::delete(&state, &selection, from.as_ref()).await? }))
}

async fn delete_client(
    State(state): State<QueryState>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let params = params(raw.as_ref(), FORGET)?;
    let (client, from) = (params.one_client()?, params.removal_from()?);
    Media::of(&headers)?;
    object(&headers, &json!({ "removed": removal::forget(&state, client, from.as_ref()).await? }))
}

async fn post_prune(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let params = params(raw.as_ref(), REMOVAL)?;
    let (selection, from) = (params.selection(&state.limits)?, params.removal_from()?);
    Media::of(&headers)?;
    object(&headers, &json!({ "removed": removal::prune(&state, &selection, from.as_ref()).await? }))
}

async fn get_spread(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    params(raw.as_ref(), &[])?;
    Media::of(&headers)?;
    object(&headers, &json!({ "rules": spread_rules(&state).await? }))
}

async fn post_spread(State(state): State<QueryState>, RawQuery(raw): RawQuery, headers: HeaderMap) -> Answer {
    let (tabs, spread) = params(raw.as_ref(), SPREAD)?.spread()?;
    Media::of(&headers)?;
    object(&headers, &json!({ "rules": set_spread(&state, &tabs, spread).await? }))
}

/// Answers with one object.
fn object<T: Serialize>(headers: &HeaderMap, value: &T) -> Answer {
    let media = Media::of(headers)?;
    let value: Value = json!(value);
    let mut body = String::new();
    match media {
        Media::Text => write_object(&value, &mut body),
        Media::Json | Media::Lines => body = format!("{value}\n"),
    }
    Ok(([(header::CONTENT_TYPE, media.content_type())], body).into_response())
}
