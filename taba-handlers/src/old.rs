//! States as earlier versions wrote them.

use serde::de::DeserializeOwned;
use taba_core::{Handler, StateError};

/// Reads what `H` wrote in its version `old`.
///
/// # Errors
/// [`StateError`] when the version is another, or the bytes are not of it.
pub(crate) fn unless_unknown<H: Handler, T: DeserializeOwned>(
    old: u16,
    version: u16,
    bytes: &[u8],
) -> Result<T, StateError> {
    if version != old {
        return Err(StateError::UnknownVersion { found: version, known: H::VERSION });
    }
    match postcard::take_from_bytes(bytes) {
        Ok((state, [])) => Ok(state),
        Ok(_) | Err(_) => Err(StateError::Malformed { version }),
    }
}

/// Refuses what older versions wrote: their sketches had other buckets.
///
/// # Errors
/// Always [`StateError::UnknownVersion`].
pub(crate) fn unreadable<H: Handler>(_: &H, version: u16, _: &[u8]) -> Result<H::State, StateError> {
    Err(StateError::UnknownVersion { found: version, known: H::VERSION })
}
