//! [`ReadAhead`]: several Tabs are read at a time, and answered in their order.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::state::QueryState;

/// A task that ends when nobody waits for it any more.
struct Task<T>(JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(value) => Poll::Ready(value),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime is ending, and whoever waits here with it.
            Err(_) => Poll::Pending,
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs the reads of Tabs, some at a time, and gives what they read in order. Each runs as a task, on whatever core is free.
///
/// One runs always. For each further one there must be room in the [`tabs_ahead`](super::Limits::tabs_ahead) that all queries
/// share, until its result is taken.
///
/// # Cancel safety
/// Dropping it ends all reads.
pub(super) struct ReadAhead<T> {
    rest: Box<dyn Iterator<Item = BoxFuture<'static, T>> + Send>,
    running: VecDeque<(Task<T>, Option<OwnedSemaphorePermit>)>,
    room: Arc<Semaphore>,
    at_once: usize,
}

impl<T: Send + 'static> ReadAhead<T> {
    pub(super) fn new(
        state: &QueryState,
        reads: impl Iterator<Item = BoxFuture<'static, T>> + Send + 'static,
    ) -> Self {
        let (room, at_once) = (Arc::clone(&state.shared.ahead), state.limits.vbuckets_at_once.max(1));
        Self { rest: Box::new(reads), running: VecDeque::new(), room, at_once }
    }

    /// The result of the next read; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<T> {
        while self.running.len() < self.at_once {
            let permit = if self.running.is_empty() {
                None
            } else if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
                Some(permit)
            } else {
                break;
            };
            let Some(read) = self.rest.next() else { break };
            self.running.push_back((Task(tokio::spawn(read)), permit));
        }
        let (task, _) = self.running.front_mut()?;
        let read = task.await;
        self.running.pop_front();
        Some(read)
    }
}
