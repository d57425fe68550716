//! The scenarios of torture.

use taba_tests::torture::{Plan, World};

#[test]
fn embedded() {
    let plan = Plan { shards: 0, servers: 1, ..Plan::new(1) };
    let mut world = World::start(plan);
    for proxy in world.proxies() {
        proxy.rage(200);
    }
    world.advance(300_000);
    world.servers[0].kill();
    world.advance(100_000);
    world.servers[0].wait();
    world.advance(300_000);
    let outcome = world.finish();
    eprintln!("{} events, {:?}", outcome.expected.events(), outcome.directory);
    outcome.assert_exact();
}
