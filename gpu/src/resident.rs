//! Which keys' decoded x stays on the device, and where: the host's side of the resident store.
//!
//! Owns the map from key to entry, what is admitted, and what is pushed out. The entries lie in the device's `points` buffer behind
//! the rows (`weft_shaders::bindings`): x, and the key that it belongs to. An entry is filled by the first batch after its admission
//! that has its key, and used without decoding from the same batch on.
//!
//! Invariants: a batch's places are made and the batch is submitted under one lock, so that the device fills and uses entries in the
//! order in which they were given out here; at most `capacity` entries, all of this module's memory grows with that alone; a key gets
//! in only through `Residents::admit`, which the guard calls for keys of accepted signatures. Correctness does not rest on any of
//! it: a row whose entry holds another key is refused by the device, and refusals are decided by the CPU.

use std::collections::HashMap;

use weft_crypto::Columns;
use weft_shaders::bindings::{KEY_WORDS, POINT_WORDS, RESIDENT_WORDS};

/// Bytes of an entry on the device.
pub const ENTRY_BYTES: u64 = RESIDENT_WORDS as u64 * 4;
/// The most memory that can be asked for: places are counted in 8 bytes by 32-bit words, and the host's map of so many keys takes
/// 17 GB already.
pub const BYTES_MAX: u64 = 8 << 30;

/// What the store holds and did, counted since the device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResidentCounts {
    /// Keys that fit.
    pub capacity: u64,
    /// Keys in it now, filled or to be filled by their next batch.
    pub keys: u64,
    /// Rows whose key was not decoded, since it was there.
    pub hits: u64,
    /// Entries filled.
    pub fills: u64,
    /// Keys pushed out by others.
    pub evictions: u64,
}

struct Entry {
    key: [u8; 32],
    /// Whether a submitted batch writes it.
    filled: bool,
    /// Whether it was used since the hand last passed.
    used: bool,
}

/// The store.
pub(crate) struct Residents {
    /// The first entry's place, in pairs of words.
    first: usize,
    /// Hashed with a random key (the standard library's): nobody can choose keys that collide.
    by_key: HashMap<[u8; 32], u32>,
    entries: Vec<Entry>,
    /// Where the next search for an entry to reuse begins.
    hand: usize,
    counts: ResidentCounts,
}

/// A batch's places and list, as the kernels read them (`memory.wgsl`).
pub(crate) struct Places {
    pub(crate) places: Vec<u32>,
    pub(crate) list: Vec<u32>,
}

impl Residents {
    /// An empty store of `capacity` entries behind `rows` rows.
    pub(crate) fn new(rows: usize, capacity: usize) -> Self {
        Residents {
            first: rows * POINT_WORDS / 2,
            by_key: HashMap::new(),
            entries: Vec::new(),
            hand: 0,
            counts: ResidentCounts { capacity: capacity as u64, ..ResidentCounts::default() },
        }
    }

    pub(crate) fn counts(&self) -> ResidentCounts {
        ResidentCounts { keys: self.entries.len() as u64, ..self.counts }
    }

    /// The place of an entry, in pairs of words.
    fn place(&self, entry: u32) -> u32 {
        // Below 2^32: the buffer is.
        (self.first + entry as usize * RESIDENT_WORDS / 2) as u32
    }

    /// Where each row's x is, and which rows decode theirs. Rows below `from` decode, whatever is known. Entries without x are
    /// counted as filled by this batch: the caller submits it before anybody else asks.
    pub(crate) fn assign(&mut self, parts: &[Columns<'_>], from: usize) -> Places {
        let rows: usize = parts.iter().map(Columns::len).sum();
        let mut out = Places { places: Vec::with_capacity(rows), list: Vec::with_capacity(rows) };
        for (row, key) in parts.iter().flat_map(|part| part.keys).enumerate() {
            let entry =
                if row < from || self.entries.is_empty() { None } else { self.by_key.get(key).copied() };
            let Some(entry) = entry else {
                out.places.push((row * POINT_WORDS / 2) as u32);
                out.list.push(row as u32);
                continue;
            };
            out.places.push(self.place(entry));
            let entry = &mut self.entries[entry as usize];
            if entry.filled {
                entry.used = true;
                self.counts.hits += 1;
            } else {
                entry.filled = true;
                self.counts.fills += 1;
                out.list.push(row as u32);
            }
        }
        out
    }

    /// Gives a key an entry, unless it has one: a free one, or the first behind the hand that was not used since the hand last passed
    /// it ("second chance"). A key that is never seen again so makes room for the next one, and one in use stays.
    pub(crate) fn admit(&mut self, key: &[u8; 32]) -> bool {
        if self.counts.capacity == 0 || self.by_key.contains_key(key) {
            return false;
        }
        let fresh = Entry { key: *key, filled: false, used: false };
        if (self.entries.len() as u64) < self.counts.capacity {
            self.by_key.insert(*key, self.entries.len() as u32);
            self.entries.push(fresh);
            return true;
        }
        // Ends within two rounds: the first one takes every mark away.
        while self.entries[self.hand].used {
            self.entries[self.hand].used = false;
            self.hand = (self.hand + 1) % self.entries.len();
        }
        let old = std::mem::replace(&mut self.entries[self.hand], fresh);
        self.by_key.remove(&old.key);
        self.by_key.insert(*key, self.hand as u32);
        self.hand = (self.hand + 1) % self.entries.len();
        self.counts.evictions += 1;
        true
    }

    /// Forgets every key.
    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.entries.clear();
        self.hand = 0;
    }
}

/// Entries that `bytes` hold where a binding can have `binding_bytes` and the rows take `rows` of it.
pub(crate) fn capacity(bytes: u64, binding_bytes: u64, rows: usize) -> usize {
    let room = binding_bytes.saturating_sub(rows as u64 * POINT_WORDS as u64 * 4);
    usize::try_from(bytes.min(BYTES_MAX).min(room) / ENTRY_BYTES).unwrap_or(0)
}

const _: () = assert!(RESIDENT_WORDS.is_multiple_of(2) && POINT_WORDS.is_multiple_of(2));
const _: () = assert!(KEY_WORDS * 4 == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use weft_crypto::Messages;

    fn key(n: u8) -> [u8; 32] {
        [n; 32]
    }

    fn assign(store: &mut Residents, keys: &[[u8; 32]], from: usize) -> (Vec<u32>, Vec<u32>) {
        let signatures = vec![[0; 64]; keys.len()];
        let columns = Columns { keys, messages: Messages::Ids(keys), signatures: &signatures };
        let Places { places, list } = store.assign(&[columns], from);
        (places, list)
    }

    #[test]
    fn a_key_is_decoded_once_for_its_entry_and_then_never_again() {
        let mut store = Residents::new(100, 4);
        let keys = [key(1), key(2), key(1)];
        assert_eq!(assign(&mut store, &keys, 0), (vec![0, 20, 40], vec![0, 1, 2]), "nothing known");
        assert!(store.admit(&key(1)) && !store.admit(&key(1)));
        assert_eq!(
            assign(&mut store, &keys, 0),
            (vec![2000, 20, 2000], vec![0, 1]),
            "row 0 fills for row 2, too"
        );
        assert_eq!(assign(&mut store, &keys, 0), (vec![2000, 20, 2000], vec![1]));
        assert_eq!(assign(&mut store, &keys, 1), (vec![0, 20, 2000], vec![0, 1]), "row 0 decodes");
        let counts = store.counts();
        assert_eq!((counts.keys, counts.fills, counts.hits, counts.evictions), (1, 1, 4, 0));
    }

    #[test]
    fn a_full_store_pushes_out_what_is_not_used_and_keeps_what_is() {
        let mut store = Residents::new(10, 3);
        (1..=3).for_each(|n| assert!(store.admit(&key(n))));
        let _ = assign(&mut store, &[key(1), key(2), key(3)], 0);
        let _ = assign(&mut store, &[key(1)], 0);
        // A stream of keys that are seen once: they push out each other, and key 1 lives on while it is used.
        for n in 10..60 {
            assert!(store.admit(&key(n)));
            let (_, list) = assign(&mut store, &[key(1)], 0);
            assert!(list.is_empty(), "key 1 is there after {n}");
        }
        assert_eq!((store.counts().keys, store.counts().evictions), (3, 50));
        let (places, list) = assign(&mut store, &[key(2), key(3), key(59)], 0);
        assert_eq!(
            (&places[..2], list),
            (&[0, 20][..], vec![0, 1, 2]),
            "pushed out; the last one is to be filled"
        );
        store.clear();
        assert_eq!(store.counts().keys, 0);
        assert_eq!(assign(&mut store, &[key(1)], 0).1, [0]);
    }

    #[test]
    fn the_store_fits_the_binding_behind_the_rows() {
        assert_eq!(capacity(7200, 1 << 30, 1000), 100);
        assert_eq!(capacity(7200, 160_000 + 720, 1000), 10);
        assert_eq!(capacity(7200, 1000, 1000), 0);
        let mut none = Residents::new(10, 0);
        assert!(!none.admit(&key(1)));
    }
}
