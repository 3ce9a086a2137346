//! The window of recent message ids: where the last so many messages lie.
//!
//! Owns a fixed-capacity map from id to [`Place`]: duplicates are told and parents found without asking the
//! log. Invariants: it holds exactly the last `capacity` ids that were entered, the oldest leaves first;
//! memory is fixed at construction. What is older is the storage's to find.
//!
//! Memory: 40 bytes an id in the ring plus 16 to 32 in the index; a million ids are 56 to 72 MB.

use alloc::vec::Vec;

use crate::ids::{MessageId, Place};
use crate::index::{SLOTS_MAX, SlotIndex};

/// Ids of one window, at most.
pub const RECENT_IDS_MAX: usize = SLOTS_MAX;

/// The last ids, first in, first out.
#[derive(Debug)]
pub struct RecentIds {
    index: SlotIndex,
    ring: Vec<(MessageId, Place)>,
    /// Slot that is written next; the oldest one once the ring is full.
    next: usize,
    capacity: usize,
}

impl RecentIds {
    /// A window of `capacity` ids (cut to 1..=[`RECENT_IDS_MAX`]). `seed` is any number not known outside the
    /// process: it keeps ground ids from falling together.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(1, RECENT_IDS_MAX);
        Self { index: SlotIndex::new(capacity, seed), ring: Vec::with_capacity(capacity), next: 0, capacity }
    }

    /// Ids in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Ids that the window can hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where the message lies, if it is in the window.
    #[must_use]
    pub fn get(&self, id: &MessageId) -> Option<Place> {
        let slot = self.index.find(self.index.hash(&id.0), |slot| self.ring[slot as usize].0 == *id)?;
        Some(self.ring[slot as usize].1)
    }

    /// Brings into the caches what looking up `ids` will read, and what letting the `entering` oldest ids go will. A
    /// window of a million ids is far larger than the caches, and one look-up after the other would wait for main
    /// memory each time; here the waiting overlaps. For some tens of ids at a time. Changes no answer.
    pub fn touch<'a>(&self, ids: impl Iterator<Item = &'a MessageId> + Clone, entering: usize) {
        let mut sum = 0;
        for id in ids.clone() {
            sum ^= self.index.touch(self.index.hash(&id.0));
        }
        if self.ring.len() == self.capacity {
            let (before, from) = self.ring.split_at(self.next);
            for (id, _) in from.iter().chain(before).take(entering) {
                sum ^= self.index.touch(self.index.hash(&id.0));
            }
        }
        for id in ids {
            if let Some(slot) = self.index.candidate(self.index.hash(&id.0)) {
                // An entry may lie in two lines.
                let (id, place) = &self.ring[slot as usize];
                sum ^= place.0 ^ u64::from(id.0[0]);
            }
        }
        core::hint::black_box(sum);
    }

    /// Enters an id, and lets the oldest one go if the window is full. An id that is in the window stays as
    /// and where it is; its place is handed back.
    pub fn insert(&mut self, id: MessageId, place: Place) -> Option<Place> {
        let hash = self.index.hash(&id.0);
        if let Some(slot) = self.index.find(hash, |slot| self.ring[slot as usize].0 == id) {
            return Some(self.ring[slot as usize].1);
        }
        if self.ring.len() < self.capacity {
            self.ring.push((id, place));
        } else {
            let oldest = &mut self.ring[self.next];
            self.index.remove(self.index.hash(&oldest.0.0), self.next as u32);
            *oldest = (id, place);
        }
        self.index.insert(hash, self.next as u32);
        self.next += 1;
        if self.next == self.capacity {
            self.next = 0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;

    use super::*;
    use crate::ids::LaneId;
    use crate::random::{RandomSource, SplitMix64};

    fn id(number: u64) -> MessageId {
        MessageId(crate::merkle::leaf_hash(&number.to_le_bytes()))
    }

    fn place(number: u64) -> Place {
        Place::new(LaneId(1), number)
    }

    #[test]
    fn the_last_ids_are_found_and_older_ones_are_gone() {
        let mut recent = RecentIds::new(100, 7);
        for number in 0..1_000 {
            assert_eq!(recent.insert(id(number), place(number)), None);
            let oldest = (number + 1).saturating_sub(100);
            assert_eq!(recent.len() as u64, number + 1 - oldest);
            assert_eq!(recent.get(&id(number)), Some(place(number)));
            assert_eq!(recent.get(&id(oldest)), Some(place(oldest)));
            assert_eq!(oldest.checked_sub(1).and_then(|older| recent.get(&id(older))), None);
            assert_eq!(recent.get(&id(number + 1)), None);
        }
        assert_eq!(recent.ring.capacity(), 100);
    }

    #[test]
    fn an_id_entered_again_keeps_its_first_place_and_its_age() {
        let mut recent = RecentIds::new(2, 7);
        recent.insert(id(1), place(1));
        recent.insert(id(2), place(2));
        assert_eq!(recent.insert(id(1), place(9)), Some(place(1)));
        recent.insert(id(3), place(3));
        assert_eq!(recent.get(&id(1)), None);
        assert_eq!(recent.get(&id(2)), Some(place(2)));
    }

    #[test]
    fn the_window_agrees_with_a_queue_on_random_ids() {
        for capacity in [1, 3, 16, 33] {
            let mut random = SplitMix64::new(capacity as u64);
            let mut recent = RecentIds::new(capacity, 1);
            let mut twin: VecDeque<(u64, u64)> = VecDeque::new();
            let mut repeats = 0;
            for step in 0..10_000 {
                let number = random.below(capacity as u64 * 2);
                let known = twin.iter().find(|entry| entry.0 == number).map(|entry| place(entry.1));
                assert_eq!(recent.insert(id(number), place(step)), known);
                repeats += u32::from(known.is_some());
                if known.is_none() {
                    twin.push_back((number, step));
                    if twin.len() > capacity {
                        twin.pop_front();
                    }
                }
            }
            assert!(repeats > 1_000);
        }
    }
}
