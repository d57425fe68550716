//! [`Nginx`]: a real nginx with the configuration of `examples/nginx`, on a free port before some Servers.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::{Process, free_port, wait_until};

/// The file that is shown to others.
const EXAMPLE: &str = include_str!("../../examples/nginx/nginx.conf");
/// The lines of it that a test sets by itself.
const LISTEN: &str = "listen 127.0.0.1:8300;";
const SERVERS: &str = "        server 127.0.0.1:8301 max_fails=1 fail_timeout=2s;
        server 127.0.0.1:8302 max_fails=1 fail_timeout=2s;
";

/// What it says while Servers come and go is no news.
const WORDS: (&str, &str) = ("error_log stderr warn;", "error_log stderr crit;");
/// One line for each request: the method, and the Servers that it was given to, one after the other.
const LOG: (&str, &str) = (
    "    access_log off;\n",
    "    log_format tries '$request_method $upstream_addr';\n    access_log requests.log tries;\n",
);

/// An nginx of this test, in a directory of its own; killed when dropped.
#[derive(Debug)]
pub struct Nginx {
    /// The process: one, without workers, so that none outlives the test.
    pub process: Process,
    port: u16,
    directory: TempDir,
}

impl Nginx {
    /// Starts one before the Servers on these ports, with some lines of the example replaced by others, and waits until
    /// it takes connections.
    ///
    /// # Panics
    /// When there is no nginx and none can be installed, it does not start, or the example has no such line.
    pub fn start(servers: &[u16], changes: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().expect("a directory for an nginx");
        let port = free_port();
        let mut upstream = String::new();
        for server in servers {
            writeln!(upstream, "server 127.0.0.1:{server} max_fails=1 fail_timeout=1s;")
                .expect("it is a string");
        }
        let listen = format!("listen 127.0.0.1:{port};");
        let mut text = EXAMPLE.to_owned();
        for (from, to) in [(LISTEN, &*listen), (SERVERS, &*upstream), LOG, WORDS].iter().chain(changes) {
            assert!(text.contains(from), "examples/nginx/nginx.conf has no line {from:?}");
            text = text.replace(from, to);
        }
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};\n"))
            .concat();
        text = text.replace("http {\n", &format!("master_process off;\nhttp {{\n{temporary}"));
        std::fs::write(directory.path().join("nginx.conf"), text).expect("a file can be written");
        let process = launch(directory.path(), port);
        Self { process, port, directory }
    }

    /// Starts it again on the same port, after it was killed.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.directory.path(), self.port);
    }

    /// How many POSTs it gave to a further Server, because the one before did not answer.
    pub fn repeated_posts(&self) -> u64 {
        let requests = std::fs::read_to_string(self.directory.path().join("requests.log"));
        let requests = requests.unwrap_or_default();
        requests.lines().filter(|line| line.starts_with("POST ") && line.contains(", ")).count() as u64
    }

    /// Where it listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn launch(directory: &Path, port: u16) -> Process {
    let mut command = Command::new(program());
    command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-g", "daemon off;", "-e", "stderr"]);
    let mut process = Process::start("nginx", &mut command);
    wait_until("nginx takes connections", || {
        assert!(process.is_running(), "nginx has ended; its words are above");
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    process
}

/// The program to run: `TABA_NGINX`, else what is on the PATH, else the script that installs it.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("TABA_NGINX") {
            return path.into();
        }
        for name in ["nginx", "/usr/sbin/nginx"] {
            if Command::new(name).arg("-v").output().is_ok_and(|output| output.status.success()) {
                return name.into();
            }
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/nginx");
        // Installed here once, and not while somebody waits for an answer.
        let installed = Command::new(&script).arg("-v").output();
        let installed =
            installed.unwrap_or_else(|error| panic!("{} does not run: {error}", script.display()));
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        "/usr/sbin/nginx".into()
    })
}
