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
        log: Log::Fine,
        replica_seen: Some(started),
    }
}

fn rules(replicas_min: usize) -> Rules {
    Rules { replicas_min, ..Rules::default() }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_poll_that_started_before_the_wait_proves_nothing() {
    let begun = start() + MS;
    let mut wait = Wait::new(begun, 1, rules(0));
    assert_eq!(wait.handle(&poll(begun - MS)), Verdict::Pending);
    assert_eq!(wait.handle(&poll(begun)), Verdict::Stable);
}

#[test]
fn every_connected_replica_must_have_it_all() {
    let begun = start();
    let mut wait = Wait::new(begun, 1, rules(0));
    let behind = |replicas: &[u64]| Poll { replicas: replicas.to_vec(), offset: 500, ..poll(begun + MS) };
    assert_eq!(wait.handle(&Poll { replicas: vec![100, 99], ..poll(begun) }), Verdict::Pending);
    assert_eq!(wait.handle(&behind(&[400, 99])), Verdict::Pending);
    assert_eq!(wait.handle(&behind(&[400, 100])), Verdict::Stable, "what came later is not waited for");
    let mut wait = Wait::new(begun, 1, rules(2));
    assert_eq!(wait.handle(&poll(begun)), Verdict::Pending, "two were asked for");
    assert_eq!(wait.handle(&behind(&[400, 100])), Verdict::Stable);
}

#[test]
fn another_connection_role_or_history_ends_the_wait() {
    let begun = start();
    let pending = Poll { replicas: vec![0], ..poll(begun) };
    for (end, lost) in [
        (Poll { epoch: 2, ..poll(begun + MS) }, Lost::Reconnected),
        (Poll { is_primary: false, ..poll(begun + MS) }, Lost::Demoted),
        (Poll { history: "other".into(), ..poll(begun + MS) }, Lost::Rewritten),
    ] {
        let mut wait = Wait::new(begun, 1, rules(0));
        assert_eq!(wait.handle(&pending), Verdict::Pending);
        assert_eq!(wait.handle(&end), Verdict::Lost(lost));
    }
    assert_eq!(Wait::new(begun, 7, rules(0)).handle(&poll(begun)), Verdict::Lost(Lost::Reconnected));
    let wait = Wait::new(begun, 1, rules(0));
    assert_eq!(wait.expire(begun + MS, 2 * MS), Verdict::Pending);
    assert_eq!(wait.expire(begun + 2 * MS, 2 * MS), Verdict::Lost(Lost::TimedOut));
}

#[test]
fn without_replicas_it_takes_a_while_and_a_log_that_works() {
    let begun = start();
    let alone = |after: Duration| Poll { replicas: vec![], replica_seen: None, ..poll(begun + after) };
    let mut wait = Wait::new(begun, 1, rules(0));
    assert_eq!(wait.handle(&alone(100 * MS)), Verdict::Pending);
    assert_eq!(wait.handle(&alone(STABLE_WITHOUT_REPLICA)), Verdict::Pending, "counted from the first poll");
    assert_eq!(wait.handle(&alone(STABLE_WITHOUT_REPLICA + 100 * MS)), Verdict::Stable);
    let mut wait = Wait::new(begun, 1, rules(0));
    let failing = Poll { log: Log::Failing, ..alone(100 * MS) };
    assert_eq!(wait.handle(&failing), Verdict::Lost(Lost::LogFails));
    let mut wait = Wait::new(begun, 1, rules(1));
    wait.handle(&alone(MS));
    assert_eq!(wait.handle(&alone(STABLE_WITHOUT_REPLICA * 2)), Verdict::Pending, "a replica was asked for");
}

#[test]
fn a_replica_that_was_seen_is_expected_back() {
    let begun = start();
    let gone = |after: Duration| Poll { replicas: vec![], replica_seen: Some(begun), ..poll(begun + after) };
    let mut wait = Wait::new(begun, 1, rules(0));
    assert_eq!(wait.handle(&gone(MS)), Verdict::Pending);
    assert_eq!(wait.handle(&gone(STABLE_WITHOUT_REPLICA * 2)), Verdict::Pending, "a cut off primary");
    assert_eq!(wait.handle(&gone(REPLICA_EXPECTED)), Verdict::Stable, "it was taken away for good");
}

proptest! {
    /// Against a model: a primary whose history grows, replicas that follow at their own pace, and polls that take time.
    #[test]
    fn stable_is_only_said_of_what_every_replica_has(
        steps in prop::collection::vec((0_u64..50, prop::collection::vec(0_u64..60, 1..3), 0_u64..3), 1..40),
        wait_at in 0_usize..20,
    ) {
        let start = start();
        let (mut offset, mut replicas) = (0_u64, vec![0_u64; 2]);
        let mut wait: Option<(Wait, u64)> = None;
        // Sent at one step, done at the next: what it shows is that of the step at which it was done.
        let mut sent = start;
        for (n, (grows, follow, _)) in steps.into_iter().enumerate() {
            let now = start + MS * (n as u32 + 1);
            offset += grows;
            for (replica, more) in replicas.iter_mut().zip(follow) {
                *replica = (*replica + more).min(offset);
            }
            let poll = Poll { started: sent, offset, replicas: replicas.clone(), ..poll(now) };
            if let Some((wait, needs)) = &mut wait
                && wait.handle(&poll) == Verdict::Stable
            {
                prop_assert!(replicas.iter().all(|replica| replica >= needs));
                break;
            }
            if n == wait_at {
                wait = Some((Wait::new(now, 1, rules(0)), offset));
            }
            sent = now;
        }
    }

    #[test]
    fn no_info_panics(info in "\\PC{0,200}", more in "(role:master|master_replid:a|connected_slaves:[0-9]{1,3}|slave0:offset=[0-9]{0,30}|\n){0,8}") {
        let _ = read_info(&format!("{info}\n{more}"), start(), 1);
    }
}

#[test]
fn the_info_of_a_redis_is_read() {
    let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nslave0:ip=127.0.0.1,port=6380,state=online,\
        offset=14,lag=0\r\nslave1:ip=127.0.0.1,port=6381,state=wait_bgsave,offset=0,lag=0\r\nmaster_replid:abc\r\n\
        master_replid2:0\r\nmaster_repl_offset:28\r\naof_enabled:1\r\naof_last_write_status:ok\r\n";
    let started = start();
    let read = read_info(info, started, 4).unwrap();
    let expected = Poll {
        started,
        epoch: 4,
        is_primary: true,
        history: "abc".into(),
        offset: 28,
        replicas: vec![14, 0],
        log: Log::Fine,
        replica_seen: Some(started),
    };
    assert_eq!(read, expected);
    assert_eq!(read_info("role:master", started, 4), None);
    let failing = read_info(&info.replace("status:ok", "status:err"), started, 4).unwrap();
    assert_eq!(failing.log, Log::Failing);
    assert_eq!(read_info(&info.replace("enabled:1", "enabled:0"), started, 4).unwrap().log, Log::Off);
}
