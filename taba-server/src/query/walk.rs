//! Reads States of a VBucket, page by page.

use taba_core::{Scan, Scanned, StoreError, VBucket};

use super::state::QueryState;

/// Calls `see` for every State that the scan finds in a VBucket, page by page.
pub(super) async fn walk(
    state: &QueryState,
    vbucket: VBucket,
    scan: Scan,
    mut see: impl FnMut(Scanned),
) -> Result<(), StoreError> {
    let mut scan = scan.with_limit(state.limits.page_states.max(1));
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
