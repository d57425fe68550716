//! [`Delivery`]: the delivery of the Batch in flight.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use taba_core::wire::Receipt;
use tokio::time::{Sleep, sleep};

use crate::buffer::SealedBatch;
use crate::fault::panic_message;
use crate::sink::{Sink, SinkError};

type DeliveryFuture = Pin<Box<dyn Future<Output = Result<Receipt, SinkError>> + Send>>;

/// The delivery of the Batch in flight.
pub(super) enum Delivery {
    /// No Batch is in flight.
    Idle,
    /// A request is under way.
    Sending(Arc<SealedBatch>, DeliveryFuture),
    /// It failed, and is sent again after a wait.
    Waiting(Arc<SealedBatch>, Pin<Box<Sleep>>),
}

pub(super) enum DeliveryEvent {
    Answered(Arc<SealedBatch>, Result<Receipt, SinkError>),
    WaitOver(Arc<SealedBatch>),
}

impl Delivery {
    /// Sends a Batch. A Sink that panics has not delivered it.
    pub(super) fn send(sink: &Arc<dyn Sink>, sealed: Arc<SealedBatch>) -> Self {
        let (sink, batch) = (Arc::clone(sink), Arc::clone(&sealed));
        let mut delivery: DeliveryFuture = Box::pin(async move { sink.deliver(batch).await });
        let guarded = poll_fn(move |context| {
            let polled = catch_unwind(AssertUnwindSafe(|| delivery.as_mut().poll(context)));
            polled.unwrap_or_else(|panic| {
                let what = format!("the sink {}", panic_message(panic.as_ref()));
                Poll::Ready(Err(SinkError::Unexpected { what }))
            })
        });
        Self::Sending(sealed, Box::pin(guarded))
    }

    /// Sends it again after `wait`.
    pub(super) fn wait(sealed: Arc<SealedBatch>, wait: Duration) -> Self {
        Self::Waiting(sealed, Box::pin(sleep(wait)))
    }

    /// The end of the request, or of the wait.
    ///
    /// # Cancel safety
    /// Safe: the delivery continues at the next call.
    pub(super) async fn next_event(&mut self) -> DeliveryEvent {
        match self {
            Self::Idle => pending().await,
            Self::Sending(sealed, delivery) => DeliveryEvent::Answered(Arc::clone(sealed), delivery.await),
            Self::Waiting(sealed, rest) => {
                rest.await;
                DeliveryEvent::WaitOver(Arc::clone(sealed))
            }
        }
    }
}
