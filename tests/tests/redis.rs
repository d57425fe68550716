//! The launcher of Redis processes does what it says.

use taba_tests::redis::{Aof, Options, Redis, Reply};
use taba_tests::wait_until;

#[test]
fn what_a_durable_redis_was_told_is_there_after_a_kill() {
    let mut redis = Redis::start(Options { aof: Aof::Always, ..Options::default() });
    assert_eq!(redis.command(&["SET", "a", "1"]), "OK");
    redis.kill();
    assert!(redis.try_command(&[b"PING"]).is_err());
    redis.restart();
    assert_eq!(redis.command(&["GET", "a"]), "1");
    redis.restart_empty();
    assert_eq!(redis.command(&["GET", "a"]), "(nil)");
    let mut forgetful = Redis::start(Options::default());
    assert_eq!(forgetful.command(&["SET", "a", "1"]), "OK");
    forgetful.restart();
    assert_eq!(forgetful.command(&["EXISTS", "a"]), "0");
}

#[test]
fn a_replica_follows_until_it_is_promoted() {
    let mut primary = Redis::start(Options::default());
    let replica = Redis::start(Options { replica_of: Some(primary.port()), ..Options::default() });
    replica.wait_for_link();
    primary.command(&["HSET", "h", "f", "1", "g", "2"]);
    wait_until("the replica has it", || replica.command(&["HGET", "h", "g"]) == "2");
    assert_eq!(primary.info("replication", "role"), "master");
    assert_eq!(replica.info("replication", "role"), "slave");
    primary.kill();
    replica.promote();
    assert_eq!(replica.info("replication", "role"), "master");
    assert_eq!(replica.command(&["HGETALL", "h"]), "f\n1\ng\n2");
}

#[test]
fn a_paused_one_answers_when_it_goes_on_and_a_full_one_says_so() {
    let redis = Redis::start(Options { memory_max: Some(3_000_000), ..Options::default() });
    redis.pause();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| redis.command(&["SET", "a", "1"]));
        assert!(!waiting.is_finished());
        redis.resume();
        assert_eq!(waiting.join().unwrap(), "OK");
    });
    assert_eq!(redis.calls("set"), 1);
    let large = vec![b'x'; 1_000_000];
    let mut replies = (0..10).map(|n| redis.try_command(&[b"SET", &[n], &large]).unwrap());
    assert!(replies.any(|reply| matches!(reply, Reply::Error(text) if text.starts_with("OOM"))));
}
