//! Bad questions, and stores that fail: every refusal says what to mend.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use taba_core::{Commit, Committed, MemoryStore, Scan, Store, StoreError, VBucket};
use taba_server::query::Limits;

use crate::kit::{Intruded, Intruder, Kit, StoreCall};

#[tokio::test]
async fn every_bad_question_is_refused_with_a_reason() {
    let kit = Kit::new();
    kit.count("x", "a", &[1.0]).await;
    for (method, path, reason) in [
        ("GET", "/v2/tabs?nmae=x", "unknown_parameter"),
        ("GET", "/v2/names?at=5", "unknown_parameter"),
        ("GET", "/v2/status?name=x", "unknown_parameter"),
        ("GET", "/v2/ledger?name=x", "unknown_parameter"),
        ("GET", "/v2/super?by=to", "unknown_parameter"),
        ("GET", "/v2/projections?by=to", "unknown_parameter"),
        ("GET", "/v2/watch?at=5", "unknown_parameter"),
        ("GET", "/metrics?limit=5", "unknown_parameter"),
        ("POST", "/v2/prune?at=5", "unknown_parameter"),
        ("GET", "/v2/tabs?name=a%20b", "bad_parameter"),
        ("GET", "/v2/tabs?name=", "bad_parameter"),
        ("GET", "/v2/tabs?name=a,,b", "bad_parameter"),
        ("GET", "/v2/tabs?base=a;b=c", "bad_parameter"),
        ("GET", "/v2/tabs?client=a;b", "bad_parameter"),
        ("GET", "/v2/tabs?type=A/B", "bad_parameter"),
        ("GET", "/v2/tabs?label.=x", "unknown_parameter"),
        ("GET", "/v2/tabs?by=", "bad_parameter"),
        ("GET", "/v2/tabs?at=noon", "bad_parameter"),
        ("GET", "/v2/tabs?at=1&at=2", "bad_parameter"),
        ("GET", "/v2/tabs?detail=maybe", "bad_parameter"),
        ("GET", "/v2/tabs?limit=0", "bad_parameter"),
        ("GET", "/v2/tabs?limit=-1", "bad_parameter"),
        ("GET", "/v2/tabs?name=%zz", "bad_parameter"),
        ("GET", "/v2/tabs?name=%ff", "bad_parameter"),
        ("GET", "/v2/watch?every=0", "bad_parameter"),
        ("GET", "/v2/watch?every=NaN", "bad_parameter"),
        ("GET", "/v2/tabs?re=true&name=(a", "bad_regex"),
        ("GET", "/v2/tabs?re=true&client=a)%7C(b", "bad_regex"),
        ("GET", "/v2/tabs?re=true&name=%5Cw%7B500%7D%7B500%7D", "bad_regex"),
        ("DELETE", "/v2/tabs", "nothing_chosen"),
        ("DELETE", "/v2/tabs?name=taba.recorded", "reserved"),
        ("DELETE", "/v2/tabs?base=taba.dropped", "reserved"),
        ("DELETE", "/v2/tabs?re=true&name=taba%5C..*", "reserved"),
        ("DELETE", "/v2/tabs?client=a&reserved=true", "reserved"),
        ("DELETE", "/v2/tabs?name=x&limit=3", "unknown_parameter"),
    ] {
        let answer = kit.ask(method, path, "application/json").await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert_eq!(answer.json()["reason"], reason, "{path}: {}", answer.text);
        assert!(!answer.json()["message"].as_str().unwrap().is_empty());
    }
    let known = kit.get("/v2/ledger?x=1").await.json();
    assert_eq!(known["known"], json!(["client", "re", "limit", "from", "totals"]));
    assert_eq!(kit.ask("GET", "/v2/tabs", "image/png").await.status, 406);
    let wrong = kit.ask("PUT", "/v2/tabs", "*/*").await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["reason"]), (405, &json!("method_not_allowed")));
    assert_eq!(kit.names("/v2/names").await, ["x"], "nothing was deleted");
    assert!(kit.state.report().failed >= 36);
}

/// All works until a scan for one Tab; what is reserved works.
struct Breakage {
    /// `None` breaks at once.
    from: Option<&'static str>,
    stuck: bool,
}

#[async_trait]
impl Intruder for Breakage {
    async fn before(&self, call: StoreCall<'_>, _: VBucket) -> Result<(), StoreError> {
        let works = match call {
            StoreCall::Load | StoreCall::Commit | StoreCall::Stable => true,
            StoreCall::Tabs => self.from.is_some(),
            StoreCall::Scan(scan) => self.from.is_some_and(|from| {
                scan.tab.as_ref().is_none_or(|tab| tab.is_reserved() || tab.as_str() < from)
            }),
        };
        if works {
            return Ok(());
        }
        if self.stuck {
            std::future::pending::<()>().await;
        }
        let retry_after = Duration::from_secs(7);
        Err(StoreError::Unavailable { retry_after, source: "the disk is gone".into() })
    }
}

async fn broken(from: Option<&'static str>, stuck: bool) -> Kit {
    let broken =
        Arc::new(Intruded { store: Arc::new(MemoryStore::default()), intruder: Breakage { from, stuck } });
    let mut limits = Limits::default();
    limits.query_time = if stuck { Duration::from_millis(300) } else { Duration::from_secs(60) };
    let mut kit = Kit::over(Arc::new(MemoryStore::default()), broken.clone(), limits);
    // The kit writes into its own store; move what it wrote behind the broken one.
    for tab in ["a", "b", "c"] {
        kit.count(tab, "client", &[1.0]).await;
    }
    let full = std::mem::replace(&mut kit.store, Arc::new(MemoryStore::default()));
    for vbucket in full.vbuckets().iter() {
        let scan = Scan::default().with_limit(10).with_what(taba_core::ScanWhat::States);
        let states = full.scan(vbucket, &scan).await.unwrap();
        let commit = Commit::new(taba_core::Version::NEVER, taba_core::Version { writer: 1, count: 1 })
            .with_tabs(
                full.tabs(vbucket).await.unwrap().into_iter().map(|(tab, ty)| (tab, Some(ty))).collect(),
            )
            .with_states(
                states
                    .into_iter()
                    .flat_map(|s| {
                        s.parts.into_iter().map(move |(part, bytes)| (s.key.clone(), part, Some(bytes)))
                    })
                    .collect(),
            );
        assert_eq!(broken.store.commit(vbucket, commit).await.unwrap(), Committed::Done);
    }
    kit
}

#[tokio::test]
async fn a_store_that_is_away_is_a_503_with_retry_after() {
    let kit = broken(None, false).await;
    for path in [
        "/v2/tabs",
        "/v2/projections",
        "/v2/super",
        "/v2/names",
        "/v2/clients",
        "/v2/types",
        "/v2/watch",
        "/v2/ledger",
    ] {
        let answer = kit.get(path).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text);
        assert_eq!(answer.headers["retry-after"], "7");
        assert_eq!(answer.json()["reason"], "store_unavailable");
        assert_eq!(answer.json()["message"], "the store failed: the store is unavailable: the disk is gone");
    }
}

#[tokio::test]
async fn a_tab_that_cannot_be_read_is_missing_and_the_others_are_answered() {
    let kit = broken(Some("c"), false).await;
    let answer = kit.get("/v2/tabs").await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!((json["results"].as_array().unwrap().len(), &json["complete"]), (2, &json!(false)));
    assert_eq!((&json["missing"]["vbuckets"], &json["missing"]["affects"]), (&json!(1), &json!("results")));
    assert_eq!(json["missing"]["why"], json!(["the store is unavailable: the disk is gone"]));
    let answer = kit.get("/v2/tabs?name=c").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (503, &json!("store_unavailable")));
    let lines = kit.ask("GET", "/v2/tabs", "application/x-ndjson").await.text;
    assert!(lines.lines().last().unwrap().contains("\"complete\":false"));
    let text = kit.ask("GET", "/v2/tabs", "text/plain").await.text;
    assert!(text.contains("# missing: 1 vbuckets could not be read"), "{text}");
}

#[tokio::test]
async fn a_query_that_takes_too_long_ends() {
    let kit = broken(Some("b"), true).await;
    let json = kit.get("/v2/tabs").await.json();
    assert_eq!((&json["complete"], &json["error"]["reason"]), (&json!(false), &json!("timeout")));
    let kit = broken(None, true).await;
    for path in ["/v2/tabs", "/v2/names", "/v2/super"] {
        let answer = kit.get(path).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (503, &json!("timeout")), "{path}");
        assert!(answer.headers.contains_key("retry-after"));
    }
    let answer = kit.ask("DELETE", "/v2/tabs?base=a", "*/*").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (503, &json!("timeout")));
}

#[tokio::test]
async fn too_many_tabs_are_refused() {
    let mut limits = Limits::default();
    limits.tabs_max = 2;
    let kit = Kit::with_limits(limits);
    for tab in ["a", "b", "c"] {
        kit.count(tab, "client", &[1.0]).await;
    }
    assert_eq!(kit.get("/v2/tabs").await.json()["reason"], "too_many_tabs");
    assert_eq!(kit.names("/v2/tabs?name=a,c").await, ["a", "c"]);
}
