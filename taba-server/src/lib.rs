//! taba-server

#![deny(missing_docs)]

#[cfg(feature = "driver")]
pub mod clock;
#[cfg(feature = "driver")]
pub mod query;
pub mod status;
