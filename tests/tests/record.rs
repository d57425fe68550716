//! Events recorded with nothing but HTTP, through the real binaries: exact, also when the Agent is killed in between.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use taba_tests::{Account, Agent, Process, Server, binary, free_port, wait_until};

fn agent(port: u16, server: &Server, spool: &Path) -> Agent {
    let mut command = Command::new(binary("taba-agent"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--servers").arg(server.url());
    command.arg("--spool-dir").arg(spool);
    let agent = Agent { process: Process::start("taba-agent", &mut command), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    agent
}

/// What is answered to lines under a key.
fn record(agent: &Agent, query: &str, key: &str, lines: &str) -> Value {
    let request = ureq::post(&format!("{}/v2/record{query}", agent.url())).header("idempotency-key", key);
    request.send(lines).unwrap().body_mut().read_json().unwrap()
}

#[test]
fn a_retry_under_its_key_counts_once_across_kills_of_the_agent() {
    let (data, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path(), free_port());
    let mut running = agent(free_port(), &server, spool.path());
    let lines = "{\"tab\":\"bids_won\",\"type\":\"TotalsCounter\",\"value\":3}\n\
                 {\"tab\":\"bids_won\",\"type\":\"TotalsCounter\",\"value\":0.5}\n\
                 {\"tab\":\"bids_won\",\"type\":\"TotalsCounter\",\"value\":\"three\"}\n\
                 {\"tab\":\"mood\",\"labels\":{\"city\":\"Z\u{fc}rich\"},\"value\":\"good\"}\n";
    for round in 0..3 {
        for key in ["a", "b"] {
            let answer = record(&running, "?client=deploy.sh", key, lines);
            assert_eq!(
                (&answer["recorded"], &answer["refused"][0]["line"]),
                (&3.into(), &3.into()),
                "{answer}"
            );
            assert_eq!(answer["repeated"] == true, round > 0, "{answer}");
        }
        running.process.kill();
        running = agent(running.port, &server, spool.path());
    }
    let expected = Account { recorded: 8, folded: 6, dropped: 2, in_flight: 0 };
    wait_until("the ledger balances", || server.account("deploy.sh") == expected);
    let totals = server.get("/v2/tabs?name=bids_won");
    assert_eq!(
        (&totals["results"][0]["value"]["count"], &totals["results"][0]["value"]["total"]),
        (&4.into(), &7.0.into())
    );
    let mood = server.get("/v2/projections?base=mood");
    assert_eq!(mood["results"][0]["client"], "deploy.sh", "{mood}");
    assert!(mood.to_string().contains("good"), "{mood}");
}
