//! Who is asked for what: subscriptions to lanes, chains of witnesses, what is told to peers about holdings; and whether this node is up
//! to date.
//!
//! Owns these decisions, in one thread. Rules: a lane is taken from its own node while that is connected; from another holder when it is
//! not, or when nothing comes although somebody has more; and from one holder after the other while what is held of it is not certified and
//! nothing moves, since they may hold another history. Every second peers are told what is held here and durable, so that what was
//! lost between any two nodes is asked for again (anti-entropy). A node is *joining* until it has heard from a quorum what they hold of
//! its own lane, or long enough: it must not append to a lane that it has forgotten the end of. It is *catching up* while final is coming
//! back after a start, or a peer has much more of a lane.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use weft_core::LaneId;
use weft_core::confirm::Weights;
use weft_net::peer::{Hold, Holdings, LaneEnd, PeerNet, SubscriptionId};
use weft_storage::LogReader;

use crate::confirm::Confirm;
use crate::health::{Health, State};
use crate::lanes::Lanes;

/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(50);

/// How often peers are told what is held here.
const HOLDINGS_EVERY: Duration = Duration::from_secs(1);

/// A subscription that brings nothing for this long although somebody has more is given up.
const STALLED: Duration = Duration::from_secs(1);

/// A lane of which a subscription has just ended is asked for again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A lane that is held beyond what is certified, and does not move for this long, is asked for of one holder after the other: two of them
/// may have been given two histories, each as long as the other.
const STUCK: Duration = Duration::from_secs(2);

/// The same for a lane that is known to be signed two ways: what was lost of a side is asked for again, but not often.
const STUCK_CLOSED: Duration = Duration::from_secs(10);

/// The same when what came was of no use: it would come again.
const AGAIN_AFTER_STRAY: Duration = Duration::from_secs(1);

/// A chain that is behind a peer's for this long is asked for: usually the stream brings it.
const CHAIN_LATE: Duration = Duration::from_millis(300);

/// Credit asked for of a lane: a batch of the usual longest, and the next ones on their way.
const CREDIT_BYTES: u64 = 8 << 20;

/// Longest wait for word of a quorum before this node takes messages all the same.
const JOIN_WAIT: Duration = Duration::from_secs(5);

/// Longest wait for a peer to show what it claims to have of this node's lane: long enough for any honest one.
const CLAIM_WAIT: Duration = Duration::from_secs(30);

/// Positions that a peer has more of a lane for this node to be catching up: some seconds of a busy lane.
pub const LAG_POSITIONS: u64 = 1 << 20;

/// What the fetcher is told.
#[derive(Debug)]
pub enum FetchEvent {
    /// A peer is there.
    Connected(LaneId),
    /// A peer is gone.
    Disconnected(LaneId),
    /// What a peer holds.
    Holdings(LaneId, Holdings, Hold),
    /// A subscription is over.
    Over {
        /// Of whom.
        peer: LaneId,
        /// Of what.
        lane: LaneId,
        /// Which.
        subscription: SubscriptionId,
    },
    /// What a subscription brings follows nothing that is here.
    Stray {
        /// Of what.
        lane: LaneId,
        /// Which.
        subscription: SubscriptionId,
    },
    /// A witness came whose predecessor is missing.
    Gap {
        /// From whom.
        peer: LaneId,
        /// Whose.
        validator: u16,
    },
    /// A part of a chain has come.
    ChainDone {
        /// From whom.
        peer: LaneId,
        /// Whose.
        validator: u16,
        /// Whether there may be more.
        more: bool,
    },
    /// End.
    Stop,
}

/// A subscription in force.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    peer: LaneId,
    id: SubscriptionId,
    /// Size of the log when it last grew, and when that was.
    size: u64,
    grew: Instant,
}

/// The fetcher.
#[derive(Debug)]
pub struct Fetcher {
    lanes: Lanes,
    confirm: Arc<Confirm>,
    health: Arc<Health>,
    net: Arc<OnceLock<PeerNet>>,
    weights: Weights,
    connected: BTreeSet<LaneId>,
    holdings: BTreeMap<LaneId, Holdings>,
    subscriptions: BTreeMap<LaneId, Subscription>,
    /// Not before: a lane whose subscription has just ended.
    again: BTreeMap<LaneId, Instant>,
    /// What was held and certified of each lane when that last moved, when that was, and whom it is taken from in turn.
    moved: BTreeMap<LaneId, ((u64, u64), Instant, LaneId)>,
    /// Number followed of each validator when that last moved, and when that was.
    followed: Vec<(u64, Instant)>,
    /// Peers that have said what they hold.
    heard: BTreeSet<LaneId>,
    started: Instant,
    told: Option<Instant>,
    joined: bool,
}

impl Fetcher {
    /// A fetcher that has heard of nobody.
    pub fn new(
        lanes: Lanes,
        confirm: Arc<Confirm>,
        health: Arc<Health>,
        net: Arc<OnceLock<PeerNet>>,
        weights: Weights,
    ) -> Self {
        let now = Instant::now();
        Self {
            followed: vec![(0, now); weights.len()],
            lanes,
            confirm,
            health,
            net,
            weights,
            connected: BTreeSet::new(),
            holdings: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            moved: BTreeMap::new(),
            again: BTreeMap::new(),
            heard: BTreeSet::new(),
            started: now,
            told: None,
            joined: false,
        }
    }

    /// The fetcher's life: until it is stopped.
    pub fn run(mut self, events: &Receiver<FetchEvent>) {
        loop {
            match events.recv_timeout(TICK) {
                Ok(FetchEvent::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Ok(event) = events.try_recv() {
                if matches!(event, FetchEvent::Stop) {
                    return;
                }
                self.take(event);
            }
            let Some(net) = self.net.get().cloned() else { continue };
            let now = Instant::now();
            self.subscribe(&net, now);
            self.ask_for_chains(&net, now);
            if self.told.is_none_or(|told| now.duration_since(told) >= HOLDINGS_EVERY) {
                self.told = Some(now);
                net.send_holdings(None, &self.own_holdings());
            }
            self.judge_state(now);
        }
    }

    fn take(&mut self, event: FetchEvent) {
        let net = self.net.get().cloned();
        match event {
            FetchEvent::Connected(peer) => {
                self.connected.insert(peer);
                self.again.clear();
                if let Some(net) = net {
                    net.send_holdings(Some(peer), &self.own_holdings());
                }
            }
            FetchEvent::Disconnected(peer) => {
                self.connected.remove(&peer);
                self.holdings.remove(&peer);
                self.subscriptions.retain(|_, subscription| subscription.peer != peer);
            }
            FetchEvent::Holdings(peer, holdings, _hold) => {
                self.heard.insert(peer);
                self.holdings.insert(peer, holdings);
            }
            FetchEvent::Over { lane, subscription, .. } => self.give_up(lane, subscription, AGAIN_AFTER),
            FetchEvent::Stray { lane, subscription } => {
                self.give_up(lane, subscription, AGAIN_AFTER_STRAY);
            }
            FetchEvent::Gap { peer, validator } | FetchEvent::ChainDone { peer, validator, more: true } => {
                if let Some(net) = net {
                    let after = self.confirm.ask(|machine| machine.followed(usize::from(validator)));
                    let known = self.holdings.get(&peer).and_then(|held| of(&held.followed, validator));
                    // After a part that has come the driver may not have followed all of it yet: the next look will tell.
                    if known.is_none_or(|known| known > after) {
                        let _ = net.want_witnesses(peer, validator, after);
                    }
                }
            }
            FetchEvent::ChainDone { .. } | FetchEvent::Stop => {}
        }
    }

    /// A subscription is over, or brings nothing that is of use.
    fn give_up(&mut self, lane: LaneId, subscription: SubscriptionId, again_after: Duration) {
        if self.subscriptions.get(&lane).is_some_and(|held| held.id == subscription) {
            self.subscriptions.remove(&lane);
            self.again.insert(lane, Instant::now() + again_after);
            if let Some(net) = self.net.get() {
                net.unsubscribe(subscription);
            }
        }
    }

    /// What this node holds durably.
    fn own_holdings(&self) -> Holdings {
        let end = |reader: &LogReader| {
            let batch = reader.batch_ending_at(reader.durable_size()).ok()??;
            let root = *batch.view().ok()?.root();
            Some((reader.lane(), LaneEnd { size: batch.size, root }))
        };
        let followed = self.confirm.ask(|machine| {
            let number = |validator: u16| (validator, machine.followed(usize::from(validator)));
            (0..self.weights.len() as u16).map(number).filter(|(_, number)| *number > 0).collect()
        });
        Holdings { lanes: self.lanes.readers().iter().filter_map(end).collect(), followed }
    }

    /// How much `peer` has said to have of `lane`.
    fn held_by(&self, peer: LaneId, lane: LaneId) -> u64 {
        let held = self.holdings.get(&peer).and_then(|held| of(&held.lanes, lane));
        held.map_or(0, |end| end.size)
    }

    /// The connected peer that has most of `lane`, and how much.
    fn most(&self, lane: LaneId) -> Option<(u64, LaneId)> {
        self.connected.iter().map(|peer| (self.held_by(*peer, lane), *peer)).max()
    }

    /// Whom to ask next of a lane that is stuck, if it is.
    fn next_holder(&mut self, lane: LaneId, size: u64, now: Instant) -> Option<LaneId> {
        let marks = self.confirm.marks(lane);
        let state = (size, marks.certified);
        let entry = self.moved.entry(lane).or_insert((state, now, lane));
        if entry.0 != state {
            (entry.0, entry.1) = (state, now);
        }
        let patience = if self.confirm.ask(|machine| machine.is_closed(lane)) { STUCK_CLOSED } else { STUCK };
        if lane == self.lanes.own() || size <= marks.certified || now.duration_since(entry.1) < patience {
            return None;
        }
        entry.1 = now;
        let (before, certified) = (entry.2, marks.certified);
        let holds = |peer: &LaneId| self.held_by(*peer, lane) > certified;
        let after = self.connected.range(before..).filter(|peer| **peer != before);
        let next = after.chain(self.connected.iter()).copied().find(holds)?;
        if let Some(entry) = self.moved.get_mut(&lane) {
            entry.2 = next;
        }
        Some(next)
    }

    fn subscribe(&mut self, net: &PeerNet, now: Instant) {
        for index in 0..self.lanes.readers().len() {
            let Some(reader) = self.lanes.readers().get(index) else { continue };
            let (lane, size) = (reader.lane(), reader.size());
            if let Some(next) = self.next_holder(lane, size, now) {
                if let Some(held) = self.subscriptions.remove(&lane) {
                    net.unsubscribe(held.id);
                }
                self.start(net, lane, Some(next), now);
                continue;
            }
            let most = self.most(lane).filter(|(held, _)| *held > size);
            if let Some(held) = self.subscriptions.get_mut(&lane) {
                if size != held.size {
                    (held.size, held.grew) = (size, now);
                    continue;
                }
                // Nothing new, and nobody has more, or it has only just come to a halt.
                let Some((_, other)) = most.filter(|_| now.duration_since(held.grew) >= STALLED) else {
                    continue;
                };
                let stalled = held.id;
                let other = if other == held.peer { None } else { Some(other) };
                net.unsubscribe(stalled);
                self.subscriptions.remove(&lane);
                self.start(net, lane, other.or(most.map(|most| most.1)), now);
                continue;
            }
            if self.again.get(&lane).is_some_and(|again| *again > now) {
                continue;
            }
            let chosen = if lane == self.lanes.own() {
                // Only when somebody claims to have more of it than this node has.
                most.map(|most| most.1)
            } else if self.connected.contains(&lane) {
                Some(lane)
            } else {
                most.map(|most| most.1)
            };
            self.start(net, lane, chosen, now);
        }
    }

    fn start(&mut self, net: &PeerNet, lane: LaneId, peer: Option<LaneId>, now: Instant) {
        let Some(peer) = peer else { return };
        let ends = self.locator(lane);
        self.again.insert(lane, now + AGAIN_AFTER);
        if let Ok(id) = net.subscribe(peer, lane, ends, CREDIT_BYTES) {
            let size = self.lanes.get(lane).map_or(0, LogReader::size);
            self.subscriptions.insert(lane, Subscription { peer, id, size, grew: now });
        }
    }

    /// Ends of the lane here, from the log's end down; the machine may not have all of the log yet.
    fn locator(&self, lane: LaneId) -> Vec<LaneEnd> {
        let end = self.lanes.get(lane).and_then(|reader| {
            let batch = reader.batch_ending_at(reader.size()).ok()??;
            let root = *batch.view().ok()?.root();
            Some(LaneEnd { size: batch.size, root })
        });
        let ends = self.confirm.ask(|machine| machine.locator(lane));
        end.into_iter().chain(ends.into_iter().map(|(size, root)| LaneEnd { size, root })).collect()
    }

    /// Asks for chains that peers have followed further for a while.
    fn ask_for_chains(&mut self, net: &PeerNet, now: Instant) {
        for validator in 0..self.weights.len() as u16 {
            let number = self.confirm.ask(|machine| machine.followed(usize::from(validator)));
            let Some(slot) = self.followed.get_mut(usize::from(validator)) else { continue };
            if slot.0 != number {
                *slot = (number, now);
                continue;
            }
            if now.duration_since(slot.1) < CHAIN_LATE {
                continue;
            }
            let further = self.connected.iter().copied().find(|peer| {
                let held = self.holdings.get(peer).and_then(|held| of(&held.followed, validator));
                held.is_some_and(|held| held > number)
            });
            if let Some(peer) = further {
                slot.1 = now;
                let _ = net.want_witnesses(peer, validator, number);
            }
        }
    }

    /// Whether this node has joined, and is up to date.
    fn judge_state(&mut self, now: Instant) {
        let state = self.health.state();
        if !self.joined {
            let own = usize::from(self.lanes.own().0);
            let heard = self.heard.iter().map(|peer| self.weights.of(usize::from(peer.0))).sum::<u64>();
            let enough = self.weights.is_quorum(heard + self.weights.of(own));
            let late = now.duration_since(self.started) >= JOIN_WAIT;
            // Somebody's claim to have more of the own lane is looked into first.
            let own_size = self.lanes.get(self.lanes.own()).map_or(0, LogReader::size);
            let claimed = self.most(self.lanes.own()).is_some_and(|(held, _)| held > own_size);
            let unproven = now.duration_since(self.started) >= CLAIM_WAIT;
            if (!enough && !late) || (claimed && !unproven) {
                return;
            }
            if !enough {
                tracing::warn!(
                    "no quorum of nodes has said what it holds of this node's lane; taking messages all the same"
                );
            }
            self.joined = true;
        }
        let behind = self.lanes.readers().iter().any(|reader| {
            let lane = reader.lane();
            let known = self.most(lane).map_or(0, |most| most.0).max(reader.size());
            lane != self.lanes.own() && known.saturating_sub(self.confirm.applied(lane)) > LAG_POSITIONS
        });
        let wanted = if behind || self.confirm.is_restoring() { State::CatchingUp } else { State::Live };
        // A full disk, a failure and the end are not this thread's to change.
        if matches!(state, State::Joining | State::CatchingUp | State::Live) && state != wanted {
            tracing::info!(from = state.name(), to = wanted.name(), "the node's state changes");
            self.health.change_state(state, wanted);
        }
    }
}

fn of<K: Ord + Copy, V: Copy>(list: &[(K, V)], key: impl Into<K>) -> Option<V> {
    let key = key.into();
    list.binary_search_by_key(&key, |entry| entry.0).ok().and_then(|at| list.get(at)).map(|entry| entry.1)
}
