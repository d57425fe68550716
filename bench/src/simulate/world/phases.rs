//! Phases and their reports, and the look at everything that is stored at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use taba_core::Envelope;

use super::World;
use crate::simulate::agent::SimulatedAgent;
use crate::simulate::measures::{FRESH, Measures};
use crate::simulate::moves::Moves;
use crate::simulate::report::Report;
use crate::simulate::server::{ServerCounts, SimulatedServer};

/// How long everything may take until it is stored for good, once nothing new comes.
const DRAIN_MAX: Duration = Duration::from_secs(600);

impl World {
    /// Ends the phase before, and begins another.
    pub(in crate::simulate) fn phase(&mut self, name: &'static str, progress: &mut dyn FnMut(&str)) {
        self.end_phase();
        progress(&format!("{:.1} s: {name}", self.agenda.now().as_secs_f64()));
        (self.phase, self.phase_begun, self.counts_before) = (name, self.agenda.now(), self.counts());
        self.measures = Measures::default();
    }

    fn counts(&self) -> ServerCounts {
        self.servers.iter().map(SimulatedServer::counts).sum()
    }

    fn end_phase(&mut self) {
        let now = self.agenda.now();
        if now > self.phase_begun {
            let is_late = |since: Duration| now - since > FRESH;
            let waits = |agent: &SimulatedAgent| {
                agent.all_offered().any(|offered| offered.waits_since().is_some_and(is_late))
            };
            let is_over = self.taken_back.is_empty() && !self.agents.iter().any(waits);
            let counts = self.counts().since(self.counts_before);
            let mut report = self.measures.report(self.phase, (self.phase_begun, now), counts, is_over);
            report.moves = self.moves.as_ref().map(Moves::report);
            self.reports.push(report);
        }
    }

    /// Records nothing more, runs until no Agent keeps anything, and looks whether every event is stored once.
    pub(in crate::simulate) fn finish(mut self, progress: &mut dyn FnMut(&str)) -> Result<Report, String> {
        self.end_phase();
        self.is_recording = false;
        let ended = self.agenda.now();
        progress(&format!("{:.1} s: nothing more is recorded", ended.as_secs_f64()));
        while self.agents.iter().any(|agent| agent.relay.holds_events()) {
            if self.agenda.now() - ended > DRAIN_MAX {
                return Err(format!("Agents still keep something {DRAIN_MAX:?} after the last event"));
            }
            self.run_for(Duration::from_secs(1));
        }
        let (events_stored, states) = self.check()?;
        Ok(Report {
            agents: self.options.agents,
            servers: self.options.servers,
            shards: self.options.shards,
            vbuckets: self.config.vbuckets().count(),
            phases: self.reports.split_off(1),
            events_recorded: self.recorded,
            events_stored,
            states,
            marks: self.shards.marks(),
            drain_seconds: (self.agenda.now() - ended).as_secs_f64(),
            seconds: self.agenda.now().as_secs_f64(),
            steps: self.agenda.count(),
        })
    }

    /// How many events are stored, in how many States.
    fn check(&self) -> Result<(u64, usize), String> {
        let mut expected: BTreeMap<_, u64> =
            self.agents.iter().flat_map(|agent| agent.expected(&self.options)).collect();
        let (mut events, mut states) = (0, 0);
        for (key, parts) in self.shards.states() {
            let found =
                Envelope::join(&parts).map_err(|error| format!("{key} cannot be read: {error}"))?.events;
            let wanted = expected.remove(&(key.tab.clone(), key.client.clone())).unwrap_or(0);
            if found != wanted {
                return Err(format!("{key} holds {found} events, and {wanted} were recorded"));
            }
            states += 1;
            events += if key.tab.is_reserved() { 0 } else { found };
        }
        match expected.first_key_value() {
            Some(((tab, client), wanted)) => {
                Err(format!("({client}, {tab}) is not there: {wanted} events are lost"))
            }
            None => Ok((events, states)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Options;

    #[test]
    fn what_is_not_stored_is_missed() {
        let mut world = World::new(Options::quick()).expect("sizes that fit");
        world.run_for(Duration::from_secs(2));
        assert!(world.check().is_err(), "something is always on its way");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let refused = |change: fn(&mut Options)| {
            let mut options = Options::quick();
            change(&mut options);
            World::new(options).is_err()
        };
        assert!(refused(|options| options.vbuckets = 100));
        assert!(refused(|options| options.shards = 64));
        assert!(refused(|options| options.agents = 0));
        assert!(refused(|options| options.tab_type = "Unheard".into()));
    }
}
