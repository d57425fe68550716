//! [`ConnectionBounds`].

use std::time::Duration;

/// The bounds of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBounds {
    /// Connections at one time, and one more for each listener that is being accepted.
    pub connections_max: usize,
    /// From the connection, or the first byte of a further request, to the end of its head.
    pub header_timeout: Duration,
    /// Between two requests, and while a peer takes nothing of its answer.
    pub idle_timeout: Duration,
}
