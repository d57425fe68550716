//! What the benches of a Redis store write: States of Tabs of a bidder, with bytes that do not compress.

use bytes::Bytes;
use taba_core::{ClientId, Commit, Mark, Part, SeqNo, StateKey, StreamId, TabName, VBucket, Version};

use crate::noise;

/// So many States of a VBucket, of so many Clients.
pub fn states(vbucket: VBucket, count: usize, clients: usize) -> Vec<StateKey> {
    let state = |n: usize| StateKey {
        tab: TabName::new(&format!("bids_won;exchange=x{vbucket};n={:02}", n / clients)).expect("a tab name"),
        client: ClientId::new(&format!("web-{}", n % clients)).expect("a client id"),
    };
    (0..count).map(state).collect()
}

/// So many bytes that no two States share, and that do not compress.
pub fn content(n: usize, bytes: usize) -> Bytes {
    let noise = (0..bytes / 8 + 1).flat_map(|k| noise(n * 64 + k).to_bits().to_le_bytes());
    noise.take(bytes).collect::<Vec<u8>>().into()
}

/// The commit of this number, counted from 1, by a writer: these States, each with the next of the contents.
pub fn commit(states: &[StateKey], contents: &[Bytes], writer: u64, count: u64) -> Commit {
    let version = |count| if count == 0 { Version::NEVER } else { Version { writer, count } };
    let parts = states.iter().enumerate().map(|(place, key)| {
        (key.clone(), Part::WHOLE, Some(contents[(place + count as usize) % contents.len()].clone()))
    });
    Commit::new(version(count - 1), version(count))
        .with_marks(vec![(StreamId(7), Some(Mark::new(SeqNo(count), count, 500_000)))])
        .with_states(parts.collect())
}
