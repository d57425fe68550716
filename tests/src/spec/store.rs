//! [`Store`]: one shard's copy of the VBucket, on several nodes, of which one rules; the others have what it had some
//! commits ago.
//!
//! ```text
//!  ruling   ∅ ─ 1 ─ 2 ─ 3 ─ 4          entries: what the VBucket held after each write
//!  replica  ∅ ─ 1 ─ 2                  a prefix of what it follows
//!                   └──── a failover to the replica: 3 and 4 are gone, 2 is followed by 3'
//! ```
//! The old primary may not know that it is one: it takes writes until [`Node::writes_until`]. A restart of the ruling
//! node takes back what its disk did not have yet.

use super::rules::{Rule, Rules};
use super::shard::Head;

/// Time, in steps of the world's own clock.
pub type Time = i16;
/// The place of a Batch in its Lane, from 1; 0 is "none".
pub type Seq = u8;

/// How many Streams one walk may begin.
pub const STREAMS: usize = 16;

/// How many Servers there may be.
pub const SERVERS: usize = 3;

/// A set of events, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Events(pub u16);

impl Events {
    /// How many.
    pub const fn len(self) -> u8 {
        self.0.count_ones() as u8
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that `other` lacks.
    #[must_use]
    pub const fn but(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::fmt::Display for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = (0..16).filter(|n| self.0 & (1 << n) != 0).map(|n| char::from(b'a' + n));
        write!(f, "{{{}}}", names.collect::<String>())
    }
}

/// All the States of a VBucket, as far as we care: how often each event was folded into them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Folded {
    /// At least once.
    pub once: Events,
    /// More than once: what must never be.
    pub twice: Events,
}

impl Folded {
    /// Folds these.
    pub const fn fold(&mut self, events: Events) {
        self.twice = self.twice.and(Events(self.once.0 & events.0));
        self.once = self.once.and(events);
    }
}

/// How far a Lane is contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The last Batch contained.
    pub seq: Seq,
    /// Events of the Lane so far, lost ones included.
    pub events: u8,
    /// When it was written, by the clocks that [`Rule::MarksByTwoClocks`] names.
    pub written: Time,
}

/// What a VBucket holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    /// Who owns the VBucket, as far as this copy knows.
    pub head: Head,
    /// The token of this content.
    pub version: u16,
    /// The version of the last commit of each Server: its signature.
    pub signed: [u16; SERVERS],
    /// One mark per Stream: with one VBucket, a Stream is a Lane.
    pub marks: [Mark; STREAMS],
    /// The States.
    pub folded: Folded,
    /// Events counted as lost, in the Ledger: a State as well.
    pub counted: u8,
}

/// A write, and when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What the VBucket held after it.
    pub content: Content,
    /// When this node wrote it.
    pub at: Time,
}

/// One process of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// What it has been told, oldest first; never empty.
    pub history: Vec<Entry>,
    /// Whose replica it is, while the link is up.
    pub follows: Option<usize>,
    /// Until when it takes writes although another rules.
    pub writes_until: Time,
}

impl Node {
    /// What it holds now.
    pub fn tip(&self) -> &Content {
        &self.history[self.history.len() - 1].content
    }

    /// How many entries a restart leaves at least, if the disk lags by less than `disk_lag`.
    pub fn on_disk(&self, now: Time, disk_lag: Time) -> usize {
        let young = self.history.iter().rev().take_while(|entry| entry.at > now - disk_lag);
        (self.history.len() - young.count()).max(1)
    }
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is done; the write is the entry of this index.
    Done(usize),
    /// The VBucket is at another version.
    Conflict,
    /// This copy is fenced, or has another epoch.
    Elsewhere,
    /// The node takes no writes.
    Refused,
}

/// One shard's copy of the VBucket, on several nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// All nodes of the deployment.
    pub nodes: Vec<Node>,
    /// The one that Servers are sent to.
    pub ruling: usize,
    pub(super) versions: u16,
}

impl Store {
    /// A primary and its replicas. The first shard holds the VBucket, empty; the others hold no copy.
    pub fn new(shard: usize, nodes: usize) -> Self {
        let head = if shard == 0 { Head::FIRST } else { Head::default() };
        let first = Entry { content: Content { head, ..Content::default() }, at: 0 };
        let node = |n| Node { history: vec![first], follows: (n > 0).then_some(0), writes_until: 0 };
        // No two shards give out the same version.
        Self { nodes: (0..nodes).map(node).collect(), ruling: 0, versions: shard as u16 * 0x4000 }
    }

    /// Whether a node takes writes: it rules, or does not know that another one does.
    pub fn takes_writes(&self, node: usize, now: Time) -> bool {
        let at = &self.nodes[node];
        node == self.ruling || (at.follows.is_none() && at.writes_until > now)
    }

    /// Writes `next` on `node`, if it is still at `expect`, under this epoch; signed by Server `by`.
    pub fn commit(
        &mut self,
        (node, by): (usize, usize),
        (expect, epoch): (u16, u8),
        mut next: Content,
        now: Time,
        rules: Rules,
    ) -> (Committed, Content) {
        if !self.takes_writes(node, now) {
            return (Committed::Refused, next);
        }
        let at = &mut self.nodes[node];
        next.head = at.tip().head;
        if !next.head.is_owned(epoch) && rules.has(Rule::FenceHolds) {
            return (Committed::Elsewhere, next);
        }
        if at.tip().version != expect && rules.has(Rule::ConditionalCommit) {
            return (Committed::Conflict, next);
        }
        self.versions += 1;
        next.version = if rules.has(Rule::UniqueVersion) { self.versions } else { expect + 1 };
        next.signed[by] = next.version;
        if !rules.has(Rule::OneWritePerCommit) {
            let before = at.tip();
            let half = Content { version: before.version, marks: before.marks, ..next };
            at.history.push(Entry { content: half, at: now });
        }
        at.history.push(Entry { content: next, at: now });
        (Committed::Done(at.history.len() - 1), next)
    }

    /// Whether the entry would survive the loss of the node, as far as the node itself can tell.
    pub fn is_stable(&self, node: usize, entry: usize, now: Time, disk_lag: Time, rules: Rules) -> bool {
        let is_on_disk = rules.has(Rule::StableOnDisk);
        let has = |of: &Node| if is_on_disk { of.on_disk(now, disk_lag) } else { of.history.len() };
        self.all_have(node, |of| has(of) > entry, rules)
    }

    /// Whether the node and its replicas have received the entry: what `WAIT` tells.
    pub fn is_received(&self, node: usize, entry: usize, rules: Rules) -> bool {
        self.all_have(node, |of| of.history.len() > entry, rules)
    }

    fn all_have(&self, node: usize, has: impl Fn(&Node) -> bool, rules: Rules) -> bool {
        let replicas = self.nodes.iter().filter(|replica| replica.follows == Some(node));
        let (listed, reached) = replicas
            .fold((0, 0), |(listed, reached), replica| (listed + 1, reached + usize::from(has(replica))));
        let deployed = self.nodes.len() - 1;
        let has_enough = listed == deployed || !rules.has(Rule::ShortListSaysNothing);
        has_enough && listed == reached && has(&self.nodes[node])
    }

    /// A replica takes the next write of the node that it follows; false when there is none.
    pub fn replicate(&mut self, replica: usize, now: Time) -> bool {
        let has = self.nodes[replica].history.len();
        let next = self.nodes[replica].follows.and_then(|of| self.nodes[of].history.get(has)).copied();
        self.nodes[replica].history.extend(next.map(|entry| Entry { at: now, ..entry }));
        next.is_some()
    }

    /// Another node rules, as it is. The old one takes writes until then; who followed it goes on to.
    pub fn fail_over(&mut self, to: usize, writes_until: Time) {
        self.nodes[self.ruling].writes_until = writes_until;
        self.nodes[to].follows = None;
        self.ruling = to;
    }

    /// A node gives up what it has and becomes a replica of the ruling one, which it copies.
    pub fn follow(&mut self, node: usize) {
        let history = self.nodes[self.ruling].history.clone();
        self.nodes[node] = Node { history, follows: Some(self.ruling), writes_until: 0 };
        // Whoever followed it has something else now: the links break.
        self.unfollow(node);
    }

    /// The ruling node starts again, from so many entries; its replicas have to copy it anew.
    pub fn restart(&mut self, entries: usize) {
        self.nodes[self.ruling].history.truncate(entries);
        self.unfollow(self.ruling);
    }

    fn unfollow(&mut self, node: usize) {
        for replica in &mut self.nodes {
            if replica.follows == Some(node) {
                replica.follows = None;
            }
        }
    }
}
