//! [`Redis`]: one `redis-server` of a World: its port and its directory, and the process that is there now.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::plan::AppendFsync;
use crate::{Process, free_port, wait_until};

/// Who takes longer does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One `redis-server`. It keeps its port and its directory over restarts.
#[derive(Debug)]
pub struct Redis {
    /// Its name in logs.
    pub name: String,
    /// Where it listens.
    pub port: u16,
    /// Where its append-only file is.
    pub directory: PathBuf,
    process: Option<Process>,
    log: PathBuf,
    append_fsync: AppendFsync,
}

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A text, also a short one as `OK`.
    Text(String),
    /// A number.
    Number(i64),
    /// Several.
    List(Vec<Self>),
    /// There is nothing.
    Nothing,
    /// It was refused.
    Refused(String),
}

impl Redis {
    /// A place without a process.
    pub(super) fn new(name: String, append_fsync: AppendFsync, directory: &Path) -> Self {
        let data = directory.join(&name);
        fs::create_dir_all(&data).expect("a directory can be made");
        let log = directory.join(format!("{name}.log"));
        Self { port: free_port(), directory: data, process: None, log, append_fsync, name }
    }

    /// Starts a process there, as a replica of this port if one is given, and waits until it answers.
    ///
    /// `repl-timeout` is 10 s: so long a primary without its replica goes on, and no fault here lasts longer.
    pub fn start(&mut self, replica_of: Option<u16>) {
        let fsync = match self.append_fsync {
            AppendFsync::Always => "always",
            AppendFsync::EverySecond => "everysec",
        };
        let mut command = Command::new("redis-server");
        command.arg("--port").arg(self.port.to_string()).arg("--dir").arg(&self.directory);
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", fsync]);
        command.args([
            "--maxmemory-policy",
            "noeviction",
            "--repl-timeout",
            "10",
            "--repl-ping-replica-period",
            "1",
        ]);
        command.args(["--repl-diskless-sync-delay", "0", "--aof-load-truncated", "yes"]);
        if let Some(primary) = replica_of {
            command.arg("--replicaof").arg("127.0.0.1").arg(primary.to_string());
        }
        self.process = Some(Process::start_logged(&self.name, &mut command, &self.log));
        wait_until(
            &format!("{} answers", self.name),
            || matches!(self.command(&["PING"]), Ok(Reply::Text(pong)) if pong == "PONG"),
        );
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it in the middle of whatever it does (SIGSTOP).
    ///
    /// # Panics
    /// When there is no process.
    pub fn pause(&self) {
        self.process.as_ref().expect("there is a process").pause();
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Panics
    /// When there is no process.
    pub fn resume(&self) {
        self.process.as_ref().expect("there is a process").resume();
    }

    /// Whether a process was started there and not killed since.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Asks it something.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn command(&self, words: &[&str]) -> io::Result<Reply> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        socket.write_all(request.as_bytes())?;
        Reply::read(&mut BufReader::new(socket))
    }

    /// Asks it something that it does.
    ///
    /// # Panics
    /// When it does not answer, or refuses.
    pub fn must(&self, words: &[&str]) -> Reply {
        match self.command(words) {
            Ok(Reply::Refused(why)) => panic!("{} refuses {words:?}: {why}", self.name),
            Ok(reply) => reply,
            Err(error) => panic!("{} does not answer {words:?}: {error}", self.name),
        }
    }

    /// A line of `INFO`, if it is there.
    pub fn info(&self, section: &str, field: &str) -> Option<String> {
        let Ok(Reply::Text(info)) = self.command(&["INFO", section]) else { return None };
        info.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
    }
}

impl Reply {
    fn read(from: &mut impl BufRead) -> io::Result<Self> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let line = line.trim_end();
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let (kind, rest) = line.split_at_checked(1).ok_or_else(bad)?;
        let number = || rest.parse::<i64>().map_err(|_| bad());
        Ok(match kind {
            "+" => Self::Text(rest.to_owned()),
            "-" => Self::Refused(rest.to_owned()),
            ":" => Self::Number(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Self::Nothing,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    from.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Self::Text(String::from_utf8_lossy(&bytes).into_owned())
                }
            },
            "*" => {
                let length = number()?.max(0);
                Self::List((0..length).map(|_| Self::read(from)).collect::<io::Result<_>>()?)
            }
            _ => return Err(bad()),
        })
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::List(_) | Self::Nothing | Self::Refused(_) => None,
        }
    }

    /// The list, if it is one.
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            Self::Text(_) | Self::Number(_) | Self::Nothing | Self::Refused(_) => &[],
        }
    }
}
