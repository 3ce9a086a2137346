//! The committer: one thread that makes appended batches durable and lets go of the acks that waited for it.
//!
//! Group commit: whatever was appended while one data sync ran is covered by the next, so that the number of syncs follows the
//! disk's speed and not the number of messages. Acks leave only after a sync that began after their messages were appended has
//! returned. The first sync that fails ends all acking: every ack that waits, and every later one, says `log_failed`.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Receiver;
use weft_core::{MessageId, Reason};

use super::PendingAck;
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
pub struct Group {
    /// Size of the lane that must be durable before the acks may leave.
    pub size: u64,
    /// The acks that wait for it.
    pub acks: Vec<PendingAck>,
    /// Tips that may be handed out once the group is durable; empty: keep the former ones.
    pub tips: Vec<MessageId>,
}

/// The committer's parts.
pub struct Committer<S> {
    /// Makes appends durable.
    pub syncer: S,
    /// Statistics.
    pub counters: Arc<Counters>,
    /// Where the watermark is published.
    pub health: Arc<Health>,
    /// Durable tips for clients that ask without sending.
    pub published_tips: Arc<std::sync::Mutex<Vec<MessageId>>>,
}

impl<S> std::fmt::Debug for Committer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer").finish_non_exhaustive()
    }
}

impl<S: Sync> Committer<S> {
    /// The committer's life: until the sequencer is gone and everything it appended is durable.
    pub fn run(self, groups: &Receiver<Group>) {
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

    fn release(&self, group: Group, durable: u64) {
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
                ack.deliver();
            } else {
                let failed = ack.deliver_failed(Reason::LogFailed.with(0, 0));
                self.counters.reject_many(Reason::LogFailed, failed);
            }
        }
    }
}
