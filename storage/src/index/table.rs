//! Ids of the active segment: a hash table in memory.
//!
//! Owns the map from the first 8 bytes of an id to positions. Open addressing with linear probing, 12 bytes a slot, at most three
//! quarters full: 16 to 32 bytes for each message of the active segment, none for older ones. Invariants: an entry is never removed;
//! equal prefixes may occur (the caller compares whole ids).
//!
//! Ids are hashes, but a sender may grind for ids that share leading bits; a multiplier that only this process knows spreads them.

use std::hash::{BuildHasher, RandomState};

/// First 8 bytes of an id, big-endian: orders like the id.
#[must_use]
pub(crate) fn prefix_of(id: &weft_core::MessageId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Slots to begin with: 48 KiB.
const SLOTS_MIN: usize = 4_096;
/// The smallest page there is.
const PAGE_BYTES: usize = 4_096;
/// Ids whose memory is looked at before any of them is inserted or looked up: enough to keep the memory system busy, few enough to stay
/// in the first cache.
pub(crate) const GROUP_IDS: usize = 64;

/// High and low half of the prefix, then the position plus one; 0 there is a free slot. An array, so that a table of free slots comes
/// from the allocator's zeroed pages and a large one costs nothing until it is used.
type Slot = [u32; 3];
const FREE: Slot = [0; 3];

const fn slot(prefix: u64, position: u32) -> Slot {
    [(prefix >> 32) as u32, prefix as u32, position + 1]
}

const fn prefix_in(slot: Slot) -> u64 {
    (slot[0] as u64) << 32 | slot[1] as u64
}

const fn is_free(slot: Slot) -> bool {
    slot[2] == 0
}

fn slots_for(capacity: usize) -> usize {
    (capacity.saturating_mul(4) / 3 + 1).next_power_of_two().max(SLOTS_MIN)
}

/// Free slots, each page of them written once. A page that is looked up in first and written later faults twice, and the second time
/// every other core is interrupted, to forget the page of zeros that stood in for it.
fn present(slots: usize) -> Vec<Slot> {
    let mut slots = vec![FREE; slots];
    for slot in slots.iter_mut().step_by(PAGE_BYTES / size_of::<Slot>()) {
        *slot = std::hint::black_box(FREE);
    }
    slots
}

/// Prefix to position, for one segment.
pub(crate) struct IdTable {
    /// A power of two of them.
    slots: Vec<Slot>,
    count: usize,
    multiplier: u64,
}

impl IdTable {
    /// A table with room for `capacity` ids before it grows.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::with_slots(vec![FREE; slots_for(capacity)])
    }

    /// The same, [`present`]: for a table that starts with a segment and is probed all over within its first thousands of messages.
    pub(crate) fn prepared(capacity: usize) -> Self {
        Self::with_slots(present(slots_for(capacity)))
    }

    fn with_slots(slots: Vec<Slot>) -> Self {
        Self { slots, count: 0, multiplier: RandomState::new().hash_one(0_u8) | 1 }
    }

    /// Ids that it holds before it grows.
    pub(crate) const fn capacity(&self) -> usize {
        self.slots.len() / 4 * 3
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// All entries, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let used = self.slots.iter().filter(|slot| !is_free(**slot));
        used.map(|slot| (prefix_in(*slot), slot[2] - 1))
    }

    fn start(&self, prefix: u64) -> usize {
        let shift = 64 - self.slots.len().trailing_zeros();
        (prefix.wrapping_mul(self.multiplier) >> shift) as usize
    }

    /// Makes room for `additional` ids at once, so that inserting them moves nothing.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let needed = (self.count + additional).saturating_mul(4) / 3 + 1;
        if needed <= self.slots.len() {
            return;
        }
        // In use everywhere in a moment.
        let old = std::mem::replace(&mut self.slots, present(needed.next_power_of_two()));
        for slot in old.into_iter().filter(|slot| !is_free(*slot)) {
            self.place(slot);
        }
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut i = self.start(prefix_in(slot));
        while !is_free(self.slots[i]) {
            i = (i + 1) & mask;
        }
        self.slots[i] = slot;
    }

    /// Brings the slots of `prefixes` into the cache. Loads without branches on what they bring overlap; going through the ids one by one
    /// would wait for main memory each time.
    pub(crate) fn touch(&self, prefixes: &[u64]) {
        std::hint::black_box(prefixes.iter().fold(0, |sum, prefix| sum ^ self.slots[self.start(*prefix)][2]));
    }

    /// Adds ids by their prefixes, at positions from `position` on, all below `u32::MAX`.
    pub(crate) fn insert_all(&mut self, prefixes: impl ExactSizeIterator<Item = u64>, mut position: u32) {
        self.reserve(prefixes.len());
        self.count += prefixes.len();
        let mut group = [0; GROUP_IDS];
        let mut prefixes = prefixes.peekable();
        while prefixes.peek().is_some() {
            let mut count = 0;
            for (member, prefix) in group.iter_mut().zip(prefixes.by_ref()) {
                *member = prefix;
                count += 1;
            }
            self.touch(&group[..count]);
            for prefix in &group[..count] {
                self.place(slot(*prefix, position));
                position += 1;
            }
        }
    }

    /// Positions of ids that begin with `prefix`, those inserted first in front.
    pub(crate) fn find(&self, prefix: u64) -> impl Iterator<Item = u32> + '_ {
        let mask = self.slots.len() - 1;
        let start = self.start(prefix);
        let chain = (0..self.slots.len()).map(move |i| self.slots[(start + i) & mask]);
        chain
            .take_while(|slot| !is_free(*slot))
            .filter(move |slot| prefix_in(*slot) == prefix)
            .map(|slot| slot[2] - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_inserted_is_found_at_all_its_positions_and_no_other_is() {
        inserted_prefixes_are_found(IdTable::new(0));
        inserted_prefixes_are_found(IdTable::prepared(30_000));
    }

    fn inserted_prefixes_are_found(mut table: IdTable) {
        let mut random = crate::sim::SimRandom::new(7);
        let mut prefixes: Vec<u64> = (0..20_000).map(|_| random.next_u64()).collect();
        // The edges, and neighbours that a weak hash would pile up.
        prefixes.extend([0, u64::MAX, 1, 2, 3]);
        prefixes.extend((0..1_000).map(|i| 0xabcd << 48 | i));
        for (i, some) in prefixes.chunks(1_000).enumerate() {
            table.insert_all(some.iter().copied(), 1_000 * i as u32);
        }
        table.insert_all(std::iter::once(prefixes[3]), 4_000_000);
        assert_eq!(table.len(), prefixes.len() + 1);
        for (position, prefix) in prefixes.iter().enumerate() {
            let found: Vec<u32> = table.find(*prefix).collect();
            let expected = if position == 3 { vec![3, 4_000_000] } else { vec![position as u32] };
            assert_eq!(found, expected);
        }
        assert!((0..20_000).all(|_| table.find(random.next_u64()).next().is_none()));
        assert_eq!(table.entries().count(), table.len());
    }

    #[test]
    fn a_prepared_table_takes_what_it_was_prepared_for_without_growing() {
        for expected in [0, 1, 3_071, 3_072, 3_073, 250_000] {
            let mut table = IdTable::prepared(expected);
            let slots = table.slots.len();
            assert!(table.capacity() >= expected, "{expected}: {}", table.capacity());
            let mut random = crate::sim::SimRandom::new(expected as u64);
            let prefixes: Vec<u64> = (0..expected).map(|_| random.next_u64()).collect();
            table.insert_all(prefixes.into_iter(), 0);
            assert_eq!((table.len(), table.slots.len()), (expected, slots));
        }
    }
}
