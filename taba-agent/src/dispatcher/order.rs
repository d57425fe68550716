//! [`ServerOrder`]: in which order one Lane turns to the Servers.

use std::time::Duration;

use taba_core::ledger::Why;
use taba_core::wire::{Ack, Answer};

/// For how long a Lane stays away from Servers that were too old for it, before it tries its first one again.
const STAY_AWAY: Duration = Duration::from_secs(60);

/// How well a Server suits a Lane now, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Suitability {
    /// It is sent nothing.
    Closed,
    /// It is known to refuse requests as large as what the Lane has to say.
    TooSmall,
    /// It does not answer.
    Hanging,
    /// It is not given all of its Lanes at the moment; or nobody knows whether it answers, and the Lane has waited in vain
    /// for one lately.
    Spared,
    /// Nothing speaks against it.
    Suited,
}

/// The Servers in the rendezvous order of one Lane. A Server whose build is too old for what the Lane holds (a State of a
/// newer version, in a rolling upgrade) is passed over for a while; the next in the order is tried.
#[derive(Debug)]
pub(super) struct ServerOrder {
    /// Indices of the Servers, the first choice in front.
    servers: Box<[u16]>,
    /// How many of them are passed over.
    skipped: usize,
    /// Until when they are.
    until: Duration,
    /// The Server that was too old for what the Lane holds now.
    too_old: Option<usize>,
}

impl ServerOrder {
    pub(super) fn new(servers: Box<[u16]>) -> Self {
        Self { servers, skipped: 0, until: Duration::ZERO, too_old: None }
    }

    /// The Server that suits best, the first of equals; `None` when all are closed. Those that are passed over come last.
    pub(super) fn choose(&self, now: Duration, suits: impl Fn(usize) -> Suitability) -> Option<usize> {
        let skipped = if now < self.until { self.skipped } else { 0 };
        let (last, first) = self.servers.split_at(skipped.min(self.servers.len()));
        let mut best = (Suitability::Closed, None);
        for server in first.iter().chain(last).map(|server| usize::from(*server)) {
            let suitability = suits(server);
            if suitability > best.0 {
                best = (suitability, Some(server));
            }
            if suitability == Suitability::Suited {
                break;
            }
        }
        best.1
    }

    /// The Server that was too old for what the Lane holds; `None` when none was, or another one took it.
    pub(super) fn too_old(&self) -> Option<usize> {
        self.too_old
    }

    /// Takes in what a Server answered to this Lane.
    pub(super) fn answered(&mut self, now: Duration, server: usize, ack: &Ack) {
        if is_too_old(ack) {
            let position = self.servers.iter().position(|other| usize::from(*other) == server);
            let next = position.map_or(0, |position| position + 1);
            (self.skipped, self.until) = (next % self.servers.len().max(1), now + STAY_AWAY);
            self.too_old = Some(server);
        } else if matches!(ack.answer, Answer::Applied | Answer::Duplicate) {
            self.too_old = None;
        }
    }
}

/// Whether a Server did not take a Batch because its build is too old for a Block of it.
fn is_too_old(ack: &Ack) -> bool {
    ack.answer == Answer::Unavailable && ack.refused.iter().any(|refusal| refusal.why == Why::UnknownVersion)
}
