//! The ingest pipeline: from a client's Submit to its Ack, in batches, through three kinds of threads.
//!
//! ```text
//! sessions (tokio) --Job--> verify workers --VerifiedBatch--> sequencer --Group--> committer --Ack--> sessions
//!          ^ byte budget                                       append (write)      fdatasync
//! ```
//!
//! * [`queue`]: the one queue of submits, from which CPU workers and devices take ([`share`]: who gets how much).
//! * [`verify`]: takes everything that queued up, checks each message in isolation, verifies all signatures in one batch.
//! * [`devices`]: the same, with the signatures verified by a GPU.
//! * [`sequence`]: one thread; replay window, duplicates, parents; gives each message its place; seals and appends lane batches.
//! * [`commit`]: one thread; one data sync for everything appended meanwhile, then the acks that waited for it. Those of level `certified`
//!   and `final` wait on for [`confirm`](crate::confirm).
//!
//! Memory: a job holds a permit for its bytes from the moment it is taken until its ack is handed over, and the sum of all permits is
//! a constant of the configuration. The queues between the stages need no bound of their own: what is in them is paid for.
//! Backpressure: a session that finds no budget waits, reads nothing more, and QUIC's flow control stops the client.

pub mod commit;
pub mod devices;
pub mod gather;
pub mod queue;
pub mod sequence;
pub mod share;
pub mod suspects;
pub mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_core::arena::{Arena, Verified};
use weft_core::{MessageId, Rejection};
use weft_net::{Ack, AckException, AckLevel, SessionHandle, Submit};

use crate::stats::Counters;

/// What a message costs in memory beside its bytes: columns, outcome, its share of queues. Counted against the byte budget.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// What a submit costs in memory beside its messages.
pub const SUBMIT_OVERHEAD_BYTES: usize = 1024;

/// The byte budget of the whole pipeline.
#[derive(Debug, Clone)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    bytes_max: usize,
    messages: Arc<AtomicU64>,
}

/// A submit's share of the budget; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    bytes: OwnedSemaphorePermit,
    messages: u64,
    counter: Arc<AtomicU64>,
}

impl Permit {
    /// Bytes of the budget that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.num_permits()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.messages, Ordering::Relaxed);
    }
}

impl Budget {
    /// A budget of `bytes_max` bytes. At least one submit of the largest size always fits.
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(bytes_max)), bytes_max, messages: Arc::default() }
    }

    /// Waits until the submit fits. `None` when the budget was closed: the node is stopping.
    pub async fn acquire(&self, submit: &Submit) -> Option<Permit> {
        let bytes = submit.bytes().len() + submit.len() * MESSAGE_OVERHEAD_BYTES + SUBMIT_OVERHEAD_BYTES;
        let permits = u32::try_from(bytes.min(self.bytes_max)).unwrap_or(u32::MAX);
        let bytes = self.semaphore.clone().acquire_many_owned(permits).await.ok()?;
        let messages = submit.len() as u64;
        self.messages.fetch_add(messages, Ordering::Relaxed);
        Some(Permit { bytes, messages, counter: self.messages.clone() })
    }

    /// Messages in the pipeline now, and how many of the shortest ones it could hold.
    pub fn fill_messages(&self) -> (u64, u64) {
        let most = self.bytes_max / (weft_core::MESSAGE_BYTES_MIN + MESSAGE_OVERHEAD_BYTES);
        (self.messages.load(Ordering::Relaxed), most as u64)
    }

    /// Wakes everybody who waits, with `None`.
    pub fn close(&self) {
        self.semaphore.close();
    }
}

/// One submit on its way through the verify stage.
#[derive(Debug)]
pub struct Job {
    /// The messages.
    pub submit: Submit,
    /// Who waits for the ack.
    pub session: SessionHandle,
    /// Its share of the byte budget; dropped with the ack.
    pub permit: Permit,
}

impl queue::Weighed for Job {
    fn messages(&self) -> usize {
        self.submit.len()
    }
}

/// What became of one message in the verify stage.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// Its signature is valid; the row of its batch's arena.
    Verified(usize),
    /// It was refused.
    Rejected(Rejection),
}

/// One submit after the verify stage: an outcome per message, in the order of the submit.
#[derive(Debug)]
pub struct VerifiedJob {
    /// The client's number for it.
    pub request_id: u64,
    /// Who waits for the ack.
    pub session: SessionHandle,
    /// Its share of the byte budget.
    pub permit: Permit,
    /// An outcome per message.
    pub outcomes: Vec<Outcome>,
}

/// Several submits whose messages were verified together.
#[derive(Debug)]
pub struct VerifiedBatch {
    /// The messages with valid signatures.
    pub arena: Arena<Verified>,
    /// The submits they came in.
    pub jobs: Vec<VerifiedJob>,
}

/// An ack that is ready but for the durability it states.
#[derive(Debug)]
pub struct PendingAck {
    session: SessionHandle,
    ack: Ack,
    /// Size of the own lane that covers every message of it that is stored.
    covered_by: u64,
    /// Gives the bytes back to the budget when the ack has left.
    permit: Permit,
}

impl PendingAck {
    /// An ack for the submit `request_id`, with the messages that were refused and fresh tips. The own lane covers those that are stored
    /// once it is confirmed up to `covered_by`.
    pub fn new(
        session: SessionHandle,
        request_id: u64,
        count: usize,
        exceptions: Vec<AckException>,
        tips: Vec<MessageId>,
        covered_by: u64,
        permit: Permit,
    ) -> Self {
        let level = session.ack_level();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self { session, ack: Ack { request_id, level, count, exceptions, tips }, covered_by, permit }
    }

    /// Refuses every message that has no exception yet.
    fn refuse_rest(&mut self, rejection: Rejection, counters: &Counters) {
        let mut own = std::mem::take(&mut self.ack.exceptions).into_iter().peekable();
        let mut refused = 0;
        self.ack.exceptions = (0..self.ack.count)
            .map(|index| match own.next_if(|exception| exception.index == index) {
                Some(exception) => exception,
                None => {
                    refused += 1;
                    AckException::new(index, rejection)
                }
            })
            .collect();
        counters.reject_many(rejection.reason, refused);
    }
}

/// What waits for a sync: an ack, or a test's stand-in for one.
pub trait Waiting: Send {
    /// The level that was asked for.
    fn level(&self) -> AckLevel;

    /// Size of the own lane that covers all that it speaks of: what has to be certified or final before it leaves with such a level.
    /// What was refused needs nothing, and the lane may end in a witness that nobody has to confirm.
    fn covered_by(&self) -> u64;

    /// Bytes of the pipeline's budget that it holds.
    fn weight(&self) -> usize;

    /// Lets it go: what it says has come true.
    fn deliver(self);

    /// Lets it go with every message refused for `rejection`, whatever was found out about it: nothing about durability can be said.
    /// Messages that were refused for a reason of their own keep it; the others are counted before the client can see its ack.
    fn deliver_failed(self, rejection: Rejection, counters: &Counters);

    /// Lets it go although its level was not reached: what is known of its messages stays, the others get `rejection`.
    fn deliver_unconfirmed(self, rejection: Rejection, counters: &Counters);
}

impl Waiting for PendingAck {
    fn level(&self) -> AckLevel {
        self.ack.level
    }

    fn covered_by(&self) -> u64 {
        self.covered_by
    }

    fn weight(&self) -> usize {
        self.permit.bytes()
    }

    /// A client that is gone gets nothing, and nothing else happens.
    fn deliver(self) {
        let _ = self.session.ack(self.ack);
    }

    fn deliver_failed(mut self, rejection: Rejection, counters: &Counters) {
        self.ack.exceptions.retain(|exception| exception.reason() != Some(weft_core::Reason::Duplicate));
        self.refuse_rest(rejection, counters);
        self.ack.tips.clear();
        self.deliver();
    }

    fn deliver_unconfirmed(mut self, rejection: Rejection, counters: &Counters) {
        self.refuse_rest(rejection, counters);
        self.deliver();
    }
}
