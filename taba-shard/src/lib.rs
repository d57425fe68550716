//! stub
#![deny(missing_docs)]
pub mod backoff;
pub mod census;
pub mod command;
pub mod keys;
pub mod known;
pub mod layout;
pub mod limits;
pub mod map;
pub mod router;
pub mod stability;
pub use map::{MapError, ShardId, VBucketMap};
