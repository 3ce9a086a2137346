//! What the tests of replication share: stores of one other lane on a simulated disk, and whoever makes batches for it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use weft_core::confirm::{Setup, Weights};
use weft_core::{
    BatchBuilder, DeviceSigner, Draft, LaneId, LaneTree, MessageId, NetworkId, NodeKey, OneByOne,
    PayloadKind, Place, VerifiedMessage,
};
use weft_storage::{LaneLog, LogConfig, LogReader, SimDisk};

use super::store::Stores;
use crate::confirm::{Confirm, machine};
use crate::health::{Health, State};
use crate::lanes::Lanes;

/// The ledger.
pub(super) const NETWORK: NetworkId = NetworkId([7; 4]);

/// The lane of the other node; lane 0 is the own one.
pub(super) const LANE: LaneId = LaneId(1);

/// Makes batches of lane 1, or another, honestly or not.
pub(super) struct Author {
    pub(super) signer: DeviceSigner,
    pub(super) lane: LaneId,
    pub(super) tree: LaneTree,
}

impl Author {
    /// The node of lane 1.
    pub(super) fn new() -> Self {
        Self { signer: DeviceSigner::from_seed([5; 32]), lane: LANE, tree: LaneTree::new() }
    }

    /// The same node, going on from here.
    pub(super) fn fork(&self) -> Self {
        Self { tree: self.tree.clone(), ..Self::new() }
    }

    /// A batch of one message that follows `self.tree`.
    pub(super) fn batch(&mut self, payload: &[u8]) -> Bytes {
        let parents = [MessageId([1; 32]), MessageId([2; 32])];
        let draft = Draft {
            network: NETWORK,
            issued_at_us: 1,
            sequence: 1,
            parents,
            kind: PayloadKind::DATA,
            payload,
        };
        let bytes = draft.sign(&self.signer).unwrap();
        let view = weft_core::MessageView::parse(&bytes).unwrap();
        let mut builder = BatchBuilder::new(1, 100_000);
        builder.push([Place::root(0), Place::root(1)], &VerifiedMessage::vouch(view)).unwrap();
        let signer = &self.signer;
        let sealed =
            builder.seal(&mut self.tree, NETWORK, self.lane, |text| signer.sign_bytes(text)).unwrap();
        Bytes::copy_from_slice(sealed.bytes())
    }
}

/// Key of the own lane's node.
pub(super) fn own_signer() -> DeviceSigner {
    DeviceSigner::from_seed([9; 32])
}

/// Keys of both nodes.
pub(super) fn keys() -> [NodeKey; 2] {
    [own_signer().public(), Author::new().signer.public()]
}

/// A log of `lane` on `disk`.
pub(super) fn log(disk: &SimDisk, lane: LaneId) -> LaneLog {
    let config = LogConfig { segment_bytes: 65_536, free_bytes_min: 0, background: false, hasher: &OneByOne };
    let dir = format!("/lanes/{}", lane.0);
    let (log, _) =
        LaneLog::open(Arc::new(disk.clone()), Path::new(&dir), NETWORK, lane, config, &|_| true).unwrap();
    log
}

/// A live node of two: logs on one disk, and confirmation.
pub(super) struct Ground {
    pub(super) disk: SimDisk,
    pub(super) own: LaneLog,
    pub(super) other: LaneLog,
    pub(super) lanes: Lanes,
    pub(super) health: Arc<Health>,
    pub(super) confirm: Arc<Confirm>,
}

pub(super) fn ground() -> Ground {
    let disk = SimDisk::new(1);
    let (own, other) = (log(&disk, LaneId(0)), log(&disk, LANE));
    let lanes = Lanes::new(LaneId(0), own.reader.clone(), [other.reader.clone()].into_iter());
    let health = Arc::new(Health::new());
    health.set_state(State::Live, None);
    let setup = Setup {
        weights: Weights::new(vec![1, 1]),
        lanes: 2,
        lane: Some(LaneId(0)),
        balances: Vec::new(),
        round_us: 100_000,
    };
    let confirm = Arc::new(Confirm::new(machine(setup, None), LaneId(0)));
    Ground { disk, own, other, lanes, health, confirm }
}

/// Stores with lane 1, its reader, and the disk.
pub(super) fn stores() -> (Stores, LogReader, SimDisk) {
    let Ground { disk, other, health, .. } = ground();
    let reader = other.reader.clone();
    (Stores::new(LaneId(0), &keys(), vec![other], health), reader, disk)
}
