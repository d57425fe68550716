//! What is seen to before Blocks of Tabs that are spread are folded: that every query looks there, and that one Tab has one type.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use taba_core::ledger::{Where, Why};
use taba_core::wire::Content;
use taba_core::{Spread, TabName, TabType};
use tokio::time::{Instant, timeout_at};

use super::Server;
use crate::clock::monotonic;
use crate::direction::spread_needed;
use crate::planner::IncomingMessage;
use crate::query::QueryError;

/// How long a request may wait for the store. What is not seen to by then is sent again.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Why Blocks of a Tab are not folded yet.
#[derive(Debug, thiserror::Error)]
enum SpreadHeldBack {
    #[error("the blocks of {0} are for a vbucket in which queries do not look for it yet")]
    Failed(TabName, #[source] QueryError),
    #[error(
        "the store did not say within {WAIT_MAX:?} that queries look for {0} in every vbucket that it is sent for"
    )]
    Slow(TabName),
}

impl Server {
    /// The messages that cannot be folded yet, by their places. A Block of another type than its Tab has in its own VBucket is
    /// withheld: it is refused, as it would be there.
    ///
    /// # Cost
    /// Two hashes for each Block. The first time for a Tab some round trips, at most 1 s for the request.
    pub(super) async fn prepare_spread(&self, messages: &mut [IncomingMessage]) -> BTreeSet<usize> {
        let vbuckets = self.inner.shared.store.vbuckets();
        let mut tabs: BTreeMap<(TabName, TabType), Spread> = BTreeMap::new();
        let mut beside = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            let needed = |block| spread_needed(vbuckets, message.vbucket(), block);
            for (block, spread) in message.blocks().iter().filter_map(|block| Some((block, needed(block)?))) {
                let widest = tabs.entry((block.tab.clone(), block.tab_type.clone())).or_insert(spread);
                *widest = spread.max(*widest);
                if beside.last() != Some(&place) {
                    beside.push(place);
                }
            }
        }
        let until = monotonic() + WAIT_MAX;
        let (mut not_yet, mut conflicts) = (BTreeSet::new(), BTreeSet::new());
        for ((tab, tab_type), spread) in tabs {
            if !self.may_fold(&tab, spread, until).await {
                not_yet.insert(tab);
            } else if self.query_state().has_other_type(&tab, &tab_type, until).await {
                conflicts.insert((tab, tab_type));
            }
        }
        let mut held_back = BTreeSet::new();
        for place in beside {
            let Some(IncomingMessage::Batch(batch)) = messages.get_mut(place) else { continue };
            for block in &mut batch.blocks {
                if spread_needed(vbuckets, batch.vbucket, block).is_none() {
                    continue;
                }
                if not_yet.contains(&block.tab) {
                    held_back.insert(place);
                } else if conflicts.contains(&(block.tab.clone(), block.tab_type.clone())) {
                    block.content = Content::Withheld { place: Where::Server, why: Why::TypeConflict };
                }
            }
        }
        held_back
    }

    async fn may_fold(&self, tab: &TabName, spread: Spread, until: Instant) -> bool {
        let error = match timeout_at(until, self.query_state().allow_spread(tab, spread)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => SpreadHeldBack::Failed(tab.clone(), error),
            Err(_) => SpreadHeldBack::Slow(tab.clone()),
        };
        self.tell_rejection("spread", &error);
        false
    }
}
