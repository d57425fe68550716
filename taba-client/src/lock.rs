//! Locking, also in a forked child.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use crate::process::generation;

/// How long a forked child waits for a lock, in milliseconds. A thread of the parent may have held it, and does not exist here.
const ORPHANED_LOCK_MILLIS: u64 = 100;

/// Locks. `None` only in a forked child, when another thread of the parent held the lock during the fork.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    // Nothing that can panic runs under the locks of this crate, so the guarded values are consistent.
    if generation() == 0 {
        return Some(mutex.lock().unwrap_or_else(PoisonError::into_inner));
    }
    for _ in 0..ORPHANED_LOCK_MILLIS {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::park_timeout(Duration::from_millis(1)),
        }
    }
    None
}
