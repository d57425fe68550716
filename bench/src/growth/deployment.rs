//! [`Deployment`]: a Server in this process on real Redis processes, and the requests that its Agents send.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use futures::future::join_all;
use taba_core::wire::{Answer, Block, Compression, Frame, Kind, LaneBatch, Lanes, decode_acks};
use taba_core::{ClientId, Events, SeqNo, StreamId, TabName, TabType, VBucket, VBuckets, ledger};
use taba_server::{Server, system_clock};
use taba_shard::{Bootstrap, ShardUrl, ShardedRedis, ShardsOptions};
use taba_tests::redis::{Options, Redis};
use tower::ServiceExt;

use super::{Costs, Measure, Size};
use crate::{allocations, cpu_seconds, redis_cpu_seconds};

/// Clients that flush at a time, at most, and Tabs of each that had an event.
const FLUSHES: usize = 50;
const FLUSHED_TABS: usize = 20;
/// Blocks of one request while the States are made.
const FILL_BLOCKS: usize = 4_000;
/// The queries, each with the word under which it is printed. The second finds ten Tabs.
const QUERIES: [(&str, &str); 5] = [
    ("one Tab", "/v2/tabs?name="),
    ("an expression for 10 Tabs", "/v2/tabs?re=true&name=tab-000000.*"),
    ("one account", "/v2/ledger?client=client-00000"),
    ("totals", "/v2/ledger?totals=true"),
    ("metrics", "/metrics"),
];

/// How many Batches and events a Lane has had.
#[derive(Clone, Copy, Debug, Default)]
struct LaneCount {
    batches: u64,
    events: u64,
}

/// What has been used so far.
#[derive(Clone, Copy, Debug)]
struct Used([f64; 7]);

impl Used {
    const QUANTITIES: [&'static str; 7] = [
        Measure::CPU,
        "allocations",
        "bytes from Agents",
        "commands to Redis",
        "bytes to Redis",
        "bytes from Redis",
        "Redis CPU ms",
    ];
}

/// A Server on Redis processes of its own, with a State for each Tab of each Client.
#[derive(Debug)]
pub struct Deployment {
    size: Size,
    redis: Vec<Redis>,
    server: Server,
    router: Router,
    vbuckets: VBuckets,
    lanes: BTreeMap<(usize, VBucket), LaneCount>,
    bytes_from_agents: usize,
    flushes: usize,
}

impl Deployment {
    /// What is of no interest: of updates, what Redis says to a Server that is idle too; of a query, what it does not do.
    const ASIDE: [&str; 3] = ["bytes from Agents", "bytes to Redis", "Redis CPU ms"];
    const UPDATED_ASIDE: &str = "bytes from Redis";

    /// Starts it, and makes its States.
    ///
    /// # Panics
    /// When there is no `redis-server`, or the size is none that a deployment may have.
    pub async fn start(size: Size) -> Self {
        let redis = Redis::start_many(size.redis, &Options::default());
        let urls = redis.iter().map(|redis| ShardUrl::new(&redis.url()).expect("a URL")).collect();
        let vbuckets = VBuckets::new(size.vbuckets as u32).expect("a power of two");
        let mut options = ShardsOptions::default();
        (options.vbuckets, options.bootstrap) = (vbuckets, Bootstrap::IfEmpty);
        let store = ShardedRedis::connect(urls, options).await.expect("Redis of our own");
        let handlers = taba_handlers::standard().build().expect("the standard types have different names");
        let builder = Server::builder().store(store).handlers(handlers);
        let server = builder.commit_interval(Duration::from_millis(1)).build().expect("it has all it needs");
        let router = server.router();
        let (lanes, bytes_from_agents) = (BTreeMap::new(), 0);
        let mut deployment =
            Self { size, redis, server, router, vbuckets, lanes, bytes_from_agents, flushes: 0 };
        let tabs_each = size.tabs.min(FILL_BLOCKS);
        let clients_each = FILL_BLOCKS / tabs_each;
        for clients in chunks(size.clients, clients_each) {
            for tabs in chunks(size.tabs, tabs_each) {
                deployment.flush(clients.clone().map(|client| (client, tabs.clone()))).await;
            }
        }
        deployment
    }

    /// What 1,000 State updates cost, of `updates` that are measured, and each query, `repeated`; a commit is before each query.
    pub async fn costs(&mut self, updates: usize, repeated: usize) -> Costs {
        self.update().await;
        let (before, mut done) = (self.used(), 0);
        while done < updates {
            done += self.update().await;
        }
        let mut costs = self.since(before, "1,000 State updates", done as f64 / 1e3);
        costs.retain(|(measure, _)| measure.quantity != Self::UPDATED_ASIDE);
        for (work, path) in QUERIES {
            let path =
                if path.ends_with("name=") { format!("{path}{}", self.tab(7)) } else { path.to_owned() };
            let mut all = Vec::new();
            for _ in 0..=repeated {
                self.update().await;
                let before = self.used();
                let (status, _) = self.answer(Request::get(&path), Body::empty()).await;
                assert_eq!(status, StatusCode::OK, "{path}");
                all.push(self.since(before, work, 1.0));
            }
            // Not the first, which also pays for what later ones find: names, and their expressions.
            let all = &mut all[1..];
            for place in 0..all[0].len() {
                all.sort_by(|a, b| a[place].1.total_cmp(&b[place].1));
                let median = all[all.len() / 2][place];
                costs.extend((!Self::ASIDE.contains(&median.0.quantity)).then_some(median));
            }
        }
        costs
    }

    /// Ends it.
    pub async fn stop(self) {
        let _ = self.server.shutdown(Duration::from_secs(10)).await;
    }

    fn used(&self) -> Used {
        let stat = |name: &str| -> f64 {
            let stat = |redis: &Redis| redis.info("stats", name).parse::<f64>().expect("a number");
            self.redis.iter().map(stat).sum()
        };
        Used([
            cpu_seconds() * 1e3,
            allocations() as f64,
            self.bytes_from_agents as f64,
            stat("total_commands_processed"),
            stat("total_net_input_bytes"),
            stat("total_net_output_bytes"),
            self.redis.iter().map(redis_cpu_seconds).sum::<f64>() * 1e3,
        ])
    }

    /// What was used since then, without what it takes to ask that.
    fn since(&self, before: Used, work: &'static str, divisor: f64) -> Costs {
        let (now, asked) = (self.used(), self.used());
        let of = |(place, quantity): (usize, &'static str)| {
            let [before, now, asked] = [before, now, asked].map(|used| used.0[place]);
            (Measure { work, quantity }, (now - before - (asked - now)).max(0.0) / divisor)
        };
        Used::QUANTITIES.into_iter().enumerate().map(of).collect()
    }

    fn tab(&self, n: usize) -> TabName {
        let mut name = TabName::builder(&format!("tab-{n:07}"));
        for label in 0..self.size.labels {
            name = name.label(&format!("key{label:02}"), &format!("value{}", (n + label) % 10));
        }
        name.build().expect("32 labels are allowed")
    }

    /// The next Clients flush some of their Tabs; answers how many States that updates.
    async fn update(&mut self) -> usize {
        let (clients, tabs) = (self.size.clients.min(FLUSHES), self.size.tabs.min(FLUSHED_TABS));
        let first = self.flushes;
        self.flushes += clients;
        let size = self.size;
        // Always other Tabs, in steps that meet all of them.
        let flush = |n: usize| {
            let from = (first + n) * 7_919 % (size.tabs - tabs + 1);
            ((first + n) % size.clients, from..from + tabs)
        };
        self.flush((0..clients).map(flush)).await;
        clients * tabs
    }

    /// These Clients flush an event of each of these Tabs, and their notes; their Agents send it, all at once.
    async fn flush(&mut self, flushes: impl Iterator<Item = (usize, Range<usize>)>) {
        let tab_type = TabType::new("CounterGroup").expect("a type name");
        let at = system_clock()();
        let mut blocks: BTreeMap<usize, BTreeMap<VBucket, Vec<Block>>> = BTreeMap::new();
        for (number, tabs) in flushes {
            let client = ClientId::new(&format!("client-{number:05}")).expect("a client id");
            let lanes = blocks.entry(number % self.size.agents).or_default();
            let note = Block::note(ledger::tab(ledger::RECORDED), client.clone(), at, tabs.len() as u64);
            lanes.entry(self.vbuckets.of_client(&client)).or_default().push(note);
            for tab in tabs.map(|tab| self.tab(tab)) {
                let vbucket = self.vbuckets.of(&tab);
                let (times, values) = ([at], [17.0]);
                let events = Events::new(&times, &values);
                let block = Block::of_events(tab, client.clone(), tab_type.clone(), events);
                lanes.entry(vbucket).or_default().extend(block);
            }
        }
        let mut requests = Vec::new();
        for (agent, lanes) in blocks {
            let lanes =
                lanes.into_iter().map(|(vbucket, blocks)| self.batch(agent, vbucket, blocks)).collect();
            let message = Lanes::new(at, lanes).encode();
            requests.push(Frame::encode(Kind::Lanes, &message, Compression::Lz4));
        }
        self.bytes_from_agents += requests.iter().map(Vec::len).sum::<usize>();
        join_all(requests.into_iter().map(|body| self.deliver(body))).await;
    }

    fn batch(&mut self, agent: usize, vbucket: VBucket, blocks: Vec<Block>) -> LaneBatch {
        let lane = self.lanes.entry((agent, vbucket)).or_default();
        let before = lane.events;
        lane.batches += 1;
        lane.events += blocks.iter().map(|block| block.events).sum::<u64>();
        LaneBatch::new(StreamId(agent as u64 + 1), vbucket.index(), SeqNo(lane.batches), before, blocks)
    }

    async fn deliver(&self, body: Vec<u8>) {
        let request = Request::post("/v2/lanes").header("content-type", "application/x-taba");
        let (status, body) = self.answer(request, Body::from(body)).await;
        assert_eq!(status, StatusCode::OK);
        let acks = Frame::decode(&body, Kind::Acks).expect("a frame").message;
        let acks = decode_acks(&acks).expect("acks");
        let is_done = acks.iter().all(|ack| ack.answer == Answer::Applied && ack.refused.is_empty());
        assert!(is_done, "all is committed");
    }

    async fn answer(&self, request: axum::http::request::Builder, body: Body) -> (StatusCode, Bytes) {
        let request = request.header("host", "localhost").body(body).expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("routers answer");
        let status = answer.status();
        (status, axum::body::to_bytes(answer.into_body(), usize::MAX).await.expect("a body in memory"))
    }
}

fn chunks(count: usize, each: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(each).map(move |from| from..count.min(from + each))
}
