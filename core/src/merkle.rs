//! The Merkle tree of a lane (RFC 6962, RFC 9162): the append-only frontier, inclusion and consistency
//! proofs.
//!
//! Owns the hashing of leaves and nodes (SHA-256), the [`LaneTree`] that a lane grows by, and proofs over any
//! [`HashSource`]. Invariants: the frontier holds one perfect subtree per bit of the size, so memory is
//! constant (1.6 KiB) whatever the lane's length; a proof that verifies proves membership or extension under
//! SHA-256's collision resistance, whoever made it. Which leaves a lane has is left to [`lane`](crate::lane),
//! keeping old hashes to the storage.
//!
//! | hash | over |
//! |---|---|
//! | empty tree | SHA-256 of no bytes |
//! | leaf | SHA-256(0x00, data) |
//! | node | SHA-256(0x01, left, right) |

mod append;

use alloc::vec::Vec;

use sha2::Digest;
use sha2::block_api::compress256;

use crate::ids::LANE_POSITIONS_MAX;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// Root of the tree without leaves: SHA-256 of no bytes.
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
    0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Level of the subtrees whose roots are worth keeping beside a lane: 256 leaves, so that they take an eighth of a
/// byte a leaf, and a proof hashes at most some hundreds of leaves again.
pub const SUBTREE_LEVEL: u32 = 8;

/// Levels of perfect subtrees: a lane has at most 2^48 leaves, so bit 48 is the highest that a size can have.
const LEVELS: usize = 49;

/// Initial state of SHA-256 (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

fn finish(state: &[u32; 8]) -> Hash {
    let mut hash = [0; 32];
    for (bytes, word) in hash.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    hash
}

/// Hash of a leaf with `data` of any length.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash {
    let mut hasher = sha2::Sha256::new_with_prefix([0x00]);
    hasher.update(data);
    hasher.finalize().into()
}

/// Hash of a leaf with 32 bytes of data: one block, padded here, without the buffering of a streaming hasher.
#[must_use]
pub fn leaf_hash_32(data: &Hash) -> Hash {
    const BITS: u16 = 8 * 33;
    let mut block = [0; 64];
    block[1..33].copy_from_slice(data);
    block[33] = 0x80;
    block[62..].copy_from_slice(&BITS.to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    finish(&state)
}

/// Hash of an inner node.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    const BITS: u16 = 8 * 65;
    let mut blocks = [[0; 64]; 2];
    blocks[0][0] = 0x01;
    blocks[0][1..33].copy_from_slice(left);
    blocks[0][33..].copy_from_slice(&right[..31]);
    blocks[1][0] = right[31];
    blocks[1][1] = 0x80;
    blocks[1][62..].copy_from_slice(&BITS.to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &blocks);
    finish(&state)
}

/// Why a tree or a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MerkleError {
    /// A size or index lies outside the tree, or a size beyond what a lane can have.
    #[error("{got} is out of range, limit {limit}")]
    Range {
        /// The size or index.
        got: u64,
        /// The first one that is not allowed.
        limit: u64,
    },
    /// A frontier or proof has another number of hashes than its sizes call for.
    #[error("{got} hashes where {limit} are needed")]
    Hashes {
        /// Hashes given.
        got: usize,
        /// Hashes needed.
        limit: usize,
    },
    /// The source lacks a hash.
    #[error("the hash of {count} leaves from leaf {first} on is not there", count = 1u64 << level)]
    Missing {
        /// Level of the subtree: it has 2^level leaves.
        level: u32,
        /// Its first leaf.
        first: u64,
    },
    /// The hashes do not lead to the root.
    #[error("the proof does not lead to the root")]
    Root,
}

/// The right edge of an append-only tree: what it takes to append leaves and to tell the root.
#[derive(Clone)]
pub struct LaneTree {
    size: u64,
    /// `peaks[level]` is the perfect subtree of `1 << level` leaves for every bit of `size` that is set;
    /// stale elsewhere.
    peaks: [Hash; LEVELS],
}

impl Default for LaneTree {
    fn default() -> Self {
        Self::new()
    }
}

impl LaneTree {
    /// The tree without leaves.
    #[must_use]
    pub const fn new() -> Self {
        Self { size: 0, peaks: [[0; 32]; LEVELS] }
    }

    /// The tree of `size` leaves whose perfect subtrees have these hashes, largest first: what
    /// [`frontier`](Self::frontier) gave.
    ///
    /// # Errors
    /// A size beyond [`LANE_POSITIONS_MAX`], or another number of hashes than the size has bits.
    pub fn from_frontier(size: u64, frontier: &[Hash]) -> Result<Self, MerkleError> {
        if size > LANE_POSITIONS_MAX {
            return Err(MerkleError::Range { got: size, limit: LANE_POSITIONS_MAX + 1 });
        }
        if frontier.len() != size.count_ones() as usize {
            return Err(MerkleError::Hashes { got: frontier.len(), limit: size.count_ones() as usize });
        }
        let mut tree = Self { size, ..Self::new() };
        let levels = (0..LEVELS).rev().filter(|level| size >> level & 1 == 1);
        for (level, hash) in levels.zip(frontier) {
            tree.peaks[level] = *hash;
        }
        Ok(tree)
    }

    /// Hashes of the perfect subtrees, largest first: one per bit of the size.
    pub fn frontier(&self) -> impl Iterator<Item = Hash> + '_ {
        (0..LEVELS).rev().filter(|level| self.size >> level & 1 == 1).map(|level| self.peaks[level])
    }

    /// Leaves so far: the position that the next one gets.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf with 32 bytes of data: a header hash or a message id. On average two hashes, three
    /// SHA-256 blocks.
    pub fn push(&mut self, data: &Hash) {
        self.push_leaf_hash(leaf_hash_32(data));
    }

    /// Appends a leaf with 32 bytes of data, and hands out the root of the subtree of [`SUBTREE_LEVEL`] that it
    /// completes, if it does: that root is computed on the way.
    pub fn push_noting(&mut self, data: &Hash) -> Option<Hash> {
        self.push_leaf(leaf_hash_32(data))
    }

    /// Appends a leaf by its hash. The caller keeps the size within [`LANE_POSITIONS_MAX`].
    pub fn push_leaf_hash(&mut self, leaf: Hash) {
        self.push_leaf(leaf);
    }

    fn push_leaf(&mut self, leaf: Hash) -> Option<Hash> {
        debug_assert!(self.size < LANE_POSITIONS_MAX);
        let level = self.size.trailing_ones() as usize;
        let noted = level.min(SUBTREE_LEVEL as usize);
        let mut hash = leaf;
        for peak in &self.peaks[..noted] {
            hash = node_hash(peak, &hash);
        }
        let subtree = (noted == SUBTREE_LEVEL as usize).then_some(hash);
        for peak in &self.peaks[noted..level] {
            hash = node_hash(peak, &hash);
        }
        self.peaks[level] = hash;
        self.size += 1;
        subtree
    }

    /// Root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut levels = (0..LEVELS).filter(|level| self.size >> level & 1 == 1);
        let Some(lowest) = levels.next() else { return EMPTY_ROOT };
        levels.fold(self.peaks[lowest], |right, level| node_hash(&self.peaks[level], &right))
    }
}

impl PartialEq for LaneTree {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && self.frontier().eq(other.frontier())
    }
}

impl Eq for LaneTree {}

impl core::fmt::Debug for LaneTree {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LaneTree")
            .field("size", &self.size)
            .field("root", &crate::MessageId(self.root()))
            .finish()
    }
}

/// Where proofs get hashes from: the leaves of a tree and, where they are kept, its perfect subtrees.
pub trait HashSource {
    /// Hash of leaf `index` ([`leaf_hash`] applied), if it is there.
    fn leaf(&self, index: u64) -> Option<Hash>;

    /// Hash of the perfect subtree over the `1 << level` leaves from `index << level` on. The default
    /// computes it from the leaves, in time proportional to their number: a source that keeps inner hashes
    /// answers from them.
    fn subtree(&self, level: u32, index: u64) -> Option<Hash> {
        let first = index << level;
        let mut tree = LaneTree::new();
        for leaf in first..first + (1 << level) {
            tree.push_leaf_hash(self.leaf(leaf)?);
        }
        Some(tree.root())
    }
}

/// Leaf hashes in memory.
impl HashSource for [Hash] {
    fn leaf(&self, index: u64) -> Option<Hash> {
        self.get(usize::try_from(index).ok()?).copied()
    }
}

/// The largest power of two below `count`, for `count` above 1: where RFC 9162 splits a tree.
fn split_point(count: u64) -> u64 {
    debug_assert!(count > 1);
    1 << (63 - (count - 1).leading_zeros())
}

/// Root over leaves `first .. first + count`; `first` is a multiple of every perfect subtree that the range
/// falls into.
fn range_root<S: HashSource + ?Sized>(source: &S, first: u64, count: u64) -> Result<Hash, MerkleError> {
    let mut right = None;
    let mut end = first + count;
    // Perfect subtrees from the right, smallest first, as in `LaneTree::root`.
    for level in (0..u64::BITS).filter(|level| count >> level & 1 == 1) {
        end -= 1 << level;
        let missing = MerkleError::Missing { level, first: end };
        let left = source.subtree(level, end >> level).ok_or(missing)?;
        right = Some(match right {
            None => left,
            Some(right) => node_hash(&left, &right),
        });
    }
    Ok(right.unwrap_or(EMPTY_ROOT))
}

fn check_size(size: u64) -> Result<(), MerkleError> {
    if size > LANE_POSITIONS_MAX {
        return Err(MerkleError::Range { got: size, limit: LANE_POSITIONS_MAX + 1 });
    }
    Ok(())
}

/// Proof that leaf `index` is in the tree of `size` leaves (RFC 9162, section 2.1.3.1): sibling hashes, from
/// the leaf up.
///
/// # Errors
/// `index` not below `size`, a size beyond a lane's, or a hash that the source lacks.
pub fn inclusion_proof<S: HashSource + ?Sized>(
    source: &S,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, MerkleError> {
    check_size(size)?;
    if index >= size {
        return Err(MerkleError::Range { got: index, limit: size });
    }
    let mut proof = Vec::new();
    let (mut first, mut count) = (0, size);
    // From the root down to the leaf: keep the side with the leaf, hash the other one.
    while count > 1 {
        let left = split_point(count);
        if index - first < left {
            proof.push(range_root(source, first + left, count - left)?);
            count = left;
        } else {
            proof.push(range_root(source, first, left)?);
            first += left;
            count -= left;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Verifies that the leaf with hash `leaf` has `index` in the tree of `size` leaves with this root (RFC 9162,
/// section 2.1.3.2).
///
/// # Errors
/// `index` not below `size`, another number of hashes than this index and size need, or hashes that lead
/// elsewhere.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), MerkleError> {
    check_size(size)?;
    if index >= size {
        return Err(MerkleError::Range { got: index, limit: size });
    }
    // `inner` levels have a sibling on some side, below the point where the path joins the right edge; above
    // it only left siblings.
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    let needed = (inner + (index >> inner).count_ones()) as usize;
    if proof.len() != needed {
        return Err(MerkleError::Hashes { got: proof.len(), limit: needed });
    }
    let mut hash = *leaf;
    for (level, sibling) in proof.iter().enumerate() {
        let is_right = level >= inner as usize || index >> level & 1 == 1;
        hash = if is_right { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) };
    }
    if hash == *root { Ok(()) } else { Err(MerkleError::Root) }
}

/// Proof that the tree of `size` leaves extends the one of `old_size` (RFC 9162, section 2.1.4.1). Empty when
/// the sizes are equal.
///
/// # Errors
/// `old_size` 0 or above `size`, a size beyond a lane's, or a hash that the source lacks.
pub fn consistency_proof<S: HashSource + ?Sized>(
    source: &S,
    old_size: u64,
    size: u64,
) -> Result<Vec<Hash>, MerkleError> {
    check_size(size)?;
    if old_size == 0 || old_size > size {
        return Err(MerkleError::Range { got: old_size, limit: size + 1 });
    }
    let mut proof = Vec::new();
    let (mut first, mut count) = (0, size);
    // Down to the subtree that ends exactly where the old tree ends.
    while old_size - first < count {
        let left = split_point(count);
        if old_size - first <= left {
            proof.push(range_root(source, first + left, count - left)?);
            count = left;
        } else {
            proof.push(range_root(source, first, left)?);
            first += left;
            count -= left;
        }
    }
    // The verifier knows the old root: the subtree is left out when it is the whole old tree.
    if first > 0 {
        proof.push(range_root(source, first, count)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Verifies that the tree of `size` leaves with `root` extends the one of `old_size` with `old_root` (RFC
/// 9162, section 2.1.4.2).
///
/// # Errors
/// `old_size` 0 or above `size`, another number of hashes than the sizes need, or hashes that lead to another
/// root on either side.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    size: u64,
    root: &Hash,
    proof: &[Hash],
) -> Result<(), MerkleError> {
    check_size(size)?;
    if old_size == 0 || old_size > size {
        return Err(MerkleError::Range { got: old_size, limit: size + 1 });
    }
    if old_size == size {
        if !proof.is_empty() {
            return Err(MerkleError::Hashes { got: proof.len(), limit: 0 });
        }
        return if old_root == root { Ok(()) } else { Err(MerkleError::Root) };
    }
    // The path of the old tree's last leaf, from its largest perfect subtree up; `last` and `end` walk up
    // together.
    let shift = old_size.trailing_zeros();
    let (mut last, mut end) = ((old_size - 1) >> shift, (size - 1) >> shift);
    let mut hashes = proof.iter();
    let short = MerkleError::Hashes { got: proof.len(), limit: proof.len() + 1 };
    let start = if old_size.is_power_of_two() { old_root } else { hashes.next().ok_or(short)? };
    let (mut old_hash, mut hash) = (*start, *start);
    while end > 0 {
        if last & 1 == 1 || last == end {
            let sibling = hashes.next().ok_or(short)?;
            old_hash = node_hash(sibling, &old_hash);
            hash = node_hash(sibling, &hash);
            // A right edge that is a left child has no sibling at this level: go up to where it is a right
            // child.
            while last & 1 == 0 && last > 0 {
                last >>= 1;
                end >>= 1;
            }
        } else {
            hash = node_hash(&hash, hashes.next().ok_or(short)?);
        }
        last >>= 1;
        end >>= 1;
    }
    let used = proof.len() - hashes.as_slice().len();
    if used != proof.len() {
        return Err(MerkleError::Hashes { got: proof.len(), limit: used });
    }
    if old_hash == *old_root && hash == *root { Ok(()) } else { Err(MerkleError::Root) }
}

#[cfg(test)]
#[path = "merkle_tests.rs"]
mod tests;
