//! The driver: the thread, one task for each Client, and HTTP. It makes no decisions.

mod address;
mod delivery;
mod http;
mod reporter;
mod ring_readers;
mod task;
mod threads;

pub use address::{AgentAddress, AgentAddressError};
pub use http::HttpSink;
pub(crate) use ring_readers::RingReaders;
pub(crate) use task::{ClientTask, FlushRequest, TaskParts, incarnation};
pub(crate) use threads::is_background;
