//! Making witnesses: what this validator states, and when.
//!
//! Owns what was stated, what is due, and the limits of one witness: 16,384 bytes, and of one lane 256 batches beyond
//! final, 1,024 beyond the cut before, and 8,192 rejects beyond final; what does not fit waits for the next one, lanes in
//! turn. Final may be far ahead of the own cut, as after a pause: then cuts follow it in such steps, so that every reject
//! finds its witness and others, who come later still, find a claim within what they hold. Rules: a witness leaves at most once a round, and
//! only when there is something to state that matters (`docs/decisions/0022`): more of a cut or certified cut over
//! data or over witnesses that cover data, or something to state again after a fork. Everything else that has moved
//! travels along. The next one waits until the one before is back in the own lane, signed. Invariants: the cut of a
//! lane is durable, applied, and extends the last one on the copy held; a reject stands in the witness whose cut
//! covers it first.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::digest::BatchDigest;
use super::io::Effect;
use super::machine::Machine;
use super::rules::{Rule, Rules};
use super::votes::{LaneVotes, Votes};
use super::witness::{
    CLAIM_BYTES, Claim, Rejects, WITNESS_BYTES_MAX, WITNESS_HEAD_BYTES, Witness, group_bytes,
};
use crate::ids::LaneId;
use crate::merkle::{EMPTY_ROOT, Hash};

/// Batches of one lane beyond final that a cut covers, at most: it bounds what others have to keep of one validator
/// and lane.
pub const CUT_BATCHES_MAX: usize = 256;

/// Batches that a cut moves over, at most.
pub const CUT_STEP_BATCHES_MAX: usize = 1_024;

/// Rejects of one lane beyond final that this validator states, at most: two batches of nothing else. It bounds what others
/// keep of its lane, see [`REJECTS_LANE_MAX`](super::settle::REJECTS_LANE_MAX).
pub const REJECTS_OPEN_MAX: usize = 8_192;

/// Rejects of one lane that were judged and are not stated yet, at most, and batches by which final is ahead of the own cut:
/// with more the lane waits until witnesses have caught up.
const PENDING_REJECTS_MAX: usize = 65_536;
const PENDING_BATCHES_MAX: usize = 16_384;

/// What was stated of one lane and what is due.
#[derive(Clone, Debug)]
struct LaneStatement {
    cut: (u64, Hash),
    certified: (u64, Hash),
    /// How far the stated cut reaches on the copy held.
    judged: u64,
    /// Positions that were rejected and not stated yet; that were stated and are not final yet.
    rejects: BTreeSet<u64>,
    open: BTreeSet<u64>,
    /// Batches that matter were applied, batches with data among them, and certified, beyond what was stated.
    cut_due: bool,
    data_due: bool,
    certified_due: bool,
    /// Stated again after a fork: whether as certified, size and root.
    again: BTreeSet<(bool, u64, Hash)>,
    again_due: bool,
}

/// What this validator states.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// Number of the last witness.
    pub(crate) number: u64,
    /// Nothing is stated any more.
    pub(crate) silent: bool,
    lanes: Vec<LaneStatement>,
    /// Lanes of which something may be stated.
    moved: BTreeSet<usize>,
    /// The lane whose turn it is.
    turn: usize,
    next_us: u64,
}

impl Statement {
    pub(crate) fn new(lanes: usize) -> Self {
        let lane = LaneStatement {
            cut: (0, EMPTY_ROOT),
            certified: (0, EMPTY_ROOT),
            judged: 0,
            rejects: BTreeSet::new(),
            open: BTreeSet::new(),
            cut_due: false,
            data_due: false,
            certified_due: false,
            again: BTreeSet::new(),
            again_due: false,
        };
        Self {
            number: 0,
            silent: false,
            lanes: alloc::vec![lane; lanes],
            moved: BTreeSet::new(),
            turn: 0,
            next_us: 0,
        }
    }

    pub(crate) fn restore(&mut self, votes: &Votes) {
        self.number = votes.number;
        for (lane, votes) in self.lanes.iter_mut().zip(&votes.lanes) {
            (lane.cut, lane.certified, lane.judged) = (votes.cut, votes.certified, votes.judged);
            // Whether it matters is not known any more; what was stated already is not stated twice anyway.
            (lane.cut_due, lane.data_due, lane.certified_due) = (true, true, true);
        }
    }

    /// How far votes are cast on the copy of a lane.
    pub(crate) fn judged(&self, index: usize) -> u64 {
        self.lanes[index].judged
    }

    pub(crate) fn moved(&mut self, index: usize) {
        self.moved.insert(index);
    }

    /// A batch was applied.
    pub(crate) fn applied(&mut self, index: usize, batch: &BatchDigest) {
        let lane = &mut self.lanes[index];
        lane.cut_due |= batch.is_material();
        lane.data_due |= batch.carries_data();
        lane.again_due |= !lane.again.is_empty();
        self.moved.insert(index);
    }

    /// More of a lane is certified and applied.
    pub(crate) fn certified(&mut self, index: usize, material: bool) {
        let lane = &mut self.lanes[index];
        lane.certified_due |= material;
        lane.again_due |= !lane.again.is_empty();
        self.moved.insert(index);
    }

    /// The lane is closed: what lies beyond final is stated again, batch by batch.
    pub(crate) fn state_again(&mut self, index: usize) {
        self.lanes[index].again_due = true;
        self.moved.insert(index);
    }

    pub(crate) fn reject(&mut self, index: usize, positions: Vec<u64>) {
        // Who states nothing any more would keep them for ever.
        if !self.silent {
            self.lanes[index].rejects.extend(positions);
        }
    }

    /// A lane waits for witnesses, so they are due, whatever they cover.
    fn catch_up(&mut self, index: usize) {
        self.lanes[index].cut_due = true;
        self.moved.insert(index);
    }

    /// The copy has changed beyond `from`.
    pub(crate) fn leave_side(&mut self, index: usize, from: u64) {
        let lane = &mut self.lanes[index];
        lane.rejects.split_off(&from);
        lane.judged = lane.judged.min(from);
        self.moved.insert(index);
    }
}

impl<R: Rules> Machine<R> {
    /// When the next [`Input::Tick`](super::io::Input::Tick) is of use; `None` when nothing is to be stated, or the last
    /// witness is not back in the own lane yet. Looks at every lane that has moved since it was stated.
    #[must_use]
    pub fn next_tick_us(&self) -> Option<u64> {
        let due = self.states() && self.statement.moved.iter().any(|index| self.is_due(*index));
        due.then_some(self.statement.next_us)
    }

    /// Whether this node is a validator that can make its next witness now.
    fn states(&self) -> bool {
        let chain = self.setup.validator().filter(|_| !self.statement.silent).map(|me| &self.chains[me]);
        chain.is_some_and(|chain| chain.number == self.statement.number && chain.predecessor().is_some())
    }

    /// From where on ends of final batches are needed to state the own cut.
    pub(crate) fn own_ends_from(&self, index: usize) -> u64 {
        let votes = self.setup.validator().is_some() && !self.statement.silent;
        if votes { self.statement.judged(index) } else { u64::MAX }
    }

    /// Whether a lane has to wait until more of it is stated.
    pub(crate) fn waits_for_witness(&mut self, index: usize) -> bool {
        let Some(me) = self.setup.validator().filter(|_| !self.statement.silent) else { return false };
        // After a restart witnesses wait for the own lane.
        if self.chains[me].number != self.statement.number {
            return false;
        }
        let (copy, stated) = (&self.lanes[index], &self.statement.lanes[index]);
        let waits = stated.rejects.len() >= PENDING_REJECTS_MAX
            || copy.ends_beyond(stated.judged) >= PENDING_BATCHES_MAX;
        if waits {
            self.statement.catch_up(index);
        }
        waits
    }

    /// Whether this validator has stopped stating anything, see [`Effect::Silenced`].
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.statement.silent
    }

    /// What must not be forgotten.
    #[must_use]
    pub fn votes(&self) -> Votes {
        let lanes = self.statement.lanes.iter().zip(&self.lanes);
        // A record made while final is still coming back must not forget how far it had been.
        let was_final = |index: usize| {
            self.restoring.iter().find(|(lane, _)| *lane == index).map_or(0, |(_, wanted)| *wanted)
        };
        Votes {
            number: self.statement.number,
            lanes: lanes
                .enumerate()
                .map(|(index, (stated, copy))| LaneVotes {
                    cut: stated.cut,
                    certified: stated.certified,
                    judged: stated.judged,
                    final_size: copy.final_size.max(was_final(index)),
                })
                .collect(),
            locks: self.ledger.locks().copied().collect(),
        }
    }

    /// Size and root that the next witness may cut of a lane without covering position `limit`; `None` if that is what was
    /// stated. Others can make a prefix final here before this validator has stated it, and before its disk has it.
    fn next_cut(&self, index: usize, limit: u64) -> Option<(u64, Hash)> {
        let (copy, stated) = (&self.lanes[index], &self.statement.lanes[index]);
        let limit = limit.min(copy.end_within(copy.applied.min(copy.durable), CUT_BATCHES_MAX));
        // As after a restart, when less is applied or known to be durable than was before.
        if limit.min(copy.durable) < stated.judged {
            return None;
        }
        let beyond = copy.end_beyond(stated.judged, CUT_STEP_BATCHES_MAX, limit.min(copy.durable));
        // What was stated may lie on a side that the copy has left.
        let (size, root) = match beyond {
            Some(end) => end,
            None => (stated.judged, *copy.known_root(stated.judged)?),
        };
        (size > 0 && (size, root) != stated.cut).then_some((size, root))
    }

    /// The same for the certified cut. It lies within the cut, so it is durable too: what a third has certified must
    /// outlive a crash of all.
    fn next_certified(&self, index: usize) -> Option<(u64, Hash)> {
        let (copy, stated) = (&self.lanes[index], &self.statement.lanes[index]);
        let size = copy.shown.min(stated.judged);
        let root = *copy.known_root(size)?;
        (size > stated.certified.0).then_some((size, root))
    }

    fn is_due(&self, index: usize) -> bool {
        let stated = &self.statement.lanes[index];
        let cut_due = stated.cut_due || self.is_awaited(index, stated.cut.0);
        let certified_due = stated.certified_due || self.is_awaited(index, stated.certified.0);
        (cut_due && self.next_cut(index, u64::MAX).is_some())
            || (certified_due && self.next_certified(index).is_some())
            || stated.again_due
    }

    /// Whether the next batch of another lane waits for this one to become final up to a size beyond `stated` that is held here. A node
    /// to which a liar has shown one witness more than to others may have seen that final, and cite it: then the others have to make
    /// it final, even if there are witnesses only. Sizes beyond the copy do not count: anyone can cite those.
    fn is_awaited(&self, index: usize, stated: u64) -> bool {
        let held = self.lanes[index].held();
        let waits_for = |lane: &usize| {
            let copy = &self.lanes[*lane];
            let cites = copy.entry_at(copy.applied).map_or(&[][..], |entry| entry.batch.cites());
            cites.iter().any(|(cited, size)| usize::from(cited.0) == index && *size > stated && *size <= held)
        };
        stated < held && self.waits[index].iter().any(waits_for)
    }

    /// States what is due, if it is time.
    pub(crate) fn tick(&mut self, now_us: u64, effects: &mut Vec<Effect>) {
        let Some(me) = self.setup.validator().filter(|_| !self.statement.silent) else { return };
        let chain = &self.chains[me];
        let Some(predecessor) = chain.predecessor().filter(|_| chain.number == self.statement.number) else {
            return;
        };
        if now_us < self.statement.next_us {
            return;
        }
        if !self.statement.moved.iter().any(|index| self.is_due(*index)) {
            self.statement.next_us = now_us;
            return;
        }
        self.statement.next_us = now_us.saturating_add(self.setup.round_us);
        let number = self.statement.number + 1;
        let mut witness = Witness { number, predecessor, ..Witness::default() };
        // Lanes in turn, beginning after the last one that was served.
        let turn = self.statement.turn;
        let order: Vec<usize> =
            self.statement.moved.range(turn..).chain(self.statement.moved.range(..turn)).copied().collect();
        let mut room = WITNESS_BYTES_MAX - WITNESS_HEAD_BYTES;
        let mut served = Vec::new();
        for index in order {
            if room < 2 * CLAIM_BYTES {
                break;
            }
            served.push(index);
            if !self.state_cut(index, &mut witness, &mut room) {
                // It did not fit beside the others: it begins next time.
                self.statement.turn = index;
                break;
            }
            self.statement.turn = index + 1;
            // Room for the certified cut of this lane.
            room = room.saturating_sub(CLAIM_BYTES);
        }
        witness.cut.sort_unstable();
        witness.rejects.sort_unstable_by_key(|rejects| rejects.lane);
        // The own cut counts for the certified cut of the same witness.
        self.count_witness(me, &witness, effects);
        for index in &served {
            self.mark(*index, effects);
        }
        for index in served {
            self.state_certified(index, &mut witness);
            if self.lanes[index].fork.is_some() && !self.rules.weakens(Rule::NoRestating) {
                self.state_lane_again(index, &mut witness, &mut room);
            } else {
                self.statement.lanes[index].again_due = false;
            }
            let stated = &self.statement.lanes[index];
            let is_awaited = self.is_awaited(index, stated.certified.0);
            if !(stated.cut_due || stated.certified_due || stated.again_due || is_awaited) {
                self.statement.moved.remove(&index);
            }
        }
        // Votes in cuts stated again count once their witness is final.
        witness.covers_data |= !witness.cut_again.is_empty();
        witness.certified.sort_unstable();
        witness.cut_again.sort_unstable();
        witness.certified_again.sort_unstable();
        let empty = witness.cut.is_empty()
            && witness.certified.is_empty()
            && witness.cut_again.is_empty()
            && witness.certified_again.is_empty();
        if empty {
            return;
        }
        self.statement.number = number;
        (self.chains[me].number, self.chains[me].last) = (number, None);
        let rest = Witness { cut: Vec::new(), rejects: Vec::new(), ..witness.clone() };
        self.count_witness(me, &rest, effects);
        effects.push(Effect::Persist(self.votes()));
        effects.push(Effect::State(Arc::new(witness)));
    }

    /// The first reject of a lane that does not go into a witness with so much room left, or no position at all; and whether
    /// for want of room.
    fn first_reject_left(&self, index: usize, room: usize) -> (u64, bool) {
        let (final_size, stated) = (self.lanes[index].final_size, &self.statement.lanes[index]);
        let mut open = stated.open.range(final_size..).count();
        let Some(first) = stated.rejects.first() else { return (u64::MAX, room < 2 * CLAIM_BYTES) };
        for (count, position) in (1..).zip(&stated.rejects) {
            // Twice: the certified cut comes after it.
            if group_bytes(count, position - first) + 2 * CLAIM_BYTES as u64 > room as u64 {
                return (*position, true);
            }
            open += usize::from(*position >= final_size);
            if open > REJECTS_OPEN_MAX {
                return (*position, false);
            }
        }
        (u64::MAX, false)
    }

    /// Puts a lane's cut and rejects into the witness, as much of it as fits; false if nothing does for want of room. The
    /// rejects of one batch always fit an empty witness.
    fn state_cut(&mut self, index: usize, witness: &mut Witness, room: &mut usize) -> bool {
        if self.next_cut(index, u64::MAX).is_none() {
            return true;
        }
        let (limit, is_short) = self.first_reject_left(index, *room);
        let Some((size, root)) = self.next_cut(index, limit) else { return !is_short };
        let (copy, stated) = (&mut self.lanes[index], &mut self.statement.lanes[index]);
        let left = stated.rejects.split_off(&size);
        let rejects = core::mem::replace(&mut stated.rejects, left);
        let lane = LaneId(index as u16);
        *room = room.saturating_sub(CLAIM_BYTES);
        if let (Some(first), Some(last)) = (rejects.first(), rejects.last()) {
            *room = room.saturating_sub(group_bytes(rejects.len(), last - first) as usize);
            witness.rejects.push(Rejects { lane, positions: rejects.iter().copied().collect() });
        }
        stated.open = stated.open.split_off(&copy.final_size);
        stated.open.extend(rejects.range(copy.final_size..));
        witness.covers_data |= stated.data_due;
        witness.cut.push(Claim { lane, size, root });
        (stated.cut, stated.judged) = ((size, root), size);
        // Of what is final already it is not known any more whether it matters.
        let behind = size < copy.final_size;
        (stated.cut_due, stated.data_due) = (behind, behind);
        for entry in copy.between(size, copy.applied) {
            stated.cut_due |= entry.batch.is_material();
            stated.data_due |= entry.batch.carries_data();
        }
        copy.prune_ends(size);
        self.queue.insert(index);
        true
    }

    fn state_certified(&mut self, index: usize, witness: &mut Witness) {
        let Some((size, root)) = self.next_certified(index) else { return };
        let copy = &self.lanes[index];
        let left =
            size < copy.final_size || copy.between(size, copy.shown).any(|entry| entry.batch.is_material());
        let stated = &mut self.statement.lanes[index];
        stated.certified_due = left;
        stated.certified = (size, root);
        witness.certified.push(Claim { lane: LaneId(index as u16), size, root });
    }

    /// States the batches of a closed lane once more, from final up.
    fn state_lane_again(&mut self, index: usize, witness: &mut Witness, room: &mut usize) {
        let (copy, stated) = (&self.lanes[index], &mut self.statement.lanes[index]);
        let lane = LaneId(index as u16);
        let own_cut = stated.judged.min(copy.applied);
        // Final may lie beyond the own cut: then its votes are not cast yet, and a cut stated now would cast them.
        let first = (1..=own_cut).contains(&copy.final_size).then_some((copy.final_size, copy.final_root));
        let ends = copy.between(copy.final_size, own_cut).map(|e| (e.batch.size(), *e.batch.root()));
        let mut left = false;
        for (size, root) in first.into_iter().chain(ends) {
            for certified in [false, true] {
                if (certified && size > stated.certified.0) || stated.again.contains(&(certified, size, root))
                {
                    continue;
                }
                if *room < CLAIM_BYTES {
                    left = true;
                    continue;
                }
                *room -= CLAIM_BYTES;
                stated.again.insert((certified, size, root));
                let list = if certified { &mut witness.certified_again } else { &mut witness.cut_again };
                list.push(Claim { lane, size, root });
            }
        }
        stated.again.retain(|(_, size, _)| *size >= copy.final_size);
        stated.again_due = left;
    }
}
