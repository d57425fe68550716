//! [`Sink`]: the receiver of Batches.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use taba_core::Remedy;
use taba_core::ledger::Why;
use taba_core::wire::Receipt;

use crate::buffer::SealedBatch;

/// The receiver of Batches: by default an Agent over HTTP.
///
/// Write your own to deliver inside one process, over another transport, or to a test. The trait is written with
/// [`macro@async_trait`], which this crate re-exports: put it on the `impl` as well.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use taba_client::{SealedBatch, Sink, SinkError, async_trait};
/// use taba_core::Timestamp;
/// use taba_core::wire::Receipt;
///
/// /// Takes everything, and prints how much it was.
/// struct Count;
///
/// #[async_trait]
/// impl Sink for Count {
///     async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError> {
///         println!("{} events", batch.events());
///         Ok(Receipt::new(batch.seq(), Timestamp::from_secs(0), Vec::new()))
///     }
/// }
/// ```
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Delivers a Batch: returns once the other side has it durably.
    ///
    /// The same Batch comes again, with the same bytes, until this has returned a [`Receipt`] for it, or an error whose
    /// remedy is to give up. The other side must therefore recognise a repeated (incarnation, seq).
    ///
    /// # Errors
    /// [`SinkError`], whose [`remedy`](SinkError::remedy) decides about the Batch.
    ///
    /// # Cancel safety
    /// It may be dropped at any `.await`, when a deadline passes. The Batch is not taken out of anything by it.
    async fn deliver(&self, batch: Arc<SealedBatch>) -> Result<Receipt, SinkError>;
}

/// Why a Batch could not be delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The other side was not reached, or did not answer in time. It may have the Batch.
    #[error("the agent was not reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// The other side cannot take it now.
    #[error("the agent cannot take more now (status {status})")]
    Busy {
        /// The HTTP status, or what comes closest.
        status: u16,
        /// How long it asked to wait.
        retry_after: Option<Duration>,
    },
    /// The other side's answer is not one of a Taba Agent.
    #[error("the answer is not that of an agent: {what}")]
    Unexpected {
        /// What was wrong with it.
        what: String,
    },
    /// The other side will never take this Batch.
    #[error("the agent refused the batch (status {status}, {reason})")]
    Rejected {
        /// The HTTP status, or what comes closest.
        status: u16,
        /// The reason, a word for machines.
        reason: String,
    },
}

impl SinkError {
    /// Whether the Batch is sent again later, or given up and counted.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unreachable(_) | Self::Unexpected { .. } => Remedy::Wait(Duration::ZERO),
            Self::Busy { retry_after, .. } => Remedy::Wait(retry_after.unwrap_or_default()),
            Self::Rejected { .. } => Remedy::GiveUp,
        }
    }

    /// Why the events of a Batch that is given up count as dropped.
    pub fn why(&self) -> Why {
        match self {
            Self::Rejected { status: 413, .. } | Self::Busy { .. } => Why::Full,
            Self::Rejected { .. } | Self::Unreachable(_) | Self::Unexpected { .. } => Why::Undecodable,
        }
    }
}
