//! [`Marks`]: how far each Lane of a VBucket is contained in its States, which of that is stable, and which marks
//! have expired.
//!
//! **Stable.** After a commit the planner waits until it is stable; then the marks as of that commit are, too. They
//! are not copied: from then on `Since` records the former position of each Lane that moves.
//!
//! ```text
//! commits      1 ──── 2 ──── 3 ──── 4 ──── 5        one wait at a time; the next wait
//! waits        └──── 1 is stable ────┘└─ 4 ─ …      covers all commits made meanwhile
//! ```
//!
//! This holds for one history of the store. A conflict may mean that the store went back in time; the same numbers in
//! the new history may not be on any replica yet. So all of this is part of the cache and dropped with it. A wait is
//! identified by the unique version of its commit; the result of a dropped wait is ignored.
//!
//! **Signed.** Most conflicts only mean that another Server writes here too. If each conflict dropped this knowledge,
//! two Servers in turn would never know anything to be stable, and their senders could release nothing. So for some
//! commits after a conflict, each also sets a mark of this Server, under its writer's number, with the count of the
//! commit's version. If that mark is found after a conflict, the last commit from here is in the history, with all
//! before it: the store did not go back, and the knowledge still holds.
//!
//! **Expired.** A mark carries the later of the Server's clock and the sender's, and expires by the earlier. So one
//! wrong clock expires nothing: to write too small an hour, or to judge by too large a one, takes both. The price: a
//! mark written under a clock that is ahead stays that much longer.

use std::collections::{BTreeMap, HashMap};

use taba_core::{Mark, SeqNo, StreamId, Timestamp, Version};

use crate::sabotage::{TWO_CLOCKS, is_off};

/// The store failed. The outcome of a commit is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFailed;

/// Hours without a Batch after which the mark of a Lane expires. A sender sends nothing older than 24 h and appends
/// to a Stream for 12 h, so no Lane pauses for so long and continues.
pub const MARK_HOURS: u32 = 48;

/// The number of signed commits after a conflict: each costs one more pair.
const SIGNED_COMMITS: u32 = 64;

/// The Lanes that moved since some commit, with their positions at that commit.
type Since = HashMap<StreamId, SeqNo>;

/// The marks of a VBucket.
#[derive(Default)]
pub(super) struct Marks {
    /// As of the last commit, or of the one being prepared.
    now: HashMap<StreamId, Mark>,
    /// The Lanes moved by the commit being prepared, with their positions before.
    moving: BTreeMap<StreamId, SeqNo>,
    /// The stable marks: all, as of the commit since which these Lanes moved. `None`: unknown.
    stable: Option<Since>,
    wait: Option<StableWait>,
    /// The last commit since the wait began: the next to wait for.
    behind: Option<StableWait>,
    /// After a conflict, until the next load: the marks as of the last commit from here.
    invalidated: Option<HashMap<StreamId, SeqNo>>,
    /// The number of commits still to sign.
    to_sign: u32,
    /// The signature in the commit being prepared.
    signing: Option<Version>,
    /// The last commit from here, if it was signed.
    signed: Option<Version>,
    /// The clocks at the last check for expired marks.
    swept: Option<Hours>,
}

/// A wait until a commit is stable.
struct StableWait {
    commit: Version,
    since: Since,
}

/// The result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    Done,
    Failed,
    /// Ignored: its cache was dropped.
    Void,
}

/// The time by two clocks, in hours since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hours {
    /// By the Server's clock.
    pub(super) server: u32,
    /// By the sender's; with several senders, the earliest.
    pub(super) sender: u32,
}

impl Marks {
    /// A conflict: the marks here are not the stored ones. `load` decides which of them still hold.
    pub(super) fn invalidate(&mut self) {
        let mut before: HashMap<_, _> = self.now.drain().map(|(stream, mark)| (stream, mark.seq)).collect();
        before.extend(std::mem::take(&mut self.moving));
        self.invalidated = Some(before);
        (self.to_sign, self.signing, self.swept) = (SIGNED_COMMITS, None, None);
    }

    /// Loads all marks of a VBucket; the cache has none, or only invalidated ones.
    pub(super) fn load(&mut self, marks: &[(StreamId, Mark)]) {
        self.now = marks.iter().copied().collect();
        let is_unbroken = self.signed.is_some_and(|last| {
            let signature = self.get(StreamId(last.writer));
            signature.is_some_and(|mark| mark.seq == SeqNo(last.count))
        });
        match self.invalidated.take() {
            Some(before) if is_unbroken => self.follow(&before),
            _ => {
                *self = Self { now: std::mem::take(&mut self.now), to_sign: self.to_sign, ..Self::default() }
            }
        }
    }

    /// Other Servers moved Lanes, in one history with the commits from here.
    fn follow(&mut self, before: &HashMap<StreamId, SeqNo>) {
        let stood = |stream: &StreamId| before.get(stream).copied().unwrap_or(SeqNo::NONE);
        let moved = self.now.iter().map(|(stream, mark)| (*stream, stood(stream), mark.seq));
        let moved: Vec<_> = moved.filter(|(_, before, now)| before != now).collect();
        let now = std::mem::take(&mut self.now);
        for since in self.sinces() {
            since.retain(|stream, _| now.contains_key(stream));
            for (stream, before, _) in &moved {
                since.entry(*stream).or_insert(*before);
            }
        }
        self.now = now;
    }

    /// Signs the commit being prepared, if required.
    pub(super) fn sign(&mut self, version: Version, hour: u32) {
        if self.to_sign > 0 {
            self.to_sign -= 1;
            self.set(StreamId(version.writer), Mark::new(SeqNo(version.count), 0, hour));
            self.signing = Some(version);
        }
    }

    pub(super) fn get(&self, stream: StreamId) -> Option<Mark> {
        self.now.get(&stream).copied()
    }

    /// Moves a Lane in the commit being prepared.
    pub(super) fn set(&mut self, stream: StreamId, mark: Mark) {
        let before = self.now.insert(stream, mark);
        self.moving.entry(stream).or_insert(before.map_or(SeqNo::NONE, |mark| mark.seq));
    }

    /// The marks to commit, one for each Lane.
    pub(super) fn moved(&self) -> Vec<(StreamId, Option<Mark>)> {
        self.moving.keys().map(|stream| (*stream, self.get(*stream))).collect()
    }

    /// Removes marks that have expired by both clocks, at most `room` of them. Returns their Streams.
    pub(super) fn sweep(&mut self, hours: Hours, room: usize) -> Vec<StreamId> {
        // Checking all marks once an hour is enough, even with senders whose clocks differ.
        let is_done = |swept: Hours| swept.server == hours.server && swept.earlier() >= hours.earlier();
        if self.swept.is_some_and(is_done) {
            return Vec::new();
        }
        let is_old = |mark: &Mark| mark.hour.saturating_add(MARK_HOURS) < hours.earlier();
        let mut old: Vec<StreamId> =
            self.now.iter().filter(|(_, mark)| is_old(mark)).map(|(stream, _)| *stream).collect();
        if old.len() <= room {
            self.swept = Some(hours);
        }
        old.truncate(room);
        for stream in &old {
            debug_assert!(!self.moving.contains_key(stream), "what moves now carries the later clock of now");
            self.now.remove(stream);
            // Nothing is known of a Stream that reuses the number.
            self.sinces().for_each(|since| {
                since.remove(stream);
            });
        }
        old
    }

    fn sinces(&mut self) -> impl Iterator<Item = &mut Since> {
        let waits = self.wait.iter_mut().chain(&mut self.behind);
        self.stable.iter_mut().chain(waits.map(|wait| &mut wait.since))
    }

    /// The commit being prepared succeeded. Returns whether to start a stability wait.
    pub(super) fn committed(&mut self, version: Version) -> bool {
        for (stream, before) in std::mem::take(&mut self.moving) {
            self.sinces().for_each(|since| {
                since.entry(stream).or_insert(before);
            });
        }
        self.signed = self.signing.take();
        let is_to_wait = self.wait.is_none();
        let wait = if is_to_wait { &mut self.wait } else { &mut self.behind };
        *wait = Some(StableWait { commit: version, since: Since::new() });
        is_to_wait
    }

    /// A wait ended. Returns its meaning, and the next commit to wait for, if there is one.
    ///
    /// After a failure earlier knowledge still holds: what is stable stays so within its history, and nothing shows
    /// that the history has ended. There is no retry, because the next commit starts the next wait.
    pub(super) fn stabilised(
        &mut self,
        commit: Version,
        result: Result<(), StoreFailed>,
    ) -> (WaitOutcome, Option<Version>) {
        let Some(wait) = self.wait.take_if(|wait| wait.commit == commit) else {
            return (WaitOutcome::Void, None);
        };
        self.wait = self.behind.take();
        let next = self.wait.as_ref().map(|wait| wait.commit);
        match result {
            Ok(()) => {
                self.stable = Some(wait.since);
                (WaitOutcome::Done, next)
            }
            Err(StoreFailed) => (WaitOutcome::Failed, next),
        }
    }

    /// The highest number of a Lane that is known to be stable.
    pub(super) fn stable(&self, stream: StreamId) -> SeqNo {
        debug_assert!(self.moving.is_empty(), "a Lane is asked after between commits");
        match (&self.stable, self.get(stream)) {
            (Some(since), Some(mark)) => since.get(&stream).copied().unwrap_or(mark.seq),
            _ => SeqNo::NONE,
        }
    }
}

impl Hours {
    /// The hour to write on a mark.
    pub(super) fn later(self) -> u32 {
        if is_off(TWO_CLOCKS) { self.server } else { self.server.max(self.sender) }
    }

    /// The hour by which marks expire.
    pub(super) fn earlier(self) -> u32 {
        if is_off(TWO_CLOCKS) { self.server } else { self.server.min(self.sender) }
    }
}

/// The hour of a time, since the Unix epoch.
pub(crate) fn hour_of(now: Timestamp) -> u32 {
    u32::try_from(now.as_micros() / 3_600_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamId = StreamId(1);
    const B: StreamId = StreamId(2);

    fn version(count: u64) -> Version {
        Version { writer: 1, count }
    }

    fn mark(seq: u64, hour: u32) -> Mark {
        Mark::new(SeqNo(seq), 0, hour)
    }

    #[test]
    fn the_marks_as_of_the_commit_are_stable_and_none_beyond() {
        let mut marks = Marks::default();
        marks.load(&[(A, mark(4, 0)), (B, mark(9, 0))]);
        assert_eq!(marks.stable(A), SeqNo::NONE, "a mark that was read tells nothing about replicas");
        marks.set(A, mark(5, 0));
        assert!(marks.committed(version(1)));
        marks.set(A, mark(6, 0));
        assert!(!marks.committed(version(2)), "one wait at a time");
        marks.set(A, mark(7, 0));
        assert_eq!(marks.stabilised(version(1), Ok(())), (WaitOutcome::Done, Some(version(2))));
        // The third commit is in flight: neither wait covers it.
        assert!(!marks.committed(version(3)));
        assert_eq!((marks.stable(A), marks.stable(B)), (SeqNo(5), SeqNo(9)));
        assert_eq!(marks.stabilised(version(2), Ok(())), (WaitOutcome::Done, Some(version(3))));
        assert_eq!(marks.stable(A), SeqNo(6));
        assert_eq!(marks.stabilised(version(3), Err(StoreFailed)), (WaitOutcome::Failed, None));
        assert_eq!(marks.stable(A), SeqNo(6), "what was stable stays so");
        assert_eq!(marks.stabilised(version(3), Ok(())), (WaitOutcome::Void, None), "told twice");
        assert!(marks.committed(version(4)), "the next commit brings the next wait");
        assert_eq!(marks.stabilised(version(4), Ok(())), (WaitOutcome::Done, None));
        assert_eq!(marks.stable(A), SeqNo(7));
    }

    #[test]
    fn what_is_forgotten_is_not_known_again_by_a_late_answer() {
        let mut marks = Marks::default();
        marks.set(A, mark(1, 0));
        assert!(marks.committed(version(1)));
        marks = Marks::default();
        marks.load(&[(A, mark(1, 0))]);
        assert_eq!(marks.stabilised(version(1), Ok(())), (WaitOutcome::Void, None));
        assert!(marks.committed(version(2)));
        assert_eq!(marks.stabilised(version(1), Ok(())), (WaitOutcome::Void, None));
        assert_eq!(marks.stable(A), SeqNo::NONE);
        assert_eq!(marks.stabilised(version(2), Ok(())), (WaitOutcome::Done, None));
        assert_eq!(marks.stable(A), SeqNo(1));
    }

    /// A conflict that finds these marks; then the next commit, which moves nothing.
    fn conflict(marks: &mut Marks, found: &[(StreamId, Mark)], next: Version) -> bool {
        marks.invalidate();
        marks.load(found);
        marks.sign(next, 0);
        marks.committed(next)
    }

    #[test]
    fn what_was_stable_stays_so_through_a_conflict_when_the_signature_is_found() {
        let mut marks = Marks::default();
        marks.load(&[(A, mark(4, 0)), (B, mark(9, 0))]);
        let signature = |count| (StreamId(1_000_000), mark(count, 0));
        let version = |count| Version { writer: 1_000_000, count };
        assert!(conflict(&mut marks, &[(A, mark(4, 0)), (B, mark(9, 0))], version(1)));
        marks.stabilised(version(1), Ok(()));
        // Another Server has moved A, and this one was about to move B.
        marks.set(B, mark(10, 0));
        assert!(conflict(&mut marks, &[(A, mark(5, 0)), (B, mark(9, 0)), signature(1)], version(2)));
        assert_eq!((marks.stable(A), marks.stable(B)), (SeqNo(4), SeqNo(9)));
        // The current wait covers A as it was after the first conflict.
        assert!(!conflict(&mut marks, &[(A, mark(7, 0)), (B, mark(9, 0)), signature(2)], version(3)));
        assert_eq!(marks.stabilised(version(2), Ok(())), (WaitOutcome::Done, Some(version(3))));
        assert_eq!(marks.stable(A), SeqNo(5));
        // The store went back before the third commit, and others reached the same numbers again.
        assert!(conflict(&mut marks, &[(A, mark(7, 0)), (B, mark(9, 0)), signature(2)], version(4)));
        assert_eq!((marks.stable(A), marks.stable(B)), (SeqNo::NONE, SeqNo::NONE));
        assert_eq!(marks.stabilised(version(3), Ok(())), (WaitOutcome::Void, None));
    }

    /// The second commit waits for its turn; meanwhile another Server moves the Lane.
    #[test]
    fn what_others_moved_after_a_commit_is_not_stable_with_it() {
        let mut marks = Marks::default();
        marks.load(&[]);
        let version = |count| Version { writer: 1_000_000, count };
        let signature = (StreamId(1_000_000), mark(2, 0));
        assert!(conflict(&mut marks, &[], version(1)));
        marks.set(A, mark(6, 0));
        marks.sign(version(2), 0);
        assert!(!marks.committed(version(2)));
        marks.invalidate();
        marks.load(&[(A, mark(10, 0)), signature]);
        assert_eq!(marks.stabilised(version(1), Ok(())), (WaitOutcome::Done, Some(version(2))));
        assert_eq!(marks.stabilised(version(2), Ok(())), (WaitOutcome::Done, None));
        assert_eq!(marks.stable(A), SeqNo(6));
    }

    #[test]
    fn after_a_while_without_conflicts_nothing_is_signed() {
        let mut marks = Marks::default();
        conflict(&mut marks, &[], version(1));
        let is_signed = |count: &u64| {
            marks.sign(version(*count), 0);
            let is_signed = !marks.moved().is_empty();
            marks.committed(version(*count));
            is_signed
        };
        assert_eq!((2..200).filter(is_signed).count(), SIGNED_COMMITS as usize - 1);
    }

    #[test]
    fn a_stream_whose_mark_went_is_not_stable_when_it_comes_again() {
        let mut marks = Marks::default();
        marks.set(A, mark(8, 0));
        marks.committed(version(1));
        marks.stabilised(version(1), Ok(()));
        marks.set(A, mark(9, 0));
        marks.committed(version(2));
        assert_eq!(marks.sweep(Hours { server: 49, sender: 49 }, 10), [A]);
        marks.committed(version(3));
        marks.set(A, mark(20, 49));
        marks.committed(version(4));
        assert_eq!(marks.stable(A), SeqNo::NONE);
    }

    #[test]
    fn old_marks_go_by_the_earlier_clock_and_as_many_as_there_is_room_for() {
        let fresh = || {
            let mut marks = Marks::default();
            marks.load(&[(A, mark(1, 100)), (B, mark(1, 101))]);
            marks
        };
        let sweep = |server, sender, room| fresh().sweep(Hours { server, sender }, room).len();
        assert_eq!([sweep(148, 148, 9), sweep(149, 149, 9), sweep(150, 150, 9)], [0, 1, 2]);
        assert_eq!([sweep(148, 9999, 9), sweep(9999, 148, 9), sweep(9999, 149, 9)], [0, 0, 1]);
        let (mut marks, hours) = (fresh(), Hours { server: 150, sender: 150 });
        assert_eq!(marks.sweep(hours, 1).len(), 1);
        assert_eq!(marks.sweep(hours, 1).len(), 1, "what there was no room for goes with the next commit");
        assert_eq!(marks.sweep(hours, 1).len(), 0);
    }
}
