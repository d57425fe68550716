//! Every bound of this crate, by name. Exceeding one is an error that names both numbers.

use std::time::Duration;

/// Redis processes of one deployment.
pub const SHARDS_MAX: usize = 1024;
/// Commands to one shard in one request; more are split into requests that are sent one after another.
pub const REQUEST_COMMANDS_MAX: usize = 512;
/// Bytes of keys and values to one shard in one request; a single larger command is sent alone.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one key as a user names it, without its prefix in Redis: 1 to this many.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a namespace: 1 to this many of `a-z`, `0-9`, `_` and `-`.
pub const NAMESPACE_BYTES_MAX: usize = 32;
/// Bytes of the arguments of one command, without its key. Redis itself accepts 512 MiB in one argument.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Arguments of one command, without its key. Redis itself accepts 1,048,576.
pub const COMMAND_ARGUMENTS_MAX: usize = 100_000;
/// Commands of one transaction. Redis is blocked while it executes them.
pub const TRANSACTION_COMMANDS_MAX: usize = 1_000;
/// Keys that one step of a scan asks a shard for. Slightly more may come: Redis returns whole buckets.
pub const SCAN_KEYS_MAX: usize = 10_000;
/// In-flight requests to one shard; others wait. Default.
pub const IN_FLIGHT_MAX: usize = 256;
/// Timeout of connecting, with the check of settings. Default.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of an answer, with the wait for a free place. Default.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the second failed connect in a row; doubled each time.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause between connects: so much later than its promotion a replica may be found.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// VBuckets that move from or to one shard at a time. Default.
pub const MOVES_PER_SHARD: usize = 4;
/// Moves that one run has under way: those that wait for the switch, and those that wait until it is stable.
pub const MOVES_WAITING_MAX: usize = 16 * 1024;
/// Bytes that a replica may be behind while a move begins. Default.
pub const MOVE_LAG_MAX: u64 = 16 * 1024 * 1024;
/// How long the writes of a VBucket may be held by a move: at most, and by default. A Server that connects anew waits
/// this long until it asks all shards who owns what, before it takes anything for stable.
pub const MOVE_PAUSE_MAX: Duration = Duration::from_secs(3);
// So that it has waited for as long anyway.
const _: () = assert!(MOVE_PAUSE_MAX.as_millis() <= DISK_LAG.as_millis());
/// How long after the bar was written a rolled back move may give the VBucket back to its source.
pub const UNFENCE_TIME: Duration = Duration::from_secs(2);
// The disk of the destination may not have the bar: what it takes instead must not be stable before.
const _: () = assert!(UNFENCE_TIME.as_millis() < DISK_LAG.as_millis());
/// How long a move is tried again while a shard does not answer. Default.
pub const MOVE_RETRY_MAX: Duration = Duration::from_secs(30);
/// How often the heads of a VBucket are read until its move is taken for contended.
pub const MOVE_TRIES_MAX: usize = 32;
/// How long one `WAIT` may take.
pub const MOVE_WAIT_STEP: Duration = Duration::from_secs(1);
/// Keys that are copied in one round trip.
pub const MOVE_COMMANDS_MAX: usize = 256;
/// Bytes of a VBucket that are copied in one round trip, and a portion more: so long is the destination blocked.
pub const MOVE_BYTES_MAX: usize = 1024 * 1024;
/// Fields and values, or entries, of one such portion.
pub const MOVE_ITEMS_MAX: usize = 1024;
/// After this long a copy that nobody has put in place is removed by the Redis itself.
pub const STAGED_TIME: Duration = Duration::from_secs(3600);
/// Lines of the log of moves that a shard keeps, about.
pub const MOVES_LOGGED_MAX: usize = 10_000;
/// How often a mover reads how fast it may go.
pub const MOVER_SETTINGS_INTERVAL: Duration = Duration::from_secs(1);
/// How long an operation waits for the switch of a VBucket that moves; in a Redis Cluster, for a slot that moves, and for a
/// node that is away or replaced.
pub const MOVE_WAIT_MAX: Duration = Duration::from_secs(5);
/// The first pause between two looks whether a VBucket that moves has arrived; each is half as long again as the last.
pub const MOVE_POLL_MIN: Duration = Duration::from_millis(1);
/// The longest of these pauses.
pub const MOVE_POLL_MAX: Duration = Duration::from_millis(20);
/// The least time between two censuses caused by errors.
pub const CENSUS_INTERVAL: Duration = Duration::from_secs(1);
/// Tabs and States in one `load`.
pub const LOAD_WANTED_MAX: usize = 50_000;
/// States that one script of a scan returns; bounds how long Redis is blocked.
pub const SCAN_STATES_MAX: usize = 512;
/// Tabs in one round trip of a scan over all Tabs.
pub const SCAN_TABS_MAX: usize = 128;
/// VBuckets that are followed at a time where a look at many found them elsewhere.
pub const FOLLOWED_AT_ONCE: usize = 16;
/// Index entries cached per process, over all VBuckets; 32 to 64 bytes each. A deployment with more States per
/// process writes some again, which costs a command and changes nothing.
pub const KNOWN_ENTRIES_MAX: usize = 2_000_000;
/// The interval of polls of the replicas' offsets during a wait for stability.
pub const STABLE_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// For how long every replica (without replicas, the primary) must have had a commit before it is stable: more than
/// the 1 s after which `appendfsync everysec` syncs it, and the 1 s that a sync may be late.
pub const DISK_LAG: Duration = Duration::from_secs(3);
/// For how long a replica that was seen is expected to return, so that a primary cut off from its replicas does not
/// count as one without. Longer than a failover and than `repl-timeout` (60 s by default).
pub const REPLICA_EXPECTED: Duration = Duration::from_secs(300);
/// The maximum wait for stability.
pub const STABLE_WAIT_MAX: Duration = Duration::from_secs(60);
/// The maximum duration of a lease.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long to read the error of a Redis that closed a new connection.
pub const CONNECT_REFUSAL_TIMEOUT: Duration = Duration::from_millis(250);
/// Timeout of the answer of one Sentinel.
pub const SENTINEL_TIMEOUT: Duration = Duration::from_secs(1);
/// How often Sentinels are asked, during a wait for stability, whether a connected Redis is still the primary.
pub const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of the answer of one node of a Redis Cluster to the question which node has which slot.
pub const CLUSTER_TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes of a Redis Cluster that are asked this at once.
pub const CLUSTER_NODES_ASKED_MAX: usize = 8;
/// The least time between two of these questions that errors cause.
pub const CLUSTER_REFRESH_INTERVAL: Duration = Duration::from_millis(50);
/// How often they are asked during a wait for stability.
pub const CLUSTER_STABLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often one request to a Redis Cluster is sent on without a wait.
pub const CLUSTER_REDIRECTS_MAX: u32 = 16;
/// How long one poll of the replicas waits for that answer.
pub const SENTINEL_POLL_MAX: Duration = Duration::from_millis(250);
