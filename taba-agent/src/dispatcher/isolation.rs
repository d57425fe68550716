//! Isolates poison Blocks: finds the Blocks that a Server fails on by bisection, without loss and with few failures.
//!
//! ```text
//!  a request fails        Lanes halve until one is alone         alone, again and again           its Blocks are checked
//!  with many Lanes  ────► each success ends their isolation ────► a Probe answered in between ────► half of them, and so on
//!                                                                                                        │
//!                                 Blocks that fail by themselves are set aside, the Batch goes on ◄──────┘
//! ```
//! A *check* is a Batch, or some of its Blocks, that a Server folds and discards: it may fail, or crash the Server,
//! and nothing is lost or counted. If the Server refuses or crashes on a check that is its only request from this
//! Agent, and answers Probes before and after, the Block is the cause.
//!
//! Only requests that were rejected, or whose connection broke before the answer, start an isolation; an unavailable,
//! full or slow Server says nothing about a Batch. Requests that are too large are split, not bisected.

use std::collections::BTreeSet;
use std::ops::Range;

/// Failures of a Batch alone before its Blocks are checked.
const STRIKES_MAX: u32 = 3;
/// Failures of a Block alone before it is set aside.
const BLOCK_STRIKES_MAX: u32 = 2;
/// Failed checks of one Batch after which everything unchecked is set aside, to spare the Servers.
const FAILURES_MAX: u32 = 40;
/// Times that all of a Batch passes its checks and still fails when sent, before all of it is set aside.
const ROUNDS_MAX: u32 = 3;

/// The state of the search for poison Blocks in a Lane.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Maximum number of Lanes in its next request; `None` when it is not being isolated.
    lanes_max: Option<usize>,
    /// Failures of its Batch alone.
    strikes: u32,
    /// Its Batch is too large by itself.
    is_too_large: bool,
    bisection: Option<Bisection>,
    rounds: u32,
    /// The last failure, for people.
    why: String,
}

/// The checks of one Batch.
#[derive(Debug, Default)]
struct Bisection {
    /// Ranges of Blocks to check; the last one is next. `None` before the first check.
    todo: Option<Vec<Range<usize>>>,
    /// Failures of the next range, if it is one Block.
    strikes: u32,
    failures: u32,
    poison: BTreeSet<usize>,
}

/// The next step with an isolated Batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IsolationStep {
    /// Send it.
    Send,
    /// Check these Blocks.
    Check(Range<usize>),
    /// Set these Blocks aside.
    SetAside(Vec<usize>),
    /// Set the largest Blocks aside, until the rest is small enough.
    SetLargestAside,
}

impl Isolation {
    /// The maximum number of Lanes in its next request.
    pub(super) fn lanes_max(&self) -> usize {
        self.lanes_max.unwrap_or(usize::MAX)
    }

    /// Whether its next request must be its Server's only one from this Agent.
    pub(super) fn is_alone(&self) -> bool {
        self.lanes_max == Some(1)
    }

    /// A request with this many Lanes failed, including this one.
    pub(super) fn halve(&mut self, lanes: usize) {
        self.lanes_max = Some((lanes / 2).max(1).min(self.lanes_max()));
    }

    /// The last failure, for people.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Its Batch failed as its Server's only request.
    pub(super) fn failed_alone(&mut self, why: &str) {
        (self.lanes_max, self.why) = (Some(1), why.to_owned());
        self.strikes += 1;
        if self.strikes >= STRIKES_MAX {
            self.bisection.get_or_insert_default();
        }
    }

    /// Its Batch alone is too large for its Server.
    pub(super) fn too_large(&mut self, why: &str) {
        (self.lanes_max, self.is_too_large, self.why) = (Some(1), true, why.to_owned());
        self.strikes += 1;
    }

    /// Its Batch has changed: Blocks were set aside, or it was cut again.
    pub(super) fn changed(&mut self) {
        *self = Self { lanes_max: Some(1), ..Self::default() };
    }

    /// A check succeeded.
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

    /// The next step with its Batch of this many Blocks.
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
        // Each Block passes: checks do not show the cause. Repeats a limited number of times.
        self.rounds += 1;
        if self.rounds < ROUNDS_MAX && blocks > 0 {
            (self.strikes, self.bisection) = (0, None);
            return IsolationStep::Send;
        }
        IsolationStep::SetAside((0..blocks).collect())
    }
}

impl Bisection {
    /// Replaces the current range by these.
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

    /// Fails a Batch alone until the next step is not to send it.
    fn isolated_batch(blocks: usize) -> Isolation {
        let mut isolation = Isolation::default();
        while isolation.turn(blocks) == IsolationStep::Send {
            isolation.failed_alone("lost");
        }
        isolation
    }

    /// Runs to the verdict, with a Server that fails on these Blocks. Returns the verdict and the failures.
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
        // No Block fails alone, but together they always do.
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
