//! The family together: starts the real binaries on free loopback ports, kills them, and asks them over real sockets.

pub mod dice;
pub mod link;
pub mod load;
pub mod network;
pub mod nginx;
pub mod pair;
mod process;
pub mod proxy;
pub mod redis;
pub mod spec;
mod tool;
pub mod torture;

pub use self::process::{Process, shield_from_ctrl_c};
pub use self::tool::Tool;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A Server process with an embedded store.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub port: u16,
}

impl Server {
    /// Starts it on this port with its store in this directory, and waits until it answers.
    pub fn start(directory: &Path, port: u16) -> Self {
        let mut command = Command::new(binary("taba-server"));
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--data-dir").arg(directory);
        Self::run(&mut command, port)
    }

    /// Starts one of 64 VBuckets on these Redis processes (URLs with commas between) on a free port, with more arguments, and
    /// waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn on_redis(redis: &str, more: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new(binary("taba-server"));
        command.arg(format!("--listen=127.0.0.1:{port}")).args(["--store=redis", "--redis", redis]);
        command.args(["--vbuckets=64", "--workers=2"]).args(more);
        Self::run(&mut command, port)
    }

    fn run(command: &mut Command, port: u16) -> Self {
        let server = Self { process: Process::start("taba-server", command), port };
        wait_until("the server answers", || server.try_get("/v2/status").is_some());
        server
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The JSON that it answers to this path.
    ///
    /// # Panics
    /// When it does not answer with JSON.
    pub fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|| panic!("{path} is not answered"))
    }

    fn try_get(&self, path: &str) -> Option<Value> {
        get(&self.url(), path)
    }

    /// The Ledger of one Client: recorded, folded, dropped, in flight.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn account(&self, client: &str) -> Account {
        Account::at(&self.url(), client).expect("the ledger is answered")
    }
}

/// The JSON that a process answers to this path; `None` when it answers anything else.
pub fn get(url: &str, path: &str) -> Option<Value> {
    let request = ureq::get(&format!("{url}{path}")).header("accept", "application/json");
    let request = request.config().timeout_global(Some(PATIENCE)).build();
    request.call().ok()?.body_mut().read_json().ok()
}

/// One Client's line of the Ledger, in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Offered to the client library.
    pub recorded: i64,
    /// In stored States.
    pub folded: i64,
    /// Reported as dropped.
    pub dropped: i64,
    /// On the way.
    pub in_flight: i64,
}

impl Account {
    /// The Ledger of one Client, as this Server has it; `None` when it does not answer.
    pub fn at(server: &str, client: &str) -> Option<Self> {
        let ledger = get(server, &format!("/v2/ledger?client={client}"))?;
        let entries = ledger["results"].as_array().cloned().unwrap_or_default();
        let entry = entries.iter().find(|entry| entry["client"] == client).cloned().unwrap_or_default();
        let number = |field: &str| entry[field].as_i64().unwrap_or(0);
        let dropped = entry["dropped"].as_array().into_iter().flatten();
        Some(Self {
            recorded: number("recorded"),
            folded: number("folded"),
            dropped: dropped.map(|drop| drop["events"].as_i64().unwrap_or(0)).sum(),
            // What is not known is no number.
            in_flight: if entry["in_flight"].is_null() && entry.is_object() {
                -1
            } else {
                number("in_flight")
            },
        })
    }
}

/// An Agent process.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub port: u16,
}

impl Agent {
    /// Starts it on this port for these Servers, and waits until it answers.
    pub fn start(port: u16, servers: &[String]) -> Self {
        let mut command = Command::new(binary("taba-agent"));
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--servers").arg(servers.join(","));
        command.arg("--spool=memory");
        Self::run(&mut command, port)
    }

    /// Starts one of 64 VBuckets for these Servers (with commas between) on a free port, with more arguments, and waits until
    /// it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn of(servers: &str, more: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new(binary("taba-agent"));
        command.arg(format!("--listen=127.0.0.1:{port}")).args(["--servers", servers]);
        command.args(["--vbuckets=64", "--spool=memory"]).args(more);
        Self::run(&mut command, port)
    }

    fn run(command: &mut Command, port: u16) -> Self {
        let agent = Self { process: Process::start("taba-agent", command), port };
        wait_until("the agent answers", || get(&agent.url(), "/v2/status").is_some());
        agent
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// A port of the loopback interface that nobody listens on at this moment.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Waits until something holds; it is looked at every 20 ms.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    waited(what, holds);
}

/// As [`wait_until`]; how long it took.
///
/// # Panics
/// As [`wait_until`].
#[expect(clippy::disallowed_methods, reason = "another process has no clock that a test could set")]
pub fn waited(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

/// How long this took.
#[expect(clippy::disallowed_methods, reason = "a test says what it has measured")]
fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Where the binary is that can break the rules which `TABA_SABOTAGE` names: built by `scripts/sabotage`, and no part of what
/// is shipped.
///
/// # Panics
/// When it is not there.
pub fn sabotaged(name: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sabotage").join(name);
    assert!(binary.exists(), "{} is not there: run scripts/sabotage", binary.display());
    binary
}

/// Where a binary of this workspace is, built from the sources as they are.
///
/// # Panics
/// When it cannot be built.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a running program has a file");
        // target/PROFILE/deps/test-hash, or target/PROFILE/binary
        let folder =
            test.ancestors().find(|folder| folder.join("deps").is_dir()).expect("cargo's layout").to_owned();
        let release = folder.file_name().is_some_and(|name| name == "release");
        // The same build that `cargo test --workspace --all-features` has just made, so usually there is nothing to do.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        build
            .args(["build", "--quiet", "--workspace", "--all-features", "--bins"])
            .args(release.then_some("--release"));
        assert!(build.status().expect("cargo runs").success(), "the binaries do not build");
        folder
    });
    folder.join(name)
}
