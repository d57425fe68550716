//! A look at many VBuckets, in one read transaction.

use bytes::Bytes;
use redb::ReadOnlyTable;
use taba_core::{Part, Peek, Peeked, StoreError, Version};

use super::file::{DatabaseFile, TABLE, damaged, is_damage};
use super::heads::Heads;
use super::layout;

/// One answer for each; an error where nothing can be read, wherever it is.
pub(super) fn peek(
    file: &DatabaseFile,
    heads: &Heads,
    peeks: &[Peek],
) -> Result<Vec<Result<Peeked, StoreError>>, redb::Error> {
    file.read(|moment| {
        let table = moment.open_table(TABLE)?;
        let one = |peek: &Peek| match read(&table, heads, peek) {
            Err(error) if is_damage(&error) => {
                Ok(Err(StoreError::Damaged { vbucket: peek.vbucket, what: "state" }))
            }
            read => read.map(Ok),
        };
        peeks.iter().map(one).collect()
    })
}

fn read(
    table: &ReadOnlyTable<&'static [u8], &'static [u8]>,
    heads: &Heads,
    peek: &Peek,
) -> Result<Peeked, redb::Error> {
    let Peek { vbucket, states, .. } = peek;
    let version = match table.get(layout::version_key(*vbucket).as_slice())? {
        Some(value) if value.value() == layout::LOST => return Err(damaged("vbucket")),
        Some(value) => layout::read_version(value.value()),
        None => Some(Version::NEVER),
    };
    let mut found = Vec::with_capacity(states.len());
    for key in states {
        let value = table.get(layout::state_key(*vbucket, key, Part::WHOLE).as_slice())?;
        found.push(value.map(|value| Bytes::copy_from_slice(value.value())));
    }
    // A commit may have been done since the moment that the table is of.
    let head = heads.get(*vbucket).filter(|head| Some(head.version) == version);
    Ok(Peeked::new(version, found).with_tabs_since(head.map(|head| head.tabs_since)))
}
