//! What a validator must not forget, on the disk: its votes and the witness that was made with them, in one record.
//!
//! Owns the file `votes` of the data directory. Invariant: the record is durable before its witness leaves and before the witness is in
//! the log of the own lane. So the log never knows a witness that the votes do not, which would silence this validator; and a witness
//! that the log has lost in a crash is appended again from here, byte for byte, under the same id. Its parents are durable messages of
//! the own lane, so that they are still there then.
//!
//! Why beside the log and not in it: a record of the log is a batch, which other nodes get; votes are this node's own. Why one record:
//! votes without their witness would leave a number that is never stated, and a chain with a gap is followed by nobody.
//!
//! | size | field |
//! |---|---|
//! | 4 | length V of the votes |
//! | V | votes, as in `core/src/confirm/votes.rs` |
//! | | the message of the last witness; nothing before the first one |

use std::path::Path;
use std::sync::Arc;

use weft_core::MessageView;
use weft_core::confirm::Votes;
use weft_storage::{Disk, LogError, RealDisk, SlotFile};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "votes";

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file's.
    #[error("{0}")]
    File(#[from] LogError),
    /// It is whole and says nothing sensible: written by another program.
    #[error("the record of votes in {file}: {what}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}

/// What was read at the start.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The votes.
    pub votes: Votes,
    /// The message of the last witness, if there was one.
    pub witness: Option<Vec<u8>>,
}

/// The file.
#[derive(Debug)]
pub struct RecordFile {
    slots: SlotFile,
    /// The message of the last witness: a record without a new one keeps it.
    witness: Vec<u8>,
}

impl RecordFile {
    /// Opens the file in the data directory `dir`.
    ///
    /// # Errors
    /// [`RecordError`]: a validator that cannot read its votes must not make new ones.
    pub fn open(dir: &Path) -> Result<(Self, Option<Recorded>), RecordError> {
        Self::open_on(Arc::new(RealDisk), dir)
    }

    /// [`RecordFile::open`] on another disk: tests let it fail.
    ///
    /// # Errors
    /// As [`RecordFile::open`].
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Self, Option<Recorded>), RecordError> {
        let (slots, record) = SlotFile::open(disk, dir, FILE_NAME)?;
        let Some(record) = record else { return Ok((Self { slots, witness: Vec::new() }, None)) };
        let recorded = decode(&record)
            .map_err(|what| RecordError::Content { file: dir.join(FILE_NAME).display().to_string(), what })?;
        let witness = recorded.witness.clone().unwrap_or_default();
        Ok((Self { slots, witness }, Some(recorded)))
    }

    /// Makes the votes durable, and the witness that was made with them.
    ///
    /// # Errors
    /// [`LogError::Poisoned`]: nothing may leave any more. [`LogError::StorageFull`]: not before it has been written after all.
    pub fn write(&mut self, votes: &Votes, witness: Option<&[u8]>) -> Result<(), LogError> {
        if let Some(witness) = witness {
            self.witness.clear();
            self.witness.extend_from_slice(witness);
        }
        self.slots.write(&encode(votes, &self.witness))
    }
}

fn encode(votes: &Votes, witness: &[u8]) -> Vec<u8> {
    let votes = votes.encode();
    let mut record = Vec::with_capacity(4 + votes.len() + witness.len());
    // At most 1,024 lanes and as many locks as there are accounts: far below 4 GiB, which the slot's limit checks.
    record.extend_from_slice(&u32::try_from(votes.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend_from_slice(&votes);
    record.extend_from_slice(witness);
    record
}

fn decode(record: &[u8]) -> Result<Recorded, String> {
    let (length, rest) = record.split_first_chunk().ok_or("it is cut short")?;
    let length = u32::from_le_bytes(*length) as usize;
    let (votes, witness) = rest.split_at_checked(length).ok_or("it is cut short")?;
    let votes = Votes::decode(votes).map_err(|error| error.to_string())?;
    let witness = (!witness.is_empty()).then(|| witness.to_vec());
    if let Some(witness) = &witness {
        MessageView::parse(witness).map_err(|error| format!("its witness: {error}"))?;
    }
    Ok(Recorded { votes, witness })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_and_witness_come_back_together_and_votes_alone_keep_the_witness() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, found) = RecordFile::open(dir.path()).unwrap();
        assert!(found.is_none());
        let message = weft_core::Draft {
            network: weft_core::NetworkId([1; 4]),
            issued_at_us: 1,
            sequence: 1,
            parents: [weft_core::MessageId([1; 32]), weft_core::MessageId([2; 32])],
            kind: weft_core::PayloadKind::WITNESS,
            payload: b"w",
        }
        .sign(&weft_core::DeviceSigner::from_seed([3; 32]))
        .unwrap();
        file.write(&Votes { number: 1, ..Votes::default() }, Some(&message)).unwrap();
        file.write(&Votes { number: 2, ..Votes::default() }, None).unwrap();
        drop(file);
        let (_, found) = RecordFile::open(dir.path()).unwrap();
        let found = found.unwrap();
        assert_eq!((found.votes.number, found.witness.as_deref()), (2, Some(&message[..])));
    }

    #[test]
    fn a_record_that_is_no_record_is_an_error_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, _) = SlotFile::open(Arc::new(RealDisk), dir.path(), FILE_NAME).unwrap();
        for record in [&b"abc"[..], &[9, 0, 0, 0, 1], &[0, 0, 0, 0]] {
            slots.write(record).unwrap();
            assert!(matches!(RecordFile::open(dir.path()), Err(RecordError::Content { .. })), "{record:?}");
        }
    }
}
