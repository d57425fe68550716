//! Reads every State of a VBucket.

use taba_core::{Scan, ScanWhat, Scanned, StoreError, VBucket};

use super::state::QueryState;

/// Calls `see` for every State of a VBucket, page by page.
pub(super) async fn walk(
    state: &QueryState,
    vbucket: VBucket,
    what: ScanWhat,
    mut see: impl FnMut(Scanned),
) -> Result<(), StoreError> {
    let mut scan = Scan::default().with_limit(state.limits.page_states.max(1)).with_what(what);
    loop {
        tokio::task::yield_now().await;
        let page = state.store.scan(vbucket, &scan).await?;
        scan.after = page.last().map(|last| last.key.clone());
        let last = page.len() < scan.limit;
        page.into_iter().for_each(&mut see);
        if last {
            return Ok(());
        }
    }
}
