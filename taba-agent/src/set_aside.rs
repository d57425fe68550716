//! The command `taba-agent set-aside`: lists Blocks that Servers failed on, sends them again, or drops them.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::{Parser, Subcommand};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use taba_agent::cli::{Cli, PROGRAM};
use taba_agent::driver::{SetAsideFile, SetAsideFiles};
use taba_core::wire::{CONTENT_TYPE, Frame, Kind, Receipt};
use taba_core::{printable, printable_json};
use taba_process::settings;
use taba_process::{Exit, Log};

const COMMAND: &str = "set-aside";
/// Timeout of an Agent's answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

type Ended = Result<Exit, Box<dyn Error>>;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "taba-agent", version)]
struct Tool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List, send again, or drop what servers failed on, and this agent has set aside in its spool
    ///
    /// Each file has the events of one client in one batch, which are counted as dropped (where=agent, why=poison).
    /// Sent again, they are counted as recorded once more, and folded. Settings are those of the agent: give its
    /// --config, or its --spool-dir and --listen.
    SetAside {
        #[command(subcommand)]
        command: SetAsideCommand,
    },
}

#[derive(Debug, Subcommand)]
enum SetAsideCommand {
    /// List the files: name, when, lane, batch, client, tabs, events, and why, separated by tabs
    List {
        #[command(flatten)]
        cli: Box<Cli>,
    },
    /// Print the description of one file as JSON
    Show {
        /// Its name, as listed
        name: String,
        #[command(flatten)]
        cli: Box<Cli>,
    },
    /// Send files to the running agent again, after servers were fixed; accepted files are removed
    ///
    /// A file counts once, however often it is sent: it is a batch with its own number, which the agent recognises,
    /// also after a restart. The agent keeps as many senders as its setting incarnations-max: do not keep copies of
    /// files that were sent. What servers fail on again is set aside again.
    Retry {
        /// Names, as listed
        #[arg(required_unless_present = "all")]
        names: Vec<String>,
        /// All files
        #[arg(long, conflicts_with = "names")]
        all: bool,
        #[command(flatten)]
        cli: Box<Cli>,
    },
    /// Remove files for good; their events stay counted as dropped
    Drop {
        /// Names, as listed
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        cli: Box<Cli>,
    },
}

impl SetAsideCommand {
    fn cli(&self) -> &Cli {
        match self {
            Self::List { cli }
            | Self::Show { cli, .. }
            | Self::Retry { cli, .. }
            | Self::Drop { cli, .. } => cli,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SetAsideError {
    #[error("there is no spool in {}; --spool-dir or the agent's --config says where it is", spool_dir.display())]
    NoSpool { spool_dir: PathBuf },
    #[error("there is no {name} in {directory}; taba-agent set-aside list shows what is there")]
    Unknown { name: String, directory: String },
    #[error("{name} is not certain to have left its batch yet; the agent decides soon, or at its next start")]
    Pending { name: String },
    #[error("no agent answers at {url}; --listen says where it listens, and it must run")]
    Unreached { url: String, source: Box<dyn Error + Send + Sync> },
    #[error("the agent at {url} did not take {name}: {status} {message}; it is kept, send it again")]
    Refused { url: String, name: String, status: u16, message: String },
}

/// Runs the command if it is in the command line; `None` otherwise, when an Agent is to run.
pub(crate) fn run(log: &Log) -> Option<Exit> {
    if std::env::args_os().nth(1)? != COMMAND {
        return None;
    }
    let loaded = settings::load::<Tool>(&PROGRAM, std::env::args_os(), std::env::vars_os());
    let (filter, loaded) = match loaded.and_then(|loaded| Ok((loaded.filter("warn")?, loaded))) {
        Ok(read) => read,
        Err(error) => return Some(error.end(log)),
    };
    log.subscribe(filter);
    let Command::SetAside { command } = &loaded.settings.command;
    if command.cli().print_config {
        return Some(loaded.print(log));
    }
    let outcome = match command {
        SetAsideCommand::List { cli } => files(cli).and_then(|files| list(&files)),
        SetAsideCommand::Show { name, cli } => files(cli).and_then(|files| show(&files, name)),
        SetAsideCommand::Retry { names, all, cli } => {
            files(cli).and_then(|files| retry(log, cli, &files, names, *all))
        }
        SetAsideCommand::Drop { names, cli } => files(cli).and_then(|files| drop_all(log, &files, names)),
    };
    Some(outcome.unwrap_or_else(|error| log.fail(Exit::Failed, &*error)))
}

fn files(cli: &Cli) -> Result<SetAsideFiles, Box<dyn Error>> {
    let spool_dir = &cli.settings.spool_dir;
    if !spool_dir.is_dir() {
        return Err(Box::new(SetAsideError::NoSpool { spool_dir: spool_dir.clone() }));
    }
    Ok(SetAsideFiles::of(spool_dir))
}

fn list(files: &SetAsideFiles) -> Ended {
    let mut lines = String::new();
    for file in files.list()? {
        lines.push_str(&line(&file));
    }
    print(&lines)
}

/// A file as one line.
fn line(file: &SetAsideFile) -> String {
    let about = &file.about;
    let number = |field: &str| about[field].as_u64().unwrap_or_default();
    let text = |field: &str| printable(about[field].as_str().unwrap_or("?"));
    let micros = u64::try_from(about["at_micros"].as_i64().unwrap_or_default()).unwrap_or_default();
    let at = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
    let tabs = about["blocks"].as_array().into_iter().flatten();
    let mut tabs: Vec<&str> = tabs.filter_map(|block| block["tab"].as_str()).collect();
    tabs.dedup();
    let state = if file.is_ready { "" } else { "\tnot ready" };
    format!(
        "{}\t{at}\tlane={}/{}\tbatch={}\tclient={}\ttabs={}\tevents={}\twhy={}{state}\n",
        printable(&file.name),
        text("stream"),
        number("vbucket"),
        number("seq"),
        text("client"),
        printable(&tabs.join(",")),
        number("events"),
        text("why"),
    )
}

fn show(files: &SetAsideFiles, name: &str) -> Ended {
    let SetAsideFile { name, is_ready, mut about, .. } = find(files, name)?;
    if let Value::Object(fields) = &mut about {
        fields.insert("name".to_owned(), name.into());
        fields.insert("is_ready".to_owned(), is_ready.into());
    }
    print(&printable_json(&format!("{about:#}\n")))
}

fn drop_all(log: &Log, files: &SetAsideFiles, names: &[String]) -> Ended {
    for name in names {
        ready(find(files, name)?)?;
        files.remove(name)?;
        log.say(format_args!("{name} is dropped"));
    }
    Ok(Exit::Clean)
}

fn retry(log: &Log, cli: &Cli, files: &SetAsideFiles, names: &[String], all: bool) -> Ended {
    let names: Vec<String> = if all {
        files.list()?.into_iter().filter(|file| file.is_ready).map(|file| file.name).collect()
    } else {
        names.to_vec()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = url(cli);
    let mut exit = Exit::Clean;
    for name in names {
        ready(find(files, &name)?)?;
        let receipt = runtime.block_on(send(&url, &name, files.frame(&name)?.into()))?;
        files.remove(&name)?;
        let refused: u64 = receipt.refused.iter().map(|refusal| refusal.events).sum();
        if refused == 0 {
            log.say(format_args!("{name} was taken by the agent, and is removed here"));
        } else {
            let why = receipt.refused.first().map_or("", |refusal| refusal.why.as_str());
            log.say(format_args!(
                "{name} was taken and removed, but {refused} of its events were refused: {why}"
            ));
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

/// The Agent's URL on this machine.
fn url(cli: &Cli) -> String {
    let listen = &cli.settings.listen;
    match listen.host() {
        "0.0.0.0" => format!("http://127.0.0.1:{}/v2/events", listen.port()),
        "::" | "[::]" => format!("http://[::1]:{}/v2/events", listen.port()),
        _ => format!("http://{listen}/v2/events"),
    }
}

async fn send(url: &str, name: &str, frame: Bytes) -> Result<Receipt, Box<dyn Error>> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = hyper::Request::post(url).header("content-type", CONTENT_TYPE).body(Full::new(frame))?;
    let unreached = |source| SetAsideError::Unreached { url: url.to_owned(), source };
    let answer = async {
        let answer = client.request(request).await.map_err(|error| unreached(error.into()))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| unreached(error.into()))?.to_bytes();
        Ok::<_, SetAsideError>((status, body))
    };
    let answer = tokio::time::timeout(ANSWER_WAIT, answer).await;
    let (status, body) = answer.map_err(|error| unreached(error.into()))??;
    if !status.is_success() {
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        let (url, name, status) = (url.to_owned(), name.to_owned(), status.as_u16());
        return Err(SetAsideError::Refused { url, name, status, message }.into());
    }
    let frame = Frame::decode(&body, Kind::Receipt)?;
    Ok(Receipt::decode(&frame.message)?)
}

fn find(files: &SetAsideFiles, name: &str) -> Result<SetAsideFile, Box<dyn Error>> {
    let found = files.list()?.into_iter().find(|file| file.name == name);
    let directory = files.directory().display().to_string();
    found.ok_or_else(|| SetAsideError::Unknown { name: name.to_owned(), directory }.into())
}

/// Checks that the file may be sent again or dropped.
fn ready(file: SetAsideFile) -> Result<(), SetAsideError> {
    if file.is_ready { Ok(()) } else { Err(SetAsideError::Pending { name: file.name }) }
}

fn print(text: &str) -> Ended {
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader closed the pipe.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(Exit::Clean),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_settings_of_the_agent_are_those_of_the_command() {
        Tool::command().debug_assert();
        let (dir, free) = (tempfile::tempdir().unwrap(), ["log", "unix", "spool_dir"]);
        taba_process::laws::settings::<Tool>(&PROGRAM, &["taba-agent", COMMAND, "list"], dir.path(), &free);
    }
}
