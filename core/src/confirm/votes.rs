//! What a validator must not forget: its last witness's number, what it has stated, and its locks.
//!
//! Owns the record and its format. The machine hands one out with every witness, and before every change of a copy;
//! it has to be durable before the witness leaves and before the copy changes, so that a restart is a pause.
//! Everything else is learned again from the lanes and from other nodes. Invariants: decoding takes any bytes
//! without panic and allocates for entries whose bytes are there; what is taken encodes to the same bytes.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "WVT1" |
//! | 4 | 4 | lanes L, at most 1,024 |
//! | 8 | 4 | locks K |
//! | 12 | 8 | number of the last witness, 0 before the first |
//! | 20 | 96 L | per lane: cut size, cut root, certified size, certified root, judged size, final size |
//! | | 72 K | per lock: account 32, sequence u64, hash 32; accounts rising |
//!
//! *Judged* is how far the cut that was stated reaches on the copy held: votes below it are cast. *Final* says how
//! far the ledger had come: after a restart a validator judges nothing before it has come as far again, since locks
//! below it are let go of.

use alloc::vec::Vec;

use super::ledger::Lock;
use crate::ids::{DeviceKey, LANES_MAX};
use crate::merkle::Hash;

const MAGIC: [u8; 4] = *b"WVT1";
const HEAD_BYTES: usize = 20;
const LANE_BYTES: usize = 96;
const LOCK_BYTES: usize = 72;

/// What was stated of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneVotes {
    /// Size and root of the last cut.
    pub cut: (u64, Hash),
    /// Size and root of the last certified cut.
    pub certified: (u64, Hash),
    /// How far the last cut reaches on the copy held.
    pub judged: u64,
    /// Final size when the record was made.
    pub final_size: u64,
}

/// The record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    /// Number of the last witness.
    pub number: u64,
    /// Per lane, in order.
    pub lanes: Vec<LaneVotes>,
    /// Operations accepted and not in the ledger yet. Accounts rising.
    pub locks: Vec<Lock>,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VotesError {
    /// Not the magic.
    #[error("not a record of votes")]
    BadMagic,
    /// Another length than the counts call for.
    #[error("record of votes has {got} bytes, {limit} needed")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes needed.
        limit: usize,
    },
    /// More lanes than there can be.
    #[error("record of votes has {got} lanes, at most {limit}")]
    Lanes {
        /// Lanes.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// The accounts of the locks do not rise.
    #[error("lock {index} is out of order")]
    Order {
        /// Its index.
        index: usize,
    },
}

impl Votes {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = HEAD_BYTES + self.lanes.len() * LANE_BYTES + self.locks.len() * LOCK_BYTES;
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(self.lanes.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.locks.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        for lane in &self.lanes {
            for (size, root) in [lane.cut, lane.certified] {
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&root);
            }
            out.extend_from_slice(&lane.judged.to_le_bytes());
            out.extend_from_slice(&lane.final_size.to_le_bytes());
        }
        for lock in &self.locks {
            out.extend_from_slice(&lock.account.0);
            out.extend_from_slice(&lock.sequence.to_le_bytes());
            out.extend_from_slice(&lock.hash);
        }
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The first thing that does not fit the format.
    pub fn decode(bytes: &[u8]) -> Result<Self, VotesError> {
        let short = VotesError::Length { got: bytes.len(), limit: HEAD_BYTES };
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(short)?;
        if head[..4] != MAGIC {
            return Err(VotesError::BadMagic);
        }
        let lanes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let locks = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        if lanes > usize::from(LANES_MAX) {
            return Err(VotesError::Lanes { got: lanes, limit: usize::from(LANES_MAX) });
        }
        let limit = locks.saturating_mul(LOCK_BYTES).saturating_add(HEAD_BYTES + lanes * LANE_BYTES);
        if bytes.len() != limit {
            return Err(VotesError::Length { got: bytes.len(), limit });
        }
        let (lane_bytes, lock_bytes) = rest.split_at(lanes * LANE_BYTES);
        let number = u64_at(head, 12);
        let lanes = lane_bytes
            .chunks_exact(LANE_BYTES)
            .map(|lane| LaneVotes {
                cut: (u64_at(lane, 0), hash_at(lane, 8)),
                certified: (u64_at(lane, 40), hash_at(lane, 48)),
                judged: u64_at(lane, 80),
                final_size: u64_at(lane, 88),
            })
            .collect();
        let mut held: Vec<Lock> = Vec::with_capacity(locks);
        for (index, lock) in lock_bytes.chunks_exact(LOCK_BYTES).enumerate() {
            let lock = Lock {
                account: DeviceKey(hash_at(lock, 0)),
                sequence: u64_at(lock, 32),
                hash: hash_at(lock, 40),
            };
            if held.last().is_some_and(|last| last.account >= lock.account) {
                return Err(VotesError::Order { index });
            }
            held.push(lock);
        }
        Ok(Self { number, lanes, locks: held })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

fn hash_at(bytes: &[u8], at: usize) -> Hash {
    let mut field = [0; 32];
    field.copy_from_slice(&bytes[at..at + 32]);
    field
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_record_survives_its_bytes_and_nothing_else_is_taken() {
        let lane = LaneVotes { cut: (7, [1; 32]), certified: (5, [2; 32]), judged: 6, final_size: 5 };
        let lock = |account| Lock { account: DeviceKey([account; 32]), sequence: 3, hash: [9; 32] };
        let votes = Votes { number: 12, lanes: vec![lane; 2], locks: vec![lock(1), lock(2)] };
        let bytes = votes.encode();
        assert_eq!(bytes.len(), 20 + 2 * 96 + 2 * 72);
        assert_eq!(Votes::decode(&bytes), Ok(votes.clone()));
        for length in 0..bytes.len() {
            assert!(Votes::decode(&bytes[..length]).is_err());
        }
        let mut many = bytes;
        many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(Votes::decode(&many), Err(VotesError::Length { .. })));
        let unordered = Votes { locks: vec![lock(2), lock(1)], ..votes };
        assert_eq!(Votes::decode(&unordered.encode()), Err(VotesError::Order { index: 1 }));
    }
}
