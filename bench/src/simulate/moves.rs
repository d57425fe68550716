//! [`Moves`]: VBuckets move from one shard to another while Agents and Servers go on.
//!
//! This is the seam for the machine that moves VBuckets in `taba-shard`: the order of the steps is that of the design (fence, copy,
//! switch), what each costs is what was measured with 500 States of 200 bytes on one machine (a pause of 2 ms in the middle, 12 to 37 ms
//! at the 99th percentile), as [`COPY_ROUND_TRIPS`] and [`COPY_BYTES_PER_SECOND`]. With that machine at hand, [`Moves::next`] asks it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::measures::MovesReport;

/// Moves that a shard takes part in at a time.
const MOVES_PER_SHARD_MAX: usize = 4;
/// The fence, the wait until a replica has it, the copy with its check, the switch.
const COPY_ROUND_TRIPS: u32 = 4;
const COPY_BYTES_PER_SECOND: f64 = 100e6;

/// A VBucket on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) vbucket: u16,
    pub(super) from: u16,
    pub(super) to: u16,
}

/// The moves that are left, and those that are under way.
#[derive(Debug, Default)]
pub(super) struct Moves {
    waiting: VecDeque<Move>,
    busy: BTreeMap<u16, usize>,
    begun: Duration,
    ended: Option<Duration>,
    done: usize,
    bytes: usize,
    /// How long writes of a VBucket were turned away.
    pauses: Vec<Duration>,
}

impl Moves {
    /// Moves as few VBuckets as it takes for all of so many shards to have the same number, or one more.
    pub(super) fn plan(now: Duration, owners: &[u16], shards: u16) -> Self {
        let mut held: Vec<usize> = vec![0; shards.into()];
        owners.iter().for_each(|owner| held[usize::from(*owner)] += 1);
        let (least, most) = (owners.len() / held.len(), owners.len().div_ceil(held.len()));
        let mut needy: VecDeque<u16> =
            (0..shards).filter(|shard| held[usize::from(*shard)] < least).collect();
        let mut waiting = VecDeque::new();
        for (vbucket, from) in owners.iter().copied().enumerate() {
            let Some(to) = needy.front().copied() else { break };
            // A shard with one more than the least gives it away only as long as somebody has fewer.
            if held[usize::from(from)] >= most && held[usize::from(from)] > least {
                held[usize::from(from)] -= 1;
                held[usize::from(to)] += 1;
                waiting.push_back(Move { vbucket: vbucket as u16, from, to });
                needy.rotate_left(1);
                needy.retain(|shard| held[usize::from(*shard)] < least);
            }
        }
        Self { waiting, begun: now, ..Self::default() }
    }

    pub(super) fn left(&self) -> usize {
        self.waiting.len() + self.busy.values().sum::<usize>() / 2
    }

    /// A move that can begin now.
    pub(super) fn next(&mut self) -> Option<Move> {
        let is_free = |shard: u16| self.busy.get(&shard).copied().unwrap_or(0) < MOVES_PER_SHARD_MAX;
        let place = self.waiting.iter().position(|next| is_free(next.from) && is_free(next.to))?;
        let next = self.waiting.remove(place)?;
        [next.from, next.to].into_iter().for_each(|shard| *self.busy.entry(shard).or_default() += 1);
        Some(next)
    }

    /// From the fence to the switch of a VBucket of so many bytes.
    pub(super) fn pause(bytes: usize, round_trip: Duration) -> Duration {
        round_trip * COPY_ROUND_TRIPS + Duration::from_secs_f64(bytes as f64 / COPY_BYTES_PER_SECOND)
    }

    /// A move is done.
    pub(super) fn done(&mut self, now: Duration, moved: Move, bytes: usize, pause: Duration) {
        for shard in [moved.from, moved.to] {
            self.busy.entry(shard).and_modify(|busy| *busy -= 1);
        }
        self.done += 1;
        self.bytes += bytes;
        self.pauses.push(pause);
        if self.left() == 0 {
            self.ended = Some(now);
        }
    }
}

impl Moves {
    /// What it came to so far.
    pub(super) fn report(&self) -> MovesReport {
        let mut pauses: Vec<f64> = self.pauses.iter().map(|pause| pause.as_secs_f64() * 1e3).collect();
        pauses.sort_by(f64::total_cmp);
        let within = |share: f64| {
            let rank = (pauses.len() as f64 * share).ceil() as usize;
            pauses.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        MovesReport {
            vbuckets: self.done,
            bytes: self.bytes,
            seconds: self.ended.map(|ended| (ended - self.begun).as_secs_f64()),
            pause_ms_median: within(0.5),
            pause_ms_p99: within(0.99),
            pause_ms_max: within(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_fills_new_shards_with_as_few_moves_as_it_takes() {
        for (vbuckets, before, after) in [(64, 8, 10), (1024, 100, 110), (64, 4, 64), (4096, 1000, 1100)] {
            let mut owners: Vec<u16> = (0..vbuckets).map(|n| (n * before / vbuckets) as u16).collect();
            let mut moves = Moves::plan(Duration::ZERO, &owners, after as u16);
            while let Some(next) = moves.next() {
                assert_eq!(owners[usize::from(next.vbucket)], next.from);
                owners[usize::from(next.vbucket)] = next.to;
                moves.done(Duration::ZERO, next, 1, Duration::ZERO);
            }
            assert!(moves.left() == 0 && moves.ended.is_some());
            let mut held = vec![0; after];
            owners.iter().for_each(|owner| held[usize::from(*owner)] += 1);
            let least = vbuckets / after;
            assert!(held.iter().all(|count| *count >= least), "{held:?}");
            assert_eq!(moves.done, held[before..].iter().sum::<usize>(), "only new shards get any");
        }
    }
}
