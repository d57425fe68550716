//! [`check_page`]: whether a request may come from a web page.

use axum::body::{Body, HttpBody};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request};
use taba_core::{ForeignRequest, RequestGuard};

/// Asks the [`RequestGuard`] about a request, before any route sees it.
///
/// # Errors
/// As [`RequestGuard::check`], which counts it.
pub fn check_page(guard: &RequestGuard, request: &Request<Body>) -> Result<(), ForeignRequest> {
    let (uri, headers, has_body) = (request.uri(), request.headers(), !request.body().is_end_stream());
    let values = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
    guard.check(request.method().as_str(), has_body, uri.authority().map(Authority::as_str), values)
}
