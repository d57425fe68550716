//! The HTTP face of the queries.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::state::QueryState;

/// The query endpoints, to be merged into a Server's router.
pub fn router(state: QueryState) -> Router {
    Router::new().route("/v2/status", get(status)).with_state(state)
}

async fn status(State(state): State<QueryState>) -> Json<Value> {
    Json(json!({ "ingest": state.status.report(), "queries": state.report() }))
}
