//! Reading the heads of VBuckets.

use redis::{Cmd, cmd};
use taba_core::{VBucket, VBuckets, Version};

use super::error::LinkError;
use super::link::{ShardLink, accepted};
use crate::command::Reply;
use crate::keys;
use crate::layout;
use crate::limits::REQUEST_COMMANDS_MAX;
use crate::migration::Head;

/// The head of a VBucket on one shard, as of one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundHead {
    /// `None`: the shard holds no copy.
    pub(crate) head: Option<Head>,
    pub(crate) version: Option<Version>,
    /// The connection over which it was read.
    pub(crate) connection: u64,
}

/// Asks a shard for the head of a VBucket.
pub(crate) async fn read_head(link: &ShardLink, vbucket: VBucket) -> Result<FoundHead, LinkError> {
    let answered = link.request(questions(vbucket).into()).await?;
    let mut replies = answered.replies.into_iter();
    let (head, version) =
        read(link, &mut replies)?.map_or((None, None), |(head, version)| (Some(head), version));
    Ok(FoundHead { head, version, connection: answered.epoch })
}

/// The time of a Redis in microseconds, and the connection over which it was read.
pub(crate) async fn read_time(link: &ShardLink) -> Result<(u64, u64), LinkError> {
    let wrong = LinkError::Answer { shard: link.shard() };
    let mut answered = link.request(vec![cmd("TIME")]).await?;
    let Some(Reply::List(parts)) = answered.replies.pop() else { return Err(wrong) };
    match parts.iter().map(Reply::number).collect::<Option<Vec<u64>>>().as_deref() {
        Some([seconds, micros]) => Ok((seconds * 1_000_000 + micros, answered.epoch)),
        _ => Err(wrong),
    }
}

/// The heads and versions of all VBuckets on a shard, in order.
pub(crate) async fn heads(
    link: &ShardLink,
    vbuckets: VBuckets,
) -> Result<Vec<Option<(Head, Option<Version>)>>, LinkError> {
    let all: Vec<VBucket> = vbuckets.iter().collect();
    let mut found = Vec::with_capacity(all.len());
    for some in all.chunks(REQUEST_COMMANDS_MAX / 2) {
        let questions = some.iter().flat_map(|vbucket| questions(*vbucket)).collect();
        let mut replies = link.request(questions).await?.replies.into_iter();
        for _ in some {
            found.push(read(link, &mut replies)?);
        }
    }
    Ok(found)
}

fn questions(vbucket: VBucket) -> [Cmd; 2] {
    let (mut fields, mut length) = (cmd("HMGET"), cmd("HLEN"));
    fields.arg(keys::hash(vbucket));
    fields.arg(&[layout::VERSION, layout::OWN, layout::MOVED, layout::OF, layout::BAR, layout::TABS]);
    length.arg(keys::hash(vbucket));
    [fields, length]
}

fn read(
    link: &ShardLink,
    replies: &mut impl Iterator<Item = Reply>,
) -> Result<Option<(Head, Option<Version>)>, LinkError> {
    let shard = link.shard();
    let wrong = || LinkError::Answer { shard };
    let fields = accepted(shard, replies.next().ok_or_else(wrong)?)?;
    let length = accepted(shard, replies.next().ok_or_else(wrong)?)?;
    let (Reply::List(items), Reply::Integer(length)) = (fields, length) else { return Err(wrong()) };
    let [version, own, moved, of, bar, tabs] = <[Reply; 6]>::try_from(items).map_err(|_| wrong())?;
    let (Reply::Bytes(version), Reply::Bytes(own)) = (version, own) else { return Ok(None) };
    let moved = match moved {
        Reply::Bytes(moved) => Some(layout::read_moved(&moved).ok_or_else(wrong)?),
        _ => None,
    };
    let is_bar = bar != Reply::Nothing;
    let is_there = |field: &Reply| i64::from(*field != Reply::Nothing);
    let own_fields = 2 + i64::from(moved.is_some()) + is_there(&of) + is_there(&tabs);
    let has_content = !is_bar && length > own_fields;
    let epoch = layout::read_epoch(&own).ok_or_else(wrong)?;
    Ok(Some((Head { epoch, moved, has_content, is_bar }, layout::read_version(&version))))
}
