//! [`Log`]: a best-effort log on standard error.
//!
//! Every line goes through a bounded queue to a writer thread, so a stalled reader, a closed pipe or a full disk
//! never stops the program. Lines that could not be written are counted, and the next line that can be written
//! reports the number.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use taba_core::{Throttle, printable, printable_lines};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::{MakeWriter, format};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::now;
use crate::exit::Exit;
use crate::line::{LineCounters, Stderr};
use crate::throttled::{Causes, Throttled, field};

/// Lines waiting to be written; more are dropped and counted.
pub const LINES_WAITING_MAX: usize = 4096;
/// Bytes of one line; longer ones are cut off.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// The maximum wait of [`Log::flush`].
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);
/// The interval of checks for suppressed lines whose cause has not recurred.
const OVERDUE_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the number of lines dropped since the start.
pub type LinesDropped = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Standard error, written by a thread. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    name: &'static str,
    lines: Lines,
    causes: Causes,
}

/// The queue of lines.
#[derive(Clone)]
struct Lines {
    queue: NonBlocking,
    counters: Arc<LineCounters>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Log {
    /// Starts the writer thread, and installs a panic hook that logs through it.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn start(name: &'static str) -> Self {
        let log = Self::to(std::io::stderr(), name);
        let (lines, panics) = (log.lines.clone(), Mutex::new(Throttle::default()));
        panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(|place| (place.file().to_owned(), place.line()));
            // A panic inside the throttle itself is logged without it.
            let suppressed = panics.try_lock().map_or(Some(0), |mut throttle| throttle.admit(place, now()));
            if let Some(suppressed) = suppressed {
                lines.put(words(name, panic, suppressed).as_bytes());
            }
        }));
        log
    }

    fn to(out: impl Write + Send + 'static, name: &'static str) -> Self {
        let counters = Arc::new(LineCounters::default());
        let out = Stderr::new(out, name, Arc::clone(&counters));
        let (queue, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_WAITING_MAX)
            .thread_name("taba-log")
            .finish(out);
        counters.count_queue(queue.error_counter());
        // Its drop would wait for the thread without our bound, and print to standard output: see `flush`.
        std::mem::forget(guard);
        Self { name, lines: Lines { queue, counters }, causes: Causes::default() }
    }

    /// Writes one line with the program's name, unfiltered and not throttled. What is in it acts on no terminal.
    pub fn say(&self, text: impl fmt::Display) {
        self.put(&printable(&text.to_string()));
    }

    /// The same for several lines.
    pub(crate) fn say_lines(&self, text: &str) {
        self.put(&printable_lines(text));
    }

    /// The same for a text that may have colours.
    pub(crate) fn put(&self, text: &str) {
        self.lines.put(format!("{}: {text}\n", self.name).as_bytes());
    }

    /// Writes an error with its causes as one line, and returns `exit`: `return log.fail(Exit::Usage, &error)`.
    #[must_use = "the process goes on otherwise"]
    pub fn fail(&self, exit: Exit, error: &dyn Error) -> Exit {
        self.say_lines(&taba_core::causes(error));
        exit
    }

    /// Logs `tracing` events that pass the filter: one line per cause and interval, with the count of suppressed
    /// lines. In colours only if standard error is a terminal and `NO_COLOR` is not set.
    ///
    /// # Panics
    /// When a global subscriber exists, or no thread can be started.
    pub fn subscribe(&self, filter: EnvFilter) {
        let has_colours = has_colours();
        tracing_subscriber::registry().with(filter).with(self.layer(has_colours)).init();
        let (causes, (_held, ticks)) = (self.causes.clone(), channel::<()>());
        let tick = move || {
            let _held = _held;
            while ticks.recv_timeout(OVERDUE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                causes.tell_overdue(now());
            }
        };
        let thread = std::thread::Builder::new().name("taba-log-counts".to_owned()).spawn(tick);
        thread.expect("a process that cannot start one more thread cannot do its work");
    }

    fn layer<S>(&self, has_colours: bool) -> impl tracing_subscriber::Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        tracing_subscriber::fmt::layer()
            .event_format(Throttled::new(self.causes.clone(), has_colours))
            .with_ansi(has_colours)
            .fmt_fields(format::debug_fn(field).delimited(" "))
            .with_writer(self.lines.clone())
            .log_internal_errors(false)
    }

    /// The number of lines dropped since the start, for `/status` and `/metrics`.
    pub fn lines_dropped(&self) -> LinesDropped {
        let counters = Arc::clone(&self.lines.counters);
        Arc::new(move || counters.dropped())
    }

    /// Waits until everything logged is written, for at most [`FLUSH_TIME_MAX`].
    pub fn flush(&self) {
        self.lines.counters.wait(FLUSH_TIME_MAX);
    }
}

/// Whether to write colours to standard error.
pub(crate) fn has_colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

impl Lines {
    fn put(&self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        self.counters.offer();
        // A lossy queue never fails: it counts what it drops.
        let _ = if line.len() > LINE_BYTES_MAX {
            self.queue.clone().write(&[&line[..LINE_BYTES_MAX], b" (cut off)\n"].concat())
        } else {
            self.queue.clone().write(line)
        };
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The message of a panic.
fn words(name: &str, panic: &PanicHookInfo<'_>, suppressed: u64) -> String {
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current();
    let mut text = format!(
        "{name}: panicked at {place} (thread {}): {}",
        thread.name().unwrap_or("unnamed"),
        printable_lines(message)
    );
    if suppressed > 0 {
        text.push_str(&format!(" (and {suppressed} times before)"));
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("\n{backtrace}"));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender};

    use super::*;

    /// A pipe whose reader reads on request; each line goes to the test.
    struct Pipe {
        reads: Receiver<()>,
        lines: Sender<String>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // After the reader is gone, everything passes.
            let _ = self.reads.recv();
            let _ = self.lines.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn pipe() -> (Log, Sender<()>, Receiver<String>) {
        let ((read, reads), (lines, written)) = (channel(), channel());
        (Log::to(Pipe { reads, lines }, "taba"), read, written)
    }

    fn logged(log: &Log, events: impl FnOnce()) {
        let subscriber = tracing_subscriber::registry().with(log.layer(false));
        tracing::subscriber::with_default(subscriber, events);
    }

    #[test]
    fn a_reader_that_reads_nothing_stops_nobody_and_hears_later_how_much_it_missed() {
        let (log, read, written) = pipe();
        let lines = 3 * LINES_WAITING_MAX as u64;
        for _ in 0..lines {
            log.say("word");
        }
        log.lines.counters.wait(Duration::ZERO);
        let dropped = log.lines_dropped()();
        assert!(dropped >= lines - LINES_WAITING_MAX as u64 - 1 && dropped < lines, "{dropped}");
        drop(read);
        log.flush();
        let text: Vec<String> = written.try_iter().collect();
        let told = |line: &String| {
            line.strip_suffix(" lines of this log were dropped\n")?.strip_prefix("taba: ")?.parse().ok()
        };
        let told: Vec<u64> = text.iter().filter_map(told).collect();
        assert_eq!(told.iter().sum::<u64>(), dropped);
        assert_eq!((text.len() - told.len()) as u64, lines - dropped);
    }

    #[test]
    fn one_line_for_each_cause_and_the_others_are_counted() {
        let (log, read, written) = pipe();
        drop(read);
        logged(&log, || {
            for at in 0..100 {
                tracing::warn!(at, server = if at % 2 == 0 { "a" } else { "b" }, "away");
                tracing::debug!(at, "each of these was asked for");
                tracing::warn!(suppressed = 7, "counted where it came from");
            }
            let later = now() + taba_core::throttle::INTERVAL;
            log.causes.tell_overdue(later);
            log.causes.tell_overdue(later);
        });
        log.flush();
        let text: Vec<String> = written.try_iter().collect();
        let count = |word: &str| text.iter().filter(|line| line.contains(word)).count();
        assert_eq!((count("asked for"), count("counted where it came from")), (100, 100));
        assert_eq!((count("away at="), count("suppressed=49 like=\"away server=")), (2, 2), "{text:?}");
        assert_eq!(text.len(), 204);
    }

    #[test]
    fn an_event_is_one_line_and_long_ones_are_cut() {
        let (log, read, written) = pipe();
        drop(read);
        logged(&log, || {
            tracing::error!(name = %"a\n2026 ERROR forged\r\x1b[2J", "bad name");
            tracing::error!(text = "x".repeat(2 * LINE_BYTES_MAX), "long");
        });
        log.flush();
        let text: Vec<String> = written.try_iter().collect();
        assert_eq!(text.len(), 2);
        assert!(text[0].matches('\n').count() == 1 && !text[0].contains('\x1b'), "{text:?}");
        assert!(text[1].ends_with(" (cut off)\n") && text[1].len() < LINE_BYTES_MAX + 20);
    }
}
