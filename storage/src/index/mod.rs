//! From ids and positions to places in segments.
//!
//! Owns the index of the active segment (`memory`, in a hash table), that of a sealed one (`file`, static and mapped), the choice
//! between them, and what says of many sealed ones at once that an id is in none of them (`sieve`). Invariant: an index answers with
//! *candidates*; the caller compares whole ids, so a wrong answer can only miss a message.
//!
//! Memory: 16 to 32 bytes for each message of the active segment and of one that was sealed a moment ago; 2 to 4 for older ones, whose
//! index lies in the page cache: 13.5 bytes each if all of it is in use.

pub(crate) mod file;
mod memory;
mod sieve;
mod table;

use std::sync::{PoisonError, RwLock};

pub(crate) use file::{Covers, IndexError, IndexFile};
pub(crate) use memory::{MemoryIndex, RecordStart};
pub(crate) use sieve::Segments;
pub(crate) use table::{GROUP_IDS, prefix_of};

/// The index of one segment.
pub(crate) enum SegmentIndex {
    /// The active segment, or one whose file is not built yet.
    Memory(RwLock<MemoryIndex>),
    /// A sealed segment.
    File(IndexFile),
}

impl SegmentIndex {
    /// Relative positions of ids that begin with `prefix`. Allocates only if there are any.
    pub(crate) fn find(&self, prefix: u64) -> Vec<u32> {
        match self {
            Self::Memory(index) => read(index).find(prefix).collect(),
            Self::File(index) => index.find(prefix).collect(),
        }
    }

    /// Brings what looking up `prefixes` needs first into the cache, all at once.
    pub(crate) fn touch(&self, prefixes: &[u64]) {
        match self {
            Self::Memory(index) => read(index).touch(prefixes),
            Self::File(index) => index.touch(prefixes),
        }
    }

    /// The last record that starts at or before relative `position`.
    pub(crate) fn record_at(&self, position: u32) -> Option<RecordStart> {
        match self {
            Self::Memory(index) => read(index).record_at(position),
            Self::File(index) => index.record_at(position),
        }
    }

    /// Messages and records covered.
    pub(crate) fn counts(&self) -> (u64, u64) {
        match self {
            Self::Memory(index) => read(index).counts(),
            Self::File(index) => (index.ids(), index.records()),
        }
    }
}

/// Read access to an index in memory. A panic elsewhere can not leave it half changed in a way that matters: entries are only added.
pub(crate) fn read(index: &RwLock<MemoryIndex>) -> std::sync::RwLockReadGuard<'_, MemoryIndex> {
    index.read().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
