//! How the Agent and the Server accept connections: bounded, fair, and closed when their peers are slow.
//!
//! ```text
//! listener ─► serve ─► a task for each connection ─► your router ─► receive (bodies)
//!               │          └ Life: head, idle, busy; overdue?
//!               └ Connections: the bound, whom to close when it is reached, counts
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`serve`](serve()) | the accept loop, with [`Accept`] for TCP and Unix sockets |
//! | [`Connections`] | their bounds and counts, and who is closed first |
//! | [`check_page`](check_page()) | whether a request may come from a web page |
//! | [`receive`](receive()) | a body, at a least rate, within [`Room`] that grows as bytes arrive |

#![deny(missing_docs)]

mod bounds;
mod clock;
mod connections;
mod guard;
mod life;
mod receive;
mod serve;
mod watched;

pub use bounds::ConnectionBounds;
pub use connections::{Connections, HEAD_BYTES_MAX};
pub use guard::check_page;
pub use receive::{BodyPace, BodyRefusal, NoRoom, Room, receive};
pub use serve::{Accept, serve};
