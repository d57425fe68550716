//! Backups of the embedded store: served by a running server, fetched, and restored.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::stream;
use taba_core::HostPort;
use taba_process::{Exit, Log};
use taba_server::EmbeddedStore;
use taba_server::embedded::{restore as restore_into, salvage as salvage_into, verify};
use tokio::sync::{Semaphore, mpsc};

use super::Outcome;

/// Chunks waiting to be sent; the store is read no faster than the client receives.
const CHUNKS_MAX: usize = 16;
/// How long a server may send nothing while a backup is fetched.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes between two reports of progress.
const TOLD_EVERY: u64 = 256 * 1024 * 1024;

/// `GET /v2/backup`: a consistent backup of the embedded store; one at a time.
pub(crate) fn router(store: Arc<EmbeddedStore>) -> Router {
    Router::new().route("/v2/backup", get(hand_out)).with_state((store, Arc::new(Semaphore::new(1))))
}

async fn hand_out(State((store, one)): State<(Arc<EmbeddedStore>, Arc<Semaphore>)>) -> Response {
    let Ok(permit) = one.try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "another backup is being made\n").into_response();
    };
    let (chunks, taken) = mpsc::channel::<std::io::Result<Bytes>>(CHUNKS_MAX);
    tokio::task::spawn_blocking(move || {
        let made = store.backup(&mut BackupChunks(&chunks));
        match made {
            Ok(made) => tracing::info!(pairs = made.pairs, bytes = made.bytes, "a backup was made"),
            Err(error) => {
                let error = taba_core::causes(&error);
                tracing::warn!(error, "a backup was not completed");
                // Aborts the answer, so that it is not taken for complete.
                let _ = chunks.blocking_send(Err(std::io::Error::other(error)));
            }
        }
        drop(permit);
    });
    let body = stream::unfold(taken, |mut taken| async move { Some((taken.recv().await?, taken)) });
    ([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(body)).into_response()
}

struct BackupChunks<'a>(&'a mpsc::Sender<std::io::Result<Bytes>>);

impl Write for BackupChunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| std::io::Error::other("the client of the backup is gone"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{server} cannot be reached; --server names another one")]
    Connect { server: String, source: std::io::Error },
    #[error("{server} ended the answer early")]
    Broken { server: String, source: std::io::Error },
    #[error("{server} gives no backup: {status}{hint}")]
    Refused { server: String, status: String, hint: &'static str },
    #[error("{path} cannot be written; --to names another file")]
    Write { path: String, source: std::io::Error },
}

/// Fetches and verifies a backup; only then the file gets its name.
pub(super) fn fetch(log: &Log, server: &HostPort, to: &Path) -> Outcome {
    let write = |source| FetchError::Write { path: to.display().to_string(), source };
    if to.exists() {
        return Err(Box::new(write(std::io::ErrorKind::AlreadyExists.into())));
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let mut answer = ask(server)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(part).map_err(write)?;
    let copied = copy(log, &server.to_string(), &mut answer, &mut file)
        .and_then(|()| Ok(file.sync_all().map_err(write)?));
    let verified = copied.and_then(|()| Ok(verify(part)?));
    let made = match verified {
        Ok(made) => made,
        Err(error) => {
            let _ = std::fs::remove_file(part);
            return Err(error);
        }
    };
    std::fs::rename(part, to).map_err(write)?;
    log.say(format_args!("{} pairs, {} bytes are in {}", made.pairs, made.bytes, to.display()));
    Ok(Exit::Clean)
}

/// Requests a backup; the rest of the stream is its body. HTTP/1.0, whose bodies end with the connection.
fn ask(server: &HostPort) -> Result<BufReader<TcpStream>, FetchError> {
    let connect = |source| FetchError::Connect { server: server.to_string(), source };
    let broken = |source| FetchError::Broken { server: server.to_string(), source };
    let mut stream = TcpStream::connect((server.host(), server.port())).map_err(connect)?;
    stream.set_read_timeout(Some(SILENCE_MAX)).map_err(connect)?;
    write!(stream, "GET /v2/backup HTTP/1.0\r\nhost: {server}\r\n\r\n").map_err(broken)?;
    let mut answer = BufReader::new(stream);
    let mut status = String::new();
    answer.read_line(&mut status).map_err(broken)?;
    let status = status.split_once(' ').map_or("", |(_, status)| status.trim()).to_owned();
    if !status.starts_with("200") {
        let hint = if status.starts_with("404") { "; it has no embedded store" } else { "" };
        return Err(FetchError::Refused { server: server.to_string(), status, hint });
    }
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if answer.read_line(&mut line).map_err(broken)? == 0 {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(answer)
}

fn copy(log: &Log, server: &str, from: &mut impl Read, to: &mut File) -> Result<(), Box<dyn Error>> {
    let (mut buffer, mut bytes) = (vec![0; 256 * 1024], 0_u64);
    loop {
        let read = from.read(&mut buffer);
        let read = read.map_err(|source| FetchError::Broken { server: server.to_owned(), source })?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read])?;
        let before = bytes / TOLD_EVERY;
        bytes += read as u64;
        if bytes / TOLD_EVERY > before {
            log.say(format_args!("{} MiB so far", bytes / (1024 * 1024)));
        }
    }
}

/// Saves the readable part of a damaged store.
pub(super) fn salvage(log: &Log, dir: &Path, to: &Path) -> Outcome {
    let write = |source| FetchError::Write { path: to.display().to_string(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).open(to).map_err(write)?;
    let saved = match salvage_into(dir, &mut file) {
        Ok(saved) => saved,
        Err(error) => {
            let _ = std::fs::remove_file(to);
            return Err(Box::new(error));
        }
    };
    file.sync_all().map_err(write)?;
    verify(to)?;
    let lost: Vec<String> = saved.lost.iter().map(ToString::to_string).collect();
    log.say(format_args!("{} pairs are in {}", saved.backup.pairs, to.display()));
    if lost.is_empty() {
        log.say("all vbuckets were read");
        return Ok(Exit::Clean);
    }
    log.say(format_args!(
        "{} vbuckets cannot be read completely and are not in it: {}",
        lost.len(),
        lost.join(" ")
    ));
    Ok(Exit::Failed)
}

pub(super) fn restore(log: &Log, from: &Path, dir: &Path) -> Outcome {
    let mut told = 0;
    let made = restore_into(from, dir, |pairs| {
        if pairs >= told + 1_000_000 {
            told = pairs;
            log.say(format_args!("{pairs} pairs so far"));
        }
    })?;
    log.say(format_args!("{} pairs are in {}, for --vbuckets {}", made.pairs, dir.display(), made.vbuckets));
    Ok(Exit::Clean)
}
