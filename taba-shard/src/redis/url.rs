//! [`ShardUrl`]: the address and credentials of a Redis.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::seeds::ClusterSeeds;
use super::sentinel::{Primary, SentinelError, Sentinels};
use super::url_error::UrlError;

/// What the URL of a shard begins with whose primary Sentinels name.
const SENTINEL: &str = "redis+sentinel://";
/// What the URL of a Redis Cluster begins with.
const CLUSTER: &str = "redis+cluster://";

/// Where a Redis is: `redis://[[user]:password@]host[:port][/database]`, `unix:///path`; where Redis Sentinels name it,
/// `redis+sentinel://[[user]:password@]host[:port][+host[:port]]…/MASTER[/database]`; or where a Redis Cluster is,
/// `redis+cluster://[[user]:password@]host[:port][+host[:port]]…`.
///
/// The form for Sentinels lists the Sentinels (port 26379 where none is given) and ends with the name under which they monitor the
/// primary. User, password and database are those of the Redis; those of the Sentinels, if they have any, come last:
/// `?sentinel_user=USER&sentinel_password=PASSWORD`.
///
/// The form for a Cluster lists some of its nodes (port 6379 where none is given); one that answers suffices, and the
/// others are found from there. It stands for all shards, so it is the only URL of a deployment.
///
/// `Debug` and `Display` show hosts, ports and the name, never user or password.
///
/// # Examples
/// ```
/// use taba_shard::ShardUrl;
///
/// let url = ShardUrl::new("redis+sentinel://:secret@10.0.0.1+10.0.0.2+10.0.0.3:26380/shard0")?;
/// assert_eq!(url.to_string(), "redis+sentinel://10.0.0.1:26379+10.0.0.2:26379+10.0.0.3:26380/shard0");
/// # Ok::<(), taba_shard::UrlError>(())
/// ```
#[derive(Clone)]
pub struct ShardUrl {
    /// User, password and database; and the address, where no Sentinels name it.
    info: ConnectionInfo,
    target: UrlTarget,
}

/// What a URL names.
#[derive(Clone)]
enum UrlTarget {
    /// The Redis at its address.
    Address,
    /// The primary that Sentinels name.
    Sentinels(Sentinels),
    /// A whole Redis Cluster.
    Cluster(ClusterSeeds),
}

/// The primary that a URL means now.
pub(super) struct ResolvedUrl {
    pub(super) info: ConnectionInfo,
    /// The number of the failover that made it the primary; 0 at a fixed address.
    pub(super) failover: u64,
}

impl ShardUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn new(url: &str) -> Result<Self, UrlError> {
        if url.starts_with("rediss") || url.starts_with("valkeys:") {
            return Err(UrlError::Tls);
        }
        if let Some(rest) = url.strip_prefix(SENTINEL) {
            return Self::named(rest);
        }
        if let Some(rest) = url.strip_prefix(CLUSTER) {
            return Self::cluster(rest);
        }
        let info = url.into_connection_info().map_err(|_| UrlError::Form)?;
        // RESP2 has one form for each answer.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        Ok(Self { info: info.set_redis_settings(settings), target: UrlTarget::Address })
    }

    /// Parses what follows [`CLUSTER`].
    fn cluster(rest: &str) -> Result<Self, UrlError> {
        let (login, hosts) = match rest.rsplit_once('@') {
            Some((login, hosts)) => (format!("{login}@"), hosts),
            None => (String::new(), rest),
        };
        let like = Self::new(&format!("redis://{login}localhost"));
        let info = like.map_err(|_| UrlError::Cluster)?.info;
        // A Cluster has one database.
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        Ok(Self { info, target: UrlTarget::Cluster(ClusterSeeds::parse(hosts)?) })
    }

    /// The nodes of the Cluster that it means, if it means one.
    pub(super) const fn seeds(&self) -> Option<&ClusterSeeds> {
        if let UrlTarget::Cluster(seeds) = &self.target { Some(seeds) } else { None }
    }

    pub(super) const fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Parses what follows [`SENTINEL`].
    fn named(rest: &str) -> Result<Self, UrlError> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (format!("{login}@"), rest),
            None => (String::new(), rest),
        };
        let (hosts, path) = rest.split_once('/').ok_or(UrlError::Sentinel)?;
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        let like = Self::new(&format!("redis://{login}localhost/{database}"));
        let info = like.map_err(|_| UrlError::Sentinel)?.info;
        Ok(Self { info, target: UrlTarget::Sentinels(Sentinels::parse(hosts, master, query)?) })
    }

    /// The same user, password and database at another address: `host:port`, a path for a Unix socket, or the URL of one
    /// that Sentinels name. They are signed in to as those of this URL, if it has any.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn at(&self, address: &str) -> Result<Self, UrlError> {
        let url = if address.starts_with(SENTINEL) {
            address.to_owned()
        } else if address.starts_with('/') {
            format!("unix://{address}")
        } else {
            format!("redis://{address}")
        };
        let Self { info, target } = Self::new(&url)?;
        let target = match (target, &self.target) {
            (UrlTarget::Sentinels(named), UrlTarget::Sentinels(like)) => {
                UrlTarget::Sentinels(named.signed_in_as(like))
            }
            (target, _) => target,
        };
        Ok(Self { info: self.info.clone().set_addr(info.addr().clone()), target })
    }

    /// What an operator calls it: the URL without secrets.
    pub(super) fn label(&self) -> String {
        match self.target {
            UrlTarget::Address => format!("redis://{self}"),
            UrlTarget::Sentinels(_) | UrlTarget::Cluster(_) => self.to_string(),
        }
    }

    /// Asks the Sentinels, if there are any.
    pub(super) async fn resolve(&self) -> Result<ResolvedUrl, SentinelError> {
        let info = self.info.clone();
        match &self.target {
            UrlTarget::Address => Ok(ResolvedUrl { info, failover: 0 }),
            UrlTarget::Sentinels(sentinels) => {
                let Primary { address, failover } = sentinels.primary().await?;
                Ok(ResolvedUrl { info: info.set_addr(address), failover })
            }
            UrlTarget::Cluster(seeds) => Err(SentinelError::Cluster { url: seeds.to_string() }),
        }
    }
}

impl fmt::Display for ShardUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            UrlTarget::Address => write!(f, "{}", self.info.addr()),
            UrlTarget::Sentinels(sentinels) => write!(f, "{sentinels}"),
            UrlTarget::Cluster(seeds) => write!(f, "{seeds}"),
        }
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
        assert_eq!((moved.to_string(), moved.info.redis_settings().db()), ("10.1.2.4:7001".to_owned(), 2));
        assert!(url.at("").is_err() && url.at("a b").is_err());
        for bad in ["hunter2", "http://:hunter2@h", "redis://:hunter2@", "", "rediss://:hunter2@h"] {
            let error = ShardUrl::new(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_sentinels_name_is_read_and_shown_without_secrets() {
        let url =
            "redis+sentinel://me:hunter2@b:1+[::1]+a/shard-0/3?sentinel_user=me&sentinel_password=hunter2";
        let url = ShardUrl::new(url).unwrap();
        let shown = "redis+sentinel://[::1]:26379+a:26379+b:1/shard-0";
        assert_eq!(format!("{url} {url:?} {}", url.label()), format!("{shown} ShardUrl({shown}) {shown}"));
        assert_eq!((url.info.redis_settings().username(), url.info.redis_settings().db()), (Some("me"), 3));
        let like = ShardUrl::new("redis://me:hunter2@h/2").unwrap();
        let named = like.at(shown).unwrap();
        assert_eq!(
            (named.to_string().as_str(), named.info.redis_settings().password()),
            (shown, Some("hunter2"))
        );
        assert_eq!(url.at("h:6380").unwrap().label(), "redis://h:6380");
        for bad in
            ["", "a", "a/", "/m", "a+/m", "a,b/m", "a/m m", "a/m/x", "a/m?hunter2=1", ":hunter2@/m", "a:x/m"]
        {
            let error = ShardUrl::new(&format!("redis+sentinel://{bad}")).unwrap_err();
            assert_eq!(error, UrlError::Sentinel, "{bad}");
        }
        assert_eq!(ShardUrl::new("rediss+sentinel://a/m").unwrap_err(), UrlError::Tls);
    }

    #[test]
    fn a_cluster_is_read_and_shown_without_secrets() {
        let url = ShardUrl::new("redis+cluster://me:hunter2@b:7001+[::1]+a/").unwrap();
        let shown = "redis+cluster://[::1]:6379+a:6379+b:7001";
        assert_eq!(format!("{url} {url:?} {}", url.label()), format!("{shown} ShardUrl({shown}) {shown}"));
        let node = url.at("c:7002").unwrap();
        assert_eq!((node.label().as_str(), node.seeds()), ("redis://c:7002", None));
        assert_eq!(node.info.redis_settings().password(), Some("hunter2"));
        for bad in ["", "a+", "a,b", "a/1", "a/m", "a:x", ":hunter2@", "a?x=1"] {
            let error = ShardUrl::new(&format!("redis+cluster://{bad}")).unwrap_err();
            assert_eq!(error, UrlError::Cluster, "{bad}");
        }
    }
}
