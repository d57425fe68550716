//! [`Life`]: what a connection is doing, since when, and whether that has taken too long. Pure.

use tokio::time::Instant;

use crate::bounds::ConnectionBounds;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A head is awaited, at the begin of the connection, or has begun.
    Head,
    /// Between two requests.
    Idle,
    /// A request is in hand, or its answer.
    Busy,
}

/// Why a connection was closed from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The head of a request took too long.
    Header,
    /// There was no further request for too long.
    Idle,
    /// Its peer does not read its answer.
    Unread,
    /// Another one took its place.
    Full,
}

/// The life of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    phase: Phase,
    since: Instant,
    /// Whether it has ever sent the whole head of a request.
    has_asked: bool,
    /// Since when its peer takes nothing of what is written.
    blocked_since: Option<Instant>,
}

impl Life {
    pub(crate) fn begin(now: Instant) -> Self {
        Self { phase: Phase::Head, since: now, has_asked: false, blocked_since: None }
    }

    /// Bytes came.
    pub(crate) fn bytes_came(&mut self, now: Instant) {
        if self.phase == Phase::Idle {
            // Idle => Head: the first byte of the next request.
            (self.phase, self.since) = (Phase::Head, now);
        }
    }

    /// A request came.
    pub(crate) fn request_came(&mut self) {
        self.phase = Phase::Busy;
        self.has_asked = true;
    }

    /// The answer has been handed to the connection.
    pub(crate) fn answered(&mut self, now: Instant) {
        (self.phase, self.since) = (Phase::Idle, now);
    }

    /// Whether the peer took a part of what is written.
    pub(crate) fn wrote(&mut self, now: Instant, is_blocked: bool) {
        self.blocked_since = if is_blocked { self.blocked_since.or(Some(now)) } else { None };
    }

    /// When to look again.
    ///
    /// # Errors
    /// Why it is to be closed now.
    pub(crate) fn look(&self, now: Instant, bounds: &ConnectionBounds) -> Result<Instant, Closed> {
        let next = now + bounds.header_timeout.min(bounds.idle_timeout);
        let (since, limit, why) = match self.phase {
            Phase::Head => (self.since, bounds.header_timeout, Closed::Header),
            Phase::Idle => (self.since, bounds.idle_timeout, Closed::Idle),
            Phase::Busy => match self.blocked_since {
                Some(blocked) => (blocked, bounds.idle_timeout, Closed::Unread),
                None => return Ok(next),
            },
        };
        let end = since + limit;
        if now >= end { Err(why) } else { Ok(end.min(next)) }
    }

    /// Its place among those that are closed when there are too many: the smallest first. `None` with a request in hand.
    pub(crate) fn standing(&self) -> Option<(bool, Instant)> {
        (self.phase != Phase::Busy).then_some((self.has_asked, self.since))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);
    const BOUNDS: ConnectionBounds = ConnectionBounds {
        connections_max: 1,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
    };

    #[test]
    fn a_head_has_its_time_from_the_connection_and_from_its_first_byte() {
        let start = clock::now();
        let mut life = Life::begin(start);
        life.bytes_came(start + 9 * SECOND);
        assert_eq!(life.look(start + 9 * SECOND, &BOUNDS), Ok(start + 10 * SECOND), "bytes win no time");
        assert_eq!(life.look(start + 10 * SECOND, &BOUNDS), Err(Closed::Header));
        life.request_came();
        life.answered(start + 20 * SECOND);
        life.bytes_came(start + 40 * SECOND);
        assert_eq!(life.look(start + 49 * SECOND, &BOUNDS), Ok(start + 50 * SECOND));
        assert_eq!(life.look(start + 50 * SECOND, &BOUNDS), Err(Closed::Header));
    }

    #[test]
    fn a_request_takes_as_long_as_it_takes_and_silence_after_it_does_not() {
        let start = clock::now();
        let mut life = Life::begin(start);
        assert!(life.standing().is_some());
        life.request_came();
        assert_eq!(life.standing(), None, "it is not closed for others");
        assert!(life.look(start + 3600 * SECOND, &BOUNDS).is_ok());
        life.answered(start + 3600 * SECOND);
        assert!(life.look(start + 3659 * SECOND, &BOUNDS).is_ok());
        assert_eq!(life.look(start + 3660 * SECOND, &BOUNDS), Err(Closed::Idle));
    }

    #[test]
    fn an_answer_is_read_bit_by_bit_or_given_up() {
        let start = clock::now();
        let mut life = Life::begin(start);
        life.request_came();
        life.wrote(start, true);
        life.wrote(start + 30 * SECOND, true);
        assert!(life.look(start + 59 * SECOND, &BOUNDS).is_ok());
        assert_eq!(life.look(start + 60 * SECOND, &BOUNDS), Err(Closed::Unread));
        life.wrote(start + 61 * SECOND, false);
        assert!(life.look(start + 600 * SECOND, &BOUNDS).is_ok());
    }
}
