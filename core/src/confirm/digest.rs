//! What confirmation needs to know of one batch: made once from its bytes, then passed around instead of them.
//!
//! Owns the first gate, *authentic*: a [`BatchDigest`] exists only for a batch whose body hash, root over the tree
//! before it, and seal were right, so the machine never hashes and never verifies. Invariant: no work and no memory
//! per data message beyond what reading the batch costs; operations, citations and one witness are what is kept.
//! Signatures and the places of parents are the third gate, [`form`](super::form).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::transfer::Operation;
use super::witness::Witness;
use crate::hasher::{BatchHasher, OneByOne};
use crate::ids::{LaneId, MessageId, NodeKey};
use crate::lane::{BatchError, BatchView};
use crate::merkle::{Hash, LaneTree};
use crate::message::{PayloadKind, SIGNATURE_BYTES};

/// Memory of a held batch with nothing but data, of each operation in it (152 bytes here, its votes in a map), of each claim
/// (here, and as one that waits for final) and each reject (8 bytes here, an entry of a map once it is final).
const HELD_BATCH_BYTES: usize = 256;
const HELD_OPERATION_BYTES: usize = 512;
const HELD_CLAIM_BYTES: usize = 96;
const HELD_REJECT_BYTES: usize = 40;

/// An operation and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedOperation {
    /// Position in the lane.
    pub position: u64,
    /// The operation.
    pub operation: Operation,
}

/// A witness and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedWitness {
    /// Position in the lane.
    pub position: u64,
    /// Id of its message.
    pub id: MessageId,
    /// What it says.
    pub witness: Arc<Witness>,
}

/// An authentic batch, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchDigest {
    lane: LaneId,
    first: u64,
    size: u64,
    before: Hash,
    root: Hash,
    cites: Vec<(LaneId, u64)>,
    operations: Vec<PlacedOperation>,
    witness: Option<PlacedWitness>,
    carries_data: bool,
}

impl BatchDigest {
    /// Reads a batch that is said to follow the lane with tree `before`, and hands out the tree after it. `node` is
    /// the key of the lane's node; `verify` says whether a signature by a key over a text is valid (ZIP-215).
    ///
    /// Of the witnesses by the lane's own node the first in a batch is read: a validator makes one a round, and a
    /// batch of nothing but witnesses must not cost megabytes of memory.
    ///
    /// # Errors
    /// What makes the batch not authentic. It says nothing against the lane: the copy may have been damaged on the
    /// way.
    pub fn read(
        view: &BatchView<'_>,
        before: &LaneTree,
        node: &NodeKey,
        verify: impl FnOnce(&NodeKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> Result<(Self, LaneTree), BatchError> {
        Self::read_with_ids(view, &view.ids_by(&OneByOne), before, &OneByOne, node, verify)
    }

    /// Like [`read`](Self::read), with the ids of the batch's messages from somebody who hashes many at once, as
    /// `hasher` does. Wrong ones do not give the root.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_with_ids(
        view: &BatchView<'_>,
        ids: &[MessageId],
        before: &LaneTree,
        hasher: &dyn BatchHasher,
        node: &NodeKey,
        verify: impl FnOnce(&NodeKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> Result<(Self, LaneTree), BatchError> {
        view.check_hashes()?;
        let after = view.check_root_of(before, ids, hasher)?;
        view.verify_seal(node, verify)?;
        Ok((Self::vouched(view, before.root(), node), after))
    }

    /// Reads a batch that the caller vouches for: one that this process has just sealed, or read back from its own
    /// log, where only authentic ones are stored. `before` is the root of the lane's tree before it. Hashes operations
    /// and one witness and nothing else.
    #[must_use]
    pub fn vouched(view: &BatchView<'_>, before: Hash, node: &NodeKey) -> Self {
        let mut digest = Self {
            lane: view.lane(),
            first: view.first(),
            size: view.size(),
            before,
            root: *view.root(),
            cites: Vec::new(),
            operations: Vec::new(),
            witness: None,
            carries_data: false,
        };
        for entry in view.messages() {
            for place in entry.parent_places {
                if place.lane() != LaneId::ROOTS && place.lane() != digest.lane {
                    digest.cite(place.lane(), place.position() + 1);
                }
            }
            let (message, position) = (entry.message, entry.position);
            if message.kind() == PayloadKind::WITNESS && message.issuer() == node {
                if digest.witness.is_none() {
                    digest.witness = Witness::decode(message.payload()).ok().map(|witness| {
                        let witness = Arc::new(witness);
                        PlacedWitness { position, id: message.id(), witness }
                    });
                    digest.carries_data |= digest.witness.is_none();
                }
                continue;
            }
            digest.carries_data = true;
            if let Some(operation) = Operation::read(&message, || message.id()) {
                digest.operations.push(PlacedOperation { position, operation });
            }
        }
        digest
    }

    /// Notes that `lane` must be final up to `size`: one entry per lane, the highest size.
    fn cite(&mut self, lane: LaneId, size: u64) {
        match self.cites.binary_search_by_key(&lane, |cite| cite.0) {
            Ok(found) => self.cites[found].1 = self.cites[found].1.max(size),
            Err(gap) => self.cites.insert(gap, (lane, size)),
        }
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> LaneId {
        self.lane
    }

    /// The lane's size before the batch.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The lane's size after the batch.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Root of the lane's tree before the batch.
    #[must_use]
    pub const fn before(&self) -> &Hash {
        &self.before
    }

    /// Root of the lane's tree after the batch.
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// For each other lane that a parent lies in: the size that must be final there. Lanes rising.
    #[must_use]
    pub fn cites(&self) -> &[(LaneId, u64)] {
        &self.cites
    }

    /// The operations, in order.
    #[must_use]
    pub fn operations(&self) -> &[PlacedOperation] {
        &self.operations
    }

    /// The first witness by the lane's own node, if there is one.
    #[must_use]
    pub const fn witness(&self) -> Option<&PlacedWitness> {
        self.witness.as_ref()
    }

    /// Memory that holding the batch beyond final takes, bytes, rounded up: besides itself, the votes on its operations and
    /// what is noted of its witness once it is final.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let witness = self.witness.as_ref().map_or(0, |placed| {
            let witness = &placed.witness;
            let claims = witness.cut.len()
                + witness.certified.len()
                + witness.cut_again.len()
                + witness.certified_again.len();
            let rejects: usize = witness.rejects.iter().map(|group| group.positions.len()).sum();
            claims * HELD_CLAIM_BYTES + rejects * HELD_REJECT_BYTES
        });
        HELD_BATCH_BYTES + self.cites.len() * 16 + self.operations.len() * HELD_OPERATION_BYTES + witness
    }

    /// Whether there is anything but witnesses of the lane's own node.
    #[must_use]
    pub const fn carries_data(&self) -> bool {
        self.carries_data
    }

    /// Whether the batch has to become final: it carries data, or a witness that covers data.
    #[must_use]
    pub fn is_material(&self) -> bool {
        self.carries_data || self.witness.as_ref().is_some_and(|placed| placed.witness.covers_data)
    }
}
