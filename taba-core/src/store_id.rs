//! [`StoreId`]: which store this is.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::str::FromStr;

/// What follows the number of a store that ends with its process.
const TRANSIENT: &str = " transient";

/// Which store this is: a number that it was given when it was made, and keeps for its life, also when a backup of it is put
/// back. Written as up to 16 hexadecimal digits, and `transient` behind them for one that ends with its process.
///
/// # Examples
/// ```
/// use taba_core::StoreId;
///
/// let id: StoreId = "00000000000000a7".parse()?;
/// assert_eq!((id.number, id.is_durable), (0xa7, true));
/// assert_eq!(StoreId { is_durable: false, ..id }.to_string(), "00000000000000a7 transient");
/// # Ok::<(), taba_core::StoreIdError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId {
    /// A random number.
    pub number: u64,
    /// Whether the store outlives its process. One that does not begins anew under another number each time.
    pub is_durable: bool,
}

/// A text names no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a store is named by 1 to 16 hexadecimal digits, as in 3f9c02d1a7b45e60")]
pub struct StoreIdError;

impl StoreId {
    /// A new number for a store that ends with its process.
    pub fn transient() -> Self {
        // The standard library's seed of hash maps: random in each process, and new with each call.
        Self { number: RandomState::new().build_hasher().finish(), is_durable: false }
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{}", self.number, if self.is_durable { "" } else { TRANSIENT })
    }
}

impl FromStr for StoreId {
    type Err = StoreIdError;

    fn from_str(text: &str) -> Result<Self, StoreIdError> {
        let (digits, is_durable) = match text.strip_suffix(TRANSIENT) {
            Some(digits) => (digits, false),
            None => (text, true),
        };
        let is_number = digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(digits, 16).ok().filter(|_| is_number).ok_or(StoreIdError)?;
        Ok(Self { number, is_durable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is() {
        for id in [
            StoreId { number: 0, is_durable: true },
            StoreId { number: u64::MAX, is_durable: false },
            StoreId::transient(),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "x", "+7", "-7", "12345678901234567", "7 ", " 7", "7 durable", " transient"] {
            assert_eq!(text.parse::<StoreId>(), Err(StoreIdError), "{text:?}");
        }
        assert_ne!(StoreId::transient(), StoreId::transient());
    }
}
