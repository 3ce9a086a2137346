//! Acks of level `certified` and `final`: durable already, held until the own lane's watermark covers their messages.
//!
//! Owns the waiting acks. Invariants: an ack leaves with its level only when the watermark has reached its lane size; what waits is
//! bounded, in acks ([`ACKS_MAX`]), in the bytes of the pipeline's budget that it holds (a share that the owner gives, so that a
//! committee without a quorum never stops clients who ask for less) and in time ([`WAIT_MAX`]). What runs over any bound is answered
//! `not_confirmed`: the messages are durable, and the client may ask for them later. Sizes rise but for submits of nothing new, since the
//! committer releases groups in the order of the lane; one that comes behind a larger one waits for it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weft_core::{Reason, Rejection};
use weft_net::AckLevel;

use crate::pipeline::{PendingAck, Waiting};
use crate::stats::Counters;

/// Acks that wait at a time.
pub const ACKS_MAX: usize = 1 << 16;

/// Longest wait: hundreds of rounds, and still before a client's own patience ends.
pub const WAIT_MAX: Duration = Duration::from_secs(20);

struct Held<A> {
    size: u64,
    since: Instant,
    weight: usize,
    ack: A,
}

struct Inner<A> {
    /// Waiting for the certified and for the final watermark.
    waiting: [VecDeque<Held<A>>; 2],
    /// How far they are.
    reached: [u64; 2],
    weight: usize,
    /// Nothing will be confirmed any more: why.
    closed: Option<Rejection>,
}

/// The waiting acks.
pub struct ConfirmAcks<A = PendingAck> {
    inner: Mutex<Inner<A>>,
    weight_max: usize,
}

impl<A> std::fmt::Debug for ConfirmAcks<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfirmAcks").finish_non_exhaustive()
    }
}

/// Which queue an ack of `level` waits in; `None` if it waits for nothing beyond the disk.
fn queue_of(level: AckLevel) -> Option<usize> {
    match level {
        AckLevel::Certified => Some(0),
        AckLevel::Final => Some(1),
        _ => None,
    }
}

impl<A: Waiting> ConfirmAcks<A> {
    /// No acks; those to come may hold `weight_max` bytes of the pipeline's budget.
    pub fn new(weight_max: usize) -> Self {
        let inner =
            Inner { waiting: [VecDeque::new(), VecDeque::new()], reached: [0; 2], weight: 0, closed: None };
        Self { inner: Mutex::new(inner), weight_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<A>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an ack whose messages are durable: it leaves now or when the watermark covers them.
    pub fn hold(&self, ack: A, counters: &Counters) {
        let size = ack.covered_by();
        let Some(queue) = queue_of(ack.level()) else { return ack.deliver() };
        let mut inner = self.lock();
        if inner.reached[queue] >= size {
            drop(inner);
            return ack.deliver();
        }
        if let Some(why) = inner.closed {
            drop(inner);
            return ack.deliver_unconfirmed(why, counters);
        }
        let weight = ack.weight();
        inner.weight += weight;
        inner.waiting[queue].push_back(Held { size, since: Instant::now(), weight, ack });
        let mut over = Vec::new();
        while inner.weight > self.weight_max || inner.waiting[queue].len() > ACKS_MAX {
            // The oldest of the fuller queue.
            let fuller = usize::from(inner.waiting[1].len() > inner.waiting[0].len());
            let Some(held) = inner.waiting[fuller].pop_front() else { break };
            inner.weight -= held.weight;
            over.push(held.ack);
        }
        drop(inner);
        over.into_iter().for_each(|ack| refuse(ack, counters));
    }

    /// The own lane is certified or final up to `size`, resting on durable votes.
    pub fn reached(&self, level: AckLevel, size: u64) {
        let Some(queue) = queue_of(level) else { return };
        let mut ready = Vec::new();
        let mut inner = self.lock();
        // What is final is certified.
        for queue in 0..=queue {
            inner.reached[queue] = inner.reached[queue].max(size);
            while inner.waiting[queue].front().is_some_and(|held| held.size <= size) {
                let Some(held) = inner.waiting[queue].pop_front() else { break };
                inner.weight -= held.weight;
                ready.push(held.ack);
            }
        }
        drop(inner);
        ready.into_iter().for_each(Waiting::deliver);
    }

    /// Answers those that have waited for longer than [`WAIT_MAX`].
    pub fn expire(&self, now: Instant, counters: &Counters) {
        let mut late = Vec::new();
        let mut inner = self.lock();
        let is_late = |held: &Held<A>| now.saturating_duration_since(held.since) > WAIT_MAX;
        for queue in 0..2 {
            while inner.waiting[queue].front().is_some_and(is_late) {
                let Some(held) = inner.waiting[queue].pop_front() else { break };
                inner.weight -= held.weight;
                late.push(held.ack);
            }
        }
        drop(inner);
        late.into_iter().for_each(|ack| refuse(ack, counters));
    }

    /// Nothing will be confirmed any more: answers everything that waits, and whatever still comes.
    pub fn close(&self, why: Rejection, counters: &Counters) {
        let mut inner = self.lock();
        inner.closed.get_or_insert(why);
        inner.weight = 0;
        let waiting: Vec<Held<A>> = inner.waiting.iter_mut().flat_map(std::mem::take).collect();
        drop(inner);
        waiting.into_iter().for_each(|held| held.ack.deliver_unconfirmed(why, counters));
    }

    /// Acks that wait.
    pub fn len(&self) -> usize {
        self.lock().waiting.iter().map(VecDeque::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Durable is what everything that waits is.
fn refuse<A: Waiting>(ack: A, counters: &Counters) {
    let (reached, wanted) = (AckLevel::Durable.code(), ack.level().code());
    ack.deliver_unconfirmed(Reason::NotConfirmed.with(reached.into(), wanted.into()), counters);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Told {
        Delivered,
        Unconfirmed(Reason),
    }

    struct TestAck(AckLevel, u64, u32, Arc<Mutex<Vec<(u32, Told)>>>);

    impl Waiting for TestAck {
        fn level(&self) -> AckLevel {
            self.0
        }

        fn covered_by(&self) -> u64 {
            self.1
        }

        fn weight(&self) -> usize {
            10
        }

        fn deliver(self) {
            self.3.lock().unwrap().push((self.2, Told::Delivered));
        }

        fn deliver_failed(self, _: Rejection, _: &Counters) {
            unreachable!("the log is well");
        }

        fn deliver_unconfirmed(self, why: Rejection, _: &Counters) {
            self.3.lock().unwrap().push((self.2, Told::Unconfirmed(why.reason)));
        }
    }

    struct Bench {
        acks: ConfirmAcks<TestAck>,
        told: Arc<Mutex<Vec<(u32, Told)>>>,
        counters: Counters,
    }

    impl Bench {
        fn new(weight_max: usize) -> Self {
            Self { acks: ConfirmAcks::new(weight_max), told: Arc::default(), counters: Counters::default() }
        }

        fn hold(&self, number: u32, level: AckLevel, size: u64) {
            self.acks.hold(TestAck(level, size, number, self.told.clone()), &self.counters);
        }

        fn told(&self) -> Vec<(u32, Told)> {
            std::mem::take(&mut self.told.lock().unwrap())
        }
    }

    #[test]
    fn an_ack_leaves_when_its_own_watermark_covers_it_and_not_before() {
        let bench = Bench::new(1000);
        bench.hold(1, AckLevel::Durable, 10);
        assert_eq!(bench.told(), [(1, Told::Delivered)], "nothing to wait for");
        bench.hold(2, AckLevel::Certified, 10);
        bench.hold(3, AckLevel::Final, 10);
        bench.hold(4, AckLevel::Final, 20);
        bench.acks.reached(AckLevel::Certified, 9);
        assert_eq!(bench.told(), []);
        bench.acks.reached(AckLevel::Certified, 20);
        assert_eq!(bench.told(), [(2, Told::Delivered)]);
        bench.acks.reached(AckLevel::Final, 10);
        assert_eq!(bench.told(), [(3, Told::Delivered)]);
        bench.hold(5, AckLevel::Final, 10);
        assert_eq!(bench.told(), [(5, Told::Delivered)], "final already");
        assert_eq!(bench.acks.len(), 1);
        bench.acks.close(Reason::ShuttingDown.with(0, 0), &bench.counters);
        bench.hold(6, AckLevel::Final, 30);
        let why = || Told::Unconfirmed(Reason::ShuttingDown);
        assert_eq!(bench.told(), [(4, why()), (6, why())]);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_time_and_the_oldest_is_told_so() {
        let bench = Bench::new(30);
        for number in 0..5 {
            bench.hold(number, AckLevel::Final, 100);
        }
        let late = || Told::Unconfirmed(Reason::NotConfirmed);
        assert_eq!(bench.told(), [(0, late()), (1, late())], "three hold all the bytes that there are");
        bench.acks.expire(Instant::now() + WAIT_MAX / 2, &bench.counters);
        assert_eq!(bench.told(), []);
        bench.acks.expire(Instant::now() + 2 * WAIT_MAX, &bench.counters);
        assert_eq!(bench.told(), [(2, late()), (3, late()), (4, late())]);
        assert!(bench.acks.is_empty());
    }
}
