//! The static index of a sealed segment: a file beside it, mapped, so that old messages cost no memory of their own.
//!
//! Owns the format `<first position, 16 hex digits>.idx`, version 1, and the look-ups in it. Invariants: an open index fits its segment
//! (first position, size and checksum of the last record) and was intact when it was opened. It can always be built again from the
//! segment; whoever opens it does so when it is missing or refused.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic "WEFTIDX1" |
//! | 8 | 4 | version = 1 |
//! | 12 | 4 | network |
//! | 16 | 2 | lane |
//! | 18 | 2 | zero |
//! | 20 | 4 | B: blocks of the filter |
//! | 24 | 8 | first position of the segment |
//! | 32 | 8 | size of the lane after the segment |
//! | 40 | 4 | N: message ids |
//! | 44 | 4 | R: records |
//! | 48 | 32 | checksum of the segment's last record |
//! | 80 | 32 | BLAKE3 of everything after the header |
//! | 112 | 112 | zeros |
//! | 224 | 32 | BLAKE3 derive_key("weft 2026-11 log index v1", bytes 0..224) |
//! | 256 | 64 B | filter: B blocks of 512 bits |
//! | | 8 N | first 8 bytes of each id as a big-endian number, rising (stored little-endian) |
//! | | 4 N | position of each, less the first position |
//! | | 8 R | for each record its first position, less that of the segment (4), and its offset in the segment / 512 (4), rising |
//!
//! About 13.5 bytes a message and 8 a batch, on disk. Ids are uniform, so a prefix is found by looking where it should be and a little
//! around: one page, seldom two. An id that is *not* there usually costs one line of the filter: a blocked Bloom filter with 12 bits a
//! message, 8 of them set, in one cache line (Putze, Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters", 2007). It lets
//! about one absent id in 150 through. A log has too many segments to ask each about an id that is in none: see [`sieve`](super::sieve).

use std::sync::Arc;

use weft_core::{LaneId, NetworkId};

use super::RecordStart;
use crate::disk::DiskFile;
use crate::segment::Checksum;

const MAGIC: [u8; 8] = *b"WEFTIDX1";
const VERSION: u32 = 1;
const CONTEXT: &str = "weft 2026-11 log index v1";
/// Length of the header.
const HEADER_BYTES: usize = 256;
const BLOCK_BYTES: usize = 64;
const FILTER_BITS_PER_ID: u64 = 12;
pub(super) const FILTER_PROBES: u64 = 8;
/// Bytes hashed at a time when an index is checked.
const CHECK_BYTES: usize = 1 << 20;

/// What an index must agree on with its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Covers {
    /// The ledger.
    pub(crate) network: NetworkId,
    /// The lane.
    pub(crate) lane: LaneId,
    /// First position of the segment.
    pub(crate) first: u64,
    /// Size of the lane after the segment.
    pub(crate) size: u64,
    /// Checksum of the segment's last record.
    pub(crate) last: Checksum,
}

/// Why an index file is not used; it is built again then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IndexError {
    /// Its length is not what its header calls for.
    #[error("{got} bytes where {limit} are called for")]
    Length {
        /// Length of the file.
        got: u64,
        /// Length called for.
        limit: u64,
    },
    /// The header or what follows it is damaged, or of another version.
    #[error("{0} is damaged")]
    Damaged(&'static str),
    /// It belongs to another segment, or to another state of this one.
    #[error("it belongs to another segment")]
    AnotherSegment,
    /// It can not be read.
    #[error("unreadable: {0}")]
    Unreadable(String),
}

/// Offsets of the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    blocks: u64,
    ids: u64,
    records: u64,
}

impl Layout {
    const fn prefixes(self) -> u64 {
        HEADER_BYTES as u64 + self.blocks * BLOCK_BYTES as u64
    }

    const fn positions(self) -> u64 {
        self.prefixes() + 8 * self.ids
    }

    const fn starts(self) -> u64 {
        self.positions() + 4 * self.ids
    }

    const fn length(self) -> u64 {
        self.starts() + 8 * self.records
    }
}

/// Spreads a prefix: the finalizer of MurmurHash3 (Appleby), a bijection whose output bits all depend on all input bits.
pub(super) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Block of a prefix, and its bits in the block.
fn probes(prefix: u64, blocks: u64) -> (u64, impl Iterator<Item = usize>) {
    let hash = mix(prefix);
    let block = (u128::from(hash) * u128::from(blocks)) >> 64;
    let bits = mix(hash ^ prefix.rotate_left(32));
    let (start, step) = (bits & 511, (bits >> 9) | 1);
    (block as u64, (0..FILTER_PROBES).map(move |i| (start.wrapping_add(i.wrapping_mul(step)) & 511) as usize))
}

/// The bytes of an index over `entries` (prefix and relative position) and `records`.
pub(crate) fn encode(covers: &Covers, mut entries: Vec<(u64, u32)>, records: &[RecordStart]) -> Vec<u8> {
    entries.sort_unstable();
    let ids = entries.len() as u64;
    let blocks = (ids * FILTER_BITS_PER_ID).div_ceil(8 * BLOCK_BYTES as u64).max(1);
    let layout = Layout { blocks, ids, records: records.len() as u64 };
    let mut bytes = vec![0; layout.length() as usize];
    let (header, body) = bytes.split_at_mut(HEADER_BYTES);
    let (filter, rest) = body.split_at_mut(blocks as usize * BLOCK_BYTES);
    let (prefixes, rest) = rest.split_at_mut(8 * entries.len());
    let (positions, starts) = rest.split_at_mut(4 * entries.len());
    for (slot, (prefix, _)) in prefixes.chunks_exact_mut(8).zip(&entries) {
        slot.copy_from_slice(&prefix.to_le_bytes());
        let (block, bits) = probes(*prefix, blocks);
        let block = &mut filter[block as usize * BLOCK_BYTES..][..BLOCK_BYTES];
        bits.for_each(|bit| block[bit / 8] |= 1 << (bit % 8));
    }
    for (slot, (_, position)) in positions.chunks_exact_mut(4).zip(&entries) {
        slot.copy_from_slice(&position.to_le_bytes());
    }
    for (slot, start) in starts.chunks_exact_mut(8).zip(records) {
        slot[..4].copy_from_slice(&start.position.to_le_bytes());
        slot[4..].copy_from_slice(&start.sector.to_le_bytes());
    }
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&covers.network.0);
    header[16..18].copy_from_slice(&covers.lane.0.to_le_bytes());
    header[20..24].copy_from_slice(&(blocks as u32).to_le_bytes());
    header[24..32].copy_from_slice(&covers.first.to_le_bytes());
    header[32..40].copy_from_slice(&covers.size.to_le_bytes());
    header[40..44].copy_from_slice(&(ids as u32).to_le_bytes());
    header[44..48].copy_from_slice(&(records.len() as u32).to_le_bytes());
    header[48..80].copy_from_slice(&covers.last);
    header[80..112].copy_from_slice(blake3::hash(body).as_bytes());
    let checksum = blake3::derive_key(CONTEXT, &header[..224]);
    header[224..].copy_from_slice(&checksum);
    bytes
}

/// An open index.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: Arc<dyn DiskFile>,
    layout: Layout,
}

impl IndexFile {
    /// Checks `file` (opened for its map) against the segment and its own checksums. Reads all of it once.
    pub(crate) fn open(file: Arc<dyn DiskFile>, covers: &Covers) -> Result<Self, IndexError> {
        let header = file.bytes(0, HEADER_BYTES);
        let header = header.ok_or(IndexError::Length { got: file.length(), limit: HEADER_BYTES as u64 })?;
        let (found, layout, body_hash) = decode_header(&header)?;
        if file.length() != layout.length() {
            return Err(IndexError::Length { got: file.length(), limit: layout.length() });
        }
        if found != *covers {
            return Err(IndexError::AnotherSegment);
        }
        let mut hasher = blake3::Hasher::new();
        let mut at = HEADER_BYTES as u64;
        while at < layout.length() {
            let count = (layout.length() - at).min(CHECK_BYTES as u64) as usize;
            let bytes = file.bytes(at, count).ok_or(IndexError::Damaged("the body"))?;
            hasher.update(&bytes);
            at += count as u64;
        }
        drop(header);
        if *hasher.finalize().as_bytes() != body_hash {
            return Err(IndexError::Damaged("the body"));
        }
        Ok(Self { file, layout })
    }

    fn number<const N: usize>(&self, offset: u64) -> [u8; N] {
        // Inside the file by the check of its length; a wrong answer would only miss a message.
        self.file.bytes(offset, N).and_then(|bytes| bytes.first_chunk().copied()).unwrap_or([0; N])
    }

    fn prefix(&self, i: u64) -> u64 {
        u64::from_le_bytes(self.number(self.layout.prefixes() + 8 * i))
    }

    fn start(&self, i: u64) -> RecordStart {
        let [a, b, c, d, e, f, g, h] = self.number(self.layout.starts() + 8 * i);
        RecordStart { position: u32::from_le_bytes([a, b, c, d]), sector: u32::from_le_bytes([e, f, g, h]) }
    }

    /// All prefixes, rising.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.layout.ids).map(|i| self.prefix(i))
    }

    /// Number of message ids.
    pub(crate) const fn ids(&self) -> u64 {
        self.layout.ids
    }

    /// Number of records.
    pub(crate) const fn records(&self) -> u64 {
        self.layout.records
    }

    /// Relative positions of ids that begin with `prefix`, rising.
    pub(crate) fn find(&self, prefix: u64) -> impl Iterator<Item = u32> + '_ {
        let count = if self.may_have(prefix) { self.layout.ids } else { 0 };
        let from = if count == 0 { 0 } else { self.lower_bound(prefix) };
        (from..count)
            .take_while(move |i| self.prefix(*i) == prefix)
            .map(|i| u32::from_le_bytes(self.number(self.layout.positions() + 4 * i)))
    }

    /// Brings the filter's lines for `prefixes` into the cache.
    pub(crate) fn touch(&self, prefixes: &[u64]) {
        let line = |prefix| HEADER_BYTES as u64 + probes(prefix, self.layout.blocks).0 * BLOCK_BYTES as u64;
        let sum = prefixes.iter().fold(0, |sum, prefix| sum ^ u64::from_le_bytes(self.number(line(*prefix))));
        std::hint::black_box(sum);
    }

    pub(super) fn may_have(&self, prefix: u64) -> bool {
        let (block, mut bits) = probes(prefix, self.layout.blocks);
        let block: [u8; BLOCK_BYTES] = self.number(HEADER_BYTES as u64 + block * BLOCK_BYTES as u64);
        bits.all(|bit| block[bit / 8] >> (bit % 8) & 1 == 1)
    }

    /// Number of prefixes below `prefix`: starts where a uniform prefix should be and widens in doubling steps.
    fn lower_bound(&self, prefix: u64) -> u64 {
        let count = self.layout.ids;
        let guess = ((u128::from(prefix) * u128::from(count)) >> 64) as u64;
        // Invariant of the search below: all before `low` are smaller, all from `high` on are not.
        let (mut low, mut high) = (0, count);
        let mut step = 16;
        if self.prefix(guess) < prefix {
            low = guess + 1;
            while low + step < high {
                if self.prefix(low + step) < prefix {
                    low += step + 1;
                    step *= 2;
                } else {
                    high = low + step;
                }
            }
        } else {
            high = guess;
            while low + step < high {
                if self.prefix(high - step) < prefix {
                    low = high - step + 1;
                } else {
                    high -= step;
                    step *= 2;
                }
            }
        }
        partition(low, high, |i| self.prefix(i) < prefix)
    }

    /// The last record that starts at or before relative `position`.
    pub(crate) fn record_at(&self, position: u32) -> Option<RecordStart> {
        let after = partition(0, self.layout.records, |i| self.start(i).position <= position);
        Some(self.start(after.checked_sub(1)?))
    }
}

/// The first of `low..high` for which `before` is false; it is true for all earlier ones.
fn partition(mut low: u64, mut high: u64, before: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn decode_header(header: &[u8]) -> Result<(Covers, Layout, [u8; 32]), IndexError> {
    let damaged = || IndexError::Damaged("the header");
    let number32 = |at: usize| {
        let bytes = header.get(at..).and_then(|bytes| bytes.first_chunk()).copied();
        bytes.map(u32::from_le_bytes).ok_or_else(damaged)
    };
    let number64 = |at: usize| {
        let bytes = header.get(at..).and_then(|bytes| bytes.first_chunk()).copied();
        bytes.map(u64::from_le_bytes).ok_or_else(damaged)
    };
    let hash = |at: usize| {
        let bytes = header.get(at..).and_then(|bytes| bytes.first_chunk::<32>());
        bytes.copied().ok_or_else(damaged)
    };
    let fixed = header.get(..224).ok_or_else(damaged)?;
    let intact = fixed.starts_with(&MAGIC)
        && number32(8)? == VERSION
        && blake3::derive_key(CONTEXT, fixed) == hash(224)?;
    if !intact {
        return Err(damaged());
    }
    let covers = Covers {
        network: NetworkId(number32(12)?.to_le_bytes()),
        lane: LaneId(number32(16)? as u16),
        first: number64(24)?,
        size: number64(32)?,
        last: hash(48)?,
    };
    let layout = Layout {
        blocks: u64::from(number32(20)?),
        ids: u64::from(number32(40)?),
        records: u64::from(number32(44)?),
    };
    if layout.blocks == 0 || covers.size < covers.first {
        return Err(damaged());
    }
    Ok((covers, layout, hash(80)?))
}
