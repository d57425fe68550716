//! [`Expected`]: what Clients recorded, counted by those who recorded it, apart from everything that is tested.

use std::collections::BTreeMap;

/// What the events of one Tab come to. Values are kept in halves, so that every sum is a whole number and exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Events.
    pub count: u64,
    /// Their sum, in halves.
    pub halves: u64,
    /// The least, in halves.
    pub min: u64,
    /// The greatest, in halves.
    pub max: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self { count: 0, halves: 0, min: u64::MAX, max: 0 }
    }
}

impl Sum {
    /// Counts one event.
    pub fn add(&mut self, halves: u64) {
        self.join(&Self { count: 1, halves, min: halves, max: halves });
    }

    /// Counts all that another counted.
    pub fn join(&mut self, other: &Self) {
        self.count += other.count;
        self.halves += other.halves;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The sum. It is exact up to 2^53 halves.
    pub fn total(&self) -> f64 {
        halves(self.halves)
    }
}

/// So many halves, as a value.
pub(super) fn halves(halves: u64) -> f64 {
    halves as f64 / 2.0
}

/// What Clients recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Of each Tab of the type `TotalsCounter`.
    pub totals: BTreeMap<String, Sum>,
    /// Of each Tab of the type `CounterGroup`.
    pub counters: BTreeMap<String, Sum>,
    /// Of each Tab of the type `PercentileCounter`.
    pub percentiles: BTreeMap<String, Sum>,
    /// The latest value of each `Gauge`.
    pub gauges: BTreeMap<String, u64>,
    /// Events of each Client.
    pub clients: BTreeMap<String, u64>,
}

impl Expected {
    /// Counts all that another counted.
    pub fn join(&mut self, other: Self) {
        let mine = [&mut self.totals, &mut self.counters, &mut self.percentiles];
        for (mine, theirs) in mine.into_iter().zip([other.totals, other.counters, other.percentiles]) {
            for (tab, sum) in theirs {
                mine.entry(tab).or_default().join(&sum);
            }
        }
        for (tab, value) in other.gauges {
            let latest = self.gauges.entry(tab).or_default();
            *latest = value.max(*latest);
        }
        for (client, events) in other.clients {
            *self.clients.entry(client).or_default() += events;
        }
    }

    /// Events of all Clients.
    pub fn events(&self) -> u64 {
        self.clients.values().sum()
    }
}
