//! [`RedisCluster`]: a real Redis Cluster on loopback, whose slots are moved by its own tool.

use std::process::Command;

use super::{Aof, Options, Redis, server};
use crate::{free_port, wait_until};

/// Slots of a Redis Cluster.
const SLOTS: usize = 16_384;

/// A Redis Cluster of this test; its nodes are killed when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// Its nodes: the primaries first, then a replica of each of the first primaries.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts one, and waits until all nodes agree that it works. A primary is replaced by its replica after it has not
    /// answered for `node_timeout_ms`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(primaries: usize, replicas: usize, node_timeout_ms: u32) -> Self {
        let nodes: Vec<Redis> = (0..primaries + replicas).map(|_| start_node(node_timeout_ms)).collect();
        for (place, node) in nodes[..primaries].iter().enumerate() {
            let (first, next) = (SLOTS * place / primaries, SLOTS * (place + 1) / primaries);
            let range = [first.to_string(), (next - 1).to_string()];
            assert_eq!(node.command(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]), "OK");
        }
        for (place, node) in nodes.iter().enumerate() {
            assert_eq!(node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]), "OK");
        }
        let cluster = Self { nodes };
        cluster.meet();
        for place in primaries..primaries + replicas {
            let (replica, primary) = (&cluster.nodes[place], &cluster.nodes[place - primaries]);
            assert_eq!(replica.command(&["CLUSTER", "REPLICATE", &cluster.id(place - primaries)]), "OK");
            replica.wait_for_primary(primary);
        }
        for node in &cluster.nodes {
            let of_replicas = |nodes: &str| nodes.lines().filter(|line| line.contains("slave")).count();
            wait_until("all know the replicas", || {
                of_replicas(&node.command(&["CLUSTER", "NODES"])) == replicas
            });
        }
        cluster
    }

    /// Adds an empty primary.
    pub fn add(&mut self) {
        self.nodes.push(start_node(5000));
        self.meet();
    }

    /// Every node gets to know all others.
    fn meet(&self) {
        let count = self.nodes.len();
        for other in &self.nodes[1..] {
            let (port, bus) = (other.port().to_string(), bus_port(other));
            assert_eq!(self.nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "OK");
        }
        for node in &self.nodes {
            wait_until("the nodes know each other", || {
                let info = node.command(&["CLUSTER", "INFO"]);
                let all = format!("cluster_known_nodes:{count}\r");
                info.contains("cluster_state:ok") && info.contains(&all)
            });
        }
        for node in &self.nodes {
            wait_until("all have shaken hands", || {
                !node.command(&["CLUSTER", "NODES"]).contains("handshake")
            });
        }
        self.agree();
    }

    /// `redis+cluster://…`: the first two nodes.
    pub fn url(&self) -> String {
        let nodes = self.nodes[..2].iter().map(|node| format!("127.0.0.1:{}", node.port()));
        format!("redis+cluster://{}", nodes.collect::<Vec<_>>().join("+"))
    }

    /// The ID of a node.
    pub fn id(&self, node: usize) -> String {
        self.nodes[node].command(&["CLUSTER", "MYID"])
    }

    /// Waits until all nodes say the same of all slots.
    pub fn agree(&self) {
        let slots = |node: &Redis| {
            let nodes = node.command(&["CLUSTER", "NODES"]);
            let primaries = nodes.lines().filter(|line| line.contains("master"));
            let slots = |line: &str| {
                let words: Vec<&str> = line.split(' ').collect();
                let ranges = words[8..].iter().filter(|range| !range.starts_with('['));
                format!("{} {:?}", words[0], ranges.collect::<Vec<_>>())
            };
            let mut all: Vec<String> = primaries.map(slots).collect();
            all.sort();
            all
        };
        wait_until("the nodes agree", || {
            let first = slots(&self.nodes[0]);
            self.nodes.iter().all(|node| slots(node) == first)
        });
    }

    /// Moves slots from node to node with `redis-cli --cluster reshard`; it takes those with the lowest numbers.
    ///
    /// # Panics
    /// When the tool fails.
    pub fn reshard(&self, from: usize, to: usize, slots: usize) {
        self.agree();
        let (from, to, slots) = (self.id(from), self.id(to), slots.to_string());
        let address = format!("127.0.0.1:{}", self.nodes[0].port());
        let words =
            ["--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", &slots, "--cluster-yes"];
        let mut command = Command::new(cli());
        command.args(["--cluster", "reshard", &address]).args(words);
        let done = command.output().expect("redis-cli runs");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Begins to move a slot: from now on its keys may be at either node.
    pub fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let (here, there) = (self.id(from), self.id(to));
        assert_eq!(self.nodes[to].command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &here]), "OK");
        assert_eq!(self.nodes[from].command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &there]), "OK");
    }

    /// Moves one key of a slot that moves.
    pub fn move_key(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        assert_eq!(self.nodes[from].command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]), "OK");
    }

    /// Moves the keys that are left of a slot that moves, and the slot itself.
    pub fn end_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        for key in self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]).lines() {
            self.move_key(key, from, to);
        }
        let there = self.id(to);
        let known = self.nodes[to].command(&["CLUSTER", "NODES"]);
        // A replica may be paused, and need not be told.
        let is_primary = |node: &usize| {
            let address = format!("127.0.0.1:{}@", self.nodes[*node].port());
            known.lines().any(|line| line.contains(&address) && line.contains("master"))
        };
        let others = (0..self.nodes.len()).filter(|node| ![from, to].contains(node) && is_primary(node));
        for node in [to, from].into_iter().chain(others) {
            assert_eq!(self.nodes[node].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &there]), "OK");
        }
    }

    /// The node that has a slot, by its own word.
    ///
    /// # Panics
    /// When none has it.
    pub fn owner(&self, slot: u16) -> usize {
        let has = |node: &Redis| {
            let nodes = node.command(&["CLUSTER", "NODES"]);
            let mine = nodes.lines().find(|line| line.contains("myself")).unwrap_or_default();
            let mut ranges = mine.split(' ').skip(8).filter(|range| !range.starts_with('['));
            ranges.any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let number = |text: &str| text.parse::<u16>().expect("a slot");
                (number(first)..=number(last)).contains(&slot)
            })
        };
        self.nodes.iter().position(has).expect("a node has the slot")
    }
}

fn start_node(node_timeout_ms: u32) -> Redis {
    Redis::start_with(|| {
        let (bus, timeout) = (free_port().to_string(), node_timeout_ms.to_string());
        let extra = [
            ["--cluster-enabled", "yes"],
            ["--cluster-port", &bus],
            ["--cluster-node-timeout", &timeout],
            ["--cluster-allow-replica-migration", "no"],
            ["--cluster-require-full-coverage", "no"],
        ];
        let extra = extra.concat().into_iter().map(str::to_owned).collect();
        // Written before each answer: what was answered survives a kill.
        Options { aof: Aof::No, extra, ..Options::default() }
    })
}

fn bus_port(node: &Redis) -> String {
    node.command(&["CONFIG", "GET", "cluster-port"]).lines().nth(1).unwrap_or_default().to_owned()
}

/// The tool that belongs to the server.
fn cli() -> &'static str {
    let name = server().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with("valkey") { "valkey-cli" } else { "redis-cli" }
}
