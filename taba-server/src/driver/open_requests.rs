//! [`OpenRequests`]: the unanswered requests: bounds their bytes, tracks the oldest, and answers each once all its
//! messages are answered.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use taba_core::Timestamp;
use taba_core::wire::{Ack, Answer};
use tokio::sync::{Notify, oneshot};

use crate::planner::IncomingMessage;
use crate::status::Status;

/// The unanswered requests.
pub(crate) struct OpenRequests {
    status: Arc<Status>,
    bytes_held: AtomicUsize,
    bytes_held_max: usize,
    requests: AtomicU64,
    /// Arrival time and number of each open request.
    open: Mutex<BTreeSet<(Timestamp, u64)>>,
    closed: Notify,
}

/// The limit of bytes in open requests is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverCapacity;

/// Reserved bytes, released on drop.
pub(crate) struct ByteReservation {
    open_requests: Arc<OpenRequests>,
    bytes: usize,
}

/// One request: collects the answers to its Batches and Probes.
pub(crate) struct OpenRequest {
    open_requests: Arc<OpenRequests>,
    key: (Timestamp, u64),
    answers: Mutex<PendingAcks>,
    /// Released with the request, after its last answer.
    _room: Option<ByteReservation>,
}

struct PendingAcks {
    acks: Vec<Ack>,
    left: usize,
    done: Option<oneshot::Sender<Vec<Ack>>>,
}

/// The right to answer one Batch or Probe. Dropping it answers *unavailable*.
pub(crate) struct Ticket {
    request: Arc<OpenRequest>,
    slot: usize,
    is_answered: bool,
}

/// A panic under one of these locks could leave a request half answered, so it is propagated.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing under this lock panics")
}

impl OpenRequests {
    pub(crate) fn new(status: Arc<Status>, bytes_held_max: usize) -> Self {
        Self {
            status,
            bytes_held: AtomicUsize::new(0),
            bytes_held_max,
            requests: AtomicU64::new(0),
            open: Mutex::default(),
            closed: Notify::new(),
        }
    }

    /// Reserves bytes. A request always fits when there is no other.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Result<ByteReservation, OverCapacity> {
        let before = self.bytes_held.fetch_add(bytes, Ordering::Relaxed);
        // Dropped, and so released, on the error path below.
        let room = ByteReservation { open_requests: Arc::clone(self), bytes };
        if before > 0 && before + bytes > self.bytes_held_max { Err(OverCapacity) } else { Ok(room) }
    }

    /// Opens a request. Tickets are in the order of the messages; the receiver gets all answers at once.
    pub(crate) fn open(
        self: &Arc<Self>,
        arrived: Timestamp,
        messages: &[IncomingMessage],
        room: Option<ByteReservation>,
    ) -> (Vec<Ticket>, oneshot::Receiver<Vec<Ack>>) {
        let key = (arrived, self.requests.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        let acks = messages.iter().map(|message| message.unanswered(Answer::Unavailable)).collect();
        let answers = Mutex::new(PendingAcks { acks, left: messages.len(), done: Some(sender) });
        let request = Arc::new(OpenRequest { open_requests: Arc::clone(self), key, answers, _room: room });
        self.change_open(|open| {
            open.insert(key);
        });
        let ticket = |slot| Ticket { request: Arc::clone(&request), slot, is_answered: false };
        ((0..messages.len()).map(ticket).collect(), receiver)
    }

    /// The number of open requests.
    pub(crate) fn open_count(&self) -> usize {
        lock(&self.open).len()
    }

    /// Waits until no request is open.
    pub(crate) async fn until_empty(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open_count() == 0 {
                return;
            }
            closed.await;
        }
    }

    fn change_open(&self, change: impl FnOnce(&mut BTreeSet<(Timestamp, u64)>)) {
        let mut open = lock(&self.open);
        change(&mut open);
        // Under the lock, so that the last change sets the final minimum.
        self.status.set_oldest_open(open.first().map(|(arrived, _)| *arrived));
    }
}

impl ByteReservation {
    /// Takes what another one has reserved.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for ByteReservation {
    fn drop(&mut self) {
        self.open_requests.bytes_held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.open_requests.change_open(|open| {
            open.remove(&self.key);
        });
        self.open_requests.closed.notify_waiters();
    }
}

impl Ticket {
    pub(crate) fn answer(mut self, ack: Ack) {
        self.settle(Some(ack));
    }

    fn settle(&mut self, ack: Option<Ack>) {
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }
        let mut answers = lock(&self.request.answers);
        if let Some(ack) = ack {
            answers.acks[self.slot] = ack;
        }
        answers.left -= 1;
        if answers.left == 0 {
            let acks = std::mem::take(&mut answers.acks);
            if let Some(done) = answers.done.take() {
                // After a broken connection the receiver is gone; the Agent sends again.
                let _ = done.send(acks);
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle(None);
    }
}
