//! [`HostPort`]: where to listen: a host by name or address, and a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest name of a host, in bytes (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// Why a text is no [`HostPort`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write HOST:PORT, as in localhost:8300, 0.0.0.0:8300 or [::1]:8300")]
pub struct HostPortError;

/// A host and a port, `HOST:PORT`. The host is a name, an IPv4 address, or an IPv6 address in brackets. A name is
/// resolved by whoever uses it, each time it is used; this type only says that it can be one.
///
/// # Examples
/// ```
/// use taba_core::HostPort;
///
/// let address: HostPort = "localhost:8300".parse()?;
/// assert_eq!((address.host(), address.port()), ("localhost", 8300));
/// let address: HostPort = "[::1]:8300".parse()?;
/// assert_eq!((address.host(), address.to_string()), ("::1", "[::1]:8300".to_owned()));
/// # Ok::<(), taba_core::HostPortError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The name or the address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system choose one to listen on.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether only this machine can reach it: `localhost`, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError)?;
        // `u16` would also read a sign.
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number).ok_or(HostPortError)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => is_name(host),
        };
        if !is_host {
            return Err(HostPortError);
        }
        Ok(Self { host: bracketed.unwrap_or(host).to_owned(), port })
    }
}

/// Whether a text can be the name of a host, or is an IPv4 address. What has nothing but digits and dots, and is no
/// address, is a mistake.
fn is_name(text: &str) -> bool {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(is_known)
        && (!is_numeric || text.parse::<Ipv4Addr>().is_ok())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for HostPort {
    fn from((address, port): (I, u16)) -> Self {
        Self::from(SocketAddr::from((address, port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_come_back_and_bad_ones_are_refused() {
        for text in ["localhost:8300", "127.0.0.1:0", "0.0.0.0:80", "[::1]:65535", "db-1.example:1", "a_b:1"]
        {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        let long = format!("{}:1", "a".repeat(NAME_BYTES_MAX + 1));
        for text in [
            "",
            "here",
            "8300",
            ":8300",
            "a:",
            "a:x",
            "a:65536",
            "a:-1",
            "a:+1",
            "a:1:2",
            "::1:80",
            "[::1]",
            "[a]:1",
            "256.0.0.1:1",
            "1.2.3:4",
            "a b:1",
            "http://a:1",
            "a/b:1",
            "*:1",
            "u@a:1",
            "é:1",
            &long,
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(HostPortError), "{text}");
        }
    }

    #[test]
    fn loopback_is_told() {
        for (text, is_loopback) in [
            ("localhost:1", true),
            ("127.0.0.2:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("example:1", false),
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().is_loopback(), is_loopback, "{text}");
        }
    }
}
