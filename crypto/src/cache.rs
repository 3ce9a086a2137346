//! A bounded cache of decoded keys, shared by threads: from the 32 bytes of a key to whatever a backend derives
//! from them (decoding costs a square root, about a quarter of the whole verification).
//!
//! Layout: `shards` locks, each over a table of sets of [`WAYS`] slots, all allocated at creation; nothing grows
//! later. A key belongs to one set, chosen by a hash with a secret of this process, so that nobody can aim at one
//! set. A full set evicts the slot that was not used since its last sweep (one bit per slot: the clock algorithm).
//! 15 bits of the hash stand apart from the slots, close together: a look-up reads the one slot that has the key, and the
//! processor need not wait for that one before it begins the next look-up.
//!
//! Memory: capacity x (34 + size of the value, rounded up to alignment, + 3); with [`crate::serial::DecodedKey`]
//! 203 bytes a key, so 65,536 keys cost 13 MB.
//!
//! A cache can change how long a verdict takes, never what it is: a value is a pure function of its key. Callers
//! store a key after a valid signature, so that junk keys displace nobody.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Slots per set. Four keep the tail of unlucky sets short and make a look-up touch at most four keys.
pub const WAYS: usize = 4;

/// Locks, enough that a few dozen threads seldom meet.
const SHARDS_MAX: usize = 64;

/// Look-ups of [`Reader::get_each`] under way at once.
const TOGETHER: usize = 16;

struct Slot<V> {
    key: [u8; 32],
    value: V,
    /// As in [`Set::tags`]. That it is never 0 lets an empty slot do without a word of its own.
    tag: NonZeroU16,
}

/// What a look-up reads of a set before it knows the slot.
#[derive(Default)]
struct Set {
    /// Bits of the keys' hashes and a one; 0 for an empty slot.
    tags: [u16; WAYS],
    used: [AtomicBool; WAYS],
}

struct Shard<V> {
    /// A power of two of them, or none.
    sets: Box<[Set]>,
    slots: Box<[[Option<Slot<V>>; WAYS]]>,
}

/// Where a key belongs.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    /// Before it is reduced to the number of sets.
    set: usize,
    tag: NonZeroU16,
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
        let shard = || {
            RwLock::new(Shard {
                sets: (0..sets / shards).map(|_| Set::default()).collect(),
                slots: (0..sets / shards).map(|_| Default::default()).collect(),
            })
        };
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
        let place = self.place(key);
        read(&self.shards[place.shard]).get(place, key).cloned()
    }

    /// All shards locked for reading, for as many look-ups as a batch has: a lock per look-up would keep the processor
    /// from waiting for several of them at once.
    pub(crate) fn reader(&self) -> Reader<'_, V> {
        Reader { cache: self, shards: self.shards.iter().map(read).collect() }
    }

    /// Stores `value` for `key`, in place of an empty slot or of one not used lately.
    pub fn insert(&self, key: &[u8; 32], value: V) {
        let place = self.place(key);
        let mut shard = write(&self.shards[place.shard]);
        let Some(last) = shard.sets.len().checked_sub(1) else { return };
        let Shard { sets, slots } = &mut *shard;
        let (set, slots) = (&mut sets[place.set & last], &mut slots[place.set & last]);
        let is_same = |slot: &Slot<V>| slot.tag == place.tag && slot.key == *key;
        let same = slots.iter().position(|slot| slot.as_ref().is_some_and(is_same));
        let way = same
            .or_else(|| slots.iter().position(Option::is_none))
            .or_else(|| set.used.iter_mut().position(|used| !*used.get_mut()))
            .unwrap_or_else(|| {
                // Every slot was used since the last sweep: clear the marks and take the first.
                set.used = Default::default();
                0
            });
        slots[way] = Some(Slot { key: *key, value, tag: place.tag });
        set.tags[way] = place.tag.get();
        *set.used[way].get_mut() = false;
    }

    fn place(&self, key: &[u8; 32]) -> Place {
        let hash = self.hasher.hash(key);
        Place {
            // A power of two of them.
            shard: (hash >> 32) as usize & (self.shards.len() - 1),
            set: hash as u32 as usize,
            tag: NonZeroU16::MIN | (hash >> 48) as u16,
        }
    }
}

impl<V> Shard<V> {
    #[inline]
    fn get(&self, place: Place, key: &[u8; 32]) -> Option<&V> {
        self.tagged(place).find(|(slot, _)| slot.key == *key).map(|(slot, used)| slot.take(used))
    }

    /// The slots of the key's set with its tag, each with its mark.
    #[inline]
    fn tagged(&self, place: Place) -> impl Iterator<Item = (&Slot<V>, &AtomicBool)> {
        let at = place.set & self.sets.len().wrapping_sub(1);
        let both = self.sets.get(at).zip(self.slots.get(at));
        both.into_iter().flat_map(move |(set, slots)| {
            let tagged = (0..WAYS).filter(move |&way| set.tags[way] == place.tag.get());
            tagged.filter_map(move |way| Some((slots[way].as_ref()?, &set.used[way])))
        })
    }
}

impl<V> Slot<V> {
    #[inline]
    fn take(&self, used: &AtomicBool) -> &V {
        // Written only when it changes: a line that all threads read stays shared.
        if !used.load(Relaxed) {
            used.store(true, Relaxed);
        }
        &self.value
    }
}

/// A view of the whole cache. The thread that holds it must drop it before it calls the cache itself: an insert of its own
/// would wait for ever, and so may a read behind another thread's insert.
pub(crate) struct Reader<'a, V> {
    cache: &'a KeyCache<V>,
    shards: Vec<RwLockReadGuard<'a, Shard<V>>>,
}

impl<V: Clone> Reader<'_, V> {
    /// Calls `found` with the number and the value of each of `keys` that is there.
    ///
    /// Slots are picked by their tags for several keys before the first key is compared: their lines then come from far
    /// away together, while a comparison keeps the processor from what is some keys behind it.
    pub(crate) fn get_each(&self, keys: &[[u8; 32]], mut found: impl FnMut(usize, &V)) {
        for (group, keys) in keys.chunks(TOGETHER).enumerate() {
            let mut picked = [None; TOGETHER];
            for (picked, key) in picked.iter_mut().zip(keys) {
                let place = self.cache.place(key);
                *picked = self.shards[place.shard].tagged(place).next();
            }
            for (number, (picked, key)) in picked.iter().zip(keys).enumerate() {
                let Some((slot, used)) = *picked else { continue };
                let value = if slot.key == *key { Some(slot.take(used)) } else { self.get(key) };
                if let Some(value) = value {
                    found(group * TOGETHER + number, value);
                }
            }
        }
    }

    /// As [`KeyCache::get`].
    fn get(&self, key: &[u8; 32]) -> Option<&V> {
        let place = self.cache.place(key);
        self.shards[place.shard].get(place, key)
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

    #[test]
    fn an_empty_slot_takes_no_word_more() {
        assert_eq!(size_of::<Option<Slot<[u64; 21]>>>(), size_of::<Slot<[u64; 21]>>());
    }

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
        let keys: Vec<_> = (0..1500).map(key).collect();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (500..1500).for_each(|number| cache.insert(&key(number), number)));
            for _ in 0..20 {
                let reader = cache.reader();
                reader.get_each(&keys, |number, found| assert_eq!(*found, number as u64));
            }
            writer.join().unwrap();
        });
        let mut found = Vec::new();
        cache.reader().get_each(&keys, |number, value| found.push((number, *value)));
        assert!(found.iter().all(|&(number, value)| value == number as u64));
        assert!(found.is_sorted_by(|(one, _), (next, _)| one < next));
        assert!(found.len() > 1300, "only {} of 1500 keys are there", found.len());
    }

    /// A tag has 15 bits: among so many keys in one set some have the tag of a key that is there.
    #[test]
    fn keys_that_share_set_and_tag_are_told_apart() {
        let cache = KeyCache::new(WAYS);
        (0..4).for_each(|number| cache.insert(&key(number), number));
        let keys: Vec<_> = (0..200_000).map(key).collect();
        let tags: Vec<_> = keys[..4].iter().map(|key| cache.place(key).tag).collect();
        assert!(keys[4..].iter().any(|key| tags.contains(&cache.place(key).tag)));
        let mut found = Vec::new();
        cache.reader().get_each(&keys, |number, value| found.push((number, *value)));
        assert_eq!(found, [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert!(keys[4..].iter().all(|key| cache.get(key).is_none()));
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
