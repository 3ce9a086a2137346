//! The index of a segment that still grows.
//!
//! Owns the hash table of ids and the list of record starts. Invariants: records are added in order; a record's ids are added with it.

use weft_core::MessageId;

use super::table::{IdTable, prefix_of};

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordStart {
    /// Position of the batch header, less the first position of the segment.
    pub(crate) position: u32,
    /// Offset in the segment / 512.
    pub(crate) sector: u32,
}

/// Ids and records of one segment.
pub(crate) struct MemoryIndex {
    ids: IdTable,
    records: Vec<RecordStart>,
}

impl MemoryIndex {
    /// An empty index with room for `ids_expected` ids.
    pub(crate) fn new(ids_expected: usize) -> Self {
        Self { ids: IdTable::new(ids_expected), records: Vec::new() }
    }

    /// The same for a segment that follows a full one with so many ids, and will soon have as many.
    pub(crate) fn following(ids: usize) -> Self {
        Self { ids: IdTable::new_present(ids), records: Vec::new() }
    }

    /// Adds a record whose messages have `ids`.
    pub(crate) fn add(&mut self, start: RecordStart, ids: &[MessageId]) {
        self.ids.insert_all(ids.iter().map(prefix_of), start.position + 1);
        self.records.push(start);
    }

    pub(crate) fn find(&self, prefix: u64) -> impl Iterator<Item = u32> + '_ {
        self.ids.find(prefix)
    }

    /// Brings what [`MemoryIndex::find`] needs for `prefixes` into the cache.
    pub(crate) fn touch(&self, prefixes: &[u64]) {
        self.ids.touch(prefixes);
    }

    pub(crate) fn record_at(&self, position: u32) -> Option<RecordStart> {
        let after = self.records.partition_point(|start| start.position <= position);
        self.records.get(after.checked_sub(1)?).copied()
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.ids.len() as u64, self.records.len() as u64)
    }

    /// Prefixes of all ids, in no order.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = u64> + '_ {
        self.ids.entries().map(|(prefix, _)| prefix)
    }

    /// What an index file is built from.
    pub(crate) fn contents(&self) -> (Vec<(u64, u32)>, &[RecordStart]) {
        (self.ids.entries().collect(), &self.records)
    }
}
