//! [`ServerSeed`]: a Server as an Agent is given it: by its address, or by a name that stands for several.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use taba_core::{ServerUrl, ServerUrlError};

/// What a name begins with, each of whose addresses is a Server.
const NAME: &str = "dns:";

/// A Server as [`ServerUrl`] writes it; or `dns:NAME:PORT`, perhaps with a prefix and a weight, where each address of the
/// name is a Server, and the name is resolved again and again.
///
/// # Examples
/// ```
/// use taba_agent::ServerSeed;
///
/// let seed: ServerSeed = "dns:taba-server.example:8300".parse()?;
/// assert!(seed.is_name());
/// assert!(!"http://taba-server.example:8300".parse::<ServerSeed>()?.is_name(), "one Server, whatever its address");
/// # Ok::<(), taba_agent::ServerUrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct ServerSeed {
    url: ServerUrl,
    is_name: bool,
}

impl ServerSeed {
    /// Where it is; of a name, with the name in place of an address.
    pub const fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Whether each address of its host is a Server.
    pub const fn is_name(&self) -> bool {
        self.is_name
    }
}

impl FromStr for ServerSeed {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let Some(name) = text.trim().strip_prefix(NAME) else { return Ok(text.parse::<ServerUrl>()?.into()) };
        // Without a scheme, a port has to be there: another program's default is likely meant.
        let url = name.parse().map_err(|error| match error {
            ServerUrlError::Weight { .. } => ServerUrlError::Weight { text: text.to_owned() },
            _ => ServerUrlError::Authority { text: text.to_owned() },
        })?;
        if name.contains("://") {
            return Err(ServerUrlError::Authority { text: text.to_owned() });
        }
        Ok(Self { url, is_name: true })
    }
}

impl From<ServerUrl> for ServerSeed {
    fn from(url: ServerUrl) -> Self {
        Self { url, is_name: false }
    }
}

impl fmt::Display for ServerSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.url.to_string();
        match text.strip_prefix("http://") {
            Some(rest) if self.is_name => write!(f, "{NAME}{rest}"),
            _ => f.write_str(&text),
        }
    }
}

impl From<ServerSeed> for String {
    fn from(seed: ServerSeed) -> Self {
        seed.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (text, is_name) in [
            ("dns:taba:8300", true),
            ("dns:taba.example:8300/p;weight=3", true),
            ("dns:10.0.0.1:8300", true),
            ("http://taba:8300", false),
            ("http://taba;weight=2", false),
        ] {
            let seed: ServerSeed = text.parse().unwrap();
            assert_eq!((seed.to_string().as_str(), seed.is_name()), (text, is_name));
        }
        assert_eq!("a:1".parse::<ServerSeed>().unwrap().to_string(), "http://a:1");
        assert_eq!(" dns:a:1".parse::<ServerSeed>().unwrap().to_string(), "dns:a:1");
    }

    #[test]
    fn a_name_needs_a_port_and_an_error_shows_what_was_given() {
        for text in
            ["dns:", "dns:taba", "dns:http://taba:8300", "dns://taba:8300", "dns:taba:0", "dns:a:1;weight=0"]
        {
            let error = text.parse::<ServerSeed>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
