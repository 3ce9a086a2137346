//! Building lane batches.
//!
//! Owns the writer: messages are appended to one preallocated buffer as they come, and sealing writes table,
//! header and seal around them without moving them. Invariant: what [`BatchBuilder::seal`] hands out passes
//! every check of [`BatchView`] against the tree before it. Making it durable is left to the storage.
//!
//! While a batch grows, room for the largest table of offsets lies before the entries. Sealing puts the real
//! table and the header flush against the first entry, so a batch that is not full starts a little into its
//! buffer:
//!
//! ```text
//! unused | header 64 | count x u32 | entries ... | root 32 | signature 64
//! ```

use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::{
    BATCH_MAGIC, BatchError, BatchHeader, BatchView, HEADER_BYTES, OFFSET_BYTES, PLACES_BYTES, Places,
    SEAL_BYTES,
};
use crate::arena::VerifiedMessage;
use crate::checkpoint::checkpoint_text;
use crate::genesis::BATCH_MESSAGES_MAX;
use crate::hash::Domain;
use crate::hasher::{BatchHasher, OneByOne};
use crate::ids::{LANE_POSITIONS_MAX, LANES_MAX, LaneId, MessageId, NetworkId, Place};
use crate::merkle::{Hash, LaneTree};
use crate::message::{MESSAGE_BYTES_MAX, MessageView, SIGNATURE_BYTES};

/// The batch has no room for this message: seal it and put the message into the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch is full: {messages} messages, {entry_bytes} bytes of entries")]
pub struct BatchFull {
    /// Messages in the batch.
    pub messages: u32,
    /// Bytes of its entries.
    pub entry_bytes: usize,
}

/// A batch that grows.
///
/// Memory: one buffer of `entry_bytes_max` plus 4 bytes a message and 160, and 36 bytes a message beside it, and 32 bytes for every 256 positions.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: Vec<u8>,
    /// Start of each entry from the first one on.
    starts: Vec<u32>,
    ids: Vec<MessageId>,
    /// Roots of the lane's subtrees that the batch completed when it was sealed.
    subtrees: Vec<Hash>,
    messages_max: u32,
    entry_bytes_max: usize,
}

/// Entries of one batch, at most, so that any message fits an empty batch and any batch fits its format.
const ENTRY_BYTES_MIN: usize = PLACES_BYTES + MESSAGE_BYTES_MAX;
const ENTRY_BYTES_MAX: usize = BATCH_MESSAGES_MAX as usize * ENTRY_BYTES_MIN;

impl BatchBuilder {
    /// An empty batch for at most `messages_max` messages (cut to 1..=4,096) and `entry_bytes_max` bytes of
    /// entries (cut so that the longest message fits and the format's limit holds). Allocates its buffer at
    /// once.
    #[must_use]
    pub fn new(messages_max: u32, entry_bytes_max: usize) -> Self {
        let messages_max = messages_max.clamp(1, BATCH_MESSAGES_MAX);
        let entry_bytes_max = entry_bytes_max.clamp(ENTRY_BYTES_MIN, ENTRY_BYTES_MAX);
        let front = HEADER_BYTES + messages_max as usize * OFFSET_BYTES;
        let mut buffer = Vec::with_capacity(front + entry_bytes_max + SEAL_BYTES);
        buffer.resize(front, 0);
        Self {
            buffer,
            starts: Vec::with_capacity(messages_max as usize),
            ids: Vec::with_capacity(messages_max as usize),
            subtrees: Vec::new(),
            messages_max,
            entry_bytes_max,
        }
    }

    /// Bytes before the first entry.
    fn front(&self) -> usize {
        HEADER_BYTES + self.messages_max as usize * OFFSET_BYTES
    }

    /// Messages so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Bytes of entries so far.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        self.buffer.len() - self.front()
    }

    /// Whether a message of `message_bytes` still fits.
    #[must_use]
    pub fn has_room_for(&self, message_bytes: usize) -> bool {
        self.ids.len() < self.messages_max as usize
            && self.entry_bytes() + PLACES_BYTES + message_bytes <= self.entry_bytes_max
    }

    /// Appends a message whose parents lie at `parent_places`, and tells its index in the batch. Its position
    /// will be the lane's size before the batch, plus one, plus the index.
    ///
    /// # Errors
    /// [`BatchFull`]; the batch is left as it was. An empty batch takes any message.
    pub fn push(
        &mut self,
        parent_places: [Place; 2],
        message: &VerifiedMessage<'_>,
    ) -> Result<u32, BatchFull> {
        let bytes = message.view().bytes();
        let index = self.ids.len() as u32;
        if !self.has_room_for(bytes.len()) {
            return Err(BatchFull { messages: index, entry_bytes: self.entry_bytes() });
        }
        self.starts.push(self.entry_bytes() as u32);
        self.ids.push(message.id());
        self.buffer.extend_from_slice(Places::new(parent_places).as_bytes());
        self.buffer.extend_from_slice(bytes);
        Ok(index)
    }

    /// Closes the batch: writes its table and header, appends its leaves to the lane's `tree`, and has the
    /// checkpoint signed by the lane's node. The batch starts at the tree's size. Hashes leaf by leaf.
    ///
    /// # Errors
    /// [`BatchError::Count`] for an empty batch, [`BatchError::Lane`], or [`BatchError::Position`] at the end
    /// of the lane; `tree` is then left as it was.
    pub fn seal(
        self,
        tree: &mut LaneTree,
        network: NetworkId,
        lane: LaneId,
        sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES],
    ) -> Result<SealedBatch, BatchError> {
        self.seal_by(&OneByOne, tree, network, lane, sign)
    }

    /// Like [`seal`](Self::seal); `hasher` hashes the leaves and what they complete.
    ///
    /// # Errors
    /// As for [`seal`](Self::seal).
    pub fn seal_by(
        mut self,
        hasher: &dyn BatchHasher,
        tree: &mut LaneTree,
        network: NetworkId,
        lane: LaneId,
        sign: impl FnOnce(&[u8]) -> [u8; SIGNATURE_BYTES],
    ) -> Result<SealedBatch, BatchError> {
        let count = self.ids.len() as u32;
        let first = tree.size();
        if count == 0 {
            return Err(BatchError::Count { got: 0, limit: BATCH_MESSAGES_MAX });
        }
        if !lane.is_valid() {
            return Err(BatchError::Lane { got: lane.0, limit: LANES_MAX });
        }
        let last = first.saturating_add(u64::from(count));
        if last >= LANE_POSITIONS_MAX {
            return Err(BatchError::Position { got: last, limit: LANE_POSITIONS_MAX });
        }
        let table_bytes = count as usize * OFFSET_BYTES;
        let entries_at = self.front();
        let body_at = entries_at - table_bytes;
        let table = self.buffer[body_at..entries_at].chunks_exact_mut(OFFSET_BYTES);
        for (offset, start) in table.zip(&self.starts) {
            offset.copy_from_slice(&(table_bytes as u32 + start).to_le_bytes());
        }
        let body = &self.buffer[body_at..];
        let header = BatchHeader {
            magic: BATCH_MAGIC,
            network,
            lane: U16::new(lane.0),
            reserved: U16::ZERO,
            count: U32::new(count),
            first: U64::new(first),
            body_bytes: U64::new(body.len() as u64),
            body_hash: Domain::BATCH_BODY.hash(body),
        };
        let start = body_at - HEADER_BYTES;
        self.buffer[start..body_at].copy_from_slice(header.as_bytes());
        self.subtrees.extend(tree.push_noting(&header.hash()));
        tree.append(MessageId::hashes(&self.ids), hasher, |root| self.subtrees.push(root));
        let root = tree.root();
        let signature = sign(checkpoint_text(network, lane, tree.size(), &root).as_bytes());
        self.buffer.extend_from_slice(&root);
        self.buffer.extend_from_slice(&signature);
        Ok(SealedBatch { builder: self, start, network, lane, first, root })
    }
}

/// A closed batch, ready for the log.
#[derive(Debug)]
pub struct SealedBatch {
    /// Its buffer, ids and limits: to be used again once the log has the bytes.
    builder: BatchBuilder,
    start: usize,
    network: NetworkId,
    lane: LaneId,
    first: u64,
    root: Hash,
}

impl SealedBatch {
    /// Takes a batch that came from elsewhere into memory, after checking structure, body hash and root
    /// against the lane's tree before it; hands out the tree after it too. The seal's signature is the
    /// caller's to check ([`BatchView::verify_seal`]), before or after.
    ///
    /// # Errors
    /// Those of [`BatchView::parse`], [`BatchView::check_hashes`] and [`BatchView::check_root`].
    pub fn from_bytes(bytes: Vec<u8>, before: &LaneTree) -> Result<(Self, LaneTree), BatchError> {
        let view = BatchView::parse(&bytes)?;
        view.check_hashes()?;
        let after = view.check_root(before)?;
        let (network, lane, first, root) = (view.network(), view.lane(), view.first(), *view.root());
        let table_bytes = view.count() as usize * OFFSET_BYTES;
        let builder = BatchBuilder {
            starts: view.offsets.iter().map(|offset| offset.get() - table_bytes as u32).collect(),
            ids: view.ids().collect(),
            subtrees: Vec::new(),
            messages_max: view.count(),
            entry_bytes_max: bytes.len().clamp(ENTRY_BYTES_MIN, ENTRY_BYTES_MAX),
            buffer: bytes,
        };
        Ok((Self { builder, start: 0, network, lane, first, root }, after))
    }

    /// The batch in the format of [`lane`](crate::lane).
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.builder.buffer[self.start..]
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> LaneId {
        self.lane
    }

    /// Position of the header: the lane's size before the batch.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Messages in the batch.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.builder.ids.len() as u32
    }

    /// The lane's size after the batch.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.first + u64::from(self.count()) + 1
    }

    /// Root of the lane's tree at [`size`](Self::size).
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// Ids of the messages, in order.
    #[must_use]
    pub fn ids(&self) -> &[MessageId] {
        &self.builder.ids
    }

    /// Roots of the lane's subtrees of [`SUBTREE_LEVEL`](crate::merkle::SUBTREE_LEVEL) that this batch completed, in
    /// order, the first of them number `first >> SUBTREE_LEVEL`. Empty for a batch that came from elsewhere: it was
    /// not sealed here, and they were not computed.
    #[must_use]
    pub fn subtrees(&self) -> &[Hash] {
        &self.builder.subtrees
    }

    /// Where message `index` lies.
    #[must_use]
    pub const fn place(&self, index: u32) -> Place {
        Place::new(self.lane, self.first + 1 + index as u64)
    }

    /// The batch, read in place. Walks the entries.
    ///
    /// # Errors
    /// None for a batch that was sealed or read here; the type says so for callers that keep their own bytes
    /// too.
    pub fn view(&self) -> Result<BatchView<'_>, BatchError> {
        BatchView::parse(self.bytes())
    }

    /// Message `index`.
    #[must_use]
    pub fn message(&self, index: u32) -> Option<MessageView<'_>> {
        let start = *self.builder.starts.get(index as usize)? as usize;
        let message = self.builder.buffer.get(self.builder.front() + start + PLACES_BYTES..)?;
        MessageView::split(message).ok().map(|(message, _)| message)
    }

    /// An empty batch with the same limits, in the same memory.
    #[must_use]
    pub fn recycle(self) -> BatchBuilder {
        let mut builder = self.builder;
        builder.buffer.clear();
        builder.buffer.resize(builder.front(), 0);
        builder.starts.clear();
        builder.ids.clear();
        builder.subtrees.clear();
        builder
    }
}
