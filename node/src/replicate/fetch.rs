//! Who is asked for what: subscriptions to lanes, chains of witnesses, what is told to peers about holdings; and whether this node is up
//! to date.
//!
//! Owns these decisions, in one thread. Rules: a lane is taken from its own node while that is connected; from another holder when it is
//! not, or when nothing comes although somebody has more ([`sources`]); and from one holder after the other while what is
//! held of it is not certified and nothing moves, since they may hold another history. A holder is not to blame for what this node does not
//! take: while its batches wait here, or for room, or its credit is kept back, nobody else is asked. Every second peers are told what is held
//! here and durable, so that what was lost between any two nodes is asked for again (anti-entropy). A node is *joining* until it has heard
//! from a quorum of others, or from all, what they hold of its own lane, or long enough: it must not append to a lane that it has forgotten the
//! end of; and until all who claim to have more of it were asked for it and nothing of it is on its way. It is *catching up* while final is coming back after a start, while it applies what
//! it has much of in its logs, or while a third of the weight says that a lane is much longer: what fewer say proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use weft_core::LaneId;
use weft_core::confirm::Weights;
use weft_net::peer::{Arrived, Hold, Holdings, LaneEnd, PeerNet, SubscriptionId};
use weft_storage::LogReader;

use super::credit::Credit;
use super::sources::{self, Question, Sources};
use super::store::Stores;
use crate::confirm::forks::KnownForks;
use crate::confirm::{Confirm, Fault};
use crate::health::{Health, State};
use crate::lanes::Lanes;

/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(50);

/// How often peers are told what is held here.
const HOLDINGS_EVERY: Duration = Duration::from_secs(1);

/// A subscription that brings nothing for this long, the first time, although somebody has more is given up, unless a batch is on its way.
const STALLED: Duration = Duration::from_secs(1);

/// A subscription that after this long has not brought what somebody else claimed to have when it began is given up, however much it brought:
/// the other one may be faster, and this one may be slow on purpose. Longer after a failure, as everything here: all links may be slow.
const SLOW: Duration = Duration::from_secs(10);

/// A holder whose batches wait here all that time is given up after this long without growth: what it sends is of no use.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// A lane of which a subscription has just ended is asked for again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A lane that is held beyond what is certified, and does not move for this long, is asked for of one holder after the other: two of them
/// may have been given two histories, each as long as the other.
const STUCK: Duration = Duration::from_secs(2);

/// The same for a lane that is known to be signed two ways: what was lost of a side is asked for again, but not often.
const STUCK_CLOSED: Duration = Duration::from_secs(10);

/// How long one batch on its way may keep a stuck lane from being asked for of another holder, the first time: one that sends just fast enough
/// would else keep it stuck for as long as the longest batch takes at the least rate, a quarter of an hour. It doubles each time, up to
/// that quarter of an hour: what has come of the batch is thrown away, and all links may be slow.
const STUCK_COMING: Duration = Duration::from_secs(60);

/// So often it doubles.
const STUCK_DOUBLES_MAX: u32 = 4;

/// The same when it came to nothing and nobody else has more: it would come to nothing again.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A chain that is behind a peer's for this long is asked for: usually the stream brings it.
const CHAIN_LATE: Duration = Duration::from_millis(300);

/// Longest wait for word of a quorum before this node takes messages all the same.
const JOIN_WAIT: Duration = Duration::from_secs(5);

/// Longest wait for a peer to show what it claims to have of this node's lane, once all who claim to have more were asked: long enough for
/// any honest one.
const CLAIM_WAIT: Duration = Duration::from_secs(30);

/// The same while something of it is on its way, however slowly: what comes may be the proof that this node has forgotten what it signed, and
/// may be sent by a liar who has all the time in the world.
const CLAIM_WAIT_MAX: Duration = Duration::from_secs(120);

/// Positions that a peer has more of a lane for this node to be catching up: some seconds of a busy lane.
pub const LAG_POSITIONS: u64 = 1 << 20;

/// What is in the log of a lane and is not applied is not being caught up on if nothing of it was applied for this long: it waits for
/// something that may never come.
const APPLIES_WITHIN: Duration = Duration::from_secs(10);

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
        /// Of what.
        lane: LaneId,
        /// Which.
        subscription: SubscriptionId,
        /// The connection was lost: nothing is said of the holder.
        lost: bool,
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

/// What is known of the progress of a lane.
#[derive(Clone, Copy, Debug)]
struct Moved {
    /// What was held and certified of it when that last moved.
    state: (u64, u64),
    /// When that was, or when somebody was last asked in vain.
    since: Instant,
    /// Whom it was taken from last, in turn.
    asked: LaneId,
    /// Batches on their way that were given up since.
    given_up: u32,
}

/// A subscription in force.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    peer: LaneId,
    id: SubscriptionId,
    /// Size of the log when it last grew, and when that was.
    size: u64,
    grew: Instant,
    /// Batches that had come by then.
    batches: u64,
    /// It has grown since the subscription began, which was then.
    grown: bool,
    since: Instant,
    /// What others claimed to have when the present stretch of [`SLOW`] began, and when that was.
    behind: (u64, Instant),
    /// It was begun for another history of a lane that did not move: what was certified of it then.
    stuck: Option<u64>,
}

/// The fetcher.
#[derive(Debug)]
pub struct Fetcher {
    lanes: Lanes,
    confirm: Arc<Confirm>,
    health: Arc<Health>,
    net: Arc<OnceLock<PeerNet>>,
    credit: Arc<Credit>,
    stores: Arc<Stores>,
    forks: KnownForks,
    weights: Weights,
    sources: Sources,
    connected: BTreeSet<LaneId>,
    holdings: BTreeMap<LaneId, Holdings>,
    subscriptions: BTreeMap<LaneId, Subscription>,
    /// Not before: a lane whose subscription has just ended.
    again: BTreeMap<LaneId, Instant>,
    moved: BTreeMap<LaneId, Moved>,
    /// Number followed of each validator when that last moved, when that was, and who was asked for more last.
    followed: Vec<(u64, Instant, LaneId)>,
    /// How far each lane was applied when that last moved, and when that was.
    applied: BTreeMap<LaneId, (u64, Instant)>,
    /// Peers that have said what they hold.
    heard: BTreeSet<LaneId>,
    started: Instant,
    told: Option<Instant>,
    joined: bool,
    /// The most that any peer has claimed before this node joined: of its own lane, and of its witnesses. A claim is not gone with the
    /// connection of whoever made it: it may be true, and the one peer that knows it hard to reach.
    claimed: (u64, u64),
    /// When something of the own lane was last on its way, before this node joined.
    came: Option<Instant>,
    /// In place of what a net would say has arrived.
    #[cfg(test)]
    arrived: Arrived,
}

impl Fetcher {
    /// A fetcher that has heard of nobody.
    pub fn new(
        lanes: Lanes,
        confirm: Arc<Confirm>,
        health: Arc<Health>,
        net: Arc<OnceLock<PeerNet>>,
        (credit, stores, forks): (Arc<Credit>, Arc<Stores>, KnownForks),
        weights: Weights,
    ) -> Self {
        let now = Instant::now();
        Self {
            followed: vec![(0, now, LaneId(0)); weights.len()],
            applied: BTreeMap::new(),
            credit,
            stores,
            forks,
            sources: Sources::default(),
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
            claimed: (0, 0),
            came: None,
            #[cfg(test)]
            arrived: Arrived::default(),
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
                    // What was found while it was away.
                    self.forks.all().iter().for_each(|proof| net.send_forked(Some(peer), proof));
                }
            }
            FetchEvent::Disconnected(peer) => {
                self.connected.remove(&peer);
                self.holdings.remove(&peer);
                let own = self.lanes.own();
                if self.subscriptions.get(&own).is_some_and(|held| held.peer == peer) {
                    // Asked, and gone.
                    self.sources.failed(own, peer, Instant::now());
                }
                self.subscriptions.retain(|lane, held| {
                    if held.peer == peer {
                        self.credit.over(peer, *lane, held.id);
                    }
                    held.peer != peer
                });
            }
            FetchEvent::Holdings(peer, holdings, _hold) => {
                self.heard.insert(peer);
                self.note_claim(&holdings);
                self.holdings.insert(peer, holdings);
            }
            FetchEvent::Over { lane, subscription, lost } => {
                let grown = self.subscriptions.get(&lane).is_some_and(|held| {
                    held.grown || self.lanes.get(lane).is_some_and(|reader| reader.size() != held.size)
                });
                // Whoever claims to have more of this node's lane and goes when it is asked for it has been asked.
                self.give_up(lane, subscription, !grown && (!lost || lane == self.lanes.own()));
            }
            FetchEvent::Stray { lane, subscription } => {
                self.give_up(lane, subscription, true);
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
    fn give_up(&mut self, lane: LaneId, subscription: SubscriptionId, failed: bool) {
        let Some(held) = self.subscriptions.get(&lane).filter(|held| held.id == subscription) else { return };
        let (peer, now) = (held.peer, Instant::now());
        let mut after = AGAIN_AFTER;
        if failed {
            self.sources.failed(lane, peer, now);
            let size = self.lanes.get(lane).map_or(0, LogReader::size);
            if !self.with(lane, size, now, |sources, question| sources.has_other(question, peer)) {
                after = AGAIN_AFTER_FAILURE;
            }
        }
        self.again.insert(lane, now + after);
        self.end(lane);
    }

    /// Ends the subscription to `lane`, if there is one.
    fn end(&mut self, lane: LaneId) {
        if let Some(held) = self.subscriptions.remove(&lane) {
            self.credit.over(held.peer, lane, held.id);
            if let Some(net) = self.net.get() {
                net.unsubscribe(held.id);
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

    /// Whom to ask next of a lane that is stuck, if it is.
    fn next_holder(&mut self, lane: LaneId, size: u64, now: Instant) -> Option<LaneId> {
        let marks = self.confirm.marks(lane);
        let state = (size, marks.certified);
        let fresh = Moved { state, since: now, asked: lane, given_up: 0 };
        let entry = self.moved.entry(lane).or_insert(fresh);
        if entry.state != state {
            *entry = Moved { asked: entry.asked, ..fresh };
        }
        let moved = *entry;
        let patience = if self.confirm.ask(|machine| machine.is_closed(lane)) { STUCK_CLOSED } else { STUCK };
        if lane == self.lanes.own() || size <= marks.certified || now.duration_since(moved.since) < patience {
            return None;
        }
        // Begun again with the same holder, a batch that is on its way would never come.
        let coming = self.subscriptions.get(&lane).copied().filter(|held| self.comes(held, now));
        let certified = marks.certified;
        let holds = |peer: &LaneId| {
            coming.is_none_or(|held| held.peer != *peer) && self.held_by(*peer, lane) > certified
        };
        let after = self.connected.range(moved.asked..).filter(|peer| **peer != moved.asked);
        let next = after.chain(self.connected.iter()).copied().find(holds)?;
        let limit = STUCK_COMING * (1 << moved.given_up.min(STUCK_DOUBLES_MAX));
        if coming.is_some_and(|held| now.duration_since(held.grew) < limit) {
            return None;
        }
        let given_up = moved.given_up + u32::from(coming.is_some());
        self.moved.insert(lane, Moved { asked: next, given_up, since: now, ..moved });
        Some(next)
    }

    /// What has come by a subscription so far.
    fn arrived(&self, id: SubscriptionId) -> Arrived {
        #[cfg(test)]
        if self.net.get().is_none() {
            return self.arrived;
        }
        self.net.get().map_or_else(Arrived::default, |net| net.arrived(id))
    }

    /// Whether the next batch of a subscription is on its way. Not if others came that made nothing grow.
    fn comes(&self, held: &Subscription, now: Instant) -> bool {
        let arrived = self.arrived(held.id);
        arrived.batches <= held.batches && sources::comes(arrived.bytes, now.duration_since(held.grew))
    }

    fn subscribe(&mut self, net: &PeerNet, now: Instant) {
        for index in 0..self.lanes.readers().len() {
            let Some(reader) = self.lanes.readers().get(index) else { continue };
            let (lane, size) = (reader.lane(), reader.size());
            if let Some(next) = self.next_holder(lane, size, now) {
                self.end(lane);
                let stuck = Some(self.confirm.marks(lane).certified);
                self.start(net, lane, next, stuck, now);
            } else if let Some((next, but)) = self.next_source(lane, size, now) {
                self.end(lane);
                let chosen = next.or_else(|| {
                    self.with(lane, size, now, |sources, question| sources.choose(question, but))
                });
                if let Some(chosen) = chosen {
                    self.start(net, lane, chosen, None, now);
                }
            }
        }
    }

    /// Asks what is known of sources of `lane`.
    fn with<T>(
        &mut self,
        lane: LaneId,
        size: u64,
        now: Instant,
        ask: impl FnOnce(&mut Sources, &Question<'_, &dyn Fn(LaneId) -> u64>) -> T,
    ) -> T {
        let holdings = &self.holdings;
        let claim = |peer: LaneId| {
            let held = holdings.get(&peer).and_then(|held| of(&held.lanes, lane));
            held.map_or(0, |end| end.size)
        };
        let own = lane == self.lanes.own();
        let question = Question {
            lane,
            own,
            size,
            connected: &self.connected,
            claim: &claim as &dyn Fn(LaneId) -> u64,
            now,
        };
        ask(&mut self.sources, &question)
    }

    /// Whether somebody else is to be asked for `lane` now: who, if that is settled, and who was asked in vain.
    fn next_source(
        &mut self,
        lane: LaneId,
        size: u64,
        now: Instant,
    ) -> Option<(Option<LaneId>, Option<LaneId>)> {
        let batches = self.subscriptions.get(&lane).map_or(0, |held| self.arrived(held.id).batches);
        let Some(held) = self.subscriptions.get_mut(&lane) else {
            return self.again.get(&lane).is_none_or(|again| *again <= now).then_some((None, None));
        };
        if size != held.size {
            (held.size, held.grew, held.grown, held.batches) = (size, now, true, batches);
            self.sources.served(lane, held.peer);
        }
        let certified = self.confirm.marks(lane).certified;
        // It moves again.
        held.stuck = held.stuck.filter(|then| certified == *then && size > certified);
        let held = *held;
        let (queued, withheld) = self.credit.waits(held.peer, lane);
        let idle = now.duration_since(held.grew);
        // What comes of the own lane takes no room.
        let full = lane != self.lanes.own() && self.health.full_elsewhere().is_some();
        let waits = withheld || (queued && idle < BUSY_MAX) || full;
        let (goes_home, others, is_further) = self.with(lane, size, now, |sources, question| {
            let others = sources.most_of_others(question, held.peer);
            let further = (question.claim)(held.peer) > size || others > size;
            (sources.goes_home(question, held.peer, held.since), others, further)
        });
        // A part of the own lane may be the proof of what this node has forgotten: once all who claim to have more were asked, it is waited for
        // as long as it comes at all.
        let looks = lane == self.lanes.own() && !self.joined;
        let proof = looks && self.own_lane_comes() && (others <= size || self.claimants().1);
        let patience = |usual| if proof { CLAIM_WAIT } else { self.sources.patience(lane, held.peer, usual) };
        let (stalled_after, slow_after) = (patience(STALLED), patience(SLOW));
        let stretch = now.duration_since(held.behind.1);
        let over = stretch >= slow_after;
        let slow = over && held.behind.0.min(others) > size;
        if let Some(held) = self.subscriptions.get_mut(&lane).filter(|_| waits || (over && !slow)) {
            held.behind = (others, now);
        }
        if held.stuck.is_some() || waits {
            return None;
        }
        let stalled = idle >= stalled_after && !self.comes(&held, now);
        if slow || (is_further && stalled) {
            self.sources.failed(lane, held.peer, now);
            return Some((None, Some(held.peer)));
        }
        (goes_home && now.duration_since(held.since) >= STALLED).then_some((Some(lane), None))
    }

    fn start(&mut self, net: &PeerNet, lane: LaneId, peer: LaneId, stuck: Option<u64>, now: Instant) {
        let ends = self.locator(lane);
        self.again.insert(lane, now + AGAIN_AFTER);
        if let Some(id) = self.credit.subscribe(peer, lane, |bytes| net.subscribe(peer, lane, ends, bytes)) {
            let size = self.lanes.get(lane).map_or(0, LogReader::size);
            let claimed =
                self.with(lane, size, now, |sources, question| sources.most_of_others(question, peer));
            let behind = (claimed, now);
            let (grew, since, batches, grown) = (now, now, 0, false);
            let held = Subscription { peer, id, size, grew, batches, grown, since, behind, stuck };
            self.subscriptions.insert(lane, held);
        } else if lane == self.lanes.own() {
            // Asked, as far as can be.
            self.sources.failed(lane, peer, now);
        }
    }

    /// Ends of the lane here, from the log's end down; the machine may not have all of the log yet. What follows an end has to find its place
    /// in the log or a side: where the machine has changed to what is not all here, it knows ends that are of no use.
    fn locator(&self, lane: LaneId) -> Vec<LaneEnd> {
        let end = self.lanes.get(lane).and_then(|reader| {
            let batch = reader.batch_ending_at(reader.size()).ok()??;
            let root = *batch.view().ok()?.root();
            Some(LaneEnd { size: batch.size, root })
        });
        let ends = self.confirm.ask(|machine| machine.locator(lane));
        let own = lane == self.lanes.own();
        let ends = ends.into_iter().filter(|(size, root)| own || self.stores.has_end(lane, *size, root));
        end.into_iter().chain(ends.map(|(size, root)| LaneEnd { size, root })).collect()
    }

    /// Asks for chains that peers have followed further for a while.
    fn ask_for_chains(&mut self, net: &PeerNet, now: Instant) {
        for validator in 0..self.weights.len() as u16 {
            let number = self.confirm.ask(|machine| machine.followed(usize::from(validator)));
            let Some(slot) = self.followed.get_mut(usize::from(validator)) else { continue };
            if slot.0 != number {
                (slot.0, slot.1) = (number, now);
                continue;
            }
            if now.duration_since(slot.1) < CHAIN_LATE {
                continue;
            }
            // In turn: who claims to have followed further may not show it.
            let last = slot.2;
            let after = self.connected.iter().filter(|peer| **peer > last);
            let further = after.chain(&self.connected).copied().find(|peer| {
                let held = self.holdings.get(peer).and_then(|held| of(&held.followed, validator));
                held.is_some_and(|held| held > number)
            });
            if let Some(peer) = further {
                (slot.1, slot.2) = (now, peer);
                let _ = net.want_witnesses(peer, validator, number);
            }
        }
    }

    /// Whether there is much of `lane` that this node has yet to get or to apply.
    fn lags(&mut self, lane: LaneId, size: u64, now: Instant) -> bool {
        let applied = self.confirm.applied(lane);
        let moved = self.applied.entry(lane).or_insert((applied, now));
        if moved.0 != applied {
            *moved = (applied, now);
        }
        let moves = now.duration_since(moved.1) < APPLIES_WITHIN;
        // A lane that is closed or has ended goes no further, whatever lies beyond.
        if self.confirm.faults(lane).iter().any(|fault| matches!(fault, Fault::Forked | Fault::Ended)) {
            return false;
        }
        let claim = |peer: &LaneId| (self.held_by(*peer, lane), self.weights.of(usize::from(peer.0)));
        is_behind(&self.weights, self.connected.iter().map(claim).collect(), size, applied, moves)
    }

    /// Whether a peer has claimed to have followed this validator further than it remembers to have gone.
    fn claims_own_witness(&self) -> bool {
        self.claimed.1 > self.confirm.ask(|machine| machine.votes().number)
    }

    /// Keeps in mind what a peer has claimed, until this node has joined: neither a connection that is lost nor another word of the same peer
    /// takes it back.
    fn note_claim(&mut self, holdings: &Holdings) {
        if self.joined {
            return;
        }
        let own = self.lanes.own();
        let size = of(&holdings.lanes, own).map_or(0, |end| end.size);
        let number = of(&holdings.followed, own.0).unwrap_or(0);
        self.claimed = (self.claimed.0.max(size), self.claimed.1.max(number));
    }

    /// Whether a part of what somebody has more of this node's own lane is on its way, or waits here.
    fn own_lane_comes(&self) -> bool {
        let own = self.lanes.own();
        self.subscriptions.get(&own).is_some_and(|held| {
            let (queued, withheld) = self.credit.waits(held.peer, own);
            queued || withheld || self.arrived(held.id).bytes > 0
        })
    }

    /// How many are there that claim to have more of this node's own lane, and whether all of them were asked for it.
    fn claimants(&self) -> (u32, bool) {
        let own = self.lanes.own();
        let own_size = self.lanes.get(own).map_or(0, LogReader::size);
        let claimants = self.connected.iter().filter(|peer| self.held_by(**peer, own) > own_size);
        claimants
            .fold((0, true), |(count, all), peer| (count + 1, all && self.sources.has_failed(own, *peer)))
    }

    /// Whether others have said enough of what they hold of this node's lane: a quorum without this node, which would not know what it has
    /// forgotten, or everybody with a vote. Any quorum that took part in what it did has an honest member in the first; where this node is the
    /// only one with a vote, everybody without one knows best.
    fn has_heard_enough(&self) -> bool {
        let heard = self.heard.iter().map(|peer| self.weights.of(usize::from(peer.0))).sum::<u64>();
        let others = || {
            self.lanes.readers().iter().map(|reader| reader.lane()).filter(|lane| *lane != self.lanes.own())
        };
        let votes = |lane: &LaneId| self.weights.of(usize::from(lane.0)) > 0;
        let alone = !others().any(|lane| votes(&lane));
        self.weights.is_quorum(heard)
            || others().filter(|lane| alone || votes(lane)).all(|lane| self.heard.contains(&lane))
    }

    /// Whether this node has joined, and is up to date.
    fn judge_state(&mut self, now: Instant) {
        let state = self.health.state();
        if !self.joined {
            let since = now.duration_since(self.started);
            let (enough, late) = (self.has_heard_enough(), since >= JOIN_WAIT);
            // Everybody's claim to have more of the own lane is looked into first.
            let own = self.lanes.own();
            let own_size = self.lanes.get(own).map_or(0, LogReader::size);
            if self.own_lane_comes() {
                self.came = Some(now);
            }
            let comes = self.came.is_some_and(|came| now.duration_since(came) < CLAIM_WAIT);
            let enough_time = if comes { CLAIM_WAIT_MAX } else { CLAIM_WAIT };
            let (claimants, asked_all) = self.claimants();
            // Each has its turn, and none more than that.
            let at_most = CLAIM_WAIT_MAX + SLOW * claimants;
            let claimed =
                self.claimed.0 > own_size && !(asked_all && since >= enough_time) && since < at_most;
            // So is a claim to know of a witness of this node that its votes do not: it leaves before its batch does, and may be all that
            // an older copy of the directory has forgotten. It is asked for as any chain is, and then this node is silent.
            let forgotten = !self.confirm.is_silenced() && since < CLAIM_WAIT && self.claims_own_witness();
            if (!enough && !late) || claimed || forgotten {
                return;
            }
            if !enough {
                tracing::warn!(
                    "no quorum of nodes has said what it holds of this node's lane; taking messages all the same"
                );
            }
            self.joined = true;
        }
        let mut behind = false;
        for index in 0..self.lanes.readers().len() {
            let Some(reader) = self.lanes.readers().get(index) else { continue };
            let (lane, size) = (reader.lane(), reader.size());
            behind |= lane != self.lanes.own() && self.lags(lane, size, now);
        }
        let wanted = if behind || self.confirm.is_restoring() { State::CatchingUp } else { State::Live };
        // A full disk, a failure and the end are not this thread's to change.
        if matches!(state, State::Joining | State::CatchingUp | State::Live) && state != wanted {
            tracing::info!(from = state.name(), to = wanted.name(), "the node's state changes");
            self.health.change_state(state, wanted);
        }
    }
}

/// Whether so much is missing that a node is catching up: `claims` are what peers of which weight say to have of a lane, `size` is in the
/// log here and `applied` of it applied; `moves` if more of it was applied lately.
fn is_behind(weights: &Weights, mut claims: Vec<(u64, u64)>, size: u64, applied: u64, moves: bool) -> bool {
    claims.sort_unstable_by(|left, right| right.cmp(left));
    let mut weight = 0u64;
    // One of a third is honest.
    let claimed = claims.into_iter().find_map(|(size, own)| {
        weight = weight.saturating_add(own);
        weights.is_third(weight).then_some(size)
    });
    let missing = claimed.unwrap_or(0).saturating_sub(size);
    missing > LAG_POSITIONS || (moves && size.saturating_sub(applied) > LAG_POSITIONS)
}

fn of<K: Ord + Copy, V: Copy>(list: &[(K, V)], key: impl Into<K>) -> Option<V> {
    let key = key.into();
    list.binary_search_by_key(&key, |entry| entry.0).ok().and_then(|at| list.get(at)).map(|entry| entry.1)
}

#[cfg(test)]
mod tests;
