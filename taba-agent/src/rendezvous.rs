//! The order of Servers for a VBucket: weighted rendezvous hashing.
//!
//! Every Agent computes the same order from the Servers' names alone, so all Batches of one VBucket go to one Server,
//! which rarely has conflicts. When a Server comes or goes, only its own VBuckets move. Correctness does not depend
//! on it.
//!
//! Source: D. Thaler and C. Ravishankar, *Using Name-Based Mappings to Increase Hit Rates*, 1998; the weights after
//! J. Resch, *New Hashing Algorithms for Data Storage*, 2015: score = -weight / ln(hash in (0, 1)), highest first.

use taba_core::VBucket;
use xxhash_rust::xxh64::xxh64;

use taba_core::ServerUrl;

/// The indices of `servers`, each given with its own, in the order of preference, which depends on their URLs and
/// weights alone.
pub fn order<'a>(servers: impl IntoIterator<Item = (u16, &'a ServerUrl)>, vbucket: VBucket) -> Box<[u16]> {
    let mut scored: Vec<(f64, &str, u16)> =
        servers.into_iter().map(|(place, server)| (score(server, vbucket), server.url(), place)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().map(|(_, _, place)| place).collect()
}

fn score(server: &ServerUrl, vbucket: VBucket) -> f64 {
    let mut key = server.url().as_bytes().to_vec();
    key.extend_from_slice(&vbucket.index().to_le_bytes());
    // The upper 53 bits, moved into the open interval (0, 1), so that the logarithm is finite and negative.
    let unit = ((xxh64(&key, 0) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(server.weight()) / unit.ln()
}

#[cfg(test)]
mod tests {
    use taba_core::VBuckets;

    use super::*;

    fn servers(urls: &[&str]) -> Vec<ServerUrl> {
        urls.iter().map(|url| url.parse().unwrap()).collect()
    }

    fn homes(servers: &[ServerUrl]) -> Vec<String> {
        let vbuckets = VBuckets::default();
        vbuckets
            .iter()
            .map(|vb| servers[usize::from(order((0..).zip(servers), vb)[0])].url().to_owned())
            .collect()
    }

    #[test]
    fn vbuckets_spread_by_weight() {
        let servers = servers(&["http://a:1", "http://b:1", "http://c:1;weight=2"]);
        let homes = homes(&servers);
        for (url, expected) in [("http://a:1", 256), ("http://b:1", 256), ("http://c:1", 512)] {
            let found = homes.iter().filter(|home| *home == url).count() as i64;
            assert!((found - expected).abs() < 60, "{url}: {found}");
        }
    }

    #[test]
    fn only_the_vbuckets_of_a_server_that_goes_move() {
        let before = homes(&servers(&["http://a:1", "http://b:1", "http://c:1"]));
        let after = homes(&servers(&["http://c:1", "http://a:1"]));
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || before == "http://b:1");
        }
    }

    #[test]
    fn every_server_stands_in_the_order_once() {
        let servers = servers(&["http://a:1", "http://b:1", "http://c:1"]);
        for vbucket in VBuckets::default().iter() {
            let mut order = order((0..).zip(&servers), vbucket).to_vec();
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2]);
        }
    }
}
