//! A replica takes over: what is lost by that, and a primary that does not know it yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::world::World;
use crate::link::Link;
use crate::redis::{Redis, Reply};
use crate::wait_until;

/// A replica lags, and a former primary takes writes, for no longer than this. Far below `repl-timeout`, and below
/// `confirm_after` of every Plan that has replicas.
const LAG_MAX: Duration = Duration::from_millis(1_000);
/// Events that are recorded while a replica lags, or while there are two primaries.
const EVENTS: u64 = 60_000;

/// What a promoted replica did not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// VBuckets in which something was missing.
    pub vbuckets: u64,
    /// Batches that had been committed and acknowledged, by the marks.
    pub batches: u64,
    /// The events in them.
    pub events: u64,
}

impl World {
    /// The primary of a shard is killed while its replica lags; the replica takes over as it stands, and the former
    /// primary comes back as its replica.
    ///
    /// # Panics
    /// When the shard has no replica.
    pub fn fail_over(&mut self, shard: usize) {
        self.wait_for_replica(shard);
        self.replica_of(shard).stall();
        self.advance_at_most(EVENTS, LAG_MAX);
        // Nothing is written while we look; what was acknowledged by now is what must not be lost for good.
        self.links_to(shard).for_each(Link::stall);
        self.note_lost(shard);
        self.shards[shard].primary.kill();
        let mut former = self.promote(shard, None);
        self.links_to(shard).for_each(Link::go_on);
        former.restart();
        self.follow(shard, former);
    }

    /// The primary of a shard is stopped, its replica takes over for all Servers but the first, and the former primary
    /// goes on to take what the first one writes; then it becomes a replica.
    ///
    /// # Panics
    /// When the shard has no replica.
    pub fn split(&mut self, shard: usize) {
        self.wait_for_replica(shard);
        self.replica_of(shard).stall();
        self.advance_at_most(EVENTS / 2, LAG_MAX / 2);
        self.shards[shard].primary.pause();
        let former = self.promote(shard, Some(0));
        former.resume();
        let before = marks(&former);
        self.advance_at_most(EVENTS, LAG_MAX);
        self.strays += lost(&marks(&former), &before).batches;
        self.servers[0].links[shard].switch(self.shards[shard].primary.port());
        self.note_lost_at(&former, shard);
        self.follow(shard, former);
    }

    /// Waits until the replica has what the primary has now: one that never had the deployment cannot take over.
    fn wait_for_replica(&self, shard: usize) {
        let slot = &self.shards[shard];
        let replica = &slot.replica.as_ref().expect("the shard has a replica").redis;
        let offset =
            |redis: &Redis, field: &str| redis.info("replication", field).parse::<u64>().unwrap_or(0);
        let now = offset(&slot.primary, "master_repl_offset");
        replica.wait_for_link();
        wait_until("the replica has what its primary had", || offset(replica, "slave_repl_offset") >= now);
    }

    fn replica_of(&self, shard: usize) -> &Link {
        &self.shards[shard].replica.as_ref().expect("the shard has a replica").link
    }

    fn links_to(&self, shard: usize) -> impl Iterator<Item = &Link> {
        self.servers.iter().map(move |server| &server.links[shard])
    }

    /// Counts what the replica lacks.
    fn note_lost(&mut self, shard: usize) {
        let slot = &self.shards[shard];
        let replica = slot.replica.as_ref().expect("the shard has a replica");
        self.lost.join(lost(&marks(&slot.primary), &marks(&replica.redis)));
    }

    /// Counts what the present primary does not have of what a former one took.
    fn note_lost_at(&mut self, former: &Redis, shard: usize) {
        let present = marks(&self.shards[shard].primary);
        self.lost.join(lost(&marks(former), &present));
    }

    /// Waits until so many more events are recorded, but not for long: a fault that may not last must not wait for a
    /// busy machine.
    #[expect(
        clippy::disallowed_methods,
        reason = "the time that a fault lasts is bounded, whatever is recorded"
    )]
    fn advance_at_most(&self, events: u64, time: Duration) {
        let (start, then) = (Instant::now(), self.load.recorded() + events);
        while self.load.recorded() < then && start.elapsed() < time {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Lost {
    pub(super) fn join(&mut self, other: Self) {
        self.vbuckets += other.vbuckets;
        self.batches += other.batches;
        self.events += other.events;
    }
}

/// A stored mark: the number of the last Batch, and the events up to it. See the drawing in `taba_shard::layout`.
#[derive(Clone, Copy, Debug, Default)]
struct StoredMark {
    seq: u64,
    events: u64,
}

/// The marks of a Redis: how far each Lane is contained, by VBucket and Stream.
type Marks = BTreeMap<(String, String), StoredMark>;

fn marks(redis: &Redis) -> Marks {
    let mut marks = Marks::new();
    let Ok(Reply::List(Some(keys))) = redis.try_command(&[b"KEYS", b"{vb*}"]) else { return marks };
    for key in keys {
        let Reply::Bulk(Some(key)) = key else { continue };
        let Ok(Reply::List(Some(fields))) = redis.try_command(&[b"HGETALL", &key]) else { continue };
        for pair in fields.chunks(2) {
            let [Reply::Bulk(Some(field)), Reply::Bulk(Some(value))] = pair else { continue };
            let (Some(stream), Some(mark)) = (field.strip_prefix(b"a:"), StoredMark::read(value)) else {
                continue;
            };
            // Without events it is the signature of a Server, whose number counts its commits and no Batches.
            if mark.events > 0 {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                marks.insert((text(&key), text(stream)), mark);
            }
        }
    }
    marks
}

impl StoredMark {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (seq, rest) = bytes.split_first_chunk()?;
        let (events, _) = rest.split_first_chunk()?;
        Some(Self { seq: u64::from_le_bytes(*seq), events: u64::from_le_bytes(*events) })
    }
}

/// What these marks are ahead of those.
fn lost(had: &Marks, has: &Marks) -> Lost {
    let mut lost = Lost::default();
    let mut vbuckets = BTreeSet::new();
    for (lane, had) in had {
        let has = has.get(lane).copied().unwrap_or_default();
        if had.seq > has.seq {
            vbuckets.insert(&lane.0);
            lost.batches += had.seq - has.seq;
            lost.events += had.events.saturating_sub(has.events);
        }
    }
    lost.vbuckets = vbuckets.len() as u64;
    lost
}
