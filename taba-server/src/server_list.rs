//! [`ServerList`]: which Servers of a store are alive, by what they say in it. Pure.
//!
//! Each Server says in the store that it is there, again and again, with a number that rises ([`ServerEntry::beat`]). A
//! reader looks for the same long, by its own clock, whether the number changes: so no two clocks are compared, and a store
//! that cannot be read makes nobody look dead.

use std::collections::BTreeMap;
use std::time::Duration;

use taba_core::ServerEntry;

/// A Server is taken for gone when its number was the same for so many of its intervals, and for so many looks.
const MISSED_MAX: u32 = 5;
/// The longest interval that is believed; a Server that says it less often is on the list part of the time.
pub const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The most Servers on the list. Of more, those that were seen to say something new come first.
pub const SERVERS_MAX: usize = 1024;
/// What a Server that is gone has left in the store is removed after this.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Which Servers of a store are alive.
#[derive(Debug, Default)]
pub struct ServerList {
    known: BTreeMap<u64, KnownServer>,
}

#[derive(Debug)]
struct KnownServer {
    entry: ServerEntry,
    /// When its number last changed.
    changed: Duration,
    /// Looks since then.
    looks: u32,
    /// Whether it was seen to say something new.
    has_spoken: bool,
}

impl KnownServer {
    fn is_gone(&self, now: Duration) -> bool {
        let interval = Duration::from_millis(self.entry.interval_ms).min(INTERVAL_MAX);
        let silence = now.saturating_sub(self.changed);
        self.looks >= MISSED_MAX && silence >= interval.saturating_mul(MISSED_MAX)
    }
}

/// A Server that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveServer {
    /// What it says of itself.
    pub entry: ServerEntry,
    /// How long ago it was seen to say something new.
    pub age: Duration,
}

impl ServerList {
    /// The store was read, and holds these entries. Gives the processes that are gone for so long that their entries may be
    /// removed from it.
    pub fn saw(&mut self, now: Duration, entries: Vec<ServerEntry>) -> Vec<u64> {
        let mut before = std::mem::take(&mut self.known);
        for entry in entries {
            let new = match before.remove(&entry.process).or_else(|| self.known.remove(&entry.process)) {
                // Copies on several machines: the newest counts, and what was seen once is not taken back.
                Some(known) if entry.beat <= known.entry.beat => {
                    KnownServer { looks: known.looks.saturating_add(1), ..known }
                }
                known => KnownServer { entry, changed: now, looks: 0, has_spoken: known.is_some() },
            };
            self.known.insert(new.entry.process, new);
        }
        let is_old =
            |known: &&KnownServer| known.is_gone(now) && now.saturating_sub(known.changed) >= FORGET_AFTER;
        self.known.values().filter(is_old).map(|known| known.entry.process).collect()
    }

    /// The Servers that are alive, by their URLs, each once. Of two runs at one URL the one that serves counts, and then
    /// the one that was heard of last. At most [`SERVERS_MAX`], and how many are left out.
    pub fn live(&self, now: Duration) -> (Vec<LiveServer>, usize) {
        let mut by_url: BTreeMap<&str, &KnownServer> = BTreeMap::new();
        for known in self.known.values().filter(|known| !known.is_gone(now)) {
            let rank = |known: &KnownServer| (!known.entry.is_draining, known.changed);
            let best = by_url.entry(known.entry.url.url()).or_insert(known);
            if rank(known) > rank(best) {
                *best = known;
            }
        }
        let live = |known: &KnownServer| LiveServer {
            entry: known.entry.clone(),
            age: now.saturating_sub(known.changed),
        };
        let mut found: Vec<_> = by_url.into_values().collect();
        let left_out = found.len().saturating_sub(SERVERS_MAX);
        // A stable sort: by URL within each.
        found.sort_by_key(|known| left_out > 0 && !known.has_spoken);
        (found.into_iter().take(SERVERS_MAX).map(live).collect(), left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn entry(process: u64, beat: u64) -> ServerEntry {
        let url = format!("http://s{}:1", process % 100).parse().unwrap();
        let mut entry = ServerEntry::new(process, url, "1", 2_000);
        entry.beat = beat;
        entry
    }

    fn draining(process: u64, beat: u64) -> ServerEntry {
        let mut entry = entry(process, beat);
        entry.is_draining = true;
        entry
    }

    fn live(list: &ServerList, now: Duration) -> Vec<u64> {
        list.live(now).0.into_iter().map(|live| live.entry.process).collect()
    }

    #[test]
    fn a_server_is_gone_when_its_number_stands_still_by_the_readers_clock() {
        let mut list = ServerList::default();
        for look in 0..100 {
            let now = secs(2 * look);
            // The second one says nothing any more from its 40th on.
            assert!(list.saw(now, vec![entry(1, look + 1), entry(2, (look + 1).min(40))]).is_empty());
            let expected: &[u64] = if now < secs(2 * 39 + 10) { &[1, 2] } else { &[1] };
            assert_eq!(live(&list, now), expected, "{look}");
        }
        assert_eq!(list.live(secs(199)).0[0].age, secs(1));
        // It says something again: it had only been stopped.
        list.saw(secs(200), vec![entry(1, 101), entry(2, 41)]);
        assert_eq!(live(&list, secs(200)), [1, 2]);
    }

    #[test]
    fn a_store_that_cannot_be_read_makes_nobody_look_dead() {
        let mut list = ServerList::default();
        list.saw(secs(0), vec![entry(1, 1), entry(2, 1)]);
        assert_eq!(live(&list, secs(3_000)), [1, 2]);
        assert!(list.saw(secs(3_001), vec![entry(1, 1), entry(2, 1)]).is_empty());
        assert_eq!(live(&list, secs(3_001)), [1, 2], "only looks count");
    }

    #[test]
    fn who_takes_itself_off_is_gone_at_once_and_who_died_is_forgotten_in_the_end() {
        let mut list = ServerList::default();
        list.saw(secs(0), vec![entry(1, 1), entry(2, 1)]);
        list.saw(secs(2), vec![entry(2, 1)]);
        assert_eq!(live(&list, secs(2)), [2]);
        let forgotten = (2..400).map(|look| list.saw(secs(2 * look), vec![entry(2, 1)]));
        let first = forgotten.enumerate().find(|(_, forgotten)| !forgotten.is_empty()).unwrap();
        assert_eq!(first, (298, vec![2]));
    }

    #[test]
    fn of_copies_the_newest_counts_and_an_older_one_takes_nothing_back() {
        let mut list = ServerList::default();
        list.saw(secs(0), vec![entry(1, 3), draining(1, 5), entry(1, 4)]);
        assert!(list.live(secs(0)).0[0].entry.is_draining);
        // The machine that had the newest is away.
        list.saw(secs(2), vec![entry(1, 4)]);
        assert_eq!((live(&list, secs(2)).len(), list.live(secs(2)).0[0].entry.beat), (1, 5));
    }

    #[test]
    fn an_interval_beyond_all_bounds_keeps_nobody_alive_for_ever() {
        let mut list = ServerList::default();
        let mut forever = entry(1, 1);
        forever.interval_ms = u64::MAX;
        for look in 0..200 {
            list.saw(secs(2 * look), vec![forever.clone()]);
        }
        assert!(live(&list, secs(299)).len() == 1 && live(&list, secs(398)).is_empty());
    }

    #[test]
    fn entries_beyond_the_bound_push_out_nobody_who_is_alive() {
        let mut list = ServerList::default();
        let alive = |look: u64| [900_001, 900_002].map(|process| entry(process, look + 1));
        let flood = |look: u64| {
            (0..2_000).map(move |n| {
                let mut entry = entry(10_000 * look + n, 1);
                entry.url = format!("http://a{n}:1").parse().unwrap();
                entry
            })
        };
        list.saw(secs(0), alive(0).into());
        for look in 1..20 {
            list.saw(secs(2 * look), alive(look).into_iter().chain(flood(look)).collect());
            let found = live(&list, secs(2 * look));
            assert!(found.contains(&900_001) && found.contains(&900_002), "{look}");
            assert_eq!((found.len(), list.live(secs(2 * look)).1 > 0), (SERVERS_MAX, true));
        }
    }

    #[test]
    fn of_two_runs_at_one_address_the_one_that_serves_counts() {
        let mut list = ServerList::default();
        list.saw(secs(0), vec![entry(101, 1)]);
        list.saw(secs(2), vec![entry(101, 1), entry(201, 1)]);
        assert_eq!(live(&list, secs(2)), [201]);
        list.saw(secs(4), vec![entry(101, 2), draining(201, 2)]);
        assert_eq!(live(&list, secs(4)), [101]);
    }
}
