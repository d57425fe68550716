//! Over a real socket: watches, and answers whose reader goes away.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use taba_core::{MemoryStore, Scan, Store, StoreError, TabName, VBucket};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::kit::{Intruded, Intruder, Kit, NOW, StoreCall};
use taba_server::query::Limits;

const PATIENCE: Duration = Duration::from_secs(10);

struct Reader {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _write: tokio::net::tcp::OwnedWriteHalf,
}

impl Reader {
    async fn get(kit: &Kit, path: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, kit.router.clone()).into_future());
        let (read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        write.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        Self { lines: BufReader::new(read).lines(), _write: write }
    }

    /// The next line that contains `text`; `None` at the end.
    async fn find(&mut self, text: &str) -> Option<String> {
        timeout(PATIENCE, async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        })
        .await
        .unwrap_or_else(|_| panic!("{text:?} never came"))
    }
}

#[tokio::test]
async fn a_watch_tells_changes_and_ends_with_the_server() {
    let kit = Kit::new();
    kit.count("x", "a", &[1.0]).await;
    let mut watch = Reader::get(&kit, "/v2/watch?name=x&every=0.1").await;
    assert!(watch.find("200 OK").await.is_some());
    assert!(watch.find("event: aggregate").await.is_some());
    assert!(watch.find("data: ").await.unwrap().contains("\"count\":1,\"total\":1.0"));
    kit.count("x", "b", &[5.0, 6.0]).await;
    // The very next event is the change: what stayed the same is not told again.
    assert!(watch.find("data: ").await.unwrap().contains("\"count\":3,\"total\":12.0"));
    kit.ask("DELETE", "/v2/tabs?name=x", "*/*").await;
    assert!(watch.find("event: ").await.unwrap().contains("gone"));
    kit.state.close();
    // The last chunk of the body.
    timeout(PATIENCE, async { while watch.find("").await.is_some_and(|line| line != "0") {} }).await.unwrap();
    assert_eq!(kit.get("/v2/watch").await.status, 503);
}

#[tokio::test]
async fn watches_are_bounded() {
    let mut limits = Limits::default();
    limits.watches_max = 1;
    limits.watch_tabs_max = 1;
    let kit = Kit::with_limits(limits);
    kit.count("x", "a", &[1.0]).await;
    let mut first = Reader::get(&kit, "/v2/watch").await;
    assert!(first.find("event: aggregate").await.is_some());
    let refused = kit.get("/v2/watch").await;
    assert_eq!((refused.status.as_u16(), refused.headers["retry-after"].as_bytes()), (503, &b"1"[..]));
    drop(first);
    kit.count("y", "a", &[1.0]).await;
    // Once the server sees that the first is gone, there is room, and the question itself is too large.
    timeout(PATIENCE, async {
        while kit.get("/v2/watch").await.status != 400 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_answer_streams_over_a_socket() {
    let kit = Kit::new();
    for i in 0..3000 {
        kit.count(&format!("tab{i:04}"), "a", &[1.0]).await;
    }
    let mut reader = Reader::get(&kit, "/v2/tabs").await;
    assert!(reader.find("transfer-encoding: chunked").await.is_some());
    assert!(reader.find("tab0000").await.is_some());
    assert!(reader.find("tab2999").await.is_some());
    assert!(reader.find("\"complete\":true").await.is_some());
}

/// Tabs whose States were read, without those of the Ledger and of rules.
#[derive(Default)]
struct ReadTabs(Mutex<BTreeSet<String>>);

#[async_trait]
impl Intruder for ReadTabs {
    async fn before(&self, call: StoreCall<'_>, _: VBucket) -> Result<(), StoreError> {
        if let StoreCall::Scan(Scan { tab: Some(tab), .. }) = call
            && !tab.is_reserved()
        {
            self.0.lock().unwrap().insert(tab.to_string());
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_watch_reads_only_what_changed() {
    let memory = Arc::new(MemoryStore::default());
    let store = Arc::new(Intruded { store: memory.clone(), intruder: ReadTabs::default() });
    let kit = Kit::over(memory, store.clone(), Limits::default());
    for n in 0..50 {
        // A type with a word for each Client, and one without.
        kit.recent(&format!("r{n:02}"), "a", &[(NOW - 10, 1.0)]).await;
        kit.count(&format!("x{n:02}"), "a", &[1.0]).await;
    }
    let home = |name: &str| kit.store.vbuckets().of(&TabName::new(name).unwrap());
    for path in ["/v2/watch?every=0.1", "/v2/watch?every=0.1&client=a"] {
        let mut watch = Reader::get(&kit, path).await;
        for n in 0..50 {
            assert!(watch.find(&format!("\"x{n:02}\"")).await.is_some());
        }
        store.intruder.0.lock().unwrap().clear();
        for n in 0..3 {
            kit.count("x07", "a", &vec![1.0; n + 2]).await;
            assert!(watch.find("data: ").await.unwrap().contains(&format!("\"count\":{}", n + 2)));
        }
        let read = std::mem::take(&mut *store.intruder.0.lock().unwrap());
        assert!(read.contains("x07") && read.iter().all(|name| home(name) == home("x07")), "{read:?}");
        kit.count("x07", "a", &[1.0]).await;
    }
}
