//! A node of a cluster that lies: it ships what it likes, and signs what it likes.

use std::time::Duration;

use bytes::Bytes;
use weft_core::{BatchBuilder, DeviceSigner, Draft, LaneId, LaneTree, PayloadKind, Place, VerifiedMessage};
use weft_net::peer::{
    CosignAnswer, Hold, Holdings, LaneEnd, NotCosigned, PeerCode, PeerConfig, PeerLimits, PeerMember,
    PeerNet, PeerService, ShipAnswer, ShipCursor, ShipEnd, Shipping, SubscriptionId,
};
use weft_storage::DataDir;

use super::four::Cluster;
use super::{device, now_us, runtime};

pub type Ship = dyn Fn(LaneId, LaneId, &[LaneEnd]) -> ShipAnswer + Send + Sync;

/// A node that ships what it likes: of which lane is asked by which peer, from which ends on.
pub struct Liar {
    pub ship: Box<Ship>,
    /// Gives signatures that are none.
    pub forges: bool,
}

const NOTHING: LaneEnd = LaneEnd { size: 0, root: weft_core::merkle::EMPTY_ROOT };

impl Liar {
    pub fn new(ship: impl Fn(LaneId, LaneId, &[LaneEnd]) -> ShipAnswer + Send + Sync + 'static) -> Self {
        Self { ship: Box::new(ship), forges: false }
    }

    /// Signs two histories of its lane, 3, and gives one to node 0 and the other to all others.
    pub fn two_ways(histories: [Vec<Bytes>; 2]) -> Self {
        Self::new(move |peer, lane, ends| {
            if lane != LaneId(3) || !ends.contains(&NOTHING) {
                return ShipAnswer::NotHeld { held: 0 };
            }
            ships(&histories[usize::from(peer != LaneId(0))])
        })
    }
}

/// Ships these batches and nothing more.
pub fn ships(batches: &[Bytes]) -> ShipAnswer {
    ShipAnswer::From(NOTHING, Box::new(Pages(batches.iter().cloned().collect())))
}

pub struct Pages(pub std::collections::VecDeque<Bytes>);

impl ShipCursor for Pages {
    fn read(&mut self, _: usize, out: &mut Vec<Bytes>) -> Result<(), ShipEnd> {
        out.extend(self.0.drain(..));
        Ok(())
    }
}

impl PeerService for Liar {
    fn connected(&self, _: LaneId) {}
    fn disconnected(&self, _: LaneId, _: Option<PeerCode>, _: &str) {}
    fn witness(&self, _: LaneId, _: Bytes, _: Hold) {}
    fn holdings(&self, _: LaneId, _: Holdings, _: Hold) {}
    fn fork_proof(&self, _: LaneId, _: LaneId, _: [Bytes; 2], _: Hold) {}
    fn forked(&self, _: LaneId, _: Bytes, _: Hold) {}
    fn batch(&self, _: LaneId, _: LaneId, _: SubscriptionId, _: Bytes) {}
    fn shipping(&self, _: LaneId, _: LaneId, _: SubscriptionId, _: Shipping) {}
    fn chain_done(&self, _: LaneId, _: u16, _: u32, _: bool) {}

    fn ship(&self, peer: LaneId, lane: LaneId, ends: &[LaneEnd]) -> ShipAnswer {
        (self.ship)(peer, lane, ends)
    }

    fn chain(&self, _: LaneId, _: u16, _: u64, _: usize, _: usize) -> Vec<Bytes> {
        Vec::new()
    }

    fn cosign(&self, _: LaneId, _: LaneId, _: LaneEnd) -> CosignAnswer {
        match self.forges {
            true => CosignAnswer::Given { time_s: 1_800_000_000, signature: [1; 64] },
            false => CosignAnswer::Refused(NotCosigned::Failed),
        }
    }
}

/// A batch of one message in the lane of node 3, sealed with its key, at the end of `tree`. `spoil` may change the message after it was
/// signed.
pub fn batch_of(
    dir: &DataDir,
    tree: &mut LaneTree,
    (sequence, payload): (u64, &[u8]),
    spoil: impl Fn(&mut Vec<u8>),
) -> Bytes {
    let (genesis, signer) = (dir.genesis_id(), DeviceSigner::from_seed(*dir.node_seed()));
    let draft = Draft {
        network: genesis.network(),
        issued_at_us: now_us(),
        sequence,
        parents: genesis.roots(),
        kind: PayloadKind::DATA,
        payload,
    };
    let mut message = draft.sign(&device(5)).unwrap();
    spoil(&mut message);
    let mut builder = BatchBuilder::new(1, 10_000);
    let view = weft_core::MessageView::parse(&message).unwrap();
    builder.push([Place::root(0), Place::root(1)], &VerifiedMessage::vouch(view)).unwrap();
    let seal = |text: &[u8]| signer.sign_bytes(text);
    let sealed = builder.seal(tree, genesis.network(), LaneId(3), seal).unwrap();
    Bytes::copy_from_slice(sealed.bytes())
}

/// Two batches of node 3's lane.
pub fn history(dir: &DataDir, payload: &[u8], spoil: impl Fn(u64, &mut Vec<u8>)) -> Vec<Bytes> {
    let mut tree = LaneTree::new();
    (1..=2)
        .map(|sequence| batch_of(dir, &mut tree, (sequence, payload), |bytes| spoil(sequence, bytes)))
        .collect()
}

/// Node 3 of the cluster is this liar from now on.
pub fn lie(cluster: &Cluster, dir: &DataDir, liar: Liar) -> PeerNet {
    let members = dir.genesis().node_keys().enumerate().map(|(lane, key)| PeerMember {
        key,
        address: cluster.nodes[lane].as_ref().map(|node| node.peer_address().unwrap().to_string()),
    });
    let config = PeerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        seed: *dir.node_seed(),
        genesis: dir.genesis_id(),
        lane: LaneId(3),
        members: members.collect(),
        latency: Duration::ZERO,
        loss_percent: 0.0,
        limits: PeerLimits::default(),
    };
    PeerNet::start(config, runtime().handle(), std::sync::Arc::new(liar)).unwrap()
}
