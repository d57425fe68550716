//! How many queries are answered at a time: each holds pages of States, and all of them share the store with what comes in.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::QueryError;
use super::state::QueryState;

/// Answers a query, or refuses it where [`queries_max`](super::Limits::queries_max) are being answered. A query counts until its
/// answer is read, its asker is gone, or its time is over.
pub(super) async fn admit(State(state): State<QueryState>, request: Request, next: Next) -> Response {
    let at_once = state.limits.queries_max;
    let Ok(permit) = Arc::clone(&state.shared.queries).try_acquire_owned() else {
        return QueryError::TooManyQueries { at_once }.into_response();
    };
    let (until_read, is_read) = oneshot::channel::<()>();
    let query_time = state.limits.query_time;
    tokio::spawn(async move {
        // Both ends are an end: nobody sends anything.
        let _ = timeout(query_time, is_read).await;
        drop(permit);
    });
    next.run(request).await.map(|body| Body::new(AnswerBody { body, _until_read: until_read }))
}

/// The body of an answer; while it is there, the query counts.
struct AnswerBody {
    body: Body,
    _until_read: oneshot::Sender<()>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
