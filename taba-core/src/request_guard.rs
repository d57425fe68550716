//! [`RequestGuard`]: a web page is not a Client. What a page can make a browser send is refused, on every route.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http_reason::HttpReason;
use crate::wire;

/// The header of requests that change something and have no body, as `taba-request: 1`. No form of a page can send it, and a script
/// only where the listener said yes before, which none does.
pub const REQUEST_HEADER: &str = "taba-request";

/// Content types that a form of any page can send.
const OF_FORMS: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// A name under which a listener may be asked, besides `localhost` and addresses; `*` stands for every name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

/// Why a text is no [`HostName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write the name of a host without a port, as in taba.example.com; or * for every name")]
pub struct HostNameError;

/// Why a request was refused: a page of another site may have sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignRequest {
    /// `Host` is missing, doubled, or a name that this listener does not have.
    #[error(
        "the request is for a host that this listener is not; --host-names says under which names it is asked"
    )]
    Host,
    /// `Origin` or `Sec-Fetch-Site` tell of a page of another site.
    #[error("requests of web pages of other sites are refused; send it from a server or a shell")]
    Page,
    /// There is a body without a content type, or with one that forms can send.
    #[error("a body needs a Content-Type, and none that forms of pages can send")]
    ContentType,
    /// A request that changes something has neither a body nor the header.
    #[error("a request that changes something, and has no body, needs the header {REQUEST_HEADER}: 1")]
    Header,
}

/// Refuses what a page in a browser can send: requests for other names (the page's own name may have been pointed here), from
/// other sites, and such that a form could send. Whoever sets these headers himself is not refused: this is no authentication.
///
/// # Examples
/// ```
/// use taba_core::{ForeignRequest, RequestGuard};
///
/// let guard = RequestGuard::new(vec!["taba.example.com".parse()?]);
/// let get = |host: &'static str| guard.check("GET", false, None, |name| (name == "host").then(|| host.as_bytes()));
/// assert_eq!(get("127.0.0.1:8300"), Ok(()));
/// assert_eq!(get("taba.example.com"), Ok(()));
/// assert_eq!(get("evil.example.com:8300"), Err(ForeignRequest::Host));
/// assert_eq!(guard.refused().next(), Some(("host", 1)));
/// # Ok::<(), taba_core::HostNameError>(())
/// ```
#[derive(Debug, Default)]
pub struct RequestGuard {
    names: Vec<HostName>,
    refused: [AtomicU64; ForeignRequest::ALL.len()],
}

impl ForeignRequest {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Host, Self::Page, Self::ContentType, Self::Header];

    /// The reason of the answer. A wrong `Host` is 421: whoever sent it reached the wrong listener, and may try another.
    pub const fn reason(self) -> HttpReason {
        match self {
            Self::Host => HttpReason::new("host", 421),
            Self::Page => HttpReason::new("browser", 403),
            Self::ContentType => HttpReason::CONTENT_TYPE,
            Self::Header => HttpReason::new("request_header", 403),
        }
    }
}

impl RequestGuard {
    /// For a listener that is also asked under these names.
    pub fn new(names: Vec<HostName>) -> Self {
        Self { names, ..Self::default() }
    }

    /// Checks a request, and counts it if it is refused: its method, whether it has a body, the authority of its URI, if any, and
    /// the values of each header.
    ///
    /// # Errors
    /// [`ForeignRequest`]: nothing of the request may be done.
    pub fn check<'a, V: IntoIterator<Item = &'a [u8]>>(
        &self,
        method: &str,
        has_body: bool,
        authority: Option<&'a str>,
        values: impl Fn(&'static str) -> V,
    ) -> Result<(), ForeignRequest> {
        let checked = self.judge(method, has_body, authority, values);
        if let Err(foreign) = checked {
            self.refused[foreign as usize].fetch_add(1, Ordering::Relaxed);
        }
        checked
    }

    /// How many requests were refused, by the word of the reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ForeignRequest::ALL
            .into_iter()
            .map(|foreign| (foreign.reason().word, self.refused[foreign as usize].load(Ordering::Relaxed)))
    }

    fn judge<'a, V: IntoIterator<Item = &'a [u8]>>(
        &self,
        method: &str,
        has_body: bool,
        authority: Option<&'a str>,
        values: impl Fn(&'static str) -> V,
    ) -> Result<(), ForeignRequest> {
        let mut hosts = values("host").into_iter();
        let host = hosts.next().map(std::str::from_utf8).transpose().map_err(|_| ForeignRequest::Host)?;
        let asked = authority.or(host).ok_or(ForeignRequest::Host)?;
        if hosts.next().is_some() || ![asked, host.unwrap_or(asked)].iter().all(|host| self.is_own(host)) {
            return Err(ForeignRequest::Host);
        }
        // `none`: a person opened it.
        let is_own_site = |site: &[u8]| matches!(site, b"same-origin" | b"none");
        if !values("origin").into_iter().all(|origin| is_same_origin(origin, asked))
            || !values("sec-fetch-site").into_iter().all(is_own_site)
        {
            return Err(ForeignRequest::Page);
        }
        if matches!(method, "GET" | "HEAD" | "OPTIONS") {
            return Ok(());
        }
        if has_body {
            let mut types = values("content-type").into_iter();
            return match (types.next(), types.next()) {
                (Some(found), None) if is_of_programs(found) => Ok(()),
                _ => Err(ForeignRequest::ContentType),
            };
        }
        // A frame that is empty is told so.
        let is_frame = |found: &[u8]| found == wire::CONTENT_TYPE.as_bytes();
        let has_header = values(REQUEST_HEADER).into_iter().next().is_some();
        if has_header || values("content-type").into_iter().any(is_frame) {
            Ok(())
        } else {
            Err(ForeignRequest::Header)
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (host, ""),
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        let is_name = |own: &str| own.eq_ignore_ascii_case(name);
        host.parse::<Ipv4Addr>().is_ok()
            || is_name("localhost")
            || self.names.iter().any(|HostName(own)| own == "*" && is_host_name(name) || is_name(own))
    }
}

/// Whether it is the origin of pages of the host that is asked.
fn is_same_origin(origin: &[u8], asked: &str) -> bool {
    let own = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    own.is_some_and(|own| own.eq_ignore_ascii_case(asked.as_bytes()))
}

/// Whether it is one content type, and none of those that forms can send.
fn is_of_programs(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_token = |part: &[u8]| {
        !part.is_empty() && part.iter().all(|byte| byte.is_ascii_graphic() && !b"/,\"".contains(byte))
    };
    let mut parts = essence.splitn(2, |byte| *byte == b'/');
    parts.next().is_some_and(is_token)
        && parts.next().is_some_and(is_token)
        && !content_type.contains(&b',')
        && !OF_FORMS.iter().any(|of_forms| essence.eq_ignore_ascii_case(of_forms.as_bytes()))
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if text == "*" || is_host_name(name) { Ok(Self(name.to_owned())) } else { Err(HostNameError) }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn ask(
        guard: &RequestGuard,
        method: &str,
        has_body: bool,
        headers: Headers<'_>,
    ) -> Result<(), ForeignRequest> {
        let values = |name: &'static str| -> Vec<&[u8]> {
            headers.iter().filter(|header| header.0 == name).map(|header| header.1.as_bytes()).collect()
        };
        guard.check(method, has_body, None, values)
    }

    #[test]
    fn only_addresses_localhost_and_its_own_names_are_hosts() {
        let guard = RequestGuard::new(vec!["Taba.example.".parse().unwrap()]);
        let get = |host: &str| ask(&guard, "GET", false, &[("host", host)]);
        for own in [
            "localhost",
            "LocalHost.:80",
            "127.0.0.1",
            "10.0.0.7:8300",
            "[::1]",
            "[fe80::1]:9",
            "taba.EXAMPLE:1",
        ] {
            assert_eq!(get(own), Ok(()), "{own}");
        }
        let others = [
            "",
            ":80",
            "evil",
            "localhost.evil.com",
            "evil@localhost",
            "127.0.0.1.evil.com",
            "127.1",
            "[::1",
            "::1",
            "[evil]",
            "localhost:80:80",
            "localhost:evil",
            "taba.example.com",
            "a.taba.example",
            "localhost ",
            "*",
        ];
        for host in others {
            assert_eq!(get(host), Err(ForeignRequest::Host), "{host}");
        }
        assert_eq!(ask(&guard, "GET", false, &[]), Err(ForeignRequest::Host));
        assert_eq!(
            ask(&guard, "GET", false, &[("host", "localhost"), ("host", "evil")]),
            Err(ForeignRequest::Host)
        );
        let authority =
            |uri| guard.check("GET", false, Some(uri), |name| (name == "host").then_some(&b"localhost"[..]));
        assert_eq!((authority("localhost:1"), authority("evil")), (Ok(()), Err(ForeignRequest::Host)));
        let any = RequestGuard::new(vec!["*".parse().unwrap()]);
        assert_eq!(ask(&any, "GET", false, &[("host", "evil:1")]), Ok(()));
        assert_eq!(ask(&any, "GET", false, &[("host", "e@vil")]), Err(ForeignRequest::Host));
        let counted: Vec<_> = any.refused().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("host", 1)]);
        for text in ["", "a:1", "http://a", "a b", "**", "*.a"] {
            assert!(text.parse::<HostName>().is_err(), "{text}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused_whatever_they_ask() {
        let guard = RequestGuard::default();
        for method in ["GET", "HEAD", "OPTIONS", "POST", "DELETE"] {
            let ask = |name, value| {
                let headers = [("host", "localhost:8300"), (REQUEST_HEADER, "1"), (name, value)];
                ask(&guard, method, false, &headers)
            };
            assert_eq!(
                ask("origin", "http://localhost:8300"),
                Ok(()),
                "a page of the program that has the routes"
            );
            for origin in [
                "null",
                "",
                "http://localhost",
                "http://localhost:3000",
                "http://evil",
                "file://localhost:8300",
            ] {
                assert_eq!(ask("origin", origin), Err(ForeignRequest::Page), "{method} {origin}");
            }
            assert_eq!(
                (ask("sec-fetch-site", "none"), ask("sec-fetch-site", "same-origin")),
                (Ok(()), Ok(()))
            );
            for site in ["cross-site", "same-site", "Cross-Site", ""] {
                assert_eq!(ask("sec-fetch-site", site), Err(ForeignRequest::Page), "{method} {site}");
            }
        }
    }

    #[test]
    fn no_form_changes_anything() {
        let guard = RequestGuard::default();
        let ask =
            |has_body, name, value| ask(&guard, "POST", has_body, &[("host", "localhost"), (name, value)]);
        let forms = [
            "",
            "json",
            "text/plain",
            "Text/Plain; charset=x",
            "multipart/form-data;boundary=b",
            "a/",
            "/b",
            "a/b/c",
            "application/x-www-form-urlencoded",
            "text/plain, application/json",
            "application/json, text/plain",
        ];
        for form in forms {
            assert_eq!(ask(true, "content-type", form), Err(ForeignRequest::ContentType), "{form}");
        }
        assert_eq!(ask(true, REQUEST_HEADER, "1"), Err(ForeignRequest::ContentType), "a body needs a type");
        for programs in ["application/x-taba", "application/json; charset=utf-8", "application/x-ndjson"] {
            assert_eq!(ask(true, "content-type", programs), Ok(()), "{programs}");
            let without_body =
                if programs == wire::CONTENT_TYPE { Ok(()) } else { Err(ForeignRequest::Header) };
            assert_eq!(ask(false, "content-type", programs), without_body, "{programs}");
        }
        assert_eq!(ask(false, REQUEST_HEADER, "1"), Ok(()));
    }
}
