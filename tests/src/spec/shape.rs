//! [`World::shape`]: what of a world decides how it can go on, and nothing else; so that states can be told to be the
//! same although they were reached at different times, by other requests and under other versions.

use std::collections::HashMap;
use std::hash::Hash;

use super::operator::At;
use super::shard::SHARDS;
use super::store::{Content, Entry, Node, Time};
use super::world::World;

/// Numbers in the order in which they are first met, from 1; 0 stays 0.
#[derive(Default)]
struct Names<T>(HashMap<T, u16>);

impl<T: Copy + Default + Eq + Hash> Names<T> {
    fn of(&mut self, number: T) -> u16 {
        let next = self.0.len() as u16 + 1;
        if number == T::default() { 0 } else { *self.0.entry(number).or_insert(next) }
    }

    fn rename(&mut self, content: &mut Content)
    where
        T: From<u16>,
    {
        content.version = self.of(content.version.into());
        content.signed = content.signed.map(|version| self.of(version.into()));
        content.marks.iter_mut().for_each(|mark| mark.written = 0);
    }
}

impl World {
    /// The world as it is, without what does not matter: when it is, how often something was sent, under which numbers,
    /// and what was written so long ago that no restart can take it back. For worlds in which Streams do not end and
    /// clocks are right, and only to be compared.
    #[must_use]
    pub fn shape(&self) -> Self {
        let mut shape = self.clone();
        let now = std::mem::take(&mut shape.now);
        let old = -2 * (self.times.confirm_after + self.times.disk_lag + 1);
        let since = |time: Time| (time - now).max(old);
        let (mut versions, mut requests) = (Names::<u16>::default(), Names::<u32>::default());
        shape.requests_sent = 0;
        let mut all_safe = [0; SHARDS];
        for (shard, safe) in shape.shards.iter_mut().zip(&mut all_safe) {
            shard.versions = 0;
            let on_disk = |node: &Node| node.on_disk(now, self.times.disk_lag) - 1;
            *safe = shard.nodes.iter().map(on_disk).min().unwrap_or(0);
            for node in &mut shard.nodes {
                node.history.drain(..*safe);
                for Entry { content, at } in &mut node.history {
                    versions.rename(content);
                    *at = since(*at);
                }
                node.writes_until = (node.writes_until - now).max(0);
            }
        }
        for operator in &mut shape.operators {
            let (from, to) = (operator.from, operator.to());
            match &mut operator.at {
                At::ConfirmFence { entry, deadline, .. } => {
                    (*entry, *deadline) = (entry.saturating_sub(all_safe[from]), since(*deadline));
                }
                At::ConfirmBar { entry, deadline, .. } => {
                    (*entry, *deadline) = (entry.saturating_sub(all_safe[to]), since(*deadline));
                }
                At::SettleSource { entry, .. } => *entry = entry.saturating_sub(all_safe[from]),
                At::SettleSwitch { entry, .. } => *entry = entry.saturating_sub(all_safe[to]),
                At::Switch { copy, deadline, .. } => {
                    versions.rename(copy);
                    *deadline = since(*deadline);
                }
                At::Unfence { deadline, .. } => *deadline = since(*deadline),
                At::Ended | At::Look | At::Do(_) | At::Retire { .. } => {}
            }
        }
        let mut id = |request: &mut u16| *request = requests.of(u32::from(*request) + 1);
        for lane in shape.agents.iter_mut().flat_map(|agent| &mut agent.lanes) {
            lane.began_at = 0;
            for sealed in &mut lane.retained {
                (sealed.sealed_at, sealed.sealed_truly_at) = (0, 0);
                sealed.answered_at = sealed.answered_at.map(since);
            }
            lane.loss = lane.loss.map(|told| told.map(since));
            if let Some(flight) = &mut lane.in_flight {
                id(&mut flight.request);
                flight.sent = since(flight.sent);
            }
        }
        let waiting = shape.servers.iter_mut().flat_map(|server| &mut server.waiting);
        for request in shape.requests.iter_mut().chain(waiting) {
            id(&mut request.id);
            request.sent_at = 0;
        }
        for answer in &mut shape.answers {
            id(&mut answer.request);
            answer.clock = 0;
        }
        for server in &mut shape.servers {
            if let Some(cache) = &mut server.cache {
                versions.rename(cache);
            }
            if self.shards.len() > 1 {
                server.links.iter_mut().for_each(|link| link.since = since(link.since));
            }
            server.signed = server.signed.map(|version| versions.of(version));
            if let Some(question) = &mut server.question {
                question.entry = question.entry.saturating_sub(all_safe[server.place]);
                question.marks.iter_mut().for_each(|mark| mark.written = 0);
            }
        }
        shape
    }

    /// Whether this Lane has nothing to send, and has kept something for T that it was not asked about since.
    pub fn is_to_ask(&self, agent: usize, lane: usize) -> bool {
        let agent = &self.agents[agent];
        let Some(lane) = agent.lanes.get(lane) else { return false };
        let has_more = lane.next().is_some() || (lane.is_open && !agent.blocks.is_empty());
        let kept = lane.retained.last().map(|sealed| sealed.answered_at);
        let is_due =
            |since: Option<Time>| since.is_none_or(|since| since + self.times.confirm_after <= self.now);
        !has_more && kept.into_iter().chain(lane.loss).all(is_due)
    }

    /// Whether this Lane waits for an answer that will never come: neither it nor what it answers is anywhere.
    pub fn is_in_vain(&self, agent: usize, lane: usize) -> bool {
        let Some(flight) = self.agents[agent].lanes.get(lane).and_then(|lane| lane.in_flight) else {
            return false;
        };
        let waiting = self.servers.iter().flat_map(|server| &server.waiting);
        let mut asked = self.requests.iter().chain(waiting).map(|request| request.id);
        let mut answered = self.answers.iter().map(|answer| answer.request);
        !asked.any(|id| id == flight.request) && !answered.any(|id| id == flight.request)
    }
}
