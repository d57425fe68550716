//! [`Connections`]: all connections of a listener, or of several: their bounds, their counts, and who is closed first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use taba_core::{MetricKind, MetricsText};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::bounds::ConnectionBounds;
use crate::clock::now;
use crate::life::{Closed, Life};

/// Bytes of the head of a request.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a new connection waits before it looks again for one that can be closed: a request may have ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// All connections of one or several listeners, and their counts.
#[derive(Debug)]
pub struct Connections {
    bounds: ConnectionBounds,
    permits: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    accepted: AtomicU64,
    closed: [AtomicU64; 4],
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: IpAddr,
    life: Mutex<Life>,
    close: Notify,
}

/// One connection among all, which leaves them when dropped.
pub(crate) struct OpenConnection {
    pub(crate) connection: Arc<Connection>,
    id: u64,
    all: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

/// Nothing under these locks panics, and what they hold is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Connection {
    pub(crate) fn change(&self, change: impl FnOnce(&mut Life, Instant)) {
        change(&mut lock(&self.life), now());
    }

    fn look(&self, bounds: &ConnectionBounds) -> Result<Instant, Closed> {
        lock(&self.life).look(now(), bounds)
    }
}

impl Connections {
    /// None yet.
    pub fn new(bounds: ConnectionBounds) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(bounds.connections_max));
        let (open, accepted, closed) = Default::default();
        Arc::new(Self { bounds, permits, open, accepted, closed })
    }

    /// Lets a new connection in, once there is room for it: at the bound, another one is closed.
    ///
    /// # Cancel safety
    /// Safe: the new one is not let in.
    pub(crate) async fn admit(self: &Arc<Self>, peer: IpAddr) -> OpenConnection {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                break permit;
            }
            self.close_one();
            let freed = timeout(LOOK_AGAIN, Arc::clone(&self.permits).acquire_owned()).await;
            if let Ok(Ok(permit)) = freed {
                break permit;
            }
        };
        let id = self.accepted.fetch_add(1, Ordering::Relaxed);
        let connection =
            Arc::new(Connection { peer, life: Mutex::new(Life::begin(now())), close: Notify::new() });
        lock(&self.open).insert(id, Arc::clone(&connection));
        OpenConnection { connection, id, all: Arc::clone(self), _permit: permit }
    }

    /// Closes the one that has the least claim to stay, if there is one without a request in hand.
    pub(crate) fn close_one(&self) {
        let mut open = lock(&self.open);
        let candidates = open.iter().filter_map(|(&id, connection)| {
            lock(&connection.life).standing().map(|standing| (id, connection.peer, standing))
        });
        if let Some(closed) = first_to_close(candidates).and_then(|id| open.remove(&id)) {
            closed.close.notify_one();
        }
    }

    fn count(&self, why: Closed) {
        self.closed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the counts as metrics whose names begin with `prefix`.
    pub fn write_metrics(&self, prefix: &str, text: &mut MetricsText) {
        let accepted = self.accepted.load(Ordering::Relaxed);
        text.counter(&format!("{prefix}_connections_total"), "Connections that were accepted", accepted);
        let open = self.bounds.connections_max.saturating_sub(self.permits.available_permits());
        text.gauge(&format!("{prefix}_connections_open"), "Connections that are open", open);
        let name = format!("{prefix}_connections_closed_total");
        text.family(MetricKind::Counter, &name, "Connections that were closed from here, and why");
        let reasons = [
            (Closed::Header, "header_timeout"),
            (Closed::Idle, "idle_timeout"),
            (Closed::Unread, "answer_unread"),
            (Closed::Full, "full"),
        ];
        for (why, word) in reasons {
            text.sample(&name, &[("why", word)], self.closed[why as usize].load(Ordering::Relaxed));
        }
    }
}

/// Of the addresses with the most connections, the oldest; those that have never sent a whole request before all others.
fn first_to_close(candidates: impl Iterator<Item = (u64, IpAddr, (bool, Instant))>) -> Option<u64> {
    let candidates: Vec<_> = candidates.collect();
    let mut shares: HashMap<(bool, IpAddr), usize> = HashMap::new();
    for &(_, peer, (has_asked, _)) in &candidates {
        *shares.entry((has_asked, peer)).or_default() += 1;
    }
    let order = |&&(id, peer, (has_asked, since)): &&(u64, IpAddr, (bool, Instant))| {
        (has_asked, std::cmp::Reverse(shares[&(has_asked, peer)]), since, id)
    };
    candidates.iter().min_by_key(order).map(|&(id, ..)| id)
}

impl OpenConnection {
    /// Returns when it is to be closed; that is counted.
    pub(crate) async fn overdue(&self) {
        let all = &self.all;
        let late = async {
            loop {
                match self.connection.look(&all.bounds) {
                    Ok(next) => sleep_until(next).await,
                    Err(why) => return why,
                }
            }
        };
        let why = tokio::select! {
            why = late => why,
            () = self.connection.close.notified() => Closed::Full,
        };
        all.count(why);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        lock(&self.all.open).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_never_asked_go_first_then_the_oldest_of_the_address_with_the_most() {
        let start = now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first =
            |candidates: &[(u64, IpAddr, (bool, Instant))]| first_to_close(candidates.iter().copied());
        assert_eq!(first(&[]), None);
        let never = (7, other, (false, at(9)));
        assert_eq!(first(&[(1, one, (true, at(1))), (2, one, (true, at(2))), never]), Some(7));
        let many = [(1, other, (false, at(1))), (2, one, (false, at(3))), (3, one, (false, at(2)))];
        assert_eq!(first(&many), Some(3), "the oldest of the address with more, not the oldest of all");
        let idle = [(1, one, (true, at(5))), (2, one, (true, at(4)))];
        assert_eq!(first(&idle), Some(2));
    }
}
