//! [`World`]: Agents, Servers and shards, and the network between them.

mod faults;
mod phases;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use taba_agent::dispatcher::{FailureCause, Input, Request, RequestId};
use taba_agent::{Config, Verified};
use taba_core::wire::{Ack, Lanes, encode_acks};
use taba_core::{ClientId, Commit, Committed, Envelope, Noise, Registry, StreamId, Version};
use taba_server::planner::{PlannerInput, StoreFailed};
use taba_shard::limits::{DISK_LAG, RESPONSE_TIMEOUT, STABLE_POLL_INTERVAL};
use taba_shard::migration::MoveStep;

use super::agenda::Agenda;
use super::agent::SimulatedAgent;
use super::measures::{Measures, PhaseReport};
use super::moves::{Move, Moves};
use super::server::{ServerAction, ServerCounts, SimulatedServer};
use super::shards::{Shards, StoreCall, StoreReply, commit_bytes};
use super::{Options, time};

/// What a Server needs for a request, and for each message of it.
const REQUEST_COST: Duration = Duration::from_micros(14);
const MESSAGE_COST: Duration = Duration::from_micros(5);

enum Event {
    Flush(usize),
    Wake(usize, Duration),
    /// A request reaches a Server.
    Request {
        agent: usize,
        server: usize,
        request: RequestId,
        message: Bytes,
        sent: Duration,
    },
    /// An answer, or the news that there is none, reaches an Agent.
    Answer {
        agent: usize,
        server: usize,
        process: u64,
        request: RequestId,
        acks: Vec<Ack>,
    },
    Failure {
        agent: usize,
        server: usize,
        request: RequestId,
        cause: FailureCause,
    },
    /// It is time to commit a VBucket.
    Due {
        server: usize,
        process: u64,
        vbucket: u16,
    },
    /// A call reaches a shard.
    Call {
        server: usize,
        process: u64,
        vbucket: u16,
        shard: u16,
        call: StoreCall,
        sent: Duration,
    },
    /// What became of it reaches its Server.
    Outcome {
        server: usize,
        process: u64,
        vbucket: u16,
        input: Box<PlannerInput<u64>>,
    },
    /// What a Server waits for is on the replica, and on its disk.
    Stable {
        server: usize,
        process: u64,
        vbucket: u16,
        version: Version,
        shard: u16,
        history: u32,
    },
    /// A mover decides what comes next.
    Decide(Move),
    /// A step of a move takes effect.
    Step(Move, MoveStep),
}

pub(super) struct World {
    options: Options,
    config: Verified<Config>,
    handlers: Registry,
    agenda: Agenda<Event>,
    noise: Noise,
    agents: Vec<SimulatedAgent>,
    /// Whose Stream it is, and whose Client.
    streams: BTreeMap<StreamId, usize>,
    clients: BTreeMap<ClientId, usize>,
    servers: Vec<SimulatedServer>,
    /// Which Servers are down, which shards away, and since when.
    down: Vec<usize>,
    away: Vec<u16>,
    away_since: Duration,
    shards: Shards,
    /// What a failover took back and is not there again: the events at the mark of each Lane.
    taken_back: BTreeMap<(StreamId, u16), u64>,
    moves: Option<Moves>,
    is_recording: bool,
    recorded: u64,
    measures: Measures,
    phase: &'static str,
    phase_begun: Duration,
    counts_before: ServerCounts,
    reports: Vec<PhaseReport>,
}

impl World {
    pub(super) fn new(options: Options) -> Result<Self, String> {
        let handlers = taba_handlers::standard().build().map_err(|error| error.to_string())?;
        if handlers.get(&options.tab_type).is_none() {
            return Err(format!("there is no tab type {}; see taba-handlers", options.tab_type));
        }
        if options.agents
            * options.servers
            * usize::from(options.shards)
            * options.tabs
            * options.tabs_per_agent
            == 0
        {
            return Err("agents, servers, shards and tabs must be at least 1".into());
        }
        if f64::from(options.shards) * (1.0 + options.share) > f64::from(options.vbuckets) {
            return Err("there are fewer vbuckets than shards: some would keep nothing".into());
        }
        let servers = (0..options.servers).map(|n| format!("http://server{n}:8300").parse());
        let mut config = Config::default();
        config.servers = servers.collect::<Result<_, _>>().map_err(|error| format!("{error}"))?;
        (config.vbuckets, config.memory_bytes_max) = (options.vbuckets, 1 << 40);
        let config = config.verify().map_err(|error| taba_core::causes(&error))?;
        let mut noise = Noise::new(options.seed);
        let lag = Duration::from_secs_f64(options.replica_lag_ms / 1e3);
        let shards = Shards::new(options.shards, config.vbuckets().count(), lag);
        let agents: Vec<_> = (0..options.agents)
            .map(|number| SimulatedAgent::new(number, &config, &handlers, &options, &mut noise))
            .collect();
        let servers =
            (0..options.servers).map(|_| SimulatedServer::new(noise.number(), shards.owners())).collect();
        let mut world = Self {
            config,
            handlers,
            agenda: Agenda::new(),
            clients: agents.iter().enumerate().map(|(place, agent)| (agent.client.clone(), place)).collect(),
            agents,
            streams: BTreeMap::new(),
            servers,
            down: Vec::new(),
            away: Vec::new(),
            away_since: Duration::ZERO,
            shards,
            taken_back: BTreeMap::new(),
            moves: None,
            is_recording: true,
            recorded: 0,
            measures: Measures::default(),
            phase: "",
            phase_begun: Duration::ZERO,
            counts_before: ServerCounts::default(),
            reports: Vec::new(),
            noise,
            options,
        };
        for agent in 0..world.agents.len() {
            let offset = world.flush_interval().mul_f64(world.noise.fraction());
            world.agenda.at(offset, Event::Flush(agent));
        }
        Ok(world)
    }

    fn flush_interval(&self) -> Duration {
        Duration::from_millis(self.options.flush_ms)
    }

    /// How long until what is written is on the replica and on its disk, and a Server knows.
    fn stable_after(&self) -> Duration {
        Duration::from_secs_f64(self.options.replica_lag_ms / 1e3) + DISK_LAG + STABLE_POLL_INTERVAL
    }

    /// About so many milliseconds: from the half up, with a tail.
    fn latency(&mut self, milliseconds: f64) -> Duration {
        let tail = -(1.0 - self.noise.fraction()).ln();
        Duration::from_secs_f64(milliseconds * (0.5 + 0.5 * tail) / 1e3)
    }

    fn next_at_agent(&mut self) -> Duration {
        self.agenda.now() + self.latency(self.options.network_ms)
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.agenda.now() + time;
        while let Some(event) = self.agenda.next(until) {
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Flush(agent) => self.flush(agent),
            Event::Wake(agent, at) => {
                if self.agents[agent].wakes_at == Some(at) {
                    self.agents[agent].wakes_at = None;
                    self.tell_agent(agent, Input::Tick);
                }
            }
            Event::Request { agent, server, request, message, sent } => {
                self.request(agent, server, request, &message, sent);
            }
            Event::Answer { agent, server, process, request, acks } => {
                self.answer(agent, server, process, request, acks);
            }
            Event::Failure { agent, server, request, cause } => {
                self.measures.failed_requests += 1;
                if cause != FailureCause::Broken {
                    self.agents[agent].lost.insert(server);
                }
                self.tell_agent(
                    agent,
                    Input::Failed { request, cause, why: "simulated".into(), retry_after: None },
                );
            }
            Event::Due { server, process, vbucket } => {
                self.with_server(server, process, |server, now, handlers, actions| {
                    server.commit(now, vbucket, handlers, actions);
                });
            }
            Event::Call { server, process, vbucket, shard, call, sent } => {
                self.call((server, process), vbucket, shard, call, sent);
            }
            Event::Outcome { server, process, vbucket, input } => {
                self.with_server(server, process, |server, now, handlers, actions| {
                    server.feed(now, vbucket, *input, handlers, actions);
                });
            }
            Event::Stable { server, process, vbucket, version, shard, history } => {
                let owner = self.shards.owners()[usize::from(vbucket)];
                let holds =
                    owner == shard && self.shards.history(shard) == history && !self.shards.is_away(shard);
                let result = if holds { Ok(()) } else { Err(StoreFailed) };
                self.with_server(server, process, |server, now, handlers, actions| {
                    server.feed(now, vbucket, PlannerInput::Stabilised(version, result), handlers, actions);
                });
            }
            Event::Decide(moving) => self.decide_move(moving),
            Event::Step(moving, step) => self.do_step(moving, step),
        }
    }

    fn flush(&mut self, agent: usize) {
        if self.is_recording {
            let now = self.agenda.now();
            self.recorded += self.agents[agent].flush(now, &self.config, &self.options);
            self.agenda.at(now + self.flush_interval(), Event::Flush(agent));
            self.tell_agent(agent, Input::Tick);
        }
    }

    /// Gives an Agent an input, sends what it sends, and notes when it wants to be woken.
    fn tell_agent(&mut self, agent: usize, input: Input) {
        let now = self.agenda.now();
        for request in self.agents[agent].handle(now, input) {
            self.send(agent, &request);
        }
        let wakes_at = self.agents[agent].relay.next_wake().map(|at| at.max(now));
        if wakes_at != self.agents[agent].wakes_at {
            self.agents[agent].wakes_at = wakes_at;
            if let Some(at) = wakes_at {
                self.agenda.at(at, Event::Wake(agent, at));
            }
        }
    }

    fn send(&mut self, agent: usize, request: &Request) {
        let message = Bytes::from(request.message());
        self.measures.requests += 1;
        self.measures.request_bytes += message.len() as u64;
        self.measures.batches += request.batches.len() as u64;
        for lane in request.lanes() {
            self.streams.entry(lane.stream).or_insert(agent);
        }
        let (server, sent, request) = (request.server, self.agenda.now(), request.id);
        let at = sent + self.latency(self.options.network_ms);
        self.agenda.at(at, Event::Request { agent, server, request, message, sent });
    }

    fn request(&mut self, agent: usize, server: usize, request: RequestId, message: &Bytes, sent: Duration) {
        let now = self.agenda.now();
        if !self.servers[server].is_up {
            let (at, cause) =
                match (self.servers[server].is_vanished, self.agents[agent].lost.contains(&server)) {
                    (false, _) => (self.next_at_agent(), FailureCause::Unreached),
                    // Over a connection that was there before.
                    (true, false) => (sent + self.config.request_timeout, FailureCause::Away),
                    (true, true) => (sent + self.config.connect_timeout, FailureCause::Unreached),
                };
            return self.agenda.at(at, Event::Failure { agent, server, request, cause });
        }
        let lanes = Lanes::decode(message).expect("an Agent sends what a Server can read");
        let messages = (lanes.batches.len() + lanes.probes.len()) as u32;
        let busy_until = self.servers[server].busy_until.max(now) + REQUEST_COST + MESSAGE_COST * messages;
        self.servers[server].busy_until = busy_until;
        let process = self.servers[server].process;
        self.with_server(server, process, |server, now, handlers, actions| {
            server.take(now, (agent, request), lanes, handlers, actions);
        });
    }

    fn answer(&mut self, agent: usize, server: usize, process: u64, request: RequestId, acks: Vec<Ack>) {
        self.agents[agent].lost.remove(&server);
        let server_time = Some(time(self.agenda.now()));
        self.tell_agent(agent, Input::Answered { request, acks, server_time });
        // Agents ask who answers, and a process that they have not met may have a store that forgot.
        if self.agents[agent].processes.insert(process) {
            self.tell_agent(agent, Input::NewServer);
        }
    }

    /// Lets the process of a Server do something, unless it has ended since.
    fn with_server(
        &mut self,
        place: usize,
        process: u64,
        what: impl FnOnce(&mut SimulatedServer, Duration, &Registry, &mut Vec<ServerAction>),
    ) {
        let server = &mut self.servers[place];
        if !server.is_up || server.process != process {
            return;
        }
        let (now, mut actions) = (self.agenda.now(), Vec::new());
        what(server, now, &self.handlers, &mut actions);
        for action in actions {
            self.perform(place, process, action);
        }
    }

    fn perform(&mut self, server: usize, process: u64, action: ServerAction) {
        let now = self.agenda.now();
        match action {
            ServerAction::CommitAt(vbucket, at) => {
                self.agenda.at(at, Event::Due { server, process, vbucket });
            }
            ServerAction::Call(vbucket, call) => {
                match &call {
                    StoreCall::Load(_) => self.measures.loads += 1,
                    StoreCall::Commit(commit) => self.measures.commit_bytes += commit_bytes(commit) as u64,
                }
                let shard = self.servers[server].view[usize::from(vbucket)];
                let at = now.max(self.servers[server].busy_until);
                self.send_call((server, process), vbucket, shard, call, at);
            }
            ServerAction::Stabilise(vbucket, version) => {
                let shard = self.servers[server].view[usize::from(vbucket)];
                let history = self.shards.history(shard);
                let at = now + self.stable_after();
                self.agenda.at(at, Event::Stable { server, process, vbucket, version, shard, history });
            }
            ServerAction::Answer { agent, request, acks } => {
                self.measures.answer_bytes += encode_acks(&acks).len() as u64;
                let at = self.next_at_agent().max(self.servers[server].busy_until);
                let is_lost = self.noise.number() % 10_000 < self.options.lost_answers;
                let event = if is_lost {
                    Event::Failure { agent, server, request, cause: FailureCause::Broken }
                } else {
                    Event::Answer { agent, server, process, request, acks }
                };
                self.agenda.at(at, event);
            }
        }
    }

    fn send_call(
        &mut self,
        (server, process): (usize, u64),
        vbucket: u16,
        shard: u16,
        call: StoreCall,
        sent: Duration,
    ) {
        self.measures.calls += 1;
        let at = sent + self.latency(self.options.store_network_ms);
        self.agenda.at(at, Event::Call { server, process, vbucket, shard, call, sent });
    }

    /// A call reaches a shard.
    fn call(
        &mut self,
        (server, process): (usize, u64),
        vbucket: u16,
        shard: u16,
        call: StoreCall,
        sent: Duration,
    ) {
        let now = self.agenda.now();
        let back = now + self.latency(self.options.store_network_ms);
        let owner = self.shards.owners()[usize::from(vbucket)];
        let failed = |call: &StoreCall| match call {
            StoreCall::Load(_) => PlannerInput::Loaded(Err(StoreFailed)),
            StoreCall::Commit(_) => PlannerInput::Committed(Err(StoreFailed)),
        };
        if self.shards.is_away(shard) {
            let input = Box::new(failed(&call));
            return self
                .agenda
                .at(sent + RESPONSE_TIMEOUT, Event::Outcome { server, process, vbucket, input });
        }
        if owner != shard {
            // It says where the VBucket went, and the Server follows.
            self.servers[server].view[usize::from(vbucket)] = owner;
            return self.send_call((server, process), vbucket, owner, call, back);
        }
        if self.shards.is_fenced(vbucket) {
            let input = Box::new(failed(&call));
            return self.agenda.at(back, Event::Outcome { server, process, vbucket, input });
        }
        let commit = match &call {
            StoreCall::Commit(commit) => Some(commit.clone()),
            StoreCall::Load(_) => None,
        };
        let (done, reply) = self.shards.serve(now, vbucket, call);
        let input = match reply {
            StoreReply::Loaded(loaded) => PlannerInput::Loaded(Ok(loaded)),
            StoreReply::Committed(committed) => {
                if let (Some(commit), Committed::Done) = (commit, committed) {
                    self.committed(done, vbucket, &commit);
                }
                PlannerInput::Committed(Ok(committed))
            }
        };
        let at = done + (back - now);
        self.agenda.at(at, Event::Outcome { server, process, vbucket, input: Box::new(input) });
    }

    /// Counts what a commit brought.
    fn committed(&mut self, done: Duration, vbucket: u16, commit: &Commit) {
        let (agents, measures) = (&mut self.agents, &mut self.measures);
        measures.states += commit.states.len() as u64;
        for (stream, mark) in &commit.marks {
            // Servers sign with marks of their own.
            let (Some(agent), Some(mark)) = (self.streams.get(stream), mark) else { continue };
            measures.marks += 1;
            if let Some(offered) = agents[*agent].offered.get_mut(&vbucket) {
                offered.committed(mark.events, |events, taken| {
                    measures.folded_events += events;
                    measures.fresh(vbucket, taken, done);
                });
            }
            let key = (*stream, vbucket);
            if self.taken_back.get(&key).is_some_and(|events| mark.events >= *events) {
                self.taken_back.remove(&key);
                measures.replayed_at = Some(done);
            }
        }
        // What the Ledger notes is no event of a Lane: its States tell.
        for (key, _, bytes) in commit.states.iter().filter(|(key, ..)| key.tab.is_reserved()) {
            let (Some(agent), Some(bytes)) = (self.clients.get(&key.client), bytes) else { continue };
            let notes = Envelope::decode(bytes).map_or(0, |envelope| envelope.events);
            agents[*agent].notes.committed(notes, |_, taken| measures.fresh(vbucket, taken, done));
        }
    }
}
