use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(5);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn discovery(seeds: &[&str], is_on: bool) -> Discovery {
    let seeds = seeds.iter().map(|seed| seed.parse().unwrap()).collect();
    Discovery::new(DiscoveryOptions { seeds, is_on, interval: INTERVAL }, 7)
}

fn url(text: &str) -> ServerUrl {
    text.parse().unwrap()
}

fn listed(names: &[&str]) -> Vec<ListedServer> {
    let one = |name: &&str| ListedServer {
        url: url(&format!("http://{}:1", name.trim_end_matches('-'))),
        is_draining: name.ends_with('-'),
        version: "1".into(),
    };
    names.iter().map(one).collect()
}

fn names(discovery: &Discovery) -> Vec<&str> {
    discovery.servers().iter().map(|server| &server.url()["http://".len()..]).collect()
}

fn addresses(texts: &[&str]) -> Result<Vec<IpAddr>, String> {
    Ok(texts.iter().map(|text| text.parse().unwrap()).collect())
}

/// What the network says: names as in a file of hosts, and which Servers answer.
#[derive(Default)]
struct Network {
    hosts: BTreeMap<&'static str, Vec<&'static str>>,
    list: Vec<&'static str>,
    up: BTreeSet<&'static str>,
}

impl Network {
    fn is_up(&self, url: &str) -> bool {
        self.up.iter().any(|name| url == format!("http://{name}:1"))
    }

    /// Does all that is due, until so much time is over.
    fn run(&self, discovery: &mut Discovery, now: &mut Duration, time: Duration) {
        let end = *now + time;
        loop {
            let jobs = discovery.poll(*now, |url| self.is_up(url));
            if jobs.is_empty() {
                if *now >= end {
                    return;
                }
                *now += Duration::from_millis(250);
            }
            jobs.into_iter().for_each(|job| self.answer(discovery, *now, job));
        }
    }

    fn answer(&self, discovery: &mut Discovery, now: Duration, job: DiscoveryJob) {
        match job {
            DiscoveryJob::Resolve(place, name) => {
                let found = self.hosts.get(name.as_str());
                discovery.resolved(
                    now,
                    place,
                    found.map_or(Err("no such name".into()), |found| addresses(found)),
                );
            }
            DiscoveryJob::Ask(by) => {
                let is_up = self.is_up(by.url());
                discovery.told(now, &by, if is_up { Ok(listed(&self.list)) } else { Err("away".into()) });
            }
            DiscoveryJob::Reach(server) => {
                let is_up = self.is_up(server.url());
                discovery.reached(now, &server, if is_up { Ok(()) } else { Err("away".into()) });
            }
        }
    }
}

#[test]
fn a_list_of_addresses_stays_what_it_is() {
    let mut discovery = discovery(&["http://a:1", "http://b:1;weight=2"], false);
    assert!(!discovery.is_dynamic());
    assert_eq!((names(&discovery), discovery.next_wake()), (vec!["a:1", "b:1"], None));
    assert!(discovery.poll(secs(1_000), |_| false).is_empty());
    assert_eq!(discovery.servers()[1].weight(), 2);
}

#[test]
fn each_address_of_a_name_is_a_server_and_what_cannot_be_resolved_stays() {
    let mut discovery = discovery(&["dns:taba.example:8300/p;weight=3", "http://z:1"], false);
    let mut network = Network::default();
    let mut now = secs(0);
    network.run(&mut discovery, &mut now, secs(1));
    assert_eq!(names(&discovery), ["z:1"], "no such name yet");
    network.hosts.insert("taba.example:8300", vec!["10.0.0.2", "10.0.0.1", "10.0.0.2", "fe80::1"]);
    network.run(&mut discovery, &mut now, INTERVAL / 2);
    assert_eq!(names(&discovery), ["10.0.0.1:8300/p", "10.0.0.2:8300/p", "[fe80::1]:8300/p", "z:1"]);
    assert_eq!(discovery.servers()[0].weight(), 3);
    network.hosts.insert("taba.example:8300", vec!["10.0.0.3", "10.0.0.2"]);
    network.run(&mut discovery, &mut now, INTERVAL * 2);
    assert_eq!(names(&discovery), ["10.0.0.2:8300/p", "10.0.0.3:8300/p", "z:1"]);
    for nothing in [Some(Vec::new()), None] {
        match nothing {
            Some(none) => network.hosts.insert("taba.example:8300", none),
            None => network.hosts.remove("taba.example:8300"),
        };
        network.run(&mut discovery, &mut now, INTERVAL * 4);
        assert_eq!(names(&discovery), ["10.0.0.2:8300/p", "10.0.0.3:8300/p", "z:1"]);
        let status = discovery.status(now);
        assert!(status.names["dns:taba.example:8300/p;weight=3"].error.is_some());
    }
}

#[test]
fn one_seed_is_enough_and_only_servers_that_answer_this_agent_are_used() {
    let mut discovery = discovery(&["http://seed:1"], true);
    let mut network = Network { list: vec!["a", "b", "elsewhere"], ..Network::default() };
    let mut now = secs(0);
    network.run(&mut discovery, &mut now, secs(60));
    assert_eq!(names(&discovery), ["seed:1"], "nobody answers");
    network.up = ["seed", "a", "b"].into();
    network.run(&mut discovery, &mut now, INTERVAL * 2);
    assert_eq!(names(&discovery), ["a:1", "b:1"]);
    assert_eq!(discovery.status(now).found[2].state, "not_reached");
    // The list changes: one comes, one goes.
    (network.list, network.up) = (vec!["b", "c"], ["seed", "b", "c"].into());
    network.run(&mut discovery, &mut now, INTERVAL * 2);
    assert_eq!(names(&discovery), ["b:1", "c:1"]);
    // None on the list is in health: the seed is used beside it, and only then.
    network.up = ["seed"].into();
    network.run(&mut discovery, &mut now, secs(1));
    assert_eq!(names(&discovery), ["b:1", "c:1", "seed:1"]);
    network.up = ["seed", "c"].into();
    network.run(&mut discovery, &mut now, secs(1));
    assert_eq!(names(&discovery), ["b:1", "c:1"]);
}

#[test]
fn the_last_good_list_stays_when_nobody_answers_or_lists_anybody() {
    let mut discovery = discovery(&["http://seed:1"], true);
    let mut network = Network { list: vec!["a", "b"], up: ["seed", "a", "b"].into(), ..Network::default() };
    let mut now = secs(0);
    network.run(&mut discovery, &mut now, INTERVAL);
    network.list.clear();
    network.run(&mut discovery, &mut now, INTERVAL * 10);
    assert_eq!(names(&discovery), ["a:1", "b:1"]);
    assert!(discovery.status(now).error.unwrap().contains("lists no server"));
    // All are others now, and only the seed is left of those that are known.
    (network.list, network.up) = (vec!["c"], ["seed", "c"].into());
    network.run(&mut discovery, &mut now, INTERVAL * 10);
    assert_eq!(names(&discovery), ["c:1"]);
}

#[test]
fn servers_that_are_about_to_stop_are_left_unless_all_are() {
    let mut discovery = discovery(&["http://a:1"], true);
    let mut network = Network { list: vec!["a", "b"], up: ["a", "b"].into(), ..Network::default() };
    let mut now = secs(0);
    network.run(&mut discovery, &mut now, INTERVAL);
    assert_eq!(names(&discovery), ["a:1", "b:1"]);
    network.list = vec!["a", "b-"];
    network.run(&mut discovery, &mut now, INTERVAL * 2);
    assert_eq!((names(&discovery), discovery.status(now).found[1].state), (vec!["a:1"], "draining"));
    network.list = vec!["a-", "b-"];
    network.run(&mut discovery, &mut now, INTERVAL * 2);
    assert_eq!(names(&discovery), ["a:1", "b:1"]);
}

#[test]
fn agents_ask_one_question_at_a_time_and_not_together() {
    let times = |seed| {
        let seeds = vec!["http://a:1".parse().unwrap()];
        let mut discovery = Discovery::new(DiscoveryOptions { seeds, is_on: true, interval: INTERVAL }, seed);
        let mut times = Vec::new();
        for _ in 0..50 {
            let at = discovery.next_wake().unwrap();
            let [DiscoveryJob::Ask(by)] = &discovery.poll(at, |_| true)[..] else { panic!() };
            assert_eq!((discovery.next_wake(), discovery.poll(at + secs(99), |_| true).len()), (None, 0));
            discovery.told(at, by, Ok(listed(&["a"])));
            times.push(at);
        }
        times
    };
    let one = times(1);
    let pauses: Vec<_> = one.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        pauses.iter().all(|pause| *pause >= INTERVAL * 3 / 4 && *pause <= INTERVAL * 5 / 4),
        "{pauses:?}"
    );
    assert!(one[1..].iter().zip(&times(2)[1..]).all(|(one, two)| one != two));
}

proptest! {
    /// Whatever lists say and whoever answers, there is a Server, each once, and each was given or has answered.
    #[test]
    fn there_always_is_a_server(
        steps in prop::collection::vec((prop::collection::btree_set(0..6_usize, 0..6), any::<[bool; 6]>()), 1..30)
    ) {
        const NAMES: [&str; 6] = ["a", "b", "c", "d-", "e-", "f"];
        let mut discovery = discovery(&["http://a:1", "http://b:1"], true);
        let mut network = Network::default();
        let (mut now, mut answered) = (secs(0), BTreeSet::from(["a:1".to_owned(), "b:1".to_owned()]));
        for (list, up) in steps {
            network.list = list.iter().map(|place| NAMES[*place]).collect();
            let up = NAMES.iter().zip(up).filter(|(_, is_up)| *is_up);
            network.up = up.map(|(name, _)| name.trim_end_matches('-')).collect();
            answered.extend(network.up.iter().map(|name| format!("{name}:1")));
            network.run(&mut discovery, &mut now, secs(3));
            let names: Vec<String> = names(&discovery).into_iter().map(str::to_owned).collect();
            prop_assert!(!names.is_empty());
            prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
            prop_assert!(names.iter().all(|name| answered.contains(name)), "{:?}", names);
        }
    }
}
