//! What comes from peers, in one thread: witnesses and proofs first, then batches.
//!
//! Owns the order, and giving credit back. Invariants: nothing reaches the machine that was not verified here: a witness has the signature
//! of its validator, a batch is authentic; who sends what is not is faulted and nobody else. Credit comes back when a batch is in the log
//! or dropped, and later while the lane's log is far ahead of what is applied here: that bounds the disk that a lane takes which cannot
//! be applied.
//!
//! A batch of the own lane that is not in the own log means that this node has forgotten what it had signed: then it stops.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, select};
use weft_core::confirm::{RECENT_IDS_MAX, Witness};
use weft_core::{BatchView, LaneId, MessageView, NetworkId, NodeKey, PayloadKind};
use weft_net::peer::{Hold, PeerNet, SubscriptionId};
use weft_storage::LogError;

use super::chains::Chains;
use super::fetch::FetchEvent;
use super::store::{Stores, Taken};
use crate::confirm::Confirm;
use crate::confirm::driver::Event;
use crate::confirm::events::EventSender;
use crate::health::{Health, State};
use crate::lane::with_sources;
use crate::lanes::Lanes;

/// Positions of a lane that may be in its log and not applied: a gigabyte of messages of the usual length.
pub const AHEAD_POSITIONS_MAX: u64 = 1 << 22;

/// How often credit that was kept back is looked at.
const OWED_EVERY: Duration = Duration::from_millis(50);

/// Points of a fault for bytes that no honest node sends.
pub const FAULT_POINTS: u32 = 25;

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
        /// Room that they take.
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
    /// Wakes the sync.
    pub dirty: Sender<()>,
    /// Peers.
    pub net: Arc<OnceLock<PeerNet>>,
    /// The node's health.
    pub health: Arc<Health>,
}

impl Intake {
    /// The intake's life: until it is stopped, or a log fails.
    pub fn run(self, urgent: &Receiver<Urgent>, bulk: &Receiver<Shipped>) {
        let mut owed: BTreeMap<SubscriptionId, (LaneId, u64)> = BTreeMap::new();
        // Proofs about positions that are not here yet, one a lane.
        let mut proofs: BTreeMap<LaneId, (LaneId, Vec<Bytes>)> = BTreeMap::new();
        loop {
            let next = match urgent.try_recv() {
                Ok(urgent) => Some(Ok(urgent)),
                Err(_) => select! {
                    recv(urgent) -> message => message.ok().map(Ok),
                    recv(bulk) -> message => message.ok().map(Err),
                    default(OWED_EVERY) => {
                        self.pay(&mut owed);
                        continue;
                    }
                },
            };
            let done = match next {
                None | Some(Ok(Urgent::Stop)) => return,
                Some(Ok(Urgent::Witness { peer, message, hold })) => {
                    self.witness(peer, message);
                    drop(hold);
                    Ok(())
                }
                Some(Ok(Urgent::Proof { peer, lane, batches, hold })) => {
                    let done = self.proof(peer, lane, &batches);
                    drop(hold);
                    if matches!(done, Ok(false)) {
                        proofs.insert(lane, (peer, batches));
                    }
                    done.map(|_| ())
                }
                Some(Err(shipped)) => {
                    let (lane, bytes) = (shipped.lane, shipped.batch.len() as u64);
                    owed.entry(shipped.subscription).or_insert((lane, 0)).1 += bytes;
                    let done = self.batch(&shipped);
                    self.pay(&mut owed);
                    done.and_then(|()| match proofs.remove(&lane) {
                        Some((peer, batches)) => self.proof(peer, lane, &batches).map(|tried| {
                            if !tried {
                                proofs.insert(lane, (peer, batches));
                            }
                        }),
                        None => Ok(()),
                    })
                }
            };
            if let Err(error) = done {
                let cause = with_sources(&error);
                tracing::error!(%cause, "the log of another node's lane failed: nothing more is confirmed");
                self.health.set_state(State::Poisoned, Some(cause));
                // Whoever sends must not be held up.
                loop {
                    match urgent.recv_timeout(OWED_EVERY) {
                        Ok(Urgent::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                        _ => while bulk.try_recv().is_ok() {},
                    }
                }
            }
        }
    }

    fn fault(&self, peer: LaneId, why: &str) {
        tracing::debug!(%peer, why, "a peer sent what no honest node sends");
        if let Some(net) = self.net.get() {
            net.fault(peer, FAULT_POINTS, why);
        }
    }

    /// Gives credit back for lanes that are not too far ahead.
    fn pay(&self, owed: &mut BTreeMap<SubscriptionId, (LaneId, u64)>) {
        let Some(net) = self.net.get() else { return };
        owed.retain(|subscription, (lane, bytes)| {
            let held = self.lanes.get(*lane).map_or(0, weft_storage::LogReader::size);
            let ahead = held.saturating_sub(self.confirm.applied(*lane)) > AHEAD_POSITIONS_MAX;
            if !ahead {
                net.grant(*subscription, *bytes);
            }
            ahead
        });
    }

    fn witness(&self, peer: LaneId, message: Bytes) {
        let Ok(view) = MessageView::parse(&message) else {
            return self.fault(peer, "a witness that is no message");
        };
        let validator = self.keys.iter().take(self.validators).position(|key| key == view.issuer());
        let Some(validator) = validator.filter(|_| view.kind() == PayloadKind::WITNESS) else {
            return self.fault(peer, "a witness of nobody who votes");
        };
        // What was followed long ago needs no look: not even a second witness of that number would be recognised.
        let followed = self.confirm.ask(|machine| machine.followed(validator));
        if Witness::peek_number(view.payload())
            .is_some_and(|number| number.saturating_add(RECENT_IDS_MAX as u64) <= followed)
        {
            return;
        }
        let Ok(witness) = Witness::decode(view.payload()) else {
            return self.fault(peer, "a witness that says nothing");
        };
        let id = view.id();
        let valid = weft_crypto::serial::verify_one(&view.issuer().0, &id.0, view.signature());
        if !valid || view.network() != self.network {
            // Who passes on what lies in another's lane is not to blame for what is in it.
            if validator == usize::from(peer.0) {
                self.fault(peer, "a witness that its validator has not signed");
            }
            return;
        }
        // A genesis has at most 1,024 validators.
        let validator = validator as u16;
        let number = witness.number;
        self.chains.came(validator, id, message);
        let gap = number > followed.saturating_add(1);
        let _ = self.events.send(Event::Witness { validator, id, witness: Arc::new(witness) });
        if gap {
            let _ = self.fetch.send(FetchEvent::Gap { peer, validator });
        }
    }

    fn batch(&self, shipped: &Shipped) -> Result<(), LogError> {
        let Shipped { peer, lane, subscription, batch } = shipped;
        if *lane == self.lanes.own() {
            return self.own(batch);
        }
        match self.stores.take(*lane, batch)? {
            Taken::Stored(digest) => {
                let _ = self.events.send(Event::Stored(digest));
                let _ = self.dirty.try_send(());
            }
            Taken::Side(digest) => {
                let _ = self.events.send(Event::Side(digest));
            }
            Taken::Held => {}
            Taken::Stray => {
                let _ = self.fetch.send(FetchEvent::Stray { lane: *lane, subscription: *subscription });
            }
            Taken::NotAuthentic(error) => {
                self.fault(*peer, &error.to_string());
                let _ = self.fetch.send(FetchEvent::Stray { lane: *lane, subscription: *subscription });
            }
        }
        Ok(())
    }

    /// Batches that may prove a fork; `false` if that cannot be said yet, since the lane is not here so far.
    fn proof(&self, peer: LaneId, lane: LaneId, batches: &[Bytes]) -> Result<bool, LogError> {
        let mut all = true;
        for batch in batches {
            if lane == self.lanes.own() {
                self.own(batch)?;
                continue;
            }
            match self.stores.take(lane, batch)? {
                Taken::Stored(digest) => {
                    let _ = self.events.send(Event::Stored(digest));
                    let _ = self.dirty.try_send(());
                }
                Taken::Side(digest) => {
                    let _ = self.events.send(Event::Side(digest));
                }
                Taken::Held => {}
                Taken::Stray => {
                    let held = self.lanes.get(lane).map_or(0, weft_storage::LogReader::size);
                    all &= BatchView::parse(batch).is_ok_and(|view| view.first() < held);
                }
                Taken::NotAuthentic(error) => self.fault(peer, &error.to_string()),
            }
        }
        Ok(all)
    }

    /// A batch of the own lane from elsewhere. If this node has signed it and does not have it, its directory is a copy or an old one.
    fn own(&self, batch: &Bytes) -> Result<(), LogError> {
        let own = self.lanes.own();
        let (Some(reader), Some(key)) = (self.lanes.get(own), self.keys.get(usize::from(own.0))) else {
            return Ok(());
        };
        let Ok(view) = BatchView::parse(batch) else { return Ok(()) };
        let held = reader.batch_at(view.first())?;
        if held.is_some_and(|held| held.view().is_ok_and(|held| held.root() == view.root())) {
            return Ok(());
        }
        let Some(before) = reader.tree_at(view.first())? else { return Ok(()) };
        let ids = self.stores.ids(&view);
        let sound = view.check_hashes().is_ok()
            && view.check_root_of(&before, ids.into_iter()).is_ok()
            && view
                .verify_seal(key, |key, text, signature| {
                    weft_crypto::serial::verify_one(&key.0, text, signature)
                })
                .is_ok();
        if sound {
            let cause = format!(
                "another node has a batch of this node's lane at position {} that this node has signed and does not have: its \
                 directory was restored from an older copy, or runs twice; this key must not sign again",
                view.first()
            );
            tracing::error!(%cause, "this node stops taking messages");
            self.health.set_state(State::Poisoned, Some(cause));
        }
        Ok(())
    }
}
