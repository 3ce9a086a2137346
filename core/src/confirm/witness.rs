//! The witness: what a validator states in one round, as the payload of a message of kind
//! [`PayloadKind::WITNESS`](crate::PayloadKind::WITNESS) in its own lane.
//!
//! Owns the payload format. Invariants: decoding takes any bytes without panic and allocates for entries whose
//! bytes are there (a reject takes at least one bit of the payload and 8 bytes of memory, so 1 MiB at most); what is
//! taken is canonical. What a witness means is left to `count` and `settle`; what
//! goes into one to [`state`](super::state).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version = 1 |
//! | 1 | 1 | flags: bit 0: the cut moves over more than witnesses; the rest 0 |
//! | 2 | 2 | C: claims of the cut |
//! | 4 | 2 | Z: claims of the certified cut |
//! | 6 | 2 | A: cuts stated again |
//! | 8 | 2 | B: certified cuts stated again |
//! | 10 | 2 | G: groups of rejects |
//! | 12 | 8 | number: 1, 2, 3 ... |
//! | 20 | 32 | id of the message of the witness before; zeros in the first |
//! | 52 | 42 C | claims: lane u16, size u64, root 32; lanes rising |
//! | | 42 Z | the same for the certified cut |
//! | | 42 A | the same, lane and size rising |
//! | | 42 B | the same, lane and size rising |
//! | | | groups of rejects, lanes rising: lane u16, form u8, count u16, first position u64, then the others |
//!
//! Others, form 0: `count` offsets u32 from the first position, rising, above 0. Form 1: a bitmap of `count` bytes,
//! bit i for the first position + i, bit 0 set, last byte not 0. The shorter form is used, the list when both are
//! equal. A group's lane has a claim in the cut, and its positions lie below that claim's size.

use alloc::vec::Vec;

use crate::ids::{LANE_POSITIONS_MAX, LANES_MAX, LaneId, MessageId};
use crate::merkle::Hash;
use crate::message::PAYLOAD_BYTES_MAX;

/// Longest witness: it must fit the payload of one message.
pub const WITNESS_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

const VERSION: u8 = 1;
/// Length of the fields before the claims.
pub const WITNESS_HEAD_BYTES: usize = 52;
/// Length of one claim.
pub const CLAIM_BYTES: usize = 42;
const NUMBER_AT: usize = 12;
const GROUP_HEAD_BYTES: usize = 13;
const FLAG_COVERS_DATA: u8 = 1;

/// A prefix of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The lane.
    pub lane: LaneId,
    /// Its size, at the end of a batch.
    pub size: u64,
    /// Root of its tree at this size.
    pub root: Hash,
}

/// Positions of one lane that its cut covers for the first time and rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejects {
    /// The lane.
    pub lane: LaneId,
    /// The positions, rising, at least one.
    pub positions: Vec<u64>,
}

/// What a validator states in one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// 1, 2, 3 ... without gaps.
    pub number: u64,
    /// Message id of the witness before; zeros in the first.
    pub predecessor: MessageId,
    /// Whether the cut moves over more than witnesses: such a witness must become final itself, since operations
    /// are counted by the witnesses below final.
    pub covers_data: bool,
    /// For each lane that moved: what the validator holds durably and has applied. Lanes rising.
    pub cut: Vec<Claim>,
    /// For each lane that moved: what it sees certified and has applied. Lanes rising.
    pub certified: Vec<Claim>,
    /// Prefixes of closed lanes, cut once more.
    pub cut_again: Vec<Claim>,
    /// Prefixes of closed lanes, certified once more.
    pub certified_again: Vec<Claim>,
    /// Operations that this cut covers and does not accept. Lanes rising.
    pub rejects: Vec<Rejects>,
}

/// Why bytes are no witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// The bytes end before the witness does, or go on after it, or are more than a payload holds.
    #[error("witness has {got} bytes, {limit} needed")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes needed, as far as could be told; the format's limit for a witness that is too long.
        limit: usize,
    },
    /// The version is unknown.
    #[error("witness version {got}, this is {limit}")]
    Version {
        /// The value.
        got: u8,
        /// The version of this format.
        limit: u8,
    },
    /// A flag is set that has no meaning.
    #[error("witness flags {got:#04x}, at most {limit:#04x}")]
    Flags {
        /// The value.
        got: u8,
        /// All flags with a meaning.
        limit: u8,
    },
    /// The number is 0, or a first witness names a predecessor or a later one none.
    #[error("witness number {got} does not fit its predecessor")]
    Number {
        /// The value.
        got: u64,
    },
    /// A claim names a lane or size out of range, or is not above the one before.
    #[error("claim {index} is out of range or out of order: lane {lane}, size {got}")]
    Claim {
        /// Its index in its list.
        index: usize,
        /// The lane.
        lane: u16,
        /// The size.
        got: u64,
    },
    /// A group of rejects is not in canonical form, or outside the cut.
    #[error("group {index} of rejects is not canonical or not covered by the cut: lane {lane}")]
    Rejects {
        /// Its index.
        index: usize,
        /// The lane.
        lane: u16,
    },
}

/// Bytes of a group of rejects whose first and last positions lie `span` apart: the better of list and bitmap.
#[must_use]
pub fn group_bytes(count: usize, span: u64) -> u64 {
    let list = 4 * (count as u64).saturating_sub(1);
    GROUP_HEAD_BYTES as u64 + list.min(span / 8 + 1)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, count: usize) -> Result<&'a [u8], WitnessError> {
        let end = self.offset.saturating_add(count);
        let slice = self.bytes.get(self.offset..end);
        self.offset = end;
        slice.ok_or(WitnessError::Length { got: self.bytes.len(), limit: end })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WitnessError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, WitnessError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WitnessError> {
        self.array().map(u64::from_le_bytes)
    }

    /// `count` claims; `many` allows several sizes of one lane.
    fn claims(&mut self, count: u16, many: bool) -> Result<Vec<Claim>, WitnessError> {
        let count = usize::from(count);
        let mut entries = Reader { bytes: self.slice(count * CLAIM_BYTES)?, offset: 0 };
        let mut claims: Vec<Claim> = Vec::with_capacity(count);
        for index in 0..count {
            let (lane, size, root) = (entries.u16()?, entries.u64()?, entries.array()?);
            let refused = WitnessError::Claim { index, lane, got: size };
            if lane >= LANES_MAX || size == 0 || size > LANE_POSITIONS_MAX {
                return Err(refused);
            }
            let claim = Claim { lane: LaneId(lane), size, root };
            let above = claims.last().is_none_or(|last| {
                last.lane < claim.lane || (many && last.lane == claim.lane && last.size < claim.size)
            });
            if !above {
                return Err(refused);
            }
            claims.push(claim);
        }
        Ok(claims)
    }

    fn rejects(&mut self, index: usize, cut: &[Claim]) -> Result<Rejects, WitnessError> {
        let (lane, form, count) = (self.u16()?, self.array::<1>()?[0], usize::from(self.u16()?));
        let first = self.u64()?;
        let refused = WitnessError::Rejects { index, lane };
        let covered = cut.binary_search_by_key(&LaneId(lane), |claim| claim.lane).map_err(|_| refused)?;
        let limit = cut[covered].size;
        if first >= limit {
            return Err(refused);
        }
        let mut positions = alloc::vec![first];
        match form {
            0 => {
                let offsets = self.slice(4 * count)?;
                positions.reserve_exact(count);
                for offset in offsets.chunks_exact(4) {
                    let offset = u32::from_le_bytes([offset[0], offset[1], offset[2], offset[3]]);
                    let position = first.saturating_add(u64::from(offset));
                    if positions.last().is_some_and(|last| *last >= position) {
                        return Err(refused);
                    }
                    positions.push(position);
                }
            }
            1 => {
                let bitmap = self.slice(count)?;
                let ends = (bitmap.first().copied(), bitmap.last().copied());
                let (Some(head), Some(tail)) = ends else { return Err(refused) };
                if head & 1 == 0 || tail == 0 {
                    return Err(refused);
                }
                let bits = (1u64..).take(8 * count - 1);
                positions.extend(
                    bits.filter(|bit| bitmap[(bit / 8) as usize] >> (bit % 8) & 1 == 1)
                        .map(|bit| first.saturating_add(bit)),
                );
            }
            _ => return Err(refused),
        }
        let last = positions.last().copied().unwrap_or(first);
        if last >= limit || form != preferred_form(positions.len(), last - first) {
            return Err(refused);
        }
        Ok(Rejects { lane: LaneId(lane), positions })
    }
}

/// 0 for the list, 1 for the bitmap.
fn preferred_form(count: usize, span: u64) -> u8 {
    u8::from(4 * (count as u64 - 1) > span / 8 + 1)
}

impl Witness {
    /// The number in a payload that may be a witness, without reading the rest of it.
    #[must_use]
    pub fn peek_number(payload: &[u8]) -> Option<u64> {
        payload.get(NUMBER_AT..)?.first_chunk().copied().map(u64::from_le_bytes)
    }

    /// Memory of it, about: a bit of its payload may be a reject of eight bytes here.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let claims = [&self.cut, &self.certified, &self.cut_again, &self.certified_again];
        let claims: usize = claims.iter().map(|claims| claims.len()).sum();
        let rejects: usize = self.rejects.iter().map(|rejects| rejects.positions.len()).sum();
        size_of::<Self>() + claims * size_of::<Claim>() + rejects * size_of::<u64>()
    }

    /// Length of the payload.
    #[must_use]
    pub fn encoded_bytes(&self) -> u64 {
        let claims =
            self.cut.len() + self.certified.len() + self.cut_again.len() + self.certified_again.len();
        let groups = self.rejects.iter().map(|group| match group.positions.as_slice() {
            [first, .., last] => group_bytes(group.positions.len(), last - first),
            _ => group_bytes(1, 0),
        });
        (WITNESS_HEAD_BYTES + claims * CLAIM_BYTES) as u64 + groups.sum::<u64>()
    }

    /// The payload.
    ///
    /// # Errors
    /// What [`decode`](Self::decode) would say of it.
    pub fn encode(&self) -> Result<Vec<u8>, WitnessError> {
        let length = self.encoded_bytes();
        let limit = WITNESS_BYTES_MAX;
        let too_long = WitnessError::Length { got: usize::try_from(length).unwrap_or(usize::MAX), limit };
        if length > limit as u64 {
            return Err(too_long);
        }
        let mut out = Vec::with_capacity(length as usize);
        out.push(VERSION);
        out.push(if self.covers_data { FLAG_COVERS_DATA } else { 0 });
        let lists = [&self.cut, &self.certified, &self.cut_again, &self.certified_again];
        for count in lists.map(Vec::len).into_iter().chain([self.rejects.len()]) {
            out.extend_from_slice(&u16::try_from(count).map_err(|_| too_long)?.to_le_bytes());
        }
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.predecessor.0);
        for claim in lists.into_iter().flatten() {
            out.extend_from_slice(&claim.lane.0.to_le_bytes());
            out.extend_from_slice(&claim.size.to_le_bytes());
            out.extend_from_slice(&claim.root);
        }
        for (index, group) in self.rejects.iter().enumerate() {
            group.encode(&mut out).ok_or(WitnessError::Rejects { index, lane: group.lane.0 })?;
        }
        Self::decode(&out).map(|_| out)
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// The first thing that does not fit the format.
    pub fn decode(payload: &[u8]) -> Result<Self, WitnessError> {
        if payload.len() > WITNESS_BYTES_MAX {
            return Err(WitnessError::Length { got: payload.len(), limit: WITNESS_BYTES_MAX });
        }
        let mut reader = Reader { bytes: payload, offset: 0 };
        let [version, flags] = reader.array()?;
        if version != VERSION {
            return Err(WitnessError::Version { got: version, limit: VERSION });
        }
        if flags & !FLAG_COVERS_DATA != 0 {
            return Err(WitnessError::Flags { got: flags, limit: FLAG_COVERS_DATA });
        }
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let groups = usize::from(reader.u16()?);
        let number = reader.u64()?;
        let predecessor = MessageId(reader.array()?);
        if number == 0 || (number == 1) != (predecessor == MessageId([0; 32])) {
            return Err(WitnessError::Number { got: number });
        }
        let cut = reader.claims(counts[0], false)?;
        let certified = reader.claims(counts[1], false)?;
        let cut_again = reader.claims(counts[2], true)?;
        let certified_again = reader.claims(counts[3], true)?;
        let mut rejects: Vec<Rejects> = Vec::new();
        for index in 0..groups {
            let group = reader.rejects(index, &cut)?;
            if rejects.last().is_some_and(|last| last.lane >= group.lane) {
                return Err(WitnessError::Rejects { index, lane: group.lane.0 });
            }
            rejects.push(group);
        }
        if reader.offset != payload.len() {
            return Err(WitnessError::Length { got: payload.len(), limit: reader.offset });
        }
        let covers_data = flags & FLAG_COVERS_DATA != 0;
        Ok(Self { number, predecessor, covers_data, cut, certified, cut_again, certified_again, rejects })
    }
}

impl Rejects {
    /// Appends the group; `None` when it is empty, unordered or too wide for the format.
    fn encode(&self, out: &mut Vec<u8>) -> Option<()> {
        let (first, last) = (*self.positions.first()?, *self.positions.last()?);
        let span = last.checked_sub(first)?;
        let form = preferred_form(self.positions.len(), span);
        out.extend_from_slice(&self.lane.0.to_le_bytes());
        out.push(form);
        if form == 0 {
            out.extend_from_slice(&u16::try_from(self.positions.len() - 1).ok()?.to_le_bytes());
            out.extend_from_slice(&first.to_le_bytes());
            for position in &self.positions[1..] {
                let offset = u32::try_from(position.checked_sub(first)?).ok()?;
                out.extend_from_slice(&offset.to_le_bytes());
            }
        } else {
            let bytes = u16::try_from(span / 8 + 1).ok()?;
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(&first.to_le_bytes());
            let start = out.len();
            out.resize(start + usize::from(bytes), 0);
            for position in &self.positions {
                let bit = position.checked_sub(first)?;
                let byte = usize::try_from(bit / 8).ok()?;
                *out.get_mut(start + byte)? |= 1 << (bit % 8);
            }
        }
        Some(())
    }
}
