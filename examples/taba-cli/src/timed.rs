//! `taba time`: runs a command and records how long it took.

use std::path::Path;
use std::process::ExitStatus;

use serde_json::Value;
use taba_core::TabName;
use taba_process::Exit;

use crate::args::{Args, TimeArgs};
use crate::clock;
use crate::error::CliError;
use crate::record::{Recorder, event, new_key};

/// The code of a shell for a command that cannot be run.
const CANNOT_RUN: u8 = 127;

/// Ends as the command does. What cannot be recorded is said, and changes nothing of that.
pub(crate) fn run(args: &Args, timed: &TimeArgs) -> Result<Exit, CliError> {
    // Before the command runs: a name that is none should not cost an hour.
    let (name, labels) = tab(timed)?;
    let mut recorder = Recorder::new(args, timed.client.as_deref(), new_key()?)?;
    let began = clock::now();
    let status = match wait(timed) {
        Ok(status) => status,
        Err(source) => {
            let command = timed.command[0].to_string_lossy().into_owned();
            tracing::error!("{}", taba_core::causes(&CliError::Command { command, source }));
            return Ok(Exit::Of(CANNOT_RUN));
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let mut event = event(&name, &labels, Some(seconds.into()));
    event.insert("type".to_owned(), "PercentileGroup".into());
    if let Err(error) = recorder.send(Value::Object(event).to_string().as_bytes(), 1) {
        tracing::error!(seconds, "the time was not recorded: {}", taba_core::causes(&error));
    }
    Ok(Exit::Of(code(status)))
}

/// The Tab, and its labels.
fn tab(timed: &TimeArgs) -> Result<(String, Vec<(String, String)>), CliError> {
    let mut labels = timed.labels.clone();
    let name = timed.tab.clone().unwrap_or_else(|| {
        let command = Path::new(&timed.command[0]).file_name().unwrap_or(&timed.command[0]);
        labels.push(("command".to_owned(), command.to_string_lossy().into_owned()));
        "command.seconds".to_owned()
    });
    let named = labels.iter().fold(TabName::builder(&name), |named, (key, text)| named.label(key, text));
    named.build().map_err(CliError::Name)?;
    Ok((name, labels))
}

/// Runs the command to its end. A Ctrl-C reaches it by the terminal, so that it is only kept from ending this process; a
/// SIGTERM is passed on.
#[cfg(unix)]
fn wait(timed: &TimeArgs) -> std::io::Result<ExitStatus> {
    use rustix::process::{Pid, Signal, kill_process};
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, _interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut child = tokio::process::Command::new(&timed.command[0]).args(&timed.command[1..]).spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32));
        loop {
            tokio::select! {
                ended = child.wait() => return ended,
                _ = terminate.recv() => {
                    // It may have ended just now.
                    let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
                }
            }
        }
    })
}

#[cfg(not(unix))]
fn wait(timed: &TimeArgs) -> std::io::Result<ExitStatus> {
    std::process::Command::new(&timed.command[0]).args(&timed.command[1..]).status()
}

/// As a shell tells it: 128 and the signal, where one ended the command.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal as u8;
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
