//! The shell around the pure half: the clock, the threads, one task for each Client, and HTTP. It decides nothing.

mod address;
mod clock;
mod http;
mod hub;
mod intake;
mod log_limit;
mod task;

pub use address::{AgentAddress, AgentAddressError};
pub(crate) use clock::Stopwatch;
pub use clock::{Clock, ManualClock};
pub use http::HttpSink;
pub(crate) use intake::{Intake, Ring};
pub(crate) use task::{Close, Parts, Task, incarnation};
