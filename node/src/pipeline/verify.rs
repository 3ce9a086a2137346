//! The verify stage: worker threads that turn queued submits into verified batches.
//!
//! A worker takes one job, then everything else that is queued, up to its [`Gather`] target; checks every message in isolation; hands
//! all signatures to the batch verifier at once; and passes the batch on. Devices do the same beside them ([`super::devices`]). Jobs of sessions on probation ([`Suspects`]) are verified
//! one session at a time, after the others, so that nobody pays for another session's bad signatures.
//!
//! Workers share nothing but the queue and the probation list. Submits of one session may overtake each other here; within a submit
//! the order is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::Sender;
use weft_core::arena::{Arena, Unverified};
use weft_core::{Limits, MessageView, Reason, check_isolated};
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
    /// One session on probation.
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
                let verified =
                    self.verify(group, trust, &*self.verifier, |rows, time| self.learn(rows, time));
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

    /// The trusted sessions' jobs together, then each suspect session's own.
    pub(super) fn by_trust(&self, batch: Vec<Job>) -> Vec<(Vec<Job>, Trust)> {
        let Ok(suspects) = self.suspects.lock() else { return vec![(batch, Trust::Trusted)] };
        let mut trusted = Vec::with_capacity(batch.len());
        let mut apart: Vec<Vec<Job>> = Vec::new();
        for job in batch {
            let session = job.session.id();
            if !suspects.contains(session) {
                trusted.push(job);
            } else if let Some(group) = apart.iter_mut().find(|group| group[0].session.id() == session) {
                group.push(job);
            } else {
                apart.push(vec![job]);
            }
        }
        let mut groups = Vec::with_capacity(1 + apart.len());
        if !trusted.is_empty() {
            groups.push((trusted, Trust::Trusted));
        }
        groups.extend(apart.into_iter().map(|group| (group, Trust::Suspect)));
        groups
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
        let mut arena: Arena<Unverified> = Arena::new(messages, bytes);
        let mut checked = Vec::with_capacity(jobs.len());
        for Job { submit, session, permit } in jobs {
            let mut outcomes = Vec::with_capacity(submit.len());
            for bytes in submit.iter() {
                let row = MessageView::parse(bytes).and_then(|view| {
                    check_isolated(&view, &self.limits, now_us)?;
                    arena.push_with_id(&view, view.id())
                });
                outcomes.push(row.map_or_else(Outcome::Rejected, Outcome::Verified));
            }
            checked.push(VerifiedJob { request_id: submit.request_id(), session, permit, outcomes });
        }
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
