//! Confirmation in the node: the shell around [`weft_core::confirm::Machine`].
//!
//! ```text
//! sequencer --sealed batch-->            --witness--> sequencer (before waiting client messages)
//! logs ------durable sizes-->    driver   --votes----> disk, before the witness leaves
//!                                        --marks----> acks, parents, status
//! ```
//!
//! * [`driver`]: the one thread that gives the machine its inputs and does what it asks for, in order.
//! * [`events`]: its queue.
//! * [`record`]: votes and witness on the disk, one record.
//! * [`forks`]: proofs of forks on the disk.
//! * [`acks`]: acks of level `certified` and `final`, held until the own lane's watermark covers them.
//!
//! This file owns what others may ask: watermarks without a lock, the machine under one. Invariants: a watermark is published only when
//! the votes that it rests on are durable here; marks never fall. A committee of one runs the same code as one of many.

pub mod acks;
pub mod driver;
pub mod events;
pub mod forks;
pub mod record;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weft_core::confirm::{Machine, Operation, Setup, Watermarks};
use weft_core::{LaneId, Reason, Rejection};

/// One lane's watermarks, in positions.
#[derive(Debug, Default)]
struct LaneMarks {
    held: AtomicU64,
    applied: AtomicU64,
    certified: AtomicU64,
    final_size: AtomicU64,
    /// Bits of [`Fault`].
    faults: AtomicU64,
}

/// What confirmation has seen since the start. Statistics.
#[derive(Debug, Default)]
pub struct ConfirmCounters {
    /// Witnesses that this node has made.
    pub witnesses: AtomicU64,
    /// Records of votes written, and microseconds spent in that.
    pub votes_written: AtomicU64,
    /// Microseconds spent in writing them.
    pub votes_us: AtomicU64,
    /// Operations that are final.
    pub operations_final: AtomicU64,
    /// Lanes that were signed two ways, as seen here.
    pub forks: AtomicU64,
    /// Lanes that ended before an ill-formed batch.
    pub ended: AtomicU64,
    /// Validators that signed two witnesses with one number.
    pub equivocations: AtomicU64,
}

/// What a node has done that proves it dishonest, or its directory a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its lane was signed two ways.
    Forked = 1,
    /// Its lane ends before a batch that is not well formed.
    Ended = 2,
    /// It signed two witnesses with one number.
    Equivocated = 4,
}

/// Confirmation as the rest of the node sees it.
#[derive(Debug)]
pub struct Confirm {
    machine: Mutex<Machine>,
    lane: LaneId,
    marks: Vec<LaneMarks>,
    silenced: AtomicBool,
    restoring: AtomicBool,
    /// Rises whenever a certified or final watermark does, or a fault is found.
    moved: tokio::sync::watch::Sender<u64>,
    /// Statistics.
    pub counters: ConfirmCounters,
}

impl Confirm {
    /// Confirmation with this machine, at the node of `lane`.
    pub fn new(machine: Machine, lane: LaneId) -> Self {
        let marks = (0..machine.setup().lanes).map(|_| LaneMarks::default()).collect();
        Self {
            machine: Mutex::new(machine),
            lane,
            marks,
            silenced: AtomicBool::new(false),
            restoring: AtomicBool::new(false),
            moved: tokio::sync::watch::Sender::new(0),
            counters: ConfirmCounters::default(),
        }
    }

    /// The machine. Held for a question or an input, never across I/O.
    fn machine(&self) -> MutexGuard<'_, Machine> {
        // An input that panicked has poisoned the node; questions may still be answered.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the machine. What `question` does delays confirmation, so it is short.
    pub fn ask<T>(&self, question: impl FnOnce(&Machine) -> T) -> T {
        question(&self.machine())
    }

    /// This node's lane.
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// Lanes.
    pub fn lanes(&self) -> usize {
        self.marks.len()
    }

    /// How far `lane` is, as far as that rests on durable votes; zeros for a lane that does not exist.
    pub fn marks(&self, lane: LaneId) -> Watermarks {
        let load = |mark: fn(&LaneMarks) -> &AtomicU64| {
            self.marks.get(usize::from(lane.0)).map_or(0, |marks| mark(marks).load(Ordering::Acquire))
        };
        Watermarks {
            final_size: load(|marks| &marks.final_size),
            certified: load(|marks| &marks.certified),
            applied: load(|marks| &marks.applied),
            held: load(|marks| &marks.held),
        }
    }

    /// Up to where `lane` is final here.
    pub fn final_size(&self, lane: LaneId) -> u64 {
        self.marks.get(usize::from(lane.0)).map_or(0, |marks| marks.final_size.load(Ordering::Acquire))
    }

    /// Up to where `lane` is applied here.
    pub fn applied(&self, lane: LaneId) -> u64 {
        self.marks.get(usize::from(lane.0)).map_or(0, |marks| marks.applied.load(Ordering::Acquire))
    }

    fn fault(&self, lane: LaneId, fault: Fault) {
        if let Some(marks) = self.marks.get(usize::from(lane.0)) {
            marks.faults.fetch_or(fault as u64, Ordering::AcqRel);
            self.tell_moved();
        }
    }

    fn tell_moved(&self) {
        self.moved.send_modify(|moved| *moved = moved.wrapping_add(1));
    }

    /// For whoever waits for a watermark to rise, or a fault to be found.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// What the node of `lane` was found to have done: bits of [`Fault`].
    pub fn fault_bits(&self, lane: LaneId) -> u8 {
        let bits = self.marks.get(usize::from(lane.0)).map(|marks| marks.faults.load(Ordering::Acquire));
        // All bits of a fault are among the low three.
        bits.unwrap_or(0) as u8
    }

    /// What the node of `lane` was found to have done.
    pub fn faults(&self, lane: LaneId) -> Vec<Fault> {
        let bits =
            self.marks.get(usize::from(lane.0)).map_or(0, |marks| marks.faults.load(Ordering::Acquire));
        let all = [Fault::Forked, Fault::Ended, Fault::Equivocated];
        all.into_iter().filter(|fault| bits & *fault as u64 != 0).collect()
    }

    /// Whether this validator states nothing any more: its disk has forgotten a witness that it has signed.
    pub fn is_silenced(&self) -> bool {
        self.silenced.load(Ordering::Acquire)
    }

    /// Whether final is still coming back after a restart: operations are not judged before.
    pub fn is_restoring(&self) -> bool {
        self.restoring.load(Ordering::Acquire)
    }

    pub(crate) fn publish(&self, lane: LaneId, marks: &Watermarks) {
        let Some(to) = self.marks.get(usize::from(lane.0)) else { return };
        // What is held and applied can fall when a copy changes; the other two never do.
        to.held.store(marks.held, Ordering::Release);
        to.applied.store(marks.applied, Ordering::Release);
        let certified = to.certified.fetch_max(marks.certified, Ordering::AcqRel);
        let final_size = to.final_size.fetch_max(marks.final_size, Ordering::AcqRel);
        if certified < marks.certified || final_size < marks.final_size {
            self.tell_moved();
        }
    }

    /// Whether this node may append the operation to its lane.
    ///
    /// # Errors
    /// The named reason why not.
    pub fn check_operation(&self, operation: &Operation) -> Result<(), Rejection> {
        let machine = self.machine();
        if machine.may_append(operation) {
            return Ok(());
        }
        if self.is_restoring() {
            return Err(Reason::CatchingUp.with(0, 0));
        }
        let account = machine.ledger().account(&operation.account);
        let (next, balance) = account.map_or((0, 0), |account| (account.next, account.balance));
        Err(if operation.sequence != next {
            Reason::AccountSequence.with(operation.sequence, next)
        } else if operation.amount > balance {
            Reason::InsufficientBalance.with(operation.amount, balance)
        } else {
            Reason::OperationConflict.with(operation.sequence, 0)
        })
    }
}

/// The machine of a node that starts: with the votes of the last run, if there are any.
pub fn machine(setup: Setup, votes: Option<&weft_core::confirm::Votes>) -> Machine {
    match votes {
        Some(votes) => Machine::restore(setup, weft_core::confirm::Strict, votes),
        None => Machine::new(setup),
    }
}
