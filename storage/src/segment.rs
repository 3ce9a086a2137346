//! The bytes of a segment file: its header and the frames of its records.
//!
//! Owns the format, version 1, and pure functions that encode and decode it; no I/O. Invariants: a decoded header or frame has the
//! right checksum and fields within their limits; nothing is known yet about what it stands for. Reading a file record by record is
//! `scan`'s business, the batch inside a record is `weft-core`'s.
//!
//! A lane's log is a row of files `<first position, 16 hex digits>.seg`. Each is allocated whole, begins with a header and holds
//! records from byte 4,096 on. Little-endian throughout.
//!
//! Segment header, 4,096 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic "WEFTSEG1" |
//! | 8 | 4 | version = 1 |
//! | 12 | 4 | network: first 4 bytes of the genesis id |
//! | 16 | 2 | lane |
//! | 18 | 2 | hashes in the frontier, at most 48 |
//! | 20 | 4 | zero |
//! | 24 | 8 | first position: size of the lane before this segment |
//! | 32 | 8 | length of the file |
//! | 40 | 32 | salt: random, known to this node alone |
//! | 72 | 32 | checksum of the last record of the segment before; zeros in the first |
//! | 104 | 1536 | frontier of the lane's tree at the first position, largest subtree first; zeros after it |
//! | 1640 | 2424 | zeros |
//! | 4064 | 32 | checksum: BLAKE3 derive_key("weft 2026-11 log segment v1", bytes 0..4064) |
//!
//! Record, at a multiple of 512 bytes: a frame of 128 bytes, then the sealed batch, then zeros up to the next multiple of 512.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "WREC" |
//! | 4 | 4 | messages in the batch; 0 in a mark |
//! | 8 | 8 | length of the batch in bytes; 0 in a mark |
//! | 16 | 8 | first position: size of the lane before this record |
//! | 24 | 8 | durable: size of the lane that was known durable when this was written; at most the first position |
//! | 32 | 8 | session: random, drawn each time the log is opened |
//! | 40 | 24 | content: first 24 bytes of keyed BLAKE3(salt, batch header ++ batch seal); zeros in a mark |
//! | 64 | 32 | previous: checksum of the record before, of the segment header for the first record |
//! | 96 | 32 | checksum: keyed BLAKE3(salt, bytes 0..96) |
//! | 128 | | header (64), body, seal (96) of the lane batch |
//!
//! *Why it is made so.* The body is covered by the hash in the batch header, so the checksum need not pass over it again. A frame lies
//! in one sector, so that a crash leaves all of it or nothing, and its claim about durability can be trusted even where the batch behind
//! it is torn. `previous` chains the records, and the session makes every record differ from all that were written before the log was
//! last opened: a record left over beyond a cut tail never continues the chain. The salt keys the checksums: whoever sends messages can
//! not send bytes that look like a frame. A record starts in a sector of its own, so that writing it can not tear an older one.
//!
//! A *mark* is a frame without a batch. It says that all before it is durable; the next record overwrites it. It is written when the log
//! is opened and when it is closed, so that damage found after either can be told from a torn tail.

use weft_core::merkle::LaneTree;
use weft_core::{LaneId, NetworkId};

use crate::disk::SECTOR_BYTES;

/// Length of a segment header: a page, so that records are page-aligned in the map.
pub const SEGMENT_HEADER_BYTES: usize = 4_096;
/// Length of a record's frame.
pub const FRAME_BYTES: usize = 128;
/// Records start at multiples of this.
pub const RECORD_ALIGN_BYTES: u64 = SECTOR_BYTES as u64;
/// Hashes of a frontier, at most: a lane has at most 2^48 leaves.
pub const FRONTIER_HASHES_MAX: usize = 48;

const SEGMENT_MAGIC: [u8; 8] = *b"WEFTSEG1";
const SEGMENT_VERSION: u32 = 1;
/// First bytes of every frame.
pub const FRAME_MAGIC: [u8; 4] = *b"WREC";
const SEGMENT_CONTEXT: &str = "weft 2026-11 log segment v1";
const CONTENT_BYTES: usize = 24;
const POSITION_MAX: u64 = weft_core::ids::LANE_POSITIONS_MAX;

/// A BLAKE3 checksum in the chain of records.
pub type Checksum = [u8; 32];

/// Why bytes are not a segment header or a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Fewer bytes than the structure has.
    #[error("{got} bytes where {limit} are needed")]
    Truncated {
        /// Bytes given.
        got: usize,
        /// Bytes needed.
        limit: usize,
    },
    /// The first bytes are not the magic.
    #[error("wrong magic")]
    Magic,
    /// A later program wrote it.
    #[error("format version {got}, this program knows {limit}")]
    Version {
        /// Version found.
        got: u32,
        /// Version known.
        limit: u32,
    },
    /// The checksum does not fit the bytes.
    #[error("wrong checksum")]
    Checksum,
    /// The checksum is right but a field is out of range: not written by this program.
    #[error("field {name} is {got}, limit {limit}")]
    Field {
        /// The field.
        name: &'static str,
        /// Its value.
        got: u64,
        /// The largest or only value allowed.
        limit: u64,
    },
}

/// A segment's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The ledger.
    pub network: NetworkId,
    /// The lane.
    pub lane: LaneId,
    /// Length of the file in bytes.
    pub length_bytes: u64,
    /// Key of the checksums of this segment's records.
    pub salt: [u8; 32],
    /// Checksum of the last record before this segment.
    pub previous: Checksum,
    /// The lane's tree at the first position of this segment.
    pub tree: LaneTree,
}

impl SegmentHeader {
    /// Size of the lane before this segment.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.tree.size()
    }

    /// The header's bytes; their last 32 are the checksum that the first record names.
    #[must_use]
    pub fn encode(&self) -> Box<[u8; SEGMENT_HEADER_BYTES]> {
        let mut bytes = Box::new([0; SEGMENT_HEADER_BYTES]);
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.network.0);
        bytes[16..18].copy_from_slice(&self.lane.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.length_bytes.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.salt);
        bytes[72..104].copy_from_slice(&self.previous);
        let mut hashes = 0_u16;
        for (slot, hash) in bytes[104..1_640].chunks_exact_mut(32).zip(self.tree.frontier()) {
            slot.copy_from_slice(&hash);
            hashes += 1;
        }
        bytes[18..20].copy_from_slice(&hashes.to_le_bytes());
        let checksum = blake3::derive_key(SEGMENT_CONTEXT, &bytes[..4_064]);
        bytes[4_064..].copy_from_slice(&checksum);
        bytes
    }

    /// Reads a header and tells its checksum.
    ///
    /// # Errors
    /// [`FormatError`]; a version that is not known is told before the checksum, which may be another one there.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Checksum), FormatError> {
        let truncated = FormatError::Truncated { got: bytes.len(), limit: SEGMENT_HEADER_BYTES };
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk().ok_or(truncated)?;
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u32::from_le_bytes(array(&bytes[8..12]));
        if version != SEGMENT_VERSION {
            return Err(FormatError::Version { got: version, limit: SEGMENT_VERSION });
        }
        let checksum: Checksum = array(&bytes[4_064..]);
        if blake3::derive_key(SEGMENT_CONTEXT, &bytes[..4_064]) != checksum {
            return Err(FormatError::Checksum);
        }
        let lane = LaneId(u16::from_le_bytes(array(&bytes[16..18])));
        if !lane.is_valid() {
            let limit = u64::from(weft_core::LANES_MAX) - 1;
            return Err(FormatError::Field { name: "lane", got: u64::from(lane.0), limit });
        }
        let first = u64::from_le_bytes(array(&bytes[24..32]));
        let hashes = usize::from(u16::from_le_bytes(array(&bytes[18..20])));
        if hashes > FRONTIER_HASHES_MAX {
            let limit = FRONTIER_HASHES_MAX as u64;
            return Err(FormatError::Field { name: "frontier hashes", got: hashes as u64, limit });
        }
        let frontier: Vec<[u8; 32]> = bytes[104..104 + 32 * hashes].chunks_exact(32).map(array).collect();
        let wrong_tree = |_| FormatError::Field { name: "first position", got: first, limit: POSITION_MAX };
        let header = Self {
            network: NetworkId(array(&bytes[12..16])),
            lane,
            length_bytes: u64::from_le_bytes(array(&bytes[32..40])),
            salt: array(&bytes[40..72]),
            previous: array(&bytes[72..104]),
            tree: LaneTree::from_frontier(first, &frontier).map_err(wrong_tree)?,
        };
        Ok((header, checksum))
    }
}

/// Bytes of a slice known to have length N; zeros for any other length, which no caller passes.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    if bytes.len() == N {
        out.copy_from_slice(bytes);
    }
    out
}

/// The frame of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Messages in the batch; 0 in a mark.
    pub count: u32,
    /// Length of the batch in bytes; 0 in a mark.
    pub length_bytes: u64,
    /// Size of the lane before the record.
    pub first: u64,
    /// Size of the lane known durable when the record was written.
    pub durable: u64,
    /// Random number of the opening that wrote the record.
    pub session: u64,
    /// Truncated hash of the batch's header and seal.
    pub content: [u8; CONTENT_BYTES],
    /// Checksum of the record before.
    pub previous: Checksum,
}

impl Frame {
    /// Hash of a batch's header and seal, for [`Frame::content`].
    #[must_use]
    pub fn content_of(salt: &[u8; 32], header: &[u8], seal: &[u8]) -> [u8; CONTENT_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(salt);
        hasher.update(header).update(seal);
        array(&hasher.finalize().as_bytes()[..CONTENT_BYTES])
    }

    /// Whether this is a mark: no batch follows.
    #[must_use]
    pub const fn is_mark(&self) -> bool {
        self.count == 0
    }

    /// Size of the lane after the record.
    #[must_use]
    pub const fn size(&self) -> u64 {
        if self.is_mark() { self.first } else { self.first + self.count as u64 + 1 }
    }

    /// The frame's bytes; their last 32 are the checksum that the next record names.
    #[must_use]
    pub fn encode(&self, salt: &[u8; 32]) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        bytes[..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.length_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.durable.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.session.to_le_bytes());
        bytes[40..64].copy_from_slice(&self.content);
        bytes[64..96].copy_from_slice(&self.previous);
        let checksum = *blake3::keyed_hash(salt, &bytes[..96]).as_bytes();
        bytes[96..].copy_from_slice(&checksum);
        bytes
    }

    /// Reads a frame and tells its checksum.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(bytes: &[u8], salt: &[u8; 32]) -> Result<(Self, Checksum), FormatError> {
        let truncated = FormatError::Truncated { got: bytes.len(), limit: FRAME_BYTES };
        let bytes: &[u8; FRAME_BYTES] = bytes.first_chunk().ok_or(truncated)?;
        if bytes[..4] != FRAME_MAGIC {
            return Err(FormatError::Magic);
        }
        let checksum: Checksum = array(&bytes[96..]);
        if *blake3::keyed_hash(salt, &bytes[..96]).as_bytes() != checksum {
            return Err(FormatError::Checksum);
        }
        let frame = Self {
            count: u32::from_le_bytes(array(&bytes[4..8])),
            length_bytes: u64::from_le_bytes(array(&bytes[8..16])),
            first: u64::from_le_bytes(array(&bytes[16..24])),
            durable: u64::from_le_bytes(array(&bytes[24..32])),
            session: u64::from_le_bytes(array(&bytes[32..40])),
            content: array(&bytes[40..64]),
            previous: array(&bytes[64..96]),
        };
        let field = |name, got, limit| Err(FormatError::Field { name, got, limit });
        if frame.count > weft_core::BATCH_MESSAGES_MAX {
            return field("count", u64::from(frame.count), u64::from(weft_core::BATCH_MESSAGES_MAX));
        }
        if (frame.count == 0) != (frame.length_bytes == 0) {
            return field("length", frame.length_bytes, 0);
        }
        if frame.first > POSITION_MAX - 1 - u64::from(frame.count) {
            return field("first position", frame.first, POSITION_MAX - 1 - u64::from(frame.count));
        }
        if frame.durable > frame.first {
            return field("durable", frame.durable, frame.first);
        }
        Ok((frame, checksum))
    }
}

/// Bytes that a record with a batch of `length_bytes` takes in a segment.
#[must_use]
pub const fn record_bytes(length_bytes: u64) -> u64 {
    (FRAME_BYTES as u64)
        .saturating_add(length_bytes)
        .div_ceil(RECORD_ALIGN_BYTES)
        .saturating_mul(RECORD_ALIGN_BYTES)
}

/// Name of the segment that starts at position `first`.
#[must_use]
pub fn segment_name(first: u64) -> String {
    format!("{first:016x}.seg")
}

/// First position of the segment file `name`; `None` for any other file.
#[must_use]
pub fn segment_first(name: &str) -> Option<u64> {
    let first = u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok()?;
    (segment_name(first) == name).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let mut tree = LaneTree::new();
        for i in 0..1_000_u16 {
            let mut leaf = [0; 32];
            leaf[..2].copy_from_slice(&i.to_le_bytes());
            tree.push(&leaf);
        }
        SegmentHeader {
            network: NetworkId([1, 2, 3, 4]),
            lane: LaneId(5),
            length_bytes: 65_536,
            salt: [6; 32],
            previous: [7; 32],
            tree,
        }
    }

    fn frame() -> Frame {
        Frame {
            count: 3,
            length_bytes: 1_000,
            first: 77,
            durable: 70,
            session: 9,
            content: [8; 24],
            previous: [1; 32],
        }
    }

    #[test]
    fn a_header_survives_its_bytes_and_any_flipped_bit_is_noticed() {
        let header = header();
        let bytes = header.encode();
        let (decoded, checksum) = SegmentHeader::decode(&bytes[..]).unwrap();
        assert_eq!(decoded, header);
        assert_eq!(checksum, bytes[4_064..]);
        for bit in (0..8 * SEGMENT_HEADER_BYTES).step_by(13) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&damaged[..]).is_err(), "bit {bit}");
        }
        assert_eq!(
            SegmentHeader::decode(&bytes[..4_095]),
            Err(FormatError::Truncated { got: 4_095, limit: 4_096 })
        );
    }

    #[test]
    fn a_frame_survives_its_bytes_and_any_flipped_bit_or_another_salt_is_noticed() {
        let bytes = frame().encode(&[6; 32]);
        let (decoded, checksum) = Frame::decode(&bytes, &[6; 32]).unwrap();
        assert_eq!((decoded, &checksum[..]), (frame(), &bytes[96..]));
        assert_eq!((decoded.size(), decoded.is_mark()), (81, false));
        for bit in 0..8 * FRAME_BYTES {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&damaged, &[6; 32]).is_err(), "bit {bit}");
        }
        assert_eq!(Frame::decode(&bytes, &[5; 32]), Err(FormatError::Checksum));
    }

    #[test]
    fn fields_out_of_range_are_named_although_the_checksum_is_right() {
        let decode = |frame: Frame| Frame::decode(&frame.encode(&[0; 32]), &[0; 32]).map(|_| ());
        let name = |frame| match decode(frame) {
            Err(FormatError::Field { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name(Frame { count: 4_097, ..frame() }), "count");
        assert_eq!(name(Frame { count: 0, ..frame() }), "length");
        assert_eq!(name(Frame { length_bytes: 0, ..frame() }), "length");
        assert_eq!(name(Frame { first: POSITION_MAX - 3, ..frame() }), "first position");
        assert_eq!(name(Frame { first: u64::MAX, ..frame() }), "first position");
        assert_eq!(name(Frame { durable: 78, ..frame() }), "durable");
        assert_eq!(decode(Frame { count: 0, length_bytes: 0, ..frame() }), Ok(()));
    }

    #[test]
    fn names_carry_the_first_position() {
        assert_eq!(segment_name(0x1f), "000000000000001f.seg");
        assert_eq!(segment_first("000000000000001f.seg"), Some(0x1f));
        for other in
            ["1f.seg", "000000000000001F.seg", "000000000000001f.idx", "spare", "+00000000000001f.seg"]
        {
            assert_eq!(segment_first(other), None, "{other}");
        }
    }

    #[test]
    fn records_take_whole_sectors() {
        assert_eq!(record_bytes(0), 512);
        assert_eq!(record_bytes(384), 512);
        assert_eq!(record_bytes(385), 1_024);
    }
}
