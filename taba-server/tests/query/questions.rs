//! Aggregates, projections, lists: what is answered.

use serde_json::{Value, json};
use taba_server::query::Limits;

use crate::kit::{Kit, NOW};

async fn flights() -> Kit {
    let kit = Kit::new();
    for (tab, client, values) in [
        ("delay;from=ATL;to=MEM", "ATL", &[5.0, 7.0][..]),
        ("delay;from=ATL;to=JFK", "ATL", &[1.0]),
        ("delay;from=JFK;to=MEM", "JFK", &[-3.0, 4.0, 4.0]),
        ("delay", "ATL", &[100.0]),
        ("delay-x", "JFK", &[9.0]),
        ("departures", "ATL", &[1.0, 1.0]),
        ("departures", "JFK", &[1.0]),
    ] {
        kit.count(tab, client, values).await;
    }
    kit
}

#[tokio::test]
async fn an_aggregate_says_what_it_rests_on() {
    let kit = flights().await;
    for (home, client, events) in [(3, "ATL", 4.0), (900, "ATL", 6.0), (3, "JFK", 1.0), (3, "LAX", 50.0)] {
        let home = taba_core::VBuckets::default().get(home).unwrap();
        kit.count_in(home, "taba.dropped;where=agent;why=full", client, &[events]).await;
    }
    let both = kit.results("/v2/tabs?name=departures").await;
    let expected = json!([{
        "name": "departures", "type": "TotalsCounter", "tabs": 1, "clients": 2, "events": 3,
        "as_of": "2001-09-09T01:46:40Z", "lost": 11, "lost_scope": "clients", "lost_unattributed": 0,
        "error_bound": 0.0097, "value": { "count": 3, "total": 3.0 },
    }]);
    assert_eq!(Value::from(both), expected);
    let one = kit.results("/v2/tabs?name=departures&client=JFK").await;
    assert_eq!(
        (&one[0]["clients"], &one[0]["lost"], &one[0]["value"]["total"]),
        (&json!(1), &json!(1), &json!(1.0))
    );
}

#[tokio::test]
async fn losses_of_unknown_clients_are_told_apart() {
    let kit = flights().await;
    kit.count("taba.dropped;where=agent;why=gap", "taba.stream/00ff", &[40.0]).await;
    let row = &kit.results("/v2/tabs?name=departures").await[0];
    assert_eq!((&row["lost"], &row["lost_unattributed"]), (&json!(0), &json!(40)));
}

#[tokio::test]
async fn names_choose_exactly_and_bases_choose_all_labels() {
    let kit = flights().await;
    assert_eq!(kit.names("/v2/tabs?name=delay").await, ["delay"]);
    assert_eq!(kit.names("/v2/tabs?name=delay;to=MEM;from=ATL").await, ["delay;from=ATL;to=MEM"]);
    assert_eq!(
        kit.names("/v2/tabs?name=departures,delay&name=delay-x").await,
        ["delay", "delay-x", "departures"]
    );
    assert_eq!(kit.names("/v2/tabs?base=delay").await.len(), 4);
    assert_eq!(kit.names("/v2/tabs?base=delay&label.to=MEM").await.len(), 2);
    assert_eq!(kit.names("/v2/tabs?label.to=MEM,JFK&label.from=ATL").await.len(), 2);
    assert_eq!(kit.names("/v2/tabs").await.len(), 6);
    assert_eq!(kit.names("/v2/tabs?name=nothing").await.len(), 0);
    assert_eq!(kit.names("/v2/tabs?type=Recent").await.len(), 0);
}

#[tokio::test]
async fn regular_expressions_match_in_full() {
    let kit = flights().await;
    assert_eq!(kit.names("/v2/tabs?re=true&name=d.+").await.len(), 6);
    assert_eq!(kit.names("/v2/tabs?re=true&name=delay").await, ["delay"]);
    assert_eq!(kit.names("/v2/tabs?re=true&name=.*to%3D(MEM%7CJFK)&client=A.L").await.len(), 2);
    assert_eq!(kit.names("/v2/tabs?re=true&name=depar&name=delay.x").await, ["delay-x"]);
}

#[tokio::test]
async fn groups_by_label_equal_the_sum_of_their_tabs() {
    let kit = flights().await;
    let rows = kit.results("/v2/tabs?base=delay&by=to").await;
    let shown: Vec<_> = rows
        .iter()
        .map(|row| json!([row["name"], row["by"], row["tabs"], row["clients"], row["value"]]))
        .collect();
    assert_eq!(
        Value::from(shown),
        json!([
            ["delay", { "to": null }, 1, 1, { "count": 1, "total": 100.0 }],
            ["delay;to=JFK", { "to": "JFK" }, 1, 1, { "count": 1, "total": 1.0 }],
            ["delay;to=MEM", { "to": "MEM" }, 2, 2, { "count": 5, "total": 17.0 }],
        ])
    );
    // One Client in two Tabs of a group is one Client.
    let rows = kit.results("/v2/tabs?base=delay&label.from=ATL&by=from").await;
    assert_eq!(
        (&rows[0]["clients"], &rows[0]["tabs"], &rows[0]["events"]),
        (&json!(1), &json!(2), &json!(3))
    );
    let rows = kit.results("/v2/tabs?base=delay&label.from=ATL&by=to,from").await;
    assert_eq!(rows[0]["name"], "delay;from=ATL;to=JFK");
}

#[tokio::test]
async fn a_super_aggregate_needs_one_type() {
    let kit = flights().await;
    let rows = kit.results("/v2/super?base=delay").await;
    assert_eq!((&rows[0]["name"], &rows[0]["tabs"]), (&json!("delay;*"), &json!(4)));
    assert_eq!(rows[0]["value"], json!({ "count": 7, "total": 118.0 }));
    assert!(kit.results("/v2/super?name=nothing").await.is_empty());
    kit.recent("other", "ATL", &[(NOW, 1.0)]).await;
    let refused = kit.get("/v2/super").await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["reason"], "mixed_types");
    assert_eq!(refused.json()["types"], json!(["Recent", "TotalsCounter"]));
    assert_eq!(kit.results("/v2/super?type=Recent").await.len(), 1);
}

#[tokio::test]
async fn projections_come_by_tab_and_client() {
    let kit = flights().await;
    let rows = kit.results("/v2/projections?re=1&name=de(lay%7Cpartures)").await;
    let shown: Vec<_> = rows.iter().map(|row| json!([row["name"], row["client"], row["events"]])).collect();
    assert_eq!(
        Value::from(shown),
        json!([["delay", "ATL", 1], ["departures", "ATL", 2], ["departures", "JFK", 1]])
    );
}

#[tokio::test]
async fn at_projects_as_of_a_time_and_detail_shows_more() {
    let kit = Kit::new();
    kit.recent("temperature", "a", &[(NOW - 7200, 1.0), (NOW - 10, 2.0)]).await;
    kit.recent("temperature", "b", &[(NOW - 5, 3.0)]).await;
    kit.recent("temperature", "c", &[(NOW - 6, 3.0)]).await;
    let now = &kit.results("/v2/tabs").await[0];
    assert_eq!((&now["value"], &now["clients_by_value"]), (&json!({ "n": 3 }), &json!({ "2": 1, "3": 2 })));
    for at in ["999996400", "2001-09-09T00:46:40Z", "2001-09-09T02:46:40+02:00"] {
        let then = &kit.results(&format!("/v2/tabs?detail=true&at={at}")).await[0];
        assert_eq!(then["value"], json!({ "n": 1, "all": [1.0] }), "{at}");
    }
}

#[tokio::test]
async fn words_beyond_the_bound_are_counted_apart() {
    let mut limits = taba_server::query::Limits::default();
    limits.tally_words_max = 2;
    let kit = Kit::with_limits(limits);
    for (client, value) in [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 1.0), ("e", 4.0)] {
        kit.recent("mode", client, &[(NOW, value)]).await;
    }
    let row = &kit.results("/v2/tabs").await[0];
    assert_eq!(row["clients_by_value"], json!({ "1": 2, "2": 1 }));
    assert_eq!(row["clients_by_other_values"], 2, "no reading is called `other` by mistake");
}

#[tokio::test]
async fn lists_say_what_there_is() {
    let kit = flights().await;
    kit.count("taba.recorded", "LAX", &[3.0]).await;
    assert_eq!(
        Value::from(kit.results("/v2/clients").await),
        json!([{ "client": "ATL", "tabs": 4 }, { "client": "JFK", "tabs": 3 }])
    );
    assert_eq!(kit.results("/v2/clients?name=delay").await, [json!({ "client": "ATL", "tabs": 1 })]);
    assert_eq!(kit.names("/v2/names?client=JFK").await, ["delay-x", "delay;from=JFK;to=MEM", "departures"]);
    assert_eq!(kit.names("/v2/names").await.len(), 6);
    assert_eq!(kit.names("/v2/names?reserved=true").await.len(), 7);
    assert_eq!(kit.names("/v2/names?base=taba.recorded").await, ["taba.recorded"]);
    let types = kit.results("/v2/types").await;
    assert_eq!(types[0], json!({ "type": "Recent", "tabs": 0, "known": true }));
    assert_eq!(types[1], json!({ "type": "TotalsCounter", "tabs": 6, "known": true }));
    let status = kit.get("/v2/status").await.json();
    assert_eq!((&status["vbuckets"], &status["types"]), (&json!(1024), &json!(["Recent", "TotalsCounter"])));
}

#[tokio::test]
async fn reserved_tabs_are_merged_over_vbuckets() {
    let kit = Kit::new();
    for (home, client, events) in [(1, "a", 4.0), (2, "a", 6.0), (1000, "b", 1.0)] {
        let home = taba_core::VBuckets::default().get(home).unwrap();
        kit.count_in(home, "taba.recorded", client, &[events]).await;
    }
    let rows = kit.results("/v2/projections?name=taba.recorded").await;
    let shown: Vec<_> = rows.iter().map(|row| json!([row["client"], row["value"]["total"]])).collect();
    assert_eq!(Value::from(shown), json!([["a", 10.0], ["b", 1.0]]));
    let rows = kit.results("/v2/tabs?name=taba.recorded").await;
    assert_eq!((&rows[0]["clients"], &rows[0]["value"]["total"]), (&json!(2), &json!(11.0)));
}

#[tokio::test]
async fn answers_come_in_three_forms() {
    let kit = flights().await;
    let lines = kit.ask("GET", "/v2/tabs", "application/x-ndjson").await;
    assert_eq!(lines.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 7);
    assert_eq!((&lines[6]["end"]["results"], &lines[6]["end"]["complete"]), (&json!(6), &json!(true)));
    let text = kit.ask("GET", "/v2/tabs?name=departures", "text/plain").await;
    assert_eq!(
        text.text,
        "departures  TotalsCounter  clients 2  events 3  lost 0  ±0.97%  as of 2001-09-09T01:46:40Z\n  count 3, total 3\n"
    );
    for path in
        ["/v2/names", "/v2/clients", "/v2/types", "/v2/ledger", "/v2/status", "/v2/projections", "/v2/super"]
    {
        let answer = kit.ask("GET", path, "text/plain").await;
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{path}");
        assert!(answer.status.is_success() && answer.text.lines().count() >= 1, "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn twenty_thousand_tabs_stream_in_small_chunks() {
    let kit = Kit::new();
    for i in 0..20_000 {
        kit.count(&format!("tab{i:05}"), "a", &[1.0]).await;
    }
    let answer = kit.get("/v2/tabs").await;
    assert!(answer.chunks > answer.text.len() / 40_000, "{} chunks", answer.chunks);
    let rows = answer.results();
    assert_eq!(rows.len(), 20_000);
    assert!(rows.is_sorted_by_key(|row| row["name"].as_str().unwrap().to_owned()));
    let limited = kit.get("/v2/tabs?limit=10").await.json();
    assert_eq!((limited["results"].as_array().unwrap().len(), &limited["truncated"]), (10, &json!(true)));
    let all = kit.get("/v2/tabs?limit=20000").await.json();
    assert_eq!(all["truncated"], false);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let kit = flights().await;
    kit.count("taba.recorded", "ATL", &[6.0]).await;
    kit.count("taba.dropped;where=server;why=bad_value", "ATL", &[2.0]).await;
    let answer = kit.get("/metrics?base=delay").await;
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "taba_server_batches_in_total 0",
        "taba_ledger_recorded_events_total 6",
        "taba_ledger_folded_events_total 11",
        r#"taba_ledger_dropped_events_total{where="server",why="bad_value"} 2"#,
        "taba_ledger_excess_events 7",
        r#"taba_tab_count{tab="delay;from=ATL;to=MEM",base="delay",type="TotalsCounter",label_from="ATL",label_to="MEM"} 2"#,
        r#"taba_tab_total{tab="delay",base="delay",type="TotalsCounter"} 100.0"#,
    ] {
        assert!(answer.text.lines().any(|found| found == line), "{line} is missing in\n{}", answer.text);
    }
    let families = answer.text.lines().filter(|line| line.starts_with("# TYPE"));
    let families: Vec<_> = families.collect();
    assert_eq!(
        families.len(),
        families.iter().collect::<std::collections::BTreeSet<_>>().len(),
        "each family once"
    );
    let small = kit.get("/metrics?ledger=false").await.text;
    assert!(!small.contains("taba_ledger") && !small.contains("taba_tab_"));
}

#[tokio::test]
async fn labels_that_were_escaped_are_told_as_their_texts() {
    let kit = Kit::new();
    for city in ["Zürich", "a, b", ""] {
        let name = taba_core::TabName::builder("shop").label("city", city).build().unwrap();
        kit.count(name.as_str(), "ATL", &[1.0]).await;
    }
    kit.count("shop;city=Rome", "ATL", &[1.0]).await;
    let zurich = &kit.results("/v2/tabs?label.city=Z%C3%BCrich").await[0];
    assert_eq!(
        (&zurich["name"], &zurich["labels"]),
        (&json!("shop;city=Z!C3!BCrich"), &json!({ "city": "Zürich" }))
    );
    for question in [
        "name=shop;city=Z%C3%BCrich",
        "name=shop;city=Z!C3!BCrich",
        "label.city=Z!C3!BCrich",
        "re=true&name=shop;city=Z%C3%BC.*",
        "label.city=a, b".replace(' ', "%20").as_str(),
        "label.city=",
    ] {
        for path in ["/v2/tabs", "/v2/names", "/v2/projections"] {
            let rows = kit.results(&format!("{path}?{question}")).await;
            assert_eq!(rows.len(), 1, "{path}?{question}");
            assert!(rows[0]["labels"]["city"].is_string(), "{rows:?}");
        }
    }
    let groups = kit.results("/v2/tabs?base=shop&by=city").await;
    let mut cities: Vec<_> =
        groups.iter().map(|row| row["by"]["city"].as_str().unwrap().to_owned()).collect();
    cities.sort();
    assert_eq!(cities, ["", "Rome", "Zürich", "a, b"]);
    assert_eq!(kit.results("/v2/names?name=shop;city=Rome").await[0].get("labels"), None);
    let text = kit.ask("GET", "/v2/names", "text/plain").await.text;
    assert!(text.contains("shop;city=Zürich"), "{text}");
    let metrics = kit.get("/metrics?base=shop").await.text;
    assert!(metrics.contains("label_city=\"Zürich\""), "{metrics}");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_says_where_to_go_on_and_all_pages_are_the_whole() {
    let kit = Kit::new();
    for tab in ["a", "b;x=1", "b;x=2", "c", "d"] {
        for client in ["u", "v", "w"] {
            kit.count(tab, client, &[1.0]).await;
            kit.count("taba.recorded", client, &[1.0]).await;
        }
    }
    for path in ["tabs", "names", "clients", "ledger", "types", "projections", "projections?reserved=true"] {
        let whole = kit.get(&format!("/v2/{path}")).await.results();
        for limit in 1..=whole.len() {
            let (mut pages, mut from) = (Vec::new(), None::<String>);
            loop {
                let next =
                    from.as_ref().map_or(String::new(), |from| format!("&from={}", from.replace(' ', "%20")));
                let (path, query) = path.split_once('?').unwrap_or((path, ""));
                let answer = kit.get(&format!("/v2/{path}?limit={limit}{next}&{query}")).await;
                pages.extend(answer.results());
                match answer.json()["next"].as_str() {
                    Some(next) => from = Some(next.to_owned()),
                    None => break,
                }
            }
            assert_eq!(pages, whole, "{path} {limit}");
        }
    }
    assert_eq!(kit.get("/v2/tabs?by=x&from=b").await.status, 400);
    assert_eq!(kit.get("/v2/tabs?from=not%20a%20name").await.status, 400);
    assert_eq!(kit.get("/v2/tabs?from=b%20client").await.status, 400, "only a projection is of one client");
    assert_eq!(kit.get("/v2/projections?from=b%20not%20one").await.status, 400);
    let text = kit.ask("GET", "/v2/names?limit=2", "text/plain").await.text;
    assert!(text.contains("# there are more than 2 results; continue with from=b;x=2"), "{text}");
}

/// A query counts until its answer is read or dropped; those beyond the bound are told to come again, and upkeep's numbers are
/// shown all the same.
#[tokio::test]
async fn queries_beyond_the_bound_are_told_to_come_again() {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    let mut limits = Limits::default();
    limits.queries_max = 2;
    let kit = Kit::with_limits(limits);
    kit.count("a", "web", &[1.0]).await;
    let ask = async |path: &str| {
        let request = Request::builder().uri(path).header("host", "localhost").body(Body::empty()).unwrap();
        kit.router.clone().oneshot(request).await.unwrap()
    };
    let (first, second) = (ask("/v2/tabs?name=a").await, ask("/v2/ledger").await);
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    for path in ["/v2/tabs?name=a", "/v2/names", "/v2/super?name=a"] {
        let refused = kit.get(path).await;
        assert_eq!((refused.status.as_u16(), &refused.json()["reason"]), (503, &json!("busy")), "{path}");
        assert_eq!(refused.headers["retry-after"], "1");
    }
    for path in ["/v2/status", "/metrics"] {
        assert_eq!(kit.get(path).await.status, 200, "{path}");
    }
    drop(first);
    while kit.get("/v2/names").await.status != 200 {
        tokio::task::yield_now().await;
    }
    drop(second);
}
