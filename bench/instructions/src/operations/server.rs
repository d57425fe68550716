//! Commits of a VBucket, by its planner and a `MemoryStore`; queries, from the request to the bytes of the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use taba_core::limits::FUTURE_MICROS_MAX;
use taba_core::wire::{Answer, Block, Content, LaneBatch};
use taba_core::{
    Events, Handler, MemoryStore, Registry, SeqNo, Store, StreamId, TabName, Timestamp, VBucket, encode_state,
};
use taba_handlers::CounterGroup;
use taba_server::planner::{Env, IncomingMessage, Planner, PlannerAction, PlannerInput};
use taba_server::{Server, Status, Versions};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use super::{START, block, client_id, integer, tab, times};
use crate::measure::operation;

/// Tabs, and Clients of each, that are asked for.
const TABS: usize = 100;
const CLIENTS: usize = 30;

pub(super) fn all() {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime without threads");
    commits(&runtime);
    busy_commit(&runtime);
    queries(&runtime);
}

/// One Server's planners' surroundings, and its store.
struct Surroundings {
    store: Arc<MemoryStore>,
    handlers: Registry,
    versions: Versions,
    status: Status,
}

impl Surroundings {
    fn new() -> Self {
        let handlers = taba_handlers::standard().build().expect("the standard types have different names");
        Self { store: Arc::default(), handlers, versions: Versions::new(7), status: Status::default() }
    }

    /// Gives a planner the Batch, and does what it asks for until it has answered.
    async fn commit(&self, planner: &mut Planner<()>, batch: LaneBatch) {
        let now = Timestamp::from_secs(START + 10);
        let future_max = Duration::from_micros(FUTURE_MICROS_MAX as u64);
        let env = Env::new(&self.handlers, &self.versions, &self.status, now, future_max);
        let vbucket = self.store.vbuckets().get(batch.vbucket).expect("a vbucket of the store");
        let message = IncomingMessage::Batch(batch);
        let mut actions = Vec::new();
        planner.handle(
            PlannerInput::Message { ticket: (), message, arrived: now, sent_at: now },
            &env,
            &mut actions,
        );
        planner.handle(PlannerInput::Due, &env, &mut actions);
        while let Some(action) = actions.pop() {
            let input = match action {
                PlannerAction::Load(wanted) => PlannerInput::Loaded(Ok(self
                    .store
                    .load(vbucket, &wanted)
                    .await
                    .expect("it is in memory"))),
                PlannerAction::Commit(commit) => PlannerInput::Committed(Ok(self
                    .store
                    .commit(vbucket, commit)
                    .await
                    .expect("it is in memory"))),
                PlannerAction::Stabilise(version) => PlannerInput::Stabilised(version, Ok(())),
                PlannerAction::Answer((), ack) => {
                    assert!(ack.answer == Answer::Applied && ack.refused.is_empty(), "{ack:?}");
                    continue;
                }
                other => panic!("nothing is refused, and everything can be read: {other:?}"),
            };
            planner.handle(input, &env, &mut actions);
        }
    }
}

/// The Batch of that number: of each Block as many events.
fn batch(vbucket: VBucket, seq: u64, blocks: Vec<Block>) -> LaneBatch {
    let before = (seq - 1) * blocks.iter().map(|block| block.events).sum::<u64>();
    LaneBatch::new(StreamId(7), vbucket.index(), SeqNo(seq), before, blocks)
}

/// 100 Tabs of one VBucket with 10 raw events each.
fn events() -> Vec<Block> {
    (0..100).map(|n| block(tab(n), client_id(0), "CounterGroup", START, 10)).collect()
}

/// The same Tabs with a State of 10 events each, folded at the edge.
fn states() -> Vec<Block> {
    let values: Vec<_> = (0..10).map(integer).collect();
    let mut state = Default::default();
    CounterGroup::new().fold_all(&mut state, Events::new(&times(START, 10, 250), &values));
    let (version, bytes) = (CounterGroup::VERSION, Bytes::from(encode_state(&state)));
    let content = Content::State { version, bytes };
    events().into_iter().map(|block| block.with_content(content.clone())).collect()
}

fn commits(runtime: &Runtime) {
    for (name, blocks) in [("events", events()), ("states", states())] {
        let fresh = || (Surroundings::new(), Planner::default(), VBucketBatches::new(blocks.clone()));
        let committed = || {
            let (surroundings, mut planner, mut batches) = fresh();
            runtime.block_on(surroundings.commit(&mut planner, batches.next()));
            (surroundings, planner, batches)
        };
        let commit =
            |(surroundings, mut planner, mut batches): (Surroundings, Planner<()>, VBucketBatches)| {
                runtime.block_on(surroundings.commit(&mut planner, batches.next()));
                (surroundings, planner, batches)
            };
        operation(&format!("commit/100_{name}/new"), fresh, commit);
        operation(&format!("commit/100_{name}/packed"), committed, commit);
        operation(&format!("commit/100_{name}/cached"), || commit(committed()), commit);
        let without_cache = || {
            let (surroundings, _, batches) = committed();
            (surroundings, Planner::default(), batches)
        };
        operation(&format!("commit/100_{name}/loaded"), without_cache, commit);
    }
}

/// A commit of 100 States that hold a day of one event a second, each of which gets one more, folded at the edge.
fn busy_commit(runtime: &Runtime) {
    const DAY: usize = 86_400;
    let folded = |from_secs: i64, count: usize| -> Vec<Block> {
        let values: Vec<_> = (0..count).map(integer).collect();
        let mut state = Default::default();
        CounterGroup::new().fold_all(&mut state, Events::new(&times(from_secs, count, 1_000_000), &values));
        let content = Content::State { version: CounterGroup::VERSION, bytes: encode_state(&state).into() };
        let with_content = |n| {
            let block = block(tab(n), client_id(0), "CounterGroup", from_secs, 1);
            let mut block = block.with_content(content.clone());
            block.events = count as u64;
            block
        };
        (0..100).map(with_content).collect()
    };
    let (day, one) = (folded(START - DAY as i64, DAY), folded(START, 1));
    let vbucket = taba_core::VBuckets::default().get(0).expect("the first vbucket");
    let batch = |seq: u64| {
        let (before, blocks) = if seq == 1 { (0, &day) } else { (DAY as u64 + seq - 2, &one) };
        LaneBatch::new(StreamId(7), vbucket.index(), SeqNo(seq), 100 * before, blocks.clone())
    };
    let committed = || {
        let (surroundings, mut planner) = (Surroundings::new(), Planner::default());
        for seq in 1..=4 {
            runtime.block_on(surroundings.commit(&mut planner, batch(seq)));
        }
        (surroundings, planner, batch(5))
    };
    operation("commit/100_busy_states/cached", committed, |(surroundings, mut planner, batch)| {
        runtime.block_on(surroundings.commit(&mut planner, batch));
        (surroundings, planner)
    });
}

/// The Batches of one Lane, all with the same Blocks.
struct VBucketBatches {
    vbucket: VBucket,
    blocks: Vec<Block>,
    seq: u64,
}

impl VBucketBatches {
    fn new(blocks: Vec<Block>) -> Self {
        let vbucket = taba_core::VBuckets::default().get(0).expect("the first vbucket");
        Self { vbucket, blocks, seq: 0 }
    }

    fn next(&mut self) -> LaneBatch {
        self.seq += 1;
        batch(self.vbucket, self.seq, self.blocks.clone())
    }
}

/// A Server whose store has all Tabs of all Clients.
async fn server() -> Router {
    let surroundings = Surroundings::new();
    let vbuckets = surroundings.store.vbuckets();
    let blocks = |tab: &TabName| {
        (0..CLIENTS).map(|n| block(tab.clone(), client_id(n), "CounterGroup", START, 100)).collect()
    };
    let mut lanes = std::collections::BTreeMap::<u16, (Planner<()>, VBucketBatches)>::new();
    for tab in (0..TABS).map(tab) {
        let vbucket = vbuckets.of(&tab);
        let new = || (Planner::default(), VBucketBatches { vbucket, blocks: Vec::new(), seq: 0 });
        let (planner, batches) = lanes.entry(vbucket.index()).or_insert_with(new);
        batches.blocks = blocks(&tab);
        surroundings.commit(planner, batches.next()).await;
    }
    let clock = || Timestamp::from_secs(START + 10);
    let builder = Server::builder().shared_store(surroundings.store).handlers(surroundings.handlers);
    builder.clock(Arc::new(clock)).build().expect("it is given all it needs").router()
}

fn queries(runtime: &Runtime) {
    let router = runtime.block_on(server());
    let answer = async |path: &str| {
        let request = Request::get(path).header("host", "localhost").header("accept", "application/json");
        let request = request.body(Body::empty());
        let answer = router.clone().oneshot(request.expect("a request")).await.expect("routers answer");
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        to_bytes(answer.into_body(), usize::MAX).await.expect("a body in memory")
    };
    for (name, path) in [
        ("one_tab_of_30_clients", "/v2/tabs?name=bids_won;exchange%3Dx7"),
        ("100_tabs_of_30_clients", "/v2/tabs"),
        ("regular_expression_10_of_100_tabs", "/v2/tabs?re=true&name=bids_won;exchange%3Dx1."),
        ("projections_of_one_client", "/v2/projections?client=web-007.example"),
        ("super_of_one_client", "/v2/super?client=web-007.example"),
        ("names", "/v2/names"),
        ("clients", "/v2/clients"),
        ("ledger", "/v2/ledger"),
        ("metrics", "/metrics"),
    ] {
        operation(&format!("query/{name}"), || (), |()| runtime.block_on(answer(path)));
    }
}
