//! Server and Agent, for a program that wants both: in this process, or as the real binaries.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use taba_agent::{Agent, RunningAgent};
use taba_core::{HostPort, Registry};
use taba_server::{EmbeddedOptions, EmbeddedStore, Server};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything may take to stop.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Server, embedded store and Agent in this process.
#[derive(Debug)]
pub struct InProcess {
    runtime: Runtime,
    server: Server,
    agent: RunningAgent,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl InProcess {
    /// Starts both; the Server listens on `listen`, the Agent on a free port.
    ///
    /// # Errors
    /// When the directory or an address cannot be used.
    pub fn start(listen: &HostPort, directory: &Path, handlers: Registry) -> Result<Self, Box<dyn Error>> {
        let runtime = Runtime::new()?;
        let (server, agent, address, stop, serving) = runtime.block_on(async {
            let store = EmbeddedStore::open(directory, EmbeddedOptions::default())?;
            let server = Server::builder().store(store).handlers(handlers.clone()).build()?;
            let listener = tokio::net::TcpListener::bind((listen.host(), listen.port())).await?;
            let address = listener.local_addr()?;
            let (stop, stopped) = oneshot::channel::<()>();
            let app = server.router();
            let serving = tokio::spawn(async move {
                let stopped = async { drop(stopped.await) };
                axum::serve(listener, app).with_graceful_shutdown(stopped).await
            });
            let servers = [format!("http://{address}").parse()?];
            let agent = Agent::builder().servers(servers).listen((Ipv4Addr::LOCALHOST, 0).into());
            let agent = agent.spool_dir(directory.join("spool")).handlers(handlers).build()?.start().await?;
            Ok::<_, Box<dyn Error>>((server, agent, address, stop, serving))
        })?;
        Ok(Self { runtime, server, agent, address, stop, serving })
    }

    /// The Server's base URL.
    pub fn server_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The Agent's base URL.
    pub fn agent_url(&self) -> String {
        format!("http://{}", self.agent.addr())
    }

    /// Drains the Agent, commits what the Server holds, and stops both.
    ///
    /// # Errors
    /// When something was left at the deadline.
    pub fn stop(self) -> Result<(), Box<dyn Error>> {
        let Self { runtime, server, agent, stop, serving, .. } = self;
        runtime.block_on(async {
            let drained = agent.shutdown(STOP_DEADLINE).await;
            // The receiver is gone when serving has ended by itself; the join below says why.
            let _ = stop.send(());
            let committed = server.shutdown(STOP_DEADLINE).await;
            tokio::time::timeout(STOP_DEADLINE, serving).await???;
            if !drained.is_nothing() || committed.requests_unanswered > 0 {
                return Err(format!("not everything was stored: {drained:?}, {committed:?}").into());
            }
            Ok(())
        })
    }
}

/// The binaries `taba-server` and `taba-agent`, found beside this program. Killed when dropped.
#[derive(Debug)]
pub struct Processes {
    server: Child,
    agent: Child,
    server_port: u16,
    agent_port: u16,
}

impl Processes {
    /// Starts both on free ports of the loopback interface.
    ///
    /// # Errors
    /// When the binaries are not there (the message says how to build them) or do not start.
    pub fn start(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let (server_port, agent_port) = (free_port()?, free_port()?);
        let mut server = Command::new(beside("taba-server")?);
        server.arg("--listen").arg(format!("127.0.0.1:{server_port}")).arg("--data-dir").arg(directory);
        let mut agent = Command::new(beside("taba-agent")?);
        agent.arg("--listen").arg(format!("127.0.0.1:{agent_port}"));
        agent.arg("--servers").arg(format!("http://127.0.0.1:{server_port}"));
        agent.arg("--spool-dir").arg(directory.join("spool"));
        let start = |command: &mut Command| command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut processes =
            Self { server: start(&mut server)?, agent: start(&mut agent)?, server_port, agent_port };
        processes.wait_until_ready()?;
        Ok(processes)
    }

    /// The Server's base URL.
    pub fn server_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.server_port)
    }

    /// The Agent's base URL.
    pub fn agent_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.agent_port)
    }

    fn wait_until_ready(&mut self) -> Result<(), Box<dyn Error>> {
        const PAUSE: Duration = Duration::from_millis(20);
        for _ in 0..STOP_DEADLINE.as_millis() / PAUSE.as_millis() {
            for (name, child) in [("taba-server", &mut self.server), ("taba-agent", &mut self.agent)] {
                if let Some(status) = child.try_wait()? {
                    return Err(format!("{name} ended at once: {status}").into());
                }
            }
            let answers = |url: String| ureq::get(&format!("{url}/v2/status")).call().is_ok();
            if answers(self.server_url()) && answers(self.agent_url()) {
                return Ok(());
            }
            #[expect(clippy::disallowed_methods, reason = "another process has no clock that could be set")]
            std::thread::sleep(PAUSE);
        }
        Err("taba-server and taba-agent do not answer".into())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in [&mut self.agent, &mut self.server] {
            // They may have ended by themselves; then there is nothing to do.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn beside(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    Err(format!(
        "{} is not there; `cargo build{release} -p taba-agent -p taba-server` builds it",
        path.display()
    )
    .into())
}
