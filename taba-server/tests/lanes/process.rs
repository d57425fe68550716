//! [`Process`]: the real binary, on a port that it chose.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use taba_core::wire::{Ack, LaneBatch};

use super::{acks, frame};

const WAIT: Duration = Duration::from_secs(30);

/// A running taba-server; killed when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    /// What it said until it listened.
    pub(crate) words: String,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut words, mut line) = (String::new(), String::new());
        while !line.contains("listening on http://") {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it listened: {words}");
            words += &line;
        }
        let address =
            line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        // Its log must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Self { child, address, words }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        answer.split_off(head + 4)
    }

    pub(crate) fn send(&self, batches: &[LaneBatch]) -> Vec<Ack> {
        let body = frame(batches);
        let head = format!(
            "POST /v2/lanes HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/x-taba\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        acks(self.ask(&[head.as_bytes(), &body].concat()))
    }

    /// What it answers to this path, as text.
    pub(crate) fn get(&self, path: &str) -> String {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: text/plain\r\n\r\n"
        );
        String::from_utf8(self.ask(request.as_bytes())).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // As kill -9 does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
