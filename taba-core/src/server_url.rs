//! [`ServerUrl`]: the address and weight of a Server.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::host::HostPort;

const SCHEME: &str = "http://";
/// The largest weight of a Server.
pub const SERVER_WEIGHT_MAX: u32 = 1000;

/// Why a Server's address is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerUrlError {
    /// It has another scheme than `http://`.
    #[error("server {text:?}: only http:// is supported (TLS is not, yet)")]
    Scheme {
        /// The text.
        text: String,
    },
    /// There is no host, or the rest is no valid prefix.
    #[error("server {text:?} is not http://HOST:PORT or http://HOST:PORT/PREFIX")]
    Authority {
        /// The text.
        text: String,
    },
    /// The weight is no number from 1 to [`SERVER_WEIGHT_MAX`].
    #[error(
        "server {text:?}: the weight must be a number from 1 to {SERVER_WEIGHT_MAX}, as in http://HOST:PORT;weight=2"
    )]
    Weight {
        /// The text.
        text: String,
    },
}

/// `http://HOST:PORT`, or `HOST:PORT` alone, optionally with a path prefix (`/taba`) and `;weight=N`, from 1 (the
/// default) to 1000: a Server of weight 2 gets twice the VBuckets of one of weight 1.
///
/// # Examples
/// ```
/// use taba_core::ServerUrl;
///
/// let server: ServerUrl = "http://10.0.0.7:8300;weight=2".parse()?;
/// assert_eq!(server.url(), "http://10.0.0.7:8300");
/// assert_eq!(server.weight(), 2);
/// # Ok::<(), taba_core::ServerUrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ServerUrl {
    url: String,
    weight: u32,
}

impl ServerUrl {
    /// Without a final slash and the weight.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its weight, from 1 to [`SERVER_WEIGHT_MAX`].
    pub const fn weight(&self) -> u32 {
        self.weight
    }

    /// Its host and port; without a port, 80.
    pub fn host_port(&self) -> HostPort {
        let authority = self.authority();
        let address = authority.parse().or_else(|_| format!("{authority}:80").parse());
        address.expect("it was checked when it was made")
    }

    /// The same with an address in place of its host.
    pub fn at(&self, address: IpAddr) -> Self {
        let prefix = &self.url[SCHEME.len() + self.authority().len()..];
        let host_port = HostPort::from((address, self.host_port().port()));
        Self { url: format!("{SCHEME}{host_port}{prefix}"), weight: self.weight }
    }

    fn authority(&self) -> &str {
        let rest = &self.url[SCHEME.len()..];
        rest.split('/').next().unwrap_or(rest)
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        // Allows "http://a:1, http://b:1".
        let text = text.trim();
        let (url, weight) = match text.split_once(';') {
            None => (text, 1),
            Some((url, label)) => {
                let weight = label.strip_prefix("weight=").and_then(|weight| weight.parse().ok());
                let weight = weight.filter(|weight| (1..=SERVER_WEIGHT_MAX).contains(weight));
                (url, weight.ok_or_else(|| ServerUrlError::Weight { text: text.to_owned() })?)
            }
        };
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(ServerUrlError::Scheme { text: text.to_owned() }),
            // A port is required: a word alone is probably a mistake.
            None if url.contains(':') => url,
            None => return Err(ServerUrlError::Authority { text: text.to_owned() }),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !is_authority(authority) || !is_prefix(prefix) {
            return Err(ServerUrlError::Authority { text: text.to_owned() });
        }
        Ok(Self { url: format!("{SCHEME}{rest}"), weight })
    }
}

/// A host or address, optionally with a port.
fn is_authority(text: &str) -> bool {
    let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = if has_port { text.parse::<HostPort>() } else { format!("{text}:80").parse() };
    address.is_ok_and(|address| address.port() > 0)
}

/// Empty, or segments of path characters, each with a leading slash; `,` and `;` have another meaning here.
fn is_prefix(text: &str) -> bool {
    let is_plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'%')
    };
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain);
    text.strip_prefix('/').is_none_or(|segments| segments.split('/').all(is_segment))
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.weight {
            1 => f.write_str(&self.url),
            weight => write!(f, "{};weight={weight}", self.url),
        }
    }
}

impl TryFrom<String> for ServerUrl {
    type Error = ServerUrlError;

    fn try_from(text: String) -> Result<Self, ServerUrlError> {
        text.parse()
    }
}

impl From<ServerUrl> for String {
    fn from(server: ServerUrl) -> Self {
        server.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_come_back() {
        for text in [
            "http://a:1",
            "http://a",
            "http://127.0.0.1:8300",
            "http://[::1]:8300;weight=7",
            "http://[::1]",
            "http://a:1/taba",
            "http://a/b/c.d;weight=2",
        ] {
            assert_eq!(text.parse::<ServerUrl>().unwrap().to_string(), text);
        }
        assert_eq!(" http://a:1".parse::<ServerUrl>().unwrap().url(), "http://a:1");
        assert_eq!("http://a:1/".parse::<ServerUrl>().unwrap().url(), "http://a:1");
        assert_eq!("a:1".parse::<ServerUrl>().unwrap().url(), "http://a:1");
        assert_eq!("http://a:1/taba/".parse::<ServerUrl>().unwrap().url(), "http://a:1/taba");
    }

    #[test]
    fn an_address_takes_the_place_of_the_host() {
        for (text, host_port, at) in [
            ("http://a:1/p;weight=3", "a:1", "http://10.0.0.1:1/p;weight=3"),
            ("http://a", "a:80", "http://10.0.0.1:80"),
            ("http://[::1]", "[::1]:80", "http://10.0.0.1:80"),
            ("http://[::1]:7/p/q", "[::1]:7", "http://10.0.0.1:7/p/q"),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(url.host_port().to_string(), host_port);
            assert_eq!(url.at("10.0.0.1".parse().unwrap()).to_string(), at);
            assert_eq!(url.at("::2".parse().unwrap()).host_port().host(), "::2");
        }
    }

    #[test]
    fn bad_ones_say_why() {
        let error = |text: &str| text.parse::<ServerUrl>().unwrap_err();
        assert!(matches!(error("a"), ServerUrlError::Authority { .. }));
        assert!(matches!(error("https://a:1"), ServerUrlError::Scheme { .. }));
        for text in [
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:x",
            "http://a//b",
            "http://a/b//",
            "http://a/b?c",
            "http://a/b#c",
            "http://a/../b",
            "http://a/b c",
            "http:///b",
            "http://u@a",
            "http://a b",
            "http://[zz]:1",
            "http://256.0.0.1:1",
            "http://::1",
        ] {
            assert!(matches!(error(text), ServerUrlError::Authority { .. }), "{text}");
        }
        for text in ["http://a;weight=0", "http://a;weight=1001", "http://a;w=1", "http://a;"] {
            assert!(matches!(error(text), ServerUrlError::Weight { .. }), "{text}");
        }
    }
}
