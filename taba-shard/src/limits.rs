//! Every bound of this crate, by name. What is over a bound is refused with an error that names both numbers.

use std::time::Duration;

/// Redis processes of one deployment.
pub const SHARDS_MAX: usize = 1024;
/// Commands that travel to one shard in one request; more are split over several requests, which go one after
/// another.
pub const REQUEST_COMMANDS_MAX: usize = 512;
/// Bytes of keys and values that travel to one shard in one request; a single larger command travels alone.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one key as a user names it, without what stands before it in Redis. 1 to this many.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a namespace: 1 to this many of `a-z`, `0-9`, `_` and `-`.
pub const NAMESPACE_BYTES_MAX: usize = 32;
/// Bytes of the arguments of one command, its key not counted. Redis itself takes 512 MiB in one of them.
pub const COMMAND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Arguments of one command, its key not counted. Redis itself takes 1,048,576.
pub const COMMAND_ARGUMENTS_MAX: usize = 100_000;
/// Commands of one transaction. Redis does nothing else while it does them.
pub const TRANSACTION_COMMANDS_MAX: usize = 1_000;
/// Keys that one step of a scan asks a shard for. It may bring some more: Redis keeps buckets whole.
pub const SCAN_KEYS_MAX: usize = 10_000;
/// Requests under way to one shard; others wait for one of them to end. Default.
pub const IN_FLIGHT_MAX: usize = 256;
/// How long connecting may take, settings check included. Default.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take, waiting for a free place included. Default.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause after connecting failed twice in a row; doubled each time.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two tries to connect.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The least time between two censuses that errors asked for.
pub const CENSUS_INTERVAL: Duration = Duration::from_secs(1);
/// Tabs and States that one `load` may want.
pub const LOAD_WANTED_MAX: usize = 50_000;
/// States that one script of a scan brings: what bounds how long Redis does nothing else.
pub const SCAN_STATES_MAX: usize = 512;
/// Tabs that a scan over all Tabs looks at in one round.
pub const SCAN_TABS_MAX: usize = 128;
/// Index entries that a process remembers to be written, over all VBuckets; 32 to 64 bytes each. A deployment with
/// more States per process writes some of them again, which costs a command and changes nothing.
pub const KNOWN_ENTRIES_MAX: usize = 2_000_000;
/// Interval of polls of the replicas' offsets, while a wait for stability runs.
pub const STABLE_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// For how long every replica must have had a commit before it counts as stable; where there is none, the primary:
/// more than the second after which `appendfsync everysec` has synced it, and the second that such a sync may be
/// late.
pub const DISK_LAG: Duration = Duration::from_secs(3);
/// How long a replica that was seen is still expected back: a primary cut off from its replicas must not take itself
/// for one that has none. Longer than it takes to fail over, and than `repl-timeout` (60 s by default).
pub const REPLICA_EXPECTED: Duration = Duration::from_secs(300);
/// How long waiting for stability may take.
pub const STABLE_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a lease may last.
pub const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long to read the reason from a Redis that closed a new connection.
pub const PARTING_WORDS_WAIT: Duration = Duration::from_millis(250);
