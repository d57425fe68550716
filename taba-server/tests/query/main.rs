//! The query surface over a real router and a real store.

#![expect(clippy::unwrap_used, reason = "a test: a panic is a failure")]

mod accounts;
mod bad;
mod kept;
mod kit;
mod ledger;
mod live;
mod missing;
mod past;
mod questions;
mod removal;
mod spread;
