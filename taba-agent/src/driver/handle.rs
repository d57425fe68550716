//! [`AgentHandle`]: a running Agent, for front-ends in its process.

use std::fmt;
use std::sync::Arc;

use taba_core::wire::{ClientBatch, Receipt};
use taba_core::{ClientId, Remedy};
use taba_listen::BodyRefusal;

use super::refusal::RequestRefusal;
use super::shared::Shared;
use crate::frontend::{BYTES_MAX, Decoder, KEY_BYTES_MAX, LineContext, RecordedLines, collect};
use crate::relay::RETRY_AFTER;

/// A running Agent that accepts events without a socket. Cheap to clone. After the Agent has stopped, it accepts
/// nothing. Its methods wait for the disk, and require a tokio runtime with time.
///
/// A `Sink` for a Client of `taba-client` takes ten lines: `examples/src/bin/in_process.rs`. It is not in this crate,
/// as libraries of the family depend only on `taba-core`.
#[derive(Clone)]
pub struct AgentHandle {
    shared: Arc<Shared>,
}

/// Why an Agent did not accept a Batch or request.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AcceptError(RequestRefusal);

impl AcceptError {
    /// [`Remedy::Wait`]: repeat it after this time; a Batch is recognised by its number, a request by its key.
    /// [`Remedy::Split`]: it is too large. [`Remedy::GiveUp`]: it is invalid.
    pub fn remedy(&self) -> Remedy {
        match self.0.reason().status {
            413 => Remedy::Split,
            408 | 503 => Remedy::Wait(RETRY_AFTER),
            _ => Remedy::GiveUp,
        }
    }

    /// A code for machines, as in the answers over HTTP.
    pub fn reason(&self) -> &'static str {
        self.0.reason().word
    }
}

impl AgentHandle {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Accepts a client Batch like `POST /v2/events`: on return it has the safety that `spool-sync` promises. A
    /// repeated Batch, by (Client, incarnation, number), gets the same answer, and counts once. The content under one
    /// number must never change.
    ///
    /// # Errors
    /// [`AcceptError`]; keep the Batch and follow its [`remedy`](AcceptError::remedy).
    ///
    /// # Cancel safety
    /// When dropped, the Batch may have been accepted: repeat it, and it is recognised.
    pub async fn accept(&self, batch: &ClientBatch) -> Result<Receipt, AcceptError> {
        let message = batch.encode();
        // The limits of Blocks are the same as over a socket.
        let read = ClientBatch::decode(&message.into()).map_err(|error| AcceptError(error.into()))?;
        let (batch, bad) = read;
        self.shared.accept(&batch, &bad).await.map_err(AcceptError)
    }

    /// Records lines of a protocol like `POST /v2/record`: refused lines are reported and counted, all others
    /// accepted. With a `key` (1 to 256 bytes), repeated lines count once, while the key is among the last 10,000.
    /// Lines without a Client are `client`'s.
    ///
    /// # Errors
    /// [`AcceptError`]; with a key, repeat the request. Without one, lines that the disk did not write in time
    /// (`spool_failed`) may have been accepted.
    ///
    /// # Cancel safety
    /// When dropped, the lines may have been accepted.
    pub async fn record(
        &self,
        decoder: &(dyn Decoder + Sync),
        bytes: &[u8],
        client: ClientId,
        key: Option<&str>,
    ) -> Result<RecordedLines, AcceptError> {
        if key.is_some_and(|key| !(1..=KEY_BYTES_MAX).contains(&key.len())) {
            return Err(AcceptError(RequestRefusal::Key));
        }
        let taken = self.take(decoder, bytes, client, key).await;
        taken.map(|(outcome, _)| outcome).map_err(AcceptError)
    }

    /// As [`record`](Self::record); also whether all had been accepted before.
    pub(super) async fn take(
        &self,
        decoder: &(dyn Decoder + Sync),
        bytes: &[u8],
        client: ClientId,
        key: Option<&str>,
    ) -> Result<(RecordedLines, bool), RequestRefusal> {
        if bytes.len() > BYTES_MAX {
            return Err(BodyRefusal::TooLarge(BYTES_MAX).into());
        }
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
        let now = self.shared.rising_times(lines);
        let given = LineContext { now, client, handlers: &self.shared.handlers };
        let collected = collect(decoder, bytes, &given)?;
        if collected.readable == 0 {
            return Err(RequestRefusal::Lines(
                collected.outcome.refused.first().map(|refused| refused.message.clone()),
            ));
        }
        let is_repeated = self.shared.record(collected.batches, key).await?;
        Ok((collected.outcome, is_repeated))
    }
}

impl fmt::Debug for AgentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentHandle").finish_non_exhaustive()
    }
}
