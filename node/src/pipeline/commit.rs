//! The committer: one thread that makes appended batches durable and lets go of the acks that waited for it.
//!
//! Group commit: whatever was appended while one data sync ran is covered by the next, so that the number of syncs follows the
//! disk's speed and not the number of messages. Acks leave only after a sync that began after their messages were appended has
//! returned. The first sync that fails ends all acking: every ack that waits, and every later one, says `log_failed`.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Receiver;
use weft_core::{MessageId, Reason};

use super::{PendingAck, Waiting};
use crate::health::{Health, State};
use crate::stats::Counters;

/// Something that makes all appends so far durable. The log's syncer; a seam so that tests can fail it.
pub trait Sync: Send {
    /// Makes everything appended before the call durable and returns the size of the lane that now is.
    ///
    /// # Errors
    /// What went wrong. After an error the log takes nothing more.
    fn sync(&self) -> Result<u64, String>;
}

/// What the sequencer hands over after its appends.
#[derive(Debug)]
pub struct Group<A = PendingAck> {
    /// Size of the lane that must be durable before the acks may leave.
    pub size: u64,
    /// The acks that wait for it.
    pub acks: Vec<A>,
    /// Tips that may be handed out once the group is durable; empty: keep the former ones.
    pub tips: Vec<MessageId>,
}

/// What comes after the sync: confirmation, which is told what is durable and takes the acks that wait for more.
pub trait Confirming<A>: Send {
    /// The lane is durable up to `size`.
    fn durable(&self, size: u64);

    /// An ack whose messages are durable: lets it go when its level is reached.
    fn hold(&self, ack: A);
}

/// The committer's parts.
pub struct Committer<S, C> {
    /// Makes appends durable.
    pub syncer: S,
    /// Takes what is durable.
    pub confirming: C,
    /// Statistics.
    pub counters: Arc<Counters>,
    /// Where the watermark is published.
    pub health: Arc<Health>,
    /// Durable tips for clients that ask without sending.
    pub published_tips: Arc<std::sync::Mutex<Vec<MessageId>>>,
}

impl<S, C> std::fmt::Debug for Committer<S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl<S: Sync, C> Committer<S, C> {
    /// The committer's life: until the sequencer is gone and everything it appended is durable.
    pub fn run<A: Waiting>(self, groups: &Receiver<Group<A>>)
    where
        C: Confirming<A>,
    {
        let mut durable = 0u64;
        while let Ok(first) = groups.recv() {
            let mut waiting = vec![first];
            waiting.extend(groups.try_iter());
            let target = waiting.iter().map(|group| group.size).max().unwrap_or(0);
            if target > durable {
                let start = Instant::now();
                match self.syncer.sync() {
                    Ok(size) => {
                        durable = size;
                        self.health.durable(size);
                        self.confirming.durable(size);
                        Counters::add(&self.counters.syncs, 1);
                        let us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                        Counters::add(&self.counters.sync_us, us);
                    }
                    Err(cause) => {
                        tracing::error!(%cause, "a sync of the log failed: nothing more is acknowledged");
                        self.health.set_state(State::Poisoned, Some(cause));
                    }
                }
            }
            for group in waiting {
                self.release(group, durable);
            }
        }
    }

    fn release<A: Waiting>(&self, group: Group<A>, durable: u64)
    where
        C: Confirming<A>,
    {
        // A poisoned log may hold the group's bytes or not: nothing is said for them.
        let kept = group.size <= durable;
        if kept
            && !group.tips.is_empty()
            && let Ok(mut tips) = self.published_tips.lock()
        {
            *tips = group.tips;
        }
        for ack in group.acks {
            if kept {
                self.confirming.hold(ack);
            } else {
                ack.deliver_failed(Reason::LogFailed.with(0, 0), &self.counters);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
    use weft_core::Rejection;

    use super::*;

    /// A disk whose syncs wait for a word, and fail when told to.
    struct GatedSync {
        gate: Receiver<()>,
        broken: Arc<AtomicBool>,
        size: u64,
    }

    impl Sync for GatedSync {
        fn sync(&self) -> Result<u64, String> {
            self.gate.recv().map_err(|_| "the test is over".to_owned())?;
            if self.broken.load(Ordering::Relaxed) { Err("injected".to_owned()) } else { Ok(self.size) }
        }
    }

    /// An ack that tells the test what became of it.
    struct TestAck {
        number: u32,
        told: Sender<(u32, bool)>,
    }

    /// Nothing above durable.
    struct Nothing;

    impl Confirming<TestAck> for Nothing {
        fn durable(&self, _: u64) {}

        fn hold(&self, ack: TestAck) {
            ack.deliver();
        }
    }

    impl Waiting for TestAck {
        fn level(&self) -> weft_net::AckLevel {
            weft_net::AckLevel::Durable
        }

        fn covered_by(&self) -> u64 {
            0
        }

        fn weight(&self) -> usize {
            0
        }

        fn deliver(self) {
            let _ = self.told.send((self.number, true));
        }

        fn deliver_failed(self, rejection: Rejection, counters: &Counters) {
            counters.reject(rejection.reason);
            let _ = self.told.send((self.number, false));
        }

        fn deliver_unconfirmed(self, rejection: Rejection, counters: &Counters) {
            self.deliver_failed(rejection, counters);
        }
    }

    struct Bench {
        groups: Sender<Group<TestAck>>,
        gate: Sender<()>,
        broken: Arc<AtomicBool>,
        told: Receiver<(u32, bool)>,
        tell: Sender<(u32, bool)>,
        health: Arc<Health>,
        counters: Arc<Counters>,
    }

    impl Bench {
        fn new() -> Self {
            let (groups, taken) = unbounded();
            let (gate, opened) = bounded(16);
            let (tell, told) = unbounded();
            let (health, counters) = (Arc::new(Health::new()), Arc::new(Counters::default()));
            let broken = Arc::new(AtomicBool::new(false));
            let committer = Committer {
                syncer: GatedSync { gate: opened, broken: broken.clone(), size: 100 },
                confirming: Nothing,
                counters: counters.clone(),
                health: health.clone(),
                published_tips: Arc::default(),
            };
            std::thread::spawn(move || committer.run(&taken));
            Self { groups, gate, broken, told, tell, health, counters }
        }

        fn send(&self, number: u32, size: u64) {
            let ack = TestAck { number, told: self.tell.clone() };
            self.groups.send(Group { size, acks: vec![ack], tips: Vec::new() }).expect("the committer lives");
        }

        fn told(&self) -> Option<(u32, bool)> {
            self.told.recv_timeout(Duration::from_secs(5)).ok()
        }
    }

    #[test]
    fn no_ack_leaves_before_the_sync_that_covers_it_has_returned() {
        let bench = Bench::new();
        bench.send(1, 10);
        assert_eq!(
            bench.told.recv_timeout(Duration::from_millis(100)).ok(),
            None,
            "the sync has not returned yet"
        );
        bench.gate.send(()).expect("the committer waits");
        assert_eq!(bench.told(), Some((1, true)));
        assert_eq!(bench.health.durable_size(), 100);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
        let bench = Bench::new();
        bench.broken.store(true, Ordering::Relaxed);
        bench.gate.send(()).expect("the committer waits");
        bench.send(1, 10);
        assert_eq!(bench.told(), Some((1, false)));
        assert_eq!(bench.health.state(), State::Poisoned);
        bench.gate.send(()).expect("the committer waits");
        bench.send(2, 20);
        assert_eq!(bench.told(), Some((2, false)));
        assert_eq!(bench.counters.rejected(Reason::LogFailed), 2);
    }

    #[test]
    fn what_is_durable_already_needs_no_further_sync() {
        let bench = Bench::new();
        bench.gate.send(()).expect("the committer waits");
        bench.send(1, 10);
        assert_eq!(bench.told(), Some((1, true)));
        bench.send(2, 50);
        assert_eq!(bench.told(), Some((2, true)), "the first sync covered 100 positions");
    }
}
