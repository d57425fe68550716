//! Copying a fenced VBucket to its destination, and the switch: four round trips while its writes are held.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join;
use redis::{Cmd, cmd};
use xxhash_rust::xxh64::xxh64;

use super::MoverError;
use crate::command::Reply;
use crate::keys;
use crate::layout;
use crate::limits::{MOVE_BYTES_MAX, MOVE_COMMANDS_MAX, MOVE_ITEMS_MAX, MOVE_WAIT_STEP, STAGED_TIME};
use crate::migration::Move;
use crate::redis::{LinkError, ShardLink, accepted, monotonic, random, read_time, scripts};
use crate::sabotage::stop_at;

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copied {
    pub(super) bytes: u64,
    pub(super) keys: u64,
    /// For how long writes were held; `None` when another operator had fenced the VBucket.
    pub(super) pause: Option<Duration>,
}

/// What a switch has come to.
pub(super) enum SwitchOutcome {
    Switched(Copied),
    /// Something has changed since the heads were read: they are to be read again.
    Changed,
}

/// One copy of a VBucket, under way.
pub(super) struct Copy<'a> {
    pub(super) this: Move,
    pub(super) source: &'a ShardLink,
    pub(super) destination: &'a ShardLink,
    /// The epoch of the source.
    pub(super) own: u64,
    /// The epoch that the destination will have.
    pub(super) fence: u64,
    /// How many replicas of the source must have the fence.
    pub(super) replicas: u64,
    /// For how long writes may be held.
    pub(super) pause_max: Duration,
}

/// A key at the source. Read and written with plain commands, not with `DUMP` and `RESTORE`: half the work for Redis, which
/// would compress and decompress every value, and no two versions of Redis disagree about them.
struct SourceKey {
    name: String,
    kind: KeyKind,
    items: Vec<Reply>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    /// The hash of a VBucket: fields and values by turns.
    Hash,
    /// An index: a sorted set, all of whose scores are 0.
    Index,
}

impl KeyKind {
    /// The command that reads such a key.
    fn read(self, key: &str) -> Cmd {
        match self {
            Self::Hash => command("HGETALL", &[key]),
            Self::Index => command("ZRANGE", &[key, "0", "-1"]),
        }
    }

    /// Items that belong together.
    const fn row(self) -> usize {
        match self {
            Self::Hash => 2,
            Self::Index => 1,
        }
    }

    /// The command that writes some of such a key.
    fn write(self, key: &str, items: &[Reply]) -> Cmd {
        let mut write = command(if self == Self::Hash { "HSET" } else { "ZADD" }, &[key]);
        for item in items.iter().filter_map(bytes) {
            if self == Self::Index {
                write.arg(0);
            }
            write.arg(&item[..]);
        }
        write
    }

    /// What is in a key: how many items, and a checksum of 128 bits that does not depend on the order of rows, in which
    /// two Redis need not agree.
    fn checksum(self, items: &[Reply]) -> (usize, [u64; 2]) {
        let hash =
            |row: &[Reply], seed| row.iter().filter_map(bytes).fold(seed, |hash, item| xxh64(item, hash));
        let sum = items.chunks(self.row()).fold([0_u64, 0], |[first, second], row| {
            [first.wrapping_add(hash(row, 1)), second.wrapping_add(hash(row, 2))]
        });
        (items.len(), sum)
    }
}

fn bytes(reply: &Reply) -> Option<&Bytes> {
    match reply {
        Reply::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// What is written at the destination under names of its own, until it is put in place.
struct Staged {
    prefix: String,
    /// Each key and its name here by turns, the hash first.
    pairs: Vec<String>,
    copied: Copied,
}

impl Staged {
    fn names(&self) -> Vec<&str> {
        self.pairs.iter().skip(1).step_by(2).map(String::as_str).collect()
    }
}

impl Copy<'_> {
    /// Fences the source, sees that its replicas have that, copies, compares, and switches. `fenced`: when this mover has
    /// fenced it.
    pub(super) async fn run(&self, fenced: &mut Option<Instant>) -> Result<SwitchOutcome, MoverError> {
        // The time by the destination's own clock, which the script of the switch looks at; no later than if it had been read
        // before the fence was written.
        let begun = monotonic();
        let time = async { Ok::<_, MoverError>((read_time(self.destination).await?.0, monotonic())) };
        let ((now, read_at), hash) = try_join(time, self.fence_and_read(fenced)).await?;
        let left = self.pause_max.saturating_sub(read_at.saturating_duration_since(begun));
        let deadline = now + left.as_micros() as u64;
        let Some((hash, indexes)) = hash else { return Ok(SwitchOutcome::Changed) };
        stop_at("confirmed", self.this.vbucket).await;
        let prefix = keys::staged(self.this.vbucket, random());
        let mut staged = Staged { prefix, pairs: Vec::new(), copied: Copied::default() };
        let mut outcome = self.switch(hash, &indexes, &mut staged, deadline).await;
        match &mut outcome {
            Ok(SwitchOutcome::Switched(copied)) => {
                copied.pause = fenced.map(|fenced| monotonic().saturating_duration_since(fenced));
            }
            // What cannot be removed now goes when its time is over.
            _ => drop(self.destination.one(command("UNLINK", &staged.names())).await),
        }
        outcome
    }

    async fn switch(
        &self,
        hash: SourceKey,
        indexes: &[String],
        staged: &mut Staged,
        deadline: u64,
    ) -> Result<SwitchOutcome, MoverError> {
        let mut read = vec![hash];
        // While some keys are written at the destination, the next are read at the source.
        for some in indexes.chunks(MOVE_COMMANDS_MAX) {
            let (next, ()) = try_join(self.read(some), self.write(read, staged)).await?;
            read = next;
        }
        self.write(read, staged).await?;
        stop_at("compared", self.this.vbucket).await;
        let mut call = scripts::SWITCH.call(&staged.pairs);
        call.arg(self.fence).arg(deadline);
        match self.destination.one(call).await? {
            Reply::Integer(1) => Ok(SwitchOutcome::Switched(staged.copied)),
            Reply::List(items) if items.first() == Some(&Reply::Bytes(Bytes::from_static(b"LATE"))) => {
                Err(MoverError::Late { limit: self.pause_max })
            }
            _ => Ok(SwitchOutcome::Changed),
        }
    }

    /// The fence, the wait for replicas and the hash in one pipeline, so over one connection: `WAIT` knows only of what
    /// was written over its own.
    /// Answers the hash and the names of its indexes.
    async fn fence_and_read(
        &self,
        fenced: &mut Option<Instant>,
    ) -> Result<Option<(SourceKey, Vec<String>)>, MoverError> {
        let name = keys::hash(self.this.vbucket);
        let begun = monotonic();
        loop {
            let fence = fence_call(self.this, self.own, self.fence);
            let calls = vec![fence, wait(self.replicas), KeyKind::Hash.read(&name)];
            let mut replies = self.source.eval(calls).await?.replies.into_iter();
            match next_reply(self.source, &mut replies)? {
                Reply::Integer(FENCED_NOW) => *fenced = Some(begun),
                Reply::Integer(_) => {}
                _ => return Ok(None),
            }
            stop_at("fenced", self.this.vbucket).await;
            if has_reached(self.source, &mut replies, self.replicas, begun, self.pause_max)? {
                let items = next_list(self.source, &mut replies)?;
                let indexes = index_keys(self.this, items.iter().step_by(2));
                return Ok(Some((SourceKey { name, kind: KeyKind::Hash, items }, indexes)));
            }
        }
    }

    /// Reads indexes at the source. One that was deleted from outside is left out: it is written again from the fields when
    /// it is missed.
    async fn read(&self, names: &[String]) -> Result<Vec<SourceKey>, MoverError> {
        let calls = names.iter().map(|name| KeyKind::Index.read(name)).collect();
        let mut replies = self.source.request(calls).await?.replies.into_iter();
        let mut read = Vec::with_capacity(names.len());
        for name in names {
            let items = match next_list(self.source, &mut replies) {
                Err(LinkError::Refused { source, .. }) if source.code == "WRONGTYPE" => {
                    return Err(MoverError::Foreign { key: name.clone() });
                }
                items => items?,
            };
            if !items.is_empty() {
                read.push(SourceKey { name: name.clone(), kind: KeyKind::Index, items });
            }
        }
        Ok(read)
    }

    /// Writes keys at the destination under names of their own, and compares what is there then.
    async fn write(&self, keys: Vec<SourceKey>, to: &mut Staged) -> Result<(), MoverError> {
        let mut calls = Vec::new();
        let mut pending = 0;
        let mut reads = Vec::with_capacity(keys.len());
        for key in &keys {
            let staged = format!("{}{}", to.prefix, &key.name[keys::hash(self.this.vbucket).len()..]);
            to.pairs.extend([key.name.clone(), staged.clone()]);
            for rows in key.items.chunks(MOVE_ITEMS_MAX) {
                let size: usize = rows.iter().filter_map(bytes).map(Bytes::len).sum();
                let expiry = STAGED_TIME.as_millis().to_string();
                calls.extend([key.kind.write(&staged, rows), command("PEXPIRE", &[&staged, &expiry])]);
                to.copied.bytes += size as u64;
                pending += size;
                if pending >= MOVE_BYTES_MAX {
                    self.send(std::mem::take(&mut calls), Vec::new()).await?;
                    pending = 0;
                }
            }
            reads.push(key.kind.read(&staged));
            to.copied.keys += 1;
        }
        let mut arrived = self.send(calls, reads).await?.into_iter();
        stop_at("copied", self.this.vbucket).await;
        for key in keys {
            let items = next_list(self.destination, &mut arrived)?;
            if key.kind.checksum(&items) != key.kind.checksum(&key.items) {
                return Err(MoverError::Differs);
            }
        }
        Ok(())
    }

    /// Writes all or nothing at the destination, so that no key stays without an expiry; answers what the reads after it
    /// found.
    async fn send(&self, writes: Vec<Cmd>, reads: Vec<Cmd>) -> Result<Vec<Reply>, MoverError> {
        let asked = reads.len();
        let mut calls = Vec::with_capacity(writes.len() + reads.len() + 2);
        if !writes.is_empty() {
            calls.push(cmd("MULTI"));
            calls.extend(writes);
            calls.push(cmd("EXEC"));
        }
        calls.extend(reads);
        let mut replies = self.destination.request(calls).await?.replies;
        let found = replies.split_off(replies.len() - asked);
        let shard = self.destination.shard();
        for reply in replies {
            if let Reply::List(done) = accepted(shard, reply)? {
                done.into_iter().try_for_each(|reply| accepted(shard, reply).map(drop))?;
            }
        }
        Ok(found)
    }
}

/// What [`scripts::FENCE`] answers when there was no fence before.
const FENCED_NOW: i64 = 2;

/// Fences the source; refused when it is not what it was taken for. Also where it is fenced so already, it is written.
pub(super) fn fence_call(this: Move, own: u64, fence: u64) -> Cmd {
    let mut call = scripts::FENCE.call(&[keys::hash(this.vbucket)]);
    call.arg(own).arg(layout::put_moved(fence, this.to));
    call
}

fn wait(replicas: u64) -> Cmd {
    command("WAIT", &[&replicas.to_string(), &MOVE_WAIT_STEP.as_millis().to_string()])
}

/// Whether enough replicas have answered a `WAIT`; an error when it was waited for too long.
fn has_reached(
    link: &ShardLink,
    replies: &mut impl Iterator<Item = Reply>,
    needed: u64,
    begun: Instant,
    longest: Duration,
) -> Result<bool, MoverError> {
    let Reply::Integer(found) = next_reply(link, replies)? else {
        return Err(LinkError::Answer { shard: link.shard() }.into());
    };
    let held = monotonic().saturating_duration_since(begun);
    match found as u64 {
        found if found >= needed => Ok(true),
        found if held >= longest => Err(MoverError::Unconfirmed { found, needed, held }),
        _ => Ok(false),
    }
}

/// Writes something over a connection, and waits until as many replicas have it: both in one request, since `WAIT` knows
/// only of what was written over its own connection. Writes again each time, so it must do nothing the second time.
/// Answers what the call did the last time. Over a connection of a move's own: `WAIT` holds up everything behind it.
pub(super) async fn confirmed(
    link: &ShardLink,
    call: impl Fn() -> Cmd,
    replicas: u64,
    longest: Duration,
) -> Result<Reply, MoverError> {
    let begun = monotonic();
    loop {
        let mut replies = link.eval(vec![call(), wait(replicas)]).await?.replies.into_iter();
        let done = next_reply(link, &mut replies)?;
        if has_reached(link, &mut replies, replicas, begun, longest)? {
            return Ok(done);
        }
    }
}

/// The keys of a VBucket, the hash first.
pub(super) async fn list_keys(link: &ShardLink, this: Move) -> Result<Vec<String>, LinkError> {
    let hash = keys::hash(this.vbucket);
    let Reply::List(fields) = link.one(command("HKEYS", &[&hash])).await? else {
        return Err(LinkError::Answer { shard: link.shard() });
    };
    let indexes = index_keys(this, fields.iter());
    Ok(std::iter::once(hash).chain(indexes).collect())
}

/// The indexes that a hash counts.
fn index_keys<'a>(this: Move, fields: impl Iterator<Item = &'a Reply>) -> Vec<String> {
    let hash = keys::hash(this.vbucket);
    let index = |field: &Reply| match field {
        Reply::Bytes(field) if field.starts_with(b"n.") => {
            Some(format!("{hash}{}", String::from_utf8_lossy(&field[1..])))
        }
        _ => None,
    };
    fields.filter_map(index).collect()
}

fn command(name: &str, arguments: &[&str]) -> Cmd {
    let mut command = cmd(name);
    for argument in arguments {
        command.arg(argument);
    }
    command
}

fn next_reply(link: &ShardLink, replies: &mut impl Iterator<Item = Reply>) -> Result<Reply, LinkError> {
    let shard = link.shard();
    accepted(shard, replies.next().ok_or(LinkError::Answer { shard })?)
}

fn next_list(link: &ShardLink, replies: &mut impl Iterator<Item = Reply>) -> Result<Vec<Reply>, LinkError> {
    match next_reply(link, replies)? {
        Reply::List(items) => Ok(items),
        _ => Err(LinkError::Answer { shard: link.shard() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(items: &[&'static str]) -> Vec<Reply> {
        items.iter().map(|item| Reply::Bytes(Bytes::from_static(item.as_bytes()))).collect()
    }

    #[test]
    fn a_checksum_depends_on_content_and_not_on_its_order() {
        let content = |items: &[&'static str]| KeyKind::Hash.checksum(&replies(items));
        let hash = content(&["a", "1", "b", "2"]);
        assert_eq!(hash, content(&["b", "2", "a", "1"]));
        for other in [
            vec!["a", "2", "b", "1"],
            vec!["1", "a", "2", "b"],
            vec!["a", "1", "b", "2", "", ""],
            vec!["a", "1"],
            vec!["a", "1", "b", "3"],
            vec!["a1", "", "b", "2"],
        ] {
            assert_ne!(hash, content(&other), "{other:?}");
        }
        let index = |items: &[&'static str]| KeyKind::Index.checksum(&replies(items));
        assert_ne!(hash, index(&["a", "1", "b", "2"]));
        assert_eq!(index(&["a", "b"]), index(&["b", "a"]));
        assert_ne!(index(&["a", "a"]), index(&["b", "b"]));
    }
}
