//! Sessions that sent bad signatures a moment ago, so that their batches can be verified apart from everybody else's.
//!
//! Verdicts are exact whatever a signature is batched with; what a bad one costs is time, spent by the batch it is in. A session that
//! sent one is therefore verified with its like only for the next [`PROBATION_BATCHES`] of its submits. The table is bounded: when it is full the
//! session that has been on it longest is forgotten, which costs time and never correctness.

use std::collections::VecDeque;

/// Clean submits until a session is trusted again.
pub const PROBATION_BATCHES: u32 = 64;

/// Sessions remembered; 24 bytes each. More bad sessions than this at once look like honest ones again, each for one batch.
pub const SUSPECTS_MAX: usize = 4096;

/// The sessions on probation.
#[derive(Debug, Default)]
pub struct Suspects {
    /// Session id and clean submits still owed, oldest first. A few entries at most in peace, so that a scan beats a map.
    entries: VecDeque<(u64, u32)>,
}

impl Suspects {
    /// Whether the session's submits should be verified apart.
    pub fn contains(&self, session: u64) -> bool {
        !self.entries.is_empty() && self.entries.iter().any(|(id, _)| *id == session)
    }

    /// Learns from a verified submit of the session.
    pub fn observe(&mut self, session: u64, had_bad_signature: bool) {
        let known = self.entries.iter().position(|(id, _)| *id == session);
        match (known, had_bad_signature) {
            (None, false) => {}
            (None, true) => {
                if self.entries.len() >= SUSPECTS_MAX {
                    self.entries.pop_front();
                }
                self.entries.push_back((session, PROBATION_BATCHES));
            }
            (Some(index), true) => self.entries[index].1 = PROBATION_BATCHES,
            (Some(index), false) => {
                self.entries[index].1 -= 1;
                if self.entries[index].1 == 0 {
                    let _ = self.entries.remove(index);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_trusted_again_after_its_probation_and_not_before() {
        let mut suspects = Suspects::default();
        suspects.observe(7, true);
        for _ in 0..PROBATION_BATCHES - 1 {
            suspects.observe(7, false);
            assert!(suspects.contains(7));
        }
        suspects.observe(7, false);
        assert!(!suspects.contains(7));
    }

    #[test]
    fn a_relapse_starts_the_probation_anew_and_others_are_not_touched() {
        let mut suspects = Suspects::default();
        suspects.observe(7, true);
        (0..PROBATION_BATCHES - 1).for_each(|_| suspects.observe(7, false));
        suspects.observe(7, true);
        suspects.observe(7, false);
        assert!(suspects.contains(7) && !suspects.contains(8));
    }

    #[test]
    fn the_table_never_outgrows_its_limit() {
        let mut suspects = Suspects::default();
        (0..2 * SUSPECTS_MAX as u64).for_each(|session| suspects.observe(session, true));
        assert_eq!(suspects.entries.len(), SUSPECTS_MAX);
        assert!(suspects.contains(2 * SUSPECTS_MAX as u64 - 1) && !suspects.contains(0));
    }
}
