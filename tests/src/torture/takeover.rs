//! A replica takes over: what is lost by that, and a primary that does not know it yet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::world::World;
use crate::link::Link;
use crate::redis::{Redis, Reply};

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
}

impl World {
    /// The primary of a shard is killed while its replica lags; the replica takes over as it stands, and the former
    /// primary comes back as its replica.
    ///
    /// # Panics
    /// When the shard has no replica.
    pub fn fail_over(&mut self, shard: usize) {
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
        self.replica_of(shard).stall();
        self.advance_at_most(EVENTS / 2, LAG_MAX / 2);
        self.shards[shard].primary.pause();
        let former = self.promote(shard, Some(0));
        former.resume();
        let before = marks(&former);
        self.advance_at_most(EVENTS, LAG_MAX);
        self.strays += batches_above(&marks(&former), &before);
        self.servers[0].links[shard].switch(self.shards[shard].primary.port());
        self.note_lost_at(&former, shard);
        self.follow(shard, former);
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
    }
}

/// The marks of a Redis: how far each Lane is contained, by VBucket and Stream.
type Marks = BTreeMap<(String, String), u64>;

fn marks(redis: &Redis) -> Marks {
    let mut marks = Marks::new();
    let Ok(Reply::List(Some(keys))) = redis.try_command(&[b"KEYS", b"{vb*}"]) else { return marks };
    for key in keys {
        let Reply::Bulk(Some(key)) = key else { continue };
        let Ok(Reply::List(Some(fields))) = redis.try_command(&[b"HGETALL", &key]) else { continue };
        for pair in fields.chunks(2) {
            let [Reply::Bulk(Some(field)), Reply::Bulk(Some(value))] = pair else { continue };
            if let Some(stream) = field.strip_prefix(b"a:") {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                marks.insert((text(&key), text(stream)), seq_of(value));
            }
        }
    }
    marks
}

/// The number of the last Batch, in a stored mark; see the drawing in `taba_shard::layout`.
fn seq_of(mark: &[u8]) -> u64 {
    mark.first_chunk().map_or(0, |seq| u64::from_le_bytes(*seq))
}

/// How many Batches these marks are ahead of those.
fn batches_above(these: &Marks, those: &Marks) -> u64 {
    let ahead = |(lane, seq): (&(String, String), &u64)| seq.saturating_sub(*those.get(lane).unwrap_or(&0));
    these.iter().map(ahead).sum()
}

fn lost(had: &Marks, has: &Marks) -> Lost {
    let is_behind = |(lane, seq): &(&(String, String), &u64)| has.get(*lane).unwrap_or(&0) < *seq;
    let vbuckets: std::collections::BTreeSet<_> =
        had.iter().filter(is_behind).map(|((vbucket, _), _)| vbucket).collect();
    Lost { vbuckets: vbuckets.len() as u64, batches: batches_above(had, has) }
}
