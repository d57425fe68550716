//! [`Discovery`]: which Servers an Agent has: those it was given, those that a name stands for now, and those that Servers
//! say are there.
//!
//! - **Given** ([`ServerSeed`]): an address stays what it is; a name (`dns:NAME:PORT`) is resolved again and again, and each of
//!   its addresses is a Server. When it cannot be resolved, the addresses that it had last stay.
//! - **Told** (setting `discover`): now and then a Server is asked for all Servers of its store (`GET /v2/servers`). One that is
//!   new on that list is used once it has answered this Agent, so that an address that only other machines can reach takes no
//!   Lane. From then on the list is what counts, and the given ones are those to ask; they are used beside the list while
//!   none on the list is in health. When nobody answers, the last list stays.
//!
//! There are never fewer than there were, unless a list, or a name, says so, and never none.

mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use taba_core::{Noise, ServerUrl};

pub use self::status::{DiscoveryCounts, DiscoveryStatus, FoundServerStatus, NameStatus};
use crate::server_seed::ServerSeed;

/// Servers of one Agent.
pub const SERVERS_MAX: usize = 256;

/// What is tried again after a failure is tried after this part of the interval.
const RETRY_PART: u32 = 4;

/// The options of a [`Discovery`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DiscoveryOptions {
    /// The Servers that the Agent was given, at least one.
    pub seeds: Vec<ServerSeed>,
    /// Whether Servers are asked for others.
    pub is_on: bool,
    /// How often names are resolved and Servers asked, about.
    pub interval: Duration,
}

impl DiscoveryOptions {
    /// These seeds; whether they are asked for others, and how often.
    pub const fn new(seeds: Vec<ServerSeed>, is_on: bool, interval: Duration) -> Self {
        Self { seeds, is_on, interval }
    }
}

/// A Server on a list that another one gave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedServer {
    /// Where it is, and its weight.
    pub url: ServerUrl,
    /// Whether it is about to stop.
    pub is_draining: bool,
    /// Its version.
    pub version: String,
}

impl ListedServer {
    /// A Server of the list.
    pub const fn new(url: ServerUrl, is_draining: bool, version: String) -> Self {
        Self { url, is_draining, version }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryJob {
    /// Resolve the name of the seed at this place; then call [`Discovery::resolved`].
    Resolve(usize, String),
    /// Ask this Server for all Servers; then call [`Discovery::told`].
    Ask(ServerUrl),
    /// See whether this Server answers, with the right store; then call [`Discovery::reached`].
    Reach(ServerUrl),
}

/// Which Servers an Agent has.
#[derive(Debug)]
pub struct Discovery {
    options: DiscoveryOptions,
    noise: Noise,
    /// The seeds that are names, by their places.
    names: BTreeMap<usize, ResolvedName>,
    /// By URL.
    found: BTreeMap<String, FoundServer>,
    /// When to ask for a list; `None` while one is asked for, or when none is ever.
    ask_at: Option<Duration>,
    /// Who gave the last list, and when.
    heard: Option<(String, Duration)>,
    ask_error: Option<String>,
    servers: Vec<ServerUrl>,
    counts: DiscoveryCounts,
}

#[derive(Debug, Default)]
struct ResolvedName {
    addresses: Vec<IpAddr>,
    /// `None` while it is being resolved.
    resolve_at: Option<Duration>,
    error: Option<String>,
}

#[derive(Debug)]
struct FoundServer {
    listed: ListedServer,
    is_reached: bool,
    /// When to try to reach it; `None` while that is tried, or when it was.
    reach_at: Option<Duration>,
    error: Option<String>,
}

impl Discovery {
    /// The given Servers; of the names nothing is known yet. `seed` varies the waiting times.
    pub fn new(options: DiscoveryOptions, seed: u64) -> Self {
        let names = (0..).zip(&options.seeds).filter(|(_, given)| given.is_name());
        let now = || ResolvedName { resolve_at: Some(Duration::ZERO), ..ResolvedName::default() };
        let mut discovery = Self {
            names: names.map(|(place, _)| (place, now())).collect(),
            noise: Noise::new(seed),
            found: BTreeMap::new(),
            ask_at: options.is_on.then_some(Duration::ZERO),
            options,
            heard: None,
            ask_error: None,
            servers: Vec::new(),
            counts: DiscoveryCounts::default(),
        };
        discovery.update(|_| true);
        discovery
    }

    /// The Servers as they are now; none only before the first name was resolved.
    pub fn servers(&self) -> &[ServerUrl] {
        &self.servers
    }

    /// Whether the Servers may change.
    pub fn is_dynamic(&self) -> bool {
        self.options.is_on || !self.names.is_empty()
    }

    /// Whether it knows the Server with this URL: one that is used, or found, or given.
    pub fn knows(&self, url: &str) -> bool {
        let is_it = |server: &ServerUrl| server.url() == url;
        self.found.contains_key(url)
            || self.servers.iter().any(is_it)
            || self.seed_servers().iter().any(is_it)
    }

    /// What is due now. `is_up`: whether the Server with this URL is in health.
    pub fn poll(&mut self, now: Duration, is_up: impl Fn(&str) -> bool) -> Vec<DiscoveryJob> {
        self.update(is_up);
        let is_due = |at: &Option<Duration>| at.is_some_and(|at| at <= now);
        let mut jobs = Vec::new();
        for (place, name) in self.names.iter_mut().filter(|(_, name)| is_due(&name.resolve_at)) {
            name.resolve_at = None;
            jobs.push(DiscoveryJob::Resolve(
                *place,
                self.options.seeds[*place].url().host_port().to_string(),
            ));
        }
        for found in self.found.values_mut().filter(|found| is_due(&found.reach_at)) {
            found.reach_at = None;
            jobs.push(DiscoveryJob::Reach(found.listed.url.clone()));
        }
        if is_due(&self.ask_at) {
            let mut all = self.servers.clone();
            all.extend(self.seed_servers().into_iter().filter(|seed| !self.servers.contains(seed)));
            if all.is_empty() {
                self.ask_at = Some(now + self.pause(false));
            } else {
                let choice = self.noise.number() % all.len() as u64;
                self.ask_at = None;
                jobs.push(DiscoveryJob::Ask(all.swap_remove(choice as usize)));
            }
        }
        jobs
    }

    /// When [`Discovery::poll`] wants to be called at the latest.
    pub fn next_wake(&self) -> Option<Duration> {
        let names = self.names.values().filter_map(|name| name.resolve_at);
        let found = self.found.values().filter_map(|found| found.reach_at);
        names.chain(found).chain(self.ask_at).min()
    }

    /// The name of the seed at this place stands for these addresses, or cannot be resolved. Without any address, it keeps
    /// those that it had.
    pub fn resolved(&mut self, now: Duration, place: usize, outcome: Result<Vec<IpAddr>, String>) {
        let outcome = match outcome {
            Ok(addresses) if addresses.is_empty() => Err("the name has no address".to_owned()),
            outcome => outcome,
        };
        let pause = self.pause(outcome.is_ok());
        let Some(name) = self.names.get_mut(&place) else { return };
        name.resolve_at = Some(now + pause);
        match outcome {
            Ok(mut addresses) => {
                addresses.sort_unstable();
                addresses.dedup();
                (name.addresses, name.error) = (addresses, None);
                self.counts.names_resolved += 1;
            }
            Err(error) => {
                name.error = Some(error);
                self.counts.names_failed += 1;
            }
        }
    }

    /// A Server says which Servers there are, or did not answer. A list with nobody on it changes nothing.
    pub fn told(&mut self, now: Duration, by: &ServerUrl, outcome: Result<Vec<ListedServer>, String>) {
        let outcome = match outcome {
            Ok(list) if list.is_empty() => Err(format!("{} lists no server", by.url())),
            outcome => outcome,
        };
        self.ask_at = Some(now + self.pause(outcome.is_ok()));
        let list = match outcome {
            Ok(list) => list,
            Err(error) => {
                self.ask_error = Some(error);
                self.counts.lists_failed += 1;
                return;
            }
        };
        self.counts.lists_heard += 1;
        (self.heard, self.ask_error) = (Some((by.url().to_owned(), now)), None);
        let mut before = std::mem::take(&mut self.found);
        for listed in list.into_iter().take(SERVERS_MAX) {
            let url = listed.url.url().to_owned();
            // One that is used already needs not be reached first.
            let is_used = self.servers.iter().any(|server| server.url() == url);
            let found = match before.remove(&url) {
                Some(found) => FoundServer { listed, ..found },
                None => FoundServer {
                    listed,
                    is_reached: is_used,
                    reach_at: (!is_used).then_some(now),
                    error: None,
                },
            };
            self.found.insert(url, found);
        }
    }

    /// A Server that was found answered, with the store that this Agent delivers to; or did not.
    pub fn reached(&mut self, now: Duration, url: &ServerUrl, outcome: Result<(), String>) {
        let pause = self.pause(false);
        let Some(found) = self.found.get_mut(url.url()) else { return };
        found.is_reached |= outcome.is_ok();
        found.reach_at = (!found.is_reached).then(|| now + pause);
        found.error = outcome.err();
    }

    /// What `/status` says about it.
    pub fn status(&self, now: Duration) -> DiscoveryStatus {
        let name = |(place, name): (&usize, &ResolvedName)| {
            let addresses = name.addresses.iter().map(ToString::to_string).collect();
            let status = NameStatus { addresses, error: name.error.clone() };
            (self.options.seeds[*place].to_string(), status)
        };
        let found = |found: &FoundServer| FoundServerStatus {
            url: found.listed.url.url().to_owned(),
            weight: found.listed.url.weight(),
            version: found.listed.version.clone(),
            state: match (found.is_reached, found.listed.is_draining) {
                (_, true) => "draining",
                (false, false) => "not_reached",
                (true, false) => "serving",
            },
            error: found.error.clone(),
        };
        DiscoveryStatus {
            is_on: self.options.is_on,
            told_by: self.heard.as_ref().map(|(url, _)| url.clone()),
            told_ms_ago: self.heard.as_ref().map(|(_, at)| now.saturating_sub(*at).as_millis() as u64),
            error: self.ask_error.clone(),
            found: self.found.values().map(found).collect(),
            names: self.names.iter().map(name).collect(),
            counts: self.counts,
        }
    }

    fn update(&mut self, is_up: impl Fn(&str) -> bool) {
        let reached = |is_draining: bool| {
            let is_it =
                move |found: &&FoundServer| found.is_reached && found.listed.is_draining == is_draining;
            self.found.values().filter(is_it).map(|found| found.listed.url.clone()).collect::<Vec<_>>()
        };
        // Those that are about to stop are better than none.
        let mut servers =
            Some(reached(false)).filter(|list| !list.is_empty()).unwrap_or_else(|| reached(true));
        if !servers.iter().any(|server| is_up(server.url())) {
            for seed in self.seed_servers() {
                if servers.iter().all(|server| server.url() != seed.url()) {
                    servers.push(seed);
                }
            }
        }
        servers.truncate(SERVERS_MAX);
        if !servers.is_empty() {
            self.servers = servers;
        }
    }

    /// The given Servers, each address of a name by itself.
    fn seed_servers(&self) -> Vec<ServerUrl> {
        let mut servers: Vec<ServerUrl> = Vec::new();
        for (place, seed) in self.options.seeds.iter().enumerate() {
            let of_seed = match self.names.get(&place) {
                None => vec![seed.url().clone()],
                Some(name) => name.addresses.iter().map(|address| seed.url().at(*address)).collect(),
            };
            for server in of_seed {
                if servers.iter().all(|before| before.url() != server.url()) {
                    servers.push(server);
                }
            }
        }
        servers
    }

    /// The pause before the next try: 3/4 to 5/4 of the interval, so that Agents do not ask together.
    fn pause(&mut self, is_well: bool) -> Duration {
        let interval = if is_well { self.options.interval } else { self.options.interval / RETRY_PART };
        interval.mul_f64(0.75 + self.noise.fraction() / 2.0)
    }
}
