//! Lanes for unit tests: nodes that seal what they are told to, honestly or not, into logs on a real or a simulated disk.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use weft_core::confirm::BatchDigest;
use weft_core::merkle::Hash;
use weft_core::{
    BatchBuilder, BatchView, DeviceSigner, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId,
    NodeKey, OneByOne, PayloadKind, Place, VerifiedMessage,
};
use weft_storage::{Disk, LaneLog, LogConfig};

pub const NETWORK: NetworkId = NetworkId([7; 4]);
pub const ROOTS: [MessageId; 2] = [MessageId([1; 32]), MessageId([2; 32])];
pub const ROOT_PLACES: [Place; 2] = [Place::root(0), Place::root(1)];

/// The signer of the node of `lane`.
pub fn signer(lane: u16) -> DeviceSigner {
    DeviceSigner::from_seed([50 + lane as u8; 32])
}

/// Keys of so many nodes.
pub fn keys(lanes: u16) -> Vec<NodeKey> {
    (0..lanes).map(|lane| signer(lane).public()).collect()
}

/// A signed message.
pub fn message(signer: &DeviceSigner, kind: PayloadKind, parents: [MessageId; 2], payload: &[u8]) -> Vec<u8> {
    let draft = Draft { network: NETWORK, issued_at_us: 1, sequence: 1, parents, kind, payload };
    draft.sign(signer).unwrap()
}

/// A device's message with the genesis roots as parents.
pub fn data(payload: &[u8]) -> Vec<u8> {
    message(&DeviceSigner::from_seed([9; 32]), PayloadKind::DATA, ROOTS, payload)
}

pub fn id(message: &[u8]) -> MessageId {
    MessageView::parse(message).unwrap().id()
}

/// One lane and its log.
pub struct Author {
    pub lane: LaneId,
    pub log: LaneLog,
    tree: LaneTree,
}

impl Author {
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, lane: u16) -> Self {
        let config =
            LogConfig { segment_bytes: 4 << 20, free_bytes_min: 0, background: false, hasher: &OneByOne };
        let lane = LaneId(lane);
        let (log, _) = LaneLog::open(disk, dir, NETWORK, lane, config, &|_| true).unwrap();
        Self { lane, log, tree: LaneTree::new() }
    }

    /// Seals these messages, appends the batch, and hands out its bytes and what confirmation knows of it.
    pub fn append(&mut self, messages: &[(&[u8], [Place; 2])]) -> (Bytes, Arc<BatchDigest>) {
        let before: Hash = self.tree.root();
        let mut builder = BatchBuilder::new(4_096, 4 << 20);
        for (message, places) in messages {
            let view = MessageView::parse(message).unwrap();
            builder.push(*places, &VerifiedMessage::vouch(view)).unwrap();
        }
        let node = signer(self.lane.0);
        let seal = |text: &[u8]| node.sign_bytes(text);
        let sealed = builder.seal(&mut self.tree, NETWORK, self.lane, seal).unwrap();
        let bytes = Bytes::copy_from_slice(sealed.bytes());
        self.log.writer.append(&sealed, &self.tree).unwrap();
        let view = BatchView::parse(&bytes).unwrap();
        let digest = Arc::new(BatchDigest::vouched(&view, before, &node.public()));
        (bytes, digest)
    }

    /// A batch of one message with the genesis roots as parents.
    pub fn append_one(&mut self, message: &[u8]) -> Arc<BatchDigest> {
        self.append(&[(message, ROOT_PLACES)]).1
    }

    pub fn sync(&self) {
        self.log.syncer.sync().unwrap();
    }
}
