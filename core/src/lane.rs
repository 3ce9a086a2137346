//! Lane batches: the unit that a lane grows by, that the log stores and that nodes ship to each other.
//!
//! Owns the byte format and its reader; [`build`] owns the writer. Invariants: [`BatchView::parse`] takes any
//! bytes without panic and without allocating, and what it takes is canonical: encoding header, entries and
//! seal again gives the same bytes. Hashes, root and signature are checked by methods of their own, because
//! recovery, replication and audit need different ones. Whether parents lie where their places say is left to
//! the node.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "WLB1" |
//! | 4 | 4 | network |
//! | 8 | 2 | lane, below 1,024 |
//! | 10 | 2 | reserved = 0 |
//! | 12 | 4 | count, 1 to 4,096 |
//! | 16 | 8 | first: position of this header in the lane |
//! | 24 | 8 | body length L |
//! | 32 | 32 | body hash: BLAKE3 derive_key("weft 2026-11 batch body v1", body) |
//! | 64 | 4 count | body: offset of each entry from the start of the body |
//! | | | body: entries: place of parent 0, u64; place of parent 1, u64; message |
//! | 64+L | 32 | seal: root of the lane's tree at size first + count + 1 |
//! | 96+L | 64 | seal: Ed25519 signature of the lane's node over the [checkpoint text](crate::checkpoint) |
//!
//! Positions: the batch takes `first` (leaf: header hash, BLAKE3 derive_key("weft 2026-11 batch header v1",
//! 64 header bytes)) and `first + 1 ..= first + count` (leaves: message ids).

pub mod build;

use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checkpoint::checkpoint_text;
use crate::genesis::BATCH_MESSAGES_MAX;
use crate::hash::Domain;
use crate::hasher::{BatchHasher, OneByOne};
use crate::ids::{LANE_POSITIONS_MAX, LANES_MAX, LaneId, MessageId, NetworkId, NodeKey, Place};
use crate::merkle::{Hash, LaneTree};
use crate::message::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, MessageView, SIGNATURE_BYTES};
use crate::reject::Rejection;

/// First bytes of a batch.
pub const BATCH_MAGIC: [u8; 4] = *b"WLB1";

/// Length of the header.
pub const HEADER_BYTES: usize = 64;

/// Length of the seal.
pub const SEAL_BYTES: usize = 96;

/// Length of an entry's parents' places, before its message.
pub const PLACES_BYTES: usize = 16;

/// Length of one number in the table of offsets.
pub const OFFSET_BYTES: usize = 4;

/// Length of the longest batch: 4,096 messages with the longest payload, 65 MiB.
pub const BATCH_BYTES_MAX: usize = HEADER_BYTES
    + SEAL_BYTES
    + BATCH_MESSAGES_MAX as usize * (OFFSET_BYTES + PLACES_BYTES + MESSAGE_BYTES_MAX);

// Offsets are 32 bits wide.
const _: () = assert!(BATCH_BYTES_MAX < u32::MAX as usize);

/// Why bytes are no batch, or a batch does not belong where it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer or more bytes than the header calls for.
    #[error("batch has {got} bytes, {limit} needed")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes needed, as far as could be told.
        limit: usize,
    },
    /// The first four bytes are not the magic.
    #[error("not a lane batch of version 1: it starts with {got:02x?}")]
    BadMagic {
        /// The first bytes.
        got: [u8; 4],
    },
    /// The reserved field is not 0.
    #[error("reserved field is {got}, must be 0")]
    Reserved {
        /// The value.
        got: u16,
    },
    /// The lane's number is out of range.
    #[error("lane is {got}, must be below {limit}")]
    Lane {
        /// The value.
        got: u16,
        /// The first number that is not allowed.
        limit: u16,
    },
    /// The batch is empty or has too many messages.
    #[error("batch has {got} messages, not 1 to {limit}")]
    Count {
        /// The value.
        got: u32,
        /// The format's limit.
        limit: u32,
    },
    /// The lane would outgrow its positions.
    #[error("position {got} is out of range, a lane has {limit}")]
    Position {
        /// The position that is too high.
        got: u64,
        /// Positions of a lane.
        limit: u64,
    },
    /// The body's length does not fit the count.
    #[error("body has {got} bytes, not {min} to {limit}")]
    BodyLength {
        /// The value.
        got: u64,
        /// The shortest body for this count.
        min: u64,
        /// The longest one.
        limit: u64,
    },
    /// An entry does not start where the one before it ends.
    #[error("offset of entry {index} is {got}, must be {limit}")]
    Offset {
        /// The entry.
        index: u32,
        /// The value.
        got: u32,
        /// Where the entry starts.
        limit: u32,
    },
    /// An entry holds no well-formed message.
    #[error("entry {index}: {rejection}")]
    Message {
        /// The entry.
        index: u32,
        /// What is wrong with it.
        rejection: Rejection,
    },
    /// Bytes of the body follow the last entry.
    #[error("body has {got} bytes, but its entries end after {limit}")]
    TrailingBytes {
        /// The body's length.
        got: usize,
        /// Where the last entry ends.
        limit: usize,
    },
    /// The body does not hash to what the header says.
    #[error("body hash does not match the header")]
    BodyHash,
    /// The batch starts elsewhere than the lane ends.
    #[error("batch starts at position {got}, but the lane has {limit}")]
    First {
        /// The batch's first position.
        got: u64,
        /// The lane's size.
        limit: u64,
    },
    /// The root is not that of the lane's tree with this batch.
    #[error("root in the seal does not match the lane's tree")]
    Root,
    /// The signature over the checkpoint is not the node's.
    #[error("seal is not signed by the lane's node")]
    Seal,
}

/// The first 64 bytes of a batch, as they lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    magic: [u8; 4],
    network: NetworkId,
    lane: U16,
    reserved: U16,
    count: U32,
    first: U64,
    body_bytes: U64,
    body_hash: Hash,
}

const _: () = assert!(size_of::<BatchHeader>() == HEADER_BYTES);

impl BatchHeader {
    /// Reads the header at the start of `bytes`; the rest may be missing or longer than this batch.
    ///
    /// # Errors
    /// The first field that is out of range. A header that is taken says how long the batch is:
    /// [`batch_bytes`](Self::batch_bytes).
    pub fn parse(bytes: &[u8]) -> Result<&Self, BatchError> {
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else {
            return Err(BatchError::Length { got: bytes.len(), limit: HEADER_BYTES });
        };
        if header.magic != BATCH_MAGIC {
            return Err(BatchError::BadMagic { got: header.magic });
        }
        if header.reserved.get() != 0 {
            return Err(BatchError::Reserved { got: header.reserved.get() });
        }
        if !header.lane().is_valid() {
            return Err(BatchError::Lane { got: header.lane.get(), limit: LANES_MAX });
        }
        let count = header.count.get();
        if !(1..=BATCH_MESSAGES_MAX).contains(&count) {
            return Err(BatchError::Count { got: count, limit: BATCH_MESSAGES_MAX });
        }
        let last = header.first.get().saturating_add(u64::from(count));
        if last >= LANE_POSITIONS_MAX {
            return Err(BatchError::Position { got: last, limit: LANE_POSITIONS_MAX });
        }
        let body_bytes = |message: usize| u64::from(count) * (OFFSET_BYTES + PLACES_BYTES + message) as u64;
        let (min, limit) = (body_bytes(MESSAGE_BYTES_MIN), body_bytes(MESSAGE_BYTES_MAX));
        if !(min..=limit).contains(&header.body_bytes.get()) {
            return Err(BatchError::BodyLength { got: header.body_bytes.get(), min, limit });
        }
        Ok(header)
    }

    /// Network of the lane.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> LaneId {
        LaneId(self.lane.get())
    }

    /// Messages in the batch.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count.get()
    }

    /// Position of the header: the lane's size before the batch.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first.get()
    }

    /// The lane's size after the batch.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.first() + self.count() as u64 + 1
    }

    /// Length of the whole batch: header, body and seal; at most [`BATCH_BYTES_MAX`] for a parsed header.
    #[must_use]
    pub const fn batch_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes.get() as usize + SEAL_BYTES
    }

    /// BLAKE3 hash of the body, as the header says.
    #[must_use]
    pub const fn body_hash(&self) -> &Hash {
        &self.body_hash
    }

    /// Hash of the header: the leaf at position [`first`](Self::first).
    #[must_use]
    pub fn hash(&self) -> Hash {
        Domain::BATCH_HEADER.hash(self.as_bytes())
    }
}

/// The last 96 bytes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Seal {
    root: Hash,
    signature: [u8; SIGNATURE_BYTES],
}

const _: () = assert!(size_of::<Seal>() == SEAL_BYTES);

/// The places of an entry's parents, before its message.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
struct Places([U64; 2]);

const _: () = assert!(size_of::<Places>() == PLACES_BYTES);

impl Places {
    fn new(places: [Place; 2]) -> Self {
        Self(places.map(|place| U64::new(place.0)))
    }

    fn get(&self) -> [Place; 2] {
        self.0.map(|place| Place(place.get()))
    }
}

/// One message of a batch, with where it lies and where its parents lie.
#[derive(Clone, Copy, Debug)]
pub struct BatchMessage<'a> {
    /// Position in the lane.
    pub position: u64,
    /// Where the parents lie, as the batch says.
    pub parent_places: [Place; 2],
    /// The message.
    pub message: MessageView<'a>,
}

/// A batch, read in place.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
    header: &'a BatchHeader,
    body: &'a [u8],
    offsets: &'a [U32],
    seal: &'a Seal,
}

/// Splits the first entry off `entries`.
fn split_entry(entries: &[u8]) -> Result<([Place; 2], MessageView<'_>, &[u8]), Rejection> {
    let Ok((places, rest)) = Places::ref_from_prefix(entries) else {
        return Err(
            crate::Reason::Truncated.with(entries.len() as u64, (PLACES_BYTES + MESSAGE_BYTES_MIN) as u64)
        );
    };
    let (message, rest) = MessageView::split(rest)?;
    Ok((places.get(), message, rest))
}

impl<'a> BatchView<'a> {
    /// Reads `bytes` as exactly one batch: header fields, lengths, every message's structure, canonical
    /// offsets. Neither hashes nor signatures nor the content of messages are checked.
    ///
    /// # Errors
    /// The first thing that does not fit the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let length = header.batch_bytes();
        let wrong_length = BatchError::Length { got: bytes.len(), limit: length };
        if bytes.len() != length {
            return Err(wrong_length);
        }
        let Some(Ok((body, seal))) = bytes.get(HEADER_BYTES..).map(Seal::ref_from_suffix) else {
            return Err(wrong_length);
        };
        let Ok((offsets, entries)) = <[U32]>::ref_from_prefix_with_elems(body, header.count() as usize)
        else {
            return Err(wrong_length);
        };
        let mut rest = entries;
        for (index, offset) in offsets.iter().enumerate() {
            let (index, start) = (index as u32, (body.len() - rest.len()) as u32);
            if offset.get() != start {
                return Err(BatchError::Offset { index, got: offset.get(), limit: start });
            }
            (_, _, rest) = split_entry(rest).map_err(|rejection| BatchError::Message { index, rejection })?;
        }
        if !rest.is_empty() {
            return Err(BatchError::TrailingBytes { got: body.len(), limit: body.len() - rest.len() });
        }
        Ok(Self { bytes, header, body, offsets, seal })
    }

    /// The whole batch.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// Network of the lane.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.header.network()
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> LaneId {
        self.header.lane()
    }

    /// Messages in the batch.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.header.count()
    }

    /// Position of the header: the lane's size before the batch.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.header.first()
    }

    /// The lane's size after the batch.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.header.size()
    }

    /// Root of the lane's tree at [`size`](Self::size), as the seal says.
    #[must_use]
    pub const fn root(&self) -> &'a Hash {
        &self.seal.root
    }

    /// The node's signature over the checkpoint, as the seal says.
    #[must_use]
    pub const fn signature(&self) -> &'a [u8; SIGNATURE_BYTES] {
        &self.seal.signature
    }

    /// Message `index` of the batch.
    #[must_use]
    pub fn message(&self, index: u32) -> Option<BatchMessage<'a>> {
        let offset = self.offsets.get(index as usize)?.get() as usize;
        let (parent_places, message, _) = split_entry(self.body.get(offset..)?).ok()?;
        Some(BatchMessage { position: self.first() + 1 + u64::from(index), parent_places, message })
    }

    /// The message at `position` of the lane, if it lies in this batch.
    #[must_use]
    pub fn message_at(&self, position: u64) -> Option<BatchMessage<'a>> {
        let index = position.checked_sub(self.first() + 1)?;
        self.message(u32::try_from(index).ok()?)
    }

    /// All messages in order: [`count`](Self::count) of them.
    pub fn messages(&self) -> impl Iterator<Item = BatchMessage<'a>> + use<'a> {
        let mut rest = self.body.get(self.offsets.len() * OFFSET_BYTES..).unwrap_or_default();
        let first = self.first() + 1;
        // Parsing has walked the same entries, so the walk ends with the last one.
        (first..).map_while(move |position| {
            let (parent_places, message, after) = split_entry(rest).ok()?;
            rest = after;
            Some(BatchMessage { position, parent_places, message })
        })
    }

    /// Ids of all messages in order; hashes each.
    pub fn ids(&self) -> impl Iterator<Item = MessageId> + use<'a> {
        self.messages().map(|entry| entry.message.id())
    }

    /// Ids of all messages in order, hashed together.
    #[must_use]
    pub fn ids_by(&self, hasher: &dyn BatchHasher) -> Vec<MessageId> {
        let contents: Vec<&[u8]> = self.messages().map(|entry| entry.message.content()).collect();
        let mut ids = alloc::vec![MessageId::default(); contents.len()];
        hasher.ids(&contents, &mut ids);
        ids
    }

    /// Checks that the body is what the header says.
    ///
    /// # Errors
    /// [`BatchError::BodyHash`].
    pub fn check_hashes(&self) -> Result<(), BatchError> {
        if Domain::BATCH_BODY.hash(self.body) == *self.header.body_hash() {
            Ok(())
        } else {
            Err(BatchError::BodyHash)
        }
    }

    /// Checks that the batch extends the lane that has tree `before`, and hands out the tree after it. Hashes
    /// every message.
    ///
    /// # Errors
    /// [`BatchError::First`] or [`BatchError::Root`].
    pub fn check_root(&self, before: &LaneTree) -> Result<LaneTree, BatchError> {
        self.check_root_of(before, &self.ids_by(&OneByOne), &OneByOne)
    }

    /// Like [`check_root`](Self::check_root), with the ids of the messages from somebody who hashes many at once, as
    /// `hasher` does. Wrong ones do not give the root.
    ///
    /// # Errors
    /// [`BatchError::First`] or [`BatchError::Root`].
    pub fn check_root_of(
        &self,
        before: &LaneTree,
        ids: &[MessageId],
        hasher: &dyn BatchHasher,
    ) -> Result<LaneTree, BatchError> {
        if self.first() != before.size() {
            return Err(BatchError::First { got: self.first(), limit: before.size() });
        }
        let mut tree = before.clone();
        self.append_to(&mut tree, ids, hasher, |_| {});
        if tree.root() == self.seal.root { Ok(tree) } else { Err(BatchError::Root) }
    }

    /// Appends the batch's leaves to `tree`: the header, then the messages, which have these `ids`. Tells `note` the
    /// roots of the subtrees of [`SUBTREE_LEVEL`](crate::merkle::SUBTREE_LEVEL) that are complete then.
    pub fn append_to(
        &self,
        tree: &mut LaneTree,
        ids: &[MessageId],
        hasher: &dyn BatchHasher,
        mut note: impl FnMut(Hash),
    ) {
        tree.push_noting(&self.header.hash()).into_iter().for_each(&mut note);
        tree.append(MessageId::hashes(ids), hasher, note);
    }

    /// The text that the seal's signature is over.
    #[must_use]
    pub fn checkpoint_text(&self) -> alloc::string::String {
        checkpoint_text(self.network(), self.lane(), self.size(), &self.seal.root)
    }

    /// Checks the node's signature; `verify` says whether a signature by a key over a text is valid
    /// (ZIP-215).
    ///
    /// # Errors
    /// [`BatchError::Seal`].
    pub fn verify_seal(
        &self,
        node: &NodeKey,
        verify: impl FnOnce(&NodeKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> Result<(), BatchError> {
        if verify(node, self.checkpoint_text().as_bytes(), &self.seal.signature) {
            Ok(())
        } else {
            Err(BatchError::Seal)
        }
    }
}

impl core::fmt::Debug for BatchView<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BatchView")
            .field("network", &self.network())
            .field("lane", &self.lane())
            .field("first", &self.first())
            .field("count", &self.count())
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
