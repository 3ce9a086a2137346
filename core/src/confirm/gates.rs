//! The gates that a batch passes to be applied, as far as they are the machine's: parents final, asking for the form,
//! operations judged.
//!
//! Owns their order and who waits for what. Invariants: a batch that waits delays its own lane only; a lane that waits is
//! looked at again when what it waits for has moved, and not before. The checks themselves are in
//! [`form`](super::form) and [`ledger`](super::ledger).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::digest::BatchDigest;
use super::io::Effect;
use super::lane_copy::Form;
use super::ledger::{Ledger, Verdict};
use super::machine::Machine;
use super::rules::Rules;
use super::settle::CLAIMS_MAX;
use crate::ids::LaneId;

impl<R: Rules> Machine<R> {
    /// Looks at every lane that something has happened to, until nothing happens any more.
    pub(crate) fn run(&mut self, effects: &mut Vec<Effect>) {
        while let Some(index) = self.queue.pop_first() {
            self.apply(index, effects);
            self.mark(index, effects);
        }
    }

    /// Applies batches of a lane as far as the gates let them.
    fn apply(&mut self, index: usize, effects: &mut Vec<Effect>) {
        loop {
            let lane = &self.lanes[index];
            let Some(entry) = lane.entry_at(lane.applied) else { return };
            let (batch, form) = (Arc::clone(&entry.batch), entry.form);
            let closed = lane.fork.is_some();
            if closed && batch.size() > lane.certified {
                return;
            }
            if !self.parents_final(index, &batch) {
                return;
            }
            match form {
                Form::Unknown => return self.ask_form(index, effects),
                Form::Asked => return,
                Form::Bad => {
                    if self.lanes[index].ended.is_none() {
                        self.lanes[index].ended = Some(batch.first());
                        effects.push(Effect::Ended(batch));
                    }
                    return;
                }
                Form::Good => (),
            }
            if !self.claims_fit(index, &batch) || !self.judge(index, &batch) {
                return;
            }
            self.lanes[index].applied = batch.size();
            batch.operations().iter().for_each(|placed| self.ledger.see(&placed.operation));
            self.statement.applied(index, &batch);
        }
    }

    /// The second gate. A lane that has to wait is looked at again when the other becomes final further.
    fn parents_final(&mut self, index: usize, batch: &BatchDigest) -> bool {
        for (lane, size) in batch.cites() {
            let lane = usize::from(lane.0);
            if self.lanes.get(lane).is_some_and(|lane| lane.final_size < *size) {
                self.waits[lane].insert(index);
                return false;
            }
        }
        true
    }

    /// Asks for the third gate of everything that has passed the second one, the next batch first.
    fn ask_form(&mut self, index: usize, effects: &mut Vec<Effect>) {
        let (lanes, applied) = (&self.lanes, self.lanes[index].applied);
        let is_final = |batch: &BatchDigest| {
            let within = |(lane, size): &(LaneId, u64)| {
                lanes.get(usize::from(lane.0)).is_none_or(|lane| lane.final_size >= *size)
            };
            batch.cites().iter().all(within)
        };
        let ready =
            lanes[index].between(applied, u64::MAX).take_while(|entry| is_final(&entry.batch)).count();
        let lane = &mut self.lanes[index];
        let start = lane.entries.partition_point(|entry| entry.batch.size() <= applied);
        for entry in lane.entries.range_mut(start..start + ready) {
            if entry.form == Form::Unknown {
                entry.form = Form::Asked;
                effects.push(Effect::CheckForm(Arc::clone(&entry.batch)));
            }
        }
    }

    /// Part of the second gate: what a validator has claimed in its lane of others is bounded.
    fn claims_fit(&mut self, index: usize, batch: &BatchDigest) -> bool {
        let Some(placed) = batch.witness().filter(|_| index < self.chains.len()) else { return true };
        for claim in placed.witness.cut.iter().chain(&placed.witness.cut_again) {
            let lane = usize::from(claim.lane.0);
            let full = self
                .in_lane
                .get(index * self.setup.lanes + lane)
                .is_some_and(|votes| votes.open_claims() >= CLAIMS_MAX);
            if lane < self.setup.lanes && full {
                self.waits[lane].insert(index);
                return false;
            }
        }
        true
    }

    /// The fourth gate, for validators: judges the operations and takes the locks; false if the batch waits.
    fn judge(&mut self, index: usize, batch: &BatchDigest) -> bool {
        if self.setup.validator().is_none() || batch.size() <= self.statement.judged(index) {
            return true;
        }
        if batch.operations().is_empty() {
            return true;
        }
        let restoring = !self.restoring.is_empty();
        let was_final = self.restoring.iter().any(|(lane, wanted)| *lane == index && batch.size() <= *wanted);
        if restoring && !was_final {
            self.ledger_waits.insert(index);
            return false;
        }
        let (mut locks, mut rejects) = (Vec::new(), Vec::new());
        for placed in batch.operations() {
            let verdict = if restoring {
                self.ledger.judge_again(&placed.operation, &self.rules)
            } else {
                self.ledger.judge(&placed.operation, &locks, &self.rules)
            };
            match verdict {
                Verdict::Moot => (),
                Verdict::Accept => locks.push(Ledger::lock_for(&placed.operation, &self.rules)),
                Verdict::Reject => rejects.push(placed.position),
                Verdict::Wait => {
                    self.ledger_waits.insert(index);
                    return false;
                }
            }
        }
        self.ledger.lock(locks, &self.rules);
        self.statement.reject(index, rejects);
        true
    }
}
