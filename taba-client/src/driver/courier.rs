//! [`Courier`]: the delivery of the Batch in flight.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use taba_core::wire::Receipt;
use tokio::time::{Sleep, sleep};

use crate::buffer::Sealed;
use crate::fault::panic_message;
use crate::sink::{Sink, SinkError};

type Delivery = Pin<Box<dyn Future<Output = Result<Receipt, SinkError>> + Send>>;

/// The delivery of the Batch in flight.
pub(super) enum Courier {
    /// There is none.
    Idle,
    /// It is on its way.
    Sending(Arc<Sealed>, Delivery),
    /// It failed, and goes again when this ends.
    Waiting(Arc<Sealed>, Pin<Box<Sleep>>),
}

pub(super) enum Returned {
    Delivered(Arc<Sealed>, Result<Receipt, SinkError>),
    Rested(Arc<Sealed>),
}

impl Courier {
    /// Sends a Batch. A Sink that panics has not delivered it.
    pub(super) fn send(sink: &Arc<dyn Sink>, sealed: Arc<Sealed>) -> Self {
        let (sink, batch) = (Arc::clone(sink), Arc::clone(&sealed));
        let mut delivery: Delivery = Box::pin(async move { sink.deliver(batch).await });
        let guarded = poll_fn(move |context| {
            let polled = catch_unwind(AssertUnwindSafe(|| delivery.as_mut().poll(context)));
            polled.unwrap_or_else(|panic| {
                let what = format!("the sink {}", panic_message(panic.as_ref()));
                Poll::Ready(Err(SinkError::Unexpected { what }))
            })
        });
        Self::Sending(sealed, Box::pin(guarded))
    }

    /// Sends it after a while.
    pub(super) fn wait(sealed: Arc<Sealed>, wait: Duration) -> Self {
        Self::Waiting(sealed, Box::pin(sleep(wait)))
    }

    /// What became of the journey.
    ///
    /// # Cancel safety
    /// Safe: the journey goes on when it is asked again.
    pub(super) async fn returned(&mut self) -> Returned {
        match self {
            Self::Idle => pending().await,
            Self::Sending(sealed, delivery) => Returned::Delivered(Arc::clone(sealed), delivery.await),
            Self::Waiting(sealed, rest) => {
                rest.await;
                Returned::Rested(Arc::clone(sealed))
            }
        }
    }
}
