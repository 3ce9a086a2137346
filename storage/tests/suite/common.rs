//! A lane that makes sound batches, and checks that a log holds what the lane appended to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_core::arena::VerifiedMessage;
use weft_core::lane::build::{BatchBuilder, SealedBatch};
use weft_core::{
    DeviceKey, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId, OneByOne, PayloadKind, Place,
};
use weft_storage::sim::SimRandom;
use weft_storage::{Disk, LaneLog, LogConfig, LogError, LogReader, Recovered, verify_log};

pub(crate) const NETWORK: NetworkId = NetworkId([0xaa, 1, 2, 3]);
pub(crate) const LANE: LaneId = LaneId(7);

/// The directory of the lane's log on a simulated disk.
pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/data/lanes/7")
}

/// The smallest segments, so that a few batches fill one; no threads, so that operations come in a fixed order.
pub(crate) const SMALL: LogConfig =
    LogConfig { segment_bytes: 8_192, free_bytes_min: 0, background: false, hasher: &OneByOne };

/// A batch as it was appended.
pub(crate) struct Batch {
    pub(crate) sealed: SealedBatch,
    /// The lane's tree after it.
    pub(crate) after: LaneTree,
}

/// Makes the batches of one lane. Signatures are stand-ins: whether they are valid is not the log's question.
pub(crate) struct Lane {
    pub(crate) tree: LaneTree,
    sequence: u64,
    random: SimRandom,
    /// The parents of the next message.
    parents: [(MessageId, Place); 2],
}

impl Lane {
    pub(crate) fn new(seed: u64) -> Self {
        let root = |i: u8| (MessageId([i + 1; 32]), Place::root(i));
        Self { tree: LaneTree::new(), sequence: 0, random: SimRandom::new(seed), parents: [root(0), root(1)] }
    }

    /// A lane that goes on where `tree` is.
    pub(crate) fn at(tree: &LaneTree, seed: u64) -> Self {
        Self { tree: tree.clone(), ..Self::new(seed) }
    }

    /// A batch of `messages` messages with payloads of `payload_bytes` random bytes.
    pub(crate) fn batch(&mut self, messages: u32, payload_bytes: usize) -> Batch {
        let mut builder = BatchBuilder::new(messages, messages as usize * (200 + payload_bytes));
        let first = self.tree.size();
        for i in 0..messages {
            let payload: Vec<u8> = (0..payload_bytes).map(|_| self.random.next_u64() as u8).collect();
            self.sequence += 1;
            let draft = Draft {
                network: NETWORK,
                issued_at_us: 1_000_000 + self.random.below(1_000),
                sequence: self.sequence,
                parents: self.parents.map(|(id, _)| id),
                kind: PayloadKind::DATA,
                payload: &payload,
            };
            let mut bytes = Vec::new();
            let id = draft.write_content(&DeviceKey([self.sequence as u8; 32]), &mut bytes).unwrap();
            Draft::finish(&mut bytes, &[7; 64]);
            let message = VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap());
            builder.push(self.parents.map(|(_, place)| place), &message).unwrap();
            let place = Place::new(LANE, first + 1 + u64::from(i));
            self.parents = [self.parents[1], (id, place)];
        }
        let sealed = builder.seal(&mut self.tree, NETWORK, LANE, seal_signature).unwrap();
        Batch { sealed, after: self.tree.clone() }
    }
}

/// What stands for the node's signature.
pub(crate) fn seal_signature(text: &[u8]) -> [u8; 64] {
    let hash = *blake3::hash(text).as_bytes();
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&hash);
    signature[32..].copy_from_slice(&hash);
    signature
}

/// Opens the log, accepting seals that `seal_signature` made.
pub(crate) fn open(
    disk: &(impl Disk + Clone + 'static),
    config: LogConfig,
) -> Result<(LaneLog, Recovered), LogError> {
    open_in(Arc::new(disk.clone()), &dir(), config)
}

pub(crate) fn open_in(
    disk: Arc<dyn Disk>,
    dir: &Path,
    config: LogConfig,
) -> Result<(LaneLog, Recovered), LogError> {
    LaneLog::open(disk, dir, NETWORK, LANE, config, &|batch| {
        *batch.signature() == seal_signature(batch.checkpoint_text().as_bytes())
    })
}

/// Appends a batch.
pub(crate) fn append(log: &mut LaneLog, batch: &Batch) -> Result<u64, LogError> {
    log.writer.append(&batch.sealed, &batch.after)
}

/// Checks that the log holds exactly the batches of `history` up to `size`: by position, by place and by id.
pub(crate) fn assert_holds(reader: &LogReader, history: &[&Batch], size: u64) {
    assert_eq!(reader.size(), size);
    let mut stored = reader.batches_from(0);
    for batch in history {
        let sealed = &batch.sealed;
        if sealed.size() > size {
            assert!(sealed.first() >= size, "the log ends inside a batch");
            assert!(sealed.ids().iter().all(|id| reader.find(id).is_none()), "an id beyond the end is found");
            continue;
        }
        let found = stored.next().expect("a batch is missing").unwrap();
        assert_eq!((found.first, found.size), (sealed.first(), sealed.size()));
        assert!(found.bytes[..] == *sealed.bytes(), "a batch is altered");
        assert_eq!(
            reader.message_at(Place::new(LANE, sealed.first())).unwrap(),
            None,
            "a header is no message"
        );
        let view = sealed.view().unwrap();
        for (i, id) in sealed.ids().iter().enumerate() {
            let place = sealed.place(i as u32);
            assert_eq!(reader.find(id), Some(place));
            let message = reader.message_at(place).unwrap().unwrap();
            let expected = view.message(i as u32).unwrap();
            assert_eq!(message.bytes(), expected.message.bytes());
            assert_eq!(message.parent_places, expected.parent_places);
        }
    }
    assert!(stored.next().is_none(), "the log holds more than was appended");
    assert_eq!(reader.batch_at(size).unwrap(), None);
}

/// Walks the log as `weft verify-log` does and expects no damage.
pub(crate) fn assert_verifies(disk: &dyn Disk, dir: &Path, size: u64) {
    let report = verify_log(disk, dir, NETWORK, LANE, &OneByOne, &mut |_, _| Ok(())).unwrap();
    assert_eq!(report.damage, None);
    assert_eq!(report.size, size);
}

/// Seed of a random test: `WEFT_SEED` if it is set, else `default`. Printed, so that a failure can be replayed.
pub(crate) fn seed(default: u64) -> u64 {
    let seed = std::env::var("WEFT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    println!("WEFT_SEED={seed}");
    seed
}

/// Rounds of a random test: `WEFT_SIM_ROUNDS` if it is set, else `default`.
pub(crate) fn rounds(default: u64) -> u64 {
    std::env::var("WEFT_SIM_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
