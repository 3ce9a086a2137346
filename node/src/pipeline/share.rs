//! How much of a backlog a device is given: pure arithmetic over measured times, no clock and no queue of its own.
//!
//! A [`Pace`] is what was learnt about the time of a batch by its size: a fixed part (a device's latency) and a part per message (its
//! rate). Of a backlog, a device is given the part with which it and the CPU, working on the rest, would be done at the same time; if
//! that part is too small to be worth a batch, none. So a device takes nothing that the CPU would have answered sooner, and its share
//! follows what was measured last: a slow device ends up with crumbs, a fast one with nearly everything.

use std::time::Duration;

/// What a batch weighs against the one after it: the last ten or so decide.
const MEMORY: f64 = 0.9;

/// The time of a batch by its size, learnt from batches: a straight line by least squares, older batches weighing less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_squared: f64,
    rows_seconds: f64,
}

impl Pace {
    /// Learns that a batch of `rows` took `time`.
    pub fn learn(&mut self, rows: usize, time: Duration) {
        let (rows, seconds) = (rows as f64, time.as_secs_f64());
        self.weight = self.weight * MEMORY + 1.0;
        self.rows = self.rows * MEMORY + rows;
        self.seconds = self.seconds * MEMORY + seconds;
        self.rows_squared = self.rows_squared * MEMORY + rows * rows;
        self.rows_seconds = self.rows_seconds * MEMORY + rows * seconds;
    }

    /// Seconds of a batch that do not depend on its size, and seconds a message; neither is below zero. `None` before the first batch.
    #[must_use]
    pub fn line(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 || self.rows == 0.0 {
            return None;
        }
        let through_origin = (0.0, self.rows_seconds / self.rows_squared.max(1e-9));
        let spread = self.weight * self.rows_squared - self.rows * self.rows;
        // Batches of about one size say nothing about two parts: all of the time is then taken to grow with the size.
        if spread < 1e-3 * self.weight * self.rows_squared {
            return Some(through_origin);
        }
        let slope = (self.weight * self.rows_seconds - self.rows * self.seconds) / spread;
        let fixed = (self.seconds - slope * self.rows) / self.weight;
        if slope <= 0.0 {
            return Some((self.seconds / self.weight, 0.0));
        }
        if fixed <= 0.0 {
            return Some(through_origin);
        }
        Some((fixed, slope))
    }
}

impl Pace {
    /// Seconds a message under load: the line's slope, or the average where the batches tell no slope. `None` before the first batch.
    #[must_use]
    pub fn per_message(&self) -> Option<f64> {
        let (_, slope) = self.line()?;
        Some(if slope > 0.0 { slope } else { self.seconds / self.rows })
    }

    /// Messages of a batch that takes about `time`. `None` before the first batch.
    #[must_use]
    pub fn messages_within(&self, time: Duration) -> Option<usize> {
        let (fixed, _) = self.line()?;
        let messages = (time.as_secs_f64() - fixed) / self.per_message()?;
        Some(if messages > 0.0 { messages as usize } else { 0 })
    }
}

/// Messages of a backlog of `queued` that a device is given: those with which it is done when `workers` CPU workers, each at `cpu`'s
/// pace, are done with the rest; at most `rows_max`. 0 while that is below `rows_min`, or while either pace is unknown.
#[must_use]
pub fn device_share(
    queued: usize,
    cpu: &Pace,
    workers: usize,
    device: &Pace,
    rows_min: usize,
    rows_max: usize,
) -> usize {
    let (Some(cpu_row), Some((fixed, row))) = (cpu.per_message(), device.line()) else { return 0 };
    let cpu_row = cpu_row / workers.max(1) as f64;
    // fixed + share * row = (queued - share) * cpu_row
    let share = (queued as f64 * cpu_row - fixed) / (row + cpu_row);
    // Not a number when both paces are zero: not below the least, either, and no share.
    let share = if share.is_finite() && share > 0.0 { share as usize } else { 0 };
    let share = share.min(queued).min(rows_max);
    if share < rows_min { 0 } else { share }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(fixed_us: f64, row_us: f64) -> Pace {
        let mut pace = Pace::default();
        for rows in [256, 4096, 1024, 16_384] {
            pace.learn(rows, Duration::from_secs_f64((fixed_us + row_us * rows as f64) * 1e-6));
        }
        pace
    }

    #[test]
    fn a_line_is_learnt_from_batches_of_several_sizes() {
        let (fixed, row) = pace(5000.0, 0.2).line().unwrap();
        assert!((fixed - 5e-3).abs() < 1e-5 && (row - 0.2e-6).abs() < 1e-9, "{fixed} {row}");
    }

    #[test]
    fn batches_of_one_size_teach_a_rate_without_a_fixed_part() {
        let mut pace = Pace::default();
        (0..10).for_each(|_| pace.learn(1000, Duration::from_millis(2)));
        let (fixed, row) = pace.line().unwrap();
        assert!(fixed == 0.0 && (row - 2e-6).abs() < 1e-12);
        assert!(Pace::default().line().is_none());
    }

    #[test]
    fn a_device_that_slows_down_is_soon_known_to_be_slow() {
        let mut pace = pace(1000.0, 0.2);
        for rows in [1000, 2000, 3000, 4000].into_iter().cycle().take(80) {
            pace.learn(rows, Duration::from_micros(rows as u64 * 10));
        }
        let (_, row) = pace.line().unwrap();
        assert!((row - 10e-6).abs() < 1e-6, "{row}");
    }

    #[test]
    fn both_are_done_at_the_same_time() {
        // The CPU takes 10 us a message in two workers, the device 5 ms and 0.2 us a message.
        let (cpu, device) = (pace(0.0, 10.0), pace(5000.0, 0.2));
        let share = device_share(20_000, &cpu, 2, &device, 256, 65_536) as f64;
        let (device_us, cpu_us) = (5000.0 + 0.2 * share, (20_000.0 - share) * 5.0);
        assert!((device_us - cpu_us).abs() < 50.0, "{share}: {device_us} {cpu_us}");
    }

    #[test]
    fn a_backlog_that_the_cpu_finishes_within_the_devices_latency_is_the_cpus() {
        let (cpu, device) = (pace(0.0, 10.0), pace(5000.0, 0.2));
        assert_eq!(
            device_share(1000, &cpu, 2, &device, 256, 65_536),
            0,
            "5 ms of CPU work, and 5 ms of latency"
        );
        assert_eq!(device_share(1040, &cpu, 2, &device, 256, 65_536), 0, "a handful is not worth a batch");
        assert!(device_share(1400, &cpu, 2, &device, 256, 65_536) >= 256);
    }

    #[test]
    fn a_slow_device_gets_its_share_and_no_more() {
        // Software on the same cores: a tenth of the CPU's rate.
        let (cpu, device) = (pace(0.0, 5.0), pace(1000.0, 50.0));
        let share = device_share(10_000, &cpu, 1, &device, 256, 65_536);
        assert!((800..=950).contains(&share), "{share}");
    }

    #[test]
    fn noise_in_the_cpus_times_does_not_make_it_infinitely_fast() {
        // Large batches that happened to be quicker than small ones: no slope is to be seen.
        let mut cpu = Pace::default();
        for (rows, us) in [(1000, 20_000), (4000, 19_000), (2000, 20_000)] {
            cpu.learn(rows, Duration::from_micros(us));
        }
        assert_eq!(cpu.line().map(|(_, slope)| slope), Some(0.0));
        assert!(cpu.per_message().unwrap() > 5e-6);
        assert!(device_share(20_000, &cpu, 2, &pace(5000.0, 0.2), 256, 65_536) > 10_000);
    }

    #[test]
    fn a_slow_devices_batches_are_cut_to_the_time_that_they_may_take() {
        let within = |pace: Pace| pace.messages_within(Duration::from_millis(500));
        let slow = within(pace(1000.0, 50.0)).unwrap();
        assert!((9900..=10_000).contains(&slow), "{slow}");
        assert!(within(pace(1000.0, 0.2)).unwrap() > 1 << 20);
        assert_eq!(within(pace(600_000.0, 1.0)), Some(0));
        assert_eq!(within(Pace::default()), None);
    }

    #[test]
    fn nothing_is_given_before_both_were_measured_or_beyond_the_devices_batch() {
        let (cpu, device) = (pace(0.0, 10.0), pace(5000.0, 0.2));
        assert_eq!(device_share(1 << 20, &Pace::default(), 2, &device, 256, 65_536), 0);
        assert_eq!(device_share(1 << 20, &cpu, 2, &Pace::default(), 256, 65_536), 0);
        assert_eq!(device_share(1 << 20, &cpu, 2, &device, 256, 65_536), 65_536);
        assert_eq!(
            device_share(1 << 20, &cpu, 2, &device, 256, 100),
            0,
            "a batch that small is not worth it"
        );
    }
}
