//! [`HeadCache`]: the heads of the accounts of all VBuckets, each decoded once for each version.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use taba_core::{Peeked, VBucket, Version};

use crate::accounts::AccountsHead;

/// A head; `None` where nobody keeps accounts.
pub(super) type Head = Option<Arc<AccountsHead>>;

/// Heads as they were read last.
#[derive(Default)]
pub(super) struct HeadCache {
    kept: Mutex<HashMap<VBucket, (Version, Head)>>,
}

impl HeadCache {
    /// The head as it was read last.
    pub(super) fn last(&self, vbucket: VBucket) -> Head {
        // Its entries are replaced as a whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&vbucket)?.1.clone()
    }

    /// The head that was just read, as the first State that was asked for.
    pub(super) fn read(&self, vbucket: VBucket, peeked: &Peeked) -> Head {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, head)) = kept.get(&vbucket).filter(|(version, _)| peeked.version == Some(*version)) {
            return head.clone();
        }
        let bytes = peeked.states.first().and_then(Option::as_ref);
        // What was never written has no accounts, and they say so.
        let empty = (peeked.version == Some(Version::NEVER)).then(AccountsHead::default);
        let head = bytes.map_or(empty, AccountsHead::decode).map(Arc::new);
        if let Some(version) = peeked.version {
            kept.insert(vbucket, (version, head.clone()));
        }
        head
    }
}
