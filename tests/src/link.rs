//! [`Link`]: a connection that misbehaves, between a process of a test and a `redis-server`.
//!
//! It stands before one port and hands bytes on in both directions, so it carries any protocol: that of Redis, and that
//! of a replica to its primary. It can be switched to another upstream while it runs, which is how a topology without a
//! coordinator sees a failover. Whether something goes wrong with the n-th piece of a request is decided by the seed and
//! n alone; a piece is what one `read` returns, so mostly one pipeline of commands.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::dice::chance;

/// Bytes of one piece, at most.
const PIECE_BYTES: usize = 64 * 1024;
/// What was sent before a connection broke gets this long to be read.
const GHOST_WAIT: Duration = Duration::from_millis(50);

/// What goes wrong with one piece of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Break {
    /// Nothing.
    None,
    /// It is delivered, and the connection breaks when the answer arrives: what was asked has happened, and its sender
    /// cannot know.
    AnswerLost,
    /// Half of it is delivered, then the connection breaks: a command is cut in the middle.
    Cut,
    /// It is delivered some time later.
    Late,
    /// Its sender sees the connection break, and it is delivered all the same, after the sender has tried again.
    Ghost,
}

impl Break {
    /// Every break there is; [`Break::None`] is not one.
    pub const ALL: [Self; 4] = [Self::AnswerLost, Self::Cut, Self::Late, Self::Ghost];
}

/// A connection that misbehaves. Dropped, it breaks all connections and takes no more.
#[derive(Debug)]
pub struct Link {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    upstream: AtomicU16,
    /// Of a thousand pieces, so many go wrong.
    permille: AtomicU64,
    is_over: AtomicBool,
    is_stalled: Mutex<bool>,
    moved: Condvar,
    pairs: Mutex<BTreeMap<u64, Arc<Pair>>>,
    pairs_made: AtomicU64,
    pieces: AtomicU64,
    turn: AtomicU64,
    breaks: [AtomicU64; Break::ALL.len() + 1],
}

/// One connection, with both its ends.
#[derive(Debug)]
struct Pair {
    sender: TcpStream,
    upstream: TcpStream,
    is_cut: AtomicBool,
    /// The next answer is lost.
    loses: AtomicBool,
}

impl Pair {
    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        // It may be broken already.
        let _ = self.sender.shutdown(Shutdown::Both);
        let _ = self.upstream.shutdown(Shutdown::Both);
    }
}

impl Link {
    /// Stands before this port of the loopback interface, on a free one. Nothing goes wrong yet.
    ///
    /// # Panics
    /// When there is none.
    pub fn start(upstream: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared {
            seed,
            upstream: AtomicU16::new(upstream),
            permille: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_stalled: Mutex::new(false),
            moved: Condvar::new(),
            pairs: Mutex::default(),
            pairs_made: AtomicU64::new(0),
            pieces: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            breaks: Default::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming() {
                if serving.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(socket), shared) = (socket, Arc::clone(&serving)) else { continue };
                // An error ends the connection, which is all that a network would say about it.
                thread::spawn(move || drop(shared.serve(socket)));
            }
        });
        Self { port, shared }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on, so many of a thousand pieces go wrong.
    pub fn rage(&self, permille: u64) {
        self.shared.permille.store(permille, Ordering::SeqCst);
    }

    /// New connections go to this port; those that there are break.
    pub fn switch(&self, upstream: u16) {
        self.shared.upstream.store(upstream, Ordering::SeqCst);
        self.cut();
    }

    /// The port that it stands before.
    pub fn upstream(&self) -> u16 {
        self.shared.upstream.load(Ordering::SeqCst)
    }

    /// All connections break, and what is on its way in here is lost.
    pub fn cut(&self) {
        for pair in self.shared.pairs().values() {
            pair.cut();
        }
        self.shared.moved.notify_all();
    }

    /// From now on nothing gets through, in either direction, and nobody is told.
    pub fn stall(&self) {
        *self.shared.is_stalled() = true;
    }

    /// What waits goes on.
    pub fn go_on(&self) {
        *self.shared.is_stalled() = false;
        self.shared.moved.notify_all();
    }

    /// Pieces of requests so far.
    pub fn pieces(&self) -> u64 {
        self.shared.pieces.load(Ordering::Relaxed)
    }

    /// How often this went wrong so far.
    pub fn count(&self, what: Break) -> u64 {
        self.shared.breaks[what as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.cut();
        // The listening thread looks when somebody comes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    // A thread that panicked has left whole values behind: each is one insertion, removal or store.
    fn pairs(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Pair>>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stalled(&self) -> MutexGuard<'_, bool> {
        self.is_stalled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection until it ends or breaks.
    fn serve(self: Arc<Self>, sender: TcpStream) -> io::Result<()> {
        let upstream = TcpStream::connect(("127.0.0.1", self.upstream.load(Ordering::SeqCst)))?;
        sender.set_nodelay(true)?;
        upstream.set_nodelay(true)?;
        let pair =
            Arc::new(Pair { sender, upstream, is_cut: AtomicBool::default(), loses: AtomicBool::default() });
        let number = self.pairs_made.fetch_add(1, Ordering::Relaxed);
        self.pairs().insert(number, Arc::clone(&pair));
        if self.is_over.load(Ordering::SeqCst) {
            pair.cut();
        }
        let (answering, shared) = (Arc::clone(&pair), Arc::clone(&self));
        let answers = thread::spawn(move || shared.answers(&answering));
        if self.requests(&pair).is_err() {
            pair.cut();
        }
        // What upstream was sent before the sender ended is read by it all the same.
        let _ = pair.upstream.shutdown(Shutdown::Write);
        let _ = answers.join();
        self.pairs().remove(&number);
        Ok(())
    }

    /// Hands requests on; ends with the sender, an error ends the connection.
    fn requests(&self, pair: &Pair) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = (&pair.sender).read(&mut piece)?;
            if length == 0 {
                return Ok(());
            }
            let piece = &piece[..length];
            self.pass(pair)?;
            let n = self.pieces.fetch_add(1, Ordering::Relaxed);
            let chance = chance(self.seed, n);
            let is_good = chance % 1000 >= self.permille.load(Ordering::SeqCst);
            let what = if is_good { Break::None } else { self.next_break() };
            self.breaks[what as usize].fetch_add(1, Ordering::Relaxed);
            let pause = Duration::from_millis(20 + (chance >> 32) % 200);
            let mut upstream = &pair.upstream;
            match what {
                Break::None => upstream.write_all(piece)?,
                Break::AnswerLost => {
                    pair.loses.store(true, Ordering::SeqCst);
                    upstream.write_all(piece)?;
                }
                Break::Cut => {
                    upstream.write_all(&piece[..length / 2])?;
                    wait(GHOST_WAIT);
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Break::Late => {
                    wait(pause);
                    upstream.write_all(piece)?;
                }
                Break::Ghost => {
                    // It may be broken already.
                    let _ = pair.sender.shutdown(Shutdown::Both);
                    wait(pause);
                    upstream.write_all(piece)?;
                    return Ok(());
                }
            }
        }
    }

    /// Hands answers on, until upstream ends or the connection is cut.
    fn answers(&self, pair: &Pair) {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = match (&pair.upstream).read(&mut piece) {
                Ok(length) if length > 0 => length,
                Ok(_) | Err(_) => return pair.cut(),
            };
            if pair.loses.load(Ordering::SeqCst) || self.pass(pair).is_err() {
                return pair.cut();
            }
            // The sender of a ghost is gone; upstream must still get to read it.
            let _ = (&pair.sender).write_all(&piece[..length]);
        }
    }

    /// Waits while nothing gets through.
    fn pass(&self, pair: &Pair) -> io::Result<()> {
        let mut is_stalled = self.is_stalled();
        while *is_stalled && !pair.is_cut.load(Ordering::SeqCst) {
            let waited = self.moved.wait_timeout(is_stalled, GHOST_WAIT);
            is_stalled = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if pair.is_cut.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// Each break in turn, so that a short test meets all of them.
    fn next_break(&self) -> Break {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        Break::ALL[turn % Break::ALL.len()]
    }
}

#[expect(clippy::disallowed_methods, reason = "a network has no clock that a test could set")]
fn wait(time: Duration) {
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every piece that it is sent with the same bytes, and keeps them.
    fn echo() -> (u16, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let hearing = Arc::clone(&heard);
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (mut socket, heard) = (socket.unwrap(), Arc::clone(&hearing));
                thread::spawn(move || {
                    let mut piece = [0; 64];
                    while let Ok(length @ 1..) = socket.read(&mut piece) {
                        heard.lock().unwrap().extend(&piece[..length]);
                        if socket.write_all(&piece[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (port, heard)
    }

    fn ask(link: &Link, what: &[u8]) -> io::Result<Vec<u8>> {
        let mut socket = TcpStream::connect(("127.0.0.1", link.port()))?;
        socket.write_all(what)?;
        let mut answer = vec![0; what.len()];
        socket.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn each_break_does_what_it_says() {
        let (port, heard) = echo();
        let link = Link::start(port, 1);
        assert_eq!(ask(&link, b"good").unwrap(), b"good");
        link.rage(1000);
        ask(&link, b"lost").unwrap_err();
        ask(&link, b"cut!").unwrap_err();
        assert_eq!(ask(&link, b"late").unwrap(), b"late");
        ask(&link, b"boo!").unwrap_err();
        crate::wait_until("the ghost arrives", || heard.lock().unwrap().ends_with(b"boo!"));
        assert_eq!(heard.lock().unwrap().as_slice(), b"goodlostculateboo!");
        assert!(Break::ALL.iter().all(|what| link.count(*what) == 1));
    }

    #[test]
    fn what_waits_in_a_stalled_link_is_lost_when_it_is_cut_and_arrives_when_it_goes_on() {
        let (port, heard) = echo();
        let link = Link::start(port, 1);
        link.stall();
        let mut lost = TcpStream::connect(("127.0.0.1", link.port())).unwrap();
        lost.write_all(b"lost").unwrap();
        crate::wait_until("it is connected", || link.shared.pairs().len() == 1);
        link.cut();
        assert_eq!(lost.read(&mut [0; 4]).unwrap_or(0), 0);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| ask(&link, b"waits"));
            crate::wait_until("it is connected", || link.shared.pairs_made.load(Ordering::Relaxed) == 2);
            link.go_on();
            assert_eq!(waiting.join().unwrap().unwrap(), b"waits");
        });
        assert_eq!(heard.lock().unwrap().as_slice(), b"waits");
    }

    #[test]
    fn a_switched_link_leads_to_the_other_port() {
        let ((first, heard), (second, heard_too)) = (echo(), echo());
        let link = Link::start(first, 1);
        assert_eq!(ask(&link, b"one").unwrap(), b"one");
        link.switch(second);
        assert_eq!(ask(&link, b"two").unwrap(), b"two");
        assert_eq!((&heard.lock().unwrap()[..], &heard_too.lock().unwrap()[..]), (&b"one"[..], &b"two"[..]));
    }
}
