//! What fails is replaced or comes back, under real Servers, a real Agent and a real Client: recording never stops, and every
//! event is counted once.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

mod partitions;
mod sentinel;
