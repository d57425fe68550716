//! Every default bound that more than one crate must agree on, in one place.
//!
//! A bound that only one crate cares about lives in that crate's configuration. What stands here is part of the
//! protocol: a sender that stays below these numbers is never refused for its size.

/// Bytes of a whole Tab name, labels included: 1 to this many.
pub const TAB_NAME_BYTES_MAX: usize = 1024;
/// Bytes of a Client id: 1 to this many.
pub const CLIENT_ID_BYTES_MAX: usize = 256;
/// Bytes of a Tab type: 1 to this many.
pub const TAB_TYPE_BYTES_MAX: usize = 64;
/// Labels in one Tab name.
pub const LABELS_MAX: usize = 32;
/// Bytes of one encoded value that is not a number (a text, or an opaque value).
pub const VALUE_BYTES_MAX: usize = 4 * 1024;
/// Events in one Block.
pub const BLOCK_EVENTS_MAX: usize = 64 * 1024;
/// Events that a Block with a partial State may claim. More than any program records; it keeps the sums of Agents and
/// Servers far from their ends, whatever a sender claims.
pub const BLOCK_FOLDED_EVENTS_MAX: u64 = 1 << 40;
/// Bytes of one encoded Block.
pub const BLOCK_BYTES_MAX: usize = 1024 * 1024;
/// Blocks in one Batch. One Block may touch one State, one Tab index entry and the account of one Client, and a commit holds at most 3,900
/// pairs, so a Batch of this size always fits one commit.
pub const BATCH_BLOCKS_MAX: usize = 1200;
/// Events in one Batch that a receiver has to fold one by one: those of its Blocks without a State, but for notes. A column of equal
/// values takes few bytes, whatever their number; so this, and no bound of bytes, is what bounds the work of a Batch.
pub const BATCH_EVENTS_MAX: u64 = 4 * BLOCK_EVENTS_MAX as u64;
/// The same in one request of many Batches. A Server answers those above it as busy, and the first is never above it.
pub const REQUEST_EVENTS_MAX: u64 = 16 * BATCH_EVENTS_MAX;
/// Bytes of memory that the States of one Batch may come to when they are decoded, by what their Handlers
/// [say](crate::Handler::decoded_bytes_max). With 64 bytes for each byte, which is the default, a Batch may have 4 MiB of States.
pub const BATCH_DECODED_BYTES_MAX: usize = 260 * 1024 * 1024;
/// Lanes' Batches in one request.
pub const REQUEST_BATCHES_MAX: usize = 16 * 1024;
/// Bytes of one frame's body on the wire, compressed or not.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Changed fields in one commit, marks included.
pub const COMMIT_PAIRS_MAX: usize = 3900;
/// How far in the future of its receiver an event may lie before it is clamped, in microseconds (10 s).
pub const FUTURE_MICROS_MAX: i64 = 10_000_000;

const _: () = assert!(3 * BATCH_BLOCKS_MAX < COMMIT_PAIRS_MAX, "a full Batch must fit one commit");
const _: () = assert!(BLOCK_BYTES_MAX < FRAME_BYTES_MAX, "a full Block must fit one frame");
const _: () =
    assert!(BLOCK_EVENTS_MAX * 9 < BLOCK_BYTES_MAX, "a full Block of plain numbers must fit its bytes");
