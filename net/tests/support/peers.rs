//! Nodes for the suites about peers: a service that records what it hears and ships what it was given.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_core::{GenesisId, LaneId, NodeKey};
use weft_net::peer::{
    CosignAnswer, Hold, Holdings, LaneEnd, NotCosigned, PeerCode, PeerConfig, PeerMember, PeerNet,
    PeerService, ShipAnswer, ShipCursor, ShipEnd, Shipping, SubscriptionId,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const GENESIS: GenesisId = GenesisId([0x42; 32]);

/// What a node heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Connected(u16),
    Disconnected(u16, Option<PeerCode>),
    Witness(u16, Bytes),
    Holdings(u16, Holdings),
    Proof(u16, LaneId, [Bytes; 2]),
    Forked(u16, Bytes),
    Batch(SubscriptionId, Bytes),
    Shipping(SubscriptionId, Shipping),
    ChainDone(u16, u32, bool),
}

type Lane = Vec<(LaneEnd, Bytes)>;

/// A node's side of the connections.
#[derive(Default)]
pub(crate) struct Recorder {
    events: Mutex<Vec<(Instant, Event)>>,
    /// Batches per lane, with the end after each.
    pub(crate) lanes: Arc<Mutex<[Lane; 4]>>,
    pub(crate) chain: Mutex<Vec<Bytes>>,
    /// Keeps what came with holds, while `Some`.
    pub(crate) holds: Mutex<Option<Vec<Hold>>>,
    /// Cursors report this instead of reading.
    pub(crate) ends_with: Arc<Mutex<Option<ShipEnd>>>,
    /// Bytes that cursors have read.
    pub(crate) read_bytes: Arc<AtomicUsize>,
    /// Signatures under checkpoints, by size.
    pub(crate) signatures: Mutex<Vec<(u64, [u8; 64])>>,
}

impl Recorder {
    fn push(&self, event: Event) {
        self.events.lock().unwrap().push((Instant::now(), event));
    }

    fn keep(&self, hold: Hold) {
        if let Some(holds) = self.holds.lock().unwrap().as_mut() {
            holds.push(hold);
        }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    pub(crate) fn timed(&self) -> Vec<(Instant, Event)> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn batches(&self, subscription: SubscriptionId) -> Vec<Bytes> {
        let of = |event| match event {
            Event::Batch(id, batch) if id == subscription => Some(batch),
            _ => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }

    pub(crate) fn batch_bytes(&self, subscription: SubscriptionId) -> usize {
        self.batches(subscription).iter().map(Bytes::len).sum()
    }

    pub(crate) fn shipping(&self, subscription: SubscriptionId) -> Vec<Shipping> {
        let of = |event| match event {
            Event::Shipping(id, shipping) if id == subscription => Some(shipping),
            _ => None,
        };
        self.events().into_iter().filter_map(of).collect()
    }

    pub(crate) fn witnesses(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, Event::Witness(..))).count()
    }

    /// Waits until the condition holds.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(since.elapsed() < PATIENCE, "{what}: never happened; heard {:?}", self.short());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    pub(crate) async fn heard(&self, event: Event) {
        self.until(&format!("{event:?}"), |me| me.events().contains(&event)).await;
    }

    fn short(&self) -> Vec<String> {
        self.events().iter().map(|event| format!("{event:?}").chars().take(80).collect()).collect()
    }

    /// Appends a batch to a lane.
    pub(crate) fn append(&self, lane: u16, size: u64, batch: Bytes) -> LaneEnd {
        let end = LaneEnd { size, root: [size as u8; 32] };
        self.lanes.lock().unwrap()[usize::from(lane)].push((end, batch));
        end
    }
}

struct Cursor {
    lanes: Arc<Mutex<[Lane; 4]>>,
    lane: usize,
    at: usize,
    ends_with: Arc<Mutex<Option<ShipEnd>>>,
    read_bytes: Arc<AtomicUsize>,
}

impl ShipCursor for Cursor {
    fn read(&mut self, bytes_max: usize, out: &mut Vec<Bytes>) -> Result<(), ShipEnd> {
        if let Some(end) = *self.ends_with.lock().unwrap() {
            return Err(end);
        }
        let mut bytes = 0;
        let lanes = self.lanes.lock().unwrap();
        while bytes < bytes_max
            && let Some((_, batch)) = lanes[self.lane].get(self.at)
        {
            bytes += batch.len();
            out.push(batch.clone());
            self.at += 1;
        }
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl PeerService for Recorder {
    fn connected(&self, peer: LaneId) {
        self.push(Event::Connected(peer.0));
    }

    fn disconnected(&self, peer: LaneId, code: Option<PeerCode>, _reason: &str) {
        self.push(Event::Disconnected(peer.0, code));
    }

    fn witness(&self, peer: LaneId, message: Bytes, hold: Hold) {
        self.keep(hold);
        self.push(Event::Witness(peer.0, message));
    }

    fn holdings(&self, peer: LaneId, holdings: Holdings, hold: Hold) {
        self.keep(hold);
        self.push(Event::Holdings(peer.0, holdings));
    }

    fn fork_proof(&self, peer: LaneId, lane: LaneId, batches: [Bytes; 2], hold: Hold) {
        self.keep(hold);
        self.push(Event::Proof(peer.0, lane, batches));
    }

    fn forked(&self, peer: LaneId, proof: Bytes, hold: Hold) {
        self.keep(hold);
        self.push(Event::Forked(peer.0, proof));
    }

    fn batch(&self, _peer: LaneId, _lane: LaneId, subscription: SubscriptionId, batch: Bytes) {
        self.push(Event::Batch(subscription, batch));
    }

    fn shipping(&self, _peer: LaneId, _lane: LaneId, subscription: SubscriptionId, event: Shipping) {
        self.push(Event::Shipping(subscription, event));
    }

    fn chain_done(&self, _peer: LaneId, validator: u16, received: u32, complete: bool) {
        self.push(Event::ChainDone(validator, received, complete));
    }

    fn ship(&self, _peer: LaneId, lane: LaneId, ends: &[LaneEnd]) -> ShipAnswer {
        let index = usize::from(lane.0);
        let lanes = self.lanes.lock().unwrap();
        let held = &lanes[index];
        let at = |end: &LaneEnd| {
            if end.size == 0 { Some(0) } else { held.iter().position(|(own, _)| own == end).map(|at| at + 1) }
        };
        if let Some((at, end)) =
            ends.iter().filter_map(|end| Some((at(end)?, *end))).max_by_key(|found| found.0)
        {
            let (lanes, ends_with) = (Arc::clone(&self.lanes), Arc::clone(&self.ends_with));
            let read_bytes = Arc::clone(&self.read_bytes);
            return ShipAnswer::From(end, Box::new(Cursor { lanes, lane: index, at, ends_with, read_bytes }));
        }
        let other = held.iter().find(|(own, _)| ends.iter().any(|end| end.size == own.size));
        match other {
            Some((_, batch)) => ShipAnswer::Fork(batch.clone()),
            None => ShipAnswer::NotHeld { held: held.last().map_or(0, |last| last.0.size) },
        }
    }

    fn chain(
        &self,
        _peer: LaneId,
        _validator: u16,
        after: u64,
        count: usize,
        _bytes_max: usize,
    ) -> Vec<Bytes> {
        self.chain.lock().unwrap().iter().skip(after as usize).take(count).cloned().collect()
    }

    fn cosign(&self, _peer: LaneId, lane: LaneId, end: LaneEnd) -> CosignAnswer {
        if lane != LaneId(0) || end.root != [end.size as u8; 32] {
            return CosignAnswer::Refused(NotCosigned::NoSuch);
        }
        let signatures = self.signatures.lock().unwrap();
        match signatures.iter().find(|(size, _)| *size == end.size) {
            Some((_, signature)) => CosignAnswer::Given { time_s: 1_000 + end.size, signature: *signature },
            None => CosignAnswer::Refused(NotCosigned::NotFinal),
        }
    }
}

/// Seed of the node with this number.
pub(crate) fn seed(number: u8) -> [u8; 32] {
    [number + 1; 32]
}

/// Public key of the node with this seed.
pub(crate) fn key(seed: &[u8; 32]) -> NodeKey {
    let head =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let der: Vec<u8> = head.into_iter().chain(*seed).collect();
    let pair = rcgen::KeyPair::try_from(der).unwrap();
    let key: [u8; 32] = pair.public_key_raw().try_into().unwrap();
    NodeKey::from(key)
}

/// A running node.
pub(crate) struct Node {
    pub(crate) net: PeerNet,
    pub(crate) heard: Arc<Recorder>,
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Configuration of node `number` of `count`, without addresses.
pub(crate) fn config(number: u8, count: u8) -> PeerConfig {
    PeerConfig {
        listen: loopback(),
        seed: seed(number),
        genesis: GENESIS,
        lane: LaneId(number.into()),
        members: (0..count).map(|other| PeerMember { key: key(&seed(other)), address: None }).collect(),
        latency: Duration::ZERO,
        loss_percent: 0.0,
        limits: weft_net::peer::PeerLimits::default(),
    }
}

pub(crate) fn start(config: PeerConfig) -> Node {
    let heard = Arc::new(Recorder::default());
    let service: Arc<dyn PeerService> = heard.clone();
    let net = PeerNet::start(config, &tokio::runtime::Handle::current(), service).unwrap();
    Node { net, heard }
}

/// Two connected nodes, 0 and 1; node 1 has dialled.
pub(crate) async fn pair(change: impl Fn(&mut PeerConfig)) -> (Node, Node) {
    let mut first = config(0, 2);
    change(&mut first);
    let first = start(first);
    let mut second = config(1, 2);
    change(&mut second);
    second.members[0].address = Some(first.net.local_addr().to_string());
    let second = start(second);
    first.heard.heard(Event::Connected(1)).await;
    second.heard.heard(Event::Connected(0)).await;
    (first, second)
}

/// Something as long as a batch.
pub(crate) fn batch(number: u8, bytes: usize) -> Bytes {
    Bytes::from(vec![number; bytes])
}

/// Something as long as a witness message.
pub(crate) fn witness(number: u32) -> Bytes {
    let mut bytes = vec![0; 400];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Bytes::from(bytes)
}
