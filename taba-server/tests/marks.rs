//! Marks of Streams that ended are collected; those of Streams that may yet come back are not, or what they send next
//! would be taken for what follows on a gap.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use taba_core::wire::{Answer, Block, LaneBatch};
use taba_core::{
    ClientId, Events, MemoryStore, SeqNo, Store, StreamId, TabName, TabType, Timestamp, VBuckets, Wanted,
};
use taba_server::Server;

static HOUR: AtomicI64 = AtomicI64::new(500_000);

fn now() -> Timestamp {
    Timestamp::from_secs(HOUR.load(Ordering::Relaxed) * 3600)
}

fn server(store: &Arc<MemoryStore>) -> Server {
    let handlers = taba_handlers::standard().build().unwrap();
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(store);
    Server::builder().shared_store(store).handlers(handlers).clock(Arc::new(now)).build().unwrap()
}

fn batch(stream: u64, seq: u64, events_before: u64) -> LaneBatch {
    let tab = TabName::new("hits").unwrap();
    let vbucket = VBuckets::default().of(&tab).index();
    let (client, tab_type) = (ClientId::new("web").unwrap(), TabType::new("TotalsCounter").unwrap());
    let times = [now(); 3];
    let block = Block::of_events(tab, client, tab_type, Events::new(&times, &[1.0; 3])).unwrap();
    let (stream, seq) = (StreamId(stream), SeqNo(seq));
    LaneBatch { stream, vbucket, seq, base: seq, events_before, blocks: vec![block] }
}

async fn send(server: &Server, batch: LaneBatch) {
    assert_eq!(server.ingest(vec![batch]).await[0].answer, Answer::Applied);
}

#[tokio::test]
async fn a_stream_that_was_quiet_for_days_goes_on_where_it_was() {
    let store = Arc::new(MemoryStore::default());
    send(&server(&store), batch(1, 1, 0)).await;

    // Two days later another Server, which has never heard of the Stream, commits for somebody else first.
    HOUR.fetch_add(50, Ordering::Relaxed);
    let later = server(&store);
    send(&later, batch(2, 1, 0)).await;
    send(&later, batch(1, 2, 3)).await;
    assert_eq!(later.status().report().events_gap, 0, "nothing was lost");

    // When a Server that has been up all the while has heard nothing for two days, the mark goes.
    HOUR.fetch_add(50, Ordering::Relaxed);
    send(&later, batch(3, 1, 0)).await;
    let vbucket = VBuckets::default().of(&TabName::new("hits").unwrap());
    let marks = store.load(vbucket, &Wanted::default()).await.unwrap().marks;
    assert_eq!(marks.iter().map(|(stream, _)| *stream).collect::<Vec<_>>(), [StreamId(3)]);
}
