//! [`ClusterSeeds`]: the nodes of a Redis Cluster that are asked first.

use std::fmt;

use super::hosts::addresses;
use super::url_error::UrlError;

/// The port of a node whose URL has none.
const PORT: u16 = 6379;

/// The addresses of nodes (`host:port`), sorted. Any one that answers suffices: it knows the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterSeeds(Vec<String>);

impl ClusterSeeds {
    /// `hosts`: with `+` between.
    pub(super) fn parse(hosts: &str) -> Result<Self, UrlError> {
        if hosts.contains([',', '/', '?', '@']) {
            return Err(UrlError::Cluster);
        }
        let seeds = addresses(hosts, PORT).ok_or(UrlError::Cluster)?;
        Ok(Self(seeds.into_iter().map(|(address, _)| address).collect()))
    }

    pub(super) fn addresses(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ClusterSeeds {
    /// The URL without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis+cluster://{}", self.0.join("+"))
    }
}
