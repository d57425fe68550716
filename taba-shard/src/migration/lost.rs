//! [`remains`]: what is left of one VBucket when a shard is lost for good. Pure.
//!
//! A copy that is freed, and one that is made anew, get an epoch above all that the lost shard can have seen: see
//! [`floor`]. So if that shard comes back, what it holds is an older copy, whatever it says.

use super::Head;
use super::survey::owner;
use crate::map::ShardName;

/// One copy, on a shard that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemainingCopy {
    /// Where it is.
    pub shard: ShardName,
    /// Its head.
    pub head: Head,
    /// Whether it was ever written.
    pub is_written: bool,
}

impl RemainingCopy {
    /// A copy.
    pub const fn new(shard: ShardName, head: Head, is_written: bool) -> Self {
        Self { shard, head, is_written }
    }
}

/// What is left of one VBucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// The lost shard has no part in it.
    Untouched,
    /// A shard that answers owns it; the lost one was to get it.
    Owned(RemainingCopy),
    /// It was on its way to the lost shard: this copy is as of the fence. Whether the lost shard was switched and took commits
    /// after that, nobody can say any more.
    Fenced(RemainingCopy),
    /// The lost shard had the only copy: no other one has any.
    Lost,
}

/// What is left of a VBucket of which these are the copies of all shards that are not lost. `wanted`: the shard that the map
/// wants it on.
pub fn remains(copies: &[RemainingCopy], wanted: ShardName, lost: &[ShardName]) -> Remains {
    let heads: Vec<(ShardName, Head)> = copies.iter().map(|copy| (copy.shard, copy.head)).collect();
    let is_lost = |name: ShardName| lost.contains(&name);
    if let Some((name, _)) = owner(&heads) {
        let copy = copies.iter().find(|copy| copy.shard == name && copy.head.moved.is_none());
        return copy.filter(|_| is_lost(wanted)).map_or(Remains::Untouched, |copy| Remains::Owned(*copy));
    }
    // The last that points on says where it is; a bar points back to where it came from. What nobody points to is nowhere.
    let last = copies.iter().max_by_key(|copy| (!copy.head.is_bar, copy.head.epoch));
    let points_to = last.map(|copy| copy.head.moved.map_or(wanted, |(_, to)| to));
    if points_to.is_some_and(|to| !is_lost(to)) {
        return Remains::Untouched;
    }
    // A tombstone holds nothing; what was never written holds all that it ever held.
    let holds = |copy: &&RemainingCopy| !copy.head.is_bar && (copy.head.has_content || !copy.is_written);
    let best = copies.iter().filter(holds).max_by_key(|copy| copy.head.epoch);
    best.map_or(Remains::Lost, |copy| Remains::Fenced(*copy))
}

/// An epoch above each that these copies know of. The lost shard may have seen more: where its own clock says so, the time in
/// microseconds is higher still.
pub fn floor(copies: &[RemainingCopy]) -> u64 {
    let seen = |copy: &RemainingCopy| copy.head.epoch.max(copy.head.moved.map_or(0, |(epoch, _)| epoch));
    copies.iter().map(seen).max().unwrap_or(0) + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardName = ShardName(1);
    const B: ShardName = ShardName(2);
    const C: ShardName = ShardName(3);

    fn copy(
        shard: ShardName,
        epoch: u64,
        moved: Option<(u64, ShardName)>,
        has_content: bool,
    ) -> RemainingCopy {
        RemainingCopy::new(shard, Head { epoch, moved, has_content, is_bar: false }, true)
    }

    #[test]
    fn what_is_left_of_a_vbucket_when_a_shard_is_lost() {
        let of = |copies: &[RemainingCopy], wanted| remains(copies, wanted, &[C]);
        let (open, fenced) = (copy(A, 1, None, true), copy(A, 1, Some((2, C)), true));
        assert_eq!(of(&[open], A), Remains::Untouched);
        assert_eq!(of(&[open], C), Remains::Owned(open));
        // Before the switch, and after it: nobody can say.
        for wanted in [A, B, C] {
            assert_eq!(of(&[fenced], wanted), Remains::Fenced(fenced));
        }
        assert_eq!(of(&[], C), Remains::Lost);
        assert_eq!(of(&[], A), Remains::Lost, "the map has been changed already");
        let tombstone = copy(A, 1, Some((2, C)), false);
        assert_eq!(of(&[tombstone], A), Remains::Lost);
        let never = RemainingCopy::new(A, tombstone.head, false);
        assert_eq!(of(&[never], C), Remains::Fenced(never));
        // It goes between two others, or came from the lost one and is on another.
        assert_eq!(of(&[copy(A, 1, Some((2, B)), true)], C), Remains::Untouched);
        assert_eq!(of(&[copy(A, 1, Some((2, C)), true), copy(B, 3, None, true)], B), Remains::Untouched);
        // The lost one was the source, and a rollback had barred the destination.
        let bar = RemainingCopy::new(B, Head { is_bar: true, ..copy(B, 2, Some((3, C)), false).head }, false);
        assert_eq!(of(&[bar], C), Remains::Lost);
        assert_eq!(of(&[fenced, bar], A), Remains::Fenced(fenced));
        // An older copy is better than none.
        let (older, onward) = (copy(A, 1, Some((2, B)), true), copy(B, 2, Some((3, C)), false));
        assert_eq!(of(&[older, onward], C), Remains::Fenced(older));
        assert_eq!((floor(&[older, onward]), floor(&[bar]), floor(&[])), (5, 5, 2));
    }
}
