//! The gates that a batch passes to be applied, as far as they are the machine's: parents final, asking for the form,
//! operations judged.
//!
//! Owns their order and who waits for what. Invariants: a batch that waits delays its own lane only; a lane that waits is
//! looked at again when what it waits for has moved, and not before. The checks themselves are in
//! [`form`](super::form) and [`ledger`](super::ledger).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::digest::BatchDigest;
use super::io::Effect;
use super::lane_copy::Form;
use super::ledger::{Ledger, Verdict};
use super::machine::Machine;
use super::rules::Rules;
use super::settle::CLAIMS_MAX;
use crate::ids::{DeviceKey, LaneId};
use crate::merkle::Hash;

/// What a lane waits for at the fourth gate: the operation `at` of the batch with this root, on its account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    root: Hash,
    at: usize,
    account: DeviceKey,
}

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
            // After a restart that knows of the fork, what was stated of this copy is applied again: others may need it stated
            // batch by batch.
            let closed = lane.fork.is_some();
            if closed && batch.size() > lane.certified.max(self.statement.judged(index)) {
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
            if !self.claims_fit(index, &batch) || self.waits_for_witness(index) || !self.judge(index, &batch)
            {
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
                // What is waited for matters, whatever it is.
                self.statement.moved(lane);
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
            if lane >= self.setup.lanes {
                continue;
            }
            if self.in_lane[index * self.setup.lanes + lane].open_claims() >= CLAIMS_MAX {
                self.waits[lane].insert(index);
                return false;
            }
        }
        for rejects in &placed.witness.rejects {
            let lane = usize::from(rejects.lane.0);
            if lane >= self.setup.lanes {
                continue;
            }
            if self.in_lane[index * self.setup.lanes + lane].is_full_of_rejects(&self.lanes[lane]) {
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
            self.restore_waits.insert(index);
            return false;
        }
        if !restoring && self.still_waits(index, batch) {
            return false;
        }
        let (mut locks, mut rejects) = (BTreeMap::new(), Vec::new());
        for (at, placed) in batch.operations().iter().enumerate() {
            let operation = &placed.operation;
            let verdict = if restoring {
                self.ledger.judge_again(operation, &self.rules)
            } else {
                self.ledger.judge(operation, &locks, &self.rules)
            };
            match verdict {
                Verdict::Moot => (),
                Verdict::Accept => {
                    locks.insert(operation.account, Ledger::lock_for(operation, &self.rules));
                }
                Verdict::Reject => rejects.push(placed.position),
                Verdict::Wait => {
                    self.await_account(
                        index,
                        Awaited { root: *batch.root(), at, account: operation.account },
                    );
                    return false;
                }
            }
        }
        self.ledger.lock(locks, &self.rules);
        self.statement.reject(index, rejects);
        true
    }

    /// Whether the operation that made this batch wait would make it wait again: so one look decides, however large the batch
    /// and whatever else has woken its lane.
    fn still_waits(&self, index: usize, batch: &BatchDigest) -> bool {
        let Some(awaited) = self.awaited[index].filter(|awaited| awaited.root == *batch.root()) else {
            return false;
        };
        let Some(placed) = batch.operations().get(awaited.at) else { return false };
        let is_noted = self.ledger_waits.get(&awaited.account).is_some_and(|lanes| lanes.contains(&index));
        is_noted && self.ledger.judge(&placed.operation, &BTreeMap::new(), &self.rules) == Verdict::Wait
    }

    /// A lane waits for an account's next sequence or money, and for no other account.
    fn await_account(&mut self, index: usize, awaited: Awaited) {
        if let Some(before) =
            self.awaited[index].replace(awaited).filter(|before| before.account != awaited.account)
            && let Some(lanes) = self.ledger_waits.get_mut(&before.account)
        {
            lanes.remove(&index);
            if lanes.is_empty() {
                self.ledger_waits.remove(&before.account);
            }
        }
        self.ledger_waits.entry(awaited.account).or_default().insert(index);
    }
}
