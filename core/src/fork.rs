//! Proof that a node signed its lane two ways, for anyone who has the node's key and nothing else.
//!
//! Owns the proof's format, its making from two batches, and its check. Two seals of a node are over trees of two sizes; that
//! one is no extension of the other shows in one position at which the two trees have different leaves. So a proof is, per
//! side, the seal (size, root, signature), the leaf at that position, and its inclusion path (RFC 9162, section 2.1.3): at
//! most 3.4 KB together, whatever the batches hold. Invariants: decoding takes any bytes without panic and allocates for
//! hashes whose bytes are there; what is taken encodes to the same bytes; the sides are in the order of their leaves, so two
//! batches make one proof. A proof holds against the lane's key only: no honest node can be proven against, since it signs
//! trees of one history. What follows from a proof is left to [`confirm`](crate::confirm).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "WFP1" |
//! | 4 | 4 | network |
//! | 8 | 2 | lane, below 1,024 |
//! | 10 | 1 | hashes of the first side's path P, at most 48 |
//! | 11 | 1 | hashes of the second side's path Q, at most 48 |
//! | 12 | 8 | position at which the leaves differ |
//! | 20 | 136 | first side: size u64, root 32, signature 64, hash of its leaf 32 |
//! | 156 | 32 P | its path, from the leaf up |
//! | | 136 | second side, with the higher hash of a leaf |
//! | | 32 Q | its path |

use alloc::vec::Vec;

use crate::checkpoint::checkpoint_text;
use crate::ids::{LANE_POSITIONS_MAX, LANES_MAX, LaneId, NetworkId, NodeKey};
use crate::lane::{BatchError, BatchView};
use crate::merkle::{
    Hash, HashSource, LaneTree, MerkleError, inclusion_proof, leaf_hash_32, verify_inclusion,
};
use crate::message::SIGNATURE_BYTES;

const MAGIC: [u8; 4] = *b"WFP1";
const HEAD_BYTES: usize = 20;
const SIDE_BYTES: usize = 136;
/// A lane has at most 2^48 leaves.
const PATH_MAX: usize = 48;

/// Length of the shortest proof.
pub const FORK_PROOF_BYTES_MIN: usize = HEAD_BYTES + 2 * SIDE_BYTES;

/// Length of the longest proof.
pub const FORK_PROOF_BYTES_MAX: usize = HEAD_BYTES + 2 * (SIDE_BYTES + 32 * PATH_MAX);

/// Why there is no proof, or why it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForkProofError {
    /// Not the magic.
    #[error("not a proof of a fork of version 1")]
    BadMagic,
    /// Another length than the counts call for.
    #[error("proof of a fork has {got} bytes, {limit} needed")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes needed, as far as could be told.
        limit: usize,
    },
    /// The lane's number, a size, the position or a path's length is out of range.
    #[error("{got} is out of range, limit {limit}")]
    Range {
        /// The value.
        got: u64,
        /// The first one that is not allowed.
        limit: u64,
    },
    /// The sides are out of order, or their leaves are the same.
    #[error("the leaves of the two sides are the same or out of order")]
    Order,
    /// The sides are of two lanes, networks, or starts.
    #[error("the two batches do not start at one place of one lane")]
    Apart,
    /// A batch does not extend the tree it is said to.
    #[error("side {side}: {error}")]
    Batch {
        /// Which one, 0 or 1.
        side: usize,
        /// What is wrong.
        error: BatchError,
    },
    /// A leaf is not where it is said to be.
    #[error("side {side}: {error}")]
    Path {
        /// Which one, 0 or 1.
        side: usize,
        /// What is wrong.
        error: MerkleError,
    },
    /// A seal is not signed by the lane's node.
    #[error("side {side} is not signed by the lane's node")]
    Signature {
        /// Which one, 0 or 1.
        side: usize,
    },
}

/// One history, as far as the proof needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkSide {
    /// Size that the node signed.
    pub size: u64,
    /// Root that it signed.
    pub root: Hash,
    /// Its signature over the [checkpoint text](crate::checkpoint).
    pub signature: [u8; SIGNATURE_BYTES],
    /// Hash of the leaf at the position.
    pub leaf: Hash,
    /// Sibling hashes from the leaf up.
    pub path: Vec<Hash>,
}

/// The proof. That its parts fit together says only [`verify`](Self::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkProof {
    /// The lane's network.
    pub network: NetworkId,
    /// The lane.
    pub lane: LaneId,
    /// Where the two histories have different leaves.
    pub position: u64,
    /// The two, in the order of their leaves.
    pub sides: [ForkSide; 2],
}

/// The tree before a batch, and the batch's leaves.
struct Extended<'a> {
    before: &'a LaneTree,
    leaves: Vec<Hash>,
}

impl HashSource for Extended<'_> {
    fn leaf(&self, index: u64) -> Option<Hash> {
        self.leaves.get(usize::try_from(index.checked_sub(self.before.size())?).ok()?).copied()
    }

    fn subtree(&self, level: u32, index: u64) -> Option<Hash> {
        let (size, first) = (self.before.size(), index << level);
        if first >= size {
            let mut tree = LaneTree::new();
            for leaf in first..first + (1 << level) {
                tree.push_leaf_hash(self.leaf(leaf)?);
            }
            return Some(tree.root());
        }
        // Left of the batch a path needs perfect subtrees of the frontier only.
        let levels = (0..u64::BITS).rev().filter(|level| size >> level & 1 == 1);
        let mut at = 0;
        for (peak, hash) in levels.zip(self.before.frontier()) {
            if (peak, at) == (level, first) {
                return Some(hash);
            }
            at += 1 << peak;
        }
        None
    }
}

impl ForkProof {
    /// The proof from two different batches that extend the tree `before`. Their seals are not verified.
    ///
    /// # Errors
    /// Batches of two lanes or starts, or that do not extend the tree, or the same batch twice.
    pub fn of_batches(
        before: &LaneTree,
        left: &BatchView<'_>,
        right: &BatchView<'_>,
    ) -> Result<Self, ForkProofError> {
        let (network, lane, position) = (left.network(), left.lane(), left.first());
        if (network, lane, position) != (right.network(), right.lane(), right.first()) {
            return Err(ForkProofError::Apart);
        }
        let side = |side: usize, batch: &BatchView<'_>| {
            batch.check_root(before).map_err(|error| ForkProofError::Batch { side, error })?;
            // The header names count and body, so two batches differ in this leaf, the first.
            let leaf = leaf_hash_32(&batch.header().hash());
            let leaves = core::iter::once(leaf).chain(batch.ids().map(|id| leaf_hash_32(&id.0))).collect();
            let path = inclusion_proof(&Extended { before, leaves }, position, batch.size())
                .map_err(|error| ForkProofError::Path { side, error })?;
            Ok(ForkSide {
                size: batch.size(),
                root: *batch.root(),
                signature: *batch.signature(),
                leaf,
                path,
            })
        };
        let mut sides = [side(0, left)?, side(1, right)?];
        sides.sort_by_key(|side| side.leaf);
        if sides[0].leaf == sides[1].leaf {
            return Err(ForkProofError::Order);
        }
        Ok(Self { network, lane, position, sides })
    }

    /// Checks the proof against the key of the lane's node; `verify` says whether a signature by a key over a text is valid
    /// (ZIP-215). That network and lane are those the key belongs to is for the caller to see.
    ///
    /// # Errors
    /// The first thing that proves nothing.
    pub fn verify(
        &self,
        node: &NodeKey,
        mut verify: impl FnMut(&NodeKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> Result<(), ForkProofError> {
        if self.sides[0].leaf >= self.sides[1].leaf {
            return Err(ForkProofError::Order);
        }
        for (at, side) in self.sides.iter().enumerate() {
            verify_inclusion(&side.leaf, self.position, side.size, &side.path, &side.root)
                .map_err(|error| ForkProofError::Path { side: at, error })?;
        }
        for (at, side) in self.sides.iter().enumerate() {
            let text = checkpoint_text(self.network, self.lane, side.size, &side.root);
            if !verify(node, text.as_bytes(), &side.signature) {
                return Err(ForkProofError::Signature { side: at });
            }
        }
        Ok(())
    }

    /// The proof's bytes.
    ///
    /// # Errors
    /// What [`decode`](Self::decode) would say of them.
    pub fn encode(&self) -> Result<Vec<u8>, ForkProofError> {
        let mut out = Vec::with_capacity(FORK_PROOF_BYTES_MAX);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.network.0);
        out.extend_from_slice(&self.lane.0.to_le_bytes());
        for side in &self.sides {
            let got = side.path.len() as u64;
            let long = ForkProofError::Range { got, limit: PATH_MAX as u64 + 1 };
            out.push(u8::try_from(got).map_err(|_| long)?);
        }
        out.extend_from_slice(&self.position.to_le_bytes());
        for side in &self.sides {
            out.extend_from_slice(&side.size.to_le_bytes());
            out.extend_from_slice(&side.root);
            out.extend_from_slice(&side.signature);
            out.extend_from_slice(&side.leaf);
            side.path.iter().for_each(|hash| out.extend_from_slice(hash));
        }
        Self::decode(&out).map(|_| out)
    }

    /// Reads a proof. Whether it proves anything says [`verify`](Self::verify).
    ///
    /// # Errors
    /// The first thing that does not fit the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, ForkProofError> {
        let wrong = |limit| ForkProofError::Length { got: bytes.len(), limit };
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(wrong(HEAD_BYTES))?;
        if head[..4] != MAGIC {
            return Err(ForkProofError::BadMagic);
        }
        let lane = u16::from_le_bytes([head[8], head[9]]);
        if lane >= LANES_MAX {
            return Err(ForkProofError::Range { got: u64::from(lane), limit: u64::from(LANES_MAX) });
        }
        let paths = [usize::from(head[10]), usize::from(head[11])];
        if let Some(long) = paths.iter().find(|length| **length > PATH_MAX) {
            return Err(ForkProofError::Range { got: *long as u64, limit: PATH_MAX as u64 + 1 });
        }
        let length = HEAD_BYTES + 2 * SIDE_BYTES + 32 * (paths[0] + paths[1]);
        if bytes.len() != length {
            return Err(wrong(length));
        }
        let position = u64::from_le_bytes(array(head, 12));
        let (first, second) = rest.split_at(SIDE_BYTES + 32 * paths[0]);
        let sides = [side(first), side(second)];
        for side in &sides {
            if side.size > LANE_POSITIONS_MAX {
                return Err(ForkProofError::Range { got: side.size, limit: LANE_POSITIONS_MAX + 1 });
            }
            if position >= side.size {
                return Err(ForkProofError::Range { got: position, limit: side.size });
            }
        }
        if sides[0].leaf >= sides[1].leaf {
            return Err(ForkProofError::Order);
        }
        Ok(Self { network: NetworkId(array(head, 4)), lane: LaneId(lane), position, sides })
    }
}

/// `N` bytes from `at` on. The caller has checked the length.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// A side whose bytes are all there.
fn side(bytes: &[u8]) -> ForkSide {
    let path = bytes[SIDE_BYTES..].chunks_exact(32).map(|hash| array(hash, 0)).collect();
    ForkSide {
        size: u64::from_le_bytes(array(bytes, 0)),
        root: array(bytes, 8),
        signature: array(bytes, 40),
        leaf: array(bytes, 104),
        path,
    }
}
