//! [`ShardUrl`]: the address and credentials of a Redis.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

/// Where a Redis is: `redis://[[user]:password@]host[:port][/database]`, or `unix:///path`.
///
/// `Debug` and `Display` show host and port, never user or password.
#[derive(Clone)]
pub struct ShardUrl(ConnectionInfo);

/// Why a text is no URL of a Redis. The text is not repeated: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It has another form.
    #[error("this is no URL of a Redis; it looks like redis://:password@127.0.0.1:6379")]
    Form,
    /// It requires TLS.
    #[error("rediss:// requires TLS, which this build does not support; use a TLS proxy, or use redis://")]
    Tls,
}

impl ShardUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn new(url: &str) -> Result<Self, UrlError> {
        if url.starts_with("rediss:") || url.starts_with("valkeys:") {
            return Err(UrlError::Tls);
        }
        let info = url.into_connection_info().map_err(|_| UrlError::Form)?;
        // RESP2 has one form for each answer.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        Ok(Self(info.set_redis_settings(settings)))
    }

    /// The same user, password and database at another address: `host:port`, or a path for a Unix socket.
    ///
    /// # Errors
    /// [`UrlError::Form`].
    pub fn at(&self, address: &str) -> Result<Self, UrlError> {
        let url =
            if address.starts_with('/') { format!("unix://{address}") } else { format!("redis://{address}") };
        let addr = Self::new(&url)?.0.addr().clone();
        Ok(Self(self.0.clone().set_addr(addr)))
    }

    pub(super) const fn info(&self) -> &ConnectionInfo {
        &self.0
    }
}

impl fmt::Display for ShardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.addr())
    }
}

impl fmt::Debug for ShardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardUrl({self})")
    }
}

impl FromStr for ShardUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::new(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let url = ShardUrl::new("redis://somebody:hunter2@10.1.2.3:7000/2").unwrap();
        assert_eq!(format!("{url} {url:?}"), "10.1.2.3:7000 ShardUrl(10.1.2.3:7000)");
        let moved = url.at("10.1.2.4:7001").unwrap();
        assert_eq!((moved.to_string(), moved.0.redis_settings().db()), ("10.1.2.4:7001".to_owned(), 2));
        assert!(url.at("").is_err() && url.at("a b").is_err());
        for bad in ["hunter2", "http://:hunter2@h", "redis://:hunter2@", "", "rediss://:hunter2@h"] {
            let error = ShardUrl::new(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
