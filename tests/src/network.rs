//! [`Network`]: processes on machines of their own, as far as they can tell: each machine is a network namespace, and
//! packets between two of them are lost, without a word to either, when a test says so.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};

use crate::{Process, wait_until};

/// Set in the process that runs the test inside of a namespace.
const INSIDE: &str = "TABA_TEST_NETWORK";

/// Whether this process has a network of its own, in which nothing exists but what the test makes. If not, the test of this
/// name is run again in one, as root; without the rights for that it is left out, and says so.
///
/// # Panics
/// When the test fails there, or there is no `ip` and none can be installed.
pub fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Err(why) = may_unshare() {
        say(&format!("{test} is left out: a network namespace needs root on Linux: {why}"));
        return false;
    }
    install_ip();
    let this = std::env::current_exe().expect("a running program has a file");
    let mut again = Command::new("unshare");
    again.arg("--net").arg(this).args([test, "--exact", "--include-ignored", "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().expect("unshare was there").success(), "{test} has failed; see above");
    false
}

fn may_unshare() -> Result<(), String> {
    let tried =
        Command::new("unshare").args(["--net", "true"]).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&tried.stderr);
    if tried.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }
}

fn install_ip() {
    if Command::new("ip").arg("-V").output().is_ok_and(|output| output.status.success()) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/ip");
    let installed = Command::new(&script).arg("-V").output().expect("the script runs");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
}

/// A machine: where it is reached, and what its processes are started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its address.
    pub address: Ipv4Addr,
    namespace: String,
}

impl Machine {
    /// A command that runs there.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(&self.namespace).arg(program.as_ref());
        command
    }
}

/// Machines that reach each other, and are reached by the test, which is the router between them.
#[derive(Debug)]
pub struct Network {
    machines: Vec<Machine>,
    /// Each keeps a namespace: it goes with its last process.
    _keepers: Vec<Process>,
}

impl Network {
    /// As many machines.
    ///
    /// # Panics
    /// When this process [is not inside](is_inside) of a network of its own.
    pub fn start(count: u8) -> Self {
        assert!(std::env::var_os(INSIDE).is_some(), "the network of this machine is left alone");
        ip(&["link", "set", "lo", "up"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("root may forward packets");
        let (machines, keepers) = (0..count).map(start_machine).unzip();
        Self { machines, _keepers: keepers }
    }

    /// One of them.
    pub fn machine(&self, n: usize) -> &Machine {
        &self.machines[n]
    }

    /// From now on, or no longer, packets between each of these and each of those are lost.
    pub fn cut(&self, these: &[usize], those: &[usize], is_cut: bool) {
        for this in these {
            for that in those {
                for (from, to) in [(this, that), (that, this)] {
                    let address = |n: &usize| self.machines[*n].address.to_string();
                    let what = if is_cut { "add" } else { "del" };
                    ip(&["rule", what, "from", &address(from), "to", &address(to), "blackhole"]);
                }
            }
        }
    }
}

fn start_machine(n: u8) -> (Machine, Process) {
    let keeper = Process::start("unshare", Command::new("unshare").args(["--net", "sleep", "infinity"]));
    let namespace = |id: &str| std::fs::read_link(format!("/proc/{id}/ns/net")).ok();
    let (id, own) = (keeper.id().to_string(), namespace("self"));
    wait_until("the namespace is there", || namespace(&id) != own);
    let machine =
        Machine { address: Ipv4Addr::new(10, 77, n, 2), namespace: format!("--net=/proc/{id}/ns/net") };
    let (link, router, address) = (format!("machine{n}"), format!("10.77.{n}.1"), machine.address);
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &id]);
    ip(&["addr", "add", &format!("{router}/30"), "dev", &link]);
    ip(&["link", "set", &link, "up"]);
    for words in [
        &["addr", "add", &format!("{address}/30"), "dev", "eth0"][..],
        &["link", "set", "eth0", "up"],
        &["link", "set", "lo", "up"],
        &["route", "add", "default", "via", &router],
    ] {
        done(machine.command("ip").args(words).output(), words);
    }
    (machine, keeper)
}

fn ip(words: &[&str]) {
    done(Command::new("ip").args(words).output(), words);
}

fn done(output: std::io::Result<Output>, words: &[&str]) {
    let output = output.expect("ip runs");
    assert!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[expect(clippy::print_stderr, reason = "who reads the log is told what was left out")]
fn say(line: &str) {
    eprintln!("{line}");
}
