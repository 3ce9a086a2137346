//! Receipts: a message, and the proof that it is in a lane that a committee made final, in one text file.
//!
//! Owns the two file formats and what verifying them means. A [`Receipt`] is a C2SP tlog-proof; a
//! [`ConsistencyFile`] has the form in which C2SP tlog-witness takes a new checkpoint. Invariants: reading takes any
//! bytes without panic and allocates no more than a few times their number; what is read is written as the same
//! bytes; a receipt verifies only if every link holds, from the message's bytes to the quorum, and the first one that
//! does not is named. Making receipts is left to the node.
//!
//! ```text
//! c2sp.org/tlog-proof@v1                    old 4098
//! extra <base64 of the message>             <base64 of a hash>
//! index <position in the lane>              ... from the proof, RFC 9162, section 2.1.4
//! <base64 of a hash>                        <empty line>
//! ... from the leaf's sibling up            <signed checkpoint of the later size>
//! <empty line>
//! <signed checkpoint>
//! ```
//!
//! The chain: message -> id, BLAKE3 in [`Domain::MESSAGE`](crate::hash::Domain::MESSAGE) -> leaf,
//! SHA-256(0x00, id) -> root, RFC 6962 -> checkpoint -> seal and cosignatures, [`endorse`](crate::endorse). The
//! `extra` line may be left out: then whoever verifies must have the message.
//!
//! A receipt proves that a message is in a lane, and that a quorum holds that prefix final. It does not prove that an
//! operation in it was accepted.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::base64::{base64, base64_decode};
use crate::checkpoint::{Checkpoint, parse_decimal, parse_hash};
use crate::endorse::{EndorseError, Endorsement, SignedCheckpoint, SignedCheckpointError};
use crate::genesis::Genesis;
use crate::ids::{LANE_POSITIONS_MAX, MessageId, NetworkId, NodeKey, Place};
use crate::merkle::{Hash, MerkleError, leaf_hash_32, verify_consistency, verify_inclusion};
use crate::message::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, MessageView, SIGNATURE_BYTES};
use crate::note::NOTE_BYTES_MAX;
use crate::reject::Rejection;

/// First line of a receipt.
pub const RECEIPT_HEAD: &str = "c2sp.org/tlog-proof@v1";

/// Hashes of a proof, at most: a path of a lane's tree has 48, and a consistency proof one more.
pub const PROOF_HASHES_MAX: usize = 49;

/// Longest receipt, bytes.
pub const RECEIPT_BYTES_MAX: usize =
    NOTE_BYTES_MAX + PROOF_HASHES_MAX * 45 + MESSAGE_BYTES_MAX.div_ceil(3) * 4 + 128;

/// Why bytes are no receipt, or no consistency proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Too long.
    #[error("{got} bytes, at most {limit}")]
    TooLong {
        /// Bytes.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8")]
    Text,
    /// The first line is another one.
    #[error("the first line is not {expected:?}")]
    Head {
        /// What it must be.
        expected: &'static str,
    },
    /// The extra data is no base64, or is too short or too long for a message.
    #[error("the extra line does not hold {MESSAGE_BYTES_MIN} to {MESSAGE_BYTES_MAX} bytes of a message")]
    Extra,
    /// The line with the index, or the old size, is missing or out of range.
    #[error("the line {field:?} is missing or its number is not 0 to {LANE_POSITIONS_MAX}")]
    Number {
        /// The line's first word.
        field: &'static str,
    },
    /// A line of the proof is no hash, or there are too many.
    #[error("line {line} of the proof is not the base64 of a hash, or one too many")]
    Hash {
        /// Which, from 0.
        line: usize,
    },
    /// No empty line follows the proof.
    #[error("no checkpoint follows the proof")]
    NoCheckpoint,
    /// The checkpoint is malformed.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] SignedCheckpointError),
}

/// Splits the first line off.
fn line(text: &str) -> Option<(&str, &str)> {
    text.split_once('\n')
}

fn decode_text(bytes: &[u8]) -> Result<&str, ReceiptError> {
    if bytes.len() > RECEIPT_BYTES_MAX {
        return Err(ReceiptError::TooLong { got: bytes.len(), limit: RECEIPT_BYTES_MAX });
    }
    core::str::from_utf8(bytes).map_err(|_| ReceiptError::Text)
}

/// Reads `field NUMBER`.
fn number<'a>(text: &'a str, field: &'static str) -> Result<(u64, &'a str), ReceiptError> {
    let wrong = ReceiptError::Number { field };
    let (first, rest) = line(text).ok_or(wrong.clone())?;
    let digits = first.strip_prefix(field).and_then(|rest| rest.strip_prefix(' ')).ok_or(wrong.clone())?;
    let number = parse_decimal(digits).filter(|number| *number <= LANE_POSITIONS_MAX).ok_or(wrong)?;
    Ok((number, rest))
}

/// Reads hashes up to an empty line, and the checkpoint after it.
fn proof_and_checkpoint(mut text: &str) -> Result<(Vec<Hash>, SignedCheckpoint), ReceiptError> {
    let mut proof = Vec::new();
    loop {
        let (first, rest) = line(text).ok_or(ReceiptError::NoCheckpoint)?;
        text = rest;
        if first.is_empty() {
            return Ok((proof, SignedCheckpoint::parse(text.as_bytes())?));
        }
        let wrong = ReceiptError::Hash { line: proof.len() };
        let hash = parse_hash(first).filter(|_| proof.len() < PROOF_HASHES_MAX).ok_or(wrong)?;
        proof.push(hash);
    }
}

fn push_proof(text: &mut String, proof: &[Hash], checkpoint: &SignedCheckpoint) {
    for hash in proof {
        text.push_str(&base64(hash));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&checkpoint.encode());
}

/// The proof that a message is in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message's bytes, unless they were left out.
    pub message: Option<Vec<u8>>,
    /// The message's position in the lane.
    pub index: u64,
    /// Hashes from the leaf's sibling up.
    pub proof: Vec<Hash>,
    /// What the proof leads to.
    pub checkpoint: SignedCheckpoint,
}

/// What a receipt that verifies says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The message.
    pub id: MessageId,
    /// Who signed it.
    pub issuer: NodeKey,
    /// Where it lies.
    pub place: Place,
    /// Who endorsed the lane up to the checkpoint's size.
    pub endorsement: Endorsement,
}

/// Which link of a receipt does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Neither the receipt nor the caller has the message.
    #[error("message: the receipt does not hold it, and it was not given")]
    NoMessage,
    /// The receipt holds another message than the one given.
    #[error("message: the receipt holds another one than the one given")]
    OtherMessage,
    /// The bytes are no message.
    #[error("message: {0}")]
    Message(Rejection),
    /// The message is of another ledger than the checkpoint.
    #[error("message: of network {got}, the checkpoint is of {expected}")]
    MessageNetwork {
        /// The message's.
        got: NetworkId,
        /// The checkpoint's.
        expected: NetworkId,
    },
    /// The device did not sign it.
    #[error("message: the device's signature is not valid")]
    MessageSignature,
    /// The proof does not lead from the message to the root.
    #[error("inclusion: {0}")]
    Inclusion(MerkleError),
    /// The checkpoint is not endorsed.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] EndorseError),
}

impl Receipt {
    /// The receipt as a C2SP tlog-proof.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{RECEIPT_HEAD}\n");
        if let Some(message) = &self.message {
            text.push_str(&format!("extra {}\n", base64(message)));
        }
        text.push_str(&format!("index {}\n", self.index));
        push_proof(&mut text, &self.proof, &self.checkpoint);
        text
    }

    /// Reads a tlog-proof of a lane.
    ///
    /// # Errors
    /// The first thing that does not fit the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let head = ReceiptError::Head { expected: RECEIPT_HEAD };
        let (first, mut text) = line(decode_text(bytes)?).ok_or(head.clone())?;
        if first != RECEIPT_HEAD {
            return Err(head);
        }
        let mut message = None;
        if let Some((extra, rest)) = text.strip_prefix("extra ").and_then(line) {
            // Longer text is not decoded at all.
            let fits = extra.len() <= MESSAGE_BYTES_MAX.div_ceil(3) * 4;
            let bytes = Some(extra).filter(|_| fits).and_then(base64_decode).ok_or(ReceiptError::Extra)?;
            if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&bytes.len()) {
                return Err(ReceiptError::Extra);
            }
            message = Some(bytes);
            text = rest;
        }
        let (index, text) = number(text, "index")?;
        let (proof, checkpoint) = proof_and_checkpoint(text)?;
        Ok(Self { message, index, proof, checkpoint })
    }

    /// Verifies every link, by `genesis` alone. `given` is the message where the receipt does not hold it, or must
    /// equal it where it does; `verify` says whether a signature by a key over bytes is valid.
    ///
    /// # Errors
    /// The first link that does not hold.
    pub fn verify(
        &self,
        genesis: &Genesis,
        given: Option<&[u8]>,
        verify: impl Fn(&NodeKey, &[u8], &[u8; SIGNATURE_BYTES]) -> bool,
    ) -> Result<Verified, VerifyError> {
        let bytes = match (self.message.as_deref(), given) {
            (Some(held), Some(given)) if held != given => return Err(VerifyError::OtherMessage),
            (held, given) => held.or(given).ok_or(VerifyError::NoMessage)?,
        };
        let message = MessageView::parse(bytes).map_err(VerifyError::Message)?;
        let checkpoint = &self.checkpoint.checkpoint;
        if message.network() != checkpoint.network {
            let (got, expected) = (message.network(), checkpoint.network);
            return Err(VerifyError::MessageNetwork { got, expected });
        }
        let id = message.id();
        if !verify(message.issuer(), &id.0, message.signature()) {
            return Err(VerifyError::MessageSignature);
        }
        let leaf = leaf_hash_32(&id.0);
        verify_inclusion(&leaf, self.index, checkpoint.size, &self.proof, &checkpoint.root)
            .map_err(VerifyError::Inclusion)?;
        let endorsement = self.checkpoint.verify(genesis, verify)?;
        let place = Place::new(checkpoint.lane, self.index);
        Ok(Verified { id, issuer: *message.issuer(), place, endorsement })
    }
}

/// The proof that a lane at a later size extends the one at an earlier size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyFile {
    /// The earlier size.
    pub old_size: u64,
    /// The proof.
    pub proof: Vec<Hash>,
    /// The later checkpoint.
    pub new: SignedCheckpoint,
}

/// Why two checkpoints are not shown to be of one history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsistencyError {
    /// They are of different lanes or ledgers.
    #[error("{old} and {new} are different lanes: nothing to compare")]
    Origin {
        /// Origin of the earlier one.
        old: String,
        /// Origin of the later one.
        new: String,
    },
    /// The proof is from another size than the earlier checkpoint's.
    #[error("the proof starts at size {got}, the earlier checkpoint has {expected}")]
    OldSize {
        /// The proof's.
        got: u64,
        /// The checkpoint's.
        expected: u64,
    },
    /// The later one does not extend the earlier one, as far as this proof can tell.
    #[error("the later checkpoint does not extend the earlier one: {0}")]
    Proof(MerkleError),
}

impl ConsistencyFile {
    /// The file: the body that a C2SP tlog-witness takes.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("old {}\n", self.old_size);
        push_proof(&mut text, &self.proof, &self.new);
        text
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The first thing that does not fit the format.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let (old_size, text) = number(decode_text(bytes)?, "old")?;
        let (proof, new) = proof_and_checkpoint(text)?;
        Ok(Self { old_size, proof, new })
    }

    /// Verifies that the later checkpoint extends `old`. Who signed them is not asked.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, old: &Checkpoint) -> Result<(), ConsistencyError> {
        let new = &self.new.checkpoint;
        if (old.network, old.lane) != (new.network, new.lane) {
            return Err(ConsistencyError::Origin { old: old.origin(), new: new.origin() });
        }
        if self.old_size != old.size {
            return Err(ConsistencyError::OldSize { got: self.old_size, expected: old.size });
        }
        verify_consistency(old.size, &old.root, new.size, &new.root, &self.proof)
            .map_err(ConsistencyError::Proof)
    }
}
