//! The real binary on real Redis processes: killed and started again, it goes on where it was, and so does a second
//! one beside it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod lanes;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use lanes::process::Process;
use lanes::{batch, block, tab_in};
use taba_core::VBuckets;
use taba_core::wire::{Ack, Answer, LaneBatch};
use taba_tests::redis::{Aof, Options, Redis};

const STREAM: u64 = 0xfeed_5eed;

/// A log that is written before each answer, also while a slow disk syncs: what was answered survives a kill.
fn survives() -> Options {
    Options { aof: Aof::No, ..Options::default() }
}

fn command(redis: &[Redis]) -> Command {
    let urls: Vec<String> = redis.iter().map(Redis::url).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_taba-server"));
    command.args(["--listen", "127.0.0.1:0", "--vbuckets", "64", "--commit-interval", "2ms"]);
    command.args(["--store", "redis", "--redis", &urls.join(",")]);
    command
}

fn start(redis: &[Redis]) -> Process {
    Process::start(command(redis))
}

/// The Batch of this number for some Lanes: three events for one Client.
fn batches(seq: u64) -> Vec<LaneBatch> {
    let vbuckets = VBuckets::new(64).unwrap();
    let lane = |vbucket| {
        let blocks = vec![block(&tab_in(vbuckets, vbucket, "t"), "web", &[1.0, 2.0, seq as f64])];
        batch(STREAM, vbucket, seq, 3 * (seq - 1), blocks)
    };
    [0, 1, 31, 32, 63].map(lane).to_vec()
}

fn answers(acks: &[Ack], answer: Answer, applied: u64) {
    assert_eq!(acks.len(), 5);
    for ack in acks {
        assert_eq!((ack.answer, ack.applied.0, ack.refused.len()), (answer, applied, 0), "{ack:?}");
    }
}

#[test]
fn killed_and_started_again_it_goes_on_where_it_was() {
    let redis = Redis::start_many(2, &survives());
    let server = start(&redis);
    assert!(server.words.contains("redis store on 127.0.0.1:"), "{}", server.words);
    for seq in 1..=3 {
        answers(&server.send(&batches(seq)), Answer::Applied, seq);
    }
    let before = server.get("/v2/tabs");
    assert_eq!(before.matches("events 9").count(), 5, "{before}");
    drop(server);
    let server = start(&redis);
    assert_eq!(server.get("/v2/tabs").matches("events 9").count(), 5, "{}", server.get("/v2/tabs"));
    // What was answered is known; the next goes on from there.
    answers(&server.send(&batches(3)), Answer::Duplicate, 3);
    answers(&server.send(&batches(4)), Answer::Applied, 4);
    // Another one beside it writes the same VBuckets; both notice.
    let other = start(&redis);
    for seq in 5..=10 {
        let (one, two) = if seq % 2 == 0 { (&server, &other) } else { (&other, &server) };
        answers(&one.send(&batches(seq)), Answer::Applied, seq);
        // It may answer from what it remembers, but never count it again.
        let again = two.send(&batches(seq));
        assert!(again.iter().all(|ack| ack.applied.0 == seq), "{again:?}");
    }
    drop((server, other));
    let last = start(&redis).get("/v2/tabs");
    assert_eq!(last.matches("events 30").count(), 5, "{last}");
}

#[test]
fn a_redis_that_is_down_is_waited_for_and_one_that_is_unsafe_is_refused() {
    let mut redis = Redis::start_many(2, &survives());
    let server = start(&redis);
    answers(&server.send(&batches(1)), Answer::Applied, 1);
    redis[1].kill();
    let halved = server.send(&batches(2));
    let of = |vbucket: u16| halved.iter().find(|ack| ack.vbucket == vbucket).unwrap().answer;
    assert_eq!(
        [of(0), of(31), of(32), of(63)],
        [Answer::Applied, Answer::Applied, Answer::Unavailable, Answer::Unavailable]
    );
    redis[1].restart();
    let mut acks = server.send(&batches(2));
    while acks.iter().any(|ack| ack.answer == Answer::Unavailable) {
        acks = server.send(&batches(2));
    }
    assert!(acks.iter().all(|ack| ack.applied.0 == 2), "{acks:?}");
    assert_eq!(server.get("/v2/tabs").matches("events 6").count(), 5, "each Batch is counted once");
    drop(server);

    let said = |redis: &[Redis]| {
        let output = command(redis).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let evicts = Options { memory_policy: Some("allkeys-lru"), ..Options::default() };
    assert!(said(&[Redis::start(evicts)]).contains("set it to noeviction"));
    redis[0].restart_empty();
    assert!(said(&redis).contains("holds nothing and is no shard of this deployment"));
    assert!(said(&[]).contains("no URL of a Redis"));
}

/// A server that may have to wait; what it says, line by line.
struct Waiting {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Waiting {
    fn start(redis: &[Redis]) -> Self {
        let mut child = command(redis).env("NO_COLOR", "1").stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Reads what it says until these words come.
    fn until(&mut self, words: &str) -> String {
        let (mut all, mut line) = (String::new(), String::new());
        while !line.contains(words) {
            line.clear();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "it ended: {all}");
            all += &line;
        }
        all
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_waits_for_a_redis_that_is_down_or_loading() {
    let mut redis = Redis::start_many(1, &survives());
    redis[0].kill();
    let mut server = Waiting::start(&redis);
    assert!(server.until("waiting for the redis store").contains("cannot connect to shard 0"));
    redis[0].restart();
    server.until("listening on http://");
    drop(server);
    redis[0].command(&["EVAL", "for i = 1, 20000 do redis.call('set', 'pad' .. i, 'x') end", "0"]);
    redis[0].restart_slowly();
    let mut server = Waiting::start(&redis);
    let words = server.until("waiting for the redis store");
    assert!(words.contains("LOADING"), "{words}");
    redis[0].command(&["CONFIG", "SET", "key-load-delay", "0"]);
    server.until("listening on http://");
}

#[test]
fn a_server_starts_while_a_shard_is_away_and_answers_for_the_rest() {
    let mut redis = Redis::start_many(2, &survives());
    let server = start(&redis);
    answers(&server.send(&batches(1)), Answer::Applied, 1);
    drop(server);
    redis[1].kill();
    let server = start(&redis);
    let of = |acks: &[Ack], vbucket: u16| acks.iter().find(|ack| ack.vbucket == vbucket).unwrap().answer;
    let acks = server.send(&batches(2));
    assert_eq!([of(&acks, 0), of(&acks, 63)], [Answer::Applied, Answer::Unavailable]);
    let text = server.get("/v2/tabs");
    assert_eq!(text.matches("events 6").count(), 3, "{text}");
    let missing = format!("32 vbuckets on {} could not be read", redis[1].url());
    assert!(text.contains(&missing) && text.contains("lost unknown"), "{text}");
    let metrics = server.ask(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(String::from_utf8(metrics).unwrap().contains("taba_ledger_unread_vbuckets 32"));
    redis[1].restart();
    let mut acks = server.send(&batches(2));
    while acks.iter().any(|ack| ack.answer == Answer::Unavailable) {
        acks = server.send(&batches(2));
    }
    assert_eq!(server.get("/v2/tabs").matches("events 6").count(), 5, "{}", server.get("/v2/tabs"));
}

#[test]
fn index_keys_that_are_deleted_while_servers_run_count_nothing_twice() {
    let redis = Redis::start_many(1, &survives());
    let server = start(&redis);
    for seq in 1..=2 {
        answers(&server.send(&batches(seq)), Answer::Applied, seq);
    }
    let delete = |pattern: &str| {
        let script = "local keys = redis.call('KEYS', ARGV[1])
            for _, key in ipairs(keys) do redis.call('DEL', key) end
            return #keys";
        let deleted = redis[0].command(&["EVAL", script, "0", pattern]);
        assert_ne!(deleted, "0", "{pattern}");
    };
    // Each kind of index, in turn: the Server that runs knows its Lanes; the next one has only what it reads.
    let mut server = server;
    for (round, pattern) in ["*.streams", "*.tabs", "*.clients.*"].into_iter().enumerate() {
        let seq = 3 + round as u64;
        delete(pattern);
        drop(server);
        server = start(&redis);
        answers(&server.send(&batches(seq - 1)), Answer::Duplicate, seq - 1);
        answers(&server.send(&batches(seq)), Answer::Applied, seq);
        delete(pattern);
        let text = server.get("/v2/tabs");
        assert_eq!(text.matches(&format!("events {}", 3 * seq)).count(), 5, "{pattern}: {text}");
        assert!(text.contains("lost 0") && !text.contains("missing"), "{text}");
    }
}
