//! Real `redis-server` processes on free loopback ports: started, killed, paused, promoted, filled up.

mod cluster;

use std::fmt;
use std::io::{BufRead, BufReader, Error, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

pub use self::cluster::RedisCluster;

use crate::network::Machine;
use crate::{PATIENCE, Process, free_port, wait_until};

/// How long one command may take; longer than any Redis of a test is paused.
const COMMAND_TIMEOUT: Duration = PATIENCE;
/// How often a port that somebody else took in the meantime is replaced by another.
const STARTS_MAX: usize = 5;

/// When a Redis writes what it was told to its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aof {
    /// Never: a killed process has forgotten everything.
    #[default]
    Off,
    /// At once; synced by the system when it likes. Survives a killed process.
    No,
    /// At once; synced every second.
    EverySecond,
    /// Synced before it answers.
    Always,
}

/// How a Redis is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Its log of writes.
    pub aof: Aof,
    /// The port of the primary that it is to be a replica of.
    pub replica_of: Option<u16>,
    /// Bytes that it may hold.
    pub memory_max: Option<u64>,
    /// What it does when it may not hold more; the default of Redis is `noeviction`.
    pub memory_policy: Option<&'static str>,
    /// Where it runs; the default is the machine of the test.
    pub machine: Option<Machine>,
    /// More arguments: `--name value`, one word each.
    pub extra: Vec<String>,
}

impl Options {
    /// With a log that survives a killed process.
    pub fn durable() -> Self {
        Self { aof: Aof::EverySecond, ..Self::default() }
    }

    fn host(&self) -> Ipv4Addr {
        self.machine.as_ref().map_or(Ipv4Addr::LOCALHOST, |machine| machine.address)
    }

    fn command(&self) -> Command {
        self.machine.as_ref().map_or_else(|| Command::new(server()), |machine| machine.command(server()))
    }

    fn arguments(&self, port: u16, directory: &Path) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut set = |name: &str, value: &str| arguments.extend([format!("--{name}"), value.to_owned()]);
        set("port", &port.to_string());
        set("bind", &self.host().to_string());
        set("protected-mode", "no");
        set("dir", &directory.to_string_lossy());
        set("save", "");
        // A replica that is to follow at once; the default waits five seconds for more of them.
        set("repl-diskless-sync-delay", "0");
        let fsync = match self.aof {
            Aof::Off => None,
            Aof::No => Some("no"),
            Aof::EverySecond => Some("everysec"),
            Aof::Always => Some("always"),
        };
        set("appendonly", if fsync.is_some() { "yes" } else { "no" });
        if let Some(fsync) = fsync {
            set("appendfsync", fsync);
        }
        if let Some(bytes) = self.memory_max {
            set("maxmemory", &bytes.to_string());
        }
        if let Some(policy) = self.memory_policy {
            set("maxmemory-policy", policy);
        }
        if let Some(primary) = self.replica_of {
            arguments.extend(["--replicaof".to_owned(), "127.0.0.1".to_owned(), primary.to_string()]);
        }
        arguments.extend(self.extra.iter().cloned());
        arguments
    }
}

/// What a Redis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`.
    Status(String),
    /// `-ERR …`.
    Error(String),
    /// `:7`.
    Integer(i64),
    /// A string, or nothing.
    Bulk(Option<Vec<u8>>),
    /// A list, or nothing.
    List(Option<Vec<Reply>>),
}

impl fmt::Display for Reply {
    /// Texts as they are, nothing as `(nil)`, a list one item per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(text) | Self::Error(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Bulk(Some(bytes)) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Bulk(None) | Self::List(None) => f.write_str("(nil)"),
            Self::List(Some(items)) => {
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        f.write_str("\n")?;
                    }
                    write!(f, "{item}")?;
                }
                Ok(())
            }
        }
    }
}

/// A `redis-server` of this test, in a directory of its own; killed when dropped.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
    directory: TempDir,
    options: Options,
}

impl Redis {
    /// Starts one with these options and waits until it answers.
    ///
    /// # Panics
    /// When there is no `redis-server` and none can be installed, or it does not start.
    pub fn start(options: Options) -> Self {
        Self::start_with(move || options.clone())
    }

    /// The same; each try has options of its own, for a second port.
    fn start_with(options: impl Fn() -> Options) -> Self {
        let directory = TempDir::new().expect("a directory for a Redis");
        for _ in 0..STARTS_MAX {
            let (port, options) = (free_port(), options());
            if let Some(process) = launch(port, directory.path(), &options) {
                return Self { process, port, directory, options };
            }
        }
        panic!("redis-server did not start {STARTS_MAX} times; its words are above");
    }

    /// Starts as many alike.
    pub fn start_many(count: usize, options: &Options) -> Vec<Self> {
        (0..count).map(|_| Self::start(options.clone())).collect()
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `redis://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        self.socket().to_string()
    }

    fn socket(&self) -> SocketAddr {
        (self.options.host(), self.port).into()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills it if it runs, and starts it again on the same port, in the same directory, with the same options.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.process.kill();
        let started = launch(self.port, self.directory.path(), &self.options);
        self.process = started.expect("a Redis starts again on the port that it had");
    }

    /// Starts it again as a replica of another one, as if an operator or a Sentinel had told it to be one.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_as_replica_of(&mut self, primary: &Self) {
        self.options.replica_of = Some(primary.port);
        self.restart();
    }

    /// Kills it, and starts it again so that it takes long to load what it holds; `CONFIG SET key-load-delay 0` lets
    /// it come to an end. While it loads it answers nearly everything with `LOADING`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_slowly(&mut self) {
        self.process.kill();
        let mut options = self.options.clone();
        let slow = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
        options.extra.extend(slow.map(str::to_owned));
        let started = launch_until(self.port, self.directory.path(), &options, |_| true);
        self.process = started.expect("a Redis starts again on the port that it had");
    }

    /// Kills it, and starts it again on the same port with nothing in it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_empty(&mut self) {
        self.process.kill();
        self.directory = TempDir::new().expect("a directory for a Redis");
        self.restart();
    }

    /// Stops it where it is (SIGSTOP): it holds its connections and answers nothing.
    ///
    /// # Panics
    /// When it is gone.
    pub fn pause(&self) {
        self.signal("STOP");
        // The signal is delivered when the kernel says so; until then it may still answer.
        wait_until("the redis-server is stopped", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
            // The state follows the name, which stands in parentheses. Where there is no /proc, trust the signal.
            stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with('T'))
        });
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Panics
    /// When it is gone.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        // The shell's own kill: a bare machine may have no other.
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(sent.expect("there is a shell").success(), "redis-server is gone already");
    }

    /// Sends one command over a connection of its own; the answer as text (see [`Reply`]).
    ///
    /// # Panics
    /// When it does not answer.
    pub fn command(&self, words: &[&str]) -> String {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let reply = self.try_command(&bytes);
        reply.unwrap_or_else(|error| panic!("redis-server does not answer {words:?}: {error}")).to_string()
    }

    /// Sends one command over a connection of its own.
    ///
    /// # Errors
    /// When it cannot be reached, or its answer is no answer of a Redis.
    pub fn try_command(&self, words: &[&[u8]]) -> std::io::Result<Reply> {
        command(self.socket(), words, COMMAND_TIMEOUT)
    }

    /// One field of `INFO section`, without its name; empty when there is none.
    pub fn info(&self, section: &str, field: &str) -> String {
        let info = self.command(&["INFO", section]);
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_default().trim_end().to_owned()
    }

    /// How often it was asked to do this command, since it started or `CONFIG RESETSTAT`.
    ///
    /// # Panics
    /// When its statistics are not understood.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats", &format!("cmdstat_{command}"));
        let calls = stats.strip_prefix("calls=").and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse().expect("a number of calls"))
    }

    /// Waits until this replica has what its primary has now.
    ///
    /// # Panics
    /// When it does not get it.
    pub fn catch_up(&self, primary: &Self) {
        let offset = |redis: &Self, field| redis.info("replication", field).parse::<u64>().unwrap_or(0);
        let wanted = offset(primary, "master_repl_offset");
        wait_until("the replica catches up", || offset(self, "slave_repl_offset") >= wanted);
    }

    /// Waits until this replica follows its primary, and the primary says so.
    pub fn wait_for_primary(&self, primary: &Self) {
        self.wait_for_link();
        wait_until("the primary sees its replica", || {
            primary.info("replication", "slave0").contains("state=online")
        });
    }

    /// Waits until this replica follows its primary.
    pub fn wait_for_link(&self) {
        wait_until("the replica follows", || self.info("replication", "master_link_status") == "up");
    }

    /// Cuts this replica off from its primary: it keeps what it has and hears nothing new, as one that lags. Pausing
    /// it would not do: what the primary sends meanwhile waits in the socket.
    ///
    /// # Panics
    /// When it does not obey.
    pub fn cut_off(&self) {
        assert_eq!(self.command(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]), "OK");
    }

    /// Makes this replica a primary (`REPLICAOF NO ONE`).
    ///
    /// # Panics
    /// When it does not become one.
    pub fn promote(&self) {
        assert_eq!(self.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    }
}

/// A Redis Sentinel of this test; killed when dropped. One suffices to make a failover.
#[derive(Debug)]
pub struct Sentinel {
    _process: Process,
    port: u16,
    _directory: TempDir,
}

impl Sentinel {
    /// Starts one that monitors these primaries under these names, and waits until it knows all their replicas. A primary
    /// that does not answer for one second is replaced; what changes is up to the Sentinel then.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(masters: &[(&str, &Redis)]) -> Self {
        for _ in 0..STARTS_MAX {
            let (port, directory) = (free_port(), TempDir::new().expect("a directory for a Sentinel"));
            let path = directory.path();
            let mut settings = format!("port {port}\nbind 127.0.0.1\ndir {}\n", path.display());
            for (name, primary) in masters {
                settings += &format!("sentinel monitor {name} 127.0.0.1 {} 1\n", primary.port());
                settings += &format!("sentinel down-after-milliseconds {name} 1000\n");
                settings += &format!("sentinel failover-timeout {name} 3000\n");
            }
            let file = path.join("sentinel.conf");
            std::fs::write(&file, settings).expect("a file can be written");
            let mut command = Command::new(server());
            command.arg(&file).arg("--sentinel").current_dir(path);
            let address = (Ipv4Addr::LOCALHOST, port).into();
            let Some(process) = launch_command(address, command, is_pong) else { continue };
            let sentinel = Self { _process: process, port, _directory: directory };
            for (name, primary) in masters {
                let replicas = primary.info("replication", "connected_slaves");
                wait_until("the sentinel knows the replicas", || {
                    sentinel.field(name, "num-slaves") == replicas
                });
            }
            return sentinel;
        }
        panic!("the sentinel did not start {STARTS_MAX} times; its words are above");
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends one command; the answer as text.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn command(&self, words: &[&str]) -> String {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let address = (Ipv4Addr::LOCALHOST, self.port).into();
        let reply = command(address, &bytes, COMMAND_TIMEOUT);
        reply.unwrap_or_else(|error| panic!("the sentinel does not answer {words:?}: {error}")).to_string()
    }

    /// What it knows of a master: one field of `SENTINEL MASTER`; empty when there is none.
    pub fn field(&self, master: &str, field: &str) -> String {
        let answer = self.command(&["SENTINEL", "MASTER", master]);
        let mut lines = answer.lines();
        lines.find(|line| *line == field).and_then(|_| lines.next()).unwrap_or_default().to_owned()
    }

    /// Waits until it names this Redis as the primary.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for(&self, master: &str, primary: &Redis) {
        let address = format!("127.0.0.1\n{}", primary.port());
        wait_until("the sentinel has promoted it", || {
            self.command(&["SENTINEL", "get-master-addr-by-name", master]) == address
        });
    }
}

fn is_pong(reply: &Reply) -> bool {
    *reply == Reply::Status("PONG".to_owned())
}

/// Starts one; `None` when it ended at once, for instance because the port was taken meanwhile.
fn launch(port: u16, directory: &Path, options: &Options) -> Option<Process> {
    // While it loads its files it answers an error.
    launch_until(port, directory, options, is_pong)
}

/// Starts one, and waits until it answers a ping so.
fn launch_until(
    port: u16,
    directory: &Path,
    options: &Options,
    is_ready: impl Fn(&Reply) -> bool,
) -> Option<Process> {
    let mut command = options.command();
    command.args(options.arguments(port, directory)).current_dir(directory);
    launch_command((options.host(), port).into(), command, is_ready)
}

fn launch_command(
    address: SocketAddr,
    mut command: Command,
    is_ready: impl Fn(&Reply) -> bool,
) -> Option<Process> {
    let mut process = Process::start("redis-server", &mut command);
    let mut ended = false;
    wait_until("redis-server answers", || {
        ended = process.child.try_wait().expect("a child can be asked").is_some();
        ended
            || self::command(address, &[b"PING"], Duration::from_secs(1)).is_ok_and(|reply| is_ready(&reply))
    });
    // Somebody else's Redis may have answered on a port that it took before ours could.
    (!ended && process.child.try_wait().expect("a child can be asked").is_none()).then_some(process)
}

/// The program to run: `TABA_REDIS_SERVER`, else what is on the PATH, else the script that installs it.
fn server() -> &'static Path {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        if let Some(path) = std::env::var_os("TABA_REDIS_SERVER") {
            return path.into();
        }
        for name in ["redis-server", "valkey-server"] {
            if Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()) {
                return name.into();
            }
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/redis-server");
        // Installed here once, and not while somebody waits for an answer.
        let installed = Command::new(&script).arg("--version").output();
        let installed =
            installed.unwrap_or_else(|error| panic!("{} does not run: {error}", script.display()));
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        "redis-server".into()
    })
}

fn command(address: SocketAddr, words: &[&[u8]], timeout: Duration) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    stream.write_all(&request)?;
    read_reply(&mut BufReader::new(stream))
}

fn read_reply(from: &mut impl BufRead) -> std::io::Result<Reply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let odd = || Error::new(ErrorKind::InvalidData, format!("{line:?} is no answer of a Redis"));
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or_else(odd)?;
    let number = || rest.parse::<i64>().map_err(|_| odd());
    match kind {
        "+" => Ok(Reply::Status(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        ":" => Ok(Reply::Integer(number()?)),
        "$" => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Reply::Bulk(None)) };
            let mut bytes = vec![0; length + 2];
            from.read_exact(&mut bytes)?;
            bytes.truncate(length);
            Ok(Reply::Bulk(Some(bytes)))
        }
        "*" => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Reply::List(None)) };
            let items = (0..length).map(|_| read_reply(from)).collect::<Result<_, _>>()?;
            Ok(Reply::List(Some(items)))
        }
        _ => Err(odd()),
    }
}
