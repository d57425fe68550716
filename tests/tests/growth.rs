//! A field more breaks nobody: public structs whose fields are public are non-exhaustive, or complete by what they are; and
//! what another crate has to make can be made in another crate, which this is.

#![expect(clippy::unwrap_used, reason = "tests may unwrap")]

mod sources;

use bytes::Bytes;
use syn::{Attribute, Item, ItemStruct, Visibility};
use taba_core::wire::{
    Ack, Answer, Block, ClientBatch, Content, LaneBatch, Lanes, Probe, Receipt, Refusal, decode_acks,
    encode_acks,
};
use taba_core::{
    ClientId, Commit, Committed, Envelope, Loaded, Mark, MemoryStore, Part, Scan, ScanWhat, Scanned, SeqNo,
    StateKey, Store, StreamId, TabName, TabType, Timestamp, Version, Wanted, ledger::Why,
};

use sources::{is_test, library_files};

/// Structs that are what their fields are: a pair, a name, a value of an event, a reading of a clock. A field more would make
/// another thing of them. What a move is decided by: a field more is another decision. Of `spool::record`, what is written down field by field: a field more is another format.
const COMPLETE: &[&str] = &[
    "AcceptedBatch",
    "Arrival",
    "BodyPace",
    "ClockReading",
    "ConnectionBounds",
    "Dated",
    "Event",
    "Expiring",
    "Fragment",
    "Head",
    "Keyed",
    "LaneKey",
    "Move",
    "Rates",
    "Renamed",
    "StateKey",
    "StoreId",
    "Version",
];

fn is(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}

/// Whether a field more breaks whoever writes the struct out.
fn is_fixed(item: &ItemStruct) -> bool {
    let is_public = |visibility: &Visibility| matches!(visibility, Visibility::Public(_));
    let syn::Fields::Named(fields) = &item.fields else { return false };
    is_public(&item.vis)
        && !is(&item.attrs, "non_exhaustive")
        && fields.named.iter().all(|field| is_public(&field.vis))
}

fn fixed(items: &[Item], found: &mut Vec<String>) {
    for item in items {
        match item {
            Item::Struct(item) if is_fixed(item) => found.push(item.ident.to_string()),
            Item::Mod(item) if !is_test(&item.attrs) => {
                if let Some((_, inside)) = &item.content {
                    fixed(inside, found);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn public_structs_may_get_fields_but_for_those_that_are_complete() {
    let mut found = Vec::new();
    for (_, file) in library_files() {
        fixed(&file.items, &mut found);
    }
    found.sort();
    assert_eq!(
        found, COMPLETE,
        "a public struct of public fields is `#[non_exhaustive]`, with a constructor if other crates make it, or listed here"
    );
}

fn key(client: &str) -> StateKey {
    StateKey { tab: TabName::new("bids").unwrap(), client: ClientId::new(client).unwrap() }
}

#[tokio::test]
async fn what_a_store_is_asked_and_gives_is_made_elsewhere() {
    let store = MemoryStore::default();
    let vbucket = store.vbuckets().get(7).unwrap();
    let (tab, tab_type) = (TabName::new("bids").unwrap(), TabType::new("TotalsCounter").unwrap());
    let first = Version { writer: 1, count: 1 };
    let mark = Mark::new(SeqNo(3), 40, 500_000);
    let state = Envelope::new(tab_type.clone(), 1, 40, Bytes::from_static(b"state")).encode();
    let commit = Commit::new(Version::NEVER, first)
        .with_marks(vec![(StreamId(5), Some(mark))])
        .with_tabs(vec![(tab.clone(), Some(tab_type.clone()))])
        .with_states(vec![
            (key("a"), Part::WHOLE, Some(state.clone())),
            (key("b"), Part::WHOLE, Some(state.clone())),
        ]);
    assert_eq!(store.commit(vbucket, commit.clone()).await.unwrap(), Committed::Done);
    let conflict = commit.with_next(Version { writer: 1, count: 2 }).with_expect(Version::NEVER);
    assert_eq!(store.commit(vbucket, conflict).await.unwrap(), Committed::Conflict { found: first });

    let wanted = Wanted::default().with_tabs(vec![tab.clone()]).with_states(vec![key("a")]);
    let loaded = Loaded::new(first)
        .with_marks(vec![(StreamId(5), mark)])
        .with_tabs(vec![(tab.clone(), tab_type)])
        .with_states(vec![(key("a"), Part::WHOLE, state)]);
    assert_eq!(store.load(vbucket, &wanted).await.unwrap(), loaded);
    let scan = Scan::default().with_tab(tab).with_after(key("a")).with_limit(9).with_what(ScanWhat::Keys);
    assert_eq!(store.scan(vbucket, &scan).await.unwrap(), [Scanned::new(key("b"), Vec::new())]);
}

#[test]
fn messages_are_made_elsewhere() {
    let (client, tab) = (ClientId::new("web").unwrap(), TabName::new("bids").unwrap());
    let times = Timestamp::from_secs(1)..=Timestamp::from_secs(2);
    let block = Block::new(
        tab,
        client.clone(),
        TabType::new("X").unwrap(),
        2,
        times,
        Content::Events(vec![1, 2].into()),
    );
    let withheld = Content::Withheld { place: taba_core::ledger::Where::Agent, why: Why::Poison };
    let blocks = vec![block.clone(), block.with_content(withheld)];
    let batch = ClientBatch::new(client, 9, SeqNo(4), Timestamp::from_secs(3), blocks.clone());
    assert_eq!(ClientBatch::decode(&batch.encode().into()).unwrap(), (batch, vec![]));
    let receipt = Receipt::new(SeqNo(4), Timestamp::from_secs(5), vec![Refusal::new(1, Why::BadName, 2)]);
    assert_eq!(Receipt::decode(&receipt.encode()).unwrap(), receipt);

    let batch = LaneBatch::new(StreamId(1), 7, SeqNo(4), 30, blocks).with_base(SeqNo(2));
    let probe = Probe::new(StreamId(2), 7, SeqNo(1), 0);
    let lanes = Lanes::new(Timestamp::from_secs(6), vec![batch]).with_probes(vec![probe]);
    assert_eq!(Lanes::decode(&lanes.encode().into()).unwrap(), lanes);
    let ack = Ack::new(StreamId(1), 7, SeqNo(4), Answer::Applied);
    let acks = vec![ack.clone(), ack.with_stable(SeqNo(3)).with_refused(vec![Refusal::new(0, Why::Full, 2)])];
    assert_eq!(decode_acks(&encode_acks(&acks)).unwrap(), acks);
}

/// Each configuration begins with its defaults, or with what has none, and is changed field by field.
#[test]
fn configurations_are_made_elsewhere() {
    let mut client = taba_client::Config::default();
    client.flush_interval *= 2;
    assert!(client.verify().is_ok());
    let mut agent = taba_agent::Config::default();
    agent.linger *= 2;
    let mut relay = agent.verify().unwrap().relay_options();
    relay.dispatcher.lane.batch_bytes_max /= 2;
    let mut start = taba_agent::RelayStart::default();
    start.seed = 7;
    let _ = taba_agent::Relay::new(relay, taba_agent::MemorySpool::new(1 << 20), start);
    let mut limits = taba_server::query::Limits::default();
    limits.results_max = 10;
    assert_eq!(limits.results_max, 10);
    let mut store = taba_server::EmbeddedOptions::new(taba_core::VBuckets::new(64).unwrap());
    store.cache_bytes = 1 << 20;
    assert_ne!(store, taba_server::EmbeddedOptions::default());
}
