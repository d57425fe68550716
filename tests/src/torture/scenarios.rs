//! The scenarios: each hurts one World in one way, and is to end exact; unless the rule that it guards is switched off.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::bad_disk::Wrong;
use super::fault::Fault;
use super::log::BAD_STDERRS;
use super::plan::Plan;
use super::report::Report;
use super::storm::{Kind, Storm};
use super::world::{Outcome, World};
use crate::redis::Aof;
use crate::wait_until;

/// Events between two moments of a scenario.
const SOME: u64 = 60_000;
/// Bytes that are torn off the end of an append-only file: about half a second of commits.
const TORN_BYTES: u64 = 60_000;
/// Bytes of a disk that a Spool can fill.
const DISK_BYTES: u64 = 32 << 20;

/// What a scenario came to.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub outcome: Outcome,
    /// What happened.
    pub report: Report,
}

/// One way to hurt a World.
pub type Scenario = fn(seed: u64, sabotage: Option<&'static str>) -> Run;

fn run(plan: Plan, hurt: impl FnOnce(&mut World)) -> Run {
    let mut world = World::start(plan);
    world.advance(SOME);
    hurt(&mut world);
    let outcome = world.finish();
    let report = Report::of(&world, &outcome);
    Run { outcome, report }
}

fn storm(world: &mut World, kinds: &[Kind], steps: usize) {
    let mut storm = Storm::new(world.plan.seed, kinds.to_vec());
    for _ in 0..steps {
        storm.step(world);
    }
    storm.calm(world);
}

/// a. Agents and Servers are killed again and again, and the connections of Clients break.
pub fn kills(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, ..Plan::new(seed) }, |world| {
        for n in 0..world.plan.agents {
            world.begin(Fault::BadHttp(n));
        }
        storm(world, &[Kind::KillServer, Kind::KillAgent, Kind::DisorderSpool], 24);
    })
}

/// a. An nginx gives each request to the next of three Servers, and again to another one when a Server does not answer;
/// each Server is paused with requests in its hands, and killed; and so is the nginx.
pub fn nginx_between(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, has_nginx: true, servers: 3, ..Plan::new(seed) }, |world| {
        for n in 0..world.plan.servers {
            let before = world.repeated_posts();
            world.begin(Fault::PauseServer(n));
            wait_until("nginx repeats a request", || world.repeated_posts() > before);
            world.end(Fault::PauseServer(n));
            let other = Fault::KillServer((n + 1) % world.plan.servers);
            world.begin(other);
            world.advance(SOME / 2);
            world.end(other);
            world.advance(SOME / 2);
            world.look();
        }
        world.begin(Fault::KillNginx);
        world.advance(SOME / 2);
        world.end(Fault::KillNginx);
        // A Server that starts knows nothing: what goes wrong with what they remember takes some time in peace.
        world.advance(4 * SOME);
    })
}

/// b. All networks lose answers, double, delay, cut and reorder.
pub fn networks(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, ..Plan::new(seed) }, |world| {
        for n in 0..world.plan.agents {
            world.begin(Fault::BadHttp(n));
        }
        for n in 0..world.plan.servers {
            world.begin(Fault::BadRedis(n));
        }
        world.advance(12 * SOME);
    })
}

/// c. Three Servers write the same States, because each Agent prefers another one for each VBucket.
pub fn collisions(seed: u64, sabotage: Option<&'static str>) -> Run {
    collide(seed, sabotage, 3)
}

/// c. Two Servers write the same States.
pub fn collisions_of_two(seed: u64, sabotage: Option<&'static str>) -> Run {
    collide(seed, sabotage, 2)
}

fn collide(seed: u64, sabotage: Option<&'static str>, servers: usize) -> Run {
    let plan = Plan { sabotage, servers, agents: servers, has_one_client: true, ..Plan::new(seed) };
    run(plan, |world| world.advance(8 * SOME))
}

/// d. Redis is killed and comes back with its append-only file, synced at each write.
pub fn redis_killed_always(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, aof: Aof::Always, ..Plan::new(seed) }, |world| redis_killed(world, 3, false))
}

/// d. Redis is killed and comes back with its append-only file, synced every second; and then without its end, as if
/// the machine had lost power.
pub fn redis_killed_everysec(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, ..Plan::new(seed) }, |world| {
        redis_killed(world, 2, false);
        redis_killed(world, 3, true);
    })
}

fn redis_killed(world: &mut World, times: u64, is_torn: bool) {
    for _ in 0..times {
        world.begin(Fault::KillRedis(0));
        if is_torn {
            tear(world.shards[0].primary.directory());
        }
        world.advance(SOME / 2);
        world.end(Fault::KillRedis(0));
        world.advance(SOME);
        world.look();
    }
}

/// Tears the end off the append-only file in this directory.
fn tear(directory: &Path) {
    let parts = fs::read_dir(directory.join("appendonlydir")).expect("there is an append-only file");
    let parts = parts.map(|part| part.expect("a directory can be read").path());
    let last = parts.filter(|part| part.to_string_lossy().ends_with(".incr.aof")).max();
    let file =
        File::options().write(true).open(last.expect("there is an increment")).expect("it can be opened");
    let bytes = file.metadata().expect("it has a length").len();
    // Never all of it: a Redis that has lost everything is not taken for a new one, but refused.
    file.set_len(bytes - TORN_BYTES.min(bytes / 5)).expect("it can be cut");
}

fn with_replicas(seed: u64, sabotage: Option<&'static str>) -> Plan {
    Plan { sabotage, has_replicas: true, confirm_after: Duration::from_secs(3), ..Plan::new(seed) }
}

/// e. The primary is killed while its replica lags, and the replica takes over.
pub fn fail_overs(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(with_replicas(seed, sabotage), |world| {
        for _ in 0..3 {
            world.begin(Fault::FailOver(0));
            world.advance(2 * SOME);
            world.look();
        }
    })
}

/// f. The primary is only paused while its replica takes over, and goes on to take the writes of one Server.
pub fn split_brains(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(with_replicas(seed, sabotage), |world| {
        for _ in 0..3 {
            world.begin(Fault::Split(0));
            world.advance(2 * SOME);
            world.look();
        }
    })
}

/// g. Redis may not take any more memory.
pub fn redis_full(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, ..Plan::new(seed) }, |world| {
        for _ in 0..3 {
            world.begin(Fault::FullRedis(0));
            world.advance(2 * SOME);
            world.look();
            world.end(Fault::FullRedis(0));
            world.advance(SOME);
        }
    })
}

/// g. The disk under a Spool is full, and the Agent is killed on top of it.
pub fn disk_full(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, spool_disk_bytes: Some(DISK_BYTES), ..Plan::new(seed) }, |world| {
        for n in 0..world.plan.agents {
            world.begin(Fault::FullDisk(n));
            world.advance(2 * SOME);
            world.look();
            world.begin(Fault::KillAgent(n));
            world.end(Fault::FullDisk(n));
            world.advance(SOME / 2);
            world.end(Fault::KillAgent(n));
            world.advance(SOME);
        }
    })
}

/// g. Calls to the disk under a Spool hang, take their time and fail. While they hang, the Agent answers and sends what it
/// has in memory, and all others go on; then the Agents are killed on top of what failed.
pub fn disk_bad(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, has_bad_disks: true, ..Plan::new(seed) }, |world| {
        disk_hangs(world);
        for wrong in [Wrong::Slow, Wrong::NoSpace, Wrong::Broken, Wrong::Unsynced] {
            for n in 0..world.plan.agents {
                world.begin(Fault::BadDisk(n, wrong));
                world.advance(SOME / 3);
                world.look();
                world.begin(Fault::KillAgent(n));
                world.end(Fault::KillAgent(n));
                world.advance(SOME / 3);
                world.look();
                world.end(Fault::BadDisk(n, wrong));
                world.agents[n].wait();
                world.advance(SOME / 3);
            }
        }
    })
}

fn disk_hangs(world: &mut World) {
    // So that there is something in memory that is not sent.
    let servers: Vec<_> = (0..world.plan.servers).map(Fault::KillServer).collect();
    servers.iter().for_each(|fault| world.begin(*fault));
    world.advance(SOME);
    world.begin(Fault::BadDisk(0, Wrong::Hangs));
    wait_until("a call to the disk hangs", || world.agents[0].disk_calls() > 0);
    servers.iter().for_each(|fault| world.end(*fault));
    let sent = |world: &World, n: usize| {
        let status: Option<Value> = world.agents[n].status();
        status?.pointer("/lane_batches/sent")?.as_u64()
    };
    let before: Vec<_> = (0..world.plan.agents).map(|n| sent(world, n).unwrap_or(0)).collect();
    for (n, before) in before.into_iter().enumerate() {
        let what = format!("{} sends while the disk under the first hangs", world.agents[n].name);
        wait_until(&what, || sent(world, n).is_some_and(|sent| sent > before));
    }
    world.end(Fault::BadDisk(0, Wrong::Hangs));
    world.advance(SOME);
}

/// h. The clocks of Agents and Servers are set back and forth by days; then those of Agents by hours, while they are
/// killed.
pub fn clock_steps(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, has_clocks: true, ..Plan::new(seed) }, |world| {
        for n in 0..world.plan.agents {
            world.begin(Fault::BadHttp(n));
        }
        storm(world, &[Kind::StepAgent, Kind::StepServer], 18);
        world.agents.iter().for_each(|agent| agent.step_clock(0));
        storm(world, &[Kind::StepAgent, Kind::StepServer, Kind::KillAgent], 18);
    })
}

/// i. What Agents and Servers say on their standard error goes nowhere, and they have a lot to say: Servers and Redis are
/// killed. In the end each process has run with each kind of standard error.
pub fn stderr_bad(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, has_bad_stderr: true, ..Plan::new(seed) }, |world| {
        for _ in 0..BAD_STDERRS {
            for fault in [Fault::KillServer(0), Fault::KillRedis(0)] {
                world.begin(fault);
                world.advance(SOME / 3);
                world.look();
                world.end(fault);
                world.advance(SOME / 3);
            }
            let agents = (0..world.plan.agents).map(Fault::KillAgent);
            // The first was killed above.
            for fault in agents.chain((1..world.plan.servers).map(Fault::KillServer)) {
                world.begin(fault);
                world.end(fault);
            }
        }
        world.advance(SOME);
    })
}

/// j. Somebody deletes the index keys of Redis, under load and while no Server is there that knows better.
pub fn indexes_lost(seed: u64, sabotage: Option<&'static str>) -> Run {
    run(Plan { sabotage, ..Plan::new(seed) }, |world| {
        for _ in 0..2 {
            world.begin(Fault::LoseIndexes(0));
            world.advance(SOME);
            let servers: Vec<_> = (0..world.plan.servers).map(Fault::KillServer).collect();
            servers.iter().for_each(|fault| world.begin(*fault));
            world.begin(Fault::LoseIndexes(0));
            servers.iter().for_each(|fault| world.end(*fault));
            world.advance(SOME);
            world.look();
        }
    })
}
