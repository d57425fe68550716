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

/// The codes of a shell for a command that is not found, and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

/// Ends with the command's code. A failure to record is logged, and does not change the code.
pub(crate) fn run(args: &Args, timed: &TimeArgs) -> Result<Exit, CliError> {
    // Checked before the command runs, which may take hours.
    let (name, labels) = tab(timed)?;
    let mut recorder = Recorder::new(args, timed.client.as_deref(), new_key()?)?;
    let began = clock::now();
    let status = match wait(timed) {
        Ok(status) => status,
        Err(source) => {
            let is_found = source.kind() != std::io::ErrorKind::NotFound;
            let command = timed.command[0].to_string_lossy().into_owned();
            tracing::error!("{}", taba_core::causes(&CliError::Command { command, source }));
            return Ok(Exit::Of(if is_found { CANNOT_RUN } else { NOT_FOUND }));
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

/// Runs the command to its end, and forwards the signals that would end this process. Signals that a terminal sends
/// to its whole foreground, as at Ctrl-C, reach the command directly; signals ignored at the start, as by nohup, stay
/// ignored by both.
#[cfg(unix)]
fn wait(timed: &TimeArgs) -> std::io::Result<ExitStatus> {
    use rustix::process::{Pid, Signal, kill_process};
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::sync::mpsc::unbounded_channel;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (ignored, (give, mut signals)) = (ignored(), unbounded_channel());
        for number in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2] {
            if ignored & (1 << (number.as_raw() - 1)) != 0 {
                continue;
            }
            let (give, mut came) = (give.clone(), signal(SignalKind::from_raw(number.as_raw()))?);
            tokio::spawn(async move { while came.recv().await.is_some() && give.send(number).is_ok() {} });
        }
        let mut child = tokio::process::Command::new(&timed.command[0]).args(&timed.command[1..]).spawn()?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32));
        loop {
            tokio::select! {
                ended = child.wait() => return ended,
                Some(number) = signals.recv() => {
                    if !(matches!(number, Signal::INT | Signal::QUIT) && is_foreground()) {
                        // The command may have just ended.
                        let _ = pid.map(|pid| kill_process(pid, number));
                    }
                }
            }
        }
    })
}

/// The signals ignored at this process's start, as bits: `1 << (number - 1)`. Not on Linux: none.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

/// Whether the terminal's signals reach this process, and so the command.
#[cfg(unix)]
fn is_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty").ok();
    let group = terminal.and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
    group == Some(rustix::process::getpgrp())
}

#[cfg(not(unix))]
fn wait(timed: &TimeArgs) -> std::io::Result<ExitStatus> {
    std::process::Command::new(&timed.command[0]).args(&timed.command[1..]).status()
}

/// As in a shell: 128 and the signal that ended the command.
fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return 128 + signal as u8;
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
