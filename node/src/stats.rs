//! Counters of a running node, and where its threads spent the processor.
//!
//! Owns: plain atomic counters (statistics only: nothing decides by them), and the CPU time by stage, read from the kernel's own
//! accounting of each thread, so that nothing has to be measured inside the hot loops. Threads are named for their stage; see
//! `docs/architecture.md` for the list.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use weft_core::Reason;

/// One past the largest wire code of a [`Reason`].
const REASON_SLOTS: usize = Reason::ALL.len() + 1;

/// What the node counted since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that got a place in the lane.
    pub accepted: AtomicU64,
    /// Messages refused, by wire code of the reason. Duplicates are here too.
    rejected: [AtomicU64; REASON_SLOTS],
    /// Submits taken from clients.
    pub submits: AtomicU64,
    /// Signatures handed to the verifier.
    pub signatures: AtomicU64,
    /// Signatures of other nodes' batches handed to the verifier.
    pub replicated_signatures: AtomicU64,
    /// Calls for those; the quotient is the mean batch.
    pub replicated_checks: AtomicU64,
    /// Calls of the verifier; `signatures / verify_batches` is the mean batch.
    pub verify_batches: AtomicU64,
    /// Lane batches appended.
    pub lane_batches: AtomicU64,
    /// Bytes of lane batches appended.
    pub lane_bytes: AtomicU64,
    /// Group commits (data syncs) that covered something new.
    pub syncs: AtomicU64,
    /// Microseconds spent waiting for those syncs.
    pub sync_us: AtomicU64,
}

impl Counters {
    /// Adds `n` to a counter. Relaxed: these are statistics.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts one refused message.
    pub fn reject(&self, reason: Reason) {
        self.reject_many(reason, 1);
    }

    /// Counts `n` refused messages.
    pub fn reject_many(&self, reason: Reason, n: u64) {
        if let Some(slot) = self.rejected.get(usize::from(reason.code())) {
            Self::add(slot, n);
        }
    }

    /// Messages refused for `reason`.
    pub fn rejected(&self, reason: Reason) -> u64 {
        self.rejected.get(usize::from(reason.code())).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// Messages refused, for all reasons that are the sender's to mend: duplicates are not among them.
    pub fn rejected_total(&self) -> u64 {
        Reason::ALL
            .iter()
            .filter(|reason| **reason != Reason::Duplicate)
            .map(|reason| self.rejected(*reason))
            .sum()
    }

    /// Every refusal that happened, by the reason's name.
    pub fn rejected_by_name(&self) -> BTreeMap<&'static str, u64> {
        Reason::ALL
            .iter()
            .map(|reason| (reason.name(), self.rejected(*reason)))
            .filter(|(_, n)| *n > 0)
            .collect()
    }
}

/// CPU seconds used so far by this process's threads, by stage. A thread's stage is its name without the trailing number.
/// Empty where the kernel does not tell (any system without `/proc`).
pub fn cpu_seconds_by_stage() -> BTreeMap<String, f64> {
    let mut stages = BTreeMap::new();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return stages };
    for task in tasks.flatten() {
        let dir = task.path();
        // A thread may end between the listing and the reads: it is then left out.
        let Ok(name) = std::fs::read_to_string(dir.join("comm")) else { continue };
        let Ok(schedstat) = std::fs::read_to_string(dir.join("schedstat")) else { continue };
        let Some(nanoseconds) =
            schedstat.split_whitespace().next().and_then(|field| field.parse::<u64>().ok())
        else {
            continue;
        };
        let stage = name.trim().trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
        *stages.entry(stage.to_owned()).or_insert(0.0) += nanoseconds as f64 / 1e9;
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_counted_under_its_own_reason() {
        let counters = Counters::default();
        counters.reject(Reason::BadSignature);
        counters.reject(Reason::BadSignature);
        counters.reject(Reason::Duplicate);
        assert_eq!(counters.rejected(Reason::BadSignature), 2);
        assert_eq!(counters.rejected_total(), 2, "a duplicate is no fault of the sender");
        assert_eq!(counters.rejected_by_name().len(), 2);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn cpu_time_is_found_under_the_stage_that_spent_it() {
        let worker = std::thread::Builder::new().name("weft-spin-3".into()).spawn(|| {
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 60 {
                std::hint::spin_loop();
            }
            cpu_seconds_by_stage()
        });
        let stages = worker.unwrap().join().unwrap();
        assert!(stages.get("weft-spin").copied().unwrap_or(0.0) > 0.01, "{stages:?}");
    }
}
