//! The shell around the pure half: the clock, the threads, one task for each Client, and HTTP. It decides nothing.

mod address;
mod clock;
mod courier;
mod http;
mod hub;
mod intake;
mod log_limit;
mod process;
mod reporter;
mod task;

pub use address::{AgentAddress, AgentAddressError, HeaderError};
pub(crate) use clock::Stopwatch;
pub use clock::{Clock, ManualClock};
pub use http::HttpSink;
pub(crate) use hub::{is_background, lock, wind_up};
pub(crate) use intake::{Intake, Ring};
pub(crate) use process::{generation, watch};
pub(crate) use task::{Command, Parts, Task, incarnation};
