//! Moving the watermarks: certified, shown, final; and what becoming final settles.
//!
//! Owns when they move. Invariants: a watermark is computed anew only when enough weight has gone beyond it, or when the
//! copy has changed, so a round costs O(validators x lanes) however many batches it has; final moves over what is applied
//! only. How votes below final are counted is left to [`settle`](super::settle).

use alloc::vec::Vec;

use super::digest::PlacedWitness;
use super::io::Effect;
use super::lane_copy::OperationVotes;
use super::machine::Machine;
use super::rules::{Rule, Rules};
use super::transfer::Operation;
use crate::ids::{LaneId, Place};

impl<R: Rules> Machine<R> {
    /// Moves the watermarks of a lane as far as what is counted lets them.
    pub(crate) fn mark(&mut self, index: usize, effects: &mut Vec<Effect>) {
        let (weights, lane) = (&self.setup.weights, &self.lanes[index]);
        let certifies = weights.certifies(lane.ahead_cut, &self.rules)
            || weights.amplifies(lane.ahead_third, &self.rules);
        if certifies || weights.is_quorum(lane.ahead_final) {
            let before = lane.certified;
            self.recompute(index);
            if self.lanes[index].certified > before && self.lanes[index].fork.is_some() {
                // A closed lane may be applied up to there.
                self.queue.insert(index);
            }
        }
        let lane = &mut self.lanes[index];
        let id = LaneId(index as u16);
        let shown = lane.certified.min(lane.applied);
        if shown > lane.shown {
            let material = lane.between(lane.shown, shown).any(|entry| entry.batch.is_material());
            lane.shown = shown;
            self.statement.certified(index, material);
            effects.push(Effect::Certified { lane: id, size: shown });
        }
        let lane = &mut self.lanes[index];
        let level = if self.rules.weakens(Rule::CiteCertified) { lane.certified } else { lane.final_level };
        let target = level.min(lane.applied);
        if lane.entries.front().is_some_and(|entry| entry.batch.size() <= target) {
            self.finalize(index, target, effects);
        }
    }

    /// Computes a lane's watermarks anew: O(V log V), when they move and when the copy has changed.
    pub(crate) fn recompute(&mut self, index: usize) {
        let (weights, rules, lanes) = (&self.setup.weights, &self.rules, self.setup.lanes);
        let counts = &self.counts;
        let of = |validator: usize| &counts[validator * lanes + index];
        let cuts = (0..weights.len()).map(|validator| of(validator).cut);
        let certified = (0..weights.len()).map(|validator| of(validator).certified);
        let scratch = &mut self.scratch;
        let cut = weights.level(cuts.clone(), scratch, |weight| weights.certifies(weight, rules));
        let third = weights.level(certified.clone(), scratch, |weight| weights.amplifies(weight, rules));
        let all = weights.level(certified.clone(), scratch, |weight| weights.is_quorum(weight));
        let lane = &mut self.lanes[index];
        let floor = lane.final_size;
        lane.certified = cut.max(third).min(lane.held()).max(floor);
        lane.final_level = all.min(lane.held()).max(floor);
        let ahead = |sizes: &mut dyn Iterator<Item = u64>, mark: u64| {
            sizes.enumerate().filter(|(_, size)| *size > mark).map(|(at, _)| weights.of(at)).sum()
        };
        lane.ahead_cut = ahead(&mut cuts.clone(), lane.certified);
        lane.ahead_third = ahead(&mut certified.clone(), lane.certified);
        lane.ahead_final = ahead(&mut certified.clone(), lane.final_level);
    }

    /// Moves final to `target` and settles what that settles.
    fn finalize(&mut self, index: usize, target: u64, effects: &mut Vec<Effect>) {
        let lanes = self.setup.lanes;
        while self.lanes[index].entries.front().is_some_and(|entry| entry.batch.size() <= target) {
            let Some(entry) = self.lanes[index].finalize_next() else { break };
            if self.rules.weakens(Rule::FinalByPrefix) {
                for placed in entry.batch.operations() {
                    self.settle(index, placed.position, effects);
                }
            }
            let Some(placed) = entry.batch.witness().filter(|_| index < self.chains.len()) else { continue };
            self.count_in_lane(index, placed, effects);
        }
        for validator in 0..self.chains.len() {
            let mut accepted = Vec::new();
            self.in_lane[validator * lanes + index].grow(
                validator,
                &mut self.lanes[index],
                &self.setup.weights,
                &mut accepted,
            );
            accepted.into_iter().for_each(|position| self.settle(index, position, effects));
            self.counts[validator * lanes + index].prune(&self.lanes[index]);
        }
        self.sweep(index);
        let size = self.lanes[index].final_size;
        self.restoring.retain(|(lane, wanted)| *lane != index || *wanted > size);
        if self.restoring.is_empty() {
            self.queue.append(&mut self.restore_waits);
        }
        let waiting = core::mem::take(&mut self.waits[index]);
        self.queue.extend(waiting);
        if self.lanes[index].fork.is_some() {
            self.statement.state_again(index);
        }
        effects.push(Effect::Final { lane: LaneId(index as u16), size });
    }

    /// A validator's witness has become final in its own lane.
    fn count_in_lane(&mut self, validator: usize, placed: &PlacedWitness, effects: &mut Vec<Effect>) {
        let lanes = self.setup.lanes;
        let number = placed.position;
        let known = |lane: LaneId| Some(usize::from(lane.0)).filter(|lane| *lane < lanes);
        for rejects in &placed.witness.rejects {
            if let Some(lane) = known(rejects.lane) {
                self.in_lane[validator * lanes + lane].reject(&rejects.positions, number, &self.lanes[lane]);
            }
        }
        for claim in placed.witness.cut.iter().chain(&placed.witness.cut_again) {
            let Some(lane) = known(claim.lane) else { continue };
            let mut accepted = Vec::new();
            self.in_lane[validator * lanes + lane].claim(
                (claim.size, claim.root, number),
                validator,
                &mut self.lanes[lane],
                &self.setup.weights,
                &mut accepted,
            );
            accepted.into_iter().for_each(|position| self.settle(lane, position, effects));
        }
    }

    /// An operation is final.
    fn settle(&mut self, index: usize, position: u64, effects: &mut Vec<Effect>) {
        let Some(votes) = self.lanes[index].operations.remove(&position) else { return };
        let (place, operation) = (Place::new(LaneId(index as u16), position), votes.operation);
        effects.push(Effect::Settled { place, operation });
        if !self.rules.weakens(Rule::LedgerAtLevelOne) {
            self.enter(operation, effects);
        }
    }

    pub(crate) fn enter(&mut self, operation: Operation, effects: &mut Vec<Effect>) {
        let entered = self.ledger.settle(operation);
        for operation in &entered {
            for account in [&operation.account, &operation.to] {
                self.queue.extend(self.ledger_waits.remove(account).unwrap_or_default());
            }
        }
        effects.extend(entered.into_iter().map(Effect::Entered));
    }

    /// Lets go of final operations that nothing depends on: their sequence is in the ledger, or so much weight rejects them
    /// below final for good that no later vote can accept them.
    fn sweep(&mut self, index: usize) {
        let (weights, ledger, in_lane) = (&self.setup.weights, &self.ledger, &self.in_lane);
        let own = self.own_ends_from(index);
        let lanes = self.setup.lanes;
        let lane = &mut self.lanes[index];
        let accepts_no_more = |position: u64, votes: &OperationVotes| {
            let left = |rejecting| weights.total().saturating_sub(rejecting);
            if weights.is_quorum(left(votes.final_rejecting_weight)) {
                return false;
            }
            let for_good = |validator: &usize| {
                votes.final_rejecting.contains(*validator)
                    && !votes.final_accepting.contains(*validator)
                    && in_lane[validator * lanes + index].rejects_for_good(position)
            };
            let rejecting = (0..weights.len()).filter(for_good).map(|validator| weights.of(validator)).sum();
            !weights.is_quorum(left(rejecting))
        };
        let below = lane.operations.range(..lane.final_size);
        let dead: Vec<u64> = below
            .filter(|(position, votes)| {
                ledger.has_passed(&votes.operation) || accepts_no_more(**position, votes)
            })
            .map(|(position, _)| *position)
            .collect();
        for position in dead {
            lane.operations.remove(&position);
        }
        lane.prune_ends(own);
    }
}
