//! [`Remedy`]: what a caller can do about an error. Each operation has an error of its own, next to it.

use std::error::Error;
use std::time::Duration;

/// What to do next about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// The fault may pass: try the same again, not before this long.
    Wait(Duration),
    /// Somebody else is responsible now: look again where to go, then try there.
    Reroute,
    /// Too much at once: send it in smaller pieces.
    Split,
    /// Trying again cannot help.
    GiveUp,
}

/// An error with all its causes in one line, each after a colon: what log lines and answers say.
///
/// # Examples
/// ```
/// let error = std::io::Error::other("the disk is gone");
/// assert_eq!(taba_core::causes(&error), "the disk is gone");
/// ```
pub fn causes(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // A transparent level says what the next one says.
        if !words.ends_with(&next) {
            words.push_str(": ");
            words.push_str(&next);
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Level {
        #[error("no store")]
        Outer(#[source] Box<Level>),
        #[error(transparent)]
        Same(Box<Level>),
        #[error("no file")]
        Inner,
    }

    #[test]
    fn each_cause_is_told_once() {
        assert_eq!(causes(&Level::Inner), "no file");
        let same = Level::Same(Box::new(Level::Outer(Box::new(Level::Inner))));
        assert_eq!(causes(&same), "no store: no file");
        assert_eq!(causes(&Level::Outer(Box::new(Level::Same(Box::new(Level::Inner))))), "no store: no file");
    }
}
