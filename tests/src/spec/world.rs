//! [`World`]: Agents, a network, Servers, shards and operators, and every [`Step`] that any of them can take next.
//!
//! Nothing happens by itself and nothing is forbidden to be late: time is a step, and so is every delivery. Whoever
//! chooses the steps is the adversary.

use super::lane::Agent;
use super::operator::{At, Goal, Operator};
use super::rules::Rules;
use super::server::{Answer, Request, Server, Worked};
use super::store::{Events, STREAMS, Store, Time};

/// Messages under way, of each kind; a new one pushes out the oldest.
const MESSAGES_MAX: usize = 6;
/// When it all begins: late enough that what is there from the start is old.
const START: Time = 50;

/// The numbers that the rules are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Times {
    /// T: what is answered waits so long for the message whose answer confirms it.
    pub confirm_after: Time,
    /// A: a write is on the disk of its node before it is so old.
    pub disk_lag: Time,
    /// Z: a primary that was replaced takes writes for so long.
    pub split_writes: Time,
    /// A Stream takes new events for so long: 12 h.
    pub stream_appends: Time,
    /// A Batch is sent for so long: 24 h.
    pub batch_sent: Time,
    /// After so long nothing is sent of a Stream, not even what it lost: 42 h.
    pub stream_sends: Time,
    /// A mark is kept at least so long: 48 h.
    pub mark_kept: Time,
    /// A Server takes messages whose time differs from its own by at most this.
    pub clocks_apart: Time,
    /// How far a wrong clock is off; 0 when no clock is ever wrong.
    pub clock_fault: Time,
    /// A destination is switched within this time after the fence was written.
    pub pause_max: Time,
    /// A source is unfenced within this time after the bar was written: less than `disk_lag`.
    pub unfence_max: Time,
}

impl Times {
    /// Times in which no mark and no Stream ever ends.
    pub const ENDLESS: Self = Self {
        confirm_after: 3,
        disk_lag: 2,
        split_writes: 2,
        stream_appends: 10_000,
        batch_sent: 10_000,
        stream_sends: 10_000,
        mark_kept: 10_000,
        clocks_apart: 10_000,
        clock_fault: 0,
        pause_max: 4,
        unfence_max: 1,
    };
}

/// How large the world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// How many Agents.
    pub agents: usize,
    /// How many Servers.
    pub servers: usize,
    /// How many shards: one, or two between which the VBucket moves.
    pub shards: usize,
    /// The primary of a shard and its replicas.
    pub nodes: usize,
    /// How many operators move the VBucket at the same time.
    pub operators: usize,
    /// Events, at most 16.
    pub events: u8,
    /// Whether a request may arrive twice, or after its sender has given it up.
    pub repeats: bool,
}

/// What happens next. Messages under way are counted from the newest, which is 0; nodes are counted through all shards. A
/// step that cannot happen now changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Time goes on.
    Tick,
    /// An Agent takes an event from a Client and appends it to its Spool.
    Take(usize),
    /// An Agent sends the next Batch of this Lane.
    Send(usize, usize),
    /// An Agent asks after this Lane.
    Probe(usize, usize),
    /// An Agent waits no longer for an answer.
    GiveUp(usize, usize),
    /// An Agent throws away the oldest Batch of this Lane.
    Lose(usize, usize),
    /// An Agent is killed and starts again, with a clock that is off by so many faults.
    Crash(usize, Time),
    /// The clock of an Agent is set while it runs: it is off by so many faults from now on.
    SetAgentClock(usize, Time),
    /// A request arrives at this Server, and stays under way if the world has repeats.
    Arrive(usize, usize),
    /// A request is lost, or was delivered for the last time.
    DropRequest(usize),
    /// An answer arrives, and stays under way.
    Hear(usize),
    /// An answer is lost.
    DropAnswer(usize),
    /// A Server loads what it does not know; or commits what waits, and answers.
    Work(usize),
    /// The same, but the Server does not hear what became of it.
    WorkUnheard(usize),
    /// A Server hears that what it asked after is stable.
    Learn(usize),
    /// A Server is killed and starts again.
    Kill(usize),
    /// A Server's connection to the store is made anew, to whoever rules; what it has in its cache it keeps.
    Reconnect(usize),
    /// A Server's clock is off by so many faults from now on.
    SetClock(usize, Time),
    /// A replica takes the next write.
    Replicate(usize),
    /// Another node rules. The old primary is dead.
    FailOver(usize),
    /// Another node rules. The old primary does not know.
    Split(usize),
    /// A node becomes a replica of the ruling one.
    Follow(usize),
    /// A replica loses its link.
    Cut(usize),
    /// The ruling node of a shard starts again without its newest writes, as many as this if its disk lacked them.
    Restart(usize, usize),
    /// An operator begins a move from this shard to the other one; it may be killed for that.
    Begin(usize, usize, Goal),
    /// An operator is killed, and does not start again.
    End(usize),
    /// An operator goes on.
    Operate(usize),
    /// A Server asks all shards but this one, which does not answer, what they hold.
    Census(usize, usize),
}

impl Step {
    /// Whether it is something that goes wrong, rather than on.
    pub const fn is_fault(self) -> bool {
        match self {
            Self::Tick | Self::Take(_) | Self::Send(..) | Self::Probe(..) | Self::Arrive(..) => false,
            Self::Hear(_) | Self::Work(_) | Self::Learn(_) | Self::Replicate(_) | Self::Follow(_) => false,
            Self::GiveUp(..)
            | Self::Lose(..)
            | Self::Crash(..)
            | Self::DropRequest(_)
            | Self::DropAnswer(_) => true,
            Self::WorkUnheard(_) | Self::Kill(_) | Self::Reconnect(_) => true,
            Self::SetClock(..) | Self::SetAgentClock(..) => true,
            Self::FailOver(_) | Self::Split(_) | Self::Cut(_) | Self::Restart(..) => true,
            Self::Census(..) | Self::End(_) => true,
            Self::Begin(..) | Self::Operate(_) => false,
        }
    }
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// What the rules are made with.
    pub times: Times,
    /// Which rules are kept.
    pub rules: Rules,
    size: Size,
    pub(super) now: Time,
    /// The shards.
    pub shards: Vec<Store>,
    /// The operators.
    pub operators: Vec<Operator>,
    /// The Servers.
    pub servers: Vec<Server>,
    /// The Agents.
    pub agents: Vec<Agent>,
    /// Requests under way, oldest first.
    pub requests: Vec<Request>,
    /// Answers under way, oldest first.
    pub answers: Vec<Answer>,
    events: u8,
    pub(super) requests_sent: u16,
    streams: usize,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(size: Size, times: Times, rules: Rules) -> Self {
        let shards: Vec<Store> = (0..size.shards).map(|shard| Store::new(shard, size.nodes)).collect();
        Self {
            times,
            rules,
            size,
            now: START,
            servers: (0..size.servers).map(|me| Server::new(me, &shards, START)).collect(),
            shards,
            operators: vec![Operator::default(); size.operators],
            agents: vec![Agent::default(); size.agents],
            requests: Vec::new(),
            answers: Vec::new(),
            events: 0,
            requests_sent: 0,
            streams: 0,
        }
    }

    /// How large it is.
    pub const fn size(&self) -> Size {
        self.size
    }

    /// Takes one step; false when it cannot be taken now, and then nothing has changed.
    pub fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Tick => {
                self.now += 1;
                true
            }
            Step::Take(agent) => self.take(agent),
            Step::Send(agent, lane) => self.send(agent, lane),
            Step::Probe(agent, lane) => {
                let (id, now) = (self.requests_sent, self.now);
                let request = self.agents[agent].probe((agent, lane), id, now, &self.times, self.rules);
                self.transmit(request)
            }
            Step::GiveUp(agent, lane) => {
                let lane = self.agents[agent].lanes.get_mut(lane);
                let given_up = lane.and_then(|lane| lane.in_flight.take());
                self.agents[agent].forget_done_lanes();
                if let Some(flight) = given_up {
                    self.recall(|request| request.id == flight.request);
                }
                given_up.is_some()
            }
            Step::Lose(agent, lane) => self.agents[agent].lose(lane),
            Step::Crash(agent, faults) => self.crash(agent, faults),
            Step::SetAgentClock(agent, faults) => {
                let can = self.times.clock_fault != 0 && (faults == 0 || !self.is_a_clock_wrong());
                can && self.agents[agent].set_clock(faults * self.times.clock_fault, self.rules)
            }
            Step::Arrive(request, server) => self.arrive(request, server),
            Step::DropRequest(request) => remove(&mut self.requests, request),
            Step::Hear(answer) => self.hear(answer),
            Step::DropAnswer(answer) => remove(&mut self.answers, answer),
            Step::Work(server) => self.work(server, true),
            Step::WorkUnheard(server) => self.work(server, false),
            Step::Learn(server) => {
                let (now, rules) = (self.now, self.rules);
                self.servers[server].learn(&self.shards, now, &self.times, rules)
            }
            Step::Kill(server) => {
                let clock_off = self.servers[server].clock_off;
                self.servers[server] = Server::new(server, &self.shards, self.now);
                self.servers[server].clock_off = clock_off;
                true
            }
            Step::Reconnect(server) => {
                let server = &mut self.servers[server];
                let moves = server.node() != self.shards[server.place].ruling;
                if moves {
                    server.reconnect(&self.shards, server.place, self.now);
                }
                moves
            }
            Step::SetClock(server, faults) => self.set_clock(server, faults),
            Step::Replicate(node) => {
                let (shard, node) = self.node(node);
                self.shards.get_mut(shard).is_some_and(|shard| shard.replicate(node, self.now))
            }
            Step::FailOver(to) => self.fail_over(to, 0),
            Step::Split(to) => self.fail_over(to, self.now + self.times.split_writes),
            Step::Follow(node) => self.follow(node),
            Step::Cut(node) => {
                let (shard, node) = self.node(node);
                self.shards[shard].nodes[node].follows.take().is_some()
            }
            Step::Restart(shard, writes) => self.restart(shard, writes),
            Step::Begin(operator, from, goal) => {
                let begins = from < self.shards.len();
                if begins {
                    self.operators[operator] = Operator::new(goal, from, &self.shards);
                }
                begins
            }
            Step::End(operator) => {
                let operator = &mut self.operators[operator];
                std::mem::replace(&mut operator.at, At::Ended) != At::Ended
            }
            Step::Operate(operator) => {
                let (now, rules) = (self.now, self.rules);
                self.operators[operator].operate(&mut self.shards, now, &self.times, rules)
            }
            Step::Census(server, silent) => {
                let (now, rules) = (self.now, self.rules);
                self.shards.len() > 1
                    && self.servers[server].census(&self.shards, Some(silent), now, &self.times, rules)
            }
        }
    }

    /// The shard of a node, and its number there.
    pub(super) const fn node(&self, node: usize) -> (usize, usize) {
        (node / self.size.nodes, node % self.size.nodes)
    }

    fn take(&mut self, agent: usize) -> bool {
        let has_more = self.events < self.size.events;
        if has_more {
            let event = Events(1 << self.events);
            self.events += 1;
            let agent = &mut self.agents[agent];
            agent.taken = agent.taken.and(event);
            agent.blocks = agent.blocks.and(event);
        }
        has_more
    }

    fn send(&mut self, agent: usize, lane: usize) -> bool {
        let lanes = self.agents[agent].lanes.len();
        if lane == lanes && self.streams == STREAMS {
            return false;
        }
        let new = (self.requests_sent, self.streams);
        let request = self.agents[agent].send((agent, lane), new, self.now, &self.times, self.rules);
        self.streams += usize::from(self.agents[agent].lanes.len() > lanes);
        self.transmit(request)
    }

    fn transmit(&mut self, request: Option<Request>) -> bool {
        let is_sent = request.is_some();
        if is_sent {
            self.requests_sent += 1;
            if self.requests.len() == MESSAGES_MAX {
                self.requests.remove(0);
            }
        }
        self.requests.extend(request);
        is_sent
    }

    fn crash(&mut self, agent: usize, faults: Time) -> bool {
        // Streams are numbered from a small set here; what heals needs some.
        let can = self.streams + 4 < STREAMS && (faults == 0 || !self.is_a_clock_wrong());
        if can {
            self.agents[agent].crash(faults * self.times.clock_fault, self.rules);
            self.recall(|request| request.agent == agent);
        }
        can
    }

    fn set_clock(&mut self, server: usize, faults: Time) -> bool {
        let can = self.times.clock_fault != 0 && (faults == 0 || !self.is_a_clock_wrong());
        if can {
            self.servers[server].clock_off = faults * self.times.clock_fault;
        }
        can
    }

    /// One wrong clock at a time is what the rules are made for.
    fn is_a_clock_wrong(&self) -> bool {
        self.times.clock_fault == 0
            || self.agents.iter().any(|agent| agent.clock_off != 0)
            || self.servers.iter().any(|server| server.clock_off != 0)
    }

    fn arrive(&mut self, request: usize, server: usize) -> bool {
        let waiting = &mut self.servers[server].waiting;
        let Some(found) = newest(&self.requests, request) else { return false };
        let has_room = waiting.len() < MESSAGES_MAX;
        if has_room {
            waiting.push(*found);
            if !self.size.repeats {
                remove(&mut self.requests, request);
            }
        }
        has_room
    }

    /// In a world without repeats, what its sender has given up is nowhere any more.
    fn recall(&mut self, is_given_up: impl Fn(&Request) -> bool) {
        if !self.size.repeats {
            self.requests.retain(|request| !is_given_up(request));
            for server in &mut self.servers {
                server.waiting.retain(|request| !is_given_up(request));
            }
        }
    }

    fn hear(&mut self, answer: usize) -> bool {
        let Some(answer) = newest(&self.answers, answer) else { return false };
        let agent = &mut self.agents[answer.agent];
        let changes = agent.hear(answer, self.now, &self.times, self.rules);
        agent.forget_done_lanes();
        changes
    }

    fn work(&mut self, server: usize, is_heard: bool) -> bool {
        let server = &mut self.servers[server];
        if server.cache.is_some() && server.waiting.is_empty() {
            return false;
        }
        let worked = server.work(&mut self.shards, self.now, &self.times, self.rules);
        if worked == Worked::Waits {
            return false;
        }
        if !is_heard {
            server.forget(self.rules);
            server.waiting.clear();
            return true;
        }
        if let Worked::Answered(answers) | Worked::Committed(answers) = worked {
            for answer in answers {
                if self.answers.len() == MESSAGES_MAX {
                    self.answers.remove(0);
                }
                self.answers.push(answer);
            }
        }
        true
    }

    fn fail_over(&mut self, to: usize, writes_until: Time) -> bool {
        let (shard, to) = self.node(to);
        let can = to != self.shards[shard].ruling;
        if can {
            let old = self.shards[shard].ruling;
            self.shards[shard].fail_over(to, writes_until);
            if writes_until == 0 {
                self.disconnect(shard, old);
            }
        }
        can
    }

    fn follow(&mut self, node: usize) -> bool {
        let (shard, node) = self.node(node);
        let store = &mut self.shards[shard];
        let can = node != store.ruling && store.nodes[node].follows != Some(store.ruling);
        if can {
            store.follow(node);
            self.disconnect(shard, node);
        }
        can
    }

    fn restart(&mut self, shard: usize, writes: usize) -> bool {
        let store = &mut self.shards[shard];
        let ruling = store.ruling;
        let (len, on_disk) =
            (store.nodes[ruling].history.len(), store.nodes[ruling].on_disk(self.now, self.times.disk_lag));
        let left = len.saturating_sub(writes).max(on_disk);
        if left == len {
            return false;
        }
        store.restart(left);
        self.disconnect(shard, ruling);
        true
    }

    /// All connections to a node break.
    fn disconnect(&mut self, shard: usize, node: usize) {
        for server in self.servers.iter_mut().filter(|server| server.links[shard].node == node) {
            server.disconnect(&self.shards, shard, self.now);
        }
        for operator in self.operators.iter_mut().filter(|operator| operator.nodes[shard] == node) {
            operator.disconnect(shard);
        }
    }

    /// Whether no operator has anything to do.
    pub fn are_operators_done(&self) -> bool {
        self.operators.iter().all(|operator| operator.at == At::Ended)
    }
}

/// The message of this number.
pub(super) fn newest<T>(messages: &[T], number: usize) -> Option<&T> {
    messages.iter().rev().nth(number)
}

fn remove<T>(messages: &mut Vec<T>, number: usize) -> bool {
    let place = messages.len().checked_sub(number + 1);
    place.map(|place| messages.remove(place)).is_some()
}
