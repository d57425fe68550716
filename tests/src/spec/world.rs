//! [`World`]: Agents, a network, Servers and a store, and every [`Step`] that any of them can take next.
//!
//! Nothing happens by itself and nothing is forbidden to be late: time is a step, and so is every delivery. Whoever
//! chooses the steps is the adversary.

use super::lane::Agent;
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
    };
}

/// How large the world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// How many Agents.
    pub agents: usize,
    /// How many Servers.
    pub servers: usize,
    /// The primary and its replicas.
    pub nodes: usize,
    /// Events, at most 16.
    pub events: u8,
    /// Whether a request may arrive twice, or after its sender has given it up.
    pub repeats: bool,
}

/// What happens next. Messages under way are counted from the newest, which is 0. A step that cannot happen now changes nothing.
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
    /// The ruling node starts again without its newest writes, as many as this if its disk lacked them.
    Restart(usize),
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
            Self::FailOver(_) | Self::Split(_) | Self::Cut(_) | Self::Restart(_) => true,
        }
    }
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A store holds events more than once.
    Twice(Events),
    /// An Agent let go of events that a node lacks which may rule.
    LetGoTooEarly(Events),
    /// Events are in no store that rules, with no Agent, and were not thrown away.
    Gone(Events),
    /// More events are counted as lost than were.
    CountedTooMany(u8),
    /// After all faults had stopped, Agents still held something.
    NotDrained(Events),
    /// After all was drained, so many lost events were not counted.
    NotCounted(u8),
    /// An Agent threw away as too old what it had taken a moment before.
    ThrownAway(Events),
    /// Without any fault the world comes back to where it was: it may go on so forever.
    Cycle,
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
    /// The store.
    pub store: Store,
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
        Self {
            times,
            rules,
            size,
            now: START,
            store: Store::new(size.nodes),
            servers: (0..size.servers).map(|me| Server::new(me, 0)).collect(),
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
                let (now, lag, rules) = (self.now, self.times.disk_lag, self.rules);
                self.servers[server].learn(&self.store, now, lag, rules)
            }
            Step::Kill(server) => {
                let clock_off = self.servers[server].clock_off;
                self.servers[server] = Server::new(server, self.store.ruling);
                self.servers[server].clock_off = clock_off;
                true
            }
            Step::Reconnect(server) => {
                let moves = self.servers[server].node != self.store.ruling;
                self.servers[server].node = self.store.ruling;
                moves
            }
            Step::SetClock(server, faults) => self.set_clock(server, faults),
            Step::Replicate(node) => self.store.replicate(node, self.now),
            Step::FailOver(to) => self.fail_over(to, 0),
            Step::Split(to) => self.fail_over(to, self.now + self.times.split_writes),
            Step::Follow(node) => {
                let ruling = self.store.ruling;
                let can = node != ruling && self.store.nodes[node].follows != Some(ruling);
                if can {
                    self.store.follow(node);
                }
                can
            }
            Step::Cut(node) => self.store.nodes[node].follows.take().is_some(),
            Step::Restart(writes) => {
                let ruling = &self.store.nodes[self.store.ruling];
                let (len, on_disk) = (ruling.history.len(), ruling.on_disk(self.now, self.times.disk_lag));
                let left = len.saturating_sub(writes).max(on_disk);
                self.store.restart(left);
                left < len
            }
        }
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
        let worked = server.work(&mut self.store, self.now, &self.times, self.rules);
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
        let can = to != self.store.ruling;
        if can {
            self.store.fail_over(to, writes_until);
        }
        can
    }

    /// Looks for what must never be.
    ///
    /// # Errors
    /// The [`Violation`] found.
    pub fn audit(&self) -> Result<(), Violation> {
        let sum = |of: fn(&Agent) -> Events| {
            self.agents.iter().fold(Events::default(), |all, agent| all.and(of(agent)))
        };
        let (taken, held, lost) = (sum(|agent| agent.taken), sum(Agent::held), sum(|agent| agent.lost));
        let released = sum(|agent| agent.released);
        let lost_young = sum(|agent| agent.lost_young);
        if !lost_young.is_empty() {
            return Err(Violation::ThrownAway(lost_young));
        }
        for node in &self.store.nodes {
            let tip = node.tip();
            if !tip.folded.twice.is_empty() {
                return Err(Violation::Twice(tip.folded.twice));
            }
            let missing = lost.but(tip.folded.once).len();
            if tip.counted > missing {
                return Err(Violation::CountedTooMany(tip.counted - missing));
            }
            // Any node may rule next, and may start again from its disk.
            let on_disk = node.on_disk(self.now, self.times.disk_lag);
            let lacking = released.but(node.history[on_disk - 1].content.folded.once);
            if !lacking.is_empty() {
                return Err(Violation::LetGoTooEarly(lacking));
            }
        }
        let rules = self.store.nodes[self.store.ruling].tip();
        let gone = taken.but(rules.folded.once).but(held).but(lost);
        if gone.is_empty() { Ok(()) } else { Err(Violation::Gone(gone)) }
    }

    /// What must be once all is well and drained: every event once, in the store or in the count of what was lost.
    ///
    /// # Errors
    /// The [`Violation`] found.
    pub fn audit_drained(&self) -> Result<(), Violation> {
        self.audit()?;
        let held = self.agents.iter().fold(Events::default(), |all, agent| all.and(agent.held()));
        let is_done =
            |agent: &Agent| agent.blocks.is_empty() && agent.lanes.iter().all(super::lane::Lane::is_done);
        if !self.agents.iter().all(is_done) {
            return Err(Violation::NotDrained(held));
        }
        let rules = self.store.nodes[self.store.ruling].tip();
        let taken = self.agents.iter().fold(Events::default(), |all, agent| all.and(agent.taken));
        // What was given up with its Stream may have been counted before, or not.
        let given_up = self.agents.iter().fold(Events::default(), |all, agent| all.and(agent.given_up));
        let uncounted = taken.but(given_up).but(rules.folded.once).len().saturating_sub(rules.counted);
        if uncounted == 0 { Ok(()) } else { Err(Violation::NotCounted(uncounted)) }
    }

    /// How many Batches are contained in what rules.
    pub fn marks_sum(&self) -> u16 {
        self.store.nodes[self.store.ruling].tip().marks.iter().map(|mark| u16::from(mark.seq)).sum()
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
