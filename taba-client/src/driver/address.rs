//! [`AgentAddress`]: where the Agent listens.

use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use taba_core::RequestHeader;

/// Where the Agent listens: `http://host:port`, perhaps with a path before ours, or `unix:/path/of/socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAddress {
    pub(super) transport: Transport,
    /// The `Host` of requests.
    pub(super) host: String,
    /// The path of `POST`.
    pub(super) path: String,
    /// What goes with each request beside what the protocol says.
    pub(super) headers: Vec<RequestHeader>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp(String),
    Unix(PathBuf),
}

/// Why a text is no address of an Agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{text:?} is not the address of an agent: expected http://host:port or unix:/path")]
pub struct AgentAddressError {
    /// The text.
    pub text: String,
}

impl AgentAddress {
    /// Sends this header with each request, for a proxy before the Agent that asks for a token.
    #[must_use]
    pub fn with_header(mut self, header: RequestHeader) -> Self {
        self.headers.push(header);
        self
    }
}

/// Where Clients post their Batches.
const EVENTS_PATH: &str = "/v2/events";

impl FromStr for AgentAddress {
    type Err = AgentAddressError;

    fn from_str(text: &str) -> Result<Self, AgentAddressError> {
        let bad = || AgentAddressError { text: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() || !cfg!(unix) {
                return Err(bad());
            }
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            let transport = Transport::Unix(path);
            return Ok(Self {
                transport,
                host: "localhost".to_owned(),
                path: EVENTS_PATH.to_owned(),
                headers: Vec::new(),
            });
        }
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(bad());
        }
        let target = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let path = format!("{}{EVENTS_PATH}", uri.path().trim_end_matches('/'));
        Ok(Self {
            transport: Transport::Tcp(target),
            host: authority.as_str().to_owned(),
            path,
            headers: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> (String, String, String) {
        match text.parse().unwrap() {
            AgentAddress { transport: Transport::Tcp(target), host, path, .. } => (target, host, path),
            AgentAddress { transport: Transport::Unix(_), .. } => panic!("{text} is not a socket's path"),
        }
    }

    #[test]
    fn addresses_are_read() {
        let events = || "/v2/events".to_owned();
        assert_eq!(
            tcp("http://127.0.0.1:8279"),
            ("127.0.0.1:8279".into(), "127.0.0.1:8279".into(), events())
        );
        assert_eq!(tcp("http://[::1]:8279/"), ("[::1]:8279".into(), "[::1]:8279".into(), events()));
        assert_eq!(tcp("http://agent/taba/"), ("agent:80".into(), "agent".into(), "/taba/v2/events".into()));
        let unix: AgentAddress = "unix:/run/taba.sock".parse().unwrap();
        assert_eq!(unix.transport, Transport::Unix("/run/taba.sock".into()));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "unix:", "https://host:1", "host:1", "http://", "http://me:secret@host:1", "http://h:1/?q=1"]
        {
            assert!(text.parse::<AgentAddress>().is_err(), "{text:?}");
        }
    }
}
