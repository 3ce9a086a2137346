//! Who stands behind a checkpoint: the seal of the lane's node and the cosignatures of validators.
//!
//! Owns the names under which they sign, what a cosignature is over (C2SP tlog-cosignature, Ed25519), and the
//! judgement of a checkpoint by a genesis alone. Invariants: a checkpoint is endorsed only if its network and lane
//! are the genesis's, the lane's node has sealed it, and validators with a quorum's weight have cosigned it, each
//! counted once; a line of a known key that does not verify spoils the whole. How signatures verify is an argument
//! (ZIP-215 everywhere else; a tool that is stricter refuses more). Who may cosign when is left to the node.
//!
//! | who | key name | algorithm byte | signature over |
//! |---|---|---|---|
//! | the lane's node | `weft/NETWORK/LANE`, the origin | 1 | the checkpoint's text: it is the seal of the batch that ends there |
//! | validator i | `weft/NETWORK/validator/i` | 4 | `cosignature/v1`, `time SECONDS`, and the text, each line ended by a newline |
//!
//! A validator cosigns what is final in its own view and nothing else. Final prefixes are unique, so no state is
//! needed to never cosign two histories. It does not say that this was the largest size it knew.
//!
//! Everything else that a node signs is told apart from both by its first bytes or its length: a message's
//! signature is over 32 bytes, and both texts here are longer and begin differently.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::checkpoint::{Checkpoint, CheckpointError, origin};
use crate::confirm::Weights;
use crate::genesis::{Genesis, GenesisError};
use crate::ids::{LaneId, NetworkId, NodeKey};
use crate::message::SIGNATURE_BYTES;
use crate::note::{ALGORITHM_COSIGNATURE, ALGORITHM_ED25519, NoteError, SignatureLine, SignedNote, key_id};

/// Lines that other implementations read for sure: the one of Go takes a hundred. A note is cut to the seal and the
/// heaviest cosignatures when it would have more.
pub const LINES_MAX: usize = 100;

/// Latest time of a cosignature, seconds: what the format allows.
const TIME_S_MAX: u64 = i64::MAX as u64;

/// A validator's statement that a checkpoint is final in its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cosignature {
    /// Its place in the committee.
    pub validator: u16,
    /// When, seconds since the Unix epoch, by its clock; below 2^63.
    pub time_s: u64,
    /// Over [`cosigned_text`].
    pub signature: [u8; SIGNATURE_BYTES],
}

/// The name under which a validator cosigns.
#[must_use]
pub fn cosigner_name(network: NetworkId, validator: u16) -> String {
    format!("weft/{network}/validator/{validator}")
}

/// What a cosignature is over.
#[must_use]
pub fn cosigned_text(time_s: u64, checkpoint: &str) -> String {
    format!("cosignature/v1\ntime {time_s}\n{checkpoint}")
}

/// A checkpoint and the signature lines that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What was signed.
    pub checkpoint: Checkpoint,
    /// Lines of any keys, known or not.
    pub lines: Vec<SignatureLine>,
}

/// Why bytes are no signed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedCheckpointError {
    /// Not a signed note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text is no checkpoint of a lane.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Who has endorsed a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    /// Validators whose cosignatures are valid, rising.
    pub validators: Vec<u16>,
    /// Their weight.
    pub weight: u64,
    /// The committee's weight.
    pub weight_total: u64,
    /// Earliest and latest time of their cosignatures, seconds since the Unix epoch.
    pub time_s: Option<(u64, u64)>,
}

/// Why a checkpoint is not endorsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndorseError {
    /// The genesis is not valid.
    #[error("genesis: {0}")]
    Genesis(#[from] GenesisError),
    /// It is of another ledger.
    #[error("checkpoint is of network {got}, the genesis founds {expected}")]
    Network {
        /// The checkpoint's.
        got: NetworkId,
        /// The genesis's.
        expected: NetworkId,
    },
    /// No node of the genesis has this lane.
    #[error("checkpoint is of lane {got}, the genesis has {limit}")]
    Lane {
        /// The lane.
        got: LaneId,
        /// Lanes.
        limit: usize,
    },
    /// The lane's node has not signed.
    #[error("the seal of the lane's node is missing: no line of {name}")]
    NoSeal {
        /// The key name.
        name: String,
    },
    /// The line of the lane's node is not its signature.
    #[error("the seal of the lane's node is not valid")]
    BadSeal,
    /// The line of a validator is not its signature.
    #[error("the cosignature of validator {validator} is not valid")]
    BadCosignature {
        /// Its place in the committee.
        validator: u16,
    },
    /// Too few have cosigned.
    #[error("cosigned by weight {got} of {total}, a quorum is more than two thirds")]
    NoQuorum {
        /// Their weight.
        got: u64,
        /// The committee's.
        total: u64,
    },
}

impl SignedCheckpoint {
    /// The checkpoint as its lane's node sealed it: the signature is that of the batch which ends there.
    #[must_use]
    pub fn sealed(checkpoint: Checkpoint, node: &NodeKey, signature: &[u8; SIGNATURE_BYTES]) -> Self {
        let name = checkpoint.origin();
        let line = SignatureLine {
            key_id: key_id(&name, ALGORITHM_ED25519, node),
            name,
            signature: Vec::from(signature),
        };
        Self { checkpoint, lines: alloc::vec![line] }
    }

    /// Adds the cosignature of the validator with this key; one that it has given already is replaced.
    pub fn add(&mut self, cosignature: &Cosignature, key: &NodeKey) {
        let name = cosigner_name(self.checkpoint.network, cosignature.validator);
        let key_id = key_id(&name, ALGORITHM_COSIGNATURE, key);
        let mut signature = Vec::with_capacity(8 + SIGNATURE_BYTES);
        signature.extend_from_slice(&cosignature.time_s.to_be_bytes());
        signature.extend_from_slice(&cosignature.signature);
        self.lines.retain(|line| line.name != name || line.key_id != key_id);
        self.lines.push(SignatureLine { name, key_id, signature });
    }

    /// Keeps the seal and of the cosignatures the heaviest, [`LINES_MAX`] lines in all; lines of other keys go. Within
    /// that, lines keep their order.
    pub fn trim(&mut self, genesis: &Genesis) {
        if self.lines.len() <= LINES_MAX {
            return;
        }
        let network = self.checkpoint.network;
        let weight = |line: &SignatureLine| {
            let places = genesis.committee.iter().enumerate();
            let of = |(place, validator): (usize, &crate::Validator)| {
                (cosigner_name(network, place as u16) == line.name).then_some(validator.weight)
            };
            places.into_iter().find_map(of).unwrap_or(0)
        };
        let seal = self.checkpoint.origin();
        let mut ranked: Vec<(u64, usize)> = self
            .lines
            .iter()
            .enumerate()
            .map(|(at, line)| (if line.name == seal { u64::MAX } else { weight(line) }, at))
            .collect();
        ranked.sort_by_key(|(weight, at)| (core::cmp::Reverse(*weight), *at));
        let mut keep: Vec<usize> = ranked.iter().take(LINES_MAX).map(|(_, at)| *at).collect();
        keep.sort_unstable();
        self.lines = keep.into_iter().filter_map(|at| self.lines.get(at).cloned()).collect();
    }

    /// The signed note.
    #[must_use]
    pub fn encode(&self) -> String {
        SignedNote { text: self.checkpoint.text(), signatures: self.lines.clone() }.encode()
    }

    /// Reads a signed note.
    ///
    /// # Errors
    /// What is wrong with the note or with its text.
    pub fn parse(note: &[u8]) -> Result<Self, SignedCheckpointError> {
        let SignedNote { text, signatures } = SignedNote::parse(note)?;
        Ok(Self { checkpoint: Checkpoint::parse(&text)?, lines: signatures })
    }

    /// The cosignature in `line`, if it is one by the validator with this name and key.
    fn cosignature(line: &SignatureLine, validator: u16) -> Option<Cosignature> {
        let (time, signature) = line.signature.split_first_chunk::<8>()?;
        let time_s = u64::from_be_bytes(*time);
        let signature = signature.try_into().ok()?;
        (time_s <= TIME_S_MAX).then_some(Cosignature { validator, time_s, signature })
    }

    /// Judges the checkpoint by `genesis` alone; `verify` says whether a signature by a key over a text is valid.
    /// Lines of unknown keys say nothing.
    ///
    /// # Errors
    /// What is missing or wrong, in the order of the variants of [`EndorseError`].
    pub fn verify(
        &self,
        genesis: &Genesis,
        verify: impl Fn(&NodeKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> Result<Endorsement, EndorseError> {
        let network = genesis.network()?;
        let checkpoint = &self.checkpoint;
        if checkpoint.network != network {
            return Err(EndorseError::Network { got: checkpoint.network, expected: network });
        }
        let node = genesis.node_keys().nth(usize::from(checkpoint.lane.0));
        let Some(node) = node else {
            let limit = genesis.committee.len() + genesis.ingest.len();
            return Err(EndorseError::Lane { got: checkpoint.lane, limit });
        };
        let text = checkpoint.text();
        let name = origin(network, checkpoint.lane);
        let seal_id = key_id(&name, ALGORITHM_ED25519, &node);
        let mut sealed = false;
        for line in self.lines.iter().filter(|line| line.name == name && line.key_id == seal_id) {
            let signature = line.signature.as_slice().try_into().map_err(|_| EndorseError::BadSeal)?;
            if !verify(&node, text.as_bytes(), signature) {
                return Err(EndorseError::BadSeal);
            }
            sealed = true;
        }
        if !sealed {
            return Err(EndorseError::NoSeal { name });
        }
        let weights = Weights::new(genesis.committee.iter().map(|validator| validator.weight).collect());
        let mut endorsement =
            Endorsement { validators: Vec::new(), weight: 0, weight_total: weights.total(), time_s: None };
        // Names are few bytes and lines at most some thousands: the number in the name is read, and the name made
        // again from it, instead of a table of all names.
        let prefix = format!("weft/{network}/validator/");
        for line in &self.lines {
            let Some(validator) = line.name.strip_prefix(&prefix).and_then(|number| number.parse().ok())
            else {
                continue;
            };
            let Some(member) = genesis.committee.get(usize::from(validator)) else { continue };
            let name = cosigner_name(network, validator);
            if line.name != name || line.key_id != key_id(&name, ALGORITHM_COSIGNATURE, &member.key) {
                continue;
            }
            let valid = Self::cosignature(line, validator).filter(|cosignature| {
                let text = cosigned_text(cosignature.time_s, &text);
                verify(&member.key, text.as_bytes(), &cosignature.signature)
            });
            let Some(cosignature) = valid else { return Err(EndorseError::BadCosignature { validator }) };
            endorsement.count(&cosignature, member.weight);
        }
        if !weights.is_quorum(endorsement.weight) {
            return Err(EndorseError::NoQuorum { got: endorsement.weight, total: weights.total() });
        }
        Ok(endorsement)
    }
}

impl Endorsement {
    fn count(&mut self, cosignature: &Cosignature, weight: u64) {
        if let Err(gap) = self.validators.binary_search(&cosignature.validator) {
            self.validators.insert(gap, cosignature.validator);
            // The weights of a valid genesis add up within 62 bits.
            self.weight = self.weight.saturating_add(weight);
        }
        let (first, last) = self.time_s.unwrap_or((cosignature.time_s, cosignature.time_s));
        self.time_s = Some((first.min(cosignature.time_s), last.max(cosignature.time_s)));
    }
}
