//! A bounded cache of decoded keys, shared by threads: from the 32 bytes of a key to whatever a backend derives
//! from them (decoding costs a square root, about a quarter of the whole verification).
//!
//! Layout: `shards` locks, each over a table of sets of [`WAYS`] slots, all allocated at creation; nothing grows
//! later. A key belongs to one set, chosen by a hash with a secret of this process, so that nobody can aim at one
//! set. A full set evicts the slot that was not used since its last sweep (one bit per slot: the clock algorithm).
//!
//! Memory: capacity x (32 + size of the value + 1, rounded up to alignment); with [`crate::serial::DecodedKey`]
//! 200 bytes a key, so 65,536 keys cost 13 MB.
//!
//! A cache can change how long a verdict takes, never what it is: a value is a pure function of its key. Callers
//! store a key after a valid signature, so that junk keys displace nobody.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Slots per set. Four keep the tail of unlucky sets short and make a look-up touch at most four keys.
pub const WAYS: usize = 4;

/// Locks, enough that a few dozen threads seldom meet.
const SHARDS_MAX: usize = 64;

struct Slot<V> {
    key: [u8; 32],
    value: V,
    used: AtomicBool,
}

struct Shard<V> {
    sets: Box<[[Option<Slot<V>>; WAYS]]>,
}

/// A hash of keys with a secret of its own: two multiplications, folded. Nobody can aim at collisions without the secret;
/// it is no cryptographic hash, and needs to be none, since collisions cost time only.
pub(crate) struct KeyHasher {
    secret: [u64; 2],
}

impl KeyHasher {
    pub(crate) fn new() -> Self {
        let random = RandomState::new();
        Self { secret: [random.hash_one(0_u64) | 1, random.hash_one(1_u64) | 1] }
    }

    pub(crate) fn hash(&self, key: &[u8; 32]) -> u64 {
        let mix = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let chunks = key.as_chunks::<8>().0;
        let word = |place: usize| u64::from_le_bytes(chunks[place]);
        let [low, high] = self.secret;
        let first = mix(word(0) ^ high, word(1) ^ low);
        mix(first ^ word(2) ^ low, word(3) ^ high ^ first.rotate_left(32))
    }
}

/// The cache. `V` is what a backend keeps per key.
pub struct KeyCache<V> {
    shards: Box<[RwLock<Shard<V>>]>,
    hasher: KeyHasher,
}

impl<V: Clone> KeyCache<V> {
    /// A cache with room for at least `capacity` keys, rounded up to whole sets and a power of two of them. With a
    /// `capacity` of 0 nothing is ever stored.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let sets = if capacity == 0 { 0 } else { capacity.div_ceil(WAYS).next_power_of_two() };
        let shards = sets.clamp(1, SHARDS_MAX);
        let shard = || RwLock::new(Shard { sets: (0..sets / shards).map(|_| Default::default()).collect() });
        Self { shards: (0..shards).map(|_| shard()).collect(), hasher: KeyHasher::new() }
    }

    /// How many keys fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shards.iter().map(|shard| read(shard).sets.len() * WAYS).sum()
    }

    /// The value stored for `key`, if it is still there.
    #[must_use]
    pub fn get(&self, key: &[u8; 32]) -> Option<V> {
        let (shard, set) = self.place(key);
        read(&self.shards[shard]).get(set, key).cloned()
    }

    /// All shards locked for reading, for as many look-ups as a batch has: a lock per look-up would keep the processor
    /// from waiting for several of them at once.
    pub(crate) fn reader(&self) -> Reader<'_, V> {
        Reader { cache: self, shards: self.shards.iter().map(read).collect() }
    }

    /// Stores `value` for `key`, in place of an empty slot or of one not used lately.
    pub fn insert(&self, key: &[u8; 32], value: V) {
        let (shard, set) = self.place(key);
        let mut shard = write(&self.shards[shard]);
        let length = shard.sets.len();
        if length == 0 {
            return;
        }
        let slots = &mut shard.sets[set % length];
        let same = slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| slot.key == *key));
        let victim = same
            .or_else(|| slots.iter().position(Option::is_none))
            .or_else(|| {
                slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| !slot.used.load(Relaxed)))
            })
            .unwrap_or_else(|| {
                // Every slot was used since the last sweep: clear the marks and take the first.
                slots.iter_mut().flatten().for_each(|slot| slot.used.store(false, Relaxed));
                0
            });
        slots[victim] = Some(Slot { key: *key, value, used: AtomicBool::new(false) });
    }

    fn place(&self, key: &[u8; 32]) -> (usize, usize) {
        let hash = self.hasher.hash(key);
        let shard = (hash >> 32) as usize % self.shards.len();
        (shard, hash as u32 as usize)
    }
}

impl<V> Shard<V> {
    fn get(&self, set: usize, key: &[u8; 32]) -> Option<&V> {
        if self.sets.is_empty() {
            return None;
        }
        let slot = self.sets[set % self.sets.len()].iter().flatten().find(|slot| slot.key == *key)?;
        // Written only when it changes: a line that all threads read stays shared.
        if !slot.used.load(Relaxed) {
            slot.used.store(true, Relaxed);
        }
        Some(&slot.value)
    }
}

/// A view of the whole cache. The thread that holds it must drop it before it calls the cache itself: an insert of its own
/// would wait for ever, and so may a read behind another thread's insert.
pub(crate) struct Reader<'a, V> {
    cache: &'a KeyCache<V>,
    shards: Vec<RwLockReadGuard<'a, Shard<V>>>,
}

impl<V: Clone> Reader<'_, V> {
    /// As [`KeyCache::get`].
    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<&V> {
        let (shard, set) = self.cache.place(key);
        self.shards[shard].get(set, key)
    }
}

// A thread that panicked while it held a lock left a whole slot or none, so the table can be used further.
fn read<V>(shard: &RwLock<Shard<V>>) -> RwLockReadGuard<'_, Shard<V>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<V>(shard: &RwLock<Shard<V>>) -> RwLockWriteGuard<'_, Shard<V>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> [u8; 32] {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        key
    }

    #[test]
    fn a_stored_key_is_found_again_and_an_unknown_one_is_not() {
        let cache = KeyCache::new(1000);
        for number in 0..500 {
            cache.insert(&key(number), number);
        }
        let found = (0..500).filter(|&number| cache.get(&key(number)) == Some(number)).count();
        assert!(found > 450, "only {found} of 500 keys survived in a cache for {}", cache.capacity());
        assert_eq!(cache.get(&key(1 << 40)), None);
    }

    #[test]
    fn a_reader_sees_what_was_stored_while_other_threads_store_more() {
        let cache = KeyCache::new(4096);
        (0..500).for_each(|number| cache.insert(&key(number), number));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (500..1500).for_each(|number| cache.insert(&key(number), number)));
            for _ in 0..20 {
                let reader = cache.reader();
                for number in 0..1500 {
                    assert!(reader.get(&key(number)).is_none_or(|found| *found == number));
                }
            }
            writer.join().unwrap();
        });
        let reader = cache.reader();
        let found = (0..1500).filter(|&number| reader.get(&key(number)) == Some(&number)).count();
        assert!(found > 1300, "only {found} of 1500 keys are there");
    }

    #[test]
    fn the_cache_never_holds_more_than_its_capacity() {
        let cache = KeyCache::new(64);
        assert_eq!(cache.capacity(), 64);
        for number in 0..10_000 {
            cache.insert(&key(number), number);
        }
        let held = (0..10_000).filter(|&number| cache.get(&key(number)).is_some()).count();
        assert!((1..=64).contains(&held), "{held} keys held");
    }

    #[test]
    fn a_cache_of_capacity_zero_stores_nothing() {
        let cache = KeyCache::new(0);
        cache.insert(&key(1), 1);
        assert_eq!(cache.get(&key(1)), None);
        assert_eq!(cache.capacity(), 0);
    }

    #[test]
    fn a_key_in_use_outlives_a_stream_of_keys_used_once() {
        let cache = KeyCache::new(WAYS);
        cache.insert(&key(0), 0);
        let mut lost = 0;
        for number in 1..2000 {
            if cache.get(&key(0)).is_none() {
                lost += 1;
                cache.insert(&key(0), 0);
            }
            cache.insert(&key(number), number);
        }
        assert!(lost < 20, "the key in use was evicted {lost} times");
    }

    #[test]
    fn inserting_a_key_again_replaces_its_value() {
        let cache = KeyCache::new(16);
        cache.insert(&key(5), 1);
        cache.insert(&key(5), 2);
        assert_eq!(cache.get(&key(5)), Some(2));
    }
}
