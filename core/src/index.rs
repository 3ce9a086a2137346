//! A fixed-size open-addressing index from 32-byte keys to slot numbers: what the bounded tables of this
//! crate share.
//!
//! Owns the keyed hash and the probing. Invariants: the table is at most half full, so a probe is short;
//! slots are found by a secret seed, so that nobody outside can choose ids or keys that fall together;
//! removal shifts later entries back and leaves no tombstones, so the table never has to be rebuilt. Keys
//! themselves are kept by the owner of the slots, which says whether a candidate is equal.

use alloc::vec;
use alloc::vec::Vec;

/// Slots of one index, at most: numbers are 32 bits wide and the table is at least twice as large.
pub(crate) const SLOTS_MAX: usize = 1 << 30;

/// Hash of a key under the table's seed: where to look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u32);

/// The index. 16 to 32 bytes a slot.
#[derive(Debug)]
pub(crate) struct SlotIndex {
    /// Hash in the high half, slot number plus one in the low half; 0 where there is nothing.
    table: Vec<u64>,
    /// Bits of a hash that do not number the table.
    shift: u32,
    seed: [u64; 4],
}

impl SlotIndex {
    /// An index for at most `slots` slots (at most [`SLOTS_MAX`]). `seed` is any value that is not known
    /// outside the process.
    pub(crate) fn new(slots: usize, seed: u64) -> Self {
        let length = (2 * slots.clamp(1, SLOTS_MAX)).next_power_of_two();
        let mut random = crate::random::SplitMix64::new(seed);
        let seed = core::array::from_fn(|_| crate::random::RandomSource::next_u64(&mut random));
        let mut table = vec![0; length];
        // Zeroed memory of this size comes from the system without pages behind it. A page whose first use is a probe costs twice: one
        // fault maps the page of zeros that all processes share, the next replaces it and interrupts every other core to forget it. On
        // two virtual cores that made the first second of a node a pause of 80 ms. Written here, each page costs one fault. The hint
        // hides from the compiler that zeros are there already.
        core::hint::black_box(&mut table[..]).fill(0);
        Self { table, shift: u32::BITS - length.trailing_zeros(), seed }
    }

    /// Two folded 64 x 64 -> 128 bit multiplications: ids and keys are hash outputs or curve points, all that
    /// is needed is that their slots cannot be told without the seed.
    pub(crate) fn hash(&self, key: &[u8; 32]) -> KeyHash {
        let mut words = [0; 4];
        for (i, (word, bytes)) in words.iter_mut().zip(key.chunks_exact(8)).enumerate() {
            let mut array = [0; 8];
            array.copy_from_slice(bytes);
            *word = u64::from_le_bytes(array) ^ self.seed[i];
        }
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let mixed = fold(words[0], words[1]) ^ fold(words[2], words[3]).rotate_left(32);
        KeyHash((mixed ^ mixed >> 32) as u32)
    }

    fn mask(&self) -> usize {
        self.table.len() - 1
    }

    fn home(&self, hash: u32) -> usize {
        (hash >> self.shift) as usize
    }

    /// The slot of the key with this hash, where `is_equal` says whether a slot holds the key.
    pub(crate) fn find(&self, hash: KeyHash, mut is_equal: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash.0);
        loop {
            let entry = self.table[at];
            if entry == 0 {
                return None;
            }
            let slot = entry as u32 - 1;
            if (entry >> 32) as u32 == hash.0 && is_equal(slot) {
                return Some(slot);
            }
            at = (at + 1) & self.mask();
        }
    }

    /// What lies where a look-up of a key with this hash begins. Reading it for many keys, without a branch on what is
    /// read, overlaps their cache misses: looking the keys up one by one would wait for main memory each time.
    pub(crate) fn touch(&self, hash: KeyHash) -> u64 {
        self.table[self.home(hash.0)]
    }

    /// The first slot whose key has this hash, and most likely the one looked for: its owner compares no keys yet.
    pub(crate) fn candidate(&self, hash: KeyHash) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// Enters a slot. The caller has made sure that its key is not there and that no more than the agreed
    /// number of slots are.
    pub(crate) fn insert(&mut self, hash: KeyHash, slot: u32) {
        let mut at = self.home(hash.0);
        while self.table[at] != 0 {
            at = (at + 1) & self.mask();
        }
        self.table[at] = u64::from(hash.0) << 32 | u64::from(slot + 1);
    }

    /// Takes a slot out. Nothing happens when it is not there.
    pub(crate) fn remove(&mut self, hash: KeyHash, slot: u32) {
        let wanted = u64::from(hash.0) << 32 | u64::from(slot + 1);
        let mut hole = self.home(hash.0);
        while self.table[hole] != wanted {
            if self.table[hole] == 0 {
                return;
            }
            hole = (hole + 1) & self.mask();
        }
        // Entries behind the hole move into it unless that puts them before their home.
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask();
            let entry = self.table[at];
            if entry == 0 {
                break;
            }
            let from_home = at.wrapping_sub(self.home((entry >> 32) as u32)) & self.mask();
            if from_home >= (at.wrapping_sub(hole) & self.mask()) {
                self.table[hole] = entry;
                hole = at;
            }
        }
        self.table[hole] = 0;
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::random::{RandomSource, SplitMix64};

    #[test]
    fn the_index_agrees_with_a_map_through_random_insertions_and_removals() {
        for slots in [1usize, 2, 7, 64] {
            let mut random = SplitMix64::new(slots as u64);
            let mut index = SlotIndex::new(slots, 99);
            let mut keys = vec![[0u8; 32]; slots];
            let mut twin: BTreeMap<[u8; 32], u32> = BTreeMap::new();
            let mut free: Vec<u32> = (0..slots as u32).collect();
            let (mut hits, mut misses) = (0, 0);
            for _ in 0..20_000 {
                let mut key = [0; 32];
                key[5] = random.below(slots as u64 * 2) as u8;
                let hash = index.hash(&key);
                let found = index.find(hash, |slot| keys[slot as usize] == key);
                assert_eq!(found, twin.get(&key).copied());
                match (found, free.pop()) {
                    (Some(slot), spare) => {
                        hits += 1;
                        free.extend(spare);
                        index.remove(hash, slot);
                        twin.remove(&key);
                        free.push(slot);
                    }
                    (None, Some(slot)) => {
                        misses += 1;
                        keys[slot as usize] = key;
                        index.insert(hash, slot);
                        twin.insert(key, slot);
                    }
                    (None, None) => index.remove(hash, 0x1234),
                }
            }
            assert!(hits > 1_000 && misses > 1_000, "{hits} hits, {misses} misses");
            assert_eq!(index.table.iter().filter(|entry| **entry != 0).count(), twin.len());
        }
    }

    #[test]
    fn keys_that_agree_in_all_but_a_few_bytes_do_not_fall_together() {
        // What somebody without the seed can do at most: grind ids or keys until they agree in many bits.
        for at in [0, 5, 12, 24] {
            let index = SlotIndex::new(4_096, 0x5eed);
            let mut homes = vec![0u32; index.table.len()];
            for number in 0..4_096u64 {
                let mut key = [0xaa; 32];
                key[at..at + 8].copy_from_slice(&number.to_le_bytes());
                homes[index.home(index.hash(&key).0)] += 1;
            }
            let most = homes.iter().max().copied().unwrap_or(0);
            assert!(most <= 10, "{most} keys in one place");
        }
    }
}
