use proptest::prelude::*;
use taba_core::wire::{LaneBatch, Reader};
use taba_core::{ClientId, Events, TabName, TabType, Timestamp, VBuckets};

use super::*;

const NOW: Duration = Duration::ZERO;

fn lane(batch_bytes_max: usize) -> Lane {
    Lane::new(StreamId(7), VBuckets::default().get(3).unwrap(), batch_bytes_max)
}

/// A Block whose Tab says which one it is.
fn block(number: usize) -> Block {
    let tab = TabName::new(&format!("tab{number}")).unwrap();
    let (client, tab_type) = (ClientId::new("web").unwrap(), TabType::new("TotalsCounter").unwrap());
    let times = vec![Timestamp::from_secs(1); 1 + number % 3];
    Block::of_events(tab, client, tab_type, Events::new(&times, &vec![1.0; times.len()])).unwrap()
}

fn decoded(outgoing: &Outgoing) -> LaneBatch {
    let mut bytes = Vec::new();
    outgoing.encode(&mut bytes);
    assert!(bytes.len() <= outgoing.bytes());
    let source = Bytes::from(bytes);
    let mut reader = Reader::new(&source);
    let batch = LaneBatch::decode(&mut reader, &source).unwrap();
    reader.finish("test").unwrap();
    batch
}

fn ack(applied: u64, answer: Answer) -> Ack {
    Ack {
        stream: StreamId(7),
        vbucket: 3,
        applied: SeqNo(applied),
        stable: SeqNo::NONE,
        answer,
        refused: Vec::new(),
    }
}

/// A Lane with Batches 1 to `sealed` acknowledged and retained, and one more Block to send.
fn with_retained(sealed: u64) -> Lane {
    let mut lane = lane(1);
    for seq in 1..=sealed {
        lane.offer(NOW, &block(seq as usize));
        assert_eq!(lane.send().unwrap().seq, SeqNo(seq));
        assert_eq!(lane.acknowledge(&ack(seq, Answer::Applied)), Progress::Applied(SeqNo(seq)));
    }
    lane.offer(NOW, &block(sealed as usize + 1));
    lane
}

#[test]
fn what_is_sent_is_what_the_core_reads() {
    let mut lane = lane(10_000);
    let blocks: Vec<_> = (0..5).map(block).collect();
    blocks.iter().for_each(|block| lane.offer(NOW, block));
    let note = Block { tab: TabName::new("taba.recorded").unwrap(), ..block(0) };
    lane.offer(NOW, &note);
    let bytes = lane.next_bytes().unwrap();
    let outgoing = lane.send().unwrap();
    assert_eq!(outgoing.bytes(), bytes);
    let batch = decoded(&outgoing);
    assert_eq!(batch.blocks[..5], blocks);
    assert_eq!((batch.seq, batch.base, batch.events_before), (SeqNo(1), SeqNo(1), 0));
    let mut encoded = Vec::new();
    batch.encode(&mut encoded);
    let mut ours = Vec::new();
    outgoing.encode(&mut ours);
    assert_eq!(encoded, ours);

    lane.acknowledge(&ack(1, Answer::Applied));
    assert_eq!(lane.release(SeqNo(1)), lane_weight(&blocks).plus(Weight::of(&note)));
    lane.offer(NOW, &block(9));
    let second = decoded(&lane.send().unwrap());
    assert_eq!((second.seq, second.base), (SeqNo(2), SeqNo(2)));
    assert_eq!(second.events_before, batch.events(), "the Ledger's own events are not counted");
}

fn lane_weight(blocks: &[Block]) -> Weight {
    blocks.iter().map(Weight::of).sum()
}

#[test]
fn a_batch_is_cut_at_its_bounds_and_blocks_keep_their_order() {
    let mut lane = lane(usize::MAX);
    let blocks: Vec<_> = (0..2 * BATCH_BLOCKS_MAX + 1).map(block).collect();
    blocks.iter().for_each(|block| lane.offer(NOW, block));
    assert_eq!(lane.held(), lane_weight(&blocks));
    let mut sent = Vec::new();
    for seq in 1..=3 {
        sent.extend(decoded(&lane.send().unwrap()).blocks);
        lane.acknowledge(&ack(seq, Answer::Applied));
        lane.release(SeqNo(seq));
    }
    assert_eq!(sent, blocks);
    assert_eq!((lane.next_bytes(), lane.held()), (None, Weight::default()));
}

#[test]
fn one_batch_is_in_flight_and_repeated_as_it_was() {
    let mut lane = lane(1);
    lane.offer(NOW, &block(1));
    lane.offer(NOW, &block(2));
    let first = lane.send().unwrap();
    assert_eq!(lane.send(), None);
    lane.give_back();
    assert_eq!(lane.send().unwrap(), first);
    assert_eq!(lane.acknowledge(&ack(0, Answer::Busy)), Progress::Later);
    assert_eq!(lane.send().unwrap(), first);
    assert_eq!(lane.acknowledge(&ack(0, Answer::Unavailable)), Progress::Later);
    assert_eq!(lane.send().unwrap(), first);
    assert_eq!(lane.acknowledge(&ack(1, Answer::Duplicate)), Progress::Applied(SeqNo(1)));
    assert_eq!(lane.send().unwrap().seq, SeqNo(2));
}

#[test]
fn a_nak_rewinds_and_never_below_the_base() {
    let mut lane = with_retained(5);
    lane.release(SeqNo(2));
    assert_eq!(lane.send().unwrap().seq, SeqNo(6));
    assert_eq!(lane.acknowledge(&ack(4, Answer::Nak)), Progress::Rewound);
    let again = lane.send().unwrap();
    assert_eq!((again.seq, again.base), (SeqNo(5), SeqNo(3)));
    assert_eq!(
        lane.acknowledge(&ack(0, Answer::Nak)),
        Progress::Rewound,
        "the store went back behind the base"
    );
    let oldest = lane.send().unwrap();
    assert_eq!((oldest.seq, oldest.base), (SeqNo(3), SeqNo(3)));
    assert_eq!(lane.release(SeqNo(5)), Weight::default(), "what has to be sent again is not let go");
    assert_eq!(lane.acknowledge(&ack(6, Answer::Duplicate)), Progress::Applied(SeqNo(6)));
}

#[test]
fn answers_that_cannot_be_move_nothing() {
    for (applied, answer, expected) in [
        (9, Answer::Applied, Progress::Absurd),
        (9, Answer::Duplicate, Progress::Absurd),
        (9, Answer::Nak, Progress::Absurd),
        (u64::MAX, Answer::Applied, Progress::Absurd),
        (1, Answer::Applied, Progress::Absurd),
        (2, Answer::Nak, Progress::Later),
        (3, Answer::Nak, Progress::Later),
    ] {
        let mut lane = with_retained(2);
        let sent = lane.send().unwrap();
        assert_eq!(lane.acknowledge(&ack(applied, answer)), expected, "{answer:?} {applied}");
        assert_eq!(lane.send().unwrap(), sent);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Offer,
    /// The Batch is stored, and the answer arrives, or not.
    Send {
        answered: bool,
    },
    /// The request is lost.
    Lose,
    /// An old copy of any Batch ever sent arrives late.
    Late(usize),
    /// The store goes back to what it was this many commits ago.
    GoBack(usize),
    Release(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Offer),
        4 => any::<bool>().prop_map(|answered| Step::Send { answered }),
        1 => Just(Step::Lose),
        1 => any::<usize>().prop_map(Step::Late),
        1 => (0_usize..4).prop_map(Step::GoBack),
        1 => (0_u64..12).prop_map(Step::Release),
    ]
}

/// A store that keeps the rule of DESIGN section 6: what it holds is exactly the Blocks of Batches 1 to `mark`, those
/// of counted gaps excepted.
#[derive(Clone, Debug, Default)]
struct Model {
    mark: u64,
    mark_events: u64,
    blocks: Vec<usize>,
    folded: u64,
    lost: u64,
}

impl Model {
    fn take(&mut self, batch: &LaneBatch) -> Ack {
        if batch.seq.0 <= self.mark {
            return ack(self.mark, Answer::Duplicate);
        }
        if batch.seq.0 > self.mark + 1 {
            if batch.seq != batch.base {
                return ack(self.mark, Answer::Nak);
            }
            self.lost += batch.events_before - self.mark_events;
        }
        self.mark = batch.seq.0;
        self.mark_events = batch.events_before + batch.events();
        self.folded += batch.events();
        self.blocks
            .extend(batch.blocks.iter().map(|block| block.tab.as_str()[3..].parse::<usize>().unwrap()));
        ack(self.mark, Answer::Applied)
    }
}

proptest! {
    /// However messages are lost, repeated and delayed, and wherever the store goes back to: once all is healed, every
    /// event is folded once or counted as lost, and nothing is lost that was retained.
    #[test]
    fn every_event_is_stored_once_or_counted(steps in prop::collection::vec(step(), 0..60), retain in any::<bool>()) {
        let (mut lane, mut store) = (lane(1), Model::default());
        let mut history = vec![store.clone()];
        let (mut offered, mut offers) = (0, 0);
        let mut sent: Vec<LaneBatch> = Vec::new();
        for step in steps {
            match step {
                Step::Offer => {
                    offers += 1;
                    offered += block(offers).events;
                    lane.offer(NOW, &block(offers));
                }
                Step::Send { answered } => {
                    let Some(outgoing) = lane.send() else { continue };
                    sent.push(decoded(&outgoing));
                    let ack = store.take(&sent[sent.len() - 1]);
                    if answered { lane.acknowledge(&ack); } else { lane.give_back(); }
                }
                Step::Lose => if lane.send().is_some() { lane.give_back() },
                Step::Late(which) => if !sent.is_empty() { store.take(&sent[which % sent.len()]); },
                Step::GoBack(by) => {
                    let to = history.len().saturating_sub(1 + by);
                    history.truncate(to + 1);
                    store = history[to].clone();
                }
                Step::Release(through) => if !retain { lane.release(SeqNo(through)); },
            }
            if store.mark != history[history.len() - 1].mark {
                history.push(store.clone());
            }
        }
        // A last Block makes the Lane speak, so that it learns where the store is.
        offers += 1;
        offered += block(offers).events;
        lane.offer(NOW, &block(offers));
        for round in 0.. {
            prop_assert!(round < 1_000, "does not drain: {:?}", lane);
            let Some(outgoing) = lane.send() else { break };
            let ack = store.take(&decoded(&outgoing));
            lane.acknowledge(&ack);
        }
        prop_assert_eq!(store.folded + store.lost, offered);
        prop_assert!(store.blocks.is_sorted_by(|a, b| a < b), "in order and once");
        if retain {
            let all: Vec<_> = (1..=offers).collect();
            prop_assert_eq!(store.blocks, all, "nothing that was retained is lost");
        }
    }
}
