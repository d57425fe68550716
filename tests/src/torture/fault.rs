//! [`Fault`]: what may happen to a World, how it begins and how it ends.

use std::fmt;

use super::bad_disk::Wrong;
use super::world::World;
use crate::link::Link;
use crate::nginx::Nginx;
use crate::proxy::Proxy;

/// Of a thousand HTTP requests, so many go wrong while a network is bad.
const HTTP_PERMILLE: u64 = 300;
/// Of a thousand pieces of requests to Redis, so many go wrong while a network is bad.
const REDIS_PERMILLE: u64 = 80;

/// A fault, and its target by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A Server is killed with `kill -9`; it ends with another start.
    KillServer(usize),
    /// An Agent is killed with `kill -9`; it ends with another start, on the same Spool.
    KillAgent(usize),
    /// An Agent is killed with `kill -9`, and somebody puts the files of its Spool in disorder; it ends with another start.
    DisorderSpool(usize),
    /// A Server is stopped in the middle of whatever it does.
    PauseServer(usize),
    /// An Agent is stopped in the middle of whatever it does.
    PauseAgent(usize),
    /// The nginx before the Servers is killed; it ends with another start.
    KillNginx,
    /// The ways from and to an Agent lose, double, cut, delay and reorder.
    BadHttp(usize),
    /// The ways from a Server to Redis lose answers, cut and delay.
    BadRedis(usize),
    /// All connections from a Server to Redis break. This ends at once.
    CutRedis(usize),
    /// Nothing gets through from a Server to Redis, and nobody is told.
    StallRedis(usize),
    /// The primary of a shard is killed with `kill -9`; it ends with another start, on its append-only file.
    KillRedis(usize),
    /// The primary of a shard is stopped in the middle of whatever it does.
    PauseRedis(usize),
    /// The primary of a shard is not allowed any more memory.
    FullRedis(usize),
    /// The disk under the Spool of an Agent is full.
    FullDisk(usize),
    /// Calls to the disk under the Spool of an Agent go wrong. With a sync that failed nobody knows what is on the disk:
    /// there it ends with another start of the Agent.
    BadDisk(usize, Wrong),
    /// Somebody deletes every index key of a shard. This ends at once.
    LoseIndexes(usize),
    /// The primary of a shard is killed while its replica lags, and the replica takes over. This ends at once.
    FailOver(usize),
    /// The primary of a shard is stopped, its replica takes over, and the former primary goes on to take the writes of
    /// one Server for a moment. This ends at once.
    Split(usize),
    /// The clock of an Agent is set, so many hours ahead, and stays so.
    StepAgent(usize, i64),
    /// The clock of a Server is set, so many hours ahead.
    StepServer(usize, i64),
}

/// What a fault is about: at most one fault at a time has the same target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Server.
    Server(usize),
    /// An Agent.
    Agent(usize),
    /// The nginx before the Servers.
    Nginx,
    /// A shard.
    Shard(usize),
    /// The networks of an Agent.
    Http(usize),
    /// The networks of a Server.
    Redis(usize),
    /// The disk of an Agent.
    Disk(usize),
    /// The clock of an Agent.
    AgentClock(usize),
    /// The clock of a Server.
    ServerClock(usize),
}

impl Fault {
    /// Its kind, in words.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::KillServer(_) => "kill a server",
            Self::KillAgent(_) => "kill an agent",
            Self::DisorderSpool(_) => "disorder a spool",
            Self::PauseServer(_) => "pause a server",
            Self::PauseAgent(_) => "pause an agent",
            Self::KillNginx => "kill an nginx",
            Self::BadHttp(_) => "bad network around an agent",
            Self::BadRedis(_) => "bad network to redis",
            Self::CutRedis(_) => "cut connections to redis",
            Self::StallRedis(_) => "stall connections to redis",
            Self::KillRedis(_) => "kill a redis",
            Self::PauseRedis(_) => "pause a redis",
            Self::FullRedis(_) => "redis at maxmemory",
            Self::FullDisk(_) => "disk full under a spool",
            Self::BadDisk(_, wrong) => wrong.kind(),
            Self::LoseIndexes(_) => "delete the index keys of a shard",
            Self::FailOver(_) => "fail over to a replica that lags",
            Self::Split(_) => "split brain",
            Self::StepAgent(..) => "step the clock of an agent",
            Self::StepServer(..) => "step the clock of a server",
        }
    }

    /// What it is about.
    pub const fn target(self) -> Target {
        match self {
            Self::KillServer(n) | Self::PauseServer(n) => Target::Server(n),
            Self::KillAgent(n) | Self::DisorderSpool(n) | Self::PauseAgent(n) => Target::Agent(n),
            Self::KillNginx => Target::Nginx,
            Self::BadHttp(n) => Target::Http(n),
            Self::BadRedis(n) | Self::CutRedis(n) | Self::StallRedis(n) => Target::Redis(n),
            Self::KillRedis(n) | Self::PauseRedis(n) | Self::FullRedis(n) => Target::Shard(n),
            Self::FailOver(n) | Self::Split(n) | Self::LoseIndexes(n) => Target::Shard(n),
            Self::FullDisk(n) | Self::BadDisk(n, _) => Target::Disk(n),
            Self::StepAgent(n, _) => Target::AgentClock(n),
            Self::StepServer(n, _) => Target::ServerClock(n),
        }
    }

    /// Whether it is over as soon as it has begun.
    pub const fn is_momentary(self) -> bool {
        matches!(self, Self::CutRedis(_) | Self::FailOver(_) | Self::Split(_) | Self::LoseIndexes(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StepAgent(n, hours) | Self::StepServer(n, hours) => {
                write!(f, "{}, number {n}, by {hours:+} h", self.kind())
            }
            fault => write!(f, "{}: {:?}", fault.kind(), fault.target()),
        }
    }
}

impl World {
    /// Makes a fault happen.
    ///
    /// # Panics
    /// When the World has no such target.
    pub fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::KillServer(n) => self.servers[n].kill(),
            Fault::KillAgent(n) => self.agents[n].kill(),
            Fault::DisorderSpool(n) => {
                self.agents[n].kill();
                self.agents[n].disorder_spool();
            }
            Fault::PauseServer(n) => self.servers[n].pause(true),
            Fault::PauseAgent(n) => self.agents[n].pause(true),
            Fault::KillNginx => self.nginx().process.kill(),
            Fault::BadHttp(n) => self.agents[n].proxies().for_each(|proxy| proxy.rage(HTTP_PERMILLE)),
            Fault::BadRedis(n) => self.servers[n].links.iter().for_each(|link| link.rage(REDIS_PERMILLE)),
            Fault::CutRedis(n) => self.servers[n].links.iter().for_each(Link::cut),
            Fault::StallRedis(n) => self.servers[n].links.iter().for_each(Link::stall),
            Fault::KillRedis(n) => self.shards[n].primary.kill(),
            Fault::PauseRedis(n) => self.shards[n].primary.pause(),
            Fault::FullRedis(n) => self.shards[n].fill_up(),
            Fault::FullDisk(n) => self.agents[n].fill_disk(),
            Fault::BadDisk(n, wrong) => self.agents[n].set_disk(Some(wrong)),
            Fault::LoseIndexes(n) => self.index_keys_lost += self.shards[n].lose_indexes(),
            Fault::FailOver(n) => self.fail_over(n),
            Fault::Split(n) => self.split(n),
            Fault::StepAgent(n, hours) => self.agents[n].step_clock(hours),
            Fault::StepServer(n, hours) => self.servers[n].step_clock(hours),
        }
        *self.faults.entry(fault.kind()).or_default() += 1;
    }

    /// Ends a fault. The clock of an Agent stays where it was set to.
    ///
    /// # Panics
    /// When a process does not start again.
    pub fn end(&mut self, fault: Fault) {
        match fault {
            Fault::KillServer(n) => self.servers[n].start(),
            Fault::KillAgent(n) | Fault::DisorderSpool(n) => self.agents[n].start(),
            Fault::PauseServer(n) => self.servers[n].pause(false),
            Fault::PauseAgent(n) => self.agents[n].pause(false),
            Fault::KillNginx => self.nginx().restart(),
            Fault::BadHttp(n) => self.agents[n].proxies().for_each(Proxy::calm),
            Fault::BadRedis(n) => self.servers[n].links.iter().for_each(|link| link.rage(0)),
            Fault::StallRedis(n) => self.servers[n].links.iter().for_each(Link::go_on),
            Fault::KillRedis(n) => self.shards[n].primary.restart(),
            Fault::PauseRedis(n) => self.shards[n].primary.resume(),
            Fault::FullRedis(n) => self.shards[n].make_room(),
            Fault::FullDisk(n) => self.agents[n].free_disk(),
            Fault::BadDisk(n, Wrong::Unsynced) => {
                self.agents[n].set_disk(None);
                self.agents[n].kill();
                self.agents[n].start();
            }
            Fault::BadDisk(n, _) => self.agents[n].set_disk(None),
            Fault::StepServer(n, _) => self.servers[n].step_clock(0),
            Fault::CutRedis(_) | Fault::LoseIndexes(_) | Fault::FailOver(_) | Fault::Split(_) => {}
            Fault::StepAgent(..) => {}
        }
    }

    fn nginx(&mut self) -> &mut Nginx {
        self.nginx.as_mut().expect("the plan has an nginx")
    }
}
