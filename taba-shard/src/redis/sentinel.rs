//! [`Sentinels`]: the Redis Sentinels that know the address of a primary.

use std::fmt;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError};

use super::hosts::addresses;
use super::reply::ask_once;
use super::url_error::UrlError;
use crate::command::Reply;
use crate::limits::SENTINEL_TIMEOUT;

/// The port of a Sentinel whose URL has none.
const PORT: u16 = 26379;

/// Why Sentinels name no primary.
#[derive(Debug, thiserror::Error)]
pub(super) enum SentinelError {
    /// Those that answer do not monitor it.
    #[error(
        "the sentinels {sentinels} monitor no master named {master:?}: correct the name, or add \
         `sentinel monitor {master} …` to their settings"
    )]
    Unknown { master: String, sentinels: String },
    /// The address is that of a whole Redis Cluster.
    #[error("{url} is a redis cluster: all shards of a deployment, and not one of them")]
    Cluster { url: String },
    /// None answers.
    #[error("no sentinel names the primary of {master:?}: {causes}")]
    Silent { master: String, causes: String },
}

/// A primary, as Sentinels name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) address: ConnectionAddr,
    /// The number of the failover that made it the primary (`config-epoch`); the highest is the latest.
    pub(super) failover: u64,
}

/// The Sentinels of one URL, and the name of the master that they are asked for.
#[derive(Clone)]
pub(super) struct Sentinels {
    /// The addresses as written, with ports; sorted.
    servers: Vec<(String, ConnectionInfo)>,
    /// User and password of the Sentinels.
    settings: RedisConnectionInfo,
    master: String,
}

impl Sentinels {
    /// `hosts`: with `+` between. `query`: `sentinel_user=…&sentinel_password=…`, or nothing.
    pub(super) fn parse(hosts: &str, master: &str, query: &str) -> Result<Self, UrlError> {
        let is_named = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
        // A list with commas would be taken for one strange host.
        if hosts.contains(',') || master.is_empty() || !master.chars().all(is_named) {
            return Err(UrlError::Sentinel);
        }
        let connection = |url: String| url.into_connection_info().map_err(|_| UrlError::Sentinel);
        let servers = addresses(hosts, PORT).ok_or(UrlError::Sentinel)?;
        let (mut user, mut password) = ("", "");
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sentinel_user", value)) => user = value,
                Some(("sentinel_password", value)) => password = value,
                _ => return Err(UrlError::Sentinel),
            }
        }
        let login = if password.is_empty() { String::new() } else { format!("{user}:{password}@") };
        let settings = connection(format!("redis://{login}localhost"))?.redis_settings().clone();
        // A Sentinel may not know the command.
        Ok(Self { servers, settings: settings.set_skip_set_lib_name(), master: master.to_owned() })
    }

    /// With the user and password of these Sentinels.
    pub(super) fn signed_in_as(self, like: &Self) -> Self {
        Self { settings: like.settings.clone(), ..self }
    }

    /// Asks all of them at once. The primary is the one of the latest failover that any of those knows that have answered
    /// when more than half of them name one, or all have answered or taken too long: one that was cut off may not know
    /// of it yet.
    ///
    /// # Errors
    /// [`SentinelError`] when none names one.
    pub(super) async fn primary(&self) -> Result<Primary, SentinelError> {
        let ask = |(name, info): &(String, ConnectionInfo)| {
            let (name, info) = (name.clone(), info.clone().set_redis_settings(self.settings.clone()));
            async move { (name, tokio::time::timeout(SENTINEL_TIMEOUT, self.ask(info)).await) }
        };
        let mut asked: FuturesUnordered<_> = self.servers.iter().map(ask).collect();
        let mut answers = Answers::default();
        while let Some((name, answer)) = asked.next().await {
            match answer {
                Ok(Ok(Some(primary))) => answers.named(primary),
                Ok(Ok(None)) => answers.ignorant.push(name),
                Ok(Err(error)) => answers.silent.push(format!("{name}: {}", taba_core::causes(&error))),
                Err(_) => answers.silent.push(format!("{name}: no answer within {SENTINEL_TIMEOUT:?}")),
            }
            if answers.named * 2 > self.servers.len() {
                break;
            }
        }
        answers.outcome(&self.master)
    }

    /// The primary that one of them names; `None` when it does not monitor this master.
    async fn ask(&self, info: ConnectionInfo) -> Result<Option<Primary>, RedisError> {
        let mut questions = Pipeline::with_capacity(2);
        questions.cmd("SENTINEL").arg("get-master-addr-by-name").arg(&self.master);
        questions.cmd("SENTINEL").arg("MASTER").arg(&self.master);
        let mut replies = ask_once(info, &questions).await?.into_iter();
        let (address, details) = (replies.next(), replies.next());
        match address {
            Some(Reply::Nothing) => Ok(None),
            Some(Reply::List(place)) => Ok(Some(read(&place, details).ok_or_else(unreadable)?)),
            Some(Reply::Refused { code, detail }) => {
                Err(RedisError::from((redis::ErrorKind::Client, "refused", format!("{code} {detail}"))))
            }
            _ => Err(unreadable()),
        }
    }
}

fn unreadable() -> RedisError {
    RedisError::from((redis::ErrorKind::UnexpectedReturnType, "this is no answer of a sentinel"))
}

/// `place`: host and port. `details`: names and values in turn; may be refused.
fn read(place: &[Reply], details: Option<Reply>) -> Option<Primary> {
    let text = |reply: &Reply| match reply {
        Reply::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
        _ => None,
    };
    let [host, port] = place else { return None };
    let address = ConnectionAddr::Tcp(text(host)?, text(port)?.parse().ok()?);
    let details = match details {
        Some(Reply::List(details)) => details,
        _ => Vec::new(),
    };
    let mut pairs = details.chunks_exact(2);
    let failover = pairs.find(|pair| text(&pair[0]).as_deref() == Some("config-epoch"));
    let failover = failover.and_then(|pair| text(&pair[1])?.parse().ok()).unwrap_or(0);
    Some(Primary { address, failover })
}

/// What the Sentinels of one URL have answered.
#[derive(Default)]
struct Answers {
    /// How many name a primary.
    named: usize,
    latest: Option<Primary>,
    ignorant: Vec<String>,
    silent: Vec<String>,
}

impl Answers {
    fn named(&mut self, primary: Primary) {
        self.named += 1;
        if self.latest.as_ref().is_none_or(|latest| primary.failover > latest.failover) {
            self.latest = Some(primary);
        }
    }

    fn outcome(self, master: &str) -> Result<Primary, SentinelError> {
        let Self { latest, ignorant, silent, .. } = self;
        let master = master.to_owned();
        latest.ok_or_else(|| match (ignorant.is_empty(), silent.join("; ")) {
            (false, _) => SentinelError::Unknown { master, sentinels: ignorant.join(", ") },
            (true, causes) => SentinelError::Silent { master, causes },
        })
    }
}

impl fmt::Display for Sentinels {
    /// The URL without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<&str> = self.servers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "redis+sentinel://{}/{}", servers.join("+"), self.master)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(port: u16, failover: u64) -> Primary {
        Primary { address: ConnectionAddr::Tcp("10.0.0.1".to_owned(), port), failover }
    }

    #[test]
    fn a_sentinel_that_has_missed_a_failover_does_not_count() {
        let orders = [[primary(1, 4), primary(2, 5)], [primary(2, 5), primary(1, 4)]];
        for order in orders {
            let mut answers = Answers::default();
            order.into_iter().for_each(|primary| answers.named(primary));
            assert_eq!(answers.outcome("m").unwrap(), primary(2, 5));
        }
    }

    #[test]
    fn who_names_no_primary_is_named_in_the_error() {
        let answers = |ignorant: &[&str], silent: &[&str]| Answers {
            ignorant: ignorant.iter().map(|&name| name.to_owned()).collect(),
            silent: silent.iter().map(|&cause| cause.to_owned()).collect(),
            ..Answers::default()
        };
        let unknown = answers(&["a:1", "b:2"], &["c:3: gone"]).outcome("m").unwrap_err().to_string();
        assert!(unknown.contains("a:1, b:2 monitor no master named \"m\""), "{unknown}");
        let silent = answers(&[], &["c:3: gone", "d:4: gone"]).outcome("m").unwrap_err().to_string();
        assert!(silent.contains("\"m\": c:3: gone; d:4: gone"), "{silent}");
    }

    #[test]
    fn an_answer_of_another_form_is_none() {
        let bytes = |text: &str| Reply::Bytes(text.to_owned().into());
        let details = || Some(Reply::List(["name", "m", "config-epoch", "7"].map(bytes).to_vec()));
        assert_eq!(read(&[bytes("10.0.0.1"), bytes("6380")], details()), Some(primary(6380, 7)));
        assert_eq!(read(&[bytes("10.0.0.1"), bytes("6380")], None), Some(primary(6380, 0)));
        assert_eq!(read(&[bytes("10.0.0.1")], details()), None);
        assert_eq!(read(&[bytes("10.0.0.1"), bytes("")], details()), None);
    }
}
