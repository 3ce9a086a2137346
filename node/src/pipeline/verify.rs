//! The verify stage: worker threads that turn queued submits into verified batches.
//!
//! A worker takes one job, then everything else that is queued, up to its [`Gather`] target; checks every message in isolation; hands
//! all signatures to the batch verifier at once; and passes the batch on. Devices do the same beside them ([`super::devices`]). Jobs of sessions on probation ([`Suspects`]) are verified
//! together, after the others, so that no honest session pays for bad signatures.
//!
//! Workers share nothing but the queue and the probation list. Submits of one session may overtake each other here; within a submit
//! the order is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::Sender;
use weft_core::arena::{Arena, Unverified};
use weft_core::{Limits, MessageId, MessageView, Reason, Rejection, check_isolated};
use weft_crypto::simd::{Context, Hashes};
use weft_crypto::{BatchVerifier, Columns, Messages};

use super::gather::Gather;
use super::queue::JobQueue;
use super::share::Pace;
use super::suspects::Suspects;
use super::{Job, Outcome, VerifiedBatch, VerifiedJob};
use crate::stats::Counters;

/// Batches smaller than this say little about the CPU's pace under load.
const PACE_ROWS_MIN: usize = 64;

/// What every worker is given.
pub struct VerifyStage {
    /// Verifies batches on the CPU; one for all workers.
    pub verifier: Arc<dyn BatchVerifier>,
    /// CPU workers.
    pub workers: usize,
    /// Whether devices get every batch that is worth their while, instead of their share.
    pub devices_first: bool,
    /// What one CPU worker's batches take.
    pub pace: Mutex<Pace>,
    /// Hashes message ids.
    pub hashes: Hashes,
    /// The domain of message ids.
    pub id_context: Context,
    /// What the genesis allows.
    pub limits: Limits,
    /// Most messages of one call to the verifier.
    pub batch_messages_max: usize,
    /// Longest wait for company.
    pub linger: Duration,
    /// Statistics.
    pub counters: Arc<Counters>,
    /// Sessions on probation.
    pub suspects: Mutex<Suspects>,
}

impl std::fmt::Debug for VerifyStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyStage").field("verifier", &self.verifier.name()).finish_non_exhaustive()
    }
}

/// Whose jobs are verified together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Sessions that sent nothing bad lately.
    Trusted,
    /// Sessions on probation.
    Suspect,
}

/// Microseconds since the Unix epoch by this machine's clock.
pub fn unix_now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}

impl VerifyStage {
    /// A worker's life: until the queue is closed and empty, or nobody takes its results.
    pub fn run(&self, jobs: &JobQueue<Job>, out: &Sender<VerifiedBatch>) {
        let mut gather = Gather::new(self.batch_messages_max, self.linger);
        while let Some(batch) = jobs.take(&mut gather) {
            for (group, trust) in self.by_trust(batch) {
                let verified = self.verify(group, trust, &*self.verifier, |rows, time| {
                    // Batches of bad signatures say nothing about those of good ones.
                    if trust == Trust::Trusted {
                        self.learn(rows, time);
                    }
                });
                if out.send(verified).is_err() {
                    return jobs.abandon();
                }
            }
        }
    }

    /// The CPU's pace, from batches that are large enough to tell it.
    fn learn(&self, rows: usize, time: Duration) {
        if rows >= PACE_ROWS_MIN {
            self.pace.lock().unwrap_or_else(PoisonError::into_inner).learn(rows, time);
        }
    }

    /// The trusted sessions' jobs together, then those of all sessions on probation together: apart from each other they would be
    /// verified in batches of one, which costs far more than anything a bad signature does to a batch that expects it.
    pub(super) fn by_trust(&self, batch: Vec<Job>) -> Vec<(Vec<Job>, Trust)> {
        let (suspect, trusted): (Vec<Job>, Vec<Job>) = match self.suspects.lock() {
            Ok(suspects) => batch.into_iter().partition(|job| suspects.contains(job.session.id())),
            // A worker panicked while it held the list: that costs fairness, not correctness.
            Err(_) => (Vec::new(), batch),
        };
        let groups = [(trusted, Trust::Trusted), (suspect, Trust::Suspect)];
        groups.into_iter().filter(|(group, _)| !group.is_empty()).collect()
    }

    /// Checks every message of the jobs and verifies them by `verifier`; tells `took` how many signatures that were, and how long the
    /// whole of it took.
    pub(super) fn verify(
        &self,
        jobs: Vec<Job>,
        trust: Trust,
        verifier: &dyn BatchVerifier,
        took: impl FnOnce(usize, Duration),
    ) -> VerifiedBatch {
        let started = Instant::now();
        let now_us = unix_now_us();
        let messages = jobs.iter().map(|job| job.submit.len()).sum();
        let bytes = jobs.iter().map(|job| job.submit.bytes().len()).sum();
        // In isolation first; ids of what passes are hashed many at a time; then into the arena, in order.
        let mut views = Vec::with_capacity(messages);
        let mut refused = Vec::with_capacity(messages);
        for bytes in jobs.iter().flat_map(|job| job.submit.iter()) {
            let view = MessageView::parse(bytes).and_then(|view| {
                check_isolated(&view, &self.limits, now_us)?;
                Ok(view)
            });
            refused.push(view.map(|view| views.push(view)).err());
        }
        let contents: Vec<&[u8]> = views.iter().map(MessageView::content).collect();
        let mut ids = vec![[0; 32]; views.len()];
        self.hashes.derive(&self.id_context, &contents, &mut ids);
        let mut arena: Arena<Unverified> = Arena::new(messages, bytes);
        let mut rows = views.iter().zip(ids).map(|(view, id)| arena.push_with_id(view, MessageId(id)));
        let mut refused = refused.into_iter();
        let mut outcomes_of_jobs = Vec::with_capacity(jobs.len());
        for job in &jobs {
            let outcome = |refused: Option<Rejection>| match refused {
                Some(rejection) => Outcome::Rejected(rejection),
                // There is a row for every message that was not refused.
                None => match rows.next() {
                    Some(Ok(row)) => Outcome::Verified(row),
                    Some(Err(rejection)) => Outcome::Rejected(rejection),
                    None => Outcome::Rejected(Reason::Overloaded.with(0, 0)),
                },
            };
            let outcomes: Vec<Outcome> = refused.by_ref().take(job.submit.len()).map(outcome).collect();
            outcomes_of_jobs.push(outcomes);
        }
        drop(rows);
        drop(views);
        let mut checked: Vec<VerifiedJob> = jobs
            .into_iter()
            .zip(outcomes_of_jobs)
            .map(|(Job { submit, session, permit }, outcomes)| VerifiedJob {
                request_id: submit.request_id(),
                session,
                permit,
                outcomes,
            })
            .collect();
        let mut verdicts = vec![false; arena.len()];
        if !verdicts.is_empty() {
            let columns = Columns {
                keys: arena.keys(),
                messages: Messages::Ids(arena.ids()),
                signatures: arena.signatures(),
            };
            match trust {
                Trust::Trusted => verifier.verify(&columns, &mut verdicts),
                Trust::Suspect => verifier.verify_suspect(&columns, &mut verdicts),
            }
            took(verdicts.len(), started.elapsed());
            Counters::add(&self.counters.signatures, verdicts.len() as u64);
            Counters::add(&self.counters.verify_batches, 1);
        }
        self.settle(&mut checked, &verdicts);
        VerifiedBatch { arena: arena.verify_with(&verdicts), jobs: checked }
    }

    /// Turns bad verdicts into rejections, counts them, and keeps the probation list.
    fn settle(&self, jobs: &mut [VerifiedJob], verdicts: &[bool]) {
        for job in jobs.iter_mut() {
            let mut bad = false;
            for outcome in &mut job.outcomes {
                if let Outcome::Verified(row) = *outcome
                    && !verdicts[row]
                {
                    *outcome = Outcome::Rejected(Reason::BadSignature.with(0, 0));
                    bad = true;
                }
                if let Outcome::Rejected(rejection) = outcome {
                    self.counters.reject(rejection.reason);
                }
            }
            // Only the list's own lock: a poisoned one (a worker panicked) costs fairness, not correctness.
            if let Ok(mut suspects) = self.suspects.lock() {
                suspects.observe(job.session.id(), bad);
            }
        }
    }
}
