//! The rule of a Lane: which Batch may be folded, given how far the Lane is contained in the stored States.
//!
//! Order without gaps is what exactly-once rests on. The tempting rule "skip what is at or below the mark, take the
//! rest" loses Batches as soon as two of them overtake each other.

use taba_core::wire::LaneBatch;
use taba_core::{Mark, SeqNo};

/// What may be done with a Batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It follows on the mark: fold it.
    Next,
    /// The sender no longer has what lies between the mark and this Batch: fold it, and count the loss.
    AfterGap {
        /// Events in the Batches that are gone.
        events_lost: u64,
    },
    /// It is contained already.
    Duplicate,
    /// Something before it is missing, and the sender still has it.
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
    if batch.seq <= mark.seq {
        Admission::Duplicate
    } else if batch.seq == mark.seq.next() {
        Admission::Next
    } else if batch.seq == batch.base {
        Admission::AfterGap { events_lost: batch.events_before.saturating_sub(mark.events) }
    } else {
        Admission::Nak
    }
}

/// The mark of a Lane once `batch` is folded.
pub fn mark_after(batch: &LaneBatch, hour: u32) -> Mark {
    Mark { seq: batch.seq, events: batch.events_before.saturating_add(batch.events()), hour }
}

/// The number that a sender of `batch` believes applied, at least: what to answer when nothing is known.
pub fn believed(batch: &LaneBatch) -> SeqNo {
    SeqNo(batch.seq.0.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use taba_core::StreamId;

    use super::*;

    fn batch(seq: u64, base: u64) -> LaneBatch {
        let (stream, seq, base) = (StreamId(1), SeqNo(seq), SeqNo(base));
        LaneBatch { stream, vbucket: 0, seq, base, events_before: 100, blocks: Vec::new() }
    }

    #[test]
    fn each_line_of_the_rule_holds() {
        let mark = Some(Mark { seq: SeqNo(5), events: 70, hour: 0 });
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
}
