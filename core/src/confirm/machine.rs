//! The confirmation state machine of one node: `handle(now, input) -> effects`.
//!
//! Owns the state of all lanes and validators as this node knows them, and the order of the gates. Invariants: no
//! I/O, clock or randomness; one input order gives one state; nothing that a peer sends makes it panic or grow
//! beyond the constants of its parts; time per batch and per witness, not per data message. What must be durable
//! before what leaves is said at [`Effect`]. Left to others: fetching and shipping batches and witnesses, hashing
//! and verifying, sealing and signing (the node); making witnesses ([`state`](super::state)).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::count::{Count, Kind, Stated};
use super::digest::BatchDigest;
use super::gates::Awaited;
use super::io::{Effect, Input, Setup, Watermarks};
use super::lane_copy::{Fit, Form, LaneCopy};
use super::ledger::Ledger;
use super::rules::{Rule, Rules, Strict};
use super::settle::InLane;
use super::state::Statement;
use super::transfer::Operation;
use super::votes::Votes;
use super::witness::{Claim, Witness};
use crate::ids::{DeviceKey, LaneId, MessageId, Place};
use crate::merkle::Hash;

/// Ids of followed witnesses that are remembered per validator, to recognise a second one with the same number.
/// What is older need not be given to the machine.
pub const RECENT_IDS_MAX: usize = 64;

/// One validator's witnesses, as far as they are followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    pub(crate) number: u64,
    /// Id of the last one; of one's own it is not known before it was signed.
    pub(crate) last: Option<MessageId>,
    recent: VecDeque<(u64, MessageId)>,
    equivocated: bool,
}

impl Chain {
    fn follow(&mut self, number: u64, id: MessageId) {
        (self.number, self.last) = (number, Some(id));
        self.recent.push_back((number, id));
        if self.recent.len() > RECENT_IDS_MAX {
            self.recent.pop_front();
        }
    }

    /// Id that the next witness has to name.
    pub(crate) fn predecessor(&self) -> Option<MessageId> {
        if self.number == 0 { Some(MessageId([0; 32])) } else { self.last }
    }
}

/// Confirmation at one node.
#[derive(Clone, Debug)]
pub struct Machine<R = Strict> {
    pub(crate) rules: R,
    pub(crate) setup: Setup,
    pub(crate) lanes: Vec<LaneCopy>,
    /// By validator, then lane.
    pub(crate) counts: Vec<Count>,
    pub(crate) in_lane: Vec<InLane>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) ledger: Ledger,
    pub(crate) statement: Statement,
    /// Lanes to look at.
    pub(crate) queue: BTreeSet<usize>,
    /// For each lane: lanes that wait for it to become final further.
    pub(crate) waits: Vec<BTreeSet<usize>>,
    /// Lanes that wait for an account, by account; and what each lane has waited for last.
    pub(crate) ledger_waits: BTreeMap<DeviceKey, BTreeSet<usize>>,
    pub(crate) awaited: Vec<Option<Awaited>>,
    /// Lanes that wait until a restarted validator may judge.
    pub(crate) restore_waits: BTreeSet<usize>,
    /// After a restart: how far final was before it. Nothing is judged before it is there again.
    pub(crate) restoring: Vec<(usize, u64)>,
    pub(crate) scratch: Vec<(u64, u64)>,
}

impl Machine<Strict> {
    /// A node at the start of the ledger.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self::with_rules(setup, Strict)
    }
}

impl<R: Rules> Machine<R> {
    /// A node at the start of the ledger, under `rules`.
    #[must_use]
    pub fn with_rules(setup: Setup, rules: R) -> Self {
        let (validators, lanes) = (setup.weights.len(), setup.lanes);
        Self {
            rules,
            lanes: alloc::vec![LaneCopy::default(); lanes],
            counts: alloc::vec![Count::default(); validators * lanes],
            in_lane: alloc::vec![InLane::default(); validators * lanes],
            chains: alloc::vec![Chain::default(); validators],
            ledger: Ledger::new(&setup.balances),
            statement: Statement::new(lanes),
            queue: BTreeSet::new(),
            waits: alloc::vec![BTreeSet::new(); lanes],
            ledger_waits: BTreeMap::new(),
            awaited: alloc::vec![None; lanes],
            restore_waits: BTreeSet::new(),
            restoring: Vec::new(),
            scratch: Vec::with_capacity(validators),
            setup,
        }
    }

    /// A validator after a restart, with the votes that were durable. The shell then gives the stored batches of all
    /// lanes in order, says that they are durable, and goes on as if nothing had happened.
    #[must_use]
    pub fn restore(setup: Setup, rules: R, votes: &Votes) -> Self {
        let mut machine = Self::with_rules(setup, rules);
        machine.ledger.restore_locks(&votes.locks);
        machine.statement.restore(votes);
        let finals = votes.lanes.iter().map(|lane| lane.final_size).enumerate();
        machine.restoring = finals.filter(|(lane, size)| *size > 0 && *lane < machine.lanes.len()).collect();
        machine
    }

    /// Takes one input; appends what is to be done to `effects`. `now_us` is the node's clock, microseconds from any
    /// fixed moment, never going back.
    pub fn handle(&mut self, now_us: u64, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Batch(batch) => self.take_batch(batch, effects),
            Input::Formed { lane, first, root, well_formed } => {
                self.formed(lane, first, &root, well_formed);
            }
            Input::Durable { lane, size } => self.durable(lane, size),
            Input::Witness { validator, id, witness } => {
                self.follow(usize::from(validator), id, &witness, effects);
            }
            Input::Forked { lane, at } => self.close(usize::from(lane.0), at),
            Input::Tick => self.tick(now_us, effects),
        }
        self.run(effects);
    }

    // ---------- what can be asked

    /// How far `lane` is.
    #[must_use]
    pub fn watermarks(&self, lane: LaneId) -> Option<Watermarks> {
        self.lanes.get(usize::from(lane.0)).map(|lane| Watermarks {
            final_size: lane.final_size,
            certified: lane.shown,
            applied: lane.applied,
            held: lane.held(),
        })
    }

    /// Root of the copy held of `lane` at `size`: for the end of a batch beyond final, or final itself.
    #[must_use]
    pub fn root_at(&self, lane: LaneId, size: u64) -> Option<&Hash> {
        self.lanes.get(usize::from(lane.0))?.root_at(size)
    }

    /// Ends of batches that this node holds of `lane`, for whoever has more of it: it looks for the highest one that
    /// its own copy has and sends what follows. The newest ends first, closely and then ever further apart, final
    /// last; then the same of other sides after a fork.
    #[must_use]
    pub fn locator(&self, lane: LaneId) -> Vec<(u64, Hash)> {
        let Some(lane) = self.lanes.get(usize::from(lane.0)) else { return Vec::new() };
        let mut ends = Vec::new();
        let mut back = 0;
        while let Some(entry) = lane.entries.len().checked_sub(1 + back).and_then(|at| lane.entries.get(at)) {
            ends.push((entry.batch.size(), *entry.batch.root()));
            back = if back < 8 { back + 1 } else { back * 2 };
        }
        ends.push((lane.final_size, lane.final_root));
        for side in &lane.sides {
            let mut back = 0;
            while let Some(batch) =
                side.batches.len().checked_sub(1 + back).and_then(|at| side.batches.get(at))
            {
                ends.push((batch.size(), *batch.root()));
                back = if back < 8 { back + 1 } else { back * 2 };
            }
        }
        ends
    }

    /// Whether another batch of `lane` is taken: held batches are bounded by number and memory. What is refused meanwhile has
    /// to be given again once final has moved, and a node without room in its own lane appends nothing.
    #[must_use]
    pub fn has_room(&self, lane: LaneId) -> bool {
        self.lanes.get(usize::from(lane.0)).is_some_and(LaneCopy::has_room)
    }

    /// Whether `lane` was signed two ways.
    #[must_use]
    pub fn is_closed(&self, lane: LaneId) -> bool {
        self.lanes.get(usize::from(lane.0)).is_some_and(|lane| lane.fork.is_some())
    }

    /// How much of the copy of `lane` this node was told is durable: what is above it and durable has to be told, since no more than what
    /// is held is taken.
    #[must_use]
    pub fn durable_size(&self, lane: LaneId) -> u64 {
        self.lanes.get(usize::from(lane.0)).map_or(0, |lane| lane.durable)
    }

    /// Number of the last witness followed of `validator`: from here on it is asked for.
    #[must_use]
    pub fn followed(&self, validator: usize) -> u64 {
        self.chains.get(validator).map_or(0, |chain| chain.number)
    }

    /// Balances and locks.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether this node may append the operation to its lane: it would accept it and has seen no other one.
    #[must_use]
    pub fn may_append(&self, operation: &Operation) -> bool {
        self.restoring.is_empty() && self.ledger.may_append(operation, &self.rules)
    }

    /// Whether final is still coming back after a restart: until then no operation is judged.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        !self.restoring.is_empty()
    }

    /// Who votes and who this is.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    // ---------- inputs

    fn take_batch(&mut self, batch: Arc<BatchDigest>, effects: &mut Vec<Effect>) {
        let index = usize::from(batch.lane().0);
        let Some(lane) = self.lanes.get_mut(index) else { return };
        match lane.fit(&batch) {
            Fit::Next if lane.ended.is_none() => {
                lane.append(Arc::clone(&batch));
                self.recheck(index, effects);
                self.queue.insert(index);
                // The lane carries its validator's chain too, under the seal of the same key: what the stream has lost,
                // and after a restart everything, is followed here. It does not wait for the other gates, since final
                // may need these claims to move.
                if let Some(placed) = batch.witness().filter(|_| index < self.chains.len()) {
                    self.follow(index, placed.id, &placed.witness, effects);
                }
            }
            Fit::Next | Fit::Held | Fit::Stray => (),
            fit @ (Fit::Fork(_) | Fit::Side(_)) => {
                let fork = match fit {
                    Fit::Fork(at) => lane.entry_at(at).map(|entry| (at, Arc::clone(&entry.batch))),
                    _ => None,
                };
                lane.add_to_side(Arc::clone(&batch), fit);
                if let Some((at, held)) = fork {
                    // One proof is enough: whoever signs a lane two ways may sign it a thousand ways.
                    if !core::mem::replace(&mut self.lanes[index].fork_told, true) {
                        effects.push(Effect::Forked { held, other: batch });
                    }
                    self.close(index, at);
                }
                self.try_switch(index, effects);
            }
        }
    }

    /// The lane is signed two ways from `at` on.
    fn close(&mut self, index: usize, at: u64) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.fork = Some(lane.fork.map_or(at, |known| known.min(at)));
        self.statement.state_again(index);
        self.queue.insert(index);
    }

    fn formed(&mut self, lane: LaneId, first: u64, root: &Hash, well_formed: bool) {
        let index = usize::from(lane.0);
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let Some(entry) = lane.entry_at_mut(first).filter(|entry| entry.batch.root() == root) else { return };
        if entry.form != Form::Asked {
            return;
        }
        entry.form = if well_formed { Form::Good } else { Form::Bad };
        self.queue.insert(index);
    }

    fn durable(&mut self, lane: LaneId, size: u64) {
        let index = usize::from(lane.0);
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.durable = lane.durable.max(size.min(lane.held()));
        self.statement.moved(index);
    }

    /// Follows a witness if it is the next one of its chain.
    pub(crate) fn follow(
        &mut self,
        validator: usize,
        id: MessageId,
        witness: &Arc<Witness>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(chain) = self.chains.get_mut(validator) else { return };
        let own = self.setup.validator() == Some(validator);
        if own && witness.number > self.statement.number {
            if !self.rules.weakens(Rule::Amnesia) {
                if !self.statement.silent {
                    self.statement.silent = true;
                    effects.push(Effect::Silenced { number: witness.number });
                }
                return;
            }
            self.statement.number = witness.number;
        }
        if own && witness.number == chain.number && chain.last.is_none() {
            // The witness stated last, signed by now. It was counted when it was stated.
            chain.follow(witness.number, id);
            effects.push(Effect::Followed { validator: validator as u16, number: witness.number, id });
            return;
        }
        if witness.number <= chain.number {
            let other = chain.recent.iter().any(|(number, known)| *number == witness.number && *known != id);
            if other && !chain.equivocated {
                chain.equivocated = true;
                effects.push(Effect::Equivocated { validator: validator as u16, number: witness.number });
            }
            if other && own && !self.statement.silent && !self.rules.weakens(Rule::Amnesia) {
                // Its key signs elsewhere too, or it has forgotten what it has signed.
                self.statement.silent = true;
                effects.push(Effect::Silenced { number: witness.number });
            }
            return;
        }
        if witness.number != chain.number + 1 || chain.predecessor() != Some(witness.predecessor) {
            return;
        }
        chain.follow(witness.number, id);
        effects.push(Effect::Followed { validator: validator as u16, number: witness.number, id });
        self.count_witness(validator, witness, effects);
    }

    // ---------- counting

    pub(crate) fn count_witness(&mut self, validator: usize, witness: &Witness, effects: &mut Vec<Effect>) {
        let number = witness.number;
        for rejects in &witness.rejects {
            let index = usize::from(rejects.lane.0);
            let Some(lane) = self.lanes.get(index) else { continue };
            self.counts[validator * self.setup.lanes + index].reject(&rejects.positions, number, lane);
        }
        let again = !self.rules.weakens(Rule::NoRestating);
        let lists = [
            (Kind::Cut, &witness.cut, false),
            (Kind::Certified, &witness.certified, false),
            (Kind::Cut, &witness.cut_again, true),
            (Kind::Certified, &witness.certified_again, true),
        ];
        for (kind, claims, stated_again) in lists {
            if stated_again && !again {
                continue;
            }
            for claim in claims {
                self.count_claim(validator, kind, claim, number, stated_again, effects);
            }
        }
        // Each lane once: looking at its sides costs as much as all claims on it.
        let has_sides = |index: &usize| self.lanes.get(*index).is_some_and(|lane| !lane.sides.is_empty());
        let named = lists.iter().flat_map(|(_, claims, _)| claims.iter());
        let named: BTreeSet<usize> = named.map(|claim| usize::from(claim.lane.0)).filter(has_sides).collect();
        for index in named {
            self.try_switch(index, effects);
        }
    }

    fn count_claim(
        &mut self,
        validator: usize,
        kind: Kind,
        claim: &Claim,
        number: u64,
        again: bool,
        effects: &mut Vec<Effect>,
    ) {
        let index = usize::from(claim.lane.0);
        let Some(lane) = self.lanes.get(index) else { return };
        let check = kind == Kind::Cut || !self.rules.weakens(Rule::UncheckedRoots);
        let count = &mut self.counts[validator * self.setup.lanes + index];
        let stated = Stated { size: claim.size, root: claim.root, number };
        let counted = if again {
            count.state_again(kind, stated, lane)
        } else {
            count.state(kind, stated, lane, check)
        };
        if let Some(claim) = counted {
            self.counted(validator, index, kind, claim, effects);
        }
    }

    /// A validator's count moves to `claim`.
    fn counted(
        &mut self,
        validator: usize,
        index: usize,
        kind: Kind,
        claim: Stated,
        effects: &mut Vec<Effect>,
    ) {
        let weights = &self.setup.weights;
        let weight = weights.of(validator);
        let lane = &mut self.lanes[index];
        let count = &mut self.counts[validator * self.setup.lanes + index];
        let passes = |from: u64, mark: u64| from <= mark && claim.size > mark;
        match kind {
            Kind::Cut => {
                let from = core::mem::replace(&mut count.cut, claim.size);
                if passes(from, lane.certified) {
                    lane.ahead_cut += weight;
                }
                let mut accepted = Vec::new();
                for (position, votes) in lane.operations.range_mut(from..claim.size) {
                    votes.covered += weight;
                    if count.rejects(*position, claim.number) {
                        votes.rejecting += weight;
                    } else {
                        votes.accepting += weight;
                    }
                    let reached = if self.rules.weakens(Rule::UncoveredAccepts) {
                        weights.is_quorum(votes.covered)
                            && weights.is_quorum(weights.total() - votes.rejecting)
                    } else {
                        weights.is_quorum(votes.accepting)
                    };
                    if reached && !votes.accepted {
                        votes.accepted = true;
                        accepted.push((*position, votes.operation));
                    }
                }
                for (position, operation) in accepted {
                    let place = Place::new(LaneId(index as u16), position);
                    effects.push(Effect::Accepted { place, operation });
                    if self.rules.weakens(Rule::LedgerAtLevelOne) {
                        self.enter(operation, effects);
                    }
                }
            }
            Kind::Certified => {
                let from = core::mem::replace(&mut count.certified, claim.size);
                if passes(from, lane.certified) {
                    lane.ahead_third += weight;
                }
                if passes(from, lane.final_level) {
                    lane.ahead_final += weight;
                }
            }
        }
        self.queue.insert(index);
    }

    /// The copy of a lane has grown or changed: takes the claims that it can check now.
    fn recheck(&mut self, index: usize, effects: &mut Vec<Effect>) {
        let check = !self.rules.weakens(Rule::UncheckedRoots);
        for validator in 0..self.chains.len() {
            let at = validator * self.setup.lanes + index;
            if !self.counts[at].waits_below(self.lanes[index].held()) {
                continue;
            }
            while let Some((kind, claim)) = self.counts[at].recheck(&self.lanes[index], check) {
                self.counted(validator, index, kind, claim, effects);
            }
        }
    }

    /// Changes the copy if a side has a certified prefix beyond where they part.
    fn try_switch(&mut self, index: usize, effects: &mut Vec<Effect>) {
        if self.rules.weakens(Rule::NoSwitch) && self.setup.validator().is_some() {
            return;
        }
        let (weights, rules, lanes) = (&self.setup.weights, &self.rules, self.setup.lanes);
        let mut found = None;
        for (at, side) in self.lanes[index].sides.iter().enumerate() {
            let reached: Vec<(u64, u64)> = (0..weights.len())
                .map(|validator| self.counts[validator * lanes + index].on_side(side))
                .collect();
            let cut = weights.level(reached.iter().map(|reached| reached.0), &mut self.scratch, |weight| {
                weights.certifies(weight, rules)
            });
            let third = weights.level(reached.iter().map(|reached| reached.1), &mut self.scratch, |weight| {
                weights.amplifies(weight, rules)
            });
            if cut.max(third) > side.from || rules.weakens(Rule::EagerSwitch) {
                found = Some(at);
                break;
            }
        }
        let Some(at) = found else { return };
        let (from, dropped) = self.lanes[index].switch(at);
        self.statement.leave_side(index, from);
        for validator in 0..self.chains.len() {
            self.counts[validator * self.setup.lanes + index].leave_side(from);
        }
        if self.setup.validator().is_some() {
            effects.push(Effect::Persist(self.votes()));
        }
        let batches =
            self.lanes[index].between(from, u64::MAX).map(|entry| Arc::clone(&entry.batch)).collect();
        effects.push(Effect::Switched { lane: LaneId(index as u16), from, batches });
        drop(dropped);
        self.recompute(index);
        self.recheck(index, effects);
        self.queue.insert(index);
    }
}
