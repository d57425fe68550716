//! The crate on real Redis processes, which are killed, paused, promoted, filled up and damaged.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod away;
mod cluster;
mod connect;
mod data;
mod faults;
mod kit;
mod laws;
mod listing;
mod locks;
mod moves;
mod scan;
mod sentinel;
mod stable;
mod store;
