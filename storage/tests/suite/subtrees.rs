//! The roots beside a log: proofs made with them are those made from all leaves, whatever became of the file.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use weft_core::merkle::{
    Hash, HashSource, consistency_proof, inclusion_proof, leaf_hash_32, verify_consistency, verify_inclusion,
};
use weft_core::{LaneId, LaneTree, NetworkId, OneByOne};
use weft_storage::sim::SimDisk;
use weft_storage::subtrees::SUBTREES_NAME;
use weft_storage::{LaneHashes, LaneLog, LogConfig, Subtrees};

use crate::common::{LANE, Lane, NETWORK, append, open};

const ROOMY: LogConfig =
    LogConfig { segment_bytes: 1 << 20, free_bytes_min: 0, background: false, hasher: &OneByOne };

/// A log with 70,000 small messages in batches of many sizes, and all leaves of its lane.
struct Bench {
    log: LaneLog,
    lane: Lane,
    leaves: Vec<Hash>,
}

impl Bench {
    fn new(positions: u64) -> Self {
        let (log, _) = open(&SimDisk::new(1), ROOMY).unwrap();
        let mut bench = Self { log, lane: Lane::new(1), leaves: Vec::new() };
        bench.grow(positions, |_, _| {});
        bench
    }

    /// Appends batches up to `positions`, and tells of each where it starts and which roots it completed.
    fn grow(&mut self, positions: u64, mut tell: impl FnMut(u64, &[Hash])) {
        while self.lane.tree.size() < positions {
            let size = 1 + (self.lane.tree.size() % 997) as u32;
            let batch = self.lane.batch(size, 0);
            append(&mut self.log, &batch).unwrap();
            let sealed = &batch.sealed;
            self.leaves.push(leaf_hash_32(&sealed.view().unwrap().header().hash()));
            self.leaves.extend(sealed.ids().iter().map(|id| leaf_hash_32(&id.0)));
            tell(sealed.first(), sealed.subtrees());
        }
    }

    fn open(&self, dir: &Path) -> Subtrees {
        Subtrees::open(dir, NETWORK, LANE, &self.lane.tree).unwrap()
    }

    /// Proofs of many positions and sizes verify, and are those that all leaves give.
    fn check(&self, subtrees: &Subtrees) {
        let hashes = LaneHashes::new(&self.log.reader, subtrees);
        let size = self.lane.tree.size();
        let sizes = [size, size - 1, size / 2, 1, 256, 257, 65_536.min(size)];
        for size in sizes.into_iter().filter(|size| *size <= self.lane.tree.size()) {
            let mut tree = LaneTree::new();
            self.leaves[..size as usize].iter().for_each(|leaf| tree.push_leaf_hash(*leaf));
            for index in [0, size / 3, size / 2, size - 1] {
                let proof = inclusion_proof(&hashes, index, size).unwrap();
                assert_eq!(
                    proof,
                    inclusion_proof(&self.leaves[..], index, size).unwrap(),
                    "{index} in {size}"
                );
                let leaf = self.leaves[index as usize];
                assert_eq!(verify_inclusion(&leaf, index, size, &proof, &tree.root()), Ok(()));
            }
            let now = self.lane.tree.size();
            let proof = consistency_proof(&hashes, size, now).unwrap();
            assert_eq!(verify_consistency(size, &tree.root(), now, &self.lane.tree.root(), &proof), Ok(()));
        }
        assert!(hashes.leaf(size).is_none() && hashes.take_error().is_none());
    }
}

#[test]
fn proofs_from_roots_told_while_the_lane_grew_are_those_from_all_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(0);
    let subtrees = bench.open(dir.path());
    bench.grow(70_000, |first, roots| subtrees.extend(first, roots).unwrap());
    assert_eq!(subtrees.covered(), bench.lane.tree.size() >> 8 << 8);
    bench.check(&subtrees);
    // Opened again, they are all there still.
    let again = bench.open(dir.path());
    assert_eq!(again.covered(), subtrees.covered());
    bench.check(&again);
}

#[test]
fn what_nobody_told_is_found_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(5_000);
    let subtrees = bench.open(dir.path());
    assert_eq!(subtrees.covered(), 0);
    // Roots that do not follow are left out.
    bench.grow(8_000, |first, roots| subtrees.extend(first, roots).unwrap());
    assert_eq!(subtrees.covered(), 0);
    subtrees.catch_up(&bench.log.reader, bench.lane.tree.size()).unwrap();
    assert_eq!(subtrees.covered(), bench.lane.tree.size() >> 8 << 8);
    bench.check(&subtrees);
    bench.grow(12_000, |first, roots| subtrees.extend(first, roots).unwrap());
    bench.check(&subtrees);
}

#[test]
fn a_damaged_file_loses_what_it_damaged_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(0);
    let subtrees = bench.open(dir.path());
    bench.grow(3_000, |first, roots| subtrees.extend(first, roots).unwrap());
    drop(subtrees);
    let size = bench.lane.tree.size();
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join(SUBTREES_NAME)).unwrap();
    // The last root lies in a smaller perfect subtree than the first ones.
    let last = (size >> 8) - 1;
    file.write_all_at(&[0xee], 32 + last * 32 + 5).unwrap();
    let opened = bench.open(dir.path());
    assert!((2_048..size >> 8 << 8).contains(&opened.covered()), "{}", opened.covered());
    opened.catch_up(&bench.log.reader, size).unwrap();
    bench.check(&opened);
    file.write_all_at(&[0xee], 32 + 5).unwrap();
    let opened = bench.open(dir.path());
    assert_eq!(opened.covered(), 0);
    opened.catch_up(&bench.log.reader, size).unwrap();
    bench.check(&opened);
    // A file that ends inside a root, and one of another lane or ledger.
    file.set_len(32 + 100).unwrap();
    assert_eq!(bench.open(dir.path()).covered(), 3 << 8);
    drop(Subtrees::open(dir.path(), NETWORK, LaneId(1), &bench.lane.tree).unwrap());
    assert_eq!(bench.open(dir.path()).covered(), 0);
    drop(Subtrees::open(dir.path(), NetworkId([1; 4]), LANE, &bench.lane.tree).unwrap());
    assert_eq!(bench.open(dir.path()).covered(), 0);
}

#[test]
fn a_lane_that_lost_its_end_keeps_the_roots_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(0);
    let subtrees = bench.open(dir.path());
    bench.grow(70_000, |first, roots| subtrees.extend(first, roots).unwrap());
    let before = (0..10).map(|index| subtrees.subtree(8, index)).collect::<Vec<_>>();
    subtrees.truncate(2_000).unwrap();
    assert_eq!(subtrees.covered(), 1_792);
    assert_eq!(subtrees.subtree(8, 6), before[6]);
    assert_eq!((subtrees.subtree(8, 7), subtrees.subtree(16, 0)), (None, None));
    subtrees.catch_up(&bench.log.reader, bench.lane.tree.size()).unwrap();
    bench.check(&subtrees);
}
