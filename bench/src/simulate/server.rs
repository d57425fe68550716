//! [`SimulatedServer`]: the planners of a Server as they are, scheduled as a worker does it, on a simulated clock.

use std::collections::BTreeMap;
use std::time::Duration;

use taba_agent::dispatcher::RequestId;
use taba_core::limits::FUTURE_MICROS_MAX;
use taba_core::wire::{Ack, Lanes};
use taba_core::{Registry, Version};
use taba_server::planner::{Env, IncomingMessage, Planner, PlannerAction, PlannerInput};
use taba_server::{Status, Versions};

use super::shards::StoreCall;
use super::time;

/// How long after the last one a VBucket is committed again: the default of a Server.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

/// What the planner of one VBucket needs beside it.
#[derive(Default)]
struct PlannerSlot {
    planner: Planner<u64>,
    begun: Option<Duration>,
    is_scheduled: bool,
    is_behind: bool,
}

/// A request whose messages are not all answered.
struct OpenRequest {
    agent: usize,
    request: RequestId,
    acks: Vec<Ack>,
    missing: usize,
}

/// What a Server wants done.
pub(super) enum ServerAction {
    Call(u16, StoreCall),
    Stabilise(u16, Version),
    Answer { agent: usize, request: RequestId, acks: Vec<Ack> },
    CommitAt(u16, Duration),
}

/// What a Server has counted, over all its processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServerCounts {
    pub(super) commits: u64,
    pub(super) conflicts: u64,
    pub(super) duplicates: u64,
    pub(super) store_errors: u64,
}

impl ServerCounts {
    /// What came since then.
    pub(super) const fn since(self, before: Self) -> Self {
        Self {
            commits: self.commits - before.commits,
            conflicts: self.conflicts - before.conflicts,
            duplicates: self.duplicates - before.duplicates,
            store_errors: self.store_errors - before.store_errors,
        }
    }
}

impl std::iter::Sum for ServerCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, one| Self {
            commits: sum.commits + one.commits,
            conflicts: sum.conflicts + one.conflicts,
            duplicates: sum.duplicates + one.duplicates,
            store_errors: sum.store_errors + one.store_errors,
        })
    }
}

/// A Server.
pub(super) struct SimulatedServer {
    /// Which process it is; another number after each start.
    pub(super) process: u64,
    pub(super) is_up: bool,
    /// Whether its machine is gone, so that nobody even refuses a connection.
    pub(super) is_vanished: bool,
    slots: BTreeMap<u16, PlannerSlot>,
    open: BTreeMap<u64, OpenRequest>,
    requests: u64,
    versions: Versions,
    status: Status,
    /// Which shard it takes for the owner of each VBucket.
    pub(super) view: Vec<u16>,
    pub(super) busy_until: Duration,
}

impl SimulatedServer {
    pub(super) fn new(process: u64, view: &[u16]) -> Self {
        Self {
            process,
            is_up: true,
            is_vanished: false,
            slots: BTreeMap::new(),
            open: BTreeMap::new(),
            requests: 0,
            versions: Versions::new(process),
            status: Status::default(),
            view: view.to_vec(),
            busy_until: Duration::ZERO,
        }
    }

    /// Its process ends; answers whose requests stay without an answer.
    pub(super) fn end(&mut self) -> Vec<(usize, RequestId)> {
        self.is_up = false;
        self.slots.clear();
        std::mem::take(&mut self.open).into_values().map(|open| (open.agent, open.request)).collect()
    }

    /// Another process begins in its place.
    pub(super) fn start(&mut self, process: u64, view: &[u16]) {
        (self.is_up, self.is_vanished, self.process) = (true, false, process);
        (self.versions, self.view) = (Versions::new(process), view.to_vec());
    }

    pub(super) fn counts(&self) -> ServerCounts {
        let report = self.status.report();
        ServerCounts {
            commits: report.commits,
            conflicts: report.conflicts,
            duplicates: report.batches_duplicate,
            store_errors: report.store_errors,
        }
    }

    /// Takes the messages of a request.
    pub(super) fn take(
        &mut self,
        now: Duration,
        (agent, request): (usize, RequestId),
        lanes: Lanes,
        handlers: &Registry,
        actions: &mut Vec<ServerAction>,
    ) {
        self.requests += 1;
        let (ticket, sent_at, arrived) = (self.requests, lanes.sent_at, time(now));
        let batches = lanes.batches.into_iter().map(IncomingMessage::Batch);
        let messages: Vec<_> = batches.chain(lanes.probes.into_iter().map(IncomingMessage::Probe)).collect();
        self.open.insert(ticket, OpenRequest { agent, request, acks: Vec::new(), missing: messages.len() });
        for message in messages {
            let vbucket = message.vbucket();
            self.feed(
                now,
                vbucket,
                PlannerInput::Message { ticket, message, arrived, sent_at },
                handlers,
                actions,
            );
        }
    }

    /// It is time to commit a VBucket.
    pub(super) fn commit(
        &mut self,
        now: Duration,
        vbucket: u16,
        handlers: &Registry,
        actions: &mut Vec<ServerAction>,
    ) {
        let slot = self.slots.entry(vbucket).or_default();
        (slot.is_scheduled, slot.begun) = (false, Some(now));
        self.feed(now, vbucket, PlannerInput::Due, handlers, actions);
        let slot = self.slots.entry(vbucket).or_default();
        slot.is_behind = slot.planner.is_waiting();
    }

    /// Gives a planner one input.
    pub(super) fn feed(
        &mut self,
        now: Duration,
        vbucket: u16,
        input: PlannerInput<u64>,
        handlers: &Registry,
        actions: &mut Vec<ServerAction>,
    ) {
        let future_max = Duration::from_micros(FUTURE_MICROS_MAX as u64);
        let env = Env::new(handlers, &self.versions, &self.status, time(now), future_max);
        let slot = self.slots.entry(vbucket).or_default();
        let mut wanted = Vec::new();
        slot.planner.handle(input, &env, &mut wanted);
        if !slot.is_scheduled && slot.planner.is_idle() && slot.planner.is_waiting() {
            slot.is_scheduled = true;
            let due = slot.begun.filter(|_| !slot.is_behind).map_or(now, |begun| begun + COMMIT_INTERVAL);
            actions.push(ServerAction::CommitAt(vbucket, due.max(now)));
        }
        for action in wanted {
            match action {
                PlannerAction::Load(wanted) => {
                    actions.push(ServerAction::Call(vbucket, StoreCall::Load(wanted)));
                }
                PlannerAction::Commit(commit) => {
                    actions.push(ServerAction::Call(vbucket, StoreCall::Commit(commit)));
                }
                PlannerAction::Stabilise(version) => actions.push(ServerAction::Stabilise(vbucket, version)),
                PlannerAction::Answer(ticket, ack) => self.answer(ticket, ack, actions),
                other => panic!("nothing in the simulation is refused or cannot be read: {other:?}"),
            }
        }
    }

    fn answer(&mut self, ticket: u64, ack: Ack, actions: &mut Vec<ServerAction>) {
        let open = self.open.get_mut(&ticket).expect("a request stays open until all is answered");
        open.acks.push(ack);
        open.missing -= 1;
        if open.missing == 0
            && let Some(OpenRequest { agent, request, acks, .. }) = self.open.remove(&ticket)
        {
            actions.push(ServerAction::Answer { agent, request, acks });
        }
    }
}
