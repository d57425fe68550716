//! Marks of Streams that ended are collected; those of Streams that may yet go on are not, or what they send next would
//! be taken for what follows on a gap. One wrong clock, in whichever process and direction, makes no difference to that.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::sync::Arc;

use taba_core::wire::{Answer, Block, LaneBatch, Lanes, Probe};
use taba_core::{
    ClientId, Events, MemoryStore, SeqNo, Store, StreamId, TabName, TabType, Timestamp, VBucket, VBuckets,
    Wanted,
};
use taba_server::Server;
use taba_server::query::{Selection, ledger};

/// The hour in which all of this begins.
const START: i64 = 500_000;
/// More than marks are kept for.
const LONG: i64 = 49;
/// How long a Stream may at most be quiet and still send: as old as a Batch may be.
const DAY: i64 = 24;

fn hour(hours: i64) -> Timestamp {
    Timestamp::from_secs((START + hours) * 3600)
}

fn vbucket() -> VBucket {
    VBuckets::default().of(&TabName::new("hits").unwrap())
}

/// A store, and Servers whose clocks are set as a test wants.
struct Fleet {
    store: Arc<MemoryStore>,
}

impl Fleet {
    fn new() -> Self {
        Self { store: Arc::new(MemoryStore::default()) }
    }

    /// A Server that has just started; by its clock it is that many hours after the beginning.
    fn server(&self, hours: i64) -> Server {
        let handlers = taba_handlers::standard().build().unwrap();
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&self.store);
        let clock = Arc::new(move || hour(hours));
        Server::builder().shared_store(store).handlers(handlers).clock(clock).build().unwrap()
    }

    async fn streams(&self) -> Vec<u64> {
        let marks = self.store.load(vbucket(), &Wanted::default()).await.unwrap().marks;
        let mut streams: Vec<_> = marks.iter().map(|(stream, _)| stream.0).collect();
        streams.sort_unstable();
        streams
    }

    /// Nothing was lost, and `events` are in the States.
    async fn assert_exact(&self, events: u64) {
        let totals = ledger(self.server(0).query_state(), &Selection::default()).await.unwrap().totals;
        assert_eq!((totals.folded, totals.dropped_total()), (events, 0));
    }
}

/// Sends the next Batch of three events of a Stream, by a sender for whom it is that many hours after the beginning.
async fn send(server: &Server, stream: u64, seq: u64, hours: i64) -> Answer {
    let (client, tab_type) = (ClientId::new("web").unwrap(), TabType::new("TotalsCounter").unwrap());
    let times = [hour(hours); 3];
    let tab = TabName::new("hits").unwrap();
    let block = Block::of_events(tab, client, tab_type, Events::new(&times, &[1.0; 3])).unwrap();
    let (stream, seq, events_before) = (StreamId(stream), SeqNo(seq), 3 * (seq - 1));
    let vbucket = vbucket().index();
    // The base moves up with what is applied, so a mark that is missing shows as a gap, and not as a refusal.
    let batch = LaneBatch::new(stream, vbucket, seq, events_before, vec![block]);
    let lanes = Lanes::new(hour(hours), vec![batch]);
    server.ingest(lanes).await[0].answer
}

/// Stream 1 sends, is quiet for a day, and sends again. Meanwhile others send at a Server, and there or with them a
/// clock is wrong: `server` and `sender` tell by how much.
async fn quiet_for_a_day_beside_a_clock_that_is_wrong(server: i64, sender: i64) {
    let fleet = Fleet::new();
    for stream in 1..=3 {
        assert_eq!(send(&fleet.server(0), stream, 1, 0).await, Answer::Applied);
    }
    assert_eq!(send(&fleet.server(server), 1, 2, 0).await, Answer::Applied, "written by the wrong clock");
    assert_eq!(send(&fleet.server(0), 2, 2, sender).await, Answer::Applied);
    assert_eq!(send(&fleet.server(0), 3, 2, 0).await, Answer::Applied);
    for later in [1, DAY / 2, DAY] {
        let other = 10 + later as u64;
        // Those whose clocks are far apart begin no Lane.
        let begun = |clock: i64| if clock == 0 { Answer::Applied } else { Answer::Misdated };
        assert_eq!(send(&fleet.server(later + server), 100 + other, 1, later).await, begun(server));
        assert_eq!(send(&fleet.server(later), 200 + other, 1, later + sender).await, begun(sender));
        assert_eq!(send(&fleet.server(later), 300 + other, 1, later).await, Answer::Applied);
    }
    for stream in 1..=3 {
        assert_eq!(send(&fleet.server(DAY + server), stream, 3, DAY).await, Answer::Applied);
        assert_eq!(send(&fleet.server(DAY), stream, 3, DAY + sender).await, Answer::Duplicate);
        assert_eq!(send(&fleet.server(DAY), stream, 4, DAY + sender).await, Answer::Applied);
    }
    assert_eq!(fleet.streams().await.len(), 9, "nothing was collected");
    fleet.assert_exact(3 * (4 * 3 + 6)).await;
}

/// A Batch was stored, its sender never heard of it, was down for so long that the mark was collected, and comes back
/// with a clock that says that no time has passed: it thinks its Batch young.
#[tokio::test]
async fn a_lane_whose_mark_is_gone_is_not_begun_anew_by_a_sender_whose_clock_went_back() {
    let fleet = Fleet::new();
    assert_eq!(send(&fleet.server(0), 1, 1, 0).await, Answer::Applied);
    assert_eq!(send(&fleet.server(LONG), 2, 1, LONG).await, Answer::Applied);
    assert_eq!(fleet.streams().await, [2], "the mark is gone");
    assert_eq!(send(&fleet.server(LONG), 1, 1, 0).await, Answer::Misdated);
    let probe = Probe::new(StreamId(1), vbucket().index(), SeqNo(2), 3);
    let lanes = Lanes::new(hour(0), Vec::new()).with_probes(vec![probe]);
    assert_eq!(fleet.server(LONG).ingest(lanes).await[0].answer, Answer::Misdated);
    fleet.assert_exact(6).await;
}

#[tokio::test]
async fn a_server_whose_clock_is_days_ahead_collects_and_doubles_nothing() {
    quiet_for_a_day_beside_a_clock_that_is_wrong(LONG, 0).await;
    quiet_for_a_day_beside_a_clock_that_is_wrong(24 * 365 * 50, 0).await;
}

#[tokio::test]
async fn a_server_whose_clock_is_days_behind_collects_and_doubles_nothing() {
    quiet_for_a_day_beside_a_clock_that_is_wrong(-LONG, 0).await;
    quiet_for_a_day_beside_a_clock_that_is_wrong(-START, 0).await;
}

#[tokio::test]
async fn a_sender_whose_clock_is_days_ahead_collects_and_doubles_nothing() {
    quiet_for_a_day_beside_a_clock_that_is_wrong(0, LONG).await;
    quiet_for_a_day_beside_a_clock_that_is_wrong(0, 24 * 365 * 50).await;
}

#[tokio::test]
async fn a_sender_whose_clock_is_days_behind_collects_and_doubles_nothing() {
    quiet_for_a_day_beside_a_clock_that_is_wrong(0, -LONG).await;
    quiet_for_a_day_beside_a_clock_that_is_wrong(0, -START).await;
}

#[tokio::test]
async fn by_two_right_clocks_a_mark_goes_after_two_days() {
    let fleet = Fleet::new();
    send(&fleet.server(0), 1, 1, 0).await;
    send(&fleet.server(48), 2, 1, 48).await;
    assert_eq!(fleet.streams().await, [1, 2], "48 hours are not more than 48 hours");
    send(&fleet.server(LONG), 3, 1, LONG).await;
    assert_eq!(fleet.streams().await, [2, 3]);
    send(&fleet.server(LONG + 48), 4, 1, LONG + 48).await;
    assert_eq!(fleet.streams().await, [3, 4], "stream 3 is just 48 hours old");
}
