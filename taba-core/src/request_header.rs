//! [`RequestHeader`]: a header that goes with each request of a program, as a token does.

use std::fmt;
use std::str::FromStr;

/// Bytes of a header, name and value: 1 to this many.
const BYTES_MAX: usize = 8 * 1024;
/// Headers that a request has already, or that say how it travels.
const TAKEN: [&str; 7] =
    ["connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding"];

/// A header of each request to an Agent or a Server: `Authorization: Bearer …`, for a proxy before it. Its value is a secret: neither
/// `Debug` nor an error shows it.
///
/// # Examples
/// ```
/// use taba_core::RequestHeader;
///
/// let header: RequestHeader = "Authorization: Bearer t0k3n".parse()?;
/// assert_eq!((header.name(), header.value()), ("authorization", "Bearer t0k3n"));
/// assert_eq!(format!("{header:?}"), "RequestHeader(authorization: …)");
/// # Ok::<(), taba_core::RequestHeaderError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RequestHeader {
    name: String,
    value: String,
}

/// Why a text is no header to send. It does not show the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestHeaderError {
    /// There is no colon, or what stands before it is no name.
    #[error("a header is `Name: value`; the name is of letters, digits and dashes")]
    Name,
    /// The value is empty, too long, or holds a character that no header may hold.
    #[error("the value of header {name} must be 1 to {BYTES_MAX} printable characters of ASCII")]
    Value {
        /// Of which header.
        name: String,
    },
    /// The program sets this header itself.
    #[error("header {name} is set by the program itself")]
    Taken {
        /// Which header.
        name: String,
    },
}

impl RequestHeader {
    /// The header of this name and value.
    ///
    /// # Errors
    /// [`RequestHeaderError`], which does not show the value.
    pub fn new(name: &str, value: &str) -> Result<Self, RequestHeaderError> {
        let name = name.trim().to_ascii_lowercase();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(RequestHeaderError::Name);
        }
        if TAKEN.contains(&name.as_str()) || name.starts_with("taba-") {
            return Err(RequestHeaderError::Taken { name });
        }
        let value = value.trim();
        let is_printable = value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte));
        if value.is_empty() || name.len() + value.len() > BYTES_MAX || !is_printable {
            return Err(RequestHeaderError::Value { name });
        }
        Ok(Self { name, value: value.to_owned() })
    }

    /// The name, in small letters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value: a secret.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for RequestHeader {
    type Err = RequestHeaderError;

    fn from_str(text: &str) -> Result<Self, RequestHeaderError> {
        let (name, value) = text.split_once(':').ok_or(RequestHeaderError::Name)?;
        Self::new(name, value)
    }
}

impl fmt::Debug for RequestHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestHeader({}: …)", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_may_reach_its_bound_and_not_pass_it() {
        let of = |bytes: usize| RequestHeader::new("X-Team", &"x".repeat(bytes - "x-team".len()));
        let header = of(BYTES_MAX).unwrap();
        assert_eq!((header.name(), header.value().len()), ("x-team", BYTES_MAX - 6));
        assert!(matches!(of(BYTES_MAX + 1), Err(RequestHeaderError::Value { .. })));
    }

    #[test]
    fn what_is_no_header_is_told_without_its_value() {
        for text in ["", "secret", ": secret", "a b: secret", "Zürich: secret"] {
            assert_eq!(text.parse::<RequestHeader>().unwrap_err(), RequestHeaderError::Name, "{text}");
        }
        for text in ["a:", "a: ", "a: secr\u{e9}t", "a: x\r\nb: secret", "a: \0"] {
            let error = text.parse::<RequestHeader>().unwrap_err();
            assert_eq!(error, RequestHeaderError::Value { name: "a".into() }, "{text}");
            assert!(!error.to_string().contains("secr"), "{error}");
        }
        for text in ["Content-Type: x", "HOST: x", "taba-store: 1"] {
            let error = text.parse::<RequestHeader>().unwrap_err();
            assert!(matches!(error, RequestHeaderError::Taken { .. }), "{text}");
        }
    }
}
