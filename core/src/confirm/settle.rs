//! Settling operations: the count over only those witnesses that lie below final in their own validators' lanes,
//! and only prefixes below final. A pure function of the final cut, computed as the cut grows.
//!
//! Owns, per validator and lane, the claims of its witnesses below final that reach beyond final, and its rejects.
//! The function: of the witnesses of validator v below final, in the order of its lane, the first whose claim
//! (its cut, or a cut stated again) on lane l is a final prefix and covers position p fixes v's vote on p: accept,
//! unless p is rejected in that witness or before. Invariants: the set of accepted operations only grows with the
//! cut; witnesses that arrive in another grouping give the same set, so every auditor recomputes it from the lanes.
//!
//! Memory: per validator and lane at most [`CLAIMS_MAX`] claims and [`REJECTS_LANE_MAX`] rejects beyond final, plus those of the
//! batches that are applied and not final; a batch that would add more waits at the second gate, see
//! [`gates`](super::gates). Rejects below final stay as long as their operation is not settled, like its votes.

use alloc::collections::{BTreeMap, VecDeque};

use super::lane_copy::LaneCopy;
use super::quorum::Weights;
use crate::merkle::Hash;

/// Claims of one validator on one lane that are below final in its own lane and beyond final in the other, at most.
/// An honest validator states at most 256 batches beyond its final, and each twice more after a fork.
pub const CLAIMS_MAX: usize = 1_024;

/// Rejects of one validator on one lane that are below final in its own lane and beyond final in the other, at most. An honest
/// validator states at most [`REJECTS_OPEN_MAX`](super::state::REJECTS_OPEN_MAX) beyond its final, and as many again after a
/// restart, when it has to count anew.
pub const REJECTS_LANE_MAX: usize = 4 * super::state::REJECTS_OPEN_MAX;

/// A claim of a witness below final; `number` is the position of that witness in its lane.
#[derive(Clone, Copy, Debug)]
struct LaneClaim {
    size: u64,
    root: Hash,
    number: u64,
}

/// One validator's votes on one lane, as far as its lane is final.
#[derive(Clone, Debug, Default)]
pub(crate) struct InLane {
    /// How far a claim covers, and which witness covered that far.
    covered: u64,
    covered_by: u64,
    /// Claims beyond final.
    open: VecDeque<LaneClaim>,
    /// Position of each reject, and the witness that it first stood in.
    rejects: BTreeMap<u64, u64>,
}

impl InLane {
    /// Claims that wait for the lane to become final.
    pub(crate) fn open_claims(&self) -> usize {
        self.open.len()
    }

    /// Whether so many rejects wait for the lane to become final that no more are taken.
    pub(crate) fn is_full_of_rejects(&self, lane: &LaneCopy) -> bool {
        self.rejects.len() >= REJECTS_LANE_MAX
            && self.rejects.range(lane.final_size..).take(REJECTS_LANE_MAX).count() == REJECTS_LANE_MAX
    }

    /// Whether a reject of this position stands for good: no claim of a witness before it can still cover the position.
    pub(crate) fn rejects_for_good(&self, position: u64) -> bool {
        let first = self.rejects.get(&position);
        first.is_some_and(|first| self.open.iter().all(|claim| claim.number >= *first))
    }

    /// Takes the rejects of a witness below final, as far as they matter. They come before its claims.
    pub(crate) fn reject(&mut self, positions: &[u64], number: u64, lane: &LaneCopy) {
        for position in lane.rejectable(positions) {
            self.rejects.entry(position).or_insert(number);
        }
    }

    /// Takes a claim of a witness below final. Positions that it settles are put into `accepted`.
    pub(crate) fn claim(
        &mut self,
        (size, root, number): (u64, Hash, u64),
        validator: usize,
        lane: &mut LaneCopy,
        weights: &Weights,
        accepted: &mut alloc::vec::Vec<u64>,
    ) {
        let claim = LaneClaim { size, root, number };
        if size > lane.final_size {
            self.open.push_back(claim);
        } else {
            self.vote(claim, validator, lane, weights, accepted);
        }
    }

    /// The lane's final prefix has grown: takes the claims that are below it now.
    pub(crate) fn grow(
        &mut self,
        validator: usize,
        lane: &mut LaneCopy,
        weights: &Weights,
        accepted: &mut alloc::vec::Vec<u64>,
    ) {
        let limit = lane.final_size;
        if self.open.iter().any(|claim| claim.size <= limit) {
            let mut open = core::mem::take(&mut self.open);
            open.retain(|claim| {
                let within = claim.size <= limit;
                if within {
                    self.vote(*claim, validator, lane, weights, accepted);
                }
                !within
            });
            self.open = open;
        }
        if !self.rejects.is_empty() {
            // A reject below final is needed for as long as its operation is not settled.
            self.rejects.retain(|position, _| lane.may_be_rejected(*position));
        }
    }

    fn vote(
        &mut self,
        claim: LaneClaim,
        validator: usize,
        lane: &mut LaneCopy,
        weights: &Weights,
        accepted: &mut alloc::vec::Vec<u64>,
    ) {
        let later = claim.number > self.covered_by;
        // A claim that came earlier and could be checked only now fixes votes anew, with fewer rejects.
        let from = if later { self.covered } else { 0 };
        if claim.size <= from || lane.final_root_at(claim.size) != Some(&claim.root) {
            return;
        }
        let weight = weights.of(validator);
        for (position, votes) in lane.operations.range_mut(from..claim.size) {
            let rejected = self.rejects.get(position).is_some_and(|first| *first <= claim.number);
            if rejected {
                if votes.final_rejecting.insert(validator) {
                    votes.final_rejecting_weight += weight;
                }
            } else if votes.final_accepting.insert(validator) {
                votes.final_accepting_weight += weight;
                let before = votes.final_accepting_weight - weight;
                if weights.is_quorum(votes.final_accepting_weight) && !weights.is_quorum(before) {
                    accepted.push(*position);
                }
            }
        }
        if claim.size > self.covered {
            (self.covered, self.covered_by) = (claim.size, claim.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reject_stands_for_good_once_no_earlier_claim_waits() {
        let (mut votes, mut lane) = (InLane::default(), LaneCopy::default());
        let weights = Weights::new(alloc::vec![1]);
        let mut accepted = alloc::vec::Vec::new();
        assert!(!votes.rejects_for_good(3));
        votes.claim((9, [1; 32], 1), 0, &mut lane, &weights, &mut accepted);
        votes.reject(&[3], 2, &lane);
        // The claim of witness 1 may still cover position 3 without a reject.
        assert!(!votes.rejects_for_good(3));
        votes.claim((9, [1; 32], 2), 0, &mut lane, &weights, &mut accepted);
        lane.final_size = 9;
        votes.open.retain(|claim| claim.number >= 2);
        assert!(votes.rejects_for_good(3));
    }

    #[test]
    fn rejects_beyond_final_fill_a_validator_s_room_and_those_of_nothing_take_none() {
        let (mut votes, mut lane) = (InLane::default(), LaneCopy::default());
        let positions: alloc::vec::Vec<u64> = (0..REJECTS_LANE_MAX as u64).collect();
        votes.reject(&positions[1..], 1, &lane);
        assert!(!votes.is_full_of_rejects(&lane));
        votes.reject(&positions, 2, &lane);
        assert!(votes.is_full_of_rejects(&lane));
        // Final, and no operations there: nothing is kept.
        lane.final_size = 1 << 30;
        votes.grow(0, &mut lane, &Weights::new(alloc::vec![1]), &mut alloc::vec::Vec::new());
        votes.reject(&positions, 3, &lane);
        assert!(votes.rejects.is_empty());
    }
}
