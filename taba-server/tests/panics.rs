//! A Handler that panics breaks the law of totality. It must not stop the Server, nor hold up its Lane for ever, nor
//! take anything with it that was counted.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use taba_core::ledger::Why;
use taba_core::wire::{Answer, Block, LaneBatch, Lanes, Refusal};
use taba_core::{
    ClientId, Event, Events, Handler, MemoryStore, SeqNo, StreamId, TabName, TabType, Timestamp, VBuckets,
};
use taba_server::Server;
use taba_server::query::{Selection, ledger};

/// Counts, and cannot stand the number 13.
struct Superstitious;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Count {
    n: u64,
}

impl Handler for Superstitious {
    type Value = f64;
    type State = Count;
    type Projection = Count;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Count, event: Event<&f64>) {
        state.n += 1;
        assert_ne!(*event.value, 13.0, "the deliberate fault");
    }
    fn merge(&self, into: &mut Count, other: &Count) {
        into.n += other.n;
    }
    fn project(&self, state: &Count, _: Timestamp) -> Count {
        state.clone()
    }
    fn aggregate(&self, into: &mut Count, other: &Count) {
        into.n += other.n;
    }
    fn encoded_bytes_max(&self) -> usize {
        10
    }
}

fn block(client: &str, values: &[f64]) -> Block {
    let times = vec![Timestamp::from_secs(1_795_371_115); values.len()];
    let (tab, client) = (TabName::new("doors").unwrap(), ClientId::new(client).unwrap());
    let tab_type = TabType::new("Superstitious").unwrap();
    Block::of_events(tab, client, tab_type, Events::new(&times, values)).unwrap()
}

fn batch(seq: u64, events_before: u64, blocks: Vec<Block>) -> LaneBatch {
    let vbucket = VBuckets::default().of(&TabName::new("doors").unwrap()).index();
    let (stream, seq) = (StreamId(1), SeqNo(seq));
    LaneBatch { stream, vbucket, seq, base: seq, events_before, blocks }
}

fn lanes(batches: Vec<LaneBatch>) -> Lanes {
    Lanes { sent_at: taba_server::system_clock()(), batches, ..Lanes::default() }
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_block_and_nothing_else() {
    let handlers = taba_handlers::standard().with("Superstitious", Superstitious).build().unwrap();
    let server = Server::builder().store(MemoryStore::default()).handlers(handlers).build().unwrap();
    let good = server.ingest(lanes(vec![batch(1, 0, vec![block("a", &[1.0, 2.0])])])).await;
    assert_eq!(good[0].answer, Answer::Applied);

    // The panic is in the middle of the Batch, and in the middle of its Block.
    let bad = batch(2, 2, vec![block("a", &[3.0]), block("b", &[4.0, 13.0, 5.0]), block("c", &[6.0])]);
    let first = server.ingest(lanes(vec![bad.clone()])).await;
    assert_eq!(first[0].answer, Answer::Unavailable, "nothing of it is stored");
    let again = server.ingest(lanes(vec![bad])).await;
    assert_eq!(again[0].answer, Answer::Applied);
    assert_eq!(again[0].refused, [Refusal { block: 1, why: Why::Undecodable, events: 3 }]);

    let after = server.ingest(lanes(vec![batch(3, 7, vec![block("b", &[7.0])])])).await;
    assert_eq!((after[0].answer, after[0].applied), (Answer::Applied, SeqNo(3)), "the Lane goes on");
    let accounts = ledger(server.query_state(), &Selection::default()).await.unwrap().accounts;
    let folded = |client: &str| accounts[&ClientId::new(client).unwrap()].folded;
    assert_eq!([folded("a"), folded("b"), folded("c")], [3, 1, 1]);
    assert_eq!(accounts[&ClientId::new("b").unwrap()].dropped[0].events, 3);
    let report = server.shutdown(Duration::from_secs(5)).await;
    assert_eq!(report.requests_unanswered, 0);
}
