//! Times in which something else than the generator kept messages from leaving.
//!
//! Owns [`Holds`]: the last spans of time in which generator threads could not push because the target had filled the backlog (or, in the
//! direct topology, the dispatcher had no place for a connection). Of a message that left late, the time within a span is not the
//! generator's; all other time is, before a span too: a generator that was behind when the target began to hold it back stays charged for
//! that. Invariants: spans are apart and in the order of time; there are [`SPANS_MAX`] at most, and time in one that was forgotten counts as
//! the generator's, which errs against the run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Spans kept, at most.
const SPANS_MAX: usize = 256;

/// Spans that are no further apart are one, microseconds: whoever is held again as soon as it has prepared what comes next is not what
/// messages wait for meanwhile. One that was away for longer may be.
const GAP_US_MAX: u64 = 10_000;

/// The last times of one kind, microseconds since the start.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    spans: Mutex<VecDeque<(u64, u64)>>,
    /// End of the last one.
    until_us: AtomicU64,
}

impl Holds {
    /// Notes a time. Threads that were held together may note theirs in any order.
    pub(crate) fn note(&self, from_us: u64, until_us: u64) {
        if until_us <= from_us {
            return;
        }
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that it touches become one with it.
        let begin = spans.partition_point(|(_, last_us)| last_us.saturating_add(GAP_US_MAX) < from_us);
        let end = spans.partition_point(|(first_us, _)| *first_us <= until_us.saturating_add(GAP_US_MAX));
        let span = spans
            .drain(begin..end.max(begin))
            .fold((from_us, until_us), |(from, until), (first, last)| (from.min(first), until.max(last)));
        spans.insert(begin, span);
        if spans.len() > SPANS_MAX {
            spans.pop_front();
        }
        self.until_us.fetch_max(until_us, Ordering::Release);
    }

    /// How much of the time between the two was held.
    pub(crate) fn within(&self, from_us: u64, to_us: u64) -> u64 {
        // Nearly every message leaves in time, and asks for nothing.
        if to_us <= from_us || self.until_us.load(Ordering::Acquire) <= from_us {
            return 0;
        }
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let late = spans.iter().rev().take_while(|(_, last_us)| *last_us > from_us);
        late.map(|(first_us, last_us)| to_us.min(*last_us).saturating_sub(from_us.max(*first_us))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_within_a_span_is_held() {
        let holds = Holds::default();
        assert_eq!(holds.within(0, u64::MAX), 0);
        holds.note(100_000, 200_000);
        holds.note(300_000, 350_000);
        holds.note(350_000, 350_000);
        let cases = [
            ((0, 1_000_000), 150_000),
            ((0, 100_000), 0),
            ((150_000, 320_000), 70_000),
            ((120_000, 130_000), 10_000),
            ((200_000, 300_000), 0),
            ((350_000, 400_000), 0),
            ((180_000, 150_000), 0),
        ];
        for ((from_us, to_us), held_us) in cases {
            assert_eq!(holds.within(from_us, to_us), held_us, "{from_us} to {to_us}");
        }
    }

    #[test]
    fn spans_that_overlap_or_nearly_touch_are_one() {
        let holds = Holds::default();
        holds.note(100_000, 200_000);
        holds.note(205_000, 300_000);
        assert_eq!(holds.within(0, 1_000_000), 200_000);
        holds.note(310_001, 400_000);
        assert_eq!(holds.within(0, 1_000_000), 289_999);
        // Of two threads the one that was held longer, or from earlier on, may come last.
        holds.note(50_000, 410_000);
        assert_eq!(holds.within(0, 1_000_000), 360_000);
    }

    #[test]
    fn a_span_that_is_noted_late_holds_nothing_between_it_and_later_ones() {
        let holds = Holds::default();
        holds.note(300_000, 350_000);
        holds.note(100_000, 110_000);
        holds.note(200_000, 210_000);
        assert_eq!(holds.within(110_000, 300_000), 10_000);
        assert_eq!(holds.within(0, 1_000_000), 70_000);
        holds.note(105_000, 205_000);
        assert_eq!(holds.within(0, 300_000), 110_000);
        assert_eq!(holds.within(0, 1_000_000), 160_000);
    }

    #[test]
    fn what_is_forgotten_counts_as_the_generators() {
        let holds = Holds::default();
        for number in 0..=SPANS_MAX as u64 {
            holds.note(number * 100_000, number * 100_000 + 1_000);
        }
        assert_eq!(holds.within(0, u64::MAX), SPANS_MAX as u64 * 1_000);
        assert_eq!(holds.within(0, 100_000), 0);
    }
}
