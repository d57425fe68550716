//! `POST /v2/record`: records JSON lines of any program.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use taba_core::ClientId;

use super::body::{check_content_type, receive};
use super::handle::AgentHandle;
use super::refusal::RequestRefusal;
use super::shared::Shared;
use crate::frontend::{BYTES_MAX, CLIENT, JsonLines, KEY_BYTES_MAX};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The parameters of the URL.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// The Client of lines without one.
    client: Option<ClientId>,
}

pub(super) async fn record(
    State(shared): State<Arc<Shared>>,
    params: Result<Query<Params>, QueryRejection>,
    request: Request,
) -> Result<Response, RequestRefusal> {
    let (head, body) = request.into_parts();
    check_content_type(&head.headers, &["application/json", "application/x-ndjson"])?;
    let Query(params) = params.map_err(|error| RequestRefusal::Parameter(error.body_text()))?;
    let key = key(&head.headers)?;
    let client = params.client.unwrap_or_else(|| ClientId::new(CLIENT).expect("the constant is a name"));
    let (body, _room) = receive(&shared, &head.headers, body, BYTES_MAX).await?;
    let (outcome, is_repeated) =
        AgentHandle::of(Arc::clone(&shared)).take(&JsonLines, &body, client, key).await?;
    let mut answer = json!(outcome);
    if is_repeated {
        answer["repeated"] = true.into();
    }
    for refused in &outcome.refused {
        if let Some(suppressed) = shared.lines.admit("refused line", refused.reason) {
            let (reason, error) = (refused.reason, &refused.message);
            tracing::warn!(
                reason,
                error,
                suppressed,
                "a line to record was refused; it is counted as dropped"
            );
        }
    }
    Ok(Json(answer).into_response())
}

/// The key that makes a repeated request count once.
fn key(headers: &HeaderMap) -> Result<Option<&str>, RequestRefusal> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => {
            let key = key.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
            key.map(Some).ok_or(RequestRefusal::Key)
        }
        (Some(_), Some(_)) => Err(RequestRefusal::Key),
    }
}
