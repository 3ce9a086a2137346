//! When events are due, and which of them a gateway sends together.
//!
//! Owns the two schedules and the planner that cuts the events of a run into batches. Pure: time comes in as microseconds since the run
//! began, nothing here sleeps. Invariant: the batches of one planner hold every event from 0 on exactly once, in order; in the open loop
//! each is released at the end of the flush interval in which its last event falls, never before that event is due.
//!
//! * Closed loop: a connection sends its next batch as soon as fewer than `window` are unanswered. A slow target slows the generator, so
//!   latencies are those of a load that waits politely: they cannot show what users of a fixed rate would see.
//! * Open loop: event `k` is due `k / rate` seconds after the start whatever the target does, and its latency counts from then. A stalled
//!   target shows in every event that fell due meanwhile ("coordinated omission" is leaving those out; G. Tene, wrk2).

use std::time::Duration;

use serde::Serialize;

/// Events per second of one generator, at most: with more, neighbouring events would share a microsecond by the hundred, and no machine
/// signs that many.
pub const RATE_PER_S_MAX: f64 = 100e6;

/// How events are paced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// At most `window` unanswered batches on each connection.
    Closed {
        /// Batches in flight per connection.
        window: u32,
    },
    /// A constant rate.
    Open {
        /// Messages per second, over all connections.
        rate_per_s: f64,
    },
}

/// The intended times of an open loop: event `k` is due at `floor(k * 10^6 / rate)` microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    rate_per_s: f64,
}

impl Pace {
    /// The pace of `rate_per_s` messages a second (positive and finite).
    #[must_use]
    pub const fn new(rate_per_s: f64) -> Self {
        Self { rate_per_s }
    }

    /// When event `event` is due, in microseconds since the start. Exact to the microsecond below 2^53 of them (285 years).
    #[inline]
    #[must_use]
    pub fn intended_us(&self, event: u64) -> u64 {
        (event as f64 * 1e6 / self.rate_per_s) as u64
    }

    /// How many events are due before `end_us`: the number of the first one that is not.
    #[must_use]
    pub fn due_before(&self, end_us: u64) -> u64 {
        let mut event = (end_us as f64 * self.rate_per_s / 1e6) as u64;
        // The quotient may be rounded to either side of a whole number; `intended_us` decides.
        while event > 0 && self.intended_us(event - 1) >= end_us {
            event -= 1;
        }
        while self.intended_us(event) < end_us {
            event += 1;
        }
        event
    }
}

/// One batch to build: which events, and when it may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Number of the batch, from 0 without gaps.
    pub number: u64,
    /// Its first event.
    pub first_event: u64,
    /// How many events it holds, at least 1.
    pub count: u32,
    /// When a gateway sends it, in microseconds since the start; 0 in the closed loop: as soon as there is room.
    pub release_us: u64,
}

/// What a planner needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The pacing.
    pub schedule: Schedule,
    /// Messages in a batch, at most.
    pub batch_messages: u32,
    /// How long events fall due (open loop) or batches are begun (closed loop).
    pub duration: Duration,
    /// Messages in all, at most.
    pub messages_max: u64,
    /// How often a gateway of an open loop sends what is due.
    pub flush: Duration,
}

/// Cuts the events of a run into batches.
#[derive(Debug)]
pub struct Planner {
    plan: Plan,
    number: u64,
    next_event: u64,
    /// First event that does not belong to the run.
    end_event: u64,
}

impl Planner {
    /// A planner at the beginning of a run.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let end_event = match plan.schedule {
            Schedule::Closed { .. } => plan.messages_max,
            Schedule::Open { rate_per_s } => {
                Pace::new(rate_per_s).due_before(as_us(plan.duration)).min(plan.messages_max)
            }
        };
        Self { plan, number: 0, next_event: 0, end_event }
    }

    /// The next batch, or `None` when the run is over. An open loop that has fallen behind `now_us` gets everything that is due by now,
    /// up to a full batch, as a gateway would send it.
    pub fn next(&mut self, now_us: u64) -> Option<Work> {
        let left = self.end_event - self.next_event;
        if left == 0 {
            return None;
        }
        let full = left.min(u64::from(self.plan.batch_messages));
        let (count, release_us) = match self.plan.schedule {
            Schedule::Closed { .. } => {
                if now_us >= as_us(self.plan.duration) {
                    return None;
                }
                (full, 0)
            }
            Schedule::Open { rate_per_s } => {
                let pace = Pace::new(rate_per_s);
                let flush_us = as_us(self.plan.flush).max(1);
                let next_flush_us = (pace.intended_us(self.next_event) / flush_us + 1) * flush_us;
                let release_us = next_flush_us.max(now_us / flush_us * flush_us);
                let due = pace.due_before(release_us) - self.next_event;
                (due.min(full), release_us)
            }
        };
        let work =
            Work { number: self.number, first_event: self.next_event, count: count as u32, release_us };
        self.number += 1;
        self.next_event += count;
        Some(work)
    }

    /// First event that no batch holds yet.
    #[must_use]
    pub const fn planned(&self) -> u64 {
        self.next_event
    }
}

/// Whole microseconds of a duration; 2^64 - 1 if it has more.
#[must_use]
pub fn as_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(schedule: Schedule, messages_max: u64) -> Plan {
        Plan {
            schedule,
            batch_messages: 256,
            duration: Duration::from_secs(2),
            messages_max,
            flush: Duration::from_millis(2),
        }
    }

    #[test]
    fn a_closed_loop_plans_full_batches_until_time_is_up() {
        let mut planner = Planner::new(plan(Schedule::Closed { window: 4 }, u64::MAX));
        for number in 0..1_000 {
            let work = planner.next(number * 1_000).unwrap();
            assert_eq!(work, Work { number, first_event: number * 256, count: 256, release_us: 0 });
        }
        assert_eq!(planner.next(2_000_000), None);
    }

    #[test]
    fn a_message_limit_cuts_the_last_batch() {
        let mut planner = Planner::new(plan(Schedule::Closed { window: 4 }, 600));
        let counts: Vec<u32> = std::iter::from_fn(|| planner.next(0)).map(|work| work.count).collect();
        assert_eq!(counts, [256, 256, 88]);
    }

    #[test]
    fn an_open_loop_flushes_what_fell_due_in_each_interval() {
        // 10,000 a second: one each 100 us, 20 to an interval of 2 ms.
        let mut planner = Planner::new(plan(Schedule::Open { rate_per_s: 10_000.0 }, u64::MAX));
        for number in 0..1_000 {
            let work = planner.next(number * 2_000).unwrap();
            assert_eq!(
                work,
                Work { number, first_event: number * 20, count: 20, release_us: (number + 1) * 2_000 }
            );
        }
        assert_eq!(planner.next(0), None, "2 s of events are planned");
    }

    #[test]
    fn an_open_loop_that_fell_behind_catches_up_in_full_batches() {
        let mut planner = Planner::new(plan(Schedule::Open { rate_per_s: 10_000.0 }, u64::MAX));
        let late = planner.next(100_000).unwrap();
        assert_eq!((late.count, late.release_us), (256, 100_000));
        let next = planner.next(100_000).unwrap();
        assert_eq!((next.first_event, next.count), (256, 256));
    }

    #[test]
    fn a_slow_open_loop_sends_single_messages_and_skips_empty_intervals() {
        let mut planner = Planner::new(plan(Schedule::Open { rate_per_s: 4.0 }, u64::MAX));
        let works: Vec<Work> = std::iter::from_fn(|| planner.next(0)).collect();
        let releases: Vec<(u32, u64)> = works.iter().map(|work| (work.count, work.release_us)).collect();
        let expected: Vec<(u32, u64)> = (0..8).map(|i| (1, i * 250_000 + 2_000)).collect();
        assert_eq!(releases, expected);
    }

    proptest! {
        #[test]
        fn the_events_due_before_a_time_are_exactly_those_intended_before_it(
            rate in 0.01f64..2e6, end_us in 0u64..100_000_000,
        ) {
            let pace = Pace::new(rate);
            let due = pace.due_before(end_us);
            prop_assert!(due == 0 || pace.intended_us(due - 1) < end_us);
            prop_assert!(pace.intended_us(due) >= end_us);
        }

        #[test]
        fn every_event_is_planned_once_and_never_released_early(
            rate in 1.0f64..100_000.0, delays in prop::collection::vec(0u64..40_000, 50),
        ) {
            let mut planner = Planner::new(plan(Schedule::Open { rate_per_s: rate }, 5_000));
            let pace = Pace::new(rate);
            let (mut now, mut event, mut number) = (0, 0, 0);
            let mut delays = delays.iter().cycle();
            while let Some(work) = planner.next(now) {
                prop_assert_eq!((work.number, work.first_event), (number, event));
                prop_assert!(work.count >= 1 && work.count <= 256);
                number += 1;
                event += u64::from(work.count);
                let last = pace.intended_us(event - 1);
                prop_assert!(last < work.release_us);
                prop_assert!(work.release_us <= last.max(now) + 2_000);
                now = now.max(work.release_us) + delays.next().unwrap();
            }
            prop_assert_eq!(event, pace.due_before(2_000_000).min(5_000));
        }
    }
}
