//! Which ids are in none of the older segments: one question to memory in place of one to each segment.
//!
//! Owns the filters over all sealed segments and the list that says which segments each covers. Invariants: a segment that a sieve covers
//! has all its ids in it, before the list says so; covered segments are a prefix of the list, and the sieves' ranges follow each other.
//! Ids are never taken out: those of segments that were cut only let more absent ids through.
//!
//! *Why.* Each message that comes in is looked for in the log, so that nothing is stored twice, and is almost never there. The segments'
//! own filters answer that with a cache miss or two for each segment, which grows with the log: a microsecond for 32 segments, 4.6 for 128
//! (bench `lookup`), so that the log of a day would have taken a core. A sieve is twice as large as everything before it, so
//! their number, and with it the price of an absent id, grows with the logarithm of the log (Almeida, Baquero, Preguica, Hutchison,
//! "Scalable Bloom Filters", 2007). Each is a blocked Bloom filter like those in the index files, with 16 bits an id: about one absent
//! id in 500 is let through by it, and then asks the segments of that sieve.
//!
//! Memory: 2 bytes a message when a sieve is full, 4 just after a new one was begun, [`IDS_MIN`] * 2 at least. The segments' filters
//! took 1.5 bytes of page cache for the same question. They are not stored: opening a log fills them from the index files, beside the
//! rest of the work; until a segment is covered it is asked itself.
//!
//! An id is spread by a number that only this process knows, so that nobody can grind for ids that crowd one block.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::file::{FILTER_PROBES, mix};
use super::{SegmentIndex, read};
use crate::state::Segment;

/// Ids that the first sieve has room for: 2 MiB of memory.
const IDS_MIN: u64 = 1 << 20;
const BITS_PER_ID: u64 = 16;

/// One line of the cache.
#[repr(align(64))]
#[derive(Default)]
struct Block([AtomicU64; 8]);

const BLOCK_BITS: u64 = 512;

/// A filter over the ids of a row of segments. Filled by one thread while others ask.
pub(crate) struct Sieve {
    blocks: Box<[Block]>,
    secret: u64,
    capacity: u64,
    count: AtomicU64,
}

impl Sieve {
    fn new(capacity: u64) -> Self {
        let blocks = (capacity * BITS_PER_ID).div_ceil(BLOCK_BITS).max(1);
        Self {
            blocks: (0..blocks).map(|_| Block::default()).collect(),
            secret: RandomState::new().hash_one(0_u8),
            capacity,
            count: AtomicU64::new(0),
        }
    }

    /// The block of a prefix, and its bits there as (word, bit).
    fn probes(&self, prefix: u64) -> (&Block, impl Iterator<Item = (usize, u64)>) {
        let hash = mix(prefix ^ self.secret);
        // Below the number of blocks, which fits in memory.
        let block = ((u128::from(hash) * self.blocks.len() as u128) >> 64) as usize;
        let bits = mix(hash ^ self.secret.rotate_left(32));
        let (start, step) = (bits & 511, (bits >> 9) | 1);
        let bits = (0..FILTER_PROBES).map(move |i| {
            let bit = start.wrapping_add(i.wrapping_mul(step)) & 511;
            ((bit / 64) as usize, 1 << (bit % 64))
        });
        (&self.blocks[block], bits)
    }

    fn insert(&self, prefix: u64) {
        let (block, bits) = self.probes(prefix);
        for (word, bit) in bits {
            // One thread writes: no read-modify-write is needed. What it wrote is published with the list of segments.
            let before = block.0[word].load(Ordering::Relaxed);
            block.0[word].store(before | bit, Ordering::Relaxed);
        }
    }

    fn insert_all(&self, index: &SegmentIndex) {
        match index {
            SegmentIndex::Memory(index) => read(index).prefixes().for_each(|prefix| self.insert(prefix)),
            SegmentIndex::File(index) => index.prefixes().for_each(|prefix| self.insert(prefix)),
        }
        self.count.fetch_add(index.counts().0, Ordering::Relaxed);
    }

    /// `false`: no covered segment has an id that begins with `prefix`.
    pub(crate) fn may_have(&self, prefix: u64) -> bool {
        let (block, mut bits) = self.probes(prefix);
        bits.all(|(word, bit)| block.0[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Brings the lines for `prefixes` into the cache.
    pub(crate) fn touch(&self, prefixes: &[u64]) {
        let line = |prefix| self.probes(prefix).0.0[0].load(Ordering::Relaxed);
        std::hint::black_box(prefixes.iter().fold(0, |sum, prefix| sum ^ line(*prefix)));
    }
}

/// Segments in order of their first position, the last one active, and what covers those in front.
#[derive(Clone, Default)]
pub(crate) struct Segments {
    all: Vec<Arc<Segment>>,
    /// Each with the number of segments that it and those before it cover.
    sieves: Vec<(Arc<Sieve>, usize)>,
}

impl Segments {
    pub(crate) fn new(all: Vec<Arc<Segment>>) -> Self {
        Self { all, sieves: Vec::new() }
    }

    fn covered(&self) -> usize {
        self.sieves.last().map_or(0, |(_, end)| *end)
    }

    /// Segments that must be asked themselves.
    pub(crate) fn uncovered(&self) -> &[Arc<Segment>] {
        &self.all[self.covered()..]
    }

    /// The sieves, newest first, with the segments of each.
    pub(crate) fn sieved(&self) -> impl Iterator<Item = (&Sieve, &[Arc<Segment>])> {
        (0..self.sieves.len()).rev().map(|i| {
            let start = i.checked_sub(1).map_or(0, |before| self.sieves[before].1);
            (&*self.sieves[i].0, &self.all[start..self.sieves[i].1])
        })
    }

    /// Puts `segment` in the place of all from index `at` on.
    pub(crate) fn replace_from(&mut self, at: usize, segment: Arc<Segment>) {
        self.all.truncate(at);
        for (_, end) in &mut self.sieves {
            *end = (*end).min(at);
        }
        // One that covers nothing any more would never be asked, and a new one begins with the next segment.
        let mut start = 0;
        self.sieves.retain(|(_, end)| *end > std::mem::replace(&mut start, *end));
        self.all.push(segment);
    }

    /// Puts a segment with the same contents in the place of `old`, if that is still there.
    pub(crate) fn exchange(&mut self, old: &Arc<Segment>, new: Segment) {
        if let Some(slot) = self.all.iter_mut().find(|other| Arc::ptr_eq(other, old)) {
            *slot = Arc::new(new);
        }
    }

    /// The next segment to cover and the sieve that its ids go to, with a new one if need be; `None` if all but the active one are.
    pub(crate) fn next_to_cover(&self) -> Option<Uncovered> {
        let at = self.covered();
        let segment = self.all.get(at).filter(|_| at + 1 < self.all.len())?;
        let ids = segment.index.counts().0;
        let last = self.sieves.last().map(|(sieve, _)| sieve);
        let room = |sieve: &&Arc<Sieve>| sieve.count.load(Ordering::Relaxed) + ids <= sieve.capacity;
        let sieve = last.filter(room).map_or_else(
            || {
                let before: u64 = self.all[..at].iter().map(|segment| segment.index.counts().0).sum();
                Arc::new(Sieve::new(IDS_MIN.max(2 * before).max(ids)))
            },
            Arc::clone,
        );
        Some(Uncovered { at, segment: Arc::clone(segment), sieve })
    }

    /// Takes note that `done` is filled, if its segment is still where it was.
    pub(crate) fn cover(&mut self, done: Uncovered) {
        let Uncovered { at, segment, sieve } = done;
        if self.covered() != at || !self.all.get(at).is_some_and(|other| Arc::ptr_eq(other, &segment)) {
            return;
        }
        match self.sieves.last_mut() {
            Some((last, end)) if Arc::ptr_eq(last, &sieve) => *end += 1,
            _ => self.sieves.push((sieve, at + 1)),
        }
    }
}

impl std::ops::Deref for Segments {
    type Target = [Arc<Segment>];

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

/// A segment that is to be covered.
pub(crate) struct Uncovered {
    at: usize,
    segment: Arc<Segment>,
    sieve: Arc<Sieve>,
}

impl Uncovered {
    /// Puts the segment's ids into the sieve.
    pub(crate) fn fill(&self) {
        self.sieve.insert_all(&self.segment.index);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::RwLock;

    use super::*;
    use crate::disk::{Access, Disk};
    use crate::index::{MemoryIndex, RecordStart};
    use crate::sim::{SimDisk, SimRandom};

    /// A segment with these ids in it, as far as the sieves look at one.
    fn segment(first: u64, ids: &[u64]) -> Arc<Segment> {
        let mut index = MemoryIndex::new(0);
        let ids = ids.iter().map(|id| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&id.to_be_bytes());
            weft_core::MessageId(bytes)
        });
        index.add(RecordStart { position: 0, sector: 8 }, &ids.collect::<Vec<_>>());
        let disk = SimDisk::new(0);
        let path = PathBuf::from("/s");
        disk.create(&path, 512).unwrap();
        let file = disk.open(&path, Access::Map).unwrap();
        Arc::new(Segment { path, first, file, index: SegmentIndex::Memory(RwLock::new(index)) })
    }

    fn cover_all(segments: &mut Segments) {
        while let Some(next) = segments.next_to_cover() {
            next.fill();
            segments.cover(next);
        }
    }

    fn ends(segments: &Segments) -> Vec<usize> {
        segments.sieves.iter().map(|(_, end)| *end).collect()
    }

    #[test]
    fn a_full_sieve_has_all_its_ids_and_lets_few_others_through() {
        let mut random = SimRandom::new(3);
        let ids: Vec<u64> = (0..IDS_MIN).map(|_| random.next_u64()).collect();
        let sieve = Sieve::new(IDS_MIN);
        ids.iter().for_each(|id| sieve.insert(*id));
        assert!(ids.iter().all(|id| sieve.may_have(*id)));
        let let_through = (0..100_000).filter(|_| sieve.may_have(random.next_u64())).count();
        assert!(let_through < 400, "{let_through} of 100,000");
        // Ids that a sender ground for, so that they are alike in their first half, are spread like any others.
        let sieve = Sieve::new(IDS_MIN);
        (0..IDS_MIN).for_each(|i| sieve.insert(0x5555_5555 << 32 | i));
        let let_through =
            (IDS_MIN..IDS_MIN + 100_000).filter(|i| sieve.may_have(0x5555_5555 << 32 | i)).count();
        assert!(let_through < 400, "{let_through} of 100,000");
    }

    #[test]
    fn sieves_double_so_that_a_long_log_has_few() {
        let mut random = SimRandom::new(4);
        let ids: Vec<u64> = (0..IDS_MIN / 4).map(|_| random.next_u64()).collect();
        let mut segments = Segments::new(vec![segment(0, &ids)]);
        for i in 1..60 {
            segments.replace_from(segments.len(), segment(1_000 * i, &ids));
            cover_all(&mut segments);
            assert_eq!(segments.uncovered().len(), 1);
        }
        // Room for 4 segments, then for 8, 24 ...
        assert_eq!(ends(&segments), [4, 12, 36, 59]);
    }

    #[test]
    fn a_cut_takes_back_what_is_covered_behind_it_and_sieves_that_cover_nothing() {
        let ids: Vec<u64> = (0..IDS_MIN / 2).collect();
        let long = |count: u64| {
            let mut segments = Segments::new((0..count).map(|i| segment(i, &ids)).collect());
            cover_all(&mut segments);
            segments
        };
        assert_eq!(ends(&long(8)), [2, 6, 7]);
        for (at, expected) in [(7, vec![2, 6, 7]), (5, vec![2, 5]), (2, vec![2]), (1, vec![1]), (0, vec![])] {
            let mut segments = long(8);
            segments.replace_from(at, segment(at as u64, &[77]));
            assert_eq!((ends(&segments), segments.len()), (expected, at + 1));
            segments.replace_from(at + 1, segment(100, &[78]));
            cover_all(&mut segments);
            let covers: Vec<usize> = segments.sieved().map(|(_, covered)| covered.len()).collect();
            assert_eq!((covers.iter().sum::<usize>(), segments.uncovered().len()), (at + 1, 1));
            assert!(segments.sieved().any(|(sieve, _)| sieve.may_have(77)));
        }
    }

    #[test]
    fn a_segment_that_was_cut_while_it_was_covered_is_not_taken_for_covered() {
        let mut segments = Segments::new(vec![segment(0, &[1]), segment(1, &[2]), segment(2, &[3])]);
        let next = segments.next_to_cover().unwrap();
        next.fill();
        segments.replace_from(0, segment(0, &[4]));
        segments.cover(next);
        assert!(ends(&segments).is_empty());
        assert!(segments.next_to_cover().is_none(), "only the active one is there");
    }
}
