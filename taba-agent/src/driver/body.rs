//! Receives request bodies, within the limits of each and of all.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::SemaphorePermit;

use super::refusal::RequestRefusal;
use super::shared::Shared;

/// Receives a whole body, once the limit of concurrent bodies allows it.
pub(super) async fn receive<'a>(
    shared: &'a Shared,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<(Bytes, SemaphorePermit<'a>), RequestRefusal> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let bytes = stated.unwrap_or(bytes_max);
    if bytes > bytes_max {
        return Err(RequestRefusal::TooLarge(bytes_max));
    }
    let room = shared.bodies.acquire_many(bytes as u32).await.expect("the semaphore is never closed");
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok((body.to_bytes(), room)),
        Err(error) if error.is::<LengthLimitError>() => Err(RequestRefusal::TooLarge(bytes_max)),
        Err(_) => Err(RequestRefusal::Unreadable),
    }
}

/// Whether the body is said to be one of these; what stands behind a semicolon does not matter.
pub(super) fn check_content_type(
    headers: &HeaderMap,
    types: &'static [&'static str],
) -> Result<(), RequestRefusal> {
    let found = headers.get(CONTENT_TYPE).and_then(|found| found.to_str().ok()?.split(';').next());
    let is_taken = |found: &str| types.iter().any(|taken| found.trim().eq_ignore_ascii_case(taken));
    if found.is_some_and(is_taken) { Ok(()) } else { Err(RequestRefusal::ContentType(types)) }
}
