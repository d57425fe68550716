//! A library that records: without a Client, with the default one, and in the scope of a test.

#![expect(clippy::unwrap_used, reason = "what the tests share is a test too")]

use std::time::Duration;

use taba_client::{Client, Counter, Gauge, Lazy, Reading, Tab, TabName, TestSink, current, with_client};
use taba_core::ledger::Why;

const SECOND: Duration = Duration::from_secs(1);

/// What a library does, which knows nothing of its application.
mod library {
    use super::{Counter, Gauge, Lazy, Tab};

    static CALLS: Lazy<Counter> = taba_client::counter("library.calls");
    static LAST: Lazy<Gauge> = taba_client::gauge("library.last");
    static OWN: Lazy<Tab<String>> = Lazy::new("library.own", |client, name| client.tab(name, "MyType"));

    pub(crate) fn call(amount: f64) {
        CALLS.get().add(amount);
        LAST.get().set(amount);
        OWN.get().record(amount.to_string());
    }
}

fn client() -> (Client, TestSink) {
    let sink = TestSink::new();
    (Client::builder("test").sink(sink.clone()).build().unwrap(), sink)
}

fn calls(client: &Client, sink: &TestSink) -> Vec<f64> {
    assert_eq!(client.flush(10 * SECOND).left, 0);
    sink.values("library.calls")
}

#[test]
fn one_static_records_nothing_then_with_the_default_and_with_a_scope_of_its_own() {
    library::call(1.0);
    assert!(current().is_disabled());

    let (default, default_sink) = client();
    default.set_default().unwrap();
    library::call(2.0);
    let (scoped, scoped_sink) = client();
    with_client(&scoped, || {
        library::call(3.0);
        let (inner, inner_sink) = client();
        with_client(&inner, || library::call(4.0));
        assert_eq!(calls(&inner, &inner_sink), [4.0]);
        // Another thread is outside of the scope.
        std::thread::scope(|threads| _ = threads.spawn(|| library::call(5.0)));
        let panicked = std::panic::catch_unwind(|| with_client(&inner, || panic!("in a test")));
        assert!(panicked.is_err());
        library::call(6.0);
    });
    library::call(7.0);
    assert_eq!(calls(&scoped, &scoped_sink), [3.0, 6.0]);
    let mut all = calls(&default, &default_sink);
    all.sort_by(f64::total_cmp);
    assert_eq!(all, [2.0, 5.0, 7.0]);
    assert_eq!(default_sink.values::<String>("library.own").len(), 3);
    let tabs = scoped_sink.tabs().into_iter().map(|(tab, tab_type)| format!("{tab}: {tab_type}"));
    let tabs: Vec<_> = tabs.collect();
    assert_eq!(tabs, ["library.calls: CounterGroup", "library.last: Gauge", "library.own: MyType"]);

    let error = scoped.set_default().unwrap_err();
    assert_eq!(&error.id, default.id());
}

#[test]
fn a_static_that_cannot_be_is_dropped_and_counted() {
    static BAD: Lazy<Counter> = taba_client::counter("not a name");
    static OTHER: Lazy<Counter> = taba_client::counter("both");
    let (client, sink) = client();
    let _gauge = client.gauge("both").unwrap();
    with_client(&client, || {
        BAD.get().add(1.0);
        OTHER.get().add(1.0);
        OTHER.get().add(1.0);
    });
    assert_eq!(client.flush(10 * SECOND).left, 0);
    let dropped = client.stats().dropped;
    assert_eq!((dropped.get(Why::BadName), dropped.get(Why::TypeConflict)), (1, 2));
    assert!(sink.tabs().is_empty());
}

#[test]
fn a_disabled_client_and_its_handles_do_nothing() {
    let client = Client::disabled();
    let (counter, gauge) = (client.counter("a").unwrap(), Gauge::default());
    // The same name with another type: there is no table to look into.
    let again = client.gauge("a").unwrap();
    for _ in 0..100_000 {
        counter.add(f64::NAN);
        counter.add(1.0);
    }
    gauge.set("x");
    again.set("y");
    assert!(client.counter("not a name").is_err() && client.counter("taba.recorded").is_err());
    assert_eq!((client.stats().recorded, client.flush(SECOND).left), (0, 0));
    assert_eq!(client.shutdown(SECOND).left, 0);
    Counter::default().increment();
    assert_eq!(client.stats(), taba_client::ClientStats::default());
}

#[test]
fn handles_are_made_of_texts_names_and_builders() {
    let (client, sink) = client();
    let name = TabName::builder("http").label("path", "/a b").label("city", "Zürich").build().unwrap();
    client.counter(TabName::builder("http").label("city", "Zürich").label("path", "/a b")).unwrap().add(1.0);
    client.counter(&name).unwrap().add(2.0);
    client.counter(name.clone()).unwrap().add(3.0);
    client.counter(name.as_str()).unwrap().add(4.0);
    let text = name.to_string();
    client.counter(&text).unwrap().add(5.0);
    client.counter(name.to_string()).unwrap().add(6.0);
    assert!(client.counter(TabName::builder("a base").label("k", "v")).is_err());
    assert_eq!(client.flush(10 * SECOND).left, 0);
    assert_eq!(sink.values::<f64>(&name), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(sink.tabs()[0].0.label_text("path").as_deref(), Some("/a b"));
}

#[test]
#[should_panic(expected = "its values are not of the type f64")]
fn a_test_that_asks_for_another_type_fails() {
    let (client, sink) = client();
    client.gauge("build").unwrap().set("v1.2");
    assert_eq!(client.flush(10 * SECOND).left, 0);
    assert_eq!(sink.values::<Reading>("build"), [Reading::from("v1.2")]);
    let _ = sink.values::<f64>("build");
}
