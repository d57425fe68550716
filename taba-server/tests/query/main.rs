//! The query surface over a real router and a real store.

mod bad;
mod kit;
mod ledger;
mod live;
mod questions;
mod removal;
