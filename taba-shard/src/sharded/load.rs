//! Reads a VBucket: one script, so one consistent state.

use std::collections::BTreeSet;

use bytes::Bytes;
use taba_core::{Loaded, Mark, Part, StateKey, StoreError, StreamId, TabName, TabType, VBucket, Wanted};

use super::ShardedRedis;
use super::read::{list, result, unavailable, value};
use crate::command::Reply;
use crate::limits::LOAD_WANTED_MAX;
use crate::redis::{LinkError, scripts};
use crate::{keys, layout};

pub(super) async fn load(
    store: &ShardedRedis,
    vbucket: VBucket,
    wanted: &Wanted,
) -> Result<Loaded, StoreError> {
    let pairs = wanted.tabs.len() + wanted.states.len();
    if pairs > LOAD_WANTED_MAX {
        return Err(StoreError::TooLarge { pairs, pairs_max: LOAD_WANTED_MAX });
    }
    let owner = store.owner(vbucket).await?;
    let tabs: BTreeSet<&TabName> = wanted.states.iter().map(|key| &key.tab).collect();
    let mut names = vec![keys::hash(vbucket), keys::streams(vbucket)];
    names.extend(tabs.iter().map(|tab| keys::parts(vbucket, tab)));
    let mut call = scripts::LOAD.call(&names);
    let known = wanted.known.map(layout::put_version).unwrap_or_default();
    call.arg(owner.epoch).arg(known).arg(wanted.tabs.len());
    for tab in &wanted.tabs {
        call.arg(layout::tab_field(tab));
    }
    for key in &wanted.states {
        call.arg(layout::state_field(key, Part::WHOLE));
    }
    let outcome = async {
        let reply = store.send(vbucket, owner, vec![call]).await?.replies.pop();
        let reply = reply.ok_or_else(|| unavailable(LinkError::Answer { shard: owner.shard }))?;
        read(vbucket, wanted, result(vbucket, owner, reply)?)
    };
    store.follow(outcome.await).await
}

fn read(vbucket: VBucket, wanted: &Wanted, found: [Reply; 6]) -> Result<Loaded, StoreError> {
    let damaged = |what| StoreError::Damaged { vbucket, what };
    let [version, streams, marks, types, states, parts] = found;
    let version = if let Reply::Bytes(text) = version { layout::read_version(&text) } else { None };
    Ok(Loaded::new(version.ok_or_else(|| damaged("version"))?)
        .with_marks(read_marks(streams, marks).ok_or_else(|| damaged("mark"))?)
        .with_tabs(read_types(&wanted.tabs, types).ok_or_else(|| damaged("tab"))?)
        .with_states(read_states(&wanted.states, states, parts).ok_or_else(|| damaged("state"))?))
}

fn read_marks(streams: Reply, marks: Reply) -> Option<Vec<(StreamId, Mark)>> {
    let (streams, marks) = (list(streams)?, list(marks)?);
    if streams.len() != marks.len() {
        return None;
    }
    let mut found = Vec::with_capacity(marks.len());
    for (stream, mark) in streams.into_iter().zip(marks) {
        // No store writes this entry, so it has no mark either.
        let Some(stream) = layout::read_stream(&value(stream)??) else { continue };
        if let Some(bytes) = value(mark)? {
            found.push((stream, layout::read_mark(&bytes)?));
        }
    }
    Some(found)
}

fn read_types(wanted: &[TabName], types: Reply) -> Option<Vec<(TabName, TabType)>> {
    let types = list(types)?;
    let mut found = Vec::with_capacity(types.len());
    for (tab, tab_type) in wanted.iter().zip(types) {
        if let Some(bytes) = value(tab_type)? {
            found.push((tab.clone(), layout::read_type(&bytes).unwrap_or_else(layout::damaged_type)));
        }
    }
    Some(found)
}

fn read_states(wanted: &[StateKey], states: Reply, parts: Reply) -> Option<Vec<(StateKey, Part, Bytes)>> {
    let (states, parts) = (list(states)?, list(parts)?);
    let mut found = Vec::with_capacity(states.len());
    // The parts come in the order of the wanted States.
    let mut parts = parts.into_iter().map(read_part).collect::<Option<Vec<_>>>()?.into_iter().peekable();
    for (place, (key, whole)) in wanted.iter().zip(states).enumerate() {
        if let Some(bytes) = value(whole)? {
            found.push((key.clone(), Part::WHOLE, bytes));
        }
        while let Some((_, part, bytes)) = parts.next_if(|(at, ..)| *at == place) {
            found.extend(bytes.map(|bytes| (key.clone(), part, bytes)));
        }
    }
    parts.next().is_none().then_some(found)
}

fn read_part(part: Reply) -> Option<(usize, Part, Option<Bytes>)> {
    let [Reply::Integer(place), Reply::Bytes(entry), bytes] = <[Reply; 3]>::try_from(list(part)?).ok()?
    else {
        return None;
    };
    let (_, part) = layout::read_part(&entry)?;
    Some((place.try_into().ok()?, part, value(bytes)?))
}
