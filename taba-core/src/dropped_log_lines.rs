//! [`DroppedLogLines`]: how much of a program's log was dropped.

use std::fmt;
use std::sync::Arc;

/// The count of dropped log lines, given by the code that started the log.
#[derive(Clone, Default)]
pub struct DroppedLogLines(Option<Arc<dyn Fn() -> u64 + Send + Sync>>);

impl DroppedLogLines {
    /// As this function counts.
    pub fn of(count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(count)))
    }

    /// How many; 0 when no counter was given.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |count| count())
    }
}

impl fmt::Debug for DroppedLogLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DroppedLogLines").field(&self.count()).finish()
    }
}
