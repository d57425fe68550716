//! The words of exactly-once: [`StreamId`], [`SeqNo`], [`Mark`]. The messages that carry them are in
//! [`wire`](crate::wire); who may count what, and when, is in `docs/ARCHITECTURE.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What one sender incarnation sends: a random number that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The place of a Batch in its Lane: 1, 2, 3, … without gaps. 0 stands for "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeqNo(pub u64);

impl SeqNo {
    /// The number of a Lane from which nothing has come.
    pub const NONE: Self = Self(0);
    /// The number of the first Batch of a Lane.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// How far a Lane is contained in the stored States; stored beside them, and written with them in one commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mark {
    /// The last Batch contained.
    pub seq: SeqNo,
    /// Events of the Lane up to and with that Batch, those of lost Batches included. The sender states the same
    /// count with each Batch, so that a gap is known in events.
    pub events: u64,
    /// When it was last written, in hours since the Unix epoch; marks 48 hours old are collected. Written by the later
    /// of two clocks, the Server's and the sender's, and judged by the earlier: one wrong clock collects nothing.
    pub hour: u32,
}

impl Mark {
    /// A Lane that is contained up to `seq`, with its events, written in that hour.
    pub const fn new(seq: SeqNo, events: u64, hour: u32) -> Self {
        Self { seq, events, hour }
    }
}
