//! What front-ends record: with a key once, without one each time.

use super::*;
use crate::dedup::KEYS_MAX;
use crate::frontend::FrontBatch;

fn request(clients: std::ops::Range<usize>, number: usize) -> Vec<FrontBatch> {
    let name = |client: usize| ClientId::new(&format!("client{client}")).unwrap();
    let batch = |client| FrontBatch { client: name(client), part: 0, blocks: vec![block(client, number)] };
    clients.map(batch).collect()
}

fn repeated<S: Spool>(relay: &mut Relay<S>, batches: Vec<FrontBatch>, key: Option<&str>) -> bool {
    match relay.record(moment(Duration::ZERO), batches, key) {
        RecordOutcome::Taken { is_repeated, .. } => is_repeated,
        other => panic!("not taken: {other:?}"),
    }
}

#[test]
fn a_request_with_a_key_counts_once_and_one_without_counts_each_time() {
    let config = config(|_| {});
    let mut relay = relay(&config);
    assert!(!repeated(&mut relay, request(0..2, 3), Some("a")));
    assert!(repeated(&mut relay, request(0..2, 3), Some("a")));
    assert_eq!(relay.unapplied().events, 2);
    assert!(!repeated(&mut relay, request(0..2, 3), Some("b")));
    assert_eq!(relay.unapplied().events, 4);
    for _ in 0..3 {
        assert!(!repeated(&mut relay, request(0..2, 3), None));
    }
    assert_eq!(relay.unapplied().events, 10);
    assert_eq!(relay.status(moment(Duration::ZERO)).clients, 2, "what has no key has one incarnation a run");
}

#[test]
fn no_number_of_keys_makes_an_agent_forget_a_client() {
    let config = config(|config| config.incarnations_max = 2);
    let mut relay = relay(&config);
    let first = batch(0, 1, vec![block(0, 3)]);
    let _ = taken(relay.accept(moment(Duration::ZERO), &first, &[]));
    for key in 0..KEYS_MAX + 1 {
        assert!(!repeated(&mut relay, request(0..1, 0), Some(&key.to_string())));
    }
    assert!(repeated(&mut relay, request(0..1, 0), Some("1")), "among the last");
    let held = relay.unapplied();
    let _ = taken(relay.accept(moment(Duration::ZERO), &first, &[]));
    assert_eq!(relay.unapplied(), held, "the Client was known");
    assert!(!repeated(&mut relay, request(0..1, 0), Some("0")), "the oldest key is forgotten, as is notices");
}

#[test]
fn a_request_of_many_clients_is_taken_whole_or_not_at_all() {
    let config = config(|_| {});
    let mut relay = relay_with(&config, 64 << 10);
    let refused = relay.record(moment(Duration::ZERO), request(0..100, 3), None);
    assert!(matches!(refused, RecordOutcome::Refused(SpoolError::Full { .. })), "{refused:?}");
    assert_eq!(relay.unapplied(), Weight::default());
    assert!(!repeated(&mut relay, request(0..3, 3), None));
    assert_eq!(relay.unapplied().events, 3);
    relay.stop(moment(Duration::ZERO));
    assert!(matches!(relay.record(moment(Duration::ZERO), request(0..3, 3), None), RecordOutcome::Stopping));
}
