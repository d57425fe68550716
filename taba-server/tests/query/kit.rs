//! A store with known content, small Handlers, and a router to ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use taba_core::{
    ClientId, Commit, Committed, Envelope, Event, Handler, Loaded, MemoryStore, Page, Part, Registry, Scan,
    Scanned, StateKey, Store, StoreError, TabList, TabName, TabType, Timestamp, VBucket, VBuckets, Version,
    Wanted, encode_state,
};
use taba_server::Status;
use taba_server::query::{Limits, QueryState, router};
use tower::ServiceExt;

/// 2001-09-09T01:46:40Z.
pub(crate) const NOW: i64 = 1_000_000_000;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) total: f64,
}

/// Counts and adds; the tests add whole numbers only, so the sums are exact.
pub(crate) struct Totals;

impl Handler for Totals {
    type Value = f64;
    type State = Sum;
    type Projection = Sum;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Sum, event: Event<&f64>) {
        state.count += 1;
        state.total += event.value;
    }
    fn merge(&self, into: &mut Sum, other: &Sum) {
        into.count += other.count;
        into.total += other.total;
    }
    fn project(&self, state: &Sum, _: Timestamp) -> Sum {
        state.clone()
    }
    fn aggregate(&self, into: &mut Sum, other: &Sum) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        32
    }
    fn error_bound(&self, _: &Sum) -> Option<f64> {
        Some(0.0097)
    }
    fn tallies(&self) -> bool {
        false
    }
}

/// Remembers its values by time, shows those of the last hour, and tells the latest.
pub(crate) struct Recent;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Values(BTreeMap<i64, f64>);

impl Handler for Recent {
    type Value = f64;
    type State = Values;
    type Projection = Values;
    const VERSION: u16 = 1;

    fn fold(&self, state: &mut Values, event: Event<&f64>) {
        state.0.insert(event.time.as_micros(), *event.value);
    }
    fn merge(&self, into: &mut Values, other: &Values) {
        into.0.extend(&other.0);
    }
    fn project(&self, state: &Values, at: Timestamp) -> Values {
        let from = at.saturating_sub(Duration::from_secs(3600)).as_micros();
        Values(state.0.range(from..=at.as_micros()).map(|(time, value)| (*time, *value)).collect())
    }
    fn aggregate(&self, into: &mut Values, other: &Values) {
        self.merge(into, other);
    }
    fn encoded_bytes_max(&self) -> usize {
        usize::MAX
    }
    fn render(&self, projection: &Values, format: taba_core::Format) -> Value {
        match format {
            taba_core::Format::Detail => {
                serde_json::json!({ "n": projection.0.len(), "all": projection.0.values().collect::<Vec<_>>() })
            }
            _ => serde_json::json!({ "n": projection.0.len() }),
        }
    }
    fn should_prune(&self, state: &Values, at: Timestamp) -> bool {
        let from = at.saturating_sub(Duration::from_secs(3600)).as_micros();
        state.0.range(from..).next().is_none()
    }
    fn tally(&self, projection: &Values) -> Option<String> {
        projection.0.last_key_value().map(|(_, value)| value.to_string())
    }
}

pub(crate) fn handlers() -> Registry {
    Registry::builder().with("TotalsCounter", Totals).with("Recent", Recent).build().unwrap()
}

pub(crate) struct Kit {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) state: QueryState,
    pub(crate) router: Router,
    versions: AtomicU64,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// Frames of the body.
    pub(crate) chunks: usize,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn results(&self) -> Vec<Value> {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        let json = self.json();
        let has_all = json["errors"].as_array().is_none_or(Vec::is_empty);
        assert_eq!(json["complete"], has_all, "{json}");
        json["results"].as_array().unwrap().clone()
    }
}

impl Kit {
    pub(crate) fn new() -> Self {
        let mut limits = Limits::default();
        limits.late_records = Duration::from_millis(20);
        Self::with_limits(limits)
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        let store = Arc::new(MemoryStore::default());
        Self::over(store.clone(), store, limits)
    }

    pub(crate) fn over(store: Arc<MemoryStore>, asked: Arc<dyn Store>, limits: Limits) -> Self {
        Self::with_handlers(store, asked, limits, handlers())
    }

    /// With the standard types.
    pub(crate) fn standard() -> Self {
        let store = Arc::new(MemoryStore::default());
        let handlers = taba_handlers::standard().build().unwrap();
        Self::with_handlers(store.clone(), store, Limits::default(), handlers)
    }

    pub(crate) fn with_handlers(
        store: Arc<MemoryStore>,
        asked: Arc<dyn Store>,
        limits: Limits,
        handlers: Registry,
    ) -> Self {
        Self::with_clock(store, asked, limits, handlers, Arc::new(AtomicI64::new(NOW)))
    }

    /// With a clock that shows these seconds.
    pub(crate) fn with_clock(
        store: Arc<MemoryStore>,
        asked: Arc<dyn Store>,
        limits: Limits,
        handlers: Registry,
        seconds: Arc<AtomicI64>,
    ) -> Self {
        let clock: taba_server::Clock =
            Arc::new(move || Timestamp::from_secs(seconds.load(Ordering::SeqCst)));
        let state = QueryState::with_limits(asked, handlers, clock, Arc::new(Status::default()), limits);
        let router = router(state.clone());
        Self { store, state, router, versions: AtomicU64::new(1) }
    }

    /// Stores a State of a counter with these values, all of now.
    pub(crate) async fn count(&self, tab: &str, client: &str, values: &[f64]) {
        let home = self.store.vbuckets().of(&TabName::new(tab).unwrap());
        self.count_in(home, tab, client, values).await;
    }

    pub(crate) async fn count_in(&self, home: VBucket, tab: &str, client: &str, values: &[f64]) {
        let sum = Sum { count: values.len() as u64, total: values.iter().sum() };
        self.put(
            home,
            tab,
            "TotalsCounter",
            client,
            envelope("TotalsCounter", sum.count, encode_state(&sum)),
        )
        .await;
    }

    /// Stores a State of a standard type with these (seconds before now, value).
    pub(crate) async fn fold<H: Handler>(
        &self,
        (tab, client): (&str, &str),
        (tab_type, handler): (&str, H),
        events: &[(i64, H::Value)],
    ) {
        let home = self.store.vbuckets().of(&TabName::new(tab).unwrap());
        self.fold_in(home, (tab, client), (tab_type, handler), events).await;
    }

    /// The same in a VBucket.
    pub(crate) async fn fold_in<H: Handler>(
        &self,
        home: VBucket,
        (tab, client): (&str, &str),
        (tab_type, handler): (&str, H),
        events: &[(i64, H::Value)],
    ) {
        let mut state = H::State::default();
        for (ago, value) in events {
            handler.fold(&mut state, Event::new(Timestamp::from_secs(NOW - ago), value));
        }
        let envelope = Envelope::new(
            TabType::new(tab_type).unwrap(),
            H::VERSION,
            events.len() as u64,
            encode_state(&state).into(),
        );
        self.put(home, tab, tab_type, client, envelope.encode()).await;
    }

    /// Stores a State of `Recent` with these (seconds, value).
    pub(crate) async fn recent(&self, tab: &str, client: &str, values: &[(i64, f64)]) {
        let home = self.store.vbuckets().of(&TabName::new(tab).unwrap());
        let state = Values(values.iter().map(|(secs, value)| (secs * 1_000_000, *value)).collect());
        self.put(home, tab, "Recent", client, envelope("Recent", values.len() as u64, encode_state(&state)))
            .await;
    }

    pub(crate) async fn put(
        &self,
        home: VBucket,
        tab: &str,
        tab_type: &str,
        client: &str,
        bytes: bytes::Bytes,
    ) {
        let tab = TabName::new(tab).unwrap();
        let key = StateKey { tab: tab.clone(), client: ClientId::new(client).unwrap() };
        let expect = self.store.load(home, &Wanted::default()).await.unwrap().version;
        let commit =
            Commit::new(expect, Version { writer: 7, count: self.versions.fetch_add(1, Ordering::Relaxed) })
                .with_tabs(vec![(tab, Some(TabType::new(tab_type).unwrap()))])
                .with_states(vec![(key, Part::WHOLE, Some(bytes))]);
        assert_eq!(self.store.commit(home, commit).await.unwrap(), Committed::Done);
    }

    /// Removes a State by hand.
    pub(crate) async fn remove(&self, home: VBucket, tab: &str, client: &str) {
        let tab = TabName::new(tab).unwrap();
        let key = StateKey { tab: tab.clone(), client: ClientId::new(client).unwrap() };
        let expect = self.store.load(home, &Wanted::default()).await.unwrap().version;
        let next = Version { writer: 7, count: self.versions.fetch_add(1, Ordering::Relaxed) };
        let commit = Commit::new(expect, next).with_tabs(vec![(tab, None)]).with_states(vec![(
            key,
            Part::WHOLE,
            None,
        )]);
        assert_eq!(self.store.commit(home, commit).await.unwrap(), Committed::Done);
    }

    /// The first query that needs the rules of spread has their copies written; this waits for it.
    pub(crate) async fn settle_spread(&self) {
        let tabs =
            async |vbucket| self.store.tabs(self.store.vbuckets().get(vbucket).unwrap()).await.unwrap();
        self.get("/v2/tabs?name=none").await;
        while tabs(0).await.is_empty() || tabs(3 * 257).await.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, accept: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request =
            request.header("taba-request", "1").header("accept", accept).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, mut body) = response.into_parts();
        let (mut text, mut chunks) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(&frame.unwrap().into_data().unwrap());
            chunks += 1;
        }
        let text = String::from_utf8(text).unwrap();
        Answer { status: head.status, headers: head.headers, text, chunks }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "application/json").await
    }

    pub(crate) async fn results(&self, path: &str) -> Vec<Value> {
        self.get(path).await.results()
    }

    /// The names of the results.
    pub(crate) async fn names(&self, path: &str) -> Vec<String> {
        self.results(path).await.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) fn envelope(tab_type: &str, events: u64, state: Vec<u8>) -> bytes::Bytes {
    let tab_type = TabType::new(tab_type).unwrap();
    Envelope::new(tab_type, 1, events, state.into()).encode()
}

/// A call of a store that an [`Intruder`] sees.
#[derive(Clone, Copy)]
pub(crate) enum StoreCall<'a> {
    Load,
    Commit,
    Stable,
    Tabs,
    Scan(&'a Scan),
}

/// What a test does around the calls of a store.
#[async_trait]
pub(crate) trait Intruder: Send + Sync + 'static {
    /// Before a call is passed on; an error is its answer.
    async fn before(&self, _: StoreCall<'_>, _: VBucket) -> Result<(), StoreError> {
        Ok(())
    }
    /// After a scan.
    async fn scanned(&self, _: &[Scanned]) {}
}

/// A store with somebody between it and whoever asks.
pub(crate) struct Intruded<I> {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) intruder: I,
}

#[async_trait]
impl<I: Intruder> Store for Intruded<I> {
    fn vbuckets(&self) -> VBuckets {
        self.store.vbuckets()
    }
    async fn load(&self, vbucket: VBucket, wanted: &Wanted) -> Result<Loaded, StoreError> {
        self.intruder.before(StoreCall::Load, vbucket).await?;
        self.store.load(vbucket, wanted).await
    }
    async fn commit(&self, vbucket: VBucket, commit: Commit) -> Result<Committed, StoreError> {
        self.intruder.before(StoreCall::Commit, vbucket).await?;
        self.store.commit(vbucket, commit).await
    }
    async fn stable(&self, vbucket: VBucket) -> Result<(), StoreError> {
        self.intruder.before(StoreCall::Stable, vbucket).await?;
        self.store.stable(vbucket).await
    }
    async fn tabs(&self, vbucket: VBucket) -> Result<Vec<(TabName, TabType)>, StoreError> {
        self.intruder.before(StoreCall::Tabs, vbucket).await?;
        self.store.tabs(vbucket).await
    }
    async fn tab_list(&self, vbucket: VBucket, known: Option<Version>) -> Result<TabList, StoreError> {
        self.intruder.before(StoreCall::Tabs, vbucket).await?;
        self.store.tab_list(vbucket, known).await
    }
    async fn scan(&self, vbucket: VBucket, scan: &Scan) -> Result<Vec<Scanned>, StoreError> {
        Ok(self.page(vbucket, scan).await?.states)
    }
    async fn page(&self, vbucket: VBucket, scan: &Scan) -> Result<Page, StoreError> {
        self.intruder.before(StoreCall::Scan(scan), vbucket).await?;
        let page = self.store.page(vbucket, scan).await?;
        self.intruder.scanned(&page.states).await;
        Ok(page)
    }
}
