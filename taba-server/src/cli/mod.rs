//! What only the binary does: it waits for its store.

pub(crate) mod connect;
