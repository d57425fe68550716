//! [`addresses`]: the list of hosts in a URL.

use redis::{ConnectionInfo, IntoConnectionInfo};

/// The addresses in `host[:port][+host[:port]]…`, with ports, sorted, each once; `None` when one of them is none. Sorted, so
/// that two lists of the same processes are one address.
pub(super) fn addresses(hosts: &str, port: u16) -> Option<Vec<(String, ConnectionInfo)>> {
    let address = |host: &str| {
        let has_port = host.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
        let host = if has_port { host.to_owned() } else { format!("{host}:{port}") };
        let info = format!("redis://{host}").into_connection_info().ok()?;
        Some((host, info))
    };
    let mut all: Vec<_> = hosts.split('+').map(address).collect::<Option<_>>()?;
    all.sort_by(|(left, _), (right, _)| left.cmp(right));
    all.dedup_by(|(left, _), (right, _)| left == right);
    Some(all)
}
