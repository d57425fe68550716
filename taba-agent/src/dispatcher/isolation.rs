//! Isolating poison Blocks: which Block of which Batch a Server fails on, found by bisection, without loss and in few failures.
//!
//! ```text
//!  a request fails        Lanes halve until one is alone         alone, again and again           its Blocks are checked
//!  with many Lanes  ────► each success ends their isolation ────► a Probe answered in between ────► half of them, and so on
//!                                                                                                        │
//!                                 Blocks that fail by themselves are set aside, the Batch goes on ◄──────┘
//! ```
//! A *check* is a Batch, or some of its Blocks, that a Server folds and throws away: it may fail, or take the Server with
//! it, and nothing is lost or counted. What a Server refuses, or dies of, when it is all that the Server has from this
//! Agent, while the same Server answers Probes before and after, lies in the Block.
//!
//! Only requests that were turned away for what they are, or whose connection broke before the answer, start an isolation;
//! a Server that is away, full or slow says nothing about a Batch. What is too large is split, and not searched for poison.

use std::collections::BTreeSet;
use std::ops::Range;

/// How often a Batch fails alone before its Blocks are checked.
const STRIKES_MAX: u32 = 3;
/// How often a Block fails by itself before it is set aside.
const BLOCK_STRIKES_MAX: u32 = 2;
/// Failed checks of one Batch after which all that was not cleared is set aside: Servers have died often enough of it.
const FAILURES_MAX: u32 = 40;
/// How often all of a Batch passes its checks, and still fails when it is sent, before all of it is set aside.
const ROUNDS_MAX: u32 = 3;

/// How far the search for poison Blocks in a Lane has come.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Lanes in its next request, at most; `None` when it is not being isolated.
    lanes_max: Option<usize>,
    /// How often its Batch failed alone.
    strikes: u32,
    /// Its Batch is too large by itself.
    is_too_large: bool,
    bisection: Option<Bisection>,
    rounds: u32,
    /// How it failed last, for people.
    why: String,
}

/// The checks of one Batch.
#[derive(Debug, Default)]
struct Bisection {
    /// Ranges of Blocks that are to be checked; the last one is next. `None` before the first check.
    todo: Option<Vec<Range<usize>>>,
    /// How often the next range, of one Block, has failed.
    strikes: u32,
    failures: u32,
    poison: BTreeSet<usize>,
}

/// What is to be done next with the Batch of a Lane that is being isolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IsolationStep {
    /// It is sent.
    Send,
    /// These Blocks of it are checked.
    Check(Range<usize>),
    /// These Blocks are set aside.
    SetAside(Vec<usize>),
    /// The largest Blocks are set aside, until the rest is small enough.
    SetLargestAside,
}

impl Isolation {
    /// Lanes in its next request, at most.
    pub(super) fn lanes_max(&self) -> usize {
        self.lanes_max.unwrap_or(usize::MAX)
    }

    /// Whether its next request must be all that its Server has from this Agent.
    pub(super) fn is_alone(&self) -> bool {
        self.lanes_max == Some(1)
    }

    /// A request with so many Lanes failed, of which this was one.
    pub(super) fn halve(&mut self, lanes: usize) {
        self.lanes_max = Some((lanes / 2).max(1).min(self.lanes_max()));
    }

    /// How it failed last, for people.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Its Batch was all that its Server had, and failed.
    pub(super) fn failed_alone(&mut self, why: &str) {
        (self.lanes_max, self.why) = (Some(1), why.to_owned());
        self.strikes += 1;
        if self.strikes >= STRIKES_MAX {
            self.bisection.get_or_insert_default();
        }
    }

    /// Its Batch is too large for its Server, by itself.
    pub(super) fn too_large(&mut self, why: &str) {
        (self.lanes_max, self.is_too_large, self.why) = (Some(1), true, why.to_owned());
        self.strikes += 1;
    }

    /// The same Batch is another one from here on, because some of its Blocks were set aside, or it was cut anew.
    pub(super) fn changed(&mut self) {
        *self = Self { lanes_max: Some(1), ..Self::default() };
    }

    /// A check was answered.
    pub(super) fn passed(&mut self) {
        let Some(bisection) = &mut self.bisection else { return };
        bisection.next(Vec::new());
    }

    /// A check failed.
    pub(super) fn failed_check(&mut self, why: &str) {
        self.why = why.to_owned();
        let Some(bisection) = &mut self.bisection else { return };
        bisection.failures += 1;
        let Some(range) = bisection.todo.as_ref().and_then(|todo| todo.last()).cloned() else { return };
        if range.len() > 1 {
            let middle = range.start + range.len() / 2;
            return bisection.next(vec![middle..range.end, range.start..middle]);
        }
        bisection.strikes += 1;
        if bisection.strikes >= BLOCK_STRIKES_MAX {
            bisection.poison.extend(range);
            bisection.next(Vec::new());
        }
    }

    /// What is to be done with its Batch of so many Blocks.
    pub(super) fn turn(&mut self, blocks: usize) -> IsolationStep {
        if self.is_too_large && self.strikes >= STRIKES_MAX {
            return IsolationStep::SetLargestAside;
        }
        let Some(bisection) = &mut self.bisection else { return IsolationStep::Send };
        let todo = bisection.todo.get_or_insert_with(|| std::iter::once(0..blocks).collect());
        if bisection.failures >= FAILURES_MAX {
            let left = todo.drain(..).flatten();
            bisection.poison.extend(left);
        }
        if let Some(range) = todo.last().filter(|range| !range.is_empty()) {
            return IsolationStep::Check(range.clone());
        }
        if !bisection.poison.is_empty() {
            return IsolationStep::SetAside(bisection.poison.iter().copied().collect());
        }
        // Each Block passes: whatever it is, the checks do not show it. Once more, but not for ever.
        self.rounds += 1;
        if self.rounds < ROUNDS_MAX && blocks > 0 {
            (self.strikes, self.bisection) = (0, None);
            return IsolationStep::Send;
        }
        IsolationStep::SetAside((0..blocks).collect())
    }
}

impl Bisection {
    /// The range is done with; these take its place.
    fn next(&mut self, ranges: Vec<Range<usize>>) {
        self.strikes = 0;
        if let Some(todo) = &mut self.todo {
            todo.pop();
            todo.extend(ranges);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails a Batch alone until something else than sending it is to be done.
    fn isolated_batch(blocks: usize) -> Isolation {
        let mut isolation = Isolation::default();
        while isolation.turn(blocks) == IsolationStep::Send {
            isolation.failed_alone("lost");
        }
        isolation
    }

    /// Goes on to the verdict, with a Server that fails on these Blocks. Answers the verdict, and the failures.
    fn tried(blocks: usize, bad: &[usize]) -> (IsolationStep, usize) {
        let mut isolation = isolated_batch(blocks);
        let mut failures = STRIKES_MAX as usize;
        loop {
            match isolation.turn(blocks) {
                IsolationStep::Check(range) if bad.iter().any(|bad| range.contains(bad)) => {
                    failures += 1;
                    isolation.failed_check("lost");
                }
                IsolationStep::Check(_) => isolation.passed(),
                IsolationStep::Send => {
                    failures += 1;
                    isolation.failed_alone("lost");
                }
                verdict => return (verdict, failures),
            }
        }
    }

    #[test]
    fn lanes_halve_until_one_is_alone() {
        let mut isolation = Isolation::default();
        let mut failures = 0;
        let mut lanes = 1000;
        while !isolation.is_alone() {
            isolation.halve(lanes);
            lanes = isolation.lanes_max();
            failures += 1;
        }
        assert_eq!(failures, 9);
    }

    #[test]
    fn the_block_that_fails_is_found_wherever_it_is_and_in_few_failures() {
        for bad in [0, 1, 17, 998, 1899] {
            let (verdict, failures) = tried(1900, &[bad]);
            assert_eq!(verdict, IsolationStep::SetAside(vec![bad]));
            assert!(failures <= 3 + 11 + 2, "{failures}");
        }
        assert_eq!(tried(1, &[0]), (IsolationStep::SetAside(vec![0]), 5));
        assert_eq!(tried(100, &[3, 70, 71]).0, IsolationStep::SetAside(vec![3, 70, 71]));
    }

    #[test]
    fn whatever_fails_there_is_an_end() {
        let all: Vec<usize> = (0..1900).collect();
        let (verdict, failures) = tried(1900, &all);
        assert!(matches!(verdict, IsolationStep::SetAside(blocks) if blocks == all));
        assert!(failures <= 3 + FAILURES_MAX as usize + 1, "{failures}");
        // Nothing fails by itself, and together they always do.
        let (verdict, failures) = tried(50, &[]);
        assert_eq!((verdict, failures), (IsolationStep::SetAside((0..50).collect()), 9));
    }

    #[test]
    fn what_is_too_large_is_not_suspected_of_more() {
        let mut isolation = Isolation::default();
        for _ in 0..STRIKES_MAX {
            assert_eq!(isolation.turn(10), IsolationStep::Send);
            isolation.too_large("413");
        }
        assert_eq!(isolation.turn(10), IsolationStep::SetLargestAside);
        isolation.changed();
        assert_eq!((isolation.turn(10), isolation.is_alone()), (IsolationStep::Send, true));
    }
}
