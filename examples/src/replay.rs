//! Flights through taba-client: one Client for each airport, all in this process.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::error::Error;
use std::time::Duration;

use taba_client::{Client, Config, Counter, Percentile};
use taba_core::{Registry, Timestamp};

use crate::flights::Flight;

/// Events that one airport may have recorded beyond what its Client has drained: less than its ring holds, so that a
/// replay, which knows no pauses, never finds it full.
const AHEAD_MAX: u64 = 6_000;

/// How long a full ring may stay full before the replay gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replay in progress.
#[derive(Debug)]
pub struct Replay {
    agent: String,
    handlers: Registry,
    airports: BTreeMap<String, Airport>,
}

/// One airport: a Client and its handles.
#[derive(Debug)]
struct Airport {
    client: Client,
    departures: Counter,
    distance: Percentile,
    delays: BTreeMap<String, Counter>,
    recorded: u64,
    /// What `recorded` may reach before somebody has to look how far the Client has come.
    recorded_max: u64,
}

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Airports, each a Client.
    pub clients: usize,
    /// Events recorded.
    pub events: u64,
    /// Events that the Agent had not taken when time ran out.
    pub left: u64,
}

impl Replay {
    /// A replay that sends to this Agent.
    pub fn new(agent: impl Into<String>, handlers: Registry) -> Self {
        Self { agent: agent.into(), handlers, airports: BTreeMap::new() }
    }

    /// Records the three events of a flight, as of its departure.
    ///
    /// # Errors
    /// When a name in the file cannot be a Client or a Tab, or the Client cannot keep up.
    pub fn record(&mut self, flight: &Flight) -> Result<(), Box<dyn Error>> {
        let airport = match self.airports.entry(flight.origin.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Airport::new(&flight.origin, &self.agent, &self.handlers)?),
        };
        airport.record(flight)
    }

    /// Flushes all Clients, and waits until the Agent has everything, each for at most so long.
    pub fn finish(self, deadline: Duration) -> Replayed {
        let mut replayed = Replayed { clients: self.airports.len(), ..Replayed::default() };
        for airport in self.airports.values() {
            replayed.events += airport.recorded;
            replayed.left += airport.client.shutdown(deadline).left;
        }
        replayed
    }
}

impl Airport {
    fn new(origin: &str, agent: &str, handlers: &Registry) -> Result<Self, Box<dyn Error>> {
        // The ring has its final size from the start: one that has to grow is, for a moment, too small.
        let mut config = Config::default();
        config.ring_events_min = 8 * 1024;
        config.ring_events_max = 8 * 1024;
        let client =
            Client::builder(origin).agent(agent).handlers(handlers.clone()).config(config).build()?;
        Ok(Self {
            departures: client.counter("departures")?,
            distance: client.percentile_totals("distance")?,
            delays: BTreeMap::new(),
            client,
            recorded: 0,
            recorded_max: AHEAD_MAX,
        })
    }

    fn record(&mut self, flight: &Flight) -> Result<(), Box<dyn Error>> {
        if self.recorded + 3 > self.recorded_max {
            self.wait_for_room()?;
        }
        let time = Timestamp::from_secs(flight.time);
        let delay = match self.delays.entry(flight.destination.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let name = format!("delay;to={}", flight.destination);
                new.insert(self.client.counter(&name)?)
            }
        };
        self.departures.add_at(time, 1.0);
        delay.add_at(time, f64::from(flight.delay));
        self.distance.record_at(time, f64::from(flight.distance));
        self.recorded += 3;
        Ok(())
    }

    fn wait_for_room(&mut self) -> Result<(), Box<dyn Error>> {
        const PAUSE: Duration = Duration::from_millis(1);
        for _ in 0..PATIENCE.as_millis() {
            self.recorded_max = self.client.stats().recorded + AHEAD_MAX;
            if self.recorded + 3 <= self.recorded_max {
                return Ok(());
            }
            #[expect(clippy::disallowed_methods, reason = "a replay has nothing to do until there is room")]
            std::thread::sleep(PAUSE);
        }
        Err(format!("the client of {} did not drain its events within {PATIENCE:?}", self.client.id()).into())
    }
}
