//! [`Moves`]: VBuckets move from one shard to another while Agents and Servers go on. Every step is decided by
//! [`taba_shard::migration::next`], as in the tool; what a step costs is in `world/faults.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use taba_core::VBucket;
use taba_shard::ShardName;
use taba_shard::limits::MOVES_PER_SHARD;
use taba_shard::migration::{self, Goal, Head, MoveStep};

use super::measures::MovesReport;

/// A VBucket on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub(super) vbucket: u16,
    pub(super) from: u16,
    pub(super) to: u16,
}

/// What both shards hold of a VBucket that moves.
#[derive(Debug)]
struct Copies {
    source: Head,
    destination: Option<Head>,
    fenced: Option<Duration>,
}

/// The moves that are left, and those that are under way.
#[derive(Debug, Default)]
pub(super) struct Moves {
    waiting: VecDeque<Move>,
    busy: BTreeMap<u16, usize>,
    copies: BTreeMap<u16, Copies>,
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
    pub(super) fn begin(&mut self) -> Option<Move> {
        let is_free = |shard: u16| self.busy.get(&shard).copied().unwrap_or(0) < MOVES_PER_SHARD;
        let place = self.waiting.iter().position(|next| is_free(next.from) && is_free(next.to))?;
        let next = self.waiting.remove(place)?;
        [next.from, next.to].into_iter().for_each(|shard| *self.busy.entry(shard).or_default() += 1);
        let source = Head { epoch: 1, moved: None, has_content: true, is_bar: false };
        self.copies.insert(next.vbucket, Copies { source, destination: None, fenced: None });
        Some(next)
    }

    /// What is to be done next.
    pub(super) fn step(&self, moving: Move, vbucket: VBucket) -> MoveStep {
        let copies = &self.copies[&moving.vbucket];
        let this = migration::Move { vbucket, from: name(moving.from), to: name(moving.to) };
        migration::next(Goal::Forward, this, Some(copies.source), copies.destination)
            .expect("nobody else moves it")
    }

    /// A step has been done: `bytes` is what the VBucket holds. Answers whether another move may begin.
    pub(super) fn done(&mut self, now: Duration, moving: Move, step: MoveStep, bytes: usize) -> bool {
        let copies = self.copies.get_mut(&moving.vbucket).expect("it was begun");
        match step {
            MoveStep::Fence { fence, .. } => {
                copies.source.moved = Some((fence, name(moving.to)));
                copies.fenced = Some(now);
            }
            MoveStep::Copy { fence, .. } => {
                copies.destination =
                    Some(Head { epoch: fence, moved: None, has_content: true, is_bar: false });
                self.pauses.extend(copies.fenced.map(|fenced| now - fenced));
                for shard in [moving.from, moving.to] {
                    self.busy.entry(shard).and_modify(|busy| *busy -= 1);
                }
                self.done += 1;
                self.bytes += bytes;
                if self.left() == 0 {
                    self.ended = Some(now);
                }
                return true;
            }
            MoveStep::Retire { .. } => copies.source.has_content = false,
            MoveStep::Done | MoveStep::Bar { .. } | MoveStep::Unfence { .. } => {
                unreachable!("no move is taken back here")
            }
        }
        false
    }
}

fn name(shard: u16) -> ShardName {
    format!("{:016x}", u64::from(shard) + 1).parse().expect("16 digits")
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
    use taba_core::VBuckets;

    use super::*;

    #[test]
    fn a_plan_fills_new_shards_with_as_few_moves_as_it_takes() {
        for (vbuckets, before, after) in [(64, 8, 10), (1024, 100, 110), (64, 4, 64), (4096, 1000, 1100)] {
            let mut owners: Vec<u16> = (0..vbuckets).map(|n| (n * before / vbuckets) as u16).collect();
            let mut moves = Moves::plan(Duration::ZERO, &owners, after as u16);
            while let Some(next) = moves.begin() {
                assert_eq!(owners[usize::from(next.vbucket)], next.from);
                owners[usize::from(next.vbucket)] = next.to;
                let all = VBuckets::new(64).expect("a power of two");
                let vbucket = all.get(0).expect("the first");
                let mut steps = 0;
                loop {
                    let step = moves.step(next, vbucket);
                    if step == MoveStep::Done {
                        break;
                    }
                    moves.done(Duration::ZERO, next, step, 1);
                    steps += 1;
                }
                assert_eq!(steps, 3, "fence, copy, retire");
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
