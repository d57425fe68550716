//! The shell around the pure half: the clock, the threads, one task for each Client, and HTTP. It decides nothing.

mod address;
mod courier;
mod http;
mod hub;
mod intake;
mod log_limit;
mod reporter;
mod task;

pub use address::{AgentAddress, AgentAddressError, HeaderError};
pub use http::HttpSink;
pub(crate) use hub::is_background;
pub(crate) use intake::Intake;
pub(crate) use task::{Command, Parts, Task, incarnation};
