//! The accounts of a VBucket say what its States say, after every commit.

use taba_core::ledger::{self, Where};
use taba_core::{Committed, Scan, ScanWhat};

use super::model::at_once;
use super::*;
use crate::accounts::{self, AccountsHead, Summary, decode_group, is_note, note_total};

/// What the stored States say, and what the stored accounts say; `None`: there are none.
fn both(store: &MemoryStore) -> (Summary, Option<(AccountsHead, Summary)>) {
    let (mut states, mut kept, mut head) = (Summary::default(), Summary::default(), None::<AccountsHead>);
    let scan = Scan::default().with_what(ScanWhat::States);
    let registry = registry();
    for scanned in at_once(store.scan(vbucket(), &scan)).unwrap() {
        let bytes = &scanned.parts[0].1;
        match accounts::place_of(&scanned.key) {
            Some(0) => head = AccountsHead::decode(bytes),
            Some(place) => {
                let Some(head) = &head else { continue };
                let group = decode_group(bytes).unwrap();
                assert!(group.keys().all(|client| head.place(client) == place), "a Client in a wrong group");
                kept.clients.extend(group);
            }
            None => {
                let envelope = Envelope::join(&scanned.parts).unwrap();
                let key = scanned.key;
                if !key.tab.is_reserved() {
                    states.add_state(key.client, envelope.events);
                } else if is_note(&key.tab) {
                    let handler = registry.guarded(ledger::TAB_TYPE).unwrap();
                    let (state, _) = handler.decode_stored(&envelope).unwrap();
                    states.add_note(key, note_total(&handler, &state, now()).unwrap());
                }
            }
        }
    }
    (states, head.map(|head| (head, kept)))
}

/// The accounts say what the States say.
pub(super) fn audit(store: &MemoryStore) {
    let (states, kept) = both(store);
    let (head, kept) = kept.expect("a VBucket has accounts from its first commit on");
    assert_eq!(kept, states);
    assert_eq!((head.clients, &head.totals), (states.clients.len() as u64, &states.totals()));
}

#[test]
fn accounts_grow_with_the_clients() {
    let (world, mut planner) = (World::new(), Planner::default());
    for seq in 1..=20 {
        let clients = (seq - 1) * 100..seq * 150;
        let blocks = clients.map(|n| block(&format!("t{}", n % 3), &format!("c{n}"), &[1.0, 2.0])).collect();
        world.ingest(&mut planner, vec![batch(1, seq, 1, 0, blocks)]);
        audit(&world.store);
    }
    let (_, kept) = both(&world.store);
    let head = kept.unwrap().0;
    assert_eq!(head.clients, 3_000);
    assert!((100..=130).contains(&head.places().count()), "{head:?}");
    // A Server that has nothing in its cache goes on with them.
    let blocks = vec![block("t1", "c1", &[1.0]), block("new", "new", &[f64::NAN])];
    world.ingest(&mut Planner::default(), vec![batch(2, 1, 1, 0, blocks)]);
    audit(&world.store);
}

#[test]
fn notes_are_in_the_account_of_their_client() {
    let (world, mut planner) = (World::new(), Planner::default());
    let recorded = block(ledger::RECORDED, "web", &[5.0]);
    let blocks =
        vec![recorded, block("a", "web", &[1.0, 2.0, f64::NAN]), block_of("a", "web", "Other", &[1.0])];
    world.ingest(
        &mut planner,
        vec![batch(1, 1, 1, 0, blocks), batch(2, 4, 4, 7, vec![block("b", "db", &[3.0])])],
    );
    audit(&world.store);
    let (_, kept) = both(&world.store);
    let (head, kept) = kept.unwrap();
    let web = &kept.clients[&client("web")];
    assert_eq!((web.states, web.events, web.noted(ledger::RECORDED)), (1, 2, 5));
    let dropped: Vec<_> = web.dropped().map(|(tab, events)| (tab.clone(), events)).collect();
    let tab = |why| ledger::dropped_tab(Where::Server, why);
    assert_eq!(dropped, [(tab(Why::BadValue), 1), (tab(Why::TypeConflict), 1)]);
    assert_eq!(head.totals.noted(ledger::DROPPED), 9, "seven events were lost in a gap");
    let before = head.dropped_at;
    world.ingest(&mut planner, vec![batch(1, 2, 1, 0, vec![block("a", "web", &[1.0])])]);
    assert_eq!(both(&world.store).1.unwrap().0.dropped_at, before, "nothing was dropped");
    world.ingest(&mut planner, vec![batch(1, 3, 1, 0, vec![block("a", "web", &[f64::NAN])])]);
    assert_ne!(both(&world.store).1.unwrap().0.dropped_at, before);
}

/// Stores this in place of a value of the accounts.
fn overwrite(world: &World, place: u64, bytes: Option<Bytes>) {
    let expect = world.load(&Wanted::default()).version;
    let commit = Commit::new(expect, Version { writer: 8, count: expect.count + 1 });
    let commit = commit.with_states(vec![(accounts::key(place), Part::WHOLE, bytes)]);
    assert_eq!(world.store_commit(commit), Committed::Done);
}

#[test]
fn damaged_accounts_are_removed_and_events_are_folded_all_the_same() {
    for (place, bytes) in
        [(0, Some(Bytes::from_static(b"?"))), (1, Some(Bytes::from_static(b"?"))), (0, None)]
    {
        let (world, mut planner) = (World::new(), Planner::default());
        world.ingest(&mut planner, vec![batch(1, 1, 1, 0, vec![block("a", "c", &[1.0])])]);
        overwrite(&world, place, bytes);
        for seq in 2..4 {
            world.ingest(&mut planner, vec![batch(1, seq, 1, 0, vec![block("a", "c", &[1.0])])]);
            assert_eq!(both(&world.store).1.map(|(head, _)| head), None, "nobody keeps them any more");
        }
        assert_eq!(world.total("a", "c"), 3);
    }
}
