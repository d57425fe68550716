//! [`Status::metrics`]: the Status as Prometheus text, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Status;

impl Status {
    /// The Status as Prometheus text, version 0.0.4.
    ///
    /// Source of the format: Prometheus, *Exposition formats*, "Text-based format".
    pub fn metrics(&self) -> String {
        let mut text = Text(String::new());
        let (spool, batches, lanes) = (&self.spool, &self.batches, &self.lane_batches);
        text.one("taba_agent_uptime_seconds", "gauge", self.uptime_secs);
        text.one("taba_agent_spool_bytes_max", "gauge", spool.bytes_max);
        text.one("taba_agent_spool_bytes", "gauge", spool.bytes);
        text.one("taba_agent_spool_bytes_held", "gauge", spool.bytes_held);
        text.one("taba_agent_spool_events_held", "gauge", spool.events_held);
        text.one("taba_agent_spool_events_unapplied", "gauge", spool.events_unapplied);
        text.one("taba_agent_spool_events_offered_total", "counter", spool.events_offered);
        text.one("taba_agent_spool_events_recovered_total", "counter", spool.events_recovered);
        text.one("taba_agent_spool_events_released_total", "counter", spool.events_released);
        text.one("taba_agent_spool_events_expired_total", "counter", spool.events_expired);
        text.one("taba_agent_spool_events_turned_away_total", "counter", spool.events_turned_away);
        text.one(
            "taba_agent_spool_events_damaged_total",
            "counter",
            self.damage.events + self.damage.events_read_back,
        );
        text.one("taba_agent_spool_bytes_damaged_total", "counter", self.damage.bytes);
        text.one("taba_agent_spool_ok", "gauge", u64::from(spool.error.is_none()));
        text.one("taba_agent_set_aside_batches_total", "counter", self.set_aside.batches);
        text.one("taba_agent_set_aside_blocks_total", "counter", self.set_aside.blocks);
        text.one("taba_agent_set_aside_events_total", "counter", self.set_aside.events);
        text.one("taba_agent_log_lines_dropped_total", "counter", self.log_lines_dropped);
        text.one("taba_agent_lanes", "gauge", self.lanes);
        text.one("taba_agent_clients", "gauge", self.clients);
        text.one("taba_agent_batches_in_total", "counter", batches.r#in);
        text.one("taba_agent_batches_taken_total", "counter", batches.taken);
        text.one("taba_agent_batches_repeated_total", "counter", batches.repeated);
        text.one("taba_agent_batches_turned_away_total", "counter", batches.turned_away);
        text.one("taba_agent_lane_batches_sent_total", "counter", lanes.sent);
        text.one("taba_agent_lane_batches_replayed_total", "counter", lanes.replayed);
        text.one("taba_agent_lane_probes_sent_total", "counter", lanes.probes);
        text.one("taba_agent_lane_checks_sent_total", "counter", lanes.checks);
        text.one("taba_agent_lane_rewinds_total", "counter", lanes.rewinds);
        text.one("taba_agent_lane_batches_unanswered_total", "counter", lanes.unanswered);
        text.each("taba_agent_lane_batches_answered_total", "counter", "answer", words(&lanes.answered));
        text.each("taba_agent_events_refused_total", "counter", "why", words(&self.refused));
        text.each(
            "taba_agent_events_refused_by_servers_total",
            "counter",
            "why",
            words(&self.refused_by_servers),
        );
        let servers = |figure: fn(&super::ServerStatus) -> u64| {
            self.servers.iter().map(move |server| (server.url.as_str(), figure(server))).collect::<Vec<_>>()
        };
        text.each(
            "taba_agent_server_up",
            "gauge",
            "server",
            servers(|server| u64::from(server.health == "up")),
        );
        text.each(
            "taba_agent_server_share_percent",
            "gauge",
            "server",
            servers(|server| u64::from(server.share_percent)),
        );
        text.each(
            "taba_agent_server_requests_sent_total",
            "counter",
            "server",
            servers(|server| server.requests_sent),
        );
        let answered = servers(|server| server.requests_answered);
        text.each("taba_agent_server_requests_answered_total", "counter", "server", answered);
        let failed = servers(|server| server.requests_failed);
        text.each("taba_agent_server_requests_failed_total", "counter", "server", failed);
        text.0
    }
}

struct Text(String);

impl Text {
    fn one(&mut self, name: &str, kind: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "# TYPE {name} {kind}\n{name} {value}").expect("a String takes everything");
    }

    /// Label values are words and URLs of ours: nothing in them needs escaping.
    fn each<'a>(
        &mut self,
        name: &str,
        kind: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        writeln!(self.0, "# TYPE {name} {kind}").expect("a String takes everything");
        for (key, value) in values {
            writeln!(self.0, "{name}{{{label}=\"{key}\"}} {value}").expect("a String takes everything");
        }
    }
}

fn words(events: &BTreeMap<&'static str, u64>) -> impl Iterator<Item = (&'static str, u64)> {
    events.iter().map(|(word, events)| (*word, *events))
}
