//! What breaks, comes back and moves.

use std::time::Duration;

use taba_agent::dispatcher::FailureCause;

use super::{Event, World};
use crate::simulate::moves::Moves;

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

    pub(super) fn move_more(&mut self) {
        let round_trip = Duration::from_secs_f64(2.0 * self.options.store_network_ms / 1e3);
        while let Some(moving) = self.moves.as_mut().and_then(Moves::next) {
            self.shards.fence(moving.vbucket);
            self.measures.touched.insert(moving.vbucket);
            let bytes = self.shards.bytes(moving.vbucket);
            let pause = Moves::pause(bytes, round_trip);
            self.agenda.at(self.agenda.now() + pause, Event::Switch { moving, bytes, pause });
        }
    }
}
