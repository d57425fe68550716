//! What is not known is `null` with a reason; what is known is exact.

use serde_json::{Value, json};
use taba_core::{Expiring, Keyed, Reading, Timestamp};
use taba_handlers::*;

use crate::kit::{Kit, NOW};

/// A minute two hours ago had 100 events, and 7 came now: case 07.
async fn case_07() -> Kit {
    let kit = Kit::standard();
    let then: Vec<_> = (0..100).map(|i| (7210 - i % 2, 1.0)).collect();
    kit.fold(("past", "a"), ("CounterGroup", CounterGroup::new()), &then).await;
    kit
}

fn counts(row: &Value) -> Vec<Value> {
    ["1m", "10m", "1h", "1d", "pct"].iter().map(|part| row["value"][part]["count"].clone()).collect()
}

#[tokio::test]
async fn minutes_that_are_no_longer_kept_are_null_with_a_reason() {
    let kit = case_07().await;
    let path = format!("/v2/tabs?name=past&at={}", NOW - 7200);
    let known = &kit.results(&path).await[0];
    assert_eq!(counts(known), vec![json!(100); 5]);
    assert!(known.get("unknown").is_none(), "{known}");

    let now: Vec<_> = (0..7).map(|_| (0, 1.0)).collect();
    kit.fold(("past", "b"), ("CounterGroup", CounterGroup::new()), &now).await;
    let row = &kit.results(&path).await[0];
    assert_eq!(counts(row), vec![Value::Null; 5], "never less than what one of its projections says");
    assert_eq!(row["unknown"]["1m"], "begins before what is kept");
    assert_eq!(row["unknown"]["pct"], "holds events after that time");
    let projections = kit.results(&path.replace("tabs", "projections")).await;
    assert_eq!(counts(&projections[0]), vec![json!(100); 5]);
    assert_eq!(counts(&projections[1]), vec![Value::Null; 5]);
    let text = kit.ask("GET", &path, "text/plain").await.text;
    assert!(text.contains("1m (begins before what is kept)"), "{text}");

    // Who asks for now is told now.
    let row = &kit.results("/v2/tabs?name=past").await[0];
    assert_eq!(counts(row), [7, 7, 7, 107, 107].map(Value::from));
    let detail = &kit.results("/v2/tabs?name=past&detail=true").await[0]["value"];
    assert_eq!(detail["1m"]["covers"], json!([NOW - 60, NOW as f64]));
}

#[tokio::test]
async fn totals_and_gauges_as_of_a_time_before_their_last_event_are_null() {
    let kit = Kit::standard();
    kit.fold(("totals", "a"), ("TotalsCounter", TotalsCounter::new()), &[(60, 2.0), (30, 3.0)]).await;
    kit.fold(("mood", "a"), ("Gauge", Gauge::new()), &[(60, Reading::from("old")), (30, "new".into())]).await;
    let lease = |reading: &str| Expiring { expires: Timestamp::from_secs(NOW + 60), reading: reading.into() };
    kit.fold(("lease", "a"), ("ExpiryGauge", ExpiryGauge), &[(30, lease("held"))]).await;
    kit.fold(("steps", "a"), ("Buffer", AllTime::new(Buffer)), &[(30, lease("step"))]).await;
    kit.fold(("users", "a"), ("Distinct", AllTime::new(Distinct)), &[(30, "somebody".to_owned())]).await;
    let ask = async |at: i64| {
        let rows = kit.results(&format!("/v2/tabs?at={}", NOW - at)).await;
        rows.iter().map(|row| (row["value"].clone(), row.get("unknown").is_some())).collect::<Vec<_>>()
    };
    for (value, is_unknown) in ask(31).await {
        let is_null = |value: &Value| match value {
            Value::Object(map) => map.values().all(Value::is_null),
            other => other.is_null(),
        };
        assert!(is_null(&value) && is_unknown, "{value}");
    }
    let [lease, mood, steps, totals, users] = <[_; 5]>::try_from(ask(30).await).unwrap();
    assert!(![&lease, &mood, &steps, &totals, &users].iter().any(|(_, is_unknown)| *is_unknown));
    assert_eq!((&lease.0["value"], &mood.0["value"]), (&json!("held"), &json!("new")));
    assert_eq!(
        (&steps.0[0][0], &totals.0["total"], &users.0["distinct"]),
        (&json!("step"), &json!(5.0), &json!(1))
    );
}

#[tokio::test]
async fn times_that_cannot_be_meant_are_refused_and_the_year_9999_is_a_time() {
    let kit = case_07().await;
    for at in ["1795371115000", "1795371115000000", "1e300", "NaN", "10000-01-01T00:00:00Z"] {
        let answer = kit.get(&format!("/v2/tabs?at={at}")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["reason"]),
            (400, &json!("bad_parameter")),
            "{at}"
        );
        assert!(answer.text.contains("not milliseconds"), "{}", answer.text);
    }
    for at in ["9999-12-31T23:59:59Z", "253402300799", "1970-01-01T00:00:00Z", "-1.5"] {
        assert_eq!(kit.get(&format!("/v2/tabs?at={at}")).await.status, 200, "{at}");
    }
}

#[tokio::test]
async fn an_event_a_little_ahead_of_this_server_hides_nothing() {
    let kit = Kit::standard();
    kit.fold(("ahead", "a"), ("CounterGroup", CounterGroup::new()), &[(0, 1.0), (-9, 1.0)]).await;
    kit.fold(("mood", "a"), ("Gauge", Gauge::new()), &[(-9, Reading::from("of a clock that is ahead"))])
        .await;
    let rows = kit.results("/v2/tabs").await;
    assert_eq!(counts(&rows[0]), [1, 2, 2, 2, 2].map(Value::from), "the bucket of now is counted whole");
    assert_eq!(rows[1]["clients_by_value"], json!({ "of a clock that is ahead": 1 }));
    assert!(rows.iter().all(|row| row.get("unknown").is_none()));
}

#[tokio::test]
async fn what_was_left_out_is_said() {
    let kit = Kit::standard();
    let lease =
        |i: i64| Expiring { expires: Timestamp::from_secs(NOW + 60 + i), reading: Reading::Number(1.0) };
    let readings: Vec<_> = (0..1001).map(|i| (0, lease(i))).collect();
    kit.fold(("many", "a"), ("Buffer", AllTime::new(Buffer)), &readings).await;
    let keyed = |i: i64| (0, Keyed { key: format!("key {i}"), value: 1.0 });
    let keys: Vec<_> = (0..500).map(keyed).collect();
    kit.fold(("by-key", "a"), ("CommonPrefixCounterGroup", CommonPrefixCounterGroup::new()), &keys).await;
    kit.fold(("users", "a"), ("Distinct", AllTime::new(Distinct)), &[(0, "somebody".to_owned())]).await;
    let rows = kit.results("/v2/tabs").await;
    assert!(
        rows[0]["left_out"]["keys"].as_str().unwrap().contains("share `other`"),
        "{}",
        rows[0]["left_out"]
    );
    assert_eq!(rows[1]["value"].as_array().unwrap().len(), 1000);
    assert!(
        rows[1]["left_out"]["readings"].as_str().unwrap().contains("1000 kept"),
        "{}",
        rows[1]["left_out"]
    );
    assert_eq!((&rows[2]["standard_error"], &rows[2]["error_bound"]), (&json!(0.0163), &Value::Null));
}

#[tokio::test]
async fn different_readings_are_different_words() {
    let kit = Kit::standard();
    let readings: [(&str, Reading); 6] = [
        ("a", 3.5.into()),
        ("b", "3.5".into()),
        ("c", "other".into()),
        ("d", 0.0.into()),
        ("e", (-0.0).into()),
        ("f", f64::MAX.into()),
    ];
    for (client, reading) in readings {
        kit.fold(("mode", client), ("Gauge", Gauge::new()), &[(0, reading)]).await;
    }
    let row = &kit.results("/v2/tabs").await[0];
    let expected = json!({ "0": 2, "1.7976931348623157e308": 1, "3.5": 1, "\"3.5\"": 1, "other": 1 });
    assert_eq!(row["clients_by_value"], expected);
}

#[tokio::test]
async fn tabs_are_those_of_the_chosen_clients_and_groups_come_by_name() {
    let kit = Kit::standard();
    for (tab, client) in
        [("x;to=A", "a"), ("x;to=B", "b"), ("x;to=B", "a"), ("x;from=Q;to=C", "b"), ("x", "b")]
    {
        kit.fold((tab, client), ("TotalsCounter", TotalsCounter::new()), &[(0, 1.0)]).await;
    }
    let row = &kit.results("/v2/super?base=x&client=a").await[0];
    assert_eq!((&row["tabs"], &row["clients"]), (&json!(2), &json!(1)));
    let names = kit.names("/v2/tabs?base=x&by=to,from").await;
    assert!(names.is_sorted(), "{names:?}");
}

/// Case 09.
#[tokio::test]
async fn numbers_are_as_exact_as_what_is_known() {
    let kit = Kit::standard();
    let percentiles = || ("PercentileCounter", PercentileCounter::new());
    kit.fold(("constant", "a"), percentiles(), &[(0, 100.0); 1000]).await;
    kit.fold(("single", "a"), percentiles(), &[(0, 1234.0)]).await;
    let totals = || ("TotalsCounter", TotalsCounter::new());
    kit.fold(("huge", "a"), totals(), &[(0, f64::MAX), (0, f64::MAX)]).await;
    kit.fold(("bytes", "a"), totals(), &[(0, 9_007_199_254_740_992.0), (0, 1.0)]).await;
    let rows = kit.results("/v2/tabs").await;
    assert_eq!(rows[0]["value"]["total"], json!(9_007_199_254_740_993_u64), "exact beyond 2^53");
    assert_eq!(rows[1]["value"]["pct"], json!([100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 100.0]));
    assert_eq!((&rows[2]["value"]["total"], &rows[2]["value"]["average"]), (&Value::Null, &json!(f64::MAX)));
    assert_eq!(rows[3]["value"]["pct"][1], 1234.0);
    let text = kit.ask("GET", "/v2/tabs?name=huge", "text/plain").await.text;
    assert!(text.contains("1.7976931348623157e308") && text.lines().all(|line| line.len() < 200), "{text}");
}
