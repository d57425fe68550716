//! What queries ask of Redis: counted by Redis, so that it is the same on every machine.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::collections::BTreeMap;
use std::sync::Arc;

use taba_core::{Store, VBuckets};
use taba_server::Status;
use taba_server::query::{
    Pattern, QueryState, Selection, clients, delete, ledger, ledger_totals, names, spread_rules,
};
use taba_shard::{ShardUrl, ShardedRedis, ShardsOptions};
use taba_tests::redis::{Options, Redis};
use taba_tests::{Agent, Server, wait_until};

const CLIENTS: usize = 40;
const TABS: usize = 100;

/// What the Redis processes were asked since the last time, by command.
fn asked(redis: &[Redis]) -> BTreeMap<String, u64> {
    let mut asked = BTreeMap::new();
    for redis in redis {
        for line in redis.command(&["INFO", "commandstats"]).lines() {
            let Some((name, rest)) =
                line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls="))
            else {
                continue;
            };
            let calls: u64 = rest.split(',').next().unwrap().parse().unwrap();
            *asked.entry(name.to_owned()).or_default() += calls;
        }
        redis.command(&["CONFIG", "RESETSTAT"]);
    }
    asked.retain(|name, _| !["info", "config|resetstat"].contains(&name.as_str()));
    asked
}

fn fill(redis: &[Redis]) {
    let urls: Vec<String> = redis.iter().map(Redis::url).collect();
    let server = Server::on_redis(&urls.join(","), &["--commit-interval=10ms"]);
    let agent = Agent::of(&server.url(), &[]);
    for client in 0..CLIENTS {
        let line = |tab| format!("{{\"tab\":\"tab{tab:03}\",\"value\":1}}\n");
        let url = format!("{}/v2/record?client=host-{client:02}", agent.url());
        ureq::post(&url)
            .content_type("application/x-ndjson")
            .send((0..TABS).map(line).collect::<String>())
            .unwrap();
    }
    let folded = || server.get("/v2/ledger?totals=true")["totals"]["folded"] == (CLIENTS * TABS) as u64;
    wait_until("all is folded", folded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reads_all_vbuckets_asks_for_each_once_and_runs_no_script() {
    let redis = Redis::start_many(2, &Options::default());
    tokio::task::block_in_place(|| fill(&redis));
    let urls = redis.iter().map(|redis| redis.url().parse::<ShardUrl>().unwrap()).collect();
    let mut options = ShardsOptions::default();
    options.vbuckets = VBuckets::new(64).unwrap();
    let store = Arc::new(ShardedRedis::connect(urls, options).await.unwrap());
    let vbuckets = u64::from(store.vbuckets().count());
    let handlers = taba_handlers::standard().build().unwrap();
    let state = QueryState::new(store, handlers, taba_server::system_clock(), Arc::new(Status::default()));
    let once = || BTreeMap::from([("hmget".to_owned(), vbuckets)]);
    let everything = Selection::default();
    let some = Selection::default().name_pattern(Pattern::new("tab00.", 1 << 20).unwrap());
    // Names of Tabs, and how many Clients a VBucket has, are known from then on.
    assert_eq!(names(&state, &some).await.unwrap().value.len(), 10);
    assert_eq!(clients(&state, &everything).await.unwrap().value.len(), CLIENTS);
    spread_rules(&state).await.unwrap();
    asked(&redis);

    let totals = ledger_totals(&state).await.unwrap().totals;
    assert_eq!((totals.folded, totals.in_flight), ((CLIENTS * TABS) as u64, Some(0)));
    assert_eq!(asked(&redis), once(), "totals");
    assert_eq!(names(&state, &some).await.unwrap().value.len(), 10);
    assert_eq!(asked(&redis), once(), "an expression");
    assert_eq!(clients(&state, &everything).await.unwrap().value.len(), CLIENTS);
    assert_eq!(asked(&redis), once(), "Clients");
    let table = ledger(&state, &everything).await.unwrap();
    assert!(table.accounts.values().all(|account| account.folded == TABS as u64), "{table:?}");
    assert_eq!(asked(&redis), once(), "the Ledger");
    let host = Selection::default().client("host-07".parse().unwrap());
    assert_eq!(ledger(&state, &host).await.unwrap().accounts.len(), 1);
    assert_eq!(asked(&redis), once(), "the account of one Client");

    // What changed is read besides, and nothing else: here one list of Tabs.
    delete(&state, &Selection::default().name("tab007".parse().unwrap()), None).await.unwrap();
    asked(&redis);
    assert_eq!(names(&state, &some).await.unwrap().value.len(), 9);
    let calls = asked(&redis);
    assert_eq!((calls["evalsha"], calls["zrangebylex"]), (1, 1), "{calls:?}");
    let folded = ledger_totals(&state).await.unwrap().totals.folded;
    assert_eq!((folded, asked(&redis)), ((CLIENTS * TABS) as u64, once()), "what is deleted stays folded");
}
