//! [`ShardLink`]: the shared connection to one shard, replaced after any error.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, Value, cmd};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::clock::{monotonic, random};
use super::error::{LinkError, RedisRefusal};
use super::info::{Hazards, RedisInfo};
use super::options::ShardsOptions;
use super::reconnect::ReconnectPause;
use super::reply::reply;
use super::scripts;
use super::topology::{AtAddress, Topology, TopologyError};
use super::url::{ResolvedUrl, ShardUrl};
use crate::command::Reply;
use crate::keys;
use crate::limits::{
    CONNECT_REFUSAL_TIMEOUT, MOVE_PAUSE_MAX, SENTINEL_INTERVAL, SENTINEL_POLL_MAX, STABLE_POLL_INTERVAL,
};
use crate::map::{ShardId, ShardName};
use crate::shard_map::address_of;
use crate::stability::{
    AppendLog, Poll, ReplicaHistory, StabilityLost, StabilityVerdict, StabilityWait, read_info,
};

/// The shared connection to one shard.
///
/// Dropped on any error and on any timeout. Answers are matched to requests by their order on one connection, so a
/// late answer can only reach its own request, which no longer waits.
pub(crate) struct ShardLink {
    shard: ShardId,
    topology: Arc<dyn Topology>,
    /// Whether it is a node of a Redis Cluster, which has no name: its slots say what it holds.
    is_node: bool,
    /// The name of the Redis; unknown until it has said so.
    name: OnceLock<ShardName>,
    /// Whether it is no shard of the deployment any more.
    is_retired: AtomicBool,
    /// The process that was connected to last, as a number: the beginning of its run ID; 0 until it is known.
    process: AtomicU64,
    /// The connection over which it last said what it holds; 0: none yet.
    censused: AtomicU64,
    /// The connection over which it last said so when every switch under way had come, or was late; 0: none yet.
    settled: AtomicU64,
    connect_timeout: Duration,
    response_timeout: Duration,
    replica_expected: Duration,
    replicas_deployed: usize,
    in_flight_max: usize,
    permits: Semaphore,
    /// Held while connecting.
    connecting: tokio::sync::Mutex<()>,
    slot: Mutex<ConnectionSlot>,
    /// Held while polling how far the replicas are.
    polls: tokio::sync::Mutex<PollState>,
}

/// The numbers of connections: no two of a process have the same, whatever shard they go to.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

struct ConnectionSlot {
    live: Option<Arc<LiveConnection>>,
    reconnect: ReconnectPause,
    has_warned: bool,
    /// The last error of connecting.
    cause: String,
}

#[derive(Default)]
struct PollState {
    last: Option<Poll>,
    /// When Sentinels were last asked.
    asked: Option<Instant>,
    seen: ReplicaHistory,
    hazards: Hazards,
}

/// A connection in use.
struct LiveConnection {
    connection: MultiplexedConnection,
    epoch: u64,
    made: Instant,
    info: RedisInfo,
    address: ResolvedUrl,
}

/// Answers, and where they come from.
pub(crate) struct Answered {
    /// One for each command.
    pub(crate) replies: Vec<Reply>,
    pub(crate) epoch: u64,
    /// The run ID of the process; empty if unknown.
    pub(crate) run: String,
}

impl ShardLink {
    pub(crate) fn new(shard: ShardId, topology: Arc<dyn Topology>, options: &ShardsOptions) -> Self {
        let in_flight_max = options.in_flight_max.max(1);
        let reconnect = ReconnectPause::new(random());
        let slot = ConnectionSlot { live: None, reconnect, has_warned: false, cause: String::new() };
        Self {
            shard,
            topology,
            is_node: false,
            name: OnceLock::new(),
            is_retired: AtomicBool::new(false),
            process: AtomicU64::new(0),
            censused: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
            replica_expected: options.stability.replica_expected,
            replicas_deployed: options.stability.replicas,
            in_flight_max,
            permits: Semaphore::new(in_flight_max),
            connecting: tokio::sync::Mutex::default(),
            slot: Mutex::new(slot),
            polls: tokio::sync::Mutex::default(),
        }
    }

    /// A connection to the Redis of one URL.
    pub(super) fn to(shard: ShardId, url: ShardUrl, options: &ShardsOptions) -> Self {
        Self::new(shard, Arc::new(AtAddress(url)), options)
    }

    /// A connection to a node of a Redis Cluster.
    pub(super) fn to_node(shard: ShardId, url: ShardUrl, options: &ShardsOptions) -> Self {
        Self { is_node: true, ..Self::to(shard, url, options) }
    }

    /// Another connection to the same shard.
    pub(super) fn again(&self, options: &ShardsOptions) -> Self {
        let other = Self::new(self.shard, Arc::clone(&self.topology), options);
        if let Some(name) = self.name() {
            other.expect_name(name);
        }
        other
    }

    pub(crate) const fn shard(&self) -> ShardId {
        self.shard
    }

    /// What an operator calls it.
    pub(crate) fn label(&self) -> String {
        self.topology.name(self.shard)
    }

    /// Its address, as the shard map writes it.
    pub(super) fn address(&self) -> String {
        let label = self.label();
        address_of(&label).to_owned()
    }

    /// The name of the Redis; `None` until it has answered, or while it has none.
    pub(crate) fn name(&self) -> Option<ShardName> {
        self.name.get().copied()
    }

    /// From now on only a Redis of this name is this shard. The first name that is given, or found, stays.
    pub(super) fn expect_name(&self, name: ShardName) {
        let _ = self.name.set(name);
    }

    /// Whether it is no shard of the deployment any more.
    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    pub(super) fn retire(&self, is_retired: bool) {
        self.is_retired.store(is_retired, Ordering::Relaxed);
    }

    /// The process that was connected to last, as a number that is drawn at its start; 0 when it is not known.
    pub(crate) fn process(&self) -> u64 {
        self.process.load(Ordering::Relaxed)
    }

    /// The connection over which it last said what it holds.
    pub(crate) fn censused(&self) -> Option<u64> {
        Some(self.censused.load(Ordering::Acquire)).filter(|connection| *connection > 0)
    }

    /// It has said over this connection what it holds. Numbers of connections only grow: a newer one stays.
    pub(super) fn answered_census(&self, connection: u64) {
        self.censused.fetch_max(connection, Ordering::AcqRel);
    }

    /// Whether all shards were asked so long after this connection was made that every switch that was under way then had
    /// come, or was late.
    pub(crate) fn is_settled(&self, connection: u64) -> bool {
        self.settled.load(Ordering::Acquire) == connection
    }

    /// Begun at this time, all shards have said what they hold, this one over this connection.
    pub(super) fn answered_with_all(&self, connection: u64, begun: Instant) {
        if self.made(connection).is_some_and(|made| begun > made + MOVE_PAUSE_MAX) {
            self.settled.fetch_max(connection, Ordering::AcqRel);
        }
    }

    /// When the connection was made, if it is in use.
    pub(super) fn made(&self, connection: u64) -> Option<Instant> {
        let slot = self.slot();
        slot.live.as_ref().filter(|live| live.epoch == connection).map(|live| live.made)
    }

    /// It was asked over this connection about one VBucket; counts while it was never asked for all.
    pub(crate) fn answered_head(&self, connection: u64) {
        let _ = self.censused.compare_exchange(0, connection, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The number of the connection in use, if there is one.
    pub(crate) fn connection(&self) -> Option<u64> {
        self.slot().live.as_ref().map(|live| live.epoch)
    }

    /// Sends commands in one pipeline, and waits for all answers; what a command is refused is an answer too.
    pub(crate) async fn request(&self, commands: Vec<Cmd>) -> Result<Answered, LinkError> {
        self.send(&pipeline(commands), None).await
    }

    /// `only`: the number of the connection to use, or nothing is sent.
    pub(crate) async fn send(&self, commands: &Pipeline, only: Option<u64>) -> Result<Answered, LinkError> {
        let shard = self.shard;
        let permit = tokio::time::timeout(self.response_timeout, self.permits.acquire()).await;
        let in_flight_max = self.in_flight_max;
        let Ok(Ok(_permit)) = permit else { return Err(LinkError::Busy { shard, in_flight_max }) };
        let live = self.live().await?;
        if only.is_some_and(|only| only != live.epoch) {
            return Err(LinkError::Reconnected { shard });
        }
        let replies = self.ask(&live, commands).await?;
        Ok(Answered { replies, epoch: live.epoch, run: live.info.run.clone() })
    }

    /// As [`request`](Self::request), for scripts: loads them again if the Redis does not know them. Known ones then
    /// run twice, so all but one must be idempotent.
    pub(crate) async fn eval(&self, calls: Vec<Cmd>) -> Result<Answered, LinkError> {
        self.eval_over(calls, None).await
    }

    /// As [`eval`](Self::eval), over the connection of this number or not at all.
    pub(crate) async fn eval_over(&self, calls: Vec<Cmd>, only: Option<u64>) -> Result<Answered, LinkError> {
        let calls = pipeline(calls);
        let answered = self.send(&calls, only).await?;
        if !answered.replies.iter().any(|reply| is_refused_with(reply, "NOSCRIPT")) {
            return Ok(answered);
        }
        tracing::debug!(shard = self.shard.0, "the scripts are gone; loading them again");
        self.request(scripts::all().map(scripts::Script::load).collect()).await?;
        self.send(&calls, only).await
    }

    /// Runs one command or script; an error reply is an error.
    pub(crate) async fn one(&self, call: Cmd) -> Result<Reply, LinkError> {
        let shard = self.shard;
        let mut replies = self.eval(vec![call]).await?.replies;
        accepted(shard, replies.pop().ok_or(LinkError::Answer { shard })?)
    }

    /// The number of the current connection; connects if there is none.
    pub(crate) async fn epoch(&self) -> Result<u64, LinkError> {
        Ok(self.live().await?.epoch)
    }

    /// The replicas' offsets, from a poll that started at `since` or later. A new poll starts no sooner than
    /// [`STABLE_POLL_INTERVAL`] after the one before.
    pub(crate) async fn poll(&self, since: Instant) -> Result<Poll, LinkError> {
        loop {
            let pause = {
                let mut polls = self.polls.lock().await;
                let last = polls.last.as_ref();
                if let Some(last) = last.filter(|last| last.started >= since) {
                    return Ok(last.clone());
                }
                let due = last.map(|last| last.started + STABLE_POLL_INTERVAL);
                let pause = due.map(|due| due.saturating_duration_since(monotonic()));
                if pause.is_none_or(|pause| pause.is_zero()) {
                    let (mut poll, had_log) = self.look(&mut polls.asked).await?;
                    if had_log {
                        polls.seen.saw_log(AppendLog::Lazy);
                    }
                    let replicas = poll.replicas.len();
                    poll.replicas_expected = polls.seen.saw(replicas, poll.started, self.replica_expected);
                    poll.has_weaker_log = polls.seen.saw_log(poll.log);
                    let hazards = Hazards::of(&poll, self.replicas_deployed);
                    hazards.log_changes(&polls.hazards, &self.label());
                    polls.hazards = hazards;
                    polls.last = Some(poll);
                    continue;
                }
                pause.unwrap_or_default()
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Polls; also whether there was an append-only log at connect. `asked`: when Sentinels were last asked.
    async fn look(&self, asked: &mut Option<Instant>) -> Result<(Poll, bool), LinkError> {
        let shard = self.shard;
        let started = monotonic();
        let live = self.live().await?;
        let (mut info, mut config) = (cmd("INFO"), cmd("CONFIG"));
        info.arg("replication").arg("persistence").arg("memory");
        config.arg("GET").arg("appendfsync");
        let questions = pipeline(vec![info, config]);
        let is_due = asked.is_none_or(|asked| started >= asked + SENTINEL_INTERVAL);
        let deposed = async { is_due && self.is_deposed(&live).await };
        let (replies, is_deposed) = futures::join!(self.ask(&live, &questions), deposed);
        if is_due {
            *asked = Some(started);
        }
        if is_deposed {
            self.discard(&live);
            return Err(LinkError::Deposed { shard });
        }
        let mut replies = replies?.into_iter();
        let text = match accepted(shard, replies.next().ok_or(LinkError::Answer { shard })?)? {
            Reply::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            _ => return Err(LinkError::Answer { shard }),
        };
        // Without permission for CONFIG the value at connect is assumed.
        let sync = match replies.next() {
            Some(Reply::List(pair)) => match pair.into_iter().nth(1) {
                Some(Reply::Bytes(value)) => Some(String::from_utf8_lossy(&value).into_owned()),
                _ => None,
            },
            _ => None,
        };
        let poll =
            read_info(&text, sync.as_deref(), started, live.epoch).ok_or(LinkError::Answer { shard })?;
        if !live.info.history.is_empty() && poll.history != live.info.history {
            self.discard(&live);
            return Err(LinkError::Rewritten { shard });
        }
        Ok((poll, live.info.has_log))
    }

    /// Whether Sentinels know of a failover to another Redis. A primary that they cannot reach does not know of it itself.
    async fn is_deposed(&self, live: &LiveConnection) -> bool {
        let now = tokio::time::timeout(SENTINEL_POLL_MAX, self.resolve()).await;
        let known = &live.address;
        matches!(now, Ok(Ok(now)) if now.failover > known.failover && now.info.addr() != known.info.addr())
    }

    /// The address of the primary now.
    async fn resolve(&self) -> Result<ResolvedUrl, LinkError> {
        let shard = self.shard;
        let url = self.topology.address(shard).await.map_err(LinkError::Address)?;
        let resolved = url.resolve().await;
        resolved.map_err(|source| LinkError::Address(TopologyError { shard, source: Box::new(source) }))
    }

    /// Waits until all that was written over the connection of this number is safe; the reason if that can no longer be
    /// known.
    pub(crate) async fn stable(
        &self,
        connection: u64,
        options: &ShardsOptions,
    ) -> Result<Result<(), StabilityLost>, LinkError> {
        let begun = monotonic();
        let mut wait = StabilityWait::new(begun, connection, options.stability);
        let mut since = begun;
        loop {
            let poll = self.poll(since).await?;
            since = poll.started + Duration::from_nanos(1);
            let verdict = match wait.handle(&poll) {
                StabilityVerdict::Pending => wait.expire(monotonic(), options.stable_wait_max),
                verdict => verdict,
            };
            match verdict {
                StabilityVerdict::Stable => return Ok(Ok(())),
                StabilityVerdict::Lost(why) => return Ok(Err(why)),
                StabilityVerdict::Pending => {}
            }
        }
    }

    /// The current connection, or a new one.
    async fn live(&self) -> Result<Arc<LiveConnection>, LinkError> {
        if let Some(live) = &self.slot().live {
            return Ok(Arc::clone(live));
        }
        let _connecting = self.connecting.lock().await;
        {
            let slot = self.slot();
            if let Some(live) = &slot.live {
                return Ok(Arc::clone(live));
            }
            if let Some(pause) = slot.reconnect.left(monotonic()) {
                return Err(LinkError::Paused { shard: self.shard, pause, cause: slot.cause.clone() });
            }
        }
        let connected = tokio::time::timeout(self.connect_timeout, self.connect()).await;
        let connected =
            connected.unwrap_or(Err(LinkError::TimedOut { shard: self.shard, after: self.connect_timeout }));
        let mut slot = self.slot();
        match connected {
            Ok(live) => {
                slot.reconnect.succeeded();
                if !std::mem::replace(&mut slot.has_warned, true) {
                    live.info.warn(self.shard);
                }
                let live = Arc::new(live);
                slot.live = Some(Arc::clone(&live));
                Ok(live)
            }
            Err(error) => {
                slot.reconnect.failed(monotonic());
                slot.cause = taba_core::causes(&error);
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<LiveConnection, LinkError> {
        let shard = self.shard;
        let broken = |error: redis::RedisError| match refusal(&error) {
            Some(source) => LinkError::Refused { shard, source },
            None => LinkError::Connect { shard, source: Box::new(error) },
        };
        let address = self.resolve().await?;
        let client = Client::open(address.info.clone()).map_err(broken)?;
        // Timeouts are handled here, because a timeout drops the connection.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(self.in_flight_max);
        let (connection, values) = match handshake(&client, &config, self.is_node).await {
            Ok(greeted) => greeted,
            // A Redis that refuses connections sends an error and closes. When the connection breaks during our
            // write, that error is not received: connect again and only read.
            Err(error) if error.is_io_error() && !error.is_connection_refusal() => {
                match refusal_at_connect(address.info.addr()).await {
                    Some(source) => return Err(LinkError::Refused { shard, source }),
                    None => return Err(broken(error)),
                }
            }
            Err(error) => return Err(broken(error)),
        };
        let mut info = RedisInfo::default();
        let mut found = None;
        for (place, value) in values.into_iter().enumerate() {
            match reply(value) {
                Reply::Bytes(text) if place == 0 => {
                    info = RedisInfo::read(&String::from_utf8_lossy(&text));
                    info.check(shard, self.is_node)?;
                }
                Reply::Bytes(text) if place == 1 => found = String::from_utf8_lossy(&text).parse().ok(),
                // The name of a Redis has a slot, and a node that has not that slot says so.
                Reply::Refused { code, .. } if place == 1 && ["MOVED", "CLUSTERDOWN"].contains(&&*code) => {
                    return Err(LinkError::ClusterNode { shard });
                }
                // The ACL forbids INFO, or it was renamed.
                Reply::Refused { code, detail }
                    if place == 0 && (code == "NOPERM" || detail.contains("unknown command")) => {}
                other => drop(accepted(shard, other)?),
            }
        }
        if let Some(name) = found.filter(|_| !self.is_node) {
            self.expect_name(name);
        }
        if let Some(expected) = self.name().filter(|expected| found != Some(*expected)) {
            return Err(LinkError::Stranger { shard, label: self.label(), expected, found });
        }
        let process = info.run.get(..16).and_then(|run| u64::from_str_radix(run, 16).ok());
        self.process.store(process.unwrap_or(0), Ordering::Relaxed);
        let epoch = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::info!(shard = shard.0, address = %address.info.addr(), epoch, "connected to a redis");
        Ok(LiveConnection { connection, epoch, made: monotonic(), info, address })
    }

    async fn ask(&self, live: &Arc<LiveConnection>, commands: &Pipeline) -> Result<Vec<Reply>, LinkError> {
        let (shard, after) = (self.shard, self.response_timeout);
        let count = commands.len();
        let mut connection = live.connection.clone();
        let answer = connection.send_packed_commands(commands, 0, count);
        let values = match tokio::time::timeout(after, answer).await {
            Ok(Ok(values)) => values,
            Ok(Err(error)) => {
                self.discard(live);
                return Err(LinkError::Broken { shard, source: Box::new(error) });
            }
            Err(_) => {
                self.discard(live);
                return Err(LinkError::TimedOut { shard, after });
            }
        };
        let replies: Vec<Reply> = values.into_iter().map(reply).collect();
        if replies.len() != count {
            self.discard(live);
            return Err(LinkError::Answer { shard });
        }
        // Demoted: the primary may have another address now.
        if replies.iter().any(|reply| is_refused_with(reply, "READONLY")) {
            self.discard(live);
        }
        Ok(replies)
    }

    /// Replaces this connection at the next request.
    fn discard(&self, live: &Arc<LiveConnection>) {
        let mut slot = self.slot();
        if slot.live.as_ref().is_some_and(|current| current.epoch == live.epoch) {
            slot.live = None;
            drop(slot);
            tracing::warn!(shard = self.shard.0, epoch = live.epoch, "a connection to a redis is dropped");
        }
    }

    fn slot(&self) -> MutexGuard<'_, ConnectionSlot> {
        // Each change replaces the whole value, so a panic leaves it intact.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ShardLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardLink").field("shard", &self.shard).finish_non_exhaustive()
    }
}

fn pipeline(commands: Vec<Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

/// Connects, reads the settings and the name, and loads the scripts. A node of a Cluster has no name.
async fn handshake(
    client: &Client,
    config: &AsyncConnectionConfig,
    is_node: bool,
) -> Result<(MultiplexedConnection, Vec<Value>), redis::RedisError> {
    let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
    let mut hello = Pipeline::new();
    let mut name = cmd(if is_node { "PING" } else { "GET" });
    if !is_node {
        name.arg(keys::SHARD_NAME);
    }
    hello.add_command(cmd("INFO"));
    hello.add_command(name);
    for script in scripts::all() {
        hello.add_command(script.load());
    }
    let count = hello.len();
    let values = connection.send_packed_commands(&hello, 0, count).await?;
    Ok((connection, values))
}

/// The error reply, if the error is one of Redis.
pub(super) fn refusal(error: &redis::RedisError) -> Option<RedisRefusal> {
    // The library keeps neither code nor text of this one.
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        let detail = "it does not take the user and password of its URL".to_owned();
        return Some(RedisRefusal { code: "WRONGPASS".to_owned(), detail });
    }
    let code = error.code()?.to_owned();
    Some(RedisRefusal { code, detail: error.detail().unwrap_or_default().to_owned() })
}

/// The error that a Redis sends before it closes a new connection: `-ERR max number of clients reached`.
async fn refusal_at_connect(address: &redis::ConnectionAddr) -> Option<RedisRefusal> {
    let redis::ConnectionAddr::Tcp(host, port) = address else { return None };
    let listen = async {
        let stream = TcpStream::connect((host.as_str(), *port)).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream.take(512)).read_line(&mut line).await.ok()?;
        let (code, detail) = line.trim_end().strip_prefix('-')?.split_once(' ')?;
        Some(RedisRefusal { code: code.to_owned(), detail: detail.to_owned() })
    };
    tokio::time::timeout(CONNECT_REFUSAL_TIMEOUT, listen).await.ok()?
}

/// The reply; an error when the Redis refused the command.
pub(crate) fn accepted(shard: ShardId, reply: Reply) -> Result<Reply, LinkError> {
    match reply {
        Reply::Refused { code, detail } => {
            Err(LinkError::Refused { shard, source: RedisRefusal { code, detail } })
        }
        reply => Ok(reply),
    }
}

fn is_refused_with(reply: &Reply, word: &str) -> bool {
    matches!(reply, Reply::Refused { code, .. } if code == word)
}
