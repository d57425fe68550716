//! A Server of a few lines on a real socket, a Client of a few lines, and batches to send.

#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use taba_core::wire::{
    Ack, Answer, Block, ClientBatch, Compression, Content, Frame, Kind, LaneBatch, Lanes, Probe, Receipt,
    encode_acks,
};
use taba_core::{ClientId, Events, SeqNo, StreamId, TabName, TabType, Timestamp};
use tokio::runtime::Runtime;

/// What a test waits for comes within this time, or the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the Server does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// 503 with `Retry-After: 0`.
    Refusing,
    /// Stores everything and answers nonsense.
    Babbling,
}

/// A Server that keeps the rule of the Lanes and remembers every Block.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    store: Arc<Store>,
    stored: Receiver<Block>,
    _runtime: Runtime,
}

struct Store {
    mood: Mutex<Mood>,
    marks: Mutex<HashMap<(StreamId, u16), SeqNo>>,
    blocks: Mutex<Vec<Block>>,
    tell: Mutex<Sender<Block>>,
    requests: Mutex<u64>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let (tell, stored) = channel();
        let store = Arc::new(Store {
            mood: Mutex::new(Mood::Well),
            marks: Mutex::default(),
            blocks: Mutex::default(),
            tell: Mutex::new(tell),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let router = Router::new()
            .route("/v2/lanes", post(lanes))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&store));
        runtime.spawn(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
        Self { addr, store, stored, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn be(&self, mood: Mood) {
        *self.store.mood.lock().unwrap() = mood;
    }

    pub(crate) fn requests(&self) -> u64 {
        *self.store.requests.lock().unwrap()
    }

    /// Waits for the next Block to be stored.
    pub(crate) fn next_block(&self) -> Block {
        self.stored.recv_timeout(PATIENCE).expect("a Block is stored in time")
    }

    /// How many events of each Tab were stored.
    pub(crate) fn events(&self) -> BTreeMap<String, u64> {
        let mut events = BTreeMap::new();
        for block in self.store.blocks.lock().unwrap().iter() {
            *events.entry(block.tab.to_string()).or_default() += block.events;
        }
        events
    }
}

async fn lanes(State(store): State<Arc<Store>>, body: Bytes) -> Response {
    *store.requests.lock().unwrap() += 1;
    let mood = *store.mood.lock().unwrap();
    if mood == Mood::Refusing {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "tired").into_response();
    }
    let message = Frame::decode(&body, Kind::Lanes).unwrap().message;
    let Lanes { batches, probes, .. } = Lanes::decode(&message).unwrap();
    let taken = batches.into_iter().map(|batch| store.take(batch));
    let acks: Vec<_> = taken.chain(probes.iter().map(|probe| store.probed(probe))).collect();
    // One that never made sense is sent nothing.
    if mood == Mood::Babbling && !acks.is_empty() {
        return "blah".into_response();
    }
    Frame::encode(Kind::Acks, &encode_acks(&acks), Compression::None).into_response()
}

impl Store {
    fn take(&self, batch: LaneBatch) -> Ack {
        let mut marks = self.marks.lock().unwrap();
        let mark = marks.entry((batch.stream, batch.vbucket)).or_default();
        let answer = if batch.seq <= *mark {
            Answer::Duplicate
        } else if batch.seq == mark.next() {
            *mark = batch.seq;
            for block in batch.blocks {
                self.blocks.lock().unwrap().push(block.clone());
                // A test that has seen enough does not listen any more.
                let _ = self.tell.lock().unwrap().send(block);
            }
            Answer::Applied
        } else {
            Answer::Nak
        };
        ack(batch.stream, batch.vbucket, *mark, answer)
    }

    fn probed(&self, probe: &Probe) -> Ack {
        let marks = self.marks.lock().unwrap();
        let mark = marks.get(&(probe.stream, probe.vbucket)).copied().unwrap_or_default();
        ack(probe.stream, probe.vbucket, mark, Answer::Applied)
    }
}

/// Whatever is stored here is stable.
fn ack(stream: StreamId, vbucket: u16, applied: SeqNo, answer: Answer) -> Ack {
    Ack::new(stream, vbucket, applied, answer).with_stable(applied)
}

/// What came back over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answered {
    /// The machine-readable reason of an error.
    pub(crate) fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn receipt(&self) -> Receipt {
        assert_eq!(self.status, 200, "{self:?}");
        let frame = Frame::decode(&Bytes::copy_from_slice(&self.body), Kind::Receipt).unwrap();
        Receipt::decode(&frame.message).unwrap()
    }
}

/// Sends raw bytes and reads to the end.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &[u8]) -> Answered {
    // The answer may come, and the connection close, before everything is written.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head[9..12].parse().unwrap();
    Answered { status, head, body: bytes[end + 4..].to_vec() }
}

pub(crate) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn get(addr: SocketAddr, path: &str) -> Answered {
    exchange(connect(addr), &request("GET", path, "", b""))
}

pub(crate) fn post_events(addr: SocketAddr, body: &[u8]) -> Answered {
    exchange(connect(addr), &events_request(body))
}

pub(crate) fn events_request(body: &[u8]) -> Vec<u8> {
    request("POST", "/v2/events", "Content-Type: application/x-taba\r\n", body)
}

pub(crate) fn frame(batch: &ClientBatch) -> Vec<u8> {
    Frame::encode(Kind::ClientBatch, &batch.encode(), Compression::Lz4)
}

pub(crate) fn batch(seq: u64, blocks: Vec<Block>) -> ClientBatch {
    let client = ClientId::new("web-1").unwrap();
    ClientBatch::new(client, 42, SeqNo(seq), Timestamp::from_secs(1), blocks)
}

pub(crate) fn block(tab: &str, events: usize) -> Block {
    let (tab, client) = (TabName::new(tab).unwrap(), ClientId::new("web-1").unwrap());
    let times = vec![Timestamp::from_secs(1); events];
    let tab_type = TabType::new("TotalsCounter").unwrap();
    Block::of_events(tab, client, tab_type, Events::new(&times, &vec![1.0; events])).unwrap()
}

/// A partial State of so many bytes.
pub(crate) fn heavy(tab: &str, bytes: usize) -> Block {
    block(tab, 5).with_content(Content::State { version: 1, bytes: vec![7; bytes].into() })
}
