//! [`SlotClaims`]: which node of a Redis Cluster has which slot, from what nodes say (`CLUSTER NODES`). Pure.
//!
//! Nodes may know different things for a while. As between the nodes themselves, the claim with the highest
//! configuration epoch counts: a failover and a moved slot each raise it.

use std::collections::BTreeMap;

/// Slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Slots, and the address (`host:port`) of the primary that claims each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotClaims {
    claims: BTreeMap<u16, SlotClaim>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SlotClaim {
    epoch: u64,
    /// Whether the node itself said so.
    is_own: bool,
    address: String,
}

impl SlotClaims {
    /// The primary that has a slot; `None` when no node has it.
    pub(super) fn owner(&self, slot: u16) -> Option<&str> {
        self.claims.get(&slot).map(|claim| claim.address.as_str())
    }

    /// Adds what one node says. `host`: how that node was reached, for a node that does not know its own address.
    /// `None` when the text is no answer of a node.
    pub(super) fn add(&mut self, text: &str, host: &str) -> Option<()> {
        for line in text.lines().filter(|line| !line.is_empty()) {
            // ID ip:port@bus[,hostname] flags primary ping-sent pong-received epoch link-state slot…
            let words: Vec<&str> = line.split(' ').collect();
            let [_, address, flags, _, _, _, epoch, _, slots @ ..] = words.as_slice() else { return None };
            let flags: Vec<&str> = flags.split(',').collect();
            let epoch: u64 = epoch.parse().ok()?;
            if !flags.contains(&"master") || flags.contains(&"noaddr") || slots.is_empty() {
                continue;
            }
            let address = at_host(address.split(['@', ',']).next()?, host)?;
            let claim = SlotClaim { epoch, is_own: flags.contains(&"myself"), address };
            // In brackets: slots that are moving.
            for range in slots.iter().filter(|range| !range.starts_with('[')) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
                if last >= SLOTS {
                    return None;
                }
                (first..=last).for_each(|slot| self.claim(slot, &claim));
            }
        }
        Some(())
    }

    fn claim(&mut self, slot: u16, claim: &SlotClaim) {
        let rank = |claim: &SlotClaim| (claim.epoch, claim.is_own);
        let known = self.claims.entry(slot).or_insert_with(|| claim.clone());
        if rank(claim) > rank(known) {
            *known = claim.clone();
        }
    }
}

/// `host:port` of an address that may lack its host: `:6379` and `?:6379` are at the node that said so.
pub(super) fn at_host(address: &str, host: &str) -> Option<String> {
    let (found, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = if matches!(found, "" | "?") { host } else { found };
    // An IPv6 address is written in brackets in a URL, and without them by a node.
    let has_brackets = host.starts_with('[') || !host.contains(':');
    Some(if has_brackets { format!("{host}:{port}") } else { format!("[{host}]:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
07c3 127.0.0.1:30004@31004,host4 slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002 master - 0 1426238316232 2 connected 5461-10922
e7d1 :30001@31001 myself,master - 0 0 1 connected 0-5460 [93->-67ed]
292f ::1:30003@31003 master,fail - 1426238318243 0 3 disconnected 10923-16382 16383
0000 :0@0 master,noaddr - 0 0 0 disconnected
";

    #[test]
    fn each_slot_is_where_its_primary_says() {
        let mut claims = SlotClaims::default();
        assert_eq!(claims.add(TEXT, "10.0.0.1"), Some(()));
        let owners = [0, 5460, 5461, 10_923, 16_383].map(|slot| claims.owner(slot).unwrap());
        let first = "10.0.0.1:30001";
        assert_eq!(owners, [first, first, "127.0.0.1:30002", "[::1]:30003", "[::1]:30003"]);
        let mut none = SlotClaims::default();
        assert_eq!(none.add("aa 127.0.0.1:1@2 master - 0 0 1 connected 0-5", "h"), Some(()));
        assert_eq!(none.owner(6), None, "no node has it");
        for bad in ["no node", "aa 127.0.0.1:1@2 master - 0 0 1 connected 0-16384", "a b c d e f g h"] {
            assert_eq!(SlotClaims::default().add(bad, "h"), None, "{bad}");
        }
    }

    #[test]
    fn the_highest_configuration_epoch_counts_whoever_answers_first() {
        let old = "aa 10.0.0.1:1@2 myself,master - 0 0 4 connected 0-9";
        let new =
            "aa 10.0.0.1:1@2 master - 0 0 4 connected 0-8\nbb 10.0.0.2:1@2 myself,master - 0 0 5 connected 9";
        for texts in [[old, new], [new, old]] {
            let mut claims = SlotClaims::default();
            for text in texts {
                claims.add(text, "h").unwrap();
            }
            assert_eq!((claims.owner(8), claims.owner(9)), (Some("10.0.0.1:1"), Some("10.0.0.2:1")));
        }
    }
}
