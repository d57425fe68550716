//! The rule of a Lane: whether a Batch may be folded, and what is lost, given the Lane's mark.
//!
//! Exactly-once depends on order without gaps. The tempting rule "skip what is at or below the mark, take the rest"
//! loses Batches as soon as one overtakes another.

use taba_core::wire::{LaneBatch, Probe};
use taba_core::{Mark, SeqNo};

use crate::sabotage::{MARKS, ORDER, is_off};

/// The decision about a Batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It follows the mark: fold it.
    Next,
    /// The sender no longer has what is between the mark and this Batch: fold it, and count the loss.
    AfterGap {
        /// Events in the lost Batches.
        events_lost: u64,
    },
    /// It is contained already.
    Duplicate,
    /// An earlier Batch is missing, and the sender still has it.
    Nak,
}

/// Applies the rule.
///
/// ```text
/// seq ≤ mark              duplicate
/// seq = mark + 1          next
/// seq = base > mark + 1   after a gap
/// anything else           nak
/// ```
pub fn admit(mark: Option<Mark>, batch: &LaneBatch) -> Admission {
    let mark = mark.unwrap_or_default();
    if batch.seq <= mark.seq && !is_off(MARKS) {
        Admission::Duplicate
    } else if batch.seq <= mark.seq.next() || is_off(ORDER) {
        Admission::Next
    } else if batch.seq == batch.base {
        Admission::AfterGap { events_lost: batch.events_before.saturating_sub(mark.events) }
    } else {
        Admission::Nak
    }
}

/// The mark of a Lane after `batch` is folded.
pub fn mark_after(batch: &LaneBatch, hour: u32) -> Mark {
    Mark::new(batch.seq, batch.events_before.saturating_add(batch.events()), hour)
}

/// The decision about a Probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The sender has everything that is not contained.
    Whole,
    /// The sender no longer has what is between the mark and the Probe's base: count the loss.
    Gap {
        /// Events in the lost Batches.
        events_lost: u64,
    },
}

/// Applies the rule to a Probe: nothing below its base will ever be sent again.
///
/// ```text
/// base ≤ mark + 1    whole
/// base > mark + 1    gap
/// ```
pub fn admit_probe(mark: Option<Mark>, probe: &Probe) -> ProbeOutcome {
    let mark = mark.unwrap_or_default();
    if probe.base > mark.seq.next() {
        ProbeOutcome::Gap { events_lost: probe.events_before.saturating_sub(mark.events) }
    } else {
        ProbeOutcome::Whole
    }
}

/// The mark of a Lane after the gap below a Probe's base is counted.
pub fn mark_below(probe: &Probe, hour: u32) -> Mark {
    Mark::new(SeqNo(probe.base.0.saturating_sub(1)), probe.events_before, hour)
}

#[cfg(test)]
mod tests {
    use taba_core::StreamId;

    use super::*;

    fn batch(seq: u64, base: u64) -> LaneBatch {
        let (stream, seq, base) = (StreamId(1), SeqNo(seq), SeqNo(base));
        LaneBatch::new(stream, 0, seq, 100, Vec::new()).with_base(base)
    }

    #[test]
    fn each_line_of_the_rule_holds() {
        let mark = Some(Mark::new(SeqNo(5), 70, 0));
        assert_eq!(admit(mark, &batch(4, 1)), Admission::Duplicate);
        assert_eq!(admit(mark, &batch(5, 5)), Admission::Duplicate);
        assert_eq!(admit(mark, &batch(6, 1)), Admission::Next);
        assert_eq!(admit(mark, &batch(6, 6)), Admission::Next, "a base that moved up is no gap by itself");
        assert_eq!(admit(mark, &batch(7, 7)), Admission::AfterGap { events_lost: 30 });
        assert_eq!(admit(mark, &batch(7, 6)), Admission::Nak);
        assert_eq!(admit(None, &batch(1, 1)), Admission::Next);
        assert_eq!(admit(None, &batch(2, 1)), Admission::Nak);
        assert_eq!(admit(None, &batch(2, 2)), Admission::AfterGap { events_lost: 100 });
    }

    #[test]
    fn a_probe_tells_a_gap_from_a_lane_that_is_whole() {
        let mark = Some(Mark::new(SeqNo(5), 70, 0));
        let probe = |base| Probe::new(StreamId(1), 0, SeqNo(base), 100);
        assert_eq!(admit_probe(mark, &probe(1)), ProbeOutcome::Whole);
        assert_eq!(admit_probe(mark, &probe(6)), ProbeOutcome::Whole, "all that was sent is contained");
        assert_eq!(admit_probe(mark, &probe(7)), ProbeOutcome::Gap { events_lost: 30 });
        assert_eq!(mark_below(&probe(7), 3), Mark::new(SeqNo(6), 100, 3));
        assert_eq!(admit_probe(None, &probe(1)), ProbeOutcome::Whole);
        assert_eq!(admit_probe(None, &probe(2)), ProbeOutcome::Gap { events_lost: 100 });
    }
}
