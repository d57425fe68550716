//! What breaks, comes back and moves.

use std::time::Duration;

use taba_agent::dispatcher::FailureCause;
use taba_shard::migration::MoveStep;

use super::{Event, World};
use crate::simulate::moves::{Move, Moves};

/// What a move costs two Redis processes, from bench `moves`: for every 1,000 bytes, and for every field, read or written
/// and read again.
const SOURCE_KILOBYTE: Duration = Duration::from_nanos(900);
const SOURCE_FIELD: Duration = Duration::from_nanos(1_600);
const DESTINATION_KILOBYTE: Duration = Duration::from_nanos(2_800);
const DESTINATION_FIELD: Duration = Duration::from_nanos(2_800);
/// Until a mover asks a shard again that did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl World {
    fn some(&mut self, count: usize) -> Vec<usize> {
        let wanted = ((count as f64 * self.options.share).round() as usize).clamp(1, count);
        let mut chosen = Vec::new();
        while chosen.len() < wanted {
            let one = self.noise.number() as usize % count;
            if !chosen.contains(&one) {
                chosen.push(one);
            }
        }
        chosen
    }

    /// Some Servers end: their processes are killed, or their machines vanish.
    pub(in crate::simulate) fn lose_servers(&mut self, is_vanished: bool) {
        self.down = self.some(self.servers.len());
        for server in self.down.clone() {
            let open = self.servers[server].end();
            self.servers[server].is_vanished = is_vanished;
            for (agent, request) in open {
                let (at, cause) = if is_vanished {
                    (self.agenda.now() + self.config.request_timeout, FailureCause::Away)
                } else {
                    (self.next_at_agent(), FailureCause::Broken)
                };
                self.agenda.at(at, Event::Failure { agent, server, request, cause });
            }
        }
    }

    pub(in crate::simulate) fn restart_servers(&mut self) {
        for server in std::mem::take(&mut self.down) {
            let process = self.noise.number();
            self.servers[server].start(process, self.shards.owners());
        }
    }

    /// Some shards are away from now on.
    pub(in crate::simulate) fn lose_shards(&mut self) {
        let chosen = self.some(self.shards.count().into());
        self.away = chosen.into_iter().map(|shard| shard as u16).collect();
        self.away_since = self.agenda.now();
        for shard in &self.away {
            self.shards.set_away(*shard, true);
        }
        let owners = self.shards.owners().iter().enumerate();
        let touched =
            owners.filter(|(_, owner)| self.away.contains(owner)).map(|(vbucket, _)| vbucket as u16);
        self.measures.touched = touched.collect();
    }

    /// They are back as they were, or their replicas take over.
    pub(in crate::simulate) fn return_shards(&mut self, fails_over: bool) {
        for shard in std::mem::take(&mut self.away) {
            if fails_over {
                let (lost, taken_back) = self.shards.fail_over(shard, self.away_since);
                self.measures.lost_commits += lost;
                let of_agents =
                    taken_back.into_iter().filter(|((stream, _), _)| self.streams.contains_key(stream));
                self.taken_back.extend(of_agents);
            } else {
                self.shards.set_away(shard, false);
            }
        }
    }

    /// Adds shards, and begins to move VBuckets to them.
    pub(in crate::simulate) fn reshard(&mut self) {
        let more = (f64::from(self.shards.count()) * self.options.share).round().max(1.0) as u16;
        self.shards.add(more);
        self.moves = Some(Moves::plan(self.agenda.now(), self.shards.owners(), self.shards.count()));
        self.move_more();
    }

    fn move_more(&mut self) {
        while let Some(moving) = self.moves.as_mut().and_then(Moves::begin) {
            self.measures.touched.insert(moving.vbucket);
            self.decide_move(moving);
        }
    }

    fn round_trip(&mut self) -> Duration {
        self.latency(self.options.store_network_ms) + self.latency(self.options.store_network_ms)
    }

    /// The heads of both copies are read, which takes a round trip, and the next step is begun.
    pub(super) fn decide_move(&mut self, moving: Move) {
        let vbucket = self.config.vbuckets().get(moving.vbucket);
        let (Some(moves), Some(vbucket)) = (&self.moves, vbucket) else { return };
        let step = moves.step(moving, vbucket);
        if step == MoveStep::Done {
            return;
        }
        let read = self.agenda.now() + self.round_trip();
        if [moving.from, moving.to].into_iter().any(|shard| self.shards.is_away(shard)) {
            return self.agenda.at(read + RETRY_PAUSE, Event::Decide(moving));
        }
        let at = match step {
            MoveStep::Copy { .. } => self.copied_at(moving),
            // Once what the destination holds is stable.
            MoveStep::Retire { .. } => read + self.stable_after(),
            _ => read + self.latency(self.options.store_network_ms),
        };
        self.agenda.at(at, Event::Step(moving, step));
    }

    /// When a VBucket that is fenced now is switched: the source is read, the indexes, the destination written, the switch.
    fn copied_at(&mut self, moving: Move) -> Duration {
        let (bytes, fields) = self.shards.size(moving.vbucket);
        let work = |byte: Duration, field: Duration| (byte * bytes as u32) / 1000 + field * fields as u32;
        let now = self.agenda.now();
        let read = self.shards.work(moving.from, now, work(SOURCE_KILOBYTE, SOURCE_FIELD));
        let arrived = read + self.round_trip();
        let written = self.shards.work(moving.to, arrived, work(DESTINATION_KILOBYTE, DESTINATION_FIELD));
        written + self.round_trip() + self.round_trip()
    }

    pub(super) fn do_step(&mut self, moving: Move, step: MoveStep) {
        let now = self.agenda.now();
        if [moving.from, moving.to].into_iter().any(|shard| self.shards.is_away(shard)) {
            return self.agenda.at(now + RETRY_PAUSE, Event::Decide(moving));
        }
        match step {
            MoveStep::Fence { .. } => self.shards.fence(moving.vbucket),
            MoveStep::Copy { .. } => self.shards.switch(moving.vbucket, moving.to),
            _ => {}
        }
        let (bytes, _) = self.shards.size(moving.vbucket);
        if self.moves.as_mut().is_some_and(|moves| moves.done(now, moving, step, bytes)) {
            self.move_more();
        }
        self.decide_move(moving);
    }
}
