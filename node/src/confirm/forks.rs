//! Proofs that lanes were signed two ways, on the disk: so that a closed lane is closed after a restart, too.
//!
//! Owns the file `forks` of the data directory: one proof a lane, the first one seen. Invariants: a proof is durable before this node
//! shows the fork or passes it on; what is handed out at the start has been verified against the key of the lane's node, so that no
//! file whatever closes an honest lane.
//!
//! No promise rests on it. A validator that has forgotten a fork goes on with the history that it holds, which is the only one that it
//! has ever cut: it may state more of it than it should, which helps nobody, and that the lane has two sides it has to learn again from
//! a peer, which can take as long as it did the first time. So a file that is damaged, which no crash can do, is put aside under
//! another name, said loudly, and the node starts; and a proof that cannot be written is said and done without.
//!
//! | size | field |
//! |---|---|
//! | 2 | proofs P, at most 1,024 |
//! | each | length (2), proof as in `core/src/fork.rs`; lanes rising |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use weft_core::{FORK_PROOF_BYTES_MAX, ForkProof, LANES_MAX, LaneId, NetworkId, NodeKey};
use weft_storage::{Disk, LogError, SlotFile};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "forks";

/// What a damaged one is called from then on.
pub const DAMAGED_NAME: &str = "forks.damaged";

/// The proofs that this node has, for whoever shows them to peers and is shown some. Clones share them. One a lane.
#[derive(Clone, Debug, Default)]
pub struct KnownForks(Arc<Mutex<BTreeMap<LaneId, Bytes>>>);

impl KnownForks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<LaneId, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a proof; whether there was none about its lane.
    pub fn insert(&self, proof: &ForkProof) -> bool {
        // One that is not encoded was not decoded either.
        let Ok(bytes) = proof.encode() else { return false };
        let mut proofs = self.lock();
        let new = !proofs.contains_key(&proof.lane);
        proofs.entry(proof.lane).or_insert(bytes.into());
        new
    }

    /// Whether there is a proof about `lane`.
    #[must_use]
    pub fn has(&self, lane: LaneId) -> bool {
        self.lock().contains_key(&lane)
    }

    /// The bytes of the proof about `lane`, if there is one.
    #[must_use]
    pub fn of(&self, lane: LaneId) -> Option<Bytes> {
        self.lock().get(&lane).cloned()
    }

    /// The proofs' bytes.
    #[must_use]
    pub fn all(&self) -> Vec<Bytes> {
        self.lock().values().cloned().collect()
    }
}

/// The file.
#[derive(Debug)]
pub struct ForkFile {
    slots: SlotFile,
    /// The proofs in it, by lane.
    proofs: BTreeMap<LaneId, ForkProof>,
}

impl ForkFile {
    /// Opens the file in the data directory `dir` of the ledger `network`; `keys` are those of all nodes, by lane.
    ///
    /// # Errors
    /// The operating system's: damage is none.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        network: NetworkId,
        keys: &[NodeKey],
    ) -> Result<Self, LogError> {
        let what = match SlotFile::open(Arc::clone(&disk), dir, FILE_NAME) {
            Ok((slots, None)) => return Ok(Self { slots, proofs: BTreeMap::new() }),
            Ok((slots, Some(record))) => match read(&record, network, keys) {
                Ok(proofs) => return Ok(Self { slots, proofs }),
                Err(what) => what,
            },
            Err(error @ LogError::Damaged(_)) => error.to_string(),
            Err(error) => return Err(error),
        };
        let (file, aside) = (dir.join(FILE_NAME), dir.join(DAMAGED_NAME));
        tracing::error!(
            file = %file.display(), %what, "the proofs of forks cannot be read: the file is put aside as {DAMAGED_NAME}, and lanes that \
            were signed two ways are open again here until a peer shows it once more"
        );
        let failed =
            |operation: &'static str, path: PathBuf| move |source| LogError::Io { operation, path, source };
        disk.rename(&file, &aside).map_err(failed("rename", file.clone()))?;
        disk.sync_dir(dir).map_err(failed("sync", dir.to_owned()))?;
        let (slots, _) = SlotFile::open(disk, dir, FILE_NAME)?;
        Ok(Self { slots, proofs: BTreeMap::new() })
    }

    /// Lanes that are proven to have been signed two ways, and where their histories part.
    pub fn forks(&self) -> impl Iterator<Item = (LaneId, u64)> + '_ {
        self.proofs.iter().map(|(lane, proof)| (*lane, proof.position))
    }

    /// The proofs, lanes rising.
    pub fn proofs(&self) -> impl Iterator<Item = &ForkProof> {
        self.proofs.values()
    }

    /// Whether there is a proof about `lane`.
    #[must_use]
    pub fn has(&self, lane: LaneId) -> bool {
        self.proofs.contains_key(&lane)
    }

    /// Adds a proof, which holds; it is durable when this returns. One about a lane that has one is left out.
    ///
    /// # Errors
    /// Those of the file; [`ForkProofError`](weft_core::ForkProofError)s as [`LogError::Io`] of kind `InvalidData`.
    pub fn add(&mut self, proof: ForkProof) -> Result<(), LogError> {
        if self.has(proof.lane) {
            return Ok(());
        }
        let lane = proof.lane;
        self.proofs.insert(lane, proof);
        let written = encode(&self.proofs).and_then(|record| self.slots.write(&record));
        if written.is_err() {
            self.proofs.remove(&lane);
        }
        written
    }
}

fn encode(proofs: &BTreeMap<LaneId, ForkProof>) -> Result<Vec<u8>, LogError> {
    let mut record = Vec::with_capacity(2 + proofs.len() * (2 + FORK_PROOF_BYTES_MAX));
    // Lanes are below 1,024, and a proof is shorter than 4 KiB.
    record.extend_from_slice(&(proofs.len() as u16).to_le_bytes());
    for proof in proofs.values() {
        let bytes = proof.encode().map_err(|error| LogError::Io {
            operation: "encode",
            path: FILE_NAME.into(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        })?;
        record.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        record.extend_from_slice(&bytes);
    }
    Ok(record)
}

fn decode(record: &[u8]) -> Result<Vec<ForkProof>, String> {
    let cut = || "it is cut short".to_owned();
    let (count, mut rest) = record.split_first_chunk().ok_or_else(cut)?;
    let count = u16::from_le_bytes(*count);
    if count > LANES_MAX {
        return Err(format!("{count} proofs, at most {LANES_MAX}"));
    }
    let mut proofs: Vec<ForkProof> = Vec::new();
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let (proof, after) = after.split_at_checked(u16::from_le_bytes(*length).into()).ok_or_else(cut)?;
        rest = after;
        let proof = ForkProof::decode(proof).map_err(|error| error.to_string())?;
        if proofs.last().is_some_and(|last| last.lane >= proof.lane) {
            return Err(format!("the proof about lane {} is out of order", proof.lane));
        }
        proofs.push(proof);
    }
    if rest.is_empty() { Ok(proofs) } else { Err(format!("{} bytes are left over", rest.len())) }
}

/// The proofs in a record, verified.
fn read(record: &[u8], network: NetworkId, keys: &[NodeKey]) -> Result<BTreeMap<LaneId, ForkProof>, String> {
    let mut proofs = BTreeMap::new();
    for proof in decode(record)? {
        let lane = proof.lane;
        let key = keys.get(usize::from(lane.0)).filter(|_| proof.network == network);
        let key = key.ok_or_else(|| format!("the proof about lane {lane} is of another ledger"))?;
        proof
            .verify(key, |key, text, signature| weft_crypto::serial::verify_one(&key.0, text, signature))
            .map_err(|error| format!("the proof about lane {lane} does not hold: {error}"))?;
        proofs.insert(lane, proof);
    }
    Ok(proofs)
}

#[cfg(test)]
mod tests {
    use weft_core::{
        BatchBuilder, BatchView, DeviceSigner, Draft, LaneTree, MessageId, MessageView, PayloadKind, Place,
        VerifiedMessage,
    };
    use weft_storage::sim::{Fault, SimDisk, SimRandom};

    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 4]);

    fn signer(lane: u16) -> DeviceSigner {
        DeviceSigner::from_seed([lane as u8 + 1; 32])
    }

    fn keys() -> Vec<NodeKey> {
        (0..9).map(|lane| signer(lane).public()).collect()
    }

    /// The proof that the node with the key of `by` has signed `lane` two ways.
    fn proof(lane: u16, by: u16) -> ForkProof {
        let batch = |payload: &[u8]| {
            let draft = Draft {
                network: NETWORK,
                issued_at_us: 1,
                sequence: 1,
                parents: [MessageId([1; 32]), MessageId([2; 32])],
                kind: PayloadKind::DATA,
                payload,
            };
            let bytes = draft.sign(&signer(by)).unwrap();
            let mut builder = BatchBuilder::new(1, 10_000);
            let message = VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap());
            builder.push([Place::root(0), Place::root(1)], &message).unwrap();
            let seal = |text: &[u8]| signer(by).sign_bytes(text);
            let sealed = builder.seal(&mut LaneTree::new(), NETWORK, LaneId(lane), seal).unwrap();
            sealed.bytes().to_vec()
        };
        let [left, right] = [batch(b"left"), batch(b"right")];
        let view = |bytes| BatchView::parse(bytes).unwrap();
        ForkProof::of_batches(&LaneTree::new(), &view(&left), &view(&right)).unwrap()
    }

    fn dir() -> &'static Path {
        Path::new("/data")
    }

    fn open(disk: &SimDisk) -> Result<ForkFile, LogError> {
        let _ = disk.create_dir_all(dir());
        ForkFile::open(Arc::new(disk.clone()), dir(), NETWORK, &keys())
    }

    fn lanes(file: &ForkFile) -> Vec<u16> {
        file.forks().map(|(lane, _)| lane.0).collect()
    }

    /// Adds proofs about these lanes, until the power fails, and starts anew in between; the lanes whose proof was added.
    fn run(disk: &SimDisk, order: &[u16]) -> Vec<u16> {
        let mut added = Vec::new();
        for pair in order.chunks(2) {
            let Ok(mut file) = open(disk) else { return added };
            for lane in pair {
                if file.add(proof(*lane, *lane)).is_err() {
                    return added;
                }
                added.push(*lane);
            }
        }
        added
    }

    #[test]
    fn after_any_crash_every_proof_is_there_that_was_added_and_no_other_but_the_one_under_way() {
        let order = [5, 2, 7, 0, 8];
        let whole = SimDisk::new(3);
        assert_eq!(run(&whole, &order), order);
        let (mut random, mut crashes, mut newer) = (SimRandom::new(4), 0, 0);
        for operation in 0..=whole.operation_count() {
            let disk = SimDisk::new(3);
            disk.fail_at(operation, Fault::PowerOff);
            let added = run(&disk, &order);
            for outcome in disk.crash_outcomes(32, &mut random).outcomes {
                let found = lanes(&open(&disk.crash(&outcome)).expect("it opens after every crash"));
                let sorted = |count: usize| {
                    let mut lanes = order[..count.min(order.len())].to_vec();
                    lanes.sort_unstable();
                    lanes
                };
                let (least, most) = (sorted(added.len()), sorted(added.len() + 1));
                assert!(found == least || found == most, "operation {operation}: {found:?}, {added:?}");
                crashes += 1;
                newer += u32::from(found != least);
            }
        }
        assert!(crashes > 60 && newer > 3, "{crashes} crashes, {newer} with a proof under way");
    }

    #[test]
    fn one_proof_a_lane_is_kept() {
        let disk = SimDisk::new(1);
        let mut file = open(&disk).unwrap();
        file.add(proof(3, 3)).unwrap();
        let before = disk.operation_count();
        file.add(proof(3, 3)).unwrap();
        assert_eq!((disk.operation_count(), lanes(&file)), (before, vec![3]));
    }

    #[test]
    fn a_damaged_file_or_one_that_proves_nothing_is_put_aside_and_closes_no_lane() {
        let path = dir().join(FILE_NAME);
        let whole = |proofs: &[ForkProof]| {
            let proofs = proofs.iter().map(|proof| (proof.lane, proof.clone())).collect();
            encode(&proofs).unwrap()
        };
        let good = whole(&[proof(1, 1), proof(4, 4)]);
        let mut records =
            vec![whole(&[proof(1, 1), proof(4, 5)]), whole(&[proof(20, 20)]), b"abc".to_vec(), vec![]];
        records.extend((0..good.len()).map(|length| good[..length].to_vec()));
        records.push([&good[..], &[0]].concat());
        for record in records {
            let disk = SimDisk::new(1);
            disk.create_dir_all(dir()).unwrap();
            let (mut slots, _) = SlotFile::open(Arc::new(disk.clone()), dir(), FILE_NAME).unwrap();
            slots.write(&record).unwrap();
            let mut file = open(&disk).unwrap();
            assert_eq!(lanes(&file), Vec::<u16>::new(), "{} bytes", record.len());
            assert!(disk.read_file(&dir().join(DAMAGED_NAME)).is_ok());
            // And the next one is written and found.
            file.add(proof(6, 6)).unwrap();
            assert_eq!(lanes(&open(&disk).unwrap()), [6]);
        }
        for half in 0..2 {
            let disk = SimDisk::new(1);
            let mut file = open(&disk).unwrap();
            file.add(proof(1, 1)).unwrap();
            let length = disk.read_file(&path).unwrap().len() as u64;
            for both in 0..=half {
                disk.flip_bit(&path, both * (length / 2) + 60, 3).unwrap();
            }
            // One half is empty: the other one is all that there was.
            let found = lanes(&open(&disk).unwrap());
            assert!(found.is_empty() || half == 0, "{found:?}");
        }
    }

    #[test]
    fn no_bit_of_a_record_can_be_changed_unnoticed() {
        let good = encode(&[proof(1, 1), proof(4, 4)].map(|proof| (proof.lane, proof)).into()).unwrap();
        assert_eq!(read(&good, NETWORK, &keys()).unwrap().len(), 2);
        for bit in 0..8 * good.len() {
            let mut other = good.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&other, NETWORK, &keys()).is_err(), "bit {bit}");
        }
        assert!(read(&good, NetworkId([8; 4]), &keys()).is_err());
    }
}
