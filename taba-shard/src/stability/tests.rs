use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "any moment will do to count from")]
fn start() -> Instant {
    Instant::now()
}

fn poll(started: Instant) -> Poll {
    Poll {
        started,
        epoch: 1,
        is_primary: true,
        history: "h".into(),
        offset: 100,
        replicas: vec![100],
        log: AppendLog::Fine,
        replicas_expected: 1,
        has_weaker_log: false,
        evicts: false,
    }
}

/// Without `disk_lag`, which has tests of its own.
fn rules(replicas: usize) -> StabilityRules {
    StabilityRules { replicas, disk_lag: Duration::ZERO, ..StabilityRules::default() }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_poll_that_started_before_the_wait_proves_nothing() {
    let begun = start() + MS;
    let mut wait = StabilityWait::new(begun, 1, rules(0));
    assert_eq!(wait.handle(&poll(begun - MS)), StabilityVerdict::Pending);
    assert_eq!(wait.handle(&poll(begun)), StabilityVerdict::Stable);
}

#[test]
fn every_connected_replica_must_have_it_all() {
    let begun = start();
    let mut wait = StabilityWait::new(begun, 1, rules(0));
    let behind = |replicas: &[u64]| Poll { replicas: replicas.to_vec(), offset: 500, ..poll(begun + MS) };
    assert_eq!(wait.handle(&Poll { replicas: vec![100, 99], ..poll(begun) }), StabilityVerdict::Pending);
    assert_eq!(wait.handle(&behind(&[400, 99])), StabilityVerdict::Pending);
    assert_eq!(
        wait.handle(&behind(&[400, 100])),
        StabilityVerdict::Stable,
        "what came later is not waited for"
    );
    let mut wait = StabilityWait::new(begun, 1, rules(2));
    assert_eq!(wait.handle(&poll(begun)), StabilityVerdict::Pending, "two were asked for");
    assert_eq!(wait.handle(&behind(&[400, 100])), StabilityVerdict::Stable);
}

#[test]
fn settings_that_became_unsafe_withhold_what_is_stable() {
    let begun = start();
    let alone = Poll { replicas: vec![], replicas_expected: 0, ..poll(begun) };
    let lost = |poll: &Poll| StabilityWait::new(begun, 1, rules(0)).handle(poll);
    assert_eq!(lost(&alone), StabilityVerdict::Stable);
    assert_eq!(lost(&Poll { evicts: true, ..poll(begun) }), StabilityVerdict::Lost(StabilityLost::Evicts));
    assert_eq!(
        lost(&Poll { has_weaker_log: true, ..alone }),
        StabilityVerdict::Lost(StabilityLost::LogWeaker)
    );
    // With replicas, their disks count.
    assert_eq!(lost(&Poll { has_weaker_log: true, ..poll(begun) }), StabilityVerdict::Stable);
    let mut seen = ReplicaHistory::default();
    let logs = [
        AppendLog::Off,
        AppendLog::Lazy,
        AppendLog::Fine,
        AppendLog::Failing,
        AppendLog::Lazy,
        AppendLog::Off,
        AppendLog::Fine,
    ];
    assert_eq!(logs.map(|log| seen.saw_log(log)), [false, false, false, false, true, true, false]);
}

#[test]
fn another_connection_role_or_history_ends_the_wait() {
    let begun = start();
    let pending = Poll { replicas: vec![0], ..poll(begun) };
    for (end, lost) in [
        (Poll { epoch: 2, ..poll(begun + MS) }, StabilityLost::Reconnected),
        (Poll { is_primary: false, ..poll(begun + MS) }, StabilityLost::Demoted),
        (Poll { history: "other".into(), ..poll(begun + MS) }, StabilityLost::Rewritten),
    ] {
        let mut wait = StabilityWait::new(begun, 1, rules(0));
        assert_eq!(wait.handle(&pending), StabilityVerdict::Pending);
        assert_eq!(wait.handle(&end), StabilityVerdict::Lost(lost));
    }
    assert_eq!(
        StabilityWait::new(begun, 7, rules(0)).handle(&poll(begun)),
        StabilityVerdict::Lost(StabilityLost::Reconnected)
    );
    let wait = StabilityWait::new(begun, 1, rules(0));
    assert_eq!(wait.expire(begun + MS, 2 * MS), StabilityVerdict::Pending);
    assert_eq!(wait.expire(begun + 2 * MS, 2 * MS), StabilityVerdict::Lost(StabilityLost::TimedOut));
}

#[test]
fn everybody_must_have_had_it_for_longer_than_a_disk_is_behind() {
    let begun = start();
    let rules = StabilityRules { disk_lag: 300 * MS, ..StabilityRules::default() };
    let mut wait = StabilityWait::new(begun, 1, rules);
    let at = |after: u32| poll(begun + MS * after);
    assert_eq!(wait.handle(&Poll { replicas: vec![50], ..at(0) }), StabilityVerdict::Pending);
    assert_eq!(wait.handle(&at(100)), StabilityVerdict::Pending);
    assert_eq!(wait.handle(&at(399)), StabilityVerdict::Pending);
    assert_eq!(wait.handle(&at(400)), StabilityVerdict::Stable);
    // A replica that is away, or returns from its disk with less, restarts the wait.
    for gap in [Poll { replicas: vec![50], ..at(200) }, Poll { replicas: vec![], ..at(200) }] {
        let mut wait = StabilityWait::new(begun, 1, rules);
        assert_eq!(wait.handle(&at(0)), StabilityVerdict::Pending);
        assert_eq!(wait.handle(&gap), StabilityVerdict::Pending);
        assert_eq!(wait.handle(&at(350)), StabilityVerdict::Pending);
        assert_eq!(wait.handle(&at(650)), StabilityVerdict::Stable);
    }
}

#[test]
fn without_replicas_it_takes_a_while_and_a_log_that_works() {
    let begun = start();
    let alone = |after: Duration| Poll { replicas: vec![], replicas_expected: 0, ..poll(begun + after) };
    let mut wait = StabilityWait::new(begun, 1, StabilityRules::default());
    assert_eq!(wait.handle(&alone(100 * MS)), StabilityVerdict::Pending);
    assert_eq!(wait.handle(&alone(DISK_LAG)), StabilityVerdict::Pending, "counted from the first poll");
    assert_eq!(wait.handle(&alone(DISK_LAG + 100 * MS)), StabilityVerdict::Stable);
    let mut wait = StabilityWait::new(begun, 1, StabilityRules::default());
    let failing = Poll { log: AppendLog::Failing, ..alone(100 * MS) };
    assert_eq!(wait.handle(&failing), StabilityVerdict::Lost(StabilityLost::LogFails));
    let mut wait = StabilityWait::new(begun, 1, StabilityRules { replicas: 1, ..StabilityRules::default() });
    wait.handle(&alone(MS));
    assert_eq!(wait.handle(&alone(DISK_LAG * 2)), StabilityVerdict::Pending, "a replica was deployed");
}

#[test]
fn as_many_replicas_as_were_seen_lately_are_expected() {
    let (begun, lately) = (start(), Duration::from_secs(10));
    let at = |seconds: u64| begun + Duration::from_secs(seconds);
    let mut seen = ReplicaHistory::default();
    assert_eq!(seen.saw(0, at(0), lately), 0, "there never was one");
    assert_eq!(seen.saw(2, at(1), lately), 2);
    assert_eq!(seen.saw(1, at(2), lately), 2);
    assert_eq!(
        seen.saw(0, at(3), lately),
        2,
        "a primary that is cut off must not take itself for a lone one"
    );
    assert_eq!(seen.saw(1, at(9), lately), 2);
    assert_eq!(seen.saw(0, at(11), lately), 1, "one of two was taken away for good");
    assert_eq!(seen.saw(0, at(19), lately), 0);
    let mut wait = StabilityWait::new(begun, 1, rules(0));
    let short = Poll { replicas: vec![100], replicas_expected: 2, ..poll(begun) };
    assert_eq!(wait.handle(&short), StabilityVerdict::Pending, "the one that is missing may take over");
    assert_eq!(wait.handle(&poll(begun + MS)), StabilityVerdict::Stable);
}

proptest! {
    /// Against a model: a primary with a growing history, replicas that follow at their own pace, polls that take
    /// time.
    #[test]
    fn stable_is_only_said_of_what_every_replica_has(
        steps in prop::collection::vec((0_u64..50, prop::collection::vec(0_u64..60, 1..3), 0_u64..3), 1..40),
        wait_at in 0_usize..20,
    ) {
        let start = start();
        let (mut offset, mut replicas) = (0_u64, vec![0_u64; 2]);
        let mut wait: Option<(StabilityWait, u64)> = None;
        // Sent at one step, answered at the next: it shows the state of the step that answered it.
        let mut sent = start;
        for (n, (grows, follow, _)) in steps.into_iter().enumerate() {
            let now = start + MS * (n as u32 + 1);
            offset += grows;
            for (replica, more) in replicas.iter_mut().zip(follow) {
                *replica = (*replica + more).min(offset);
            }
            let poll = Poll { started: sent, offset, replicas: replicas.clone(), ..poll(now) };
            if let Some((wait, needs)) = &mut wait
                && wait.handle(&poll) == StabilityVerdict::Stable
            {
                prop_assert!(replicas.iter().all(|replica| replica >= needs));
                break;
            }
            if n == wait_at {
                wait = Some((StabilityWait::new(now, 1, rules(0)), offset));
            }
            sent = now;
        }
    }

    #[test]
    fn no_info_panics(info in "\\PC{0,200}", more in "(role:master|master_replid:a|connected_slaves:[0-9]{1,3}|slave0:offset=[0-9]{0,30}|\n){0,8}") {
        let _ = read_info(&format!("{info}\n{more}"), None, start(), 1);
    }
}

#[test]
fn the_info_of_a_redis_is_read() {
    let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nslave0:ip=127.0.0.1,port=6380,state=online,\
        offset=14,lag=0\r\nslave1:ip=127.0.0.1,port=6381,state=wait_bgsave,offset=0,lag=0\r\nmaster_replid:abc\r\n\
        master_replid2:0\r\nmaster_repl_offset:28\r\naof_enabled:1\r\naof_last_write_status:ok\r\n";
    let started = start();
    let read = read_info(info, None, started, 4).unwrap();
    let expected = Poll {
        started,
        epoch: 4,
        is_primary: true,
        history: "abc".into(),
        offset: 28,
        replicas: vec![14, 0],
        log: AppendLog::Fine,
        replicas_expected: 2,
        has_weaker_log: false,
        evicts: false,
    };
    assert_eq!(read, expected);
    let with_others = info.replace("aof_enabled", "slave_repl_offset:9\r\nslaves:3\r\naof_enabled");
    assert_eq!(
        read_info(&with_others, None, started, 4).unwrap().replicas,
        [14, 0],
        "other fields are no replicas"
    );
    assert_eq!(read_info("role:master", None, started, 4), None);
    let failing = read_info(&info.replace("status:ok", "status:err"), None, started, 4).unwrap();
    assert_eq!(failing.log, AppendLog::Failing);
    assert_eq!(
        read_info(&info.replace("enabled:1", "enabled:0"), None, started, 4).unwrap().log,
        AppendLog::Off
    );
    assert_eq!(read_info(info, Some("no"), started, 4).unwrap().log, AppendLog::Lazy);
    assert_eq!(read_info(info, Some("everysec"), started, 4).unwrap().log, AppendLog::Fine);
    let evicts = format!("{info}\nmaxmemory_policy:allkeys-lru\r\n");
    assert!(!read.evicts && read_info(&evicts, None, started, 4).unwrap().evicts);
}
