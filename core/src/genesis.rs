//! The genesis file: what founds a ledger.
//!
//! Owns its byte format, its validation, and the values derived from it: genesis id, network, the two root
//! messages, limits. Invariant: [`Genesis::decode`] hands out valid genesis only, and encoding it again gives
//! the same bytes, so one ledger has one id. Reading and writing the file is left to the node; what a
//! committee does to confirmation.
//!
//! Little-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic "WEFTGEN1" |
//! | 8 | 8 | created_at, microseconds since the Unix epoch |
//! | 16 | 4 | payload_bytes_max, at most 16,384 |
//! | 20 | 4 | batch_messages_max, 1 to 4,096 |
//! | 24 | 8 | clock_ahead_us_max |
//! | 32 | 8 | clock_behind_us_max |
//! | 40 | 1 | name length L, 1 to 64 |
//! | 41 | L | name, UTF-8 without control characters |
//! | 41+L | 2 | validators V, 1 to 1,024 |
//! | 43+L | 40 V | per validator: Ed25519 key 32, weight u64 (not 0) |
//!
//! `genesis id = BLAKE3 derive_key("weft 2026-11 genesis v1", bytes)`, network = its first four bytes,
//! `root i = BLAKE3 derive_key("weft 2026-11 genesis root v1", genesis id | i)` for i = 0, 1.

use alloc::string::String;
use alloc::vec::Vec;

use crate::check::Limits;
use crate::hash::Domain;
use crate::ids::{GenesisId, MessageId, NetworkId, NodeKey};
use crate::message::PAYLOAD_BYTES_MAX;

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"WEFTGEN1";

/// Validators of one committee, at most: a cut names every lane, and lanes are at most as many.
pub const VALIDATORS_MAX: usize = 1_024;

/// Longest name, bytes: it stands in logs, metrics labels and certificates.
pub const NAME_BYTES_MAX: usize = 64;

/// Messages of one lane batch, at most: at 250 bytes a message a batch is 1 MiB, large enough that one
/// signature, one sync and one record per batch cost little, small enough that a batch is verified in a few
/// milliseconds. No genesis may allow more.
pub const BATCH_MESSAGES_MAX: u32 = 4_096;

/// Sum of all weights, at most, so that quorum arithmetic (three times a sum) stays inside 64 bits.
pub const WEIGHT_SUM_MAX: u64 = u64::MAX / 4;

/// Longest encoded genesis.
pub const GENESIS_BYTES_MAX: usize = FIXED_BYTES + NAME_BYTES_MAX + 2 + VALIDATORS_MAX * VALIDATOR_BYTES;

const FIXED_BYTES: usize = 41;
const VALIDATOR_BYTES: usize = 40;

/// One member of the committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The validator's node key.
    pub key: NodeKey,
    /// Its weight, not 0.
    pub weight: u64,
}

/// Why bytes or values are no genesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenesisError {
    /// The bytes end before the genesis does.
    #[error("genesis is cut short: {got} bytes, {limit} needed")]
    Truncated {
        /// Bytes given.
        got: usize,
        /// Bytes needed, as far as could be told.
        limit: usize,
    },
    /// Bytes follow the last validator.
    #[error("genesis has {got} bytes, but ends after {limit}")]
    TrailingBytes {
        /// Bytes given.
        got: usize,
        /// Where the genesis ends.
        limit: usize,
    },
    /// The first eight bytes are not the magic.
    #[error("not a weft genesis of version 1: it starts with {got:02x?}")]
    BadMagic {
        /// The first bytes.
        got: [u8; 8],
    },
    /// The payload limit is beyond the format's.
    #[error("payload_bytes_max is {got}, at most {limit}")]
    PayloadLimit {
        /// The value.
        got: u32,
        /// The format's limit.
        limit: u32,
    },
    /// The batch limit is 0 or beyond the format's.
    #[error("batch_messages_max is {got}, not 1 to {limit}")]
    BatchLimit {
        /// The value.
        got: u32,
        /// The format's limit.
        limit: u32,
    },
    /// The name is empty or too long.
    #[error("name has {got} bytes, not 1 to {limit}")]
    NameLength {
        /// Bytes of the name.
        got: usize,
        /// The format's limit.
        limit: usize,
    },
    /// The name is not UTF-8 or has control characters.
    #[error("name is not printable UTF-8")]
    NameText,
    /// The committee is empty or too large.
    #[error("committee has {got} validators, not 1 to {limit}")]
    CommitteeSize {
        /// Validators.
        got: usize,
        /// The format's limit.
        limit: usize,
    },
    /// A validator has weight 0.
    #[error("validator {index} has weight 0")]
    ZeroWeight {
        /// Its index in the committee.
        index: usize,
    },
    /// The weights add up to too much.
    #[error("weights up to validator {index} exceed {limit} in all")]
    WeightSum {
        /// The validator that ran over.
        index: usize,
        /// The limit.
        limit: u64,
    },
    /// Two validators have one key.
    #[error("validator key {key} is there twice")]
    RepeatedKey {
        /// The key.
        key: NodeKey,
    },
}

/// What founds a ledger. Fields are open for building; [`encode`](Self::encode) validates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// When it was made, microseconds since the Unix epoch. Two ledgers with all else equal differ by it.
    pub created_at_us: u64,
    /// Longest payload, bytes.
    pub payload_bytes_max: u32,
    /// Most messages of one batch.
    pub batch_messages_max: u32,
    /// How far a device's clock may be ahead, microseconds.
    pub clock_ahead_us_max: u64,
    /// How far a device's clock may be behind, microseconds.
    pub clock_behind_us_max: u64,
    /// Name of the ledger.
    pub name: String,
    /// The validators, in the order in which they are counted.
    pub committee: Vec<Validator>,
}

/// Reads fields from the front of a slice.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn slice(&mut self, count: usize) -> Result<&'a [u8], GenesisError> {
        let end = self.offset.saturating_add(count);
        let slice = self.bytes.get(self.offset..end);
        self.offset = end;
        slice.ok_or(GenesisError::Truncated { got: self.bytes.len(), limit: end })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GenesisError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, GenesisError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GenesisError> {
        self.array().map(u64::from_le_bytes)
    }
}

impl Genesis {
    /// Default clock tolerance ahead: five minutes, what badly kept device clocks drift between
    /// synchronisations.
    pub const CLOCK_AHEAD_US_DEFAULT: u64 = 300 * 1_000_000;
    /// Default clock tolerance behind: seven days, so that a device may hold back what it measured during a
    /// week offline.
    pub const CLOCK_BEHIND_US_DEFAULT: u64 = 7 * 24 * 3_600 * 1_000_000;

    /// A ledger with a committee of one and the widest limits of the format. Validated when it is encoded.
    #[must_use]
    pub fn single(name: &str, created_at_us: u64, node_key: NodeKey) -> Self {
        Self {
            created_at_us,
            payload_bytes_max: PAYLOAD_BYTES_MAX as u32,
            batch_messages_max: BATCH_MESSAGES_MAX,
            clock_ahead_us_max: Self::CLOCK_AHEAD_US_DEFAULT,
            clock_behind_us_max: Self::CLOCK_BEHIND_US_DEFAULT,
            name: String::from(name),
            committee: alloc::vec![Validator { key: node_key, weight: 1 }],
        }
    }

    /// Checks every value against the format's limits.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub fn validate(&self) -> Result<(), GenesisError> {
        if self.payload_bytes_max > PAYLOAD_BYTES_MAX as u32 {
            return Err(GenesisError::PayloadLimit {
                got: self.payload_bytes_max,
                limit: PAYLOAD_BYTES_MAX as u32,
            });
        }
        if !(1..=BATCH_MESSAGES_MAX).contains(&self.batch_messages_max) {
            return Err(GenesisError::BatchLimit { got: self.batch_messages_max, limit: BATCH_MESSAGES_MAX });
        }
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len()) {
            return Err(GenesisError::NameLength { got: self.name.len(), limit: NAME_BYTES_MAX });
        }
        // Names are printed to terminals.
        if self.name.chars().any(char::is_control) {
            return Err(GenesisError::NameText);
        }
        if !(1..=VALIDATORS_MAX).contains(&self.committee.len()) {
            return Err(GenesisError::CommitteeSize { got: self.committee.len(), limit: VALIDATORS_MAX });
        }
        let mut weight_sum = 0u64;
        for (index, validator) in self.committee.iter().enumerate() {
            if validator.weight == 0 {
                return Err(GenesisError::ZeroWeight { index });
            }
            weight_sum = match weight_sum.checked_add(validator.weight) {
                Some(sum) if sum <= WEIGHT_SUM_MAX => sum,
                _ => return Err(GenesisError::WeightSum { index, limit: WEIGHT_SUM_MAX }),
            };
        }
        let mut keys: Vec<NodeKey> = self.committee.iter().map(|validator| validator.key).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(GenesisError::RepeatedKey { key: pair[0] }),
            None => Ok(()),
        }
    }

    /// The bytes of the genesis file.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn encode(&self) -> Result<Vec<u8>, GenesisError> {
        self.validate()?;
        let committee_bytes = self.committee.len() * VALIDATOR_BYTES;
        let mut out = Vec::with_capacity(FIXED_BYTES + self.name.len() + 2 + committee_bytes);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.created_at_us.to_le_bytes());
        out.extend_from_slice(&self.payload_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.batch_messages_max.to_le_bytes());
        out.extend_from_slice(&self.clock_ahead_us_max.to_le_bytes());
        out.extend_from_slice(&self.clock_behind_us_max.to_le_bytes());
        out.push(self.name.len() as u8);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&(self.committee.len() as u16).to_le_bytes());
        for validator in &self.committee {
            out.extend_from_slice(&validator.key.0);
            out.extend_from_slice(&validator.weight.to_le_bytes());
        }
        Ok(out)
    }

    /// Reads a genesis file.
    ///
    /// # Errors
    /// What is wrong with the bytes, or with the values in them. Allocates at most what the bytes given can
    /// fill.
    pub fn decode(bytes: &[u8]) -> Result<Self, GenesisError> {
        let mut reader = Reader { bytes, offset: 0 };
        let magic = reader.array()?;
        if magic != MAGIC {
            return Err(GenesisError::BadMagic { got: magic });
        }
        let created_at_us = reader.u64()?;
        let payload_bytes_max = reader.u32()?;
        let batch_messages_max = reader.u32()?;
        let clock_ahead_us_max = reader.u64()?;
        let clock_behind_us_max = reader.u64()?;
        let name_bytes = usize::from(reader.array::<1>()?[0]);
        if !(1..=NAME_BYTES_MAX).contains(&name_bytes) {
            return Err(GenesisError::NameLength { got: name_bytes, limit: NAME_BYTES_MAX });
        }
        let name = core::str::from_utf8(reader.slice(name_bytes)?).map_err(|_| GenesisError::NameText)?;
        let validators = usize::from(u16::from_le_bytes(reader.array()?));
        if !(1..=VALIDATORS_MAX).contains(&validators) {
            return Err(GenesisError::CommitteeSize { got: validators, limit: VALIDATORS_MAX });
        }
        // The declared count is believed only after its bytes are there.
        let mut entries = Reader { bytes: reader.slice(validators * VALIDATOR_BYTES)?, offset: 0 };
        if reader.offset != bytes.len() {
            return Err(GenesisError::TrailingBytes { got: bytes.len(), limit: reader.offset });
        }
        let mut committee = Vec::with_capacity(validators);
        for _ in 0..validators {
            committee.push(Validator { key: NodeKey::from(entries.array()?), weight: entries.u64()? });
        }
        let genesis = Self {
            created_at_us,
            payload_bytes_max,
            batch_messages_max,
            clock_ahead_us_max,
            clock_behind_us_max,
            name: String::from(name),
            committee,
        };
        genesis.validate()?;
        Ok(genesis)
    }

    /// The genesis id.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate): an invalid genesis has no id.
    pub fn id(&self) -> Result<GenesisId, GenesisError> {
        Ok(GenesisId(Domain::GENESIS.hash(&self.encode()?)))
    }

    /// What the genesis allows, for [`check_isolated`](crate::check::check_isolated).
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn limits(&self) -> Result<Limits, GenesisError> {
        Ok(Limits {
            network: self.id()?.network(),
            payload_bytes_max: self.payload_bytes_max,
            batch_messages_max: self.batch_messages_max,
            clock_ahead_us_max: self.clock_ahead_us_max,
            clock_behind_us_max: self.clock_behind_us_max,
        })
    }

    /// The network that this genesis founds.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn network(&self) -> Result<NetworkId, GenesisError> {
        Ok(self.id()?.network())
    }
}

impl GenesisId {
    /// The two ids that the first messages name as parents. Nothing hashes to them: they have no bytes.
    #[must_use]
    pub fn roots(&self) -> [MessageId; 2] {
        [0, 1].map(|index| {
            let mut input = [index; 33];
            input[..32].copy_from_slice(&self.0);
            MessageId(Domain::GENESIS_ROOT.hash(&input))
        })
    }
}
