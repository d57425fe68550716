//! Copying a fenced VBucket to its destination, and the switch.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, cmd};

use super::MoverError;
use crate::command::Reply;
use crate::keys;
use crate::layout;
use crate::limits::{MOVE_COMMANDS_MAX, MOVE_WAIT_STEP, STAGED_TIME};
use crate::migration::Move;
use crate::redis::{LinkError, ShardLink, accepted, monotonic, random, scripts};
use crate::sabotage::stop_at;

/// What was copied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copied {
    pub(super) bytes: u64,
    pub(super) keys: u64,
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

impl Copy<'_> {
    fn moved(&self) -> String {
        layout::put_moved(self.fence, self.this.to)
    }

    /// Sees that the replicas have the fence, copies, compares, and switches.
    pub(super) async fn run(&self) -> Result<SwitchOutcome, MoverError> {
        // By the destination's own clock, which the script of the switch looks at.
        let deadline = time(self.destination).await? + self.pause_max.as_micros() as u64;
        let this = self.this;
        if !confirm_fence(self.source, this, self.own, self.fence, self.replicas, self.pause_max).await? {
            return Ok(SwitchOutcome::Changed);
        }
        stop_at("confirmed", self.this.vbucket).await;
        let Some(names) = list_keys(self.source, self.this, self.own, &self.moved()).await? else {
            return Ok(SwitchOutcome::Changed);
        };
        let stage = keys::staged(self.this.vbucket, random());
        let staged = |name: &String| format!("{stage}{}", &name[keys::hash(self.this.vbucket).len()..]);
        let mut copied = Copied::default();
        let mut pairs = Vec::with_capacity(names.len());
        for some in names.chunks(MOVE_COMMANDS_MAX) {
            let mut restore = Vec::with_capacity(some.len());
            for (name, dump) in some.iter().zip(dump(self.source, some).await?) {
                // An index that was deleted from outside: it is written again from the fields when it is missed.
                let Some(dump) = dump else { continue };
                copied.bytes += dump.len() as u64;
                copied.keys += 1;
                let mut command = cmd("RESTORE");
                command.arg(staged(name)).arg(STAGED_TIME.as_millis() as u64).arg(&dump[..]);
                restore.push(command);
                pairs.push((name.clone(), staged(name)));
            }
            all_accepted(self.destination, restore).await?;
        }
        if pairs.first().is_none_or(|(name, _)| *name != keys::hash(self.this.vbucket)) {
            return Ok(SwitchOutcome::Changed);
        }
        stop_at("copied", self.this.vbucket).await;
        let (here, there): (Vec<String>, Vec<String>) = pairs.iter().cloned().unzip();
        let (sent, arrived) =
            futures::future::try_join(digests(self.source, &here), digests(self.destination, &there)).await?;
        if sent != arrived {
            return Err(MoverError::Differs);
        }
        stop_at("compared", self.this.vbucket).await;
        let all: Vec<&String> = pairs.iter().flat_map(|(name, staged)| [name, staged]).collect();
        let mut call = scripts::SWITCH.call(&all);
        call.arg(self.fence).arg(deadline);
        match self.destination.one(call).await? {
            Reply::Integer(1) => Ok(SwitchOutcome::Switched(copied)),
            Reply::List(items) if items.first() == Some(&Reply::Bytes(Bytes::from_static(b"LATE"))) => {
                Err(MoverError::Late { limit: self.pause_max })
            }
            _ => Ok(SwitchOutcome::Changed),
        }
    }
}

/// Fences the source; `false` when it is not what it was taken for. Also where it is fenced so already, it is written.
pub(super) async fn put_fence(link: &ShardLink, this: Move, own: u64, fence: u64) -> Result<bool, LinkError> {
    let mut call = scripts::FENCE.call(&[keys::hash(this.vbucket)]);
    call.arg(own).arg(layout::put_moved(fence, this.to));
    Ok(link.one(call).await? == Reply::Integer(1))
}

/// Writes the fence once more over this connection, and waits until as many replicas have what it wrote.
pub(super) async fn confirm_fence(
    link: &ShardLink,
    this: Move,
    own: u64,
    fence: u64,
    replicas: u64,
    longest: Duration,
) -> Result<bool, MoverError> {
    if !put_fence(link, this, own, fence).await? {
        return Ok(false);
    }
    wait(link, replicas, longest).await?;
    Ok(true)
}

/// Waits until as many replicas have everything that was written over this connection. Over a connection of a move's
/// own: `WAIT` holds up everything behind it.
pub(super) async fn wait(link: &ShardLink, needed: u64, longest: Duration) -> Result<(), MoverError> {
    let begun = monotonic();
    if needed == 0 {
        return Ok(());
    }
    loop {
        let mut wait = cmd("WAIT");
        wait.arg(needed).arg(MOVE_WAIT_STEP.as_millis() as u64);
        let found = match link.one(wait).await? {
            Reply::Integer(found) => found as u64,
            _ => return Err(LinkError::Answer { shard: link.shard() }.into()),
        };
        if found >= needed {
            return Ok(());
        }
        let held = monotonic().saturating_duration_since(begun);
        if held >= longest {
            return Err(MoverError::Unconfirmed { found, needed, held });
        }
    }
}

/// The time of a Redis in microseconds.
async fn time(link: &ShardLink) -> Result<u64, LinkError> {
    let wrong = LinkError::Answer { shard: link.shard() };
    let Reply::List(parts) = link.one(cmd("TIME")).await? else { return Err(wrong) };
    match parts.iter().map(Reply::number).collect::<Option<Vec<u64>>>().as_deref() {
        Some([seconds, micros]) => Ok(seconds * 1_000_000 + micros),
        _ => Err(wrong),
    }
}

/// The keys of a VBucket, the hash first; `None` when it is not moving so.
pub(super) async fn list_keys(
    link: &ShardLink,
    this: Move,
    own: u64,
    moved: &str,
) -> Result<Option<Vec<String>>, LinkError> {
    let hash = keys::hash(this.vbucket);
    let mut call = scripts::LIST_KEYS.call(&[&hash]);
    call.arg(own).arg(moved);
    let Reply::List(mut items) = link.one(call).await? else {
        return Err(LinkError::Answer { shard: link.shard() });
    };
    let Some(Reply::List(indexes)) = items.pop() else { return Ok(None) };
    let mut names = vec![hash.clone()];
    for index in indexes {
        if let Reply::Bytes(index) = index {
            names.push(format!("{hash}{}", String::from_utf8_lossy(&index)));
        }
    }
    Ok(Some(names))
}

async fn dump(link: &ShardLink, names: &[String]) -> Result<Vec<Option<Bytes>>, LinkError> {
    let command = |name: &String| {
        let mut command = cmd("DUMP");
        command.arg(name);
        command
    };
    let replies = link.request(names.iter().map(command).collect()).await?.replies;
    let read = |reply| match accepted(link.shard(), reply)? {
        Reply::Bytes(dump) => Ok(Some(dump)),
        Reply::Nothing => Ok(None),
        _ => Err(LinkError::Answer { shard: link.shard() }),
    };
    replies.into_iter().map(read).collect()
}

async fn digests(link: &ShardLink, names: &[String]) -> Result<Vec<Reply>, LinkError> {
    let mut all = Vec::with_capacity(names.len());
    for some in names.chunks(MOVE_COMMANDS_MAX) {
        let Reply::List(found) = link.one(scripts::DIGEST.call(some)).await? else {
            return Err(LinkError::Answer { shard: link.shard() });
        };
        all.extend(found);
    }
    Ok(all)
}

async fn all_accepted(link: &ShardLink, commands: Vec<Cmd>) -> Result<(), LinkError> {
    let replies = link.request(commands).await?.replies;
    replies.into_iter().try_for_each(|reply| accepted(link.shard(), reply).map(drop))
}
