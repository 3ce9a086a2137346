//! The sequencer: one thread that gives every verified message its place.
//!
//! It alone owns the replay windows, the recent ids, the tips and the lane's tree, so that none of them needs a lock. Per message:
//! duplicate? sequence used before? both parents known, and where? Then the message goes into the open lane batch, and is known
//! from that moment on: a later message of the same submit may name it as a parent.
//!
//! What it knows always matches the log: if an append fails, everything is rebuilt from what the log holds, and no message of the
//! failed group is acknowledged.
//!
//! Confirmation is told of every batch in the order of the lane, and hands in the node's witnesses, each of which comes before waiting
//! client messages and is kept until it is in the log. An operation on an account is taken only if confirmation would accept it and no
//! other one of its sequence is on its way through this lane. After a full disk the sequencer refuses messages until [`FULL_RETRY`] has passed, then tries again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, never, select};
use weft_core::arena::VerifiedMessage;
use weft_core::arena::{Arena, Verified};
use weft_core::confirm::Operation;
use weft_core::{DeviceKey, PayloadKind, Place, Reason, Rejection};
use weft_net::{AckException, AckLevel};

use super::commit::Group;
use super::{Outcome, PendingAck, VerifiedBatch, VerifiedJob, Waiting};
use crate::confirm::Confirm;
use crate::confirm::driver::{Event, OwnWitness};
use crate::confirm::events::EventSender;
use crate::health::{Full, Health, NoRoom, State};
use crate::lane::{AppendError, Lane};
use crate::stats::Counters;

/// Most messages of one group: bounds how long the first ack of a group waits behind the last append of it, at a few
/// microseconds a message.
pub const GROUP_MESSAGES_MAX: usize = 16_384;

/// How long a full disk is left alone before the next try.
pub const FULL_RETRY: Duration = Duration::from_millis(500);

/// How long a witness waits on a full disk that had no room for it even alone, unless there is room before: each attempt that fails costs
/// reading the newest messages again.
const WITNESS_RETRY: Duration = Duration::from_secs(10);

/// How often a node that may append nothing looks whether it may.
const HELD_LOOK: Duration = Duration::from_millis(20);

/// Tips handed out with each ack: enough that a gateway with many devices spreads its approvals.
pub const TIPS_PER_ACK: usize = 8;

/// Tips kept for clients that ask for some without sending anything.
pub const TIPS_PUBLISHED: usize = 64;

/// Operations in the own lane that are not applied yet: those of two rounds at a rate that a ledger of payments will not see soon.
pub const OPERATIONS_OPEN_MAX: usize = 1 << 16;

/// The verify stage is gone.
struct Disconnected;

/// What the sequencer and confirmation have to do with each other.
#[derive(Debug)]
pub struct ConfirmLink {
    /// What may be appended.
    pub confirm: Arc<Confirm>,
    /// Takes every batch that is in the log.
    pub events: EventSender,
    /// Gives witnesses.
    pub witnesses: Receiver<OwnWitness>,
    /// The last witness of the run before, if the log has lost it.
    pub witness: Option<OwnWitness>,
    /// Ends of final batches of other lanes.
    pub tips_elsewhere: Receiver<Place>,
}

/// Operations on their way: in the own lane, and not applied yet, so that the machine does not know them.
#[derive(Debug, Default)]
struct OpenOperations {
    by_account: HashMap<DeviceKey, Operation>,
    /// By position.
    order: VecDeque<(u64, DeviceKey)>,
}

impl OpenOperations {
    /// Forgets what the machine knows by now.
    fn applied(&mut self, size: u64) {
        while let Some((_, account)) = self.order.front().filter(|(position, _)| *position < size) {
            self.by_account.remove(account);
            self.order.pop_front();
        }
    }

    /// Forgets what did not get into the log.
    fn retain_below(&mut self, size: u64) {
        while let Some((_, account)) = self.order.back().filter(|(position, _)| *position >= size) {
            self.by_account.remove(account);
            self.order.pop_back();
        }
    }

    fn check(&self, operation: &Operation) -> Result<(), Rejection> {
        if self.order.len() >= OPERATIONS_OPEN_MAX {
            return Err(Reason::Overloaded.with(self.order.len() as u64, OPERATIONS_OPEN_MAX as u64));
        }
        match self.by_account.get(&operation.account) {
            Some(other) if (other.sequence, other.hash) != (operation.sequence, operation.hash) => {
                Err(Reason::OperationConflict.with(operation.sequence, 0))
            }
            _ => Ok(()),
        }
    }

    fn insert(&mut self, operation: Operation, position: u64) {
        // Sent again: the first copy keeps its place in the order.
        if self.by_account.insert(operation.account, operation).is_none() {
            self.order.push_back((position, operation.account));
        }
    }
}

/// The sequencer.
#[derive(Debug)]
pub struct Sequencer {
    lane: Lane,
    counters: Arc<Counters>,
    health: Arc<Health>,
    full_until: Option<Instant>,
    /// No witness is tried before, while the disk is full.
    witness_after: Option<Instant>,
    /// Messages of clients that were given a place, in all.
    placed: u64,
    confirm: ConfirmLink,
    operations: OpenOperations,
    /// The witness that waits names a parent which is not here yet.
    orphan: bool,
}

impl Sequencer {
    /// A sequencer over a recovered lane.
    pub fn new(lane: Lane, counters: Arc<Counters>, health: Arc<Health>, confirm: ConfirmLink) -> Self {
        let operations = OpenOperations::default();
        let (full_until, witness_after) = (None, None);
        let placed = 0;
        Self { lane, counters, health, full_until, witness_after, placed, confirm, operations, orphan: false }
    }

    /// The sequencer's life: until the verify stage is gone and everything it sent has been handed to the committer. Gives the lane
    /// back, for its closing.
    pub fn run(mut self, input: &Receiver<VerifiedBatch>, output: &Sender<Group>) -> Lane {
        loop {
            let Ok(mut next) = self.next(input) else { break };
            if next.is_none() && (self.confirm.witness.is_none() || self.is_held()) {
                continue;
            }
            let mut messages = 0;
            let mut acks = Vec::new();
            let mut failed = None;
            while let Ok(place) = self.confirm.tips_elsewhere.try_recv() {
                self.lane.learn_elsewhere(place);
            }
            let witness = self.place_witness();
            if !witness && next.is_none() {
                continue;
            }
            let before = self.placed;
            while let Some(batch) = next {
                let mut ahead = 0;
                messages += batch.jobs.iter().map(|job| job.outcomes.len()).sum::<usize>();
                for job in batch.jobs {
                    acks.extend(self.sequence(job, &batch.arena, &mut ahead, &mut failed));
                }
                next = if messages < GROUP_MESSAGES_MAX { input.try_recv().ok() } else { None };
            }
            if failed.is_none() {
                failed = self.flush().err();
            }
            match failed {
                None => {
                    if !self.hand_over(acks, output) {
                        break;
                    }
                }
                Some(error) => {
                    self.fail(&error, acks);
                    self.put_witness_off(witness, self.placed > before);
                    // What was appended before the failure should not stay undurable.
                    let size = self.lane.size();
                    if output.send(Group { size, acks: Vec::new(), tips: Vec::new() }).is_err() {
                        break;
                    }
                }
            }
        }
        self.lane
    }

    /// Acks that ask for nothing durable leave at once; the others go to the committer. `false` when there is no committer any more.
    fn hand_over(&mut self, mut acks: Vec<PendingAck>, output: &Sender<Group>) -> bool {
        let mut waiting = Vec::with_capacity(acks.len());
        for ack in acks.drain(..) {
            if Waiting::level(&ack) <= AckLevel::Written { ack.deliver() } else { waiting.push(ack) }
        }
        let tips = self.lane.tips(TIPS_PUBLISHED);
        output.send(Group { size: self.lane.size(), acks: waiting, tips }).is_ok()
    }

    /// Decides one submit, message by message. `None`: its ack has left already. What rows of the arena below `ahead` need is in the
    /// caches. `failed` is set if an append in the middle of it
    /// fails, and from then on nothing is appended.
    fn sequence(
        &mut self,
        job: VerifiedJob,
        arena: &Arena<Verified>,
        ahead: &mut usize,
        failed: &mut Option<AppendError>,
    ) -> Option<PendingAck> {
        let VerifiedJob { request_id, session, permit, outcomes } = job;
        let refuse_all = self.refuse_all();
        let mut exceptions = Vec::new();
        let mut covered_by = 0;
        for (index, outcome) in (0u32..).zip(&outcomes) {
            let result = match (outcome, refuse_all) {
                (Outcome::Rejected(rejection), _) => {
                    // Counted by the verify stage.
                    exceptions.push(AckException::new(index, *rejection));
                    continue;
                }
                (Outcome::Verified(_), Some(rejection)) => Err(rejection),
                (Outcome::Verified(row), None) => {
                    if *row >= *ahead {
                        *ahead = self.lane.touch(arena, *row);
                    }
                    match arena.verified(*row) {
                        Some(message) => self.place(&message),
                        // The verify stage names only rows with a good verdict; a row without one is not taken, whatever was said.
                        None => Err(Reason::BadSignature.with(0, 0)),
                    }
                }
            };
            match result {
                Ok(place) => covered_by = covered_by.max(place.position() + 1),
                Err(rejection) => {
                    if rejection.reason == Reason::Duplicate && Place(rejection.got).lane() == self.lane.id()
                    {
                        covered_by = covered_by.max(Place(rejection.got).position() + 1);
                    }
                    self.counters.reject(rejection.reason);
                    exceptions.push(AckException::new(index, rejection));
                }
            }
            if self.lane.batch_is_full() && failed.is_none() {
                *failed = self.flush().err();
            }
        }
        let tips = self.lane.tips(TIPS_PER_ACK);
        let ack = PendingAck::new(session, request_id, outcomes.len(), exceptions, tips, covered_by, permit);
        if failed.is_none() && ack.level() == AckLevel::Received {
            ack.deliver();
            return None;
        }
        Some(ack)
    }

    /// Puts the witness that waits, if one does, into the open batch, which is empty: so it is the first of its batch. It is kept until
    /// that batch is in the log. Whether it is in the batch now.
    fn place_witness(&mut self) -> bool {
        self.orphan = false;
        let waits = |after: Instant| self.full_until.is_some() && Instant::now() < after;
        if self.is_held() || self.witness_after.is_some_and(waits) {
            return false;
        }
        if self.confirm.witness.is_none() {
            self.confirm.witness = self.confirm.witnesses.try_recv().ok();
        }
        let Some(witness) = &self.confirm.witness else { return false };
        // Asked before: what comes back meanwhile is found at the next try.
        let catching_up = self.confirm.confirm.is_restoring() || self.health.state() == State::CatchingUp;
        let Err(rejection) = self.lane.push_witness(&witness.bytes) else { return true };
        if rejection.reason == Reason::UnknownParent && catching_up {
            // The witness of the run before may name a message of another lane that this node has to get again.
            self.orphan = true;
            return false;
        }
        tracing::error!(id = %witness.id, %rejection, "this node's own witness does not fit its lane: a bug");
        self.health
            .set_state(State::Poisoned, Some(format!("a witness does not fit the own lane: {rejection}")));
        self.confirm.witness = None;
        false
    }

    /// The checks that need the ledger, then the message's place in the open batch.
    fn place(&mut self, message: &VerifiedMessage<'_>) -> Result<Place, Rejection> {
        self.lane.check_new(message)?;
        let operation = match message.view().kind() {
            PayloadKind::TRANSFER => Operation::read(&message.view(), || message.id()),
            _ => None,
        };
        if let Some(operation) = &operation {
            self.operations.applied(self.confirm.confirm.applied(self.confirm.confirm.lane()));
            self.operations.check(operation)?;
            self.confirm.confirm.check_operation(operation)?;
        }
        let [first, second] = message.view().parents();
        let parents: [Place; 2] = [
            self.lane.find(first).ok_or(Reason::UnknownParent.with(0, 0))?,
            self.lane.find(second).ok_or(Reason::UnknownParent.with(1, 0))?,
        ];
        let place = self.lane.push(message, parents)?;
        self.placed += 1;
        if let Some(operation) = operation {
            self.operations.insert(operation, place.position());
        }
        Ok(place)
    }

    /// Whether nothing may be appended yet: other nodes may know more of this lane than this node does.
    fn is_joining(&self) -> bool {
        !self.health.has_joined()
    }

    /// Whether a witness has to wait, for now or for good.
    fn is_held(&self) -> bool {
        self.is_joining() || self.health.state() == State::Poisoned
    }

    /// The refusal for every message, while the log takes none.
    fn refuse_all(&mut self) -> Option<Rejection> {
        match self.health.state() {
            State::Poisoned => return Some(Reason::LogFailed.with(0, 0)),
            _ if self.is_joining() => return Some(Reason::CatchingUp.with(0, 0)),
            _ => {}
        }
        self.look_for_room();
        if self.full_until.is_none() {
            // What cannot be confirmed for want of room is not taken: it would wait in the queues.
            let NoRoom { free_bytes, needed_bytes, .. } = self.health.full_elsewhere()?;
            return Some(Reason::LogFailed.with(free_bytes, needed_bytes));
        }
        let (free, watermark) = self.lane.free_space();
        Some(Reason::LogFailed.with(free, watermark))
    }

    /// The next batch; `Ok(None)`: none came, but a witness, or nothing in the meantime. While the disk is full it is looked at now and
    /// then, so that health tells when there is room again even if no client comes.
    fn next(&mut self, input: &Receiver<VerifiedBatch>) -> Result<Option<VerifiedBatch>, Disconnected> {
        let (full, held) = (self.full_until.is_some(), self.is_held() || self.orphan);
        if self.confirm.witness.is_some() && !full && !held {
            // Left over from a failed append, or from the run before.
            return Ok(input.try_recv().ok());
        }
        let wait = match (held, full) {
            (true, _) => HELD_LOOK,
            (_, true) => FULL_RETRY,
            _ => Duration::from_secs(3600),
        };
        // One at a time: that which waits is kept until it is in the log.
        let nothing = never();
        let waits = self.confirm.witness.is_some();
        select! {
            recv(input) -> batch => batch.map(Some).map_err(|_| Disconnected),
            recv(if waits { &nothing } else { &self.confirm.witnesses }) -> witness => {
                match witness {
                    Ok(witness) => self.confirm.witness = Some(witness),
                    // Confirmation has ended: the node is poisoned, or ends too.
                    Err(_) => self.confirm.witnesses = never(),
                }
                Ok(None)
            }
            default(wait) => {
                self.look_for_room();
                Ok(None)
            }
        }
    }

    /// Ends the state of a full disk once there is room, asked at most every [`FULL_RETRY`].
    fn look_for_room(&mut self) {
        let Some(until) = self.full_until else { return };
        if Instant::now() < until {
            return;
        }
        if self.lane.has_room() {
            self.full_until = None;
            self.health.found_room(Full::OwnLane);
        } else {
            self.full_until = Some(Instant::now() + FULL_RETRY);
        }
    }

    /// Seals and appends the open batch, if there is anything in it.
    fn flush(&mut self) -> Result<(), AppendError> {
        let Some(appended) = self.lane.append_open_batch()? else { return Ok(()) };
        self.health.written(appended.size);
        Counters::add(&self.counters.accepted, appended.messages);
        Counters::add(&self.counters.lane_batches, 1);
        Counters::add(&self.counters.lane_bytes, appended.bytes);
        if appended.digest.witness().is_some() {
            self.confirm.witness = None;
        }
        // Confirmation ends before the sequencer only when the node does.
        let _ = self.confirm.events.send(Event::Stored(appended.digest));
        Ok(())
    }

    /// After a failed append, with a `witness` in it or not, and `others`: it may fit where a longer batch did not, and if it does not even
    /// alone, there is no hurry.
    fn put_witness_off(&mut self, witness: bool, others: bool) {
        if witness {
            self.witness_after = (!others).then(|| Instant::now() + WITNESS_RETRY);
        }
    }

    /// An append failed: nothing of the group is acknowledged, and what the sequencer knows is made to match the log again.
    fn fail(&mut self, error: &AppendError, acks: Vec<PendingAck>) {
        let rejection = match error {
            AppendError::Full { free_bytes, watermark_bytes } => {
                let (free_bytes, needed_bytes) = (*free_bytes, *watermark_bytes);
                self.health
                    .found_full(Full::OwnLane, NoRoom { free_bytes, needed_bytes, cause: error.to_string() });
                self.full_until = Some(Instant::now() + FULL_RETRY);
                Reason::LogFailed.with(free_bytes, needed_bytes)
            }
            AppendError::Failed { .. } => {
                tracing::error!(%error, "an append to the log failed: nothing more is acknowledged");
                self.health.set_state(State::Poisoned, Some(error.to_string()));
                (self.confirm.witness, self.confirm.witnesses) = (None, never());
                Reason::LogFailed.with(0, 0)
            }
        };
        for ack in acks {
            ack.deliver_failed(rejection, &self.counters);
        }
        self.operations.retain_below(self.lane.size());
        if let Err(error) = self.lane.rebuild() {
            tracing::error!(%error, "the log cannot be read back");
            self.health.set_state(State::Poisoned, Some(error.to_string()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests")]
mod tests;
