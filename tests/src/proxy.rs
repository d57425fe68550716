//! [`Proxy`]: a network that misbehaves, between two processes of a test.
//!
//! It stands before one port and hands each HTTP request on, over a connection of its own. Whether something goes wrong
//! with the n-th request is decided by the seed and n alone: with two of five, unless told otherwise. What goes wrong,
//! goes by turns.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

pub use crate::dice::chance;

/// A head or a body over this bound ends its connection.
const BYTES_MAX: usize = 16 << 20;
/// Of a thousand requests, so many go wrong, unless told otherwise.
const PERMILLE: u64 = 400;
/// No socket waits for longer.
const SOCKET_WAIT: Duration = Duration::from_secs(5);

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is delivered and answered, and the answer is dropped.
    AnswerLost,
    /// It is delivered twice, one after the other; the second answer comes back.
    Twice,
    /// Half of it is delivered, then the sender seems to have ended; what is answered to that comes back.
    Cut,
    /// It is delivered some time later.
    Late,
    /// Its sender sees the connection break, and it is delivered all the same, after the sender has tried again.
    Ghost,
}

impl Fault {
    /// Every fault there is; [`Fault::None`] is not one.
    pub const ALL: [Self; 5] = [Self::AnswerLost, Self::Twice, Self::Cut, Self::Late, Self::Ghost];
}

/// A network that misbehaves. Dropped, it takes no more connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    seed: u64,
    /// Of a thousand requests, so many go wrong.
    permille: AtomicU64,
    is_over: AtomicBool,
    requests: AtomicU64,
    turn: AtomicU64,
    faults: [AtomicU64; Fault::ALL.len() + 1],
}

impl Proxy {
    /// Stands before this port of the loopback interface, on a free one.
    ///
    /// # Panics
    /// When there is none.
    pub fn start(upstream: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared {
            upstream,
            seed,
            permille: AtomicU64::new(PERMILLE),
            is_over: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            faults: Default::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming() {
                if serving.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(socket), shared) = (socket, Arc::clone(&serving)) else { continue };
                // An error ends the connection, which is all that a network would say about it.
                thread::spawn(move || drop(shared.serve(socket)));
            }
        });
        Self { port, shared }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on nothing goes wrong any more.
    pub fn calm(&self) {
        self.rage(0);
    }

    /// From now on, so many of a thousand requests go wrong.
    pub fn rage(&self, permille: u64) {
        self.shared.permille.store(permille, Ordering::Relaxed);
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How often this went wrong so far.
    pub fn count(&self, fault: Fault) -> u64 {
        self.shared.faults[fault as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // The listening thread looks when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    /// Serves one connection, request by request, until it ends or breaks.
    fn serve(&self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut sender = BufReader::new(socket);
        loop {
            let request = read_message(&mut sender)?;
            let n = self.requests.fetch_add(1, Ordering::Relaxed);
            let chance = chance(self.seed, n);
            let is_good = chance % 1000 >= self.permille.load(Ordering::Relaxed);
            let fault = if is_good { Fault::None } else { self.next_fault() };
            self.faults[fault as usize].fetch_add(1, Ordering::Relaxed);
            let pause = Duration::from_millis(20 + (chance >> 32) % 200);
            let answer = match fault {
                Fault::None => self.deliver(&request)?,
                Fault::AnswerLost => {
                    self.deliver(&request)?;
                    return Ok(());
                }
                Fault::Twice => {
                    self.deliver(&request)?;
                    self.deliver(&request)?
                }
                Fault::Cut => self.deliver_half(&request)?,
                Fault::Late => {
                    wait(pause);
                    self.deliver(&request)?
                }
                Fault::Ghost => {
                    drop(sender);
                    wait(pause);
                    self.deliver(&request)?;
                    return Ok(());
                }
            };
            sender.get_mut().write_all(&answer)?;
            if fault == Fault::Cut {
                return Ok(());
            }
        }
    }

    /// Each fault in turn, so that a short test meets all of them.
    fn next_fault(&self) -> Fault {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        Fault::ALL[turn % Fault::ALL.len()]
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpStream::connect(("127.0.0.1", self.upstream))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(SOCKET_WAIT))?;
        Ok(socket)
    }

    fn deliver(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut socket = self.connect()?;
        socket.write_all(request)?;
        read_message(&mut BufReader::new(socket))
    }

    fn deliver_half(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut socket = self.connect()?;
        // The last byte alone is missing in every second cut, so that the head is whole at least then.
        let length = if request.len().is_multiple_of(2) { request.len() / 2 } else { request.len() - 1 };
        socket.write_all(&request[..length])?;
        socket.shutdown(Shutdown::Write)?;
        read_message(&mut BufReader::new(socket))
    }
}

/// A head, and the body that it announces; as they came.
fn read_message(from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let mut body_bytes = 0;
    loop {
        let start = message.len();
        if from.read_until(b'\n', &mut message)? == 0 || message.len() > BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = String::from_utf8_lossy(&message[start..]).trim().to_ascii_lowercase();
        if let Some(length) = line.strip_prefix("content-length:") {
            body_bytes = length.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
        if line.is_empty() {
            break;
        }
    }
    if body_bytes > BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let head = message.len();
    message.resize(head + body_bytes, 0);
    from.read_exact(&mut message[head..])?;
    Ok(message)
}

#[expect(clippy::disallowed_methods, reason = "a slow network is what this is")]
fn wait(pause: Duration) {
    thread::sleep(pause);
}
