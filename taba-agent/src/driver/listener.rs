//! The routes of an Agent: for Clients, people and scrapers.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use taba_core::MetricsText;
use taba_core::wire::{self, BadBlock, ClientBatch, Compression, Frame, Kind, Receipt};

use super::body::{check_content_type, receive};
use super::record::record;
use super::refusal::{LoggedRefusal, RequestRefusal};
use super::shared::Shared;
use crate::relay::Status;
use crate::units::BODY_BYTES_MAX;

/// All routes.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v2/events", post(events))
        .route("/v2/record", post(record))
        .route("/status", get(status))
        .route("/v2/status", get(status))
        .route("/metrics", get(metrics))
        .fallback(|| async { RequestRefusal::NotFound })
        .method_not_allowed_fallback(|| async { RequestRefusal::Method })
        .layer(from_fn_with_state(Arc::clone(&shared), refuse_pages))
        .layer(map_response_with_state(Arc::clone(&shared), tell_refusal))
        .with_state(shared)
}

/// Refuses what a web page may have sent.
async fn refuse_pages(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Result<Response, RequestRefusal> {
    taba_listen::check_page(&shared.guard, &request)?;
    Ok(next.run(request).await)
}

/// Logs why a request was refused.
async fn tell_refusal(State(shared): State<Arc<Shared>>, response: Response) -> Response {
    if let Some(LoggedRefusal { reason, message }) = response.extensions().get()
        && let Some(suppressed) = shared.lines.admit("refused request", reason)
    {
        tracing::warn!(reason, error = message, suppressed, "a request was refused");
    }
    response
}

/// Logs which Blocks of a Batch were refused: the first of each reason.
fn tell_refused(shared: &Shared, batch: &ClientBatch, bad: &[BadBlock], receipt: &Receipt) {
    for refusal in &receipt.refused {
        let why = refusal.why.as_str();
        let Some(suppressed) = shared.lines.admit("refused block", why) else { continue };
        let wrong = bad.iter().find(|bad| bad.block == refusal.block);
        // The decoder removed the bad Blocks; the index of a good one is reduced by the number of bad ones before it.
        let place = refusal.block as usize - bad.iter().filter(|bad| bad.block < refusal.block).count();
        let block = batch.blocks.get(place).filter(|_| wrong.is_none());
        tracing::warn!(
            client = %batch.client,
            tab = block.map(|block| block.tab.as_str()),
            tab_type = block.map(|block| block.tab_type.as_str()),
            error = wrong.map(|bad| bad.error.to_string()),
            why,
            events = refusal.events,
            suppressed,
            "a block was refused; its events are counted as dropped"
        );
    }
}

async fn events(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, RequestRefusal> {
    let (head, body) = request.into_parts();
    check_content_type(&head.headers, &[wire::CONTENT_TYPE])?;
    let (body, _room) = receive(&shared, &head.headers, body, BODY_BYTES_MAX).await?;
    // Nothing waits from here to the answer, so at most one body per thread is decompressed at a time.
    let message = Frame::decode(&body, Kind::ClientBatch)?.message;
    let (batch, bad) = ClientBatch::decode(&message)?;
    let events = batch.blocks.iter().filter(|block| !block.tab.is_reserved()).map(|block| block.events);
    tracing::debug!(client = %batch.client, seq = batch.seq.0, events = events.sum::<u64>(), bytes = body.len(), "batch");
    let receipt = shared.accept(&batch, &bad).await?;
    tell_refused(&shared, &batch, &bad, &receipt);
    Ok(answer(&receipt))
}

fn answer(receipt: &Receipt) -> Response {
    let frame = Frame::encode(Kind::Receipt, &receipt.encode(), Compression::None);
    ([(CONTENT_TYPE, HeaderValue::from_static(wire::CONTENT_TYPE))], frame).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Result<Json<Status>, RequestRefusal> {
    Ok(Json(shared.status()?))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, RequestRefusal> {
    let mut connections = MetricsText::default();
    shared.connections.write_metrics("taba_agent", &mut connections);
    let metrics = shared.status()?.metrics() + &connections.into_string();
    Ok(([(CONTENT_TYPE, HeaderValue::from_static(MetricsText::CONTENT_TYPE))], metrics).into_response())
}
