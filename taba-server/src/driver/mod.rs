//! The driver of the [`planner`](crate::planner): tasks, queues, the store. It makes no decisions about counting.

mod condition;
mod open_requests;
mod registration;
mod worker;

pub(crate) use condition::Condition;
pub use condition::ServerFailure;
pub(crate) use open_requests::{ByteReservation, OpenRequests, OverCapacity};
pub(crate) use registration::ServerRegistration;
pub(crate) use worker::{ArrivedMessage, Shared, Worker, WorkerMessage, supervise};
