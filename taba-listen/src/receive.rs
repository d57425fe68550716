//! [`receive`]: a body, within its time, at a least rate, within room that grows as its bytes arrive.

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::now;

/// The least room that is asked for at a time.
const ROOM_BYTES_MIN: usize = 4096;
/// The rate is looked at so many times in the time of a body.
const LOOKS: u32 = 10;

/// How fast a body has to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyPace {
    /// The time for all of it.
    pub timeout: Duration,
    /// The least bytes a second, in each tenth of that time but the last one of the body; 0 for any.
    pub rate_min: usize,
}

/// There is no room for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Room for bodies.
pub trait Room: Sync {
    /// What a body holds of it; given back when dropped.
    type Held: Default + Send;

    /// Adds room for `bytes` to what is held; may wait for it.
    ///
    /// # Errors
    /// [`NoRoom`] when it does not wait.
    fn grow(&self, held: &mut Self::Held, bytes: usize) -> impl Future<Output = Result<(), NoRoom>> + Send;
}

/// Why a body was not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyRefusal {
    /// It is too large.
    #[error("the body is over the bound of {0} bytes")]
    TooLarge(usize),
    /// It took too long.
    #[error("the body did not arrive in {} seconds, or at less than {} bytes a second", .0.timeout.as_secs_f64(), .0.rate_min)]
    TooSlow(BodyPace),
    /// It broke off.
    #[error("the body could not be read to its end")]
    Unreadable,
    /// There is no room for it.
    #[error("too many bytes of bodies are in hand; send the same later")]
    NoRoom,
}

/// Receives a whole body, and the room that it takes.
///
/// # Errors
/// [`BodyRefusal`]. The room is given back.
///
/// # Cancel safety
/// When dropped, what was received is lost, and the room is given back.
pub async fn receive<R: Room>(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    pace: BodyPace,
    room: &R,
) -> Result<(Bytes, R::Held), BodyRefusal> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let expected = stated.unwrap_or(bytes_max);
    if expected > bytes_max {
        return Err(BodyRefusal::TooLarge(bytes_max));
    }
    let received = timeout(pace.timeout, collect(body, expected, bytes_max, pace, room)).await;
    received.unwrap_or(Err(BodyRefusal::TooSlow(pace)))
}

async fn collect<R: Room>(
    mut body: Body,
    expected: usize,
    bytes_max: usize,
    pace: BodyPace,
    room: &R,
) -> Result<(Bytes, R::Held), BodyRefusal> {
    let mut held = R::Held::default();
    let mut whole = Vec::new();
    let mut rate = Rate::new(pace);
    loop {
        let frame = loop {
            match timeout_at(rate.end, body.frame()).await {
                Ok(frame) => break frame,
                Err(_) if rate.is_enough() => {}
                Err(_) => return Err(BodyRefusal::TooSlow(pace)),
            }
        };
        let Some(frame) = frame else { return Ok((whole.into(), held)) };
        // Trailers say nothing here.
        let Ok(data) = frame.map_err(|_| BodyRefusal::Unreadable)?.into_data() else { continue };
        let length = whole.len() + data.len();
        if length > bytes_max {
            return Err(BodyRefusal::TooLarge(bytes_max));
        }
        if length > whole.capacity() {
            let capacity = length.max(2 * whole.capacity()).max(ROOM_BYTES_MIN).min(expected.max(length));
            room.grow(&mut held, capacity - whole.capacity()).await.map_err(|NoRoom| BodyRefusal::NoRoom)?;
            whole.reserve_exact(capacity - whole.len());
            // Who waited for room was not slow.
            rate.begin();
        }
        whole.extend_from_slice(&data);
        rate.bytes += data.len();
    }
}

/// The bytes of the tenth that is running.
struct Rate {
    length: Duration,
    least: usize,
    bytes: usize,
    end: Instant,
}

impl Rate {
    fn new(pace: BodyPace) -> Self {
        let length = pace.timeout / LOOKS;
        let least = (pace.rate_min as f64 * length.as_secs_f64()).ceil() as usize;
        Self { length, least, bytes: 0, end: now() + length }
    }

    /// Whether enough came in the tenth that has ended; if so, the next one begins.
    fn is_enough(&mut self) -> bool {
        let is_enough = self.bytes >= self.least;
        self.begin();
        is_enough
    }

    fn begin(&mut self) {
        (self.bytes, self.end) = (0, now() + self.length);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use tokio::time::{Sleep, sleep};

    use super::*;

    /// A body of pieces of `bytes`, one every `pause`.
    struct Dripping {
        pieces: usize,
        bytes: usize,
        pause: Duration,
        wait: Pin<Box<Sleep>>,
    }

    impl Dripping {
        fn body(pieces: usize, bytes: usize, pause: Duration) -> Body {
            Body::new(Self { pieces, bytes, pause, wait: Box::pin(sleep(pause)) })
        }
    }

    impl http_body::Body for Dripping {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            if self.pieces == 0 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.wait.as_mut().poll(cx));
            self.pieces -= 1;
            self.wait = Box::pin(sleep(self.pause));
            Poll::Ready(Some(Ok(Frame::data(vec![7; self.bytes].into()))))
        }
    }

    /// Gives so many bytes.
    struct UpTo(usize);

    impl Room for UpTo {
        type Held = usize;

        async fn grow(&self, held: &mut usize, bytes: usize) -> Result<(), NoRoom> {
            *held += bytes;
            if *held <= self.0 { Ok(()) } else { Err(NoRoom) }
        }
    }

    const MS: Duration = Duration::from_millis(1);
    const PACE: BodyPace = BodyPace { timeout: Duration::from_secs(10), rate_min: 1000 };
    const MAX: usize = 1 << 20;

    async fn received(body: Body, room: usize) -> Result<(usize, usize), BodyRefusal> {
        let received = receive(&HeaderMap::new(), body, MAX, PACE, &UpTo(room)).await;
        received.map(|(bytes, held)| (bytes.len(), held))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_to_come_at_its_least_rate_and_in_its_time() {
        assert_eq!(received(Dripping::body(80, 110, 100 * MS), MAX).await.map(|found| found.0), Ok(8800));
        let slow = Err(BodyRefusal::TooSlow(PACE));
        assert_eq!(received(Dripping::body(80, 90, 100 * MS), MAX).await, slow, "under the rate");
        assert_eq!(received(Dripping::body(200, 110, 100 * MS), MAX).await, slow, "over the time");
        assert_eq!(
            received(Dripping::body(2, 100_000, 2500 * MS), MAX).await,
            slow,
            "what came fast buys no pause"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_taken_as_bytes_arrive_and_covers_them() {
        for (pieces, bytes) in [(1, 1), (3, 5000), (100, 9000)] {
            let (length, held) = received(Dripping::body(pieces, bytes, MS), MAX).await.unwrap();
            assert!((length..=2 * length.max(ROOM_BYTES_MIN)).contains(&held), "{length} {held}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, (MAX / 2).into());
        let silent = receive(&headers, Dripping::body(1, 4, MS), MAX, PACE, &UpTo(ROOM_BYTES_MIN)).await;
        assert!(silent.is_ok(), "what is stated and does not come takes no room");
        assert_eq!(received(Dripping::body(3, 5000, MS), 5000).await, Err(BodyRefusal::NoRoom));
        headers.insert(CONTENT_LENGTH, (MAX + 1).into());
        let large = receive(&headers, Body::empty(), MAX, PACE, &UpTo(MAX)).await.map(drop);
        assert_eq!(large, Err(BodyRefusal::TooLarge(MAX)));
        assert_eq!(received(Dripping::body(3, MAX / 2, MS), MAX).await, Err(BodyRefusal::TooLarge(MAX)));
    }
}
