//! Named tables and the batches that change them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use vmdt_pool::Change;

/// The longest key, in octets.
pub const MAX_KEY: usize = 4 << 10;

/// The longest value, in octets.
pub const MAX_VALUE: usize = 1 << 30;

/// The longest name of a table, in octets.
const MAX_NAME: usize = 48;

/// A name that no table may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a table's name has 1 to 48 characters of a-z, 0-9, '-' and '_', this one has {found}")]
pub struct TableNameError {
    /// The name's length in octets.
    pub found: usize,
}

/// The name of a table. A table exists as soon as something is put in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(Arc<str>);

impl Table {
    /// The table called `name`.
    ///
    /// # Errors
    ///
    /// The name is empty, has more than 48 octets, or others than `a-z`, `0-9`, `-` and `_`.
    pub fn named(name: &str) -> Result<Table, TableNameError> {
        let allowed = |octet: u8| matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            return Err(TableNameError { found: name.len() });
        }
        Ok(Table(format!("table.{name}").into()))
    }

    /// What the file calls it: no name that a caller can choose is one of the store's own.
    pub(crate) fn inner(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.strip_prefix("table.").unwrap_or(&self.0))
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({self})")
    }
}

/// Changes of any number of tables that are made together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    changes: BTreeMap<Table, Vec<Change>>,
    len: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Sets a value, in place of an earlier one.
    pub fn put(&mut self, table: &Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.push(table, Change::Put { key, value });
    }

    /// Removes a value, if there is one.
    pub fn delete(&mut self, table: &Table, key: impl Into<Bytes>) {
        self.push(table, Change::Delete { key: key.into() });
    }

    /// Adds a change; those of one table are made in order.
    pub fn push(&mut self, table: &Table, change: Change) {
        self.changes.entry(table.clone()).or_default().push(change);
        self.len += 1;
    }

    /// The number of changes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn by_table(&self) -> impl Iterator<Item = (&str, &[Change])> {
        self.changes
            .iter()
            .map(|(table, changes)| (table.inner(), changes.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for good in ["a", "petnames", "in-progress_2", &"x".repeat(48)] {
            assert_eq!(Table::named(good).unwrap().to_string(), good);
        }
        for bad in ["", "A", "a.b", "a/b", "ä", &"x".repeat(49)] {
            let error = Table::named(bad).unwrap_err();
            assert_eq!(error.found, bad.len(), "{bad}");
        }
    }
}
