//! Receives request bodies, within the limits of each and of all.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;

use super::body_room::BodyHeld;
use super::refusal::RequestRefusal;
use super::shared::Shared;

/// Receives a whole body, with its room.
pub(super) async fn receive<'a>(
    shared: &'a Shared,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<(Bytes, BodyHeld<'a>), RequestRefusal> {
    let received =
        taba_listen::receive(headers, body, bytes_max, shared.options.body_pace, &&shared.bodies).await;
    Ok(received?)
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
