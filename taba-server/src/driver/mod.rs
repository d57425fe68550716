//! The shell around the [`planner`](crate::planner): tasks, queues, the store. It decides nothing about what counts.

mod condition;
mod intake;
mod worker;

pub(crate) use condition::Condition;
pub use condition::Failure;
pub(crate) use intake::{Intake, Refused, Room};
pub(crate) use worker::{Arrival, Message, Shared, Worker, supervise};
