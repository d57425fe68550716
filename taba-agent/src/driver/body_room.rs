//! [`BodyRoom`]: room for the bodies of requests, for all of them together.

use taba_listen::{NoRoom, Room};
use tokio::sync::{Semaphore, SemaphorePermit};

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
