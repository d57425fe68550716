//! The Servers as they are now: which of them suits a Lane, and how they are replaced by others while Lanes are on their
//! way.
//!
//! Requests name a Server by its place. A Server that is no longer listed keeps its place until nothing is in flight to it;
//! then the place may be taken by another.

use std::time::Duration;

use super::order::{ServerOrder, Suitability};
use super::{Dispatcher, ServerState};
use crate::health::Health;
use crate::lane::LaneKey;
use taba_core::ServerUrl;

/// A Server that answers within this is not slow.
const SLOW_MIN: Duration = Duration::from_secs(2);
/// A Server that takes so many times as long as the fastest one usually does is slow.
const SLOW_FACTOR: u32 = 8;

/// Of each Server, what speaks against sending to it now, by place.
pub(super) struct ServerLoads {
    is_hanging: Vec<bool>,
    /// Which part of its Lanes each is given, in relation to the largest part of all.
    shares: Vec<f64>,
}

impl Dispatcher {
    /// From here on these are the Servers; gives whether they were others before. Lanes whose first choice is the same stay where
    /// they are. An empty list changes nothing.
    ///
    /// # Cost
    /// When the list differs: one hash for each Lane and Server.
    pub fn set_servers(&mut self, now: Duration, servers: &[ServerUrl]) -> bool {
        let listed = || self.servers.iter().filter(|server| server.is_listed()).map(ServerState::url);
        let is_same = listed().count() == servers.len() && listed().all(|url| servers.contains(url));
        if servers.is_empty() || is_same {
            return false;
        }
        for server in &mut self.servers {
            let url = server.url().url().to_owned();
            server.list(now, servers.iter().find(|listed| listed.url() == url));
        }
        for url in servers {
            if self.servers.iter().any(|server| server.url().url() == url.url()) {
                continue;
            }
            let added = ServerState::added(url.clone(), now);
            match self.servers.iter().position(ServerState::is_gone) {
                Some(place) => self.servers[place] = added,
                None => self.servers.push(added),
            }
        }
        self.clocks.forget_refusal();
        let keys: Vec<LaneKey> = self.lanes.keys().copied().collect();
        for key in keys {
            let order = ServerOrder::new(self.order(key.vbucket));
            self.scheduled(key).order = order;
        }
        if self.flush_at.is_some() {
            (self.flush_at, self.checked_at) = (Some(now), None);
        }
        true
    }

    /// Whether a Server is in health, and does not hang.
    pub fn is_any_up(&self, now: Duration) -> bool {
        let slow_after = self.slow_after();
        let is_up = |server: &ServerState| server.is_listed() && server.health() == Health::Up;
        self.servers.iter().any(|server| is_up(server) && !server.hangs(now, slow_after))
    }

    /// Whether the Server with this URL is one of the Servers, in health, and does not hang.
    pub fn is_up(&self, now: Duration, url: &str) -> bool {
        let slow_after = self.slow_after();
        let is_up = |server: &ServerState| {
            server.is_listed() && server.health() == Health::Up && !server.hangs(now, slow_after)
        };
        self.servers.iter().any(|server| server.url().url() == url && is_up(server))
    }

    /// A Server that does not answer a request for this long hangs, or is slow.
    pub(super) fn slow_after(&self) -> Duration {
        let fastest = self.servers.iter().filter_map(ServerState::latency).min();
        fastest.map_or(SLOW_MIN, |fastest| (fastest * SLOW_FACTOR).max(SLOW_MIN))
    }

    /// When Servers that have requests in flight begin to hang, earliest first; a moment that is over is one, too.
    pub(super) fn hangs_at(&self) -> impl Iterator<Item = Duration> {
        let slow_after = self.slow_after();
        let oldest = self.servers.iter().filter(|server| server.is_listed() && self.servers.len() > 1);
        let mut times: Vec<_> =
            oldest.filter_map(|server| Some(server.oldest_in_flight()? + slow_after)).collect();
        times.sort_unstable();
        times.into_iter()
    }

    pub(super) fn server_loads(&self, now: Duration) -> ServerLoads {
        let slow_after = self.slow_after();
        let in_health = |server: &&ServerState| server.is_listed() && server.health() == Health::Up;
        let largest =
            self.servers.iter().filter(in_health).map(|server| server.share(now)).fold(0.0, f64::max);
        // Where all are given a part only, there is nowhere else to go.
        let share = |server: &ServerState| if largest > 0.0 { server.share(now) / largest } else { 1.0 };
        ServerLoads {
            is_hanging: self.servers.iter().map(|server| server.hangs(now, slow_after)).collect(),
            shares: self.servers.iter().map(share).collect(),
        }
    }

    /// The Server for what a Lane has to say, which is of so many bytes.
    pub(super) fn choose(
        &self,
        now: Duration,
        key: LaneKey,
        bytes: usize,
        loads: &ServerLoads,
        is_open: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let scheduled = self.lanes.get(&key)?;
        let is_wary = now < scheduled.wary_until;
        let suits = |place: usize| {
            let server = &self.servers[place];
            let is_tried = server.health() != Health::Up;
            match () {
                () if !is_open(place) => Suitability::Closed,
                () if bytes > server.bytes_max() => Suitability::TooSmall,
                () if loads.is_hanging[place] => Suitability::Hanging,
                () if is_wary && (is_tried || server.latency().is_none()) => Suitability::Spared,
                // A few Lanes try out a Server that failed, whichever they are.
                () if is_tried || server.takes(key.vbucket, loads.shares[place]) => Suitability::Suited,
                () => Suitability::Spared,
            }
        };
        scheduled.order.choose(now, suits)
    }
}
