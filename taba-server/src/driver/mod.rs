//! The shell around the [`planner`](crate::planner): tasks, queues, the store. It decides nothing about what counts.

mod condition;
mod open_requests;
mod worker;

pub(crate) use condition::Condition;
pub use condition::ServerFailure;
pub(crate) use open_requests::{ByteReservation, OpenRequests, OverCapacity};
pub(crate) use worker::{ArrivedMessage, Shared, Worker, WorkerMessage, supervise};
