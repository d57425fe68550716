use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;
use taba_core::limits::{BATCH_BLOCKS_MAX, BLOCK_EVENTS_MAX};
use taba_core::wire::{Ack, Answer, LaneBatch, Reader};
use taba_core::{ClientId, Events, StreamId, TabName, TabType};

use super::*;
use crate::spool::record::Record;
use crate::spool::recovery::{RecoveredBatch, RecoveredLane, Sending};
use crate::spool::{MemorySpool, SegmentId, Spool, Weight};

const CONFIRM: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(5);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn at(uptime: Duration) -> ClockReading {
    ClockReading { uptime, time: Timestamp::from_secs(1_000_000).saturating_add(uptime) }
}

fn key() -> LaneKey {
    LaneKey { stream: StreamId(7), vbucket: 3 }
}

fn bounds(batch_bytes_max: usize) -> LaneBounds {
    LaneBounds { batch_bytes_max, confirm_after: CONFIRM, probe_interval: PROBE, spool_keeps_content: false }
}

/// A Lane, and a Spool that takes all it is given.
struct Bench {
    lane: Lane,
    spool: MemorySpool,
    now: Duration,
}

impl Bench {
    fn new(batch_bytes_max: usize) -> Self {
        Self {
            lane: Lane::new(key(), bounds(batch_bytes_max)),
            spool: MemorySpool::new(1 << 40),
            now: secs(0),
        }
    }

    fn offer(&mut self, blocks: &[Block]) {
        let fragments = self.lane.plan(blocks);
        let record =
            Record::Merge { stream: key().stream, taken_at: Timestamp::default(), fragments: &fragments };
        let written = self.spool.append(&record).unwrap();
        let fragments = fragments.into_iter().zip(written.locations);
        self.lane.append(at(self.now), fragments, written.position);
    }

    fn send(&mut self) -> Option<OutgoingMessage> {
        self.lane.make_ready(u64::MAX);
        self.lane.send(at(self.now))
    }

    fn batch(&mut self) -> OutgoingBatch {
        match self.send() {
            Some(OutgoingMessage::Batch(batch)) => batch,
            other => panic!("no batch: {other:?}"),
        }
    }

    fn acknowledge(&mut self, ack: &Ack) -> Progress {
        let (progress, released) = self.lane.acknowledge(self.now, ack);
        self.spool.release(&released.locations);
        progress
    }
}

/// A Block whose Tab says which one it is.
fn block(number: usize) -> Block {
    let tab = TabName::new(&format!("tab{number}")).unwrap();
    let (client, tab_type) = (ClientId::new("web").unwrap(), TabType::new("TotalsCounter").unwrap());
    let times = vec![Timestamp::from_secs(1); 1 + number % 3];
    Block::of_events(tab, client, tab_type, Events::new(&times, &vec![1.0; times.len()])).unwrap()
}

/// A Block of as many events as one may have, in few bytes.
fn full_block() -> Block {
    let (times, values) = (vec![Timestamp::from_secs(1); BLOCK_EVENTS_MAX], vec![1.0; BLOCK_EVENTS_MAX]);
    let events = Events::new(&times, &values);
    let (tab, client, tab_type) = (TabName::new("full"), ClientId::new("web"), TabType::new("TotalsCounter"));
    Block::of_events(tab.unwrap(), client.unwrap(), tab_type.unwrap(), events).unwrap()
}

/// A Server would refuse what is beyond, which was accepted here.
#[test]
fn no_batch_has_more_to_fold_than_a_server_takes() {
    let mut bench = Bench::new(1 << 20);
    for blocks in [1, 2, 9, 1, 3] {
        bench.offer(&vec![full_block(); blocks]);
    }
    let mut sizes = Vec::new();
    while let Some(OutgoingMessage::Batch(batch)) = bench.send() {
        let read = decoded(&batch);
        assert!(read.blocks.iter().all(|block| *block == full_block()));
        sizes.push(read.blocks.len());
        bench.acknowledge(&ack(batch.seq.0, 0, Answer::Applied));
    }
    assert_eq!(sizes, [4, 4, 4, 4]);
}

fn decoded(outgoing: &OutgoingBatch) -> LaneBatch {
    let mut bytes = Vec::new();
    outgoing.encode(&mut bytes);
    assert!(bytes.len() <= outgoing.bytes());
    let source = Bytes::from(bytes);
    let mut reader = Reader::new(&source);
    let batch = LaneBatch::decode(&mut reader, &source).unwrap();
    reader.finish("test").unwrap();
    batch
}

fn ack(applied: u64, stable: u64, answer: Answer) -> Ack {
    let (applied, stable) = (SeqNo(applied), SeqNo(stable));
    Ack::new(StreamId(7), 3, applied, answer).with_stable(stable)
}

/// A Lane with Batches 1 to `sealed` acknowledged and retained, and one more Block to send.
fn with_retained(sealed: u64) -> Bench {
    let mut bench = Bench::new(1);
    for seq in 1..=sealed {
        bench.offer(&[block(seq as usize)]);
        assert_eq!(bench.batch().seq, SeqNo(seq));
        assert_eq!(bench.acknowledge(&ack(seq, 0, Answer::Applied)), Progress::Applied(SeqNo(seq)));
    }
    bench.offer(&[block(sealed as usize + 1)]);
    bench
}

#[test]
fn what_is_sent_is_what_the_core_reads() {
    let mut bench = Bench::new(10_000);
    let blocks: Vec<_> = (0..5).map(block).collect();
    blocks.iter().for_each(|block| bench.offer(std::slice::from_ref(block)));
    let mut note = block(0);
    note.tab = TabName::new("taba.recorded").unwrap();
    bench.offer(std::slice::from_ref(&note));
    let Some(NextMessage::Batch(bytes)) = bench.lane.next() else { panic!() };
    let outgoing = bench.batch();
    assert!(outgoing.bytes() <= bytes);
    let batch = decoded(&outgoing);
    assert_eq!(batch.blocks[..5], blocks);
    assert_eq!((batch.seq, batch.base, batch.events_before), (SeqNo(1), SeqNo(1), 0));
    let (mut encoded, mut ours) = (Vec::new(), Vec::new());
    batch.encode(&mut encoded);
    outgoing.encode(&mut ours);
    assert_eq!(encoded, ours);

    bench.acknowledge(&ack(1, 0, Answer::Applied));
    bench.offer(&[block(9)]);
    let second = decoded(&bench.batch());
    assert_eq!((second.seq, second.base), (SeqNo(2), SeqNo(1)));
    assert_eq!(second.events_before, batch.events(), "the Ledger's own events are not counted");
}

#[test]
fn a_batch_is_cut_at_its_bounds_and_blocks_keep_their_order() {
    for together in [true, false] {
        let mut bench = Bench::new(usize::MAX);
        let blocks: Vec<_> = (0..2 * BATCH_BLOCKS_MAX + 1).map(block).collect();
        if together {
            bench.offer(&blocks);
        } else {
            blocks.chunks(700).for_each(|blocks| bench.offer(blocks));
        }
        let events = blocks.iter().map(|block| block.events).sum();
        assert_eq!((bench.lane.events_held(), bench.lane.unapplied().events), (events, events));
        let mut sent = Vec::new();
        for seq in 1..=3 {
            sent.extend(decoded(&bench.batch()).blocks);
            bench.acknowledge(&ack(seq, 0, Answer::Applied));
        }
        assert_eq!(sent, blocks);
        assert_eq!((bench.lane.next(), bench.lane.unapplied()), (None, Weight::default()));
        assert_eq!(bench.lane.events_held(), events, "it is stored, and kept until it is confirmed");
    }
    let mut bench = Bench::new(100);
    bench.offer(&(0..9).map(block).collect::<Vec<_>>());
    assert!(decoded(&bench.batch()).blocks.len() < 4);
}

#[test]
fn one_batch_is_in_flight_and_repeated_as_it_was() {
    let mut bench = Bench::new(1_000);
    bench.offer(&[block(1)]);
    let first = bench.batch();
    bench.offer(&[block(2)]);
    assert_eq!(bench.send(), None);
    bench.lane.give_back();
    assert_eq!(bench.batch(), first, "what came since is not added to it");
    assert_eq!(bench.acknowledge(&ack(0, 0, Answer::Busy)), Progress::Later);
    assert_eq!(bench.batch(), first);
    assert_eq!(bench.acknowledge(&ack(0, 0, Answer::Unavailable)), Progress::Later);
    assert_eq!(bench.batch(), first);
    assert_eq!(bench.acknowledge(&ack(1, 0, Answer::Duplicate)), Progress::Applied(SeqNo(1)));
    assert_eq!(bench.batch().seq, SeqNo(2));
}

#[test]
fn a_lane_says_what_it_waits_for() {
    let mut bench = Bench::new(1);
    assert!(bench.lane.is_applied() && bench.lane.is_empty());
    bench.now = secs(3);
    bench.offer(&[block(0)]);
    bench.now = secs(4);
    bench.offer(&[block(1)]);
    assert_eq!(bench.lane.waiting_since(), Some(secs(3)));
    assert!(!bench.lane.is_applied() && !bench.lane.has_batch_in_flight());
    let first = bench.batch();
    assert!(bench.lane.has_batch_in_flight());
    assert_eq!(bench.lane.waiting_since(), None, "it was sent");
    assert_eq!(bench.acknowledge(&ack(first.seq.0, 0, Answer::Applied)), Progress::Applied(first.seq));
    assert_eq!(bench.lane.waiting_since(), Some(secs(4)));
    let checkpoint = bench.lane.checkpoint();
    assert_eq!((checkpoint.base, checkpoint.applied, checkpoint.last), (SeqNo(1), SeqNo(1), SeqNo(2)));
}

#[test]
fn a_nak_rewinds_and_never_below_the_base() {
    let mut bench = with_retained(5);
    bench.now = secs(60);
    assert_eq!(bench.batch().seq, SeqNo(6));
    assert_eq!(bench.acknowledge(&ack(6, 2, Answer::Applied)), Progress::Applied(SeqNo(6)));
    assert_eq!(bench.lane.base(), SeqNo(3), "two were stable");
    bench.offer(&[block(7)]);
    assert_eq!(bench.batch().seq, SeqNo(7));
    assert_eq!(bench.acknowledge(&ack(4, 4, Answer::Nak)), Progress::Rewound);
    let again = bench.batch();
    assert_eq!((again.seq, again.base), (SeqNo(5), SeqNo(3)));
    assert_eq!(
        bench.acknowledge(&ack(0, 0, Answer::Nak)),
        Progress::Rewound,
        "the store went back behind the base"
    );
    let oldest = bench.batch();
    assert_eq!((oldest.seq, oldest.base), (SeqNo(3), SeqNo(3)));
    assert_eq!(bench.acknowledge(&ack(7, 7, Answer::Duplicate)), Progress::Applied(SeqNo(7)));
}

#[test]
fn a_duplicate_moves_the_cursor_and_confirms_nothing() {
    let mut bench = with_retained(5);
    bench.now = secs(1_000);
    bench.batch();
    assert_eq!(bench.acknowledge(&ack(6, 6, Answer::Duplicate)), Progress::Applied(SeqNo(6)));
    assert_eq!(bench.lane.base(), SeqNo(1), "it may come from a cache");
}

#[test]
fn a_batch_goes_when_one_fresh_and_stable_answer_to_a_late_question_covers_it() {
    let mut bench = with_retained(2);
    bench.now = secs(10);
    bench.batch();
    bench.acknowledge(&ack(3, 3, Answer::Applied));
    assert_eq!(bench.lane.base(), SeqNo(1), "too early");
    assert_eq!(bench.lane.probe_at(), Some(secs(10) + CONFIRM), "when all of it can be confirmed at once");

    bench.now = secs(60);
    bench.offer(&[block(4)]);
    bench.batch();
    bench.now = secs(61);
    bench.acknowledge(&ack(4, 1, Answer::Applied));
    assert_eq!(bench.lane.base(), SeqNo(2), "only the first is stable");

    bench.lane.probe();
    let Some(OutgoingMessage::Probe(probe)) = bench.send() else { panic!() };
    assert_eq!((probe.base, probe.events_before), (SeqNo(2), block(1).events));
    bench.now = secs(62);
    bench.acknowledge(&ack(4, 4, Answer::Applied));
    assert_eq!(bench.lane.base(), SeqNo(3), "3 was acknowledged at 10 s, and this was asked at 61 s");

    bench.now = secs(500);
    bench.lane.probe();
    bench.send().unwrap();
    bench.acknowledge(&ack(4, 3, Answer::Applied));
    assert_eq!((bench.lane.base(), bench.lane.probe_at()), (SeqNo(4), Some(secs(500) + PROBE)));
    bench.lane.probe();
    bench.send().unwrap();
    bench.acknowledge(&ack(4, 4, Answer::Applied));
    assert!(bench.lane.is_empty());
    assert_eq!((bench.lane.probe_at(), bench.spool.usage().bytes), (None, 0));
}

#[test]
fn what_was_acknowledged_before_the_store_went_back_is_confirmed_anew() {
    let mut bench = with_retained(3);
    bench.now = secs(100);
    bench.lane.entries.pop_back();
    bench.lane.last = SeqNo(3);
    (bench.lane.events_held, bench.lane.events_offered) = (6, 6);
    bench.lane.probe();
    bench.send().unwrap();
    assert_eq!(bench.acknowledge(&ack(1, 1, Answer::Applied)), Progress::Rewound);
    assert_eq!(bench.lane.base(), SeqNo(2), "the first was there all the time");
    for seq in 2..=3 {
        assert_eq!(bench.batch().seq, SeqNo(seq));
        bench.acknowledge(&ack(seq, seq, Answer::Applied));
    }
    assert_eq!(bench.lane.probe_at(), Some(secs(100) + CONFIRM), "their own acknowledgement is the new one");
}

#[test]
fn answers_that_cannot_be_move_nothing() {
    for (applied, answer, expected) in [
        (9, Answer::Applied, Progress::ProtocolViolation),
        (9, Answer::Duplicate, Progress::ProtocolViolation),
        (9, Answer::Nak, Progress::ProtocolViolation),
        (u64::MAX, Answer::Applied, Progress::ProtocolViolation),
        (1, Answer::Applied, Progress::ProtocolViolation),
        (2, Answer::Nak, Progress::Later),
        (3, Answer::Nak, Progress::Later),
    ] {
        let mut bench = with_retained(2);
        let sent = bench.send().unwrap();
        assert_eq!(bench.acknowledge(&ack(applied, applied, answer)), expected, "{answer:?} {applied}");
        assert_eq!(bench.send().unwrap(), sent);
    }
    for answer in [Answer::Duplicate, Answer::Nak] {
        let mut bench = with_retained(2);
        bench.lane.probe();
        let sent = bench.send().unwrap();
        assert_eq!(
            bench.acknowledge(&ack(2, 2, answer)),
            Progress::ProtocolViolation,
            "no answer to a probe"
        );
        assert_eq!(bench.send().unwrap(), sent);
    }
}

fn lane_of(batches: Vec<RecoveredBatch>) -> RecoveredLane {
    RecoveredLane { applied: SeqNo::NONE, batches, ..RecoveredLane::default() }
}

fn found(seq: u64, events_before: u64, events: u64, taken_at: Timestamp) -> RecoveredBatch {
    let (seq, locations) = (SeqNo(seq), Vec::new());
    RecoveredBatch {
        seq,
        events_before,
        blocks: 0,
        events,
        lost: std::collections::BTreeMap::new(),
        taken_at,
        locations,
    }
}

#[test]
fn a_lane_of_an_earlier_run_asks_first() {
    let batches: Vec<_> = (3..=5).map(|seq| found(seq, seq * 10, 10, at(secs(0)).time)).collect();
    let known = RecoveredLane { applied: SeqNo(4), batches: batches.clone(), ..RecoveredLane::default() };
    assert_eq!(Lane::recovered(key(), bounds(1), known, at(secs(0))).unapplied().events, 10);
    let mut bench = Bench::new(1);
    bench.lane = Lane::recovered(key(), bounds(1), lane_of(batches), at(secs(0)));
    assert!(bench.lane.is_replaying() && !bench.lane.is_applied());
    let Some(OutgoingMessage::Probe(probe)) = bench.send() else { panic!() };
    assert_eq!((probe.base, probe.events_before), (SeqNo(3), 30));
    assert_eq!(bench.acknowledge(&ack(4, 4, Answer::Applied)), Progress::Applied(SeqNo(4)));
    assert_eq!(bench.batch().seq, SeqNo(5));
    bench.acknowledge(&ack(5, 5, Answer::Applied));
    assert_eq!(bench.lane.probe_at(), Some(CONFIRM));
    bench.now = CONFIRM;
    bench.lane.probe();
    bench.send().unwrap();
    bench.acknowledge(&ack(5, 5, Answer::Applied));
    assert!(bench.lane.is_empty());
}

#[test]
fn a_mark_beyond_what_was_found_of_a_lane_says_that_all_of_it_is_contained() {
    let mut bench = Bench::new(1);
    let batches = vec![found(3, 30, 10, at(secs(0)).time)];
    bench.lane = Lane::recovered(key(), bounds(1), lane_of(batches), at(secs(0)));
    bench.send().unwrap();
    assert_eq!(bench.acknowledge(&ack(9, 9, Answer::Applied)), Progress::Applied(SeqNo(3)));
    assert!(bench.lane.is_applied());
}

#[test]
fn what_is_too_old_is_never_sent_and_the_server_is_told() {
    let day = secs(24 * 3600);
    let taken = at(secs(0)).time.saturating_sub(day);
    let old = || vec![found(1, 0, 10, taken), found(2, 10, 10, taken.saturating_add(secs(1_000)))];
    let mut bench = Bench::new(1);
    bench.lane = Lane::recovered(key(), bounds(1), lane_of(old()), at(secs(0)));
    assert_eq!(bench.lane.expire(secs(0)).batches, 0);
    let released = bench.lane.expire(secs(500));
    assert_eq!((released.batches, released.events), (1, 10));
    let Some(OutgoingMessage::Probe(probe)) = bench.send() else { panic!() };
    assert_eq!((probe.base, probe.events_before), (SeqNo(2), 10));
    bench.acknowledge(&ack(1, 0, Answer::Applied));
    assert_eq!(bench.batch().seq, SeqNo(2));
    assert_eq!(bench.lane.expire(secs(2_000)).batches, 0, "it is in in_flight");
    bench.lane.give_back();
    assert_eq!(bench.lane.expire(secs(2_000)).events, 10);
    let Some(OutgoingMessage::Probe(probe)) = bench.send() else {
        panic!("a lane that is left empty still has to say it")
    };
    assert_eq!((probe.base, probe.events_before), (SeqNo(3), 20));
    // The loss is kept like a Batch: told again when the store goes back, until it is confirmed.
    bench.now = secs(2_000);
    bench.acknowledge(&ack(2, 0, Answer::Applied));
    assert!(!bench.lane.is_empty());
    bench.now = bench.lane.probe_at().unwrap();
    assert_eq!(bench.now, secs(2_000) + CONFIRM);
    bench.lane.probe();
    bench.send().unwrap();
    bench.acknowledge(&ack(2, 2, Answer::Applied));
    assert!(bench.lane.is_empty() && bench.lane.next().is_none());

    // After much longer its mark may be gone, and saying anything would count all of the Lane as lost.
    let long_ago = vec![found(1, 0, 10, taken.saturating_sub(secs(7 * 3600)))];
    let mut lane = Lane::recovered(key(), bounds(1), lane_of(long_ago.clone()), at(secs(0)));
    assert_eq!(lane.expire(secs(0)).events, 10);
    assert!(lane.is_empty() && lane.next().is_none());
    // What is known to be stored is not lost.
    let known = RecoveredLane { applied: SeqNo(1), batches: long_ago, ..RecoveredLane::default() };
    let mut lane = Lane::recovered(key(), bounds(1), known, at(secs(0)));
    assert_eq!((lane.expire(secs(0)).events, lane.is_empty()), (10, true));

    // What is from the future is held back, and counts as taken when that is found to have been a wrong clock.
    let ahead = vec![found(1, 0, 10, at(secs(0)).time.saturating_add(365 * day))];
    let mut lane = Lane::recovered(key(), bounds(1), lane_of(ahead), at(secs(0)));
    assert!(lane.is_misdated(secs(0)) && lane.ahead(secs(0)) == Some((365 * day).as_micros() as i64));
    lane.recompute_ages(at(secs(0)), (365 * day).as_micros() as i64);
    assert!(!lane.is_misdated(secs(0)));
    assert_eq!(lane.expire(day).batches, 0);
    assert_eq!(lane.expire(day + secs(1)).batches, 1);
}

#[test]
fn what_no_server_can_have_does_not_get_too_old() {
    let day = secs(24 * 3600);
    let of = |sending| RecoveredLane {
        sending,
        ..lane_of(vec![found(1, 0, 10, at(secs(0)).time.saturating_sub(9 * day))])
    };
    let recovered = |sending| Lane::recovered(key(), bounds(1), of(sending), at(secs(0)));
    assert!(recovered(Sending::Unknown).is_misdated(secs(0)));
    assert_eq!(recovered(Sending::Unknown).expire(secs(0)).batches, 1);
    let since = |age| recovered(Sending::Since(at(secs(0)).time.saturating_sub(age)));
    assert_eq!([since(2 * day).expire(secs(0)).batches, since(day).expire(secs(0)).batches], [1, 0]);
    assert_eq!(since(day).expire(secs(1)).batches, 1);
    let mut lane = recovered(Sending::Never);
    assert!(!lane.is_misdated(secs(0)));
    assert_eq!(lane.expire(9 * day).batches, 0);
    // From the first message on it has an age.
    assert!(matches!(lane.send(at(9 * day)), Some(OutgoingMessage::Probe(_))));
    lane.give_back();
    assert_eq!(lane.expire(10 * day).batches, 0);
    assert_eq!(lane.expire(10 * day + secs(1)).batches, 1);
    // What was turned away before anything of it was taken was not sent.
    let mut bench = Bench::new(1);
    bench.offer(&[block(1)]);
    bench.send().unwrap();
    bench.lane.turned_away();
    assert_eq!(bench.lane.expire(9 * day).batches, 0);
    bench.send().unwrap();
    bench.lane.give_back();
    assert_eq!(bench.lane.expire(9 * day).batches, 1);
}

#[test]
fn a_loss_of_what_was_never_sent_is_told_and_that_is_believed() {
    let mut bench = with_retained(1);
    bench.now = secs(25 * 3600);
    assert_eq!(bench.lane.expire(bench.now).batches, 2);
    let Some(OutgoingMessage::Probe(probe)) = bench.send() else { panic!("it has a loss to tell") };
    assert_eq!(probe.base, SeqNo(3));
    assert_eq!(bench.acknowledge(&ack(2, 0, Answer::Applied)), Progress::Applied(SeqNo(2)));
}

#[test]
fn when_room_is_needed_what_is_stable_goes_early() {
    let mut bench = with_retained(3);
    let location = |seq: usize| bench.lane.entries[seq - 1].locations[0].segment;
    assert_eq!((location(1), location(3)), (SegmentId(0), SegmentId(0)));
    assert_eq!(
        bench.lane.release_stable(SegmentId(0)),
        ReleasedBatches::default(),
        "nothing is known to be stable"
    );
    bench.batch();
    bench.acknowledge(&ack(4, 2, Answer::Applied));
    assert_eq!(bench.lane.release_stable(SegmentId(1)).batches, 0, "nothing of it stands there");
    assert_eq!(bench.lane.release_stable(SegmentId(0)).batches, 2);
    assert_eq!(bench.lane.base(), SeqNo(3));
}

#[test]
fn what_was_never_sent_can_be_replaced() {
    let mut bench = Bench::new(60);
    bench.offer(&(0..6).map(block).collect::<Vec<_>>());
    let first = decoded(&bench.batch()).blocks;
    bench.now = secs(9);
    assert!(bench.lane.wants_merge(secs(9), 0) && !bench.lane.wants_merge(secs(9), 1_000_000));
    let unsent = bench.lane.unsent().unwrap();
    assert_eq!([first.clone(), unsent.clone()].concat(), (0..6).map(block).collect::<Vec<_>>());
    let mut one = block(1);
    one.events = unsent.iter().map(|block| block.events).sum();
    let (_, fragments) = bench.lane.plan_unsent(std::slice::from_ref(&one));
    let record =
        Record::Merge { stream: key().stream, taken_at: Timestamp::default(), fragments: &fragments };
    let written = bench.spool.append(&record).unwrap();
    let events = bench.lane.events_held();
    let before = bench.lane.replace_unsent(fragments.into_iter().zip(written.locations), written.position);
    bench.spool.release(&before);
    assert_eq!(bench.lane.events_held(), events);
    assert_eq!(bench.send(), None, "the first is still in in_flight");
    bench.acknowledge(&ack(1, 0, Answer::Applied));
    let second = decoded(&bench.batch());
    assert_eq!((second.seq, second.blocks), (SeqNo(2), vec![one]));
    assert_eq!(second.events_before, first.iter().map(|block| block.events).sum::<u64>());
    assert_eq!(bench.lane.unsent().unwrap(), []);
}

#[derive(Clone, Copy, Debug)]
enum LaneStep {
    Offer,
    /// The message is delivered, and the answer arrives, or not.
    Send {
        answered: bool,
    },
    /// The request is lost.
    Lose,
    /// An old copy of any message ever sent arrives late.
    Late(usize),
    Pass(u64),
    /// Another commit reaches the replica.
    Replicate,
    /// The replica takes over.
    FailOver,
    /// The Agent is killed and started again.
    Restart,
}

fn step() -> impl Strategy<Value = LaneStep> {
    prop_oneof![
        3 => Just(LaneStep::Offer),
        6 => any::<bool>().prop_map(|answered| LaneStep::Send { answered }),
        1 => Just(LaneStep::Lose),
        1 => any::<usize>().prop_map(LaneStep::Late),
        2 => (0_u64..40).prop_map(LaneStep::Pass),
        3 => Just(LaneStep::Replicate),
        1 => Just(LaneStep::FailOver),
        1 => Just(LaneStep::Restart),
    ]
}

/// A store that keeps the rule of Lanes: what it holds is exactly the Blocks of Batches 1 to `mark`, those of counted
/// gaps excepted.
#[derive(Clone, Debug, Default, PartialEq)]
struct LaneModel {
    mark: u64,
    mark_events: u64,
    blocks: Vec<usize>,
    folded: u64,
    lost: u64,
}

impl LaneModel {
    fn take(&mut self, message: &OutgoingMessage) -> (u64, Answer) {
        let batch = match message {
            OutgoingMessage::Batch(batch) => decoded(batch),
            OutgoingMessage::Probe(probe) => {
                if probe.base.0 > self.mark + 1 {
                    self.lost += probe.events_before - self.mark_events;
                    (self.mark, self.mark_events) = (probe.base.0 - 1, probe.events_before);
                }
                return (self.mark, Answer::Applied);
            }
        };
        if batch.seq.0 <= self.mark {
            return (self.mark, Answer::Duplicate);
        }
        if batch.seq.0 > self.mark + 1 {
            if batch.seq != batch.base {
                return (self.mark, Answer::Nak);
            }
            self.lost += batch.events_before - self.mark_events;
        }
        self.mark = batch.seq.0;
        self.mark_events = batch.events_before + batch.events();
        self.folded += batch.events();
        self.blocks
            .extend(batch.blocks.iter().map(|block| block.tab.as_str()[3..].parse::<usize>().unwrap()));
        (self.mark, Answer::Applied)
    }
}

/// The primary, and the replica that lags.
struct World {
    bench: Bench,
    /// Every commit of the primary, from the one that the replica has.
    history: Vec<LaneModel>,
    sent: Vec<OutgoingMessage>,
    offers: usize,
    offered: u64,
}

impl World {
    fn primary(&self) -> &LaneModel {
        &self.history[self.history.len() - 1]
    }

    fn deliver(&mut self, message: &OutgoingMessage) -> Ack {
        let mut store = self.primary().clone();
        let (applied, answer) = store.take(message);
        if answer == Answer::Applied {
            self.history.push(store);
        }
        ack(applied, applied.min(self.history[0].mark), answer)
    }

    /// Sends one message, and hears the answer or not. Breaks when there is nothing to send.
    fn send(&mut self, answered: bool) -> ControlFlow<()> {
        let now = self.bench.now;
        if self.bench.lane.next().is_none() && self.bench.lane.probe_at().is_some_and(|at| at <= now) {
            self.bench.lane.probe();
        }
        let Some(message) = self.bench.send() else { return ControlFlow::Break(()) };
        let ack = self.deliver(&message);
        self.sent.push(message);
        if answered {
            self.bench.acknowledge(&ack);
        } else {
            self.bench.lane.give_back();
        }
        self.audit();
        ControlFlow::Continue(())
    }

    /// What the Agent has released is on the replica, whenever it takes over.
    fn audit(&self) {
        let base = self.bench.lane.base().0;
        assert!(
            base <= self.history[0].mark + 1,
            "{base} is released, and the replica has {}",
            self.history[0].mark
        );
        assert_eq!(self.primary().lost, 0, "nothing is lost that was retained");
    }

    fn step(&mut self, step: LaneStep) {
        match step {
            LaneStep::Offer => {
                self.offers += 1;
                self.offered += block(self.offers).events;
                self.bench.offer(&[block(self.offers)]);
            }
            LaneStep::Send { answered } => drop(self.send(answered)),
            LaneStep::Lose => {
                if self.bench.send().is_some() {
                    self.bench.lane.give_back();
                }
            }
            LaneStep::Late(which) => {
                if !self.sent.is_empty() {
                    let message = self.sent[which % self.sent.len()].clone();
                    self.deliver(&message);
                }
            }
            LaneStep::Pass(by) => self.bench.now += secs(by),
            LaneStep::Replicate => {
                if self.history.len() > 1 {
                    self.history.remove(0);
                }
            }
            LaneStep::FailOver => self.history.truncate(1),
            LaneStep::Restart => self.bench.lane.sent_through = self.bench.lane.last,
        }
        if matches!(step, LaneStep::Restart) {
            let lane = &mut self.bench.lane;
            // What a restart leaves of a Lane: its Batches, closed, and nothing of what was heard.
            lane.entries.iter_mut().for_each(|entry| {
                entry.close();
                entry.acked_at = None;
            });
            (lane.cursor, lane.in_flight, lane.stable) = (lane.base(), None, SeqNo::NONE);
            lane.must_probe = !lane.entries.is_empty();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// However messages are lost, repeated and delayed, and whenever a replica that lags takes over: at every moment the
    /// replica and what is retained together have everything, and in the end the store has every event once.
    #[test]
    fn every_event_is_stored_once(steps in prop::collection::vec(step(), 0..120)) {
        let history = vec![LaneModel::default()];
        let mut world = World { bench: Bench::new(1), history, sent: Vec::new(), offers: 0, offered: 0 };
        for step in steps {
            world.step(step);
            world.audit();
        }
        world.step(LaneStep::Offer);
        for round in 0.. {
            prop_assert!(round < 10_000, "does not drain: {:?}", world.bench.lane);
            world.history.drain(..world.history.len() - 1);
            if world.send(true).is_break() {
                if world.bench.lane.is_empty() { break }
                world.bench.now = world.bench.lane.probe_at().expect("it waits for something");
            }
        }
        let store = world.primary();
        prop_assert_eq!((store.folded, store.lost), (world.offered, 0));
        prop_assert_eq!(&store.blocks, &(1..=world.offers).collect::<Vec<_>>(), "in order and once");
        prop_assert_eq!(world.bench.spool.usage().bytes, 0, "everything was released");
    }
}
