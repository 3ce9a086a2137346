//! Appending many leaves to a lane's tree at once.
//!
//! Owns the walk by levels: all leaves of a stretch are hashed in one call, then all nodes that they complete on level
//! 1, then those on level 2, so that a [`BatchHasher`] has rows to hash side by side. Invariant: the tree is the one
//! that pushing the leaves one after the other gives, however they are split; the same hashes are made, in another
//! order.
//!
//! A stretch ends where a subtree of [`STRETCH`] leaves does: then it completes that subtree's nodes in full rows, and
//! its rows fit the first cache (25 KiB, on the stack).

use super::{Hash, LaneTree, SUBTREE_LEVEL};
use crate::hasher::BatchHasher;
use crate::ids::LANE_POSITIONS_MAX;

/// Leaves hashed together, at most. Rows of 8 nodes and fewer are no quicker side by side than one by one: they are one
/// node in 34 with subtrees of 512.
const STRETCH: usize = 512;

impl LaneTree {
    /// Appends leaves with 32 bytes of data each, as [`push`](Self::push) does one by one, and tells `note` the roots of
    /// the subtrees of [`SUBTREE_LEVEL`] that they complete, in order. The caller keeps the size within
    /// [`LANE_POSITIONS_MAX`].
    pub fn append(&mut self, data: &[Hash], hasher: &dyn BatchHasher, mut note: impl FnMut(Hash)) {
        debug_assert!(data.len() as u64 <= LANE_POSITIONS_MAX - self.size);
        let mut rest = data;
        while !rest.is_empty() {
            let room = STRETCH - (self.size % STRETCH as u64) as usize;
            let (stretch, after) = rest.split_at(room.min(rest.len()));
            self.append_stretch(stretch, hasher, &mut note);
            rest = after;
        }
    }

    fn append_stretch(&mut self, data: &[Hash], hasher: &dyn BatchHasher, note: &mut impl FnMut(Hash)) {
        // The new nodes of a level lie from index 1 on: before them there is room for the left sibling of the first.
        let (mut row, mut above) = (&mut [[0; 32]; STRETCH + 1][..], &mut [[0; 32]; STRETCH / 2 + 1][..]);
        hasher.leaves(data, &mut row[1..=data.len()]);
        let (before, after) = (self.size, self.size + data.len() as u64);
        for level in 0.. {
            // Complete nodes of this level before and after.
            let (first, end) = (before >> level, after >> level);
            if first == end {
                break;
            }
            let count = (end - first) as usize;
            if level == SUBTREE_LEVEL {
                row[1..=count].iter().for_each(|root| note(*root));
            }
            let start = if first & 1 == 1 {
                row[0] = self.peaks[level as usize];
                0
            } else {
                1
            };
            let (pairs, single) = row[start..=count].as_chunks();
            if let [last] = single {
                self.peaks[level as usize] = *last;
            }
            hasher.nodes(pairs, &mut above[1..=pairs.len()]);
            core::mem::swap(&mut row, &mut above);
        }
        self.size = after;
    }
}
