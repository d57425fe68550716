//! Events recorded with nothing but HTTP, through the real binaries: exact, also when the Agent is killed in between.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

use std::path::Path;
use std::process::Command;

use axum::http::StatusCode;
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

/// An own server: Taba's routes under `/taba`, and only for who has the token.
async fn own_server(listener: tokio::net::TcpListener) {
    let taba = taba_server::Server::builder()
        .store(taba_core::MemoryStore::default())
        .handlers(taba_handlers::standard().build().unwrap())
        .build()
        .unwrap();
    let check = |request: axum::extract::Request, next: axum::middleware::Next| async move {
        let token = request.headers().get("authorization").and_then(|token| token.to_str().ok());
        if token == Some("Bearer t0k3n") {
            Ok(next.run(request).await)
        } else {
            Err(StatusCode::UNAUTHORIZED)
        }
    };
    let router = taba.router().layer(axum::middleware::from_fn(check));
    axum::serve(listener, axum::Router::new().nest("/taba", router)).await.unwrap();
}

#[test]
fn a_server_under_a_path_behind_a_token_is_delivered_to() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/taba", listener.local_addr().unwrap());
    runtime.spawn(own_server(listener));
    let (port, directory) = (free_port(), tempfile::tempdir().unwrap());
    let mut command = Command::new(binary("taba-agent"));
    command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--servers").arg(&url);
    command.arg("--spool=memory").env("TABA_AGENT_SERVER_HEADER", "Authorization: Bearer t0k3n");
    let log = directory.path().join("agent.log");
    let agent = Agent { process: Process::start_logged("taba-agent", &mut command, &log), port };
    wait_until("the agent answers", || ureq::get(&format!("{}/v2/status", agent.url())).call().is_ok());
    record(&agent, "", "a", "{\"tab\":\"bids\",\"value\":3}");
    let count = || {
        let get = ureq::get(&format!("{url}/v2/tabs?name=bids")).header("authorization", "Bearer t0k3n");
        let mut answer = get.header("accept", "application/json").call().unwrap();
        answer.body_mut().read_json::<Value>().unwrap()["results"][0]["events"].as_i64()
    };
    wait_until("the event is visible", || count() == Some(1));
    let status: Value =
        ureq::get(&format!("{}/v2/status", agent.url())).call().unwrap().body_mut().read_json().unwrap();
    assert_eq!((&status["servers"][0]["url"], &status["servers"][0]["health"]), (&url.into(), &"up".into()));
    assert!(!std::fs::read_to_string(&log).unwrap().contains("t0k3n"), "the log shows the secret");
}

/// What is answered to lines under a key.
fn record(agent: &Agent, query: &str, key: &str, lines: &str) -> Value {
    let request = ureq::post(&format!("{}/v2/record{query}", agent.url())).header("idempotency-key", key);
    let request = request.header("content-type", "application/x-ndjson");
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
                 {\"tab\":\"mood\",\"labels\":{\"city\":\"Z\u{fc}rich\"},\"value\":\"good\"}\n\
                 {\"tab\":\"level\",\"type\":\"Gauge\",\"value\":2}\n\
                 {\"tab\":\"level\",\"type\":\"Gauge\",\"value\":1}\n";
    for round in 0..3 {
        for key in ["a", "b"] {
            let answer = record(&running, "?client=deploy.sh", key, lines);
            assert_eq!(
                (&answer["recorded"], &answer["refused"][0]["line"]),
                (&5.into(), &3.into()),
                "{answer}"
            );
            assert_eq!(answer["repeated"] == true, round > 0, "{answer}");
        }
        running.process.kill();
        running = agent(running.port, &server, spool.path());
    }
    let expected = Account { recorded: 12, folded: 10, dropped: 2, in_flight: 0 };
    wait_until("the ledger balances", || server.account("deploy.sh") == expected);
    let totals = server.get("/v2/tabs?name=bids_won");
    assert_eq!(
        (&totals["results"][0]["value"]["count"], &totals["results"][0]["value"]["total"]),
        (&4.into(), &7.0.into())
    );
    let level = server.get("/v2/projections?name=level");
    assert_eq!(level["results"][0]["value"]["value"], 1.0, "the last one counts: {level}");
    let mood = server.get("/v2/projections?base=mood");
    assert_eq!(mood["results"][0]["client"], "deploy.sh", "{mood}");
    assert!(mood.to_string().contains("good"), "{mood}");
}
