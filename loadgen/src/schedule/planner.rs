//! Cutting the events of a run into batches.
//!
//! Owns [`Planner`]. Invariants: the batches of one planner hold every event of the run exactly once; in the open loop a batch is released
//! at the end of the flush interval in which its events fall, never before they are due; events of one flush interval leave in the order
//! in which they are due. Memory is that of one flush interval.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Schedule, Warp, as_us};
use crate::arrival::{Arrival, Arrivals, Tick};
use crate::trace::{Recorder, Replay};

/// Batches worth of events that a closed loop draws at once.
const CLOSED_BATCHES: f64 = 2.0;

/// Virtual time that a closed loop passes at once, at most, seconds.
const CLOSED_STEP_S_MAX: f64 = 60.0;

/// Looks for the next event of a closed loop, at most, before the profile counts as silent: half a year.
const SILENT_STEPS_MAX: u32 = 262_144;

/// Length of the steps in which what falls due is counted, at least, microseconds.
const DUE_STEP_US: u64 = 5_000;

/// Steps counted ahead of the last question, at most: 20 s of questions that do not come. Beyond, the last step takes what follows.
const DUE_STEPS_MAX: usize = 4_096;

/// How many events fell due until when, while planning is ahead of the clock or behind it.
#[derive(Debug, Default)]
struct DueCount {
    /// Before all steps.
    passed: u64,
    /// Ends of steps and how many fell due in each, in order.
    steps: VecDeque<(u64, u64)>,
}

impl DueCount {
    /// Counts `events` that are due before `to_us`, and not before what was counted last.
    fn add(&mut self, to_us: u64, events: u64) {
        if events == 0 {
            return;
        }
        let is_full = self.steps.len() >= DUE_STEPS_MAX;
        match self.steps.back_mut() {
            Some((end_us, count))
                if is_full || end_us.div_ceil(DUE_STEP_US) == to_us.div_ceil(DUE_STEP_US) =>
            {
                (*end_us, *count) = (to_us, *count + events);
            }
            _ => self.steps.push_back((to_us, events)),
        }
    }

    /// Events due until `now_us`, to a step; times asked for must not fall.
    fn until(&mut self, now_us: u64) -> u64 {
        while let Some((_, count)) = self.steps.front().filter(|(end_us, _)| *end_us <= now_us) {
            self.passed += count;
            self.steps.pop_front();
        }
        self.passed
    }
}

/// One batch to build: which events, and when it may leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Number of the batch, from 0 without gaps.
    pub number: u64,
    /// Number of its first event, over all batches.
    pub first_event: u64,
    /// Its events, at least one.
    pub rows: Vec<Arrival>,
    /// Whether it goes before those that are not, even if it was due later.
    pub urgent: bool,
    /// When a gateway sends it, in microseconds since the start; 0 in the closed loop: as soon as there is room.
    pub release_us: u64,
}

/// What a planner needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pacing.
    pub schedule: Schedule,
    /// Messages in a batch, at most.
    pub batch_messages: u32,
    /// Time before what is measured.
    pub warm_up: Duration,
    /// Time that is measured.
    pub duration: Duration,
    /// Messages in all, at most.
    pub messages_max: u64,
    /// How often a gateway of an open loop sends what is due.
    pub flush: Duration,
    /// Whether a class goes before others, by its number (open loop); empty if none does.
    pub priority: Box<[bool]>,
}

/// Cuts the events of a run into batches.
#[derive(Debug)]
pub struct Planner {
    plan: Plan,
    arrivals: Arrivals,
    /// Where events come from in place of the models, if so (open loop).
    replay: Option<Replay>,
    /// Where events are written as they are drawn, if anywhere (open loop).
    recorder: Option<Recorder>,
    warp: Warp,
    number: u64,
    planned: u64,
    /// Up to where events were drawn: microseconds of the run (open), virtual seconds (closed).
    cursor_us: u64,
    cursor_s: f64,
    /// Drawn and not handed out, the next one last.
    drawn: Vec<Arrival>,
    /// How many of the last ones of these are of classes with priority.
    urgent: usize,
    /// End of the flush interval of what was drawn.
    release_us: u64,
    /// Events handed out that are due in the measured time, by class.
    intended: Vec<u64>,
    /// Events drawn, by when they are due (open loop).
    due: DueCount,
}

impl Planner {
    /// A planner at the beginning of a run.
    #[must_use]
    pub fn new(plan: Plan, arrivals: Arrivals, warp: Warp) -> Self {
        let classes = arrivals.class_count();
        let cursor_s = warp.virtual_s(0);
        Self {
            plan,
            arrivals,
            replay: None,
            recorder: None,
            warp,
            number: 0,
            planned: 0,
            cursor_us: 0,
            cursor_s,
            drawn: Vec::new(),
            urgent: 0,
            release_us: 0,
            intended: vec![0; classes],
            due: DueCount::default(),
        }
    }

    /// The same with the events of a trace, if one is given (then `arrivals` must be those of a trace too), and written as one, if so.
    #[must_use]
    pub(crate) fn with_traces(mut self, replay: Option<Replay>, recorder: Option<Recorder>) -> Self {
        (self.replay, self.recorder) = (replay, recorder);
        self
    }

    /// Ends the traces; tells what was wrong with them, if anything.
    pub(crate) fn close_traces(&mut self) -> Vec<String> {
        let recorded = self.recorder.take().and_then(Recorder::close);
        self.replay.as_ref().and_then(Replay::failed).into_iter().chain(recorded).collect()
    }

    /// Events handed out so far.
    #[must_use]
    pub const fn planned(&self) -> u64 {
        self.planned
    }

    /// Whether as many events were handed out as there may be.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        let trace_ended = self.replay.as_ref().is_some_and(Replay::is_used_up) && self.drawn.is_empty();
        self.planned >= self.plan.messages_max || trace_ended
    }

    /// Events due in the measured time, by class: those handed out, and, for an open loop that fell behind, what the models expect of the
    /// time until `end_us` for which none were.
    #[must_use]
    pub fn intended(&self, end_us: u64) -> Vec<u64> {
        let mut intended = self.intended.clone();
        let missed = self.cursor_us < end_us
            && !self.is_used_up()
            && matches!(self.plan.schedule, Schedule::Open { .. });
        if missed {
            let from_us = self.cursor_us.max(as_us(self.plan.warm_up));
            for (count, expected) in intended.iter_mut().zip(self.expected(from_us, end_us)) {
                // Rounded down: the event under way at the cursor was counted.
                *count += (expected + 1e-6) as u64;
            }
            for arrival in self.drawn.iter().filter(|arrival| arrival.due_us >= as_us(self.plan.warm_up)) {
                intended[usize::from(self.arrivals.class(arrival))] += 1;
            }
        }
        intended
    }

    /// What the models expect of each class between two times of the run.
    #[must_use]
    pub fn expected(&self, from_us: u64, to_us: u64) -> Vec<f64> {
        match &self.replay {
            Some(replay) => replay.expected(from_us, to_us),
            None => self.arrivals.expected(self.warp.virtual_s(from_us), self.warp.virtual_s(to_us)),
        }
    }

    /// Events that fell due from the start to `now_us`, as they were drawn (open loop); for what was not drawn yet, because no batch was
    /// asked for in time, what the models expect. Times asked for must not fall.
    #[must_use]
    pub fn due_until(&mut self, now_us: u64) -> f64 {
        let now_us = now_us.min(as_us(self.plan.warm_up + self.plan.duration));
        let drawn = self.due.until(now_us) as f64;
        if self.cursor_us >= now_us || self.is_used_up() {
            return drawn;
        }
        drawn + self.expected(self.cursor_us, now_us).iter().sum::<f64>()
    }

    /// The next batch, or `None` when the run is over. An open loop that has fallen behind `now_us` gets everything that is due by now,
    /// up to a full batch, as a gateway would send it.
    pub fn next(&mut self, now_us: u64) -> Option<Work> {
        let left = self.plan.messages_max - self.planned;
        let full = u64::from(self.plan.batch_messages).min(left) as usize;
        if full == 0 {
            return None;
        }
        match self.plan.schedule {
            Schedule::Closed { .. } => {
                if now_us >= as_us(self.plan.warm_up + self.plan.duration) {
                    return None;
                }
                self.draw_closed();
            }
            Schedule::Open { .. } => self.draw_open(now_us, full, left),
        }
        let urgent = self.urgent > 0;
        let count = full.min(if urgent { self.urgent } else { self.drawn.len() });
        self.urgent = self.urgent.saturating_sub(count);
        if count == 0 {
            return None;
        }
        let mut rows = self.drawn.split_off(self.drawn.len() - count);
        rows.reverse();
        let (warm_us, end_us) = (as_us(self.plan.warm_up), as_us(self.plan.warm_up + self.plan.duration));
        for row in rows.iter().filter(|row| (warm_us..end_us).contains(&row.due_us)) {
            self.intended[usize::from(self.arrivals.class(row))] += 1;
        }
        let work = Work {
            number: self.number,
            first_event: self.planned,
            rows,
            urgent,
            release_us: self.release_us,
        };
        self.number += 1;
        self.planned += count as u64;
        Some(work)
    }

    fn draw_open(&mut self, now_us: u64, full: usize, left: u64) {
        let end_us = as_us(self.plan.warm_up + self.plan.duration);
        let flush_us = as_us(self.plan.flush).max(1);
        if !self.drawn.is_empty() {
            return;
        }
        while self.cursor_us < end_us {
            // What came before may be joined by what is due already, never by what is not.
            let enough = self.drawn.len() >= full || self.cursor_us + flush_us > now_us;
            if !self.drawn.is_empty() && enough {
                break;
            }
            let to_us = (self.cursor_us + flush_us).min(end_us);
            let tick = Tick {
                from_s: self.warp.virtual_s(self.cursor_us),
                to_s: self.warp.virtual_s(to_us),
                due_us: self.cursor_us,
                length_us: to_us - self.cursor_us,
            };
            let before = self.drawn.len() as u64;
            if let Some(replay) = &mut self.replay {
                replay.fill(to_us, &mut self.drawn);
            } else if tick.to_s > tick.from_s {
                self.arrivals.fill(&tick, &mut self.drawn);
            }
            self.cursor_us = to_us;
            // What is beyond the last message of the run is drawn but never due.
            self.due.add(to_us, (self.drawn.len() as u64).min(left).saturating_sub(before));
            // A gateway sends at whole flush intervals.
            self.release_us = to_us.div_ceil(flush_us) * flush_us;
        }
        // The next one last; what is due at one time stays in the order in which it was drawn, so that a trace of this is played alike.
        self.drawn.sort_by_key(|row| row.due_us);
        if let Some(recorder) = &mut self.recorder {
            let count = self.drawn.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            recorder.write(&self.drawn[..count], &self.arrivals);
        }
        self.drawn.reverse();
        if self.plan.priority.iter().any(|priority| *priority) {
            let has =
                |row: &Arrival| self.plan.priority.get(usize::from(self.arrivals.class(row))) == Some(&true);
            // Stable: those with priority to the end, where the next one is taken from.
            self.drawn.sort_by_key(has);
            self.urgent = self.drawn.iter().rev().take_while(|row| has(row)).count();
        }
    }

    fn draw_closed(&mut self) {
        let mut step_s = CLOSED_BATCHES * f64::from(self.plan.batch_messages)
            / self.arrivals.rate_at(self.cursor_s).max(1e-9);
        for _ in 0..SILENT_STEPS_MAX {
            if !self.drawn.is_empty() {
                return;
            }
            step_s = step_s.clamp(1e-9, CLOSED_STEP_S_MAX);
            let to_s = self.cursor_s + step_s;
            let tick = Tick { from_s: self.cursor_s, to_s, due_us: 0, length_us: 0 };
            self.arrivals.fill(&tick, &mut self.drawn);
            self.cursor_s = to_s;
            self.drawn.sort_by_key(|row| std::cmp::Reverse((row.at_ms, row.key)));
            step_s *= 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arrival::{Play, Split};
    use crate::profile::Profile;
    use crate::schedule::Shape;

    fn planner(schedule: Schedule, messages_max: u64, rate_per_s: f64) -> Planner {
        let profile = Profile::flat(1_000, 64, rate_per_s);
        let play = Play { seed: 1, scale: 1.0, diurnal: false, start_s: 0.0, split: Split::WHOLE };
        let plan = Plan {
            schedule,
            batch_messages: 256,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(2),
            messages_max,
            flush: Duration::from_millis(2),
            priority: Box::default(),
        };
        let warp = Warp::new(0.0, 1.0, &Shape::Constant, plan.warm_up, plan.duration);
        Planner::new(plan, Arrivals::new(&profile, &play), warp)
    }

    fn open(rate_per_s: f64, messages_max: u64) -> Planner {
        planner(Schedule::Open { rate_per_s }, messages_max, rate_per_s)
    }

    #[test]
    fn a_closed_loop_is_cut_into_full_batches_until_its_time_is_over() {
        let mut planner = planner(Schedule::Closed { window: 4 }, 600, 1_000.0);
        let counts: Vec<usize> = std::iter::from_fn(|| planner.next(0)).map(|work| work.rows.len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 600);
        assert!(counts.iter().filter(|count| **count == 256).count() >= 1);
        let mut late = self::planner(Schedule::Closed { window: 4 }, 600, 1_000.0);
        assert_eq!(late.next(2_000_000), None);
        assert!(late.next(1_999_999).is_some());
    }

    #[test]
    fn an_open_loop_sends_at_flush_intervals_what_fell_due_in_them() {
        // 4 a second: each event is alone in its interval.
        let mut planner = open(4.0, u64::MAX);
        let works: Vec<Work> = std::iter::from_fn(|| planner.next(0)).collect();
        let releases: Vec<(usize, u64)> =
            works.iter().map(|work| (work.rows.len(), work.release_us)).collect();
        let expected: Vec<(usize, u64)> = (0..8).map(|i| (1, i * 250_000 + 2_000)).collect();
        assert_eq!(releases, expected);
        assert_eq!(planner.intended(2_000_000), [8]);
    }

    #[test]
    fn events_of_a_class_with_priority_leave_first_and_apart_and_none_is_lost() {
        let text = "name = \"t\"\nabout = \"t\"\n[[class]]\nname = \"bulk\"\ndevices = 900\n\
                    payload = { kind = \"fixed\", bytes = 32 }\n[[class.stream]]\narrival = \"periodic\"\nperiod_s = 0.09\n\
                    [[class]]\nname = \"alarm\"\ndevices = 100\npriority = true\npayload = { kind = \"fixed\", bytes = 32 }\n\
                    [[class.stream]]\narrival = \"periodic\"\nperiod_s = 0.1\n";
        let profile = Profile::parse(text).unwrap();
        let play = Play { seed: 1, scale: 1.0, diurnal: false, start_s: 0.0, split: Split::WHOLE };
        let plan = Plan {
            schedule: Schedule::Open { rate_per_s: 11_000.0 },
            batch_messages: 8,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
            messages_max: u64::MAX,
            flush: Duration::from_millis(2),
            priority: profile.classes.iter().map(|class| class.priority).collect(),
        };
        let warp = Warp::new(0.0, 1.0, &Shape::Constant, plan.warm_up, plan.duration);
        let mut planner = Planner::new(plan, Arrivals::new(&profile, &play), warp);
        let (mut urgent, mut others) = (0, 0);
        let mut bulk_until = 0;
        while let Some(work) = planner.next(0) {
            assert!(work.rows.iter().all(|row| (planner.arrivals.class(row) == 1) == work.urgent));
            assert!(work.rows.windows(2).all(|pair| pair[0].due_us <= pair[1].due_us));
            if work.urgent {
                assert!(work.release_us > bulk_until, "before what is released with it");
                urgent += work.rows.len();
            } else {
                bulk_until = work.release_us;
                others += work.rows.len();
            }
        }
        assert_eq!((urgent, others), (1_000, 10_000));
        assert_eq!(planner.intended(1_000_000), [10_000, 1_000]);
    }

    #[test]
    fn what_a_late_generator_never_planned_was_intended_all_the_same() {
        let mut planner = open(1_000.0, u64::MAX);
        planner.next(0);
        assert_eq!(planner.intended(2_000_000), [2_000]);
        assert_eq!(planner.intended(1_000_000), [1_000]);
    }

    #[test]
    fn what_fell_due_is_told_as_it_was_drawn_whether_planning_is_ahead_or_behind() {
        let text = "name = \"t\"\nabout = \"t\"\n[[class]]\nname = \"drawn\"\ndevices = 1000\n\
                    payload = { kind = \"fixed\", bytes = 32 }\n[[class.stream]]\narrival = \"poisson\"\nmean_interval_s = 1.0\n";
        let profile = Profile::parse(text).unwrap();
        let play = Play { seed: 1, scale: 1.0, diurnal: false, start_s: 0.0, split: Split::WHOLE };
        let plan = Plan {
            schedule: Schedule::Open { rate_per_s: 1_000.0 },
            batch_messages: 64,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(4),
            messages_max: u64::MAX,
            flush: Duration::from_millis(2),
            priority: Box::default(),
        };
        let warp = Warp::new(0.0, 1.0, &Shape::Constant, plan.warm_up, plan.duration);
        let mut planner = Planner::new(plan, Arrivals::new(&profile, &play), warp);
        // Behind from the start: the models answer.
        assert!((planner.due_until(1_000) - 1.0).abs() < 0.01);
        let works: Vec<Work> = std::iter::from_fn(|| planner.next(0)).collect();
        let mut total = 0;
        for second in 1..=4u64 {
            let drawn = works
                .iter()
                .flat_map(|work| &work.rows)
                .filter(|row| row.due_us < second * 1_000_000)
                .count();
            let due = planner.due_until(second * 1_000_000);
            assert!((due - drawn as f64).abs() < 1e-9, "{due} and {drawn}");
            total = drawn;
        }
        assert!(total > 3_700 && total != 4_000, "drawn, and not the mean: {total}");
        assert!((planner.due_until(9_000_000) - total as f64).abs() < 1e-9, "nothing is due after the end");
        let mut few = open(1_000.0, 100);
        while few.next(0).is_some() {}
        assert!((few.due_until(2_000_000) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn steps_that_nobody_asks_for_are_bounded_and_lose_no_event() {
        let mut due = DueCount::default();
        let steps = 3 * DUE_STEPS_MAX as u64;
        (1..=steps).for_each(|step| due.add(step * DUE_STEP_US, 2));
        assert_eq!(due.steps.len(), DUE_STEPS_MAX);
        assert_eq!(due.until(DUE_STEP_US), 2);
        assert_eq!(due.until(steps * DUE_STEP_US), 2 * steps);
    }

    proptest! {
        #[test]
        fn every_event_is_planned_once_in_order_and_never_released_early(
            rate in 1.0f64..100_000.0, delays in prop::collection::vec(0u64..40_000, 50),
        ) {
            let mut planner = open(rate, 5_000);
            let (mut now, mut event, mut number) = (0, 0, 0);
            let mut delays = delays.iter().cycle();
            while let Some(work) = planner.next(now) {
                prop_assert_eq!(work.number, number);
                prop_assert!(!work.rows.is_empty() && work.rows.len() <= 256);
                number += 1;
                for row in &work.rows {
                    let due = (event as f64 * 1e6 / rate) as u64;
                    prop_assert!(row.due_us.abs_diff(due) <= 1, "event {} due {} not {}", event, row.due_us, due);
                    prop_assert!(row.due_us < work.release_us);
                    event += 1;
                }
                let last = work.rows.last().unwrap().due_us;
                prop_assert!(work.release_us <= last.max(now) + 4_000);
                now = now.max(work.release_us) + delays.next().unwrap();
            }
            let due = ((2.0 * rate - 1e-6).ceil() as u64).min(5_000);
            prop_assert_eq!(event, due);
        }
    }
}
