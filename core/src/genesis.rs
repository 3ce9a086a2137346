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
//! That is version 1: a committee without names, alone, and no balances. Version 2 has the magic "WEFTGEN2" and,
//! from the validators on:
//!
//! | size | field |
//! |---|---|
//! | 2 | validators V, 1 to 1,024 |
//! | | per validator: key 32, weight u64 (not 0), name length u8 (0 to 64), name |
//! | 2 | ingest nodes I; V + I at most 1,024 |
//! | | per ingest node: key 32, name length u8 (0 to 64), name |
//! | 4 | balances B, at most 65,536 |
//! | 40 B | per balance: account key 32, amount u64 (not 0); keys rising |
//!
//! A genesis that fits version 1 is written as version 1 and never as version 2, so that one ledger has one id.
//!
//! Lanes: validator i has lane i, ingest node j has lane V + j.
//!
//! `genesis id = BLAKE3 derive_key("weft 2026-11 genesis v1", bytes)`, network = its first four bytes,
//! `root i = BLAKE3 derive_key("weft 2026-11 genesis root v1", genesis id | i)` for i = 0, 1.

use alloc::string::String;
use alloc::vec::Vec;

use crate::check::Limits;
use crate::hash::Domain;
use crate::ids::{DeviceKey, GenesisId, LANES_MAX, MessageId, NetworkId, NodeKey};
use crate::message::PAYLOAD_BYTES_MAX;

/// First bytes of a file of version 1.
pub const MAGIC: [u8; 8] = *b"WEFTGEN1";

/// First bytes of a file of version 2: names, ingest nodes, balances.
pub const MAGIC_V2: [u8; 8] = *b"WEFTGEN2";

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

/// Accounts that begin with money, at most: 2.6 MB of file. Whoever has more gives to some and lets them pay.
pub const BALANCES_MAX: usize = 65_536;

/// Sum of all balances, at most, so that no balance ever leaves 64 bits.
pub const SUPPLY_MAX: u64 = u64::MAX;

/// Longest encoded genesis: 2.8 MB.
pub const GENESIS_BYTES_MAX: usize = FIXED_BYTES
    + NAME_BYTES_MAX
    + 2
    + VALIDATORS_MAX * (VALIDATOR_BYTES + 1 + NAME_BYTES_MAX)
    + 2
    + 4
    + BALANCES_MAX * BALANCE_BYTES;

const FIXED_BYTES: usize = 41;
const VALIDATOR_BYTES: usize = 40;
const BALANCE_BYTES: usize = 40;

/// One member of the committee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The validator's node key.
    pub key: NodeKey,
    /// Its weight, not 0.
    pub weight: u64,
    /// What people call it; may be empty.
    pub name: String,
}

/// A node that has a lane and no vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestNode {
    /// The node's key.
    pub key: NodeKey,
    /// What people call it; may be empty.
    pub name: String,
}

/// What an account has before the first transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The account: a device's or a node's key.
    pub account: DeviceKey,
    /// Units, not 0.
    pub amount: u64,
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
    #[error("not a weft genesis of version 1 or 2: it starts with {got:02x?}")]
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
    /// Two nodes have one key.
    #[error("node key {key} is there twice")]
    RepeatedKey {
        /// The key.
        key: NodeKey,
    },
    /// A node's name is too long.
    #[error("name of a node has {got} bytes, at most {limit}")]
    NodeNameLength {
        /// Bytes of the name.
        got: usize,
        /// The format's limit.
        limit: usize,
    },
    /// There are more nodes than lanes.
    #[error("validators and ingest nodes are {got}, at most {limit}: each has a lane")]
    Nodes {
        /// Validators and ingest nodes.
        got: usize,
        /// Lanes of one ledger.
        limit: usize,
    },
    /// There are too many balances.
    #[error("{got} balances, at most {limit}")]
    Balances {
        /// Balances.
        got: usize,
        /// The format's limit.
        limit: usize,
    },
    /// A balance is 0, or the accounts are not in rising order.
    #[error("balance {index} is 0 or its account is not above the one before")]
    BalanceOrder {
        /// Its index.
        index: usize,
    },
    /// The balances add up to more than 64 bits.
    #[error("balances up to {index} exceed {limit} in all")]
    Supply {
        /// The balance that ran over.
        index: usize,
        /// The limit.
        limit: u64,
    },
    /// A file of version 2 has nothing that version 1 has not.
    #[error("a genesis without names, ingest nodes and balances is written as version 1")]
    NotCanonical,
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
    /// The validators, in the order in which they are counted. Validator i has lane i.
    pub committee: Vec<Validator>,
    /// Nodes with a lane and no vote. Ingest node j has the lane after the validators' and those before it.
    pub ingest: Vec<IngestNode>,
    /// What accounts have at the start, in rising order of accounts.
    pub balances: Vec<Balance>,
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

    fn u16(&mut self) -> Result<usize, GenesisError> {
        self.array().map(u16::from_le_bytes).map(usize::from)
    }

    /// The name of a node: its length, then its text.
    fn node_name(&mut self) -> Result<String, GenesisError> {
        let bytes = usize::from(self.array::<1>()?[0]);
        if bytes > NAME_BYTES_MAX {
            return Err(GenesisError::NodeNameLength { got: bytes, limit: NAME_BYTES_MAX });
        }
        core::str::from_utf8(self.slice(bytes)?).map(String::from).map_err(|_| GenesisError::NameText)
    }
}

/// Appends the name of a node, which [`Genesis::validate`] has found short enough for its length byte.
fn push_node_name(out: &mut Vec<u8>, name: &str) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
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
            committee: alloc::vec![Validator { key: node_key, weight: 1, name: String::new() }],
            ingest: Vec::new(),
            balances: Vec::new(),
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
        let nodes = self.committee.len() + self.ingest.len();
        if nodes > usize::from(LANES_MAX) {
            return Err(GenesisError::Nodes { got: nodes, limit: usize::from(LANES_MAX) });
        }
        let names = self.committee.iter().map(|validator| &validator.name);
        for name in names.chain(self.ingest.iter().map(|node| &node.name)) {
            if name.len() > NAME_BYTES_MAX {
                return Err(GenesisError::NodeNameLength { got: name.len(), limit: NAME_BYTES_MAX });
            }
            if name.chars().any(char::is_control) {
                return Err(GenesisError::NameText);
            }
        }
        let mut keys: Vec<NodeKey> = self.node_keys().collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(GenesisError::RepeatedKey { key: pair[0] });
        }
        self.validate_balances()
    }

    fn validate_balances(&self) -> Result<(), GenesisError> {
        if self.balances.len() > BALANCES_MAX {
            return Err(GenesisError::Balances { got: self.balances.len(), limit: BALANCES_MAX });
        }
        let mut supply = 0u64;
        let mut before = None;
        for (index, balance) in self.balances.iter().enumerate() {
            if balance.amount == 0 || before.is_some_and(|before| before >= balance.account) {
                return Err(GenesisError::BalanceOrder { index });
            }
            supply = supply
                .checked_add(balance.amount)
                .ok_or(GenesisError::Supply { index, limit: SUPPLY_MAX })?;
            before = Some(balance.account);
        }
        Ok(())
    }

    /// The keys of all nodes in the order of their lanes: validators, then ingest nodes.
    pub fn node_keys(&self) -> impl Iterator<Item = NodeKey> + '_ {
        let ingest = self.ingest.iter().map(|node| node.key);
        self.committee.iter().map(|validator| validator.key).chain(ingest)
    }

    /// Whether version 1 of the format can hold this genesis.
    fn fits_version_1(&self) -> bool {
        let named = self.committee.iter().any(|validator| !validator.name.is_empty());
        !named && self.ingest.is_empty() && self.balances.is_empty()
    }

    /// The bytes of the genesis file.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn encode(&self) -> Result<Vec<u8>, GenesisError> {
        self.validate()?;
        let committee_bytes = self.committee.len() * VALIDATOR_BYTES;
        let mut out = Vec::with_capacity(FIXED_BYTES + self.name.len() + 2 + committee_bytes);
        let version_1 = self.fits_version_1();
        out.extend_from_slice(if version_1 { &MAGIC } else { &MAGIC_V2 });
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
            if !version_1 {
                push_node_name(&mut out, &validator.name);
            }
        }
        if version_1 {
            return Ok(out);
        }
        out.extend_from_slice(&(self.ingest.len() as u16).to_le_bytes());
        for node in &self.ingest {
            out.extend_from_slice(&node.key.0);
            push_node_name(&mut out, &node.name);
        }
        out.extend_from_slice(&(self.balances.len() as u32).to_le_bytes());
        for balance in &self.balances {
            out.extend_from_slice(&balance.account.0);
            out.extend_from_slice(&balance.amount.to_le_bytes());
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
        if magic != MAGIC && magic != MAGIC_V2 {
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
        let validators = reader.u16()?;
        if !(1..=VALIDATORS_MAX).contains(&validators) {
            return Err(GenesisError::CommitteeSize { got: validators, limit: VALIDATORS_MAX });
        }
        // A declared count is believed only as far as its bytes are there: entries are read one by one, and each
        // takes at least as many bytes in the file as in memory, names apart.
        let version_1 = magic == MAGIC;
        let (mut committee, mut ingest, mut balances) = (Vec::new(), Vec::new(), Vec::new());
        if version_1 {
            let mut entries = Reader { bytes: reader.slice(validators * VALIDATOR_BYTES)?, offset: 0 };
            for _ in 0..validators {
                let (key, weight) = (NodeKey::from(entries.array()?), entries.u64()?);
                committee.push(Validator { key, weight, name: String::new() });
            }
        } else {
            for _ in 0..validators {
                let (key, weight) = (NodeKey::from(reader.array()?), reader.u64()?);
                committee.push(Validator { key, weight, name: reader.node_name()? });
            }
            for _ in 0..reader.u16()? {
                ingest.push(IngestNode { key: NodeKey::from(reader.array()?), name: reader.node_name()? });
            }
            let declared = reader.u32()? as usize;
            if declared > BALANCES_MAX {
                return Err(GenesisError::Balances { got: declared, limit: BALANCES_MAX });
            }
            let mut entries = Reader { bytes: reader.slice(declared * BALANCE_BYTES)?, offset: 0 };
            for _ in 0..declared {
                let account = DeviceKey::from(entries.array()?);
                balances.push(Balance { account, amount: entries.u64()? });
            }
        }
        if reader.offset != bytes.len() {
            return Err(GenesisError::TrailingBytes { got: bytes.len(), limit: reader.offset });
        }
        let genesis = Self {
            created_at_us,
            payload_bytes_max,
            batch_messages_max,
            clock_ahead_us_max,
            clock_behind_us_max,
            name: String::from(name),
            committee,
            ingest,
            balances,
        };
        genesis.validate()?;
        if !version_1 && genesis.fits_version_1() {
            return Err(GenesisError::NotCanonical);
        }
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
