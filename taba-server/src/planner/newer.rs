//! States of a newer version of a Handler than this Server has: during a rolling upgrade, or after a rollback.
//!
//! The sender is not at fault, and a newer Server can fold them. So the Batch is answered *unavailable*: nothing is
//! folded or dropped, its mark stays, and its sender tries the next Server.

use taba_core::wire::{Ack, Answer, Block, Content, Refusal};
use taba_core::{ClientId, Registry, TabName, TabType, ledger::Why};

use super::cache::Cache;
use super::live::CachedSlot;
use super::message::IncomingMessage;

/// A State of a newer version than this build reads, in a Block or in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewerState {
    /// Its Tab.
    pub tab: TabName,
    /// Its Client.
    pub client: ClientId,
    /// The Tab type of the Block that cannot be folded.
    pub tab_type: TabType,
    /// The version of the State.
    pub found: u16,
    /// The version that this build reads.
    pub known: u16,
    /// Whether it is stored; else it is in the Block.
    pub is_stored: bool,
}

/// The first Block for which this build is too old, with its index. The States of all Blocks were touched and loaded.
pub(super) fn first_newer(
    cache: &mut Cache,
    handlers: &Registry,
    blocks: &[Block],
) -> Option<(u32, NewerState)> {
    (0..).zip(blocks).find_map(|(place, block)| Some((place, newer(cache, handlers, block)?)))
}

fn newer(cache: &mut Cache, handlers: &Registry, block: &Block) -> Option<NewerState> {
    let sent = match &block.content {
        Content::State { version, .. } => Some(*version),
        Content::Events(_) => None,
        Content::Withheld { .. } => return None,
    };
    // Raw events have no version: most Blocks end here.
    if sent.is_none() && !cache.has_newer {
        return None;
    }
    let known = handlers.guarded(block.tab_type.as_str())?.version();
    let place = cache.entry(&block.tab, &block.client, handlers);
    // A Block of another type than its Tab is refused by every Server.
    if place.tab_type.as_ref().is_some_and(|of_tab| *of_tab != block.tab_type) {
        return None;
    }
    let (found, known, is_stored) = match place.slot {
        CachedSlot::Newer { found, known } => (*found, *known, true),
        CachedSlot::Live(live) if live.tab_type != block.tab_type => return None,
        CachedSlot::Unreadable(_) => return None,
        CachedSlot::Live(_) | CachedSlot::Packed(_) | CachedSlot::Absent | CachedSlot::Unknown => {
            (sent.filter(|sent| *sent > known)?, known, false)
        }
    };
    let (tab, client, tab_type) = (block.tab.clone(), block.client.clone(), block.tab_type.clone());
    Some(NewerState { tab, client, tab_type, found, known, is_stored })
}

/// The answer to a Batch whose Block at `place` is newer: nothing was folded or dropped.
pub(super) fn unavailable(message: &IncomingMessage, place: u32) -> Ack {
    let events = message.blocks().get(place as usize).map_or(0, |block| block.events);
    let reason = Refusal::new(place, Why::UnknownVersion, events);
    message.unanswered(Answer::Unavailable).with_refused(vec![reason])
}
