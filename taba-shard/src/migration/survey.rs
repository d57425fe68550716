//! [`pending`]: what is still to be done with one VBucket, from all copies of it and from the shard that is to own it.

use taba_core::VBucket;

use super::{Head, Move};
use crate::map::ShardName;

/// What is still to be done with one VBucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Nothing: it is where the map wants it, and nowhere else.
    Nothing,
    /// It is fenced: a move was left, and it takes nothing until it is gone on with or aborted.
    Fenced(Move),
    /// It has a new owner, and the copy where it came from is still there.
    Leftover(Move),
    /// It is to move.
    Wanted(Move),
    /// No shard owns it, and none says where it goes.
    Unowned,
    /// It waits for this shard, which does not answer: that one may own it.
    Silent(ShardName),
}

impl Pending {
    /// The move that brings it further.
    pub const fn to_move(self) -> Option<Move> {
        match self {
            Self::Fenced(this) | Self::Leftover(this) | Self::Wanted(this) => Some(this),
            Self::Nothing | Self::Unowned | Self::Silent(_) => None,
        }
    }
}

/// The copy that owns a VBucket: not fenced, and none has seen a higher epoch.
pub fn owner(copies: &[(ShardName, Head)]) -> Option<(ShardName, u64)> {
    let highest = copies.iter().map(|(_, head)| head.epoch).max()?;
    let mut open = copies.iter().filter(|(_, head)| head.moved.is_none() && head.epoch == highest);
    open.next().map(|(name, head)| (*name, head.epoch))
}

/// What is still to be done with a VBucket of which these are all copies. The old is brought to its end before the new is
/// begun.
pub fn pending(vbucket: VBucket, copies: &[(ShardName, Head)], wanted: Option<ShardName>) -> Pending {
    let Some((owner, _)) = owner(copies) else {
        // Of several copies that point on, the one with the highest epoch is the last; a bar is no copy. Only where the
        // barred source went back in a failover does it not point anywhere.
        let last = copies.iter().filter(|(_, head)| !head.is_bar).max_by_key(|(_, head)| head.epoch);
        let bar = |from: ShardName| {
            copies.iter().find(|(_, head)| head.is_bar && head.moved.is_some_and(|(_, home)| home == from))
        };
        return match last {
            Some((from, Head { moved: Some((_, to)), .. })) => {
                Pending::Fenced(Move { vbucket, from: *from, to: *to })
            }
            Some((from, Head { moved: None, .. })) => match bar(*from) {
                Some((to, _)) => Pending::Fenced(Move { vbucket, from: *from, to: *to }),
                None => Pending::Unowned,
            },
            None => Pending::Unowned,
        };
    };
    let is_left = |(name, head): &&(ShardName, Head)| {
        *name != owner && !head.is_bar && (head.has_content || head.moved.is_none())
    };
    if let Some((from, _)) = copies.iter().find(is_left) {
        return Pending::Leftover(Move { vbucket, from: *from, to: owner });
    }
    match wanted.filter(|wanted| *wanted != owner) {
        Some(to) => Pending::Wanted(Move { vbucket, from: owner, to }),
        None => Pending::Nothing,
    }
}

/// The same, from the copies of the shards that answer. What a silent shard may own is left alone: what the map wants there,
/// since nothing goes to a shard before the map says so, and the map of what is silent is not changed; and what goes there.
pub fn pending_beside(
    vbucket: VBucket,
    copies: &[(ShardName, Head)],
    wanted: Option<ShardName>,
    silent: &[ShardName],
) -> Pending {
    let found = pending(vbucket, copies, wanted);
    let is_silent = |name: &ShardName| silent.contains(name);
    let to = found.to_move().map(|this| this.to);
    match (wanted.filter(is_silent).or(to.filter(is_silent)), silent.first()) {
        (Some(name), _) => Pending::Silent(name),
        (None, Some(name)) if found == Pending::Unowned => Pending::Silent(*name),
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use taba_core::VBuckets;

    use super::*;
    use crate::migration::{Goal, MoveStep, next};

    const A: ShardName = ShardName(1);
    const B: ShardName = ShardName(2);
    const C: ShardName = ShardName(3);

    fn open(epoch: u64) -> Head {
        Head { epoch, moved: None, has_content: true, is_bar: false }
    }

    fn fenced(epoch: u64, moved: (u64, ShardName)) -> Head {
        Head { epoch, moved: Some(moved), has_content: true, is_bar: false }
    }

    fn tombstone(epoch: u64, moved: (u64, ShardName)) -> Head {
        Head { epoch, moved: Some(moved), has_content: false, is_bar: false }
    }

    #[test]
    fn what_a_silent_shard_may_own_is_left_alone() {
        let vbucket = VBuckets::default().get(9).unwrap();
        let of = |copies: &[(ShardName, Head)], wanted| pending_beside(vbucket, copies, Some(wanted), &[C]);
        assert_eq!(of(&[(A, open(1))], B), Pending::Wanted(Move { vbucket, from: A, to: B }));
        assert_eq!(of(&[(A, open(1))], A), Pending::Nothing);
        assert_eq!(of(&[(A, fenced(1, (2, B)))], B), Pending::Fenced(Move { vbucket, from: A, to: B }));
        for copies in [&[][..], &[(A, open(1))], &[(A, fenced(1, (2, B)))], &[(A, fenced(1, (2, C)))]] {
            assert_eq!(of(copies, C), Pending::Silent(C), "{copies:?}");
        }
        assert_eq!(of(&[(A, fenced(1, (2, C)))], A), Pending::Silent(C));
        assert_eq!(of(&[], A), Pending::Silent(C));
    }

    #[test]
    fn the_old_is_brought_to_its_end_first() {
        let vbucket = VBuckets::default().get(9).unwrap();
        let of = |copies: &[(ShardName, Head)]| pending(vbucket, copies, Some(C));
        let go = |from, to| Move { vbucket, from, to };
        assert_eq!(of(&[(A, open(1))]), Pending::Wanted(go(A, C)));
        assert_eq!(of(&[(C, open(1))]), Pending::Nothing);
        assert_eq!(of(&[(A, fenced(1, (2, B)))]), Pending::Fenced(go(A, B)));
        assert_eq!(of(&[(A, fenced(1, (2, B))), (B, open(2))]), Pending::Leftover(go(A, B)));
        assert_eq!(of(&[(A, tombstone(1, (2, B))), (B, open(2))]), Pending::Wanted(go(B, C)));
        // Two moves on, and the first copy is still there.
        let on = [(A, fenced(1, (2, B))), (B, tombstone(2, (3, C))), (C, open(3))];
        assert_eq!(of(&on), Pending::Leftover(go(A, C)));
        assert_eq!(
            next(Goal::Forward, go(A, C), Some(on[0].1), Some(on[2].1)),
            Ok(MoveStep::Retire { own: 1, moved: (2, B) })
        );
        // A rollback that was left; also of a VBucket that holds nothing yet, and after a failover of the source.
        let bar = Head { is_bar: true, ..tombstone(2, (3, A)) };
        assert_eq!(of(&[(A, fenced(1, (2, B))), (B, bar)]), Pending::Fenced(go(A, B)));
        assert_eq!(of(&[(A, tombstone(1, (2, B))), (B, bar)]), Pending::Fenced(go(A, B)));
        assert_eq!(of(&[(A, open(1)), (B, bar)]), Pending::Fenced(go(A, B)));
        assert_eq!(of(&[(A, open(3)), (B, bar)]), Pending::Wanted(go(A, C)));
        // The way back is under way, and not a rollback.
        assert_eq!(of(&[(A, tombstone(1, (2, B))), (B, fenced(2, (3, A)))]), Pending::Fenced(go(B, A)));
        // A failover took the source back to before the fence.
        assert_eq!(of(&[(A, open(1)), (B, open(2))]), Pending::Leftover(go(A, B)));
        assert_eq!(of(&[]), Pending::Unowned);
    }
}
