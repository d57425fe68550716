//! [`Stderr`]: writes whole lines to a stream that may be closed, full or failing, and counts those not written.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing_appender::non_blocking::ErrorCounter;

/// Counters of log lines.
#[derive(Debug, Default)]
pub(crate) struct LineCounters {
    counts: Mutex<LineCounts>,
    changed: Condvar,
    /// Counts lines dropped because the queue was full.
    queue: OnceLock<ErrorCounter>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LineCounts {
    offered: u64,
    written: u64,
    /// Not written: the stream was closed or full.
    failed: u64,
}

impl LineCounters {
    pub(crate) fn offer(&self) {
        self.lock().offered += 1;
    }

    pub(crate) fn count_queue(&self, queue: ErrorCounter) {
        let _ = self.queue.set(queue);
    }

    /// Lines not written: the queue was full, or the stream closed or full.
    pub(crate) fn dropped(&self) -> u64 {
        self.lock().failed + self.dropped_by_queue()
    }

    /// Waits until each line is written or dropped, for at most `time_max`.
    pub(crate) fn wait(&self, time_max: Duration) {
        let is_busy = |counts: &mut LineCounts| {
            counts.written + counts.failed + self.dropped_by_queue() < counts.offered
        };
        drop(self.changed.wait_timeout_while(self.lock(), time_max, is_busy));
    }

    fn dropped_by_queue(&self) -> u64 {
        self.queue.get().map_or(0, |queue| queue.dropped_lines() as u64)
    }

    fn done(&self, is_written: bool) {
        let mut counts = self.lock();
        if is_written {
            counts.written += 1;
        } else {
            counts.failed += 1;
        }
        self.changed.notify_all();
    }

    /// Three numbers, each changed in one step: a panic leaves them consistent.
    fn lock(&self) -> MutexGuard<'_, LineCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer of the log, on its thread. It takes one line at a time and never fails.
pub(crate) struct Stderr<W> {
    out: W,
    name: &'static str,
    counters: Arc<LineCounters>,
    /// Dropped lines already reported.
    told: u64,
    /// Whether the stream ends within a line.
    is_torn: bool,
}

impl<W: Write> Stderr<W> {
    pub(crate) fn new(out: W, name: &'static str, counters: Arc<LineCounters>) -> Self {
        Self { out, name, counters, told: 0, is_torn: false }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let dropped = self.counters.dropped();
        if dropped > self.told {
            let untold = dropped - self.told;
            let note = format!("{}: {untold} lines of this log were dropped\n", self.name);
            self.bytes(note.as_bytes())?;
            self.told = dropped;
        }
        self.bytes(line)
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.out.write_all(b"\n")?;
            self.is_torn = false;
        }
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.is_torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Stderr<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_written = self.line(line).is_ok();
        self.counters.done(is_written);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The stream is not buffered.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that accepts a number of bytes, then fails until it is given more.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Pipe {
        fn give(&self, room: usize) {
            self.0.lock().unwrap().1 = room;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (text, room) = &mut *self.0.lock().unwrap();
            let taken = bytes.len().min(*room);
            *room -= taken;
            text.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_were_dropped_are_counted_and_told_and_torn_ones_are_ended() {
        let (pipe, counters) = (Pipe::default(), Arc::new(LineCounters::default()));
        let mut log = Stderr::new(pipe.clone(), "taba", Arc::clone(&counters));
        let mut say = |text: &str| {
            counters.offer();
            log.write_all(text.as_bytes()).unwrap();
        };
        pipe.give(8);
        say("one\n");
        say("two, and more\n");
        say("three\n");
        assert_eq!(counters.dropped(), 2);
        pipe.give(1000);
        say("four\n");
        say("five\n");
        assert_eq!(pipe.text(), "one\ntwo,\ntaba: 2 lines of this log were dropped\nfour\nfive\n");
        counters.wait(Duration::from_secs(3600));
    }
}
