//! [`Status::metrics`]: the Status as Prometheus text.

use std::collections::BTreeMap;

use taba_core::MetricKind::{self, Counter, Gauge};
use taba_core::MetricsText;

use super::{ServerStatus, Status};

impl Status {
    /// The Status as Prometheus text: [`MetricsText`].
    pub fn metrics(&self) -> String {
        let mut text = MetricsText::default();
        text.gauge("taba_agent_uptime_seconds", "Time since the start", self.uptime_secs);
        self.write_spool(&mut text);
        self.write_batches(&mut text);
        let answers = "Batches and probes of lanes, by answer";
        each(
            &mut text,
            Counter,
            ("taba_agent_lane_batches_answered_total", answers),
            "answer",
            words(&self.lane_batches.answered),
        );
        let refused = ("taba_agent_requests_refused_total", "Requests that a web page may have sent");
        each(&mut text, Counter, refused, "reason", words(&self.requests_refused));
        let refused = "Events refused here and counted as dropped";
        each(&mut text, Counter, ("taba_agent_events_refused_total", refused), "why", words(&self.refused));
        let refused = "Events that servers refused and counted as dropped";
        each(
            &mut text,
            Counter,
            ("taba_agent_events_refused_by_servers_total", refused),
            "why",
            words(&self.refused_by_servers),
        );
        let servers = |figure: fn(&ServerStatus) -> u64| {
            self.servers.iter().map(move |server| (server.url.as_str(), figure(server)))
        };
        let up = ("taba_agent_server_up", "Whether the server answers");
        each(&mut text, Gauge, up, "server", servers(|server| u64::from(server.health == "up")));
        let share = ("taba_agent_server_share_percent", "Percent of its lanes that the server gets");
        each(&mut text, Gauge, share, "server", servers(|server| u64::from(server.share_percent)));
        let sent = ("taba_agent_server_requests_sent_total", "Requests sent to the server");
        each(&mut text, Counter, sent, "server", servers(|server| server.requests_sent));
        let answered = ("taba_agent_server_requests_answered_total", "Requests that the server answered");
        each(&mut text, Counter, answered, "server", servers(|server| server.requests_answered));
        let failed = ("taba_agent_server_requests_failed_total", "Requests that failed");
        each(&mut text, Counter, failed, "server", servers(|server| server.requests_failed));
        text.into_string()
    }

    fn write_spool(&self, text: &mut MetricsText) {
        let (spool, damage, aside) = (&self.spool, &self.damage, &self.set_aside);
        let damaged = damage.events + damage.events_read_back;
        let gauges = [
            ("spool_bytes_max", "Bytes that the spool takes at most", spool.bytes_max),
            ("spool_bytes", "Bytes that the spool takes", spool.bytes),
            ("spool_bytes_held", "Bytes of what the spool holds", spool.bytes_held),
            ("spool_events_held", "Events in the spool", spool.events_held),
            ("spool_events_unapplied", "Events in the spool not known to be stored", spool.events_unapplied),
            ("spool_ok", "1 if nothing is wrong with the disk", u64::from(spool.error.is_none())),
        ];
        for (name, help, value) in gauges {
            text.gauge(&format!("taba_agent_{name}"), help, value);
        }
        let counters = [
            ("spool_events_offered", "Events that clients offered", spool.events_offered),
            ("spool_events_recovered", "Events that an earlier run had left", spool.events_recovered),
            ("spool_events_released", "Events stored for good and released", spool.events_released),
            ("spool_events_expired", "Events that became too old to be sent", spool.events_expired),
            ("spool_events_turned_away", "Events without room; clients kept them", spool.events_turned_away),
            ("spool_events_damaged", "Events that could not be read any more", damaged),
            ("spool_bytes_damaged", "Bytes that were no records", damage.bytes),
            ("set_aside_batches", "Batches of which something was set aside", aside.batches),
            ("set_aside_blocks", "Blocks that were set aside", aside.blocks),
            ("set_aside_events", "Events that were set aside", aside.events),
            ("log_lines_dropped", "Lines of the log that were dropped", self.log_lines_dropped),
        ];
        for (name, help, value) in counters {
            text.counter(&format!("taba_agent_{name}_total"), help, value);
        }
    }

    fn write_batches(&self, text: &mut MetricsText) {
        let (batches, lanes) = (&self.batches, &self.lane_batches);
        let gauges = [
            ("lanes", "Lanes in use", self.lanes as u64),
            ("clients", "Incarnations of clients that are remembered", self.clients as u64),
        ];
        for (name, help, value) in gauges {
            text.gauge(&format!("taba_agent_{name}"), help, value);
        }
        let counters = [
            ("batches_in", "Batches of clients that came", batches.r#in),
            ("batches_taken", "Batches of clients that were taken", batches.taken),
            ("batches_repeated", "Batches of clients that had been taken before", batches.repeated),
            ("batches_turned_away", "Batches of clients without room", batches.turned_away),
            ("lane_batches_sent", "Batches of lanes that were sent", lanes.sent),
            ("lane_batches_replayed", "Batches of lanes that were sent again", lanes.replayed),
            ("lane_probes_sent", "Probes sent", lanes.probes),
            ("lane_checks_sent", "Checks of blocks sent", lanes.checks),
            ("lane_rewinds", "Times that a lane went back", lanes.rewinds),
            ("lane_batches_unanswered", "Batches and probes without an answer", lanes.unanswered),
        ];
        for (name, help, value) in counters {
            text.counter(&format!("taba_agent_{name}_total"), help, value);
        }
    }
}

/// One family, its numbers told apart by one label.
fn each<'a>(
    text: &mut MetricsText,
    kind: MetricKind,
    (name, help): (&str, &str),
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) {
    text.family(kind, name, help);
    values.for_each(|(key, value)| text.sample(name, &[(label, key)], value));
}

fn words(events: &BTreeMap<&'static str, u64>) -> impl Iterator<Item = (&'static str, u64)> {
    events.iter().map(|(word, events)| (*word, *events))
}
