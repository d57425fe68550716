//! [`Throttled`]: formats events as lines, one per cause and interval.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use taba_core::{Throttle, printable};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::now;

/// The fields that distinguish faults at one place in the code.
const CAUSE_FIELDS: [&str; 7] = ["server", "shard", "address", "why", "reason", "kind", "part"];
/// An event with this field is already throttled; the field counts suppressed lines.
const SUPPRESSED: &str = "suppressed";

/// The recently logged causes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Causes(Arc<Mutex<Throttle<LineCause>>>);

/// The identity of a cause: the place in the code and the fields of [`CAUSE_FIELDS`].
#[derive(Clone, Debug)]
pub(crate) struct LineCause {
    place: Identifier,
    fields: String,
    level: Level,
    /// The first message; not compared.
    message: String,
}

impl PartialEq for LineCause {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place && self.fields == other.fields
    }
}

impl Eq for LineCause {}

impl Hash for LineCause {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place.hash(state);
        self.fields.hash(state);
    }
}

impl Visit for LineCause {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else if CAUSE_FIELDS.contains(&field.name()) {
            self.fields.push_str(&format!("{}={value:?} ", field.name()));
        }
    }
}

impl Causes {
    /// `Some` with the number of lines suppressed since the last one, `None` to suppress this one. Levels below
    /// `INFO` are not throttled.
    fn admit(&self, event: &Event<'_>, now: Instant) -> Option<u64> {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || event.fields().any(|field| field.name() == SUPPRESSED) {
            return Some(0);
        }
        let mut cause = LineCause {
            place: metadata.callsite(),
            fields: String::new(),
            level: *metadata.level(),
            message: String::new(),
        };
        event.record(&mut cause);
        self.lock().admit(cause, now)
    }

    /// Logs the number of suppressed lines of causes that have not recurred.
    pub(crate) fn tell_overdue(&self, now: Instant) {
        let overdue = self.lock().overdue(now);
        for (cause, suppressed) in overdue {
            let (level, like) = cause.map_or((Level::WARN, String::from("(many causes)")), |cause| {
                (cause.level, format!("{} {}", cause.message, cause.fields).trim_end().to_owned())
            });
            if level == Level::INFO {
                tracing::info!(suppressed, like, "lines were suppressed");
            } else {
                tracing::warn!(suppressed, like, "lines were suppressed");
            }
        }
    }

    /// Counts only: a panic in a `Debug` implementation comes before they change.
    fn lock(&self) -> MutexGuard<'_, Throttle<LineCause>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a field on one line, whatever its value contains.
pub(crate) fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    writer.write_str(&printable(&format!("{value:?}")))
}

/// Formats events as `tracing_subscriber` does, on one line each, one line per cause and interval.
pub(crate) struct Throttled {
    causes: Causes,
    format: Format<Full>,
}

impl Throttled {
    pub(crate) fn new(causes: Causes, has_colours: bool) -> Self {
        Self { causes, format: Format::default().with_ansi(has_colours) }
    }
}

impl<S, N> FormatEvent<S, N> for Throttled
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // An empty line is not written.
        let Some(suppressed) = self.causes.admit(event, now()) else { return Ok(()) };
        let mut line = String::new();
        self.format.format_event(ctx, Writer::new(&mut line), event)?;
        writer.write_str(line.trim_end_matches('\n'))?;
        if suppressed > 0 {
            write!(writer, " {SUPPRESSED}={suppressed}")?;
        }
        writeln!(writer)
    }
}
