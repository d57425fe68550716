//! [`LinesDropped`]: what the log of an Agent could not say.

use std::fmt;
use std::sync::Arc;

/// Tells how many lines of the process's log were dropped; whoever started the log knows.
#[derive(Clone, Default)]
pub(super) struct LinesDropped(Option<Arc<dyn Fn() -> u64 + Send + Sync>>);

impl LinesDropped {
    pub(super) fn of(count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(count)))
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |count| count())
    }
}

impl fmt::Debug for LinesDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinesDropped").field(&self.count()).finish()
    }
}
