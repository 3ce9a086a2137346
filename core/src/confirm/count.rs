//! Counting the followed chains: how far each validator's cut and certified cut reach on this node's own copy.
//!
//! Owns, per validator and lane, two counted sizes, the claims that cannot be checked yet, and the rejects. Rules
//! (design, section 4): a (size, root) counts when the own copy has that root at that size; of those beyond the
//! copy the oldest and the newest are kept, besides those stated again after a fork; what was counted stays counted,
//! but for a side that the copy has left. Invariants: counted sizes are ends of batches of the copy and never above
//! it; memory per validator and lane is bounded by [`AGAIN_MAX`] and [`REJECTS_MAX`].

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::lane_copy::{LaneCopy, Side};
use crate::merkle::{EMPTY_ROOT, Hash};

/// Claims of one validator and lane that were stated again after a fork, kept until they are below final: an honest
/// validator states at most 256 batches twice, and as many again when it has changed its copy. 50 bytes each.
pub const AGAIN_MAX: usize = 1_024;

/// Rejects of one validator and lane that are kept, at most: 40 bytes each, and a witness of 16 KiB can name 130,000. Between the
/// first and the last one beyond that everything counts as rejected by that validator, at level 1 only.
pub const REJECTS_MAX: usize = 2 * super::state::REJECTS_OPEN_MAX;

/// Which watermark a claim moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cut,
    Certified,
}

/// A (size, root), and the number of the witness that stated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stated {
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) number: u64,
}

const NOTHING: Stated = Stated { size: 0, root: EMPTY_ROOT, number: 0 };

/// Claims beyond the copy: the oldest and the newest.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    oldest: Option<Stated>,
    newest: Option<Stated>,
}

impl Waiting {
    fn push(&mut self, claim: Stated) {
        if self.oldest.is_none() {
            self.oldest = Some(claim);
        } else {
            self.newest = Some(claim);
        }
    }

    /// Takes a claim that lies within `size`, oldest first.
    fn take(&mut self, size: u64) -> Option<Stated> {
        if self.oldest.is_some_and(|claim| claim.size <= size) {
            let taken = self.oldest;
            self.oldest = self.newest.take();
            return taken;
        }
        if self.newest.is_some_and(|claim| claim.size <= size) {
            return self.newest.take();
        }
        None
    }

    fn iter(&self) -> impl Iterator<Item = &Stated> {
        self.oldest.iter().chain(&self.newest)
    }
}

/// What only forked lanes and rejected operations need.
#[derive(Clone, Debug, Default)]
struct Rare {
    again: Vec<(Kind, Stated)>,
    /// Position of each reject, and the witness that it first stood in.
    rejects: BTreeMap<u64, u64>,
    /// Between these two everything counts as rejected.
    rejects_all: Option<(u64, u64)>,
}

/// What one validator has said of one lane.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    /// Size that its cut reaches on the own copy.
    pub(crate) cut: u64,
    /// The same for its certified cut.
    pub(crate) certified: u64,
    /// Its claims in force, counted or not.
    latest: [Stated; 2],
    waiting: [Waiting; 2],
    rare: Option<Box<Rare>>,
}

impl Default for Count {
    fn default() -> Self {
        Self { cut: 0, certified: 0, latest: [NOTHING; 2], waiting: [Waiting::default(); 2], rare: None }
    }
}

impl Count {
    /// Notes rejects of witness `number`, of positions beyond final and of operations that are not settled.
    pub(crate) fn reject(&mut self, positions: &[u64], number: u64, lane: &LaneCopy) {
        let rare = self.rare.get_or_insert_default();
        let mut positions = lane.rejectable(positions);
        while rare.rejects.len() < REJECTS_MAX {
            let Some(position) = positions.next() else { return };
            rare.rejects.entry(position).or_insert(number);
        }
        // Of the others only the first and the last make a difference, however many they are.
        let is_new = |position: &u64| !rare.rejects.contains_key(position);
        let Some(first) = positions.find(is_new) else { return };
        let last = positions.rfind(is_new).unwrap_or(first);
        let (from, to) = rare.rejects_all.unwrap_or((first, last));
        rare.rejects_all = Some((from.min(first), to.max(last)));
    }

    /// Whether `position` stands rejected in witness `number` or before.
    pub(crate) fn rejects(&self, position: u64, number: u64) -> bool {
        let Some(rare) = &self.rare else { return false };
        rare.rejects.get(&position).is_some_and(|first| *first <= number)
            || rare.rejects_all.is_some_and(|(from, to)| (from..=to).contains(&position))
    }

    /// Takes a claim of a followed witness; what it adds to the copy's count, if anything.
    pub(crate) fn state(
        &mut self,
        kind: Kind,
        claim: Stated,
        lane: &LaneCopy,
        check: bool,
    ) -> Option<Stated> {
        self.latest[kind as usize] = claim;
        if claim.size > lane.held() {
            self.waiting[kind as usize].push(claim);
            return None;
        }
        self.offer(kind, claim, lane, check)
    }

    /// Takes a claim stated again after a fork.
    pub(crate) fn state_again(&mut self, kind: Kind, claim: Stated, lane: &LaneCopy) -> Option<Stated> {
        if claim.size <= lane.final_size {
            return None;
        }
        let rare = self.rare.get_or_insert_default();
        let known = rare
            .again
            .iter()
            .any(|(known, held)| *known == kind && held.size == claim.size && held.root == claim.root);
        if !known && rare.again.len() < AGAIN_MAX {
            rare.again.push((kind, claim));
        }
        self.offer(kind, claim, lane, true)
    }

    /// The claim, if the copy has its root and it reaches beyond what is counted.
    fn offer(&self, kind: Kind, claim: Stated, lane: &LaneCopy, check: bool) -> Option<Stated> {
        let counted = match kind {
            Kind::Cut => self.cut,
            Kind::Certified => self.certified,
        };
        let fits = claim.size > counted
            && claim.size <= lane.held()
            && (!check || lane.root_at(claim.size) == Some(&claim.root));
        fits.then_some(claim)
    }

    /// The next claim that the grown copy can check. Called until it gives none.
    pub(crate) fn recheck(&mut self, lane: &LaneCopy, check: bool) -> Option<(Kind, Stated)> {
        let held = lane.held();
        for kind in [Kind::Cut, Kind::Certified] {
            while let Some(claim) = self.waiting[kind as usize].take(held) {
                let check = check || kind == Kind::Cut;
                if let Some(claim) = self.offer(kind, claim, lane, check) {
                    return Some((kind, claim));
                }
            }
        }
        let again = self.rare.as_ref().map_or(&[][..], |rare| &rare.again);
        again
            .iter()
            .find_map(|(kind, claim)| self.offer(*kind, *claim, lane, true).map(|claim| (*kind, claim)))
    }

    /// Whether a copy of `size` lets some claim be checked that could not be before.
    pub(crate) fn waits_below(&self, size: u64) -> bool {
        let waits = |waiting: &Waiting| waiting.iter().any(|claim| claim.size <= size);
        self.waiting.iter().any(waits) || self.rare.as_ref().is_some_and(|rare| !rare.again.is_empty())
    }

    /// How far cut and certified cut reach on another history.
    pub(crate) fn on_side(&self, side: &Side) -> (u64, u64) {
        let mut reached = [self.cut.min(side.from), self.certified.min(side.from)];
        let again = self.rare.as_ref().map_or(&[][..], |rare| &rare.again);
        let kinds = [Kind::Cut, Kind::Certified];
        let waiting = kinds.into_iter().flat_map(|kind| {
            let claims = self.waiting[kind as usize].iter().chain([&self.latest[kind as usize]]);
            claims.map(move |claim| (kind, *claim))
        });
        for (kind, claim) in waiting.chain(again.iter().copied()) {
            if side.root_at(claim.size) == Some(&claim.root) {
                let reached = &mut reached[kind as usize];
                *reached = claim.size.max(*reached);
            }
        }
        (reached[0], reached[1])
    }

    /// The copy has changed beyond `from`: only what was counted up to there stays. The claims in force are checked
    /// again by [`recheck`](Self::recheck).
    pub(crate) fn leave_side(&mut self, from: u64) {
        self.cut = self.cut.min(from);
        self.certified = self.certified.min(from);
        for kind in [Kind::Cut, Kind::Certified] {
            let latest = self.latest[kind as usize];
            let waiting = &mut self.waiting[kind as usize];
            if latest.size > from && waiting.iter().all(|claim| claim.number != latest.number) {
                waiting.newest = None;
                waiting.push(latest);
            }
        }
    }

    /// Final has moved: nothing below it is asked for any more.
    pub(crate) fn prune(&mut self, lane: &LaneCopy) {
        let Some(rare) = &mut self.rare else { return };
        rare.again.retain(|(_, claim)| claim.size > lane.final_size);
        rare.rejects.retain(|position, _| lane.may_be_rejected(*position));
        let matters = |(from, to): &(u64, u64)| {
            *to >= lane.final_size || lane.operations.range(*from..=*to).next().is_some()
        };
        rare.rejects_all = rare.rejects_all.filter(matters);
        if rare.again.is_empty() && rare.rejects.is_empty() && rare.rejects_all.is_none() {
            self.rare = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_beyond_those_that_are_kept_count_from_the_first_to_the_last_one() {
        let (mut lane, most) = (LaneCopy::default(), REJECTS_MAX as u64);
        lane.final_size = 10;
        let mut count = Count::default();
        let even: Vec<u64> = (0..most + 100).map(|at| 2 * at).collect();
        count.reject(&even, 3, &lane);
        // Five of them are final; the others fill the room, but for 95.
        let first_left = 2 * (most + 5);
        let rare = count.rare.as_ref().unwrap();
        assert_eq!(
            (rare.rejects.len(), rare.rejects_all),
            (REJECTS_MAX, Some((first_left, 2 * (most + 99))))
        );
        assert!(
            !count.rejects(8, 9) && count.rejects(10, 3) && !count.rejects(10, 2) && !count.rejects(11, 9)
        );
        assert!(count.rejects(first_left + 1, 1), "everything between the two");
        // What is kept already makes no difference, what is not does.
        count.reject(&[10, 12], 4, &lane);
        assert_eq!(count.rare.as_ref().unwrap().rejects_all, Some((first_left, 2 * (most + 99))));
        count.reject(&[10, 11, 12, 4 * most], 4, &lane);
        assert_eq!(count.rare.as_ref().unwrap().rejects_all, Some((11, 4 * most)));
        count.reject(&[13], 4, &lane);
        assert_eq!(count.rare.as_ref().unwrap().rejects_all, Some((11, 4 * most)), "one alone");
    }
}
