//! Room for the bodies of requests, for all of them together.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use taba_listen::{NoRoom, Room};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::refusal::RequestRefusal;
use super::shared::Shared;
use crate::units::BODY_BYTES_MAX;

/// Room for all bodies. One body at a time may grow to the largest size whatever the others hold: else bodies that wait for each
/// other's room would wait for ever.
pub(super) struct BodyRoom {
    free: Semaphore,
    last: Semaphore,
}

/// What one body holds.
#[derive(Default)]
pub(super) struct BodyHeld<'a> {
    free: Option<SemaphorePermit<'a>>,
    last: Option<SemaphorePermit<'a>>,
}

impl BodyRoom {
    /// Room for so many bytes, at least for one body.
    pub(super) fn new(bytes: usize) -> Self {
        Self { free: Semaphore::new(bytes.saturating_sub(BODY_BYTES_MAX)), last: Semaphore::new(1) }
    }
}

impl<'a> Room for &'a BodyRoom {
    type Held = BodyHeld<'a>;

    async fn grow(&self, held: &mut BodyHeld<'a>, bytes: usize) -> Result<(), NoRoom> {
        if held.last.is_some() {
            return Ok(());
        }
        tokio::select! {
            biased;
            free = self.free.acquire_many(bytes as u32) => {
                let free = free.expect("the semaphore is never closed");
                match &mut held.free {
                    Some(held) => held.merge(free),
                    none => *none = Some(free),
                }
            }
            last = self.last.acquire() => held.last = Some(last.expect("the semaphore is never closed")),
        }
        Ok(())
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_that_wait_for_each_others_room_end_one_after_the_other() {
        let room = BodyRoom::new(BODY_BYTES_MAX + 100);
        let (mut one, mut two, mut three) = <(BodyHeld<'_>, BodyHeld<'_>, BodyHeld<'_>)>::default();
        (&room).grow(&mut one, 50).await.unwrap();
        (&room).grow(&mut two, 50).await.unwrap();
        (&room).grow(&mut one, BODY_BYTES_MAX - 50).await.unwrap();
        assert!(one.last.is_some());
        let waiting = async { (&room).grow(&mut three, 10).await };
        tokio::pin!(waiting);
        assert!(futures_pending(waiting.as_mut()).await, "nothing is free, and the last place is taken");
        drop(one);
        waiting.await.unwrap();
        (&room).grow(&mut two, BODY_BYTES_MAX).await.unwrap();
    }

    /// Whether it is not ready yet.
    async fn futures_pending(mut future: std::pin::Pin<&mut impl Future>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }
}
