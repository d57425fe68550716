//! A real Redis Cluster under real Servers, a real Agent and a real Client: slots move, a node comes and a primary is killed;
//! recording never stops, no query fails, every event is counted once.

use taba_tests::load::Load;
use taba_tests::redis::RedisCluster;
use taba_tests::{Agent, Server, Tool, wait_until};

#[test]
fn slots_move_and_a_primary_dies_and_every_event_is_counted_once() {
    let mut cluster = RedisCluster::start(3, 1, 2000);
    let tool = Tool::of(cluster.url());
    let made = tool.json(&["init", "--vbuckets", "64"]);
    assert!(made.to_string().contains("in a redis cluster"), "{made}");
    let servers = [(); 2].map(|()| Server::on_redis(&cluster.url(), &["--commit-interval=10ms"]));
    let urls: Vec<String> = servers.iter().map(Server::url).collect();
    let agent = Agent::of(&urls.join(","), &["--backoff-max=200ms"]);
    let load = Load::start(&agent.url(), &urls);
    for (from, to) in [(1, 2), (2, 0)] {
        cluster.reshard(from, to, 500);
        load.goes_on();
    }
    assert_eq!(load.queried().1, 0, "while slots move every answer is whole");
    cluster.nodes[0].kill();
    wait_until("its replica has its place", || cluster.nodes[3].info("replication", "role") == "master");
    load.becomes_fresh("a primary was killed, and its replica promoted");
    load.end("slots move and a primary dies");
    // The tool leaves moving to the Cluster.
    for words in [&["status"][..], &["rebalance"], &["add", "127.0.0.1:1"]] {
        let done = tool.run("", words);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains("redis-cli --cluster"), "{words:?}: {said}");
    }
}
