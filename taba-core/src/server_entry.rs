//! [`ServerEntry`]: what a Server says of itself to all that use its store.

use serde::{Deserialize, Serialize};

use crate::server_url::ServerUrl;

/// What a Server says of itself to all that use its store. It says it again and again, with a higher [`beat`](Self::beat)
/// each time: a reader takes a Server whose beat has not changed for several intervals by the reader's own clock for gone.
/// No clock of another machine is compared.
///
/// # Examples
/// ```
/// use taba_core::ServerEntry;
///
/// let entry = ServerEntry::new(7, "http://10.0.0.1:8300;weight=2".parse()?, "0.1.0", 2_000);
/// assert_eq!(ServerEntry::decode(entry.encode().as_bytes()), Some(entry));
/// # Ok::<(), taba_core::ServerUrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerEntry {
    /// One run of a Server: a number drawn at its start.
    pub process: u64,
    /// Where Agents reach it, and its share.
    pub url: ServerUrl,
    /// Its version.
    pub version: String,
    /// How often it has said this. Of two entries of one process, the higher is the newer.
    pub beat: u64,
    /// How long after this it says it again, in milliseconds.
    pub interval_ms: u64,
    /// Whether it is about to stop: nothing new is to be sent to it.
    pub is_draining: bool,
}

impl ServerEntry {
    /// The first entry of a Server that serves.
    pub fn new(process: u64, url: ServerUrl, version: &str, interval_ms: u64) -> Self {
        Self { process, url, version: version.to_owned(), beat: 1, interval_ms, is_draining: false }
    }

    /// As JSON: what a store that writes it down keeps. Later versions may add fields; they are not to be taken for damage.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` when it is something else.
    pub fn decode(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_later_versions_are_passed_over_and_damage_is_told() {
        let text = r#"{"process":18446744073709551615,"url":"http://a:1;weight=3","version":"9","beat":4,"interval_ms":500,"is_draining":true,"zone":"b"}"#;
        let entry = ServerEntry::decode(text.as_bytes()).unwrap();
        assert_eq!((entry.process, entry.url.weight(), entry.is_draining), (u64::MAX, 3, true));
        let expected = text.replace(r#","zone":"b""#, "");
        assert_eq!(entry.encode(), expected, "the bytes in a store");
        for bad in ["", "{}", "\0", &text.replace("http", "https"), &text.replace(":4,", ":-4,")] {
            assert_eq!(ServerEntry::decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
