//! Time limits of queries.

use std::time::Duration;

use futures::stream::{self, Stream, StreamExt};

use super::error::QueryError;

/// The answer, or [`QueryError::Timeout`].
pub(super) async fn answer<T>(
    query_time: Duration,
    answer: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, QueryError> {
    tokio::time::timeout(query_time, answer).await.unwrap_or(Err(QueryError::Timeout { query_time }))
}

/// The stream, which ends after its first error; a timeout is [`QueryError::Timeout`].
pub(super) fn stream<T: Send + 'static>(
    query_time: Duration,
    inner: impl Stream<Item = Result<T, QueryError>> + Send + 'static,
) -> impl Stream<Item = Result<T, QueryError>> + Send + 'static {
    // The timer starts with the first poll, when a runtime certainly exists.
    let open = Some((Box::pin(inner), None));
    stream::unfold(open, move |open| async move {
        let (mut inner, timer) = open?;
        let mut timer = timer.unwrap_or_else(|| Box::pin(tokio::time::sleep(query_time)));
        tokio::select! {
            biased;
            () = &mut timer => Some((Err(QueryError::Timeout { query_time }), None)),
            next = inner.next() => {
                let next = next?;
                let open = next.is_ok().then_some((inner, Some(timer)));
                Some((next, open))
            }
        }
    })
}
