//! What comes from peers, in one thread: witnesses and proofs, then batches, with turns for both.
//!
//! Owns the order, and giving credit back. Invariants: nothing reaches the machine that was not verified here: a witness has the signature
//! of its validator, a batch is authentic; who sends what is not is faulted and nobody else; after [`URGENT_RUN_MAX`] witnesses a batch
//! has its turn. Credit comes back when a batch is in the log or dropped, and later while the lane's log is far ahead of what is applied
//! here: that bounds the disk that a lane takes which cannot be applied. A batch that finds no room on the disk waits here, without
//! credit, and goes into its log by itself once there is room.
//!
//! A subscription says what its batches follow: the end that it starts at, then each other. What follows something else is nonsense, and
//! what does not fit what it is said to follow is junk; after such a batch nothing more of the subscription is looked at.
//!
//! A batch of the own lane that is not in the own log means that this node has forgotten what it had signed: then it stops.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, select};
use weft_core::lane::BATCH_BYTES_MAX;
use weft_core::merkle::Hash;
use weft_core::{BatchError, BatchView, ForkProof, LaneId, NetworkId, NodeKey};
use weft_net::peer::{Hold, LaneEnd, PeerNet, SubscriptionId};
use weft_storage::{LogError, LogReader};

use super::ahead::Ahead;
use super::chains::Chains;
use super::credit::{Credit, Grant};
use super::fetch::FetchEvent;
use super::store::{FULL_RETRY, Stores, Taken};
use super::witnesses::{Gate, Seen};
use crate::confirm::Confirm;
use crate::confirm::driver::Event;
use crate::confirm::events::EventSender;
use crate::confirm::forks::KnownForks;
use crate::hasher::fastest;
use crate::health::{Full, Health, State};
use crate::lane::with_sources;
use crate::lanes::Lanes;

/// How often credit that was kept back, proofs and a full disk are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Witnesses and proofs in a row while batches wait.
pub const URGENT_RUN_MAX: u32 = 32;

/// While the machine does not know that a lane was signed two ways, it is given the oldest sides of it again this often: they may have come
/// before it had what they part from.
const SIDES_AGAIN: Duration = Duration::from_secs(2);

/// So many of them.
const SIDES_AGAIN_MAX: usize = 16;

/// A proof of one peer about one lane that led nowhere keeps others away for this long: looking costs reading a segment.
const PROOF_EVERY: Duration = Duration::from_secs(1);

/// Bytes of proofs about positions that are not here yet: one of the longest batches. What does not fit is forgotten; whoever has the
/// lane the other way shows it again when the lane is asked for.
const PROOFS_KEPT_BYTES: usize = 2 * BATCH_BYTES_MAX;

/// Points of a fault for bytes that no honest node sends.
pub const FAULT_POINTS: u32 = 25;

/// Points of a witness that another validator has not signed: a hundred of them within minutes are no accident.
const UNSIGNED_POINTS: u32 = 1;

/// What counts the bytes of a proof until it has been looked at.
#[derive(Debug)]
pub enum Counted {
    /// Room of its sender's.
    Held(Hold),
    /// So many bytes of its sender's credit.
    Credit(u64),
}

/// What does not wait for batches.
#[derive(Debug)]
pub enum Urgent {
    /// A witness.
    Witness {
        /// From whom.
        peer: LaneId,
        /// Its message.
        message: Bytes,
        /// Room that it takes.
        hold: Hold,
    },
    /// Batches that are said to contradict what is held: a proof of a fork, or the answer to a locator.
    Proof {
        /// From whom.
        peer: LaneId,
        /// The lane.
        lane: LaneId,
        /// One or two batches.
        batches: Vec<Bytes>,
        /// What counts them.
        room: Counted,
    },
    /// What is said to be a proof of a fork, without its batches.
    Forked {
        /// From whom.
        peer: LaneId,
        /// Its bytes.
        proof: Bytes,
        /// Room that it takes.
        hold: Hold,
    },
    /// End.
    Stop,
}

/// A batch of a subscription.
#[derive(Debug)]
pub struct Shipped {
    /// From whom.
    pub peer: LaneId,
    /// The lane.
    pub lane: LaneId,
    /// Of which subscription.
    pub subscription: SubscriptionId,
    /// The batch.
    pub batch: Bytes,
}

/// What subscriptions bring, in order.
#[derive(Debug)]
pub enum Bulk {
    /// A holder starts to ship.
    Started {
        /// Who.
        peer: LaneId,
        /// The lane.
        lane: LaneId,
        /// By which subscription.
        subscription: SubscriptionId,
        /// What the first batch follows.
        end: LaneEnd,
    },
    /// A batch.
    Batch(Shipped),
}

/// The intake's parts.
#[derive(Debug)]
pub struct Intake {
    /// Logs of other lanes.
    pub stores: Arc<Stores>,
    /// All logs.
    pub lanes: Lanes,
    /// Keys of all nodes.
    pub keys: Vec<NodeKey>,
    /// Validators: the first so many nodes.
    pub validators: usize,
    /// The ledger.
    pub network: NetworkId,
    /// Watermarks.
    pub confirm: Arc<Confirm>,
    /// Recent witnesses.
    pub chains: Arc<Chains>,
    /// To the driver.
    pub events: EventSender,
    /// To whoever decides what is asked of whom.
    pub fetch: Sender<FetchEvent>,
    /// What has come and waits.
    pub credit: Arc<Credit>,
    /// Wakes the sync.
    pub dirty: Sender<()>,
    /// Peers.
    pub net: Arc<OnceLock<PeerNet>>,
    /// The node's health.
    pub health: Arc<Health>,
    /// Proofs of forks that are known.
    pub forks: KnownForks,
}

impl Intake {
    /// The intake's life: until it is stopped, or a log fails.
    pub fn run(self, urgent: &Receiver<Urgent>, bulk: &Receiver<Bulk>) {
        Running::new(self).run(urgent, bulk);
    }
}

/// What is known of a subscription.
#[derive(Clone, Copy, Debug)]
struct Stream {
    subscription: SubscriptionId,
    /// The end that its next batch follows.
    follows: (u64, Hash),
    /// It has brought what is of no use.
    dead: bool,
}

/// A proof about positions that are not here yet.
#[derive(Debug)]
struct Proof {
    peer: LaneId,
    batches: Vec<Bytes>,
    /// Size of the lane when it was looked at, and when that was.
    looked: (u64, Instant),
}

impl Proof {
    fn bytes(&self) -> usize {
        self.batches.iter().map(Bytes::len).sum()
    }
}

enum Next {
    Urgent(Urgent),
    Bulk(Bulk),
    Nothing,
    End,
}

/// The intake at work.
struct Running {
    parts: Intake,
    gate: Gate,
    /// The newest subscription of each peer and lane.
    streams: BTreeMap<(LaneId, LaneId), Stream>,
    /// Batches that found no room on the disk, and what came after them, by lane. Their senders have no credit for them.
    parked: BTreeMap<LaneId, VecDeque<Shipped>>,
    retry: Instant,
    /// One a lane.
    proofs: BTreeMap<LaneId, Proof>,
    /// Until when no proof of a peer about a lane is looked at.
    proofs_after: BTreeMap<(LaneId, LaneId), Instant>,
    ahead: BTreeMap<LaneId, Ahead>,
    /// When sides are given to the machine again.
    sides_at: Instant,
    /// Witnesses and proofs in a row.
    urgent_run: u32,
}

impl Running {
    fn new(parts: Intake) -> Self {
        let gate = Gate::new(parts.keys.iter().take(parts.validators).copied().collect(), parts.network);
        Self {
            parts,
            gate,
            streams: BTreeMap::new(),
            parked: BTreeMap::new(),
            retry: Instant::now(),
            proofs: BTreeMap::new(),
            proofs_after: BTreeMap::new(),
            ahead: BTreeMap::new(),
            sides_at: Instant::now() + SIDES_AGAIN,
            urgent_run: 0,
        }
    }

    fn run(mut self, urgent: &Receiver<Urgent>, bulk: &Receiver<Bulk>) {
        let mut looked = Instant::now();
        loop {
            let next = self.next(urgent, bulk);
            let mut done = match next {
                Next::End => return,
                Next::Nothing => Ok(()),
                Next::Urgent(urgent) => self.urgent(urgent),
                Next::Bulk(bulk) => self.bulk(bulk),
            };
            if done.is_ok() && looked.elapsed() >= LOOK_EVERY {
                done = self.look();
                looked = Instant::now();
            }
            if let Err(error) = done {
                let cause = with_sources(&error);
                tracing::error!(%cause, "the log of another node's lane failed: nothing more is confirmed");
                self.parts.health.set_state(State::Poisoned, Some(cause));
                // Whoever sends must not be held up.
                loop {
                    match urgent.recv_timeout(LOOK_EVERY) {
                        Ok(Urgent::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                        _ => while bulk.try_recv().is_ok() {},
                    }
                }
            }
        }
    }

    /// Witnesses and proofs go first, but not for ever.
    fn next(&mut self, urgent: &Receiver<Urgent>, bulk: &Receiver<Bulk>) -> Next {
        if self.urgent_run >= URGENT_RUN_MAX {
            self.urgent_run = 0;
            if let Ok(bulk) = bulk.try_recv() {
                return Next::Bulk(bulk);
            }
        }
        let of = |urgent| if matches!(urgent, Urgent::Stop) { Next::End } else { Next::Urgent(urgent) };
        if let Ok(urgent) = urgent.try_recv() {
            self.urgent_run += 1;
            return of(urgent);
        }
        self.urgent_run = 0;
        select! {
            recv(urgent) -> urgent => urgent.map_or(Next::End, of),
            recv(bulk) -> bulk => bulk.map_or(Next::End, Next::Bulk),
            default(LOOK_EVERY) => Next::Nothing,
        }
    }

    fn urgent(&mut self, urgent: Urgent) -> Result<(), LogError> {
        match urgent {
            Urgent::Witness { peer, message, hold } => {
                self.witness(peer, message);
                drop(hold);
                Ok(())
            }
            Urgent::Proof { peer, lane, batches, room } => {
                // More proofs about a lane that is closed tell nothing, and would take the room of the side that others certify: what is
                // needed of a side comes by a subscription.
                let is_known = matches!(room, Counted::Held(_)) && self.is_closed(lane);
                let done = if is_known { Ok(()) } else { self.proof(peer, lane, batches) };
                if let Counted::Credit(bytes) = room {
                    // It was not asked for against credit: none is given back.
                    let _ = self.parts.credit.consumed(peer, lane, bytes);
                }
                done
            }
            Urgent::Forked { peer, proof, hold } => {
                self.forked(peer, &proof);
                drop(hold);
                Ok(())
            }
            Urgent::Stop => Ok(()),
        }
    }

    fn bulk(&mut self, bulk: Bulk) -> Result<(), LogError> {
        match bulk {
            Bulk::Started { peer, lane, subscription, end } => {
                let stream = Stream { subscription, follows: (end.size, end.root), dead: false };
                self.streams.insert((peer, lane), stream);
                Ok(())
            }
            Bulk::Batch(shipped) => {
                let lane = shipped.lane;
                if let Some(parked) = self.parked.get_mut(&lane) {
                    parked.push_back(shipped);
                } else if !self.batch(&shipped)? {
                    self.parked.entry(lane).or_default().push_back(shipped);
                    self.retry = Instant::now() + FULL_RETRY;
                }
                Ok(())
            }
        }
    }

    /// What is done now and then: credit that may be given back, batches that waited for room, proofs that waited for their lane.
    fn look(&mut self) -> Result<(), LogError> {
        let now = Instant::now();
        let lanes = self.parts.lanes.clone();
        let far: Vec<bool> = lanes.readers().iter().map(|reader| self.is_ahead(reader.lane())).collect();
        let grants =
            self.parts.credit.release(|lane| !far.get(usize::from(lane.0)).copied().unwrap_or(false));
        grants.into_iter().for_each(|grant| self.give(Some(grant)));
        if !self.parked.is_empty() && now >= self.retry {
            self.retry_parked()?;
            self.retry = Instant::now() + FULL_RETRY;
        }
        if now >= self.sides_at {
            self.sides_at = now + SIDES_AGAIN;
            for (lane, sides) in self.parts.stores.sides(SIDES_AGAIN_MAX) {
                if !self.is_closed(lane) {
                    let give = |side| self.parts.events.send(Event::Side(side));
                    sides.into_iter().map(give).for_each(drop);
                }
            }
        }
        self.proofs_after.retain(|_, after| *after > now);
        let size = |lane: &LaneId| self.parts.lanes.get(*lane).map_or(0, LogReader::size);
        let grown = |(lane, proof): &(&LaneId, &Proof)| {
            size(lane) != proof.looked.0 && now.duration_since(proof.looked.1) >= PROOF_EVERY
        };
        let grown: Vec<LaneId> = self.proofs.iter().filter(grown).map(|(lane, _)| *lane).collect();
        for lane in grown {
            if let Some(proof) = self.proofs.remove(&lane) {
                self.look_at_proof(proof.peer, lane, proof.batches)?;
            }
        }
        Ok(())
    }

    fn is_closed(&self, lane: LaneId) -> bool {
        self.parts.confirm.ask(|machine| machine.is_closed(lane))
    }

    fn retry_parked(&mut self) -> Result<(), LogError> {
        let lanes: Vec<LaneId> = self.parked.keys().copied().collect();
        for lane in lanes {
            while let Some(shipped) = self.parked.get_mut(&lane).and_then(VecDeque::pop_front) {
                if !self.batch(&shipped)? {
                    self.parked.entry(lane).or_default().push_front(shipped);
                    break;
                }
            }
            self.parked.retain(|_, parked| !parked.is_empty());
        }
        if self.parked.is_empty() {
            self.parts.health.found_room(Full::OtherLanes);
        }
        Ok(())
    }

    fn fault(&self, peer: LaneId, why: &str) {
        self.fault_of(peer, FAULT_POINTS, why);
    }

    fn fault_of(&self, peer: LaneId, points: u32, why: &str) {
        tracing::debug!(%peer, why, "a peer sent what no honest node sends");
        if let Some(net) = self.parts.net.get() {
            net.fault(peer, points, why);
        }
    }

    /// Gives credit back.
    fn give(&self, grant: Option<Grant>) {
        if let (Some((subscription, bytes)), Some(net)) = (grant, self.parts.net.get()) {
            net.grant(subscription, bytes);
        }
    }

    /// Whether the log of `lane` is too far ahead of what is applied.
    fn is_ahead(&mut self, lane: LaneId) -> bool {
        let size = self.parts.lanes.get(lane).map_or(0, LogReader::size);
        let applied = self.parts.confirm.applied(lane);
        let Some(ahead) = self.ahead.get_mut(&lane) else {
            return size.saturating_sub(applied) > super::ahead::POSITIONS_MAX;
        };
        ahead.is_too_far(size, applied)
    }

    fn witness(&mut self, peer: LaneId, message: Bytes) {
        let (confirm, chains) = (&self.parts.confirm, &self.parts.chains);
        let followed = |validator: u16| confirm.ask(|machine| machine.followed(usize::from(validator)));
        let known = |validator: u16, number: u64| {
            chains.recent(validator, number.saturating_sub(1), 1, usize::MAX).pop()
        };
        match self.gate.look(&message, followed, known, Instant::now()) {
            Seen::Nonsense(why) => self.fault(peer, why),
            Seen::Unsigned(validator) => {
                // Honest nodes verify what they serve; whoever does not costs this node a verification each time.
                let points = if validator == peer.0 { FAULT_POINTS } else { UNSIGNED_POINTS };
                self.fault_of(peer, points, "a witness that its validator has not signed");
            }
            Seen::Known | Seen::TooMany => {}
            Seen::New { validator, id, witness } => {
                let gap = witness.number > followed(validator).saturating_add(1);
                self.parts.chains.came(validator, id, message);
                let _ = self.parts.events.send(Event::Witness { validator, id, witness: Arc::new(witness) });
                if gap {
                    let _ = self.parts.fetch.send(FetchEvent::Gap { peer, validator });
                }
            }
        }
    }

    /// Takes a batch of a subscription; `false` if it has to wait for room on the disk.
    fn batch(&mut self, shipped: &Shipped) -> Result<bool, LogError> {
        let Shipped { peer, lane, subscription, batch } = shipped;
        let (peer, lane, subscription, bytes) = (*peer, *lane, *subscription, batch.len() as u64);
        // What an older one brought comes again by the newest, and of that it is known what it follows.
        let stream = self.streams.get(&(peer, lane)).filter(|stream| stream.subscription == subscription);
        let mut follows = None;
        let mut withhold = false;
        if let Some(stream) = stream.filter(|stream| !stream.dead) {
            let taken = if lane == self.parts.lanes.own() {
                self.own(batch)?
            } else {
                self.parts.stores.take(lane, batch, Some(stream.follows))?
            };
            match taken {
                Taken::Stored(digest) => {
                    follows = Some((digest.size(), *digest.root()));
                    let cuts = self.parts.lanes.get(lane).map_or(0, LogReader::cuts);
                    self.ahead.entry(lane).or_default().stored(cuts, digest.size(), bytes);
                    withhold = self.is_ahead(lane);
                    let _ = self.parts.events.send(Event::Stored(digest));
                    let _ = self.parts.dirty.try_send(());
                }
                Taken::Side(digest) => {
                    follows = Some((digest.size(), *digest.root()));
                    let _ = self.parts.events.send(Event::Side(digest));
                }
                Taken::Held(size, root) => follows = Some((size, root)),
                Taken::Full(room) => {
                    self.parts.health.found_full(Full::OtherLanes, room);
                    return Ok(false);
                }
                Taken::Stray => {}
                Taken::NotAuthentic(error) => self.fault(peer, &error.to_string()),
            }
            if follows.is_none() {
                let _ = self.parts.fetch.send(FetchEvent::Stray { lane, subscription });
            }
        }
        if let Some(stream) = self.streams.get_mut(&(peer, lane))
            && stream.subscription == subscription
        {
            match follows {
                Some(follows) => stream.follows = follows,
                None => stream.dead = true,
            }
        }
        if withhold {
            self.parts.credit.withhold(peer, lane, bytes);
        } else {
            self.give(self.parts.credit.consumed(peer, lane, bytes));
        }
        Ok(true)
    }

    /// Batches that may prove a fork, unless this peer has just shown some about this lane that led nowhere.
    fn proof(&mut self, peer: LaneId, lane: LaneId, batches: Vec<Bytes>) -> Result<(), LogError> {
        if self.proofs_after.get(&(peer, lane)).is_some_and(|after| *after > Instant::now()) {
            return Ok(());
        }
        self.look_at_proof(peer, lane, batches)
    }

    fn look_at_proof(&mut self, peer: LaneId, lane: LaneId, batches: Vec<Bytes>) -> Result<(), LogError> {
        let (mut nothing, mut later) = (false, false);
        for batch in &batches {
            let taken = if lane == self.parts.lanes.own() {
                self.own(batch)?
            } else {
                self.parts.stores.take(lane, batch, None)?
            };
            match taken {
                Taken::Stored(digest) => {
                    let _ = self.parts.events.send(Event::Stored(digest));
                    let _ = self.parts.dirty.try_send(());
                }
                Taken::Side(digest) => {
                    let _ = self.parts.events.send(Event::Side(digest));
                }
                Taken::Held(..) => {}
                Taken::Full(_) => later = true,
                Taken::Stray => {
                    nothing = true;
                    let held = self.parts.lanes.get(lane).map_or(0, LogReader::size);
                    later |= BatchView::parse(batch).is_ok_and(|view| view.first() > held);
                }
                Taken::NotAuthentic(error) => {
                    nothing = true;
                    self.fault(peer, &error.to_string());
                }
            }
        }
        if nothing {
            self.proofs_after.insert((peer, lane), Instant::now() + PROOF_EVERY);
        }
        // Only what the lane's own node has signed twice is worth its room.
        let looked = (self.parts.lanes.get(lane).map_or(0, LogReader::size), Instant::now());
        let proof = Proof { peer, batches, looked };
        let kept: usize = self.proofs.values().map(Proof::bytes).sum();
        if later
            && !self.proofs.contains_key(&lane)
            && kept + proof.bytes() <= PROOFS_KEPT_BYTES
            && self.parts.stores.is_proof(lane, &proof.batches)
        {
            self.proofs.insert(lane, proof);
        }
        Ok(())
    }

    /// A proof of a fork without its batches. One about a lane costs two verifications, the next ones nothing.
    fn forked(&self, peer: LaneId, proof: &Bytes) {
        let Ok(proof) = ForkProof::decode(proof) else {
            return self.fault(peer, "what it says is a proof of a fork is none");
        };
        let lane = proof.lane;
        if self.parts.forks.has(lane) {
            return;
        }
        let key = self.parts.keys.get(usize::from(lane.0)).filter(|_| proof.network == self.parts.network);
        let verify = |key: &NodeKey, text: &[u8], signature: &_| {
            weft_crypto::serial::verify_one(&key.0, text, signature)
        };
        if key.is_none_or(|key| proof.verify(key, verify).is_err()) {
            return self.fault(peer, "its proof of a fork does not hold");
        }
        if lane == self.parts.lanes.own() {
            let cause = "another node has proof that this node's lane was signed two ways: its directory was restored from an older \
                         copy, or runs twice; this key must not sign again";
            tracing::error!(cause, "this node stops taking messages");
            return self.parts.health.set_state(State::Poisoned, Some(cause.to_owned()));
        }
        let _ = self.parts.events.send(Event::Proven(Box::new(proof)));
    }

    /// A batch of the own lane from elsewhere. If this node has signed it and does not have it, its directory is a copy or an old one.
    /// The seal comes first: nobody else can make one, so nobody can make this node read its log for nothing.
    fn own(&self, batch: &Bytes) -> Result<Taken, LogError> {
        let own = self.parts.lanes.own();
        let (Some(reader), Some(key)) = (self.parts.lanes.get(own), self.parts.keys.get(usize::from(own.0)))
        else {
            return Ok(Taken::Stray);
        };
        let view = match BatchView::parse(batch) {
            Ok(view) => view,
            Err(error) => return Ok(Taken::NotAuthentic(error)),
        };
        if view.lane() != own || view.network() != self.parts.network {
            return Ok(Taken::NotAuthentic(BatchError::Lane { got: view.lane().0, limit: own.0 }));
        }
        let seal = view.verify_seal(key, |key, text, signature| {
            weft_crypto::serial::verify_one(&key.0, text, signature)
        });
        if let Err(error) = seal {
            return Ok(Taken::NotAuthentic(error));
        }
        let (size, root) = (view.size(), *view.root());
        if let Some(held) = reader.batch_ending_at(size)?
            && held.view().is_ok_and(|held| *held.root() == root)
        {
            // The seal is of a batch that is here; another body under it is somebody else's.
            let same = held.first == view.first();
            return Ok(if same { Taken::Held(size, root) } else { Taken::NotAuthentic(BatchError::Root) });
        }
        if view.first() > 0 && reader.batch_ending_at(view.first())?.is_none() {
            return Ok(Taken::Stray);
        }
        let Some(before) = reader.tree_at(view.first())? else { return Ok(Taken::Stray) };
        let ids = view.ids_by(fastest());
        if view.check_hashes().is_ok() && view.check_root_of(&before, &ids, fastest()).is_ok() {
            let cause = format!(
                "another node has a batch of this node's lane at position {} that this node has signed and does not have: its \
                 directory was restored from an older copy, or runs twice; this key must not sign again",
                view.first()
            );
            tracing::error!(%cause, "this node stops taking messages");
            self.parts.health.set_state(State::Poisoned, Some(cause));
        }
        Ok(Taken::Stray)
    }
}

#[cfg(test)]
mod tests;
