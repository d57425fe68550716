//! [`AgentHandle`]: a running Agent, for front-ends in its own process.

use std::fmt;
use std::sync::Arc;

use taba_core::wire::{ClientBatch, Receipt};
use taba_core::{ClientId, Remedy};

use super::refusal::RequestRefusal;
use super::shared::Shared;
use crate::frontend::{BYTES_MAX, Decoder, KEY_BYTES_MAX, LineContext, RecordedLines, collect};
use crate::relay::RETRY_AFTER;

/// A running Agent, to hand events to without a socket between. Cloning is cheap. When the Agent has stopped, it takes
/// nothing any more. Its methods wait for the disk: call them where a tokio runtime with time is.
///
/// A `Sink` that lets a Client of `taba-client` use it is ten lines: `examples/src/bin/in_process.rs`. It is not part of this
/// crate, as no library of the family depends on another but `taba-core`.
#[derive(Clone)]
pub struct AgentHandle {
    shared: Arc<Shared>,
}

/// Why an Agent did not take what it was handed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AcceptError(RequestRefusal);

impl AcceptError {
    /// [`Remedy::Wait`]: hand over the same again, after this long; a Batch is recognised by its number, a request by its
    /// key. [`Remedy::Split`]: it is too large. [`Remedy::GiveUp`]: it breaks the rules.
    pub fn remedy(&self) -> Remedy {
        match self.0.reason().status {
            413 => Remedy::Split,
            408 | 503 => Remedy::Wait(RETRY_AFTER),
            _ => Remedy::GiveUp,
        }
    }

    /// A word for machines, as in the answers over HTTP.
    pub fn reason(&self) -> &'static str {
        self.0.reason().word
    }
}

impl AgentHandle {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Takes a client Batch as `POST /v2/events` does: when this returns, it is as safe as `spool-sync` promises. A Batch that
    /// was taken before, by its (Client, incarnation, number), gets the same answer again, and is not counted again. What is
    /// under one such number must never change.
    ///
    /// # Errors
    /// [`AcceptError`]; keep the Batch and do as its [`remedy`](AcceptError::remedy) says.
    ///
    /// # Cancel safety
    /// When dropped, the Batch may have been taken: hand it over again, and it is recognised.
    pub async fn accept(&self, batch: &ClientBatch) -> Result<Receipt, AcceptError> {
        let message = batch.encode();
        // What no socket could bring, nothing else may bring either: its Blocks keep the same bounds.
        let read = ClientBatch::decode(&message.into()).map_err(|error| AcceptError(error.into()))?;
        let (batch, bad) = read;
        self.shared.accept(&batch, &bad).await.map_err(AcceptError)
    }

    /// Records lines of a protocol, as `POST /v2/record` does: refused lines are told and counted, all others taken. Under a
    /// `key` (1 to 256 bytes), the same lines count once, however often they are handed over, as long as the key is among
    /// the last 10,000. Lines that name no Client are `client`'s.
    ///
    /// # Errors
    /// [`AcceptError`]; under a key, hand the same over again. Without one, what the disk did not take in time
    /// (`spool_failed`) may have been taken.
    ///
    /// # Cancel safety
    /// When dropped, the lines may have been taken.
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

    /// As [`record`](Self::record); and whether all of it had been taken before.
    pub(super) async fn take(
        &self,
        decoder: &(dyn Decoder + Sync),
        bytes: &[u8],
        client: ClientId,
        key: Option<&str>,
    ) -> Result<(RecordedLines, bool), RequestRefusal> {
        if bytes.len() > BYTES_MAX {
            return Err(RequestRefusal::TooLarge(BYTES_MAX));
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
