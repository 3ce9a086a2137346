//! The highest rate that holds an objective.
//!
//! Owns the search: doubling from a start, by short trials, until a rate fails, then halving the gap (in the logarithm of the rate) until it
//! is within [`Options::precision`], then repeating the best rate until as many trials held as asked for, going down a step when two did
//! not. A rate fails or holds by the majority of three trials: a stall of a disk or a neighbour in one of them must not decide, and one
//! that was taken for the target's limit would keep the search below it for good. A trial is a whole open-loop run with its own warm-up.
//! It *holds* if the run is valid, the objective is met, the generator itself was never so late that it could not be, and the target kept up
//! with what was due: a queue that grows within the trial can stay below the objective to its end, at a rate that no target keeps. A
//! message that was refused, but not on purpose, counts as one over the limit: no latency of it is in the percentiles. It *counts* only if the seconds of its throughput scatter little
//! enough (the variance gate), else it is made again; one that still scatters after that does not hold. Pure but for the trials, which the
//! caller makes: tests search a model in place of a node. What a run's report says of its trial is judged in [`judge`](judge()).

mod judge;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use judge::judge;

use crate::hgrm::Summary;
use crate::report::{group, time};

/// Version of what a search is written as: rises when a key changes its meaning or goes. New keys do not raise it.
pub const SCHEMA: u32 = 1;

/// Trials of one search, at most: beyond it something else than the rate decides.
pub const TRIALS_MAX: usize = 64;

/// Times that a trial is made again because it scattered, at most.
const AGAIN_MAX: u32 = 2;

/// What is wanted of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// Of which percentile: a level between 0 and 1; 1 is the largest value, and `None` the mean.
    pub level: Option<f64>,
    /// What it may be, microseconds.
    pub limit_us: u64,
}

impl Objective {
    /// The figure that is judged, microseconds.
    #[must_use]
    pub fn figure_us(&self, latency: &Summary) -> u64 {
        match self.level {
            None => latency.mean.round() as u64,
            Some(level) if level >= 1.0 => latency.max,
            Some(level) if level >= 0.9999 => latency.p9999,
            Some(level) if level >= 0.999 => latency.p999,
            Some(level) if level >= 0.99 => latency.p99,
            Some(level) if level >= 0.9 => latency.p90,
            Some(_) => latency.p50,
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.level {
            None => "mean".to_owned(),
            Some(level) if level >= 1.0 => "max".to_owned(),
            Some(level) => format!("p{}", ((level * 1e6).round() / 1e4).to_string().trim_end_matches(".0")),
        };
        write!(f, "{name}<={}", time(self.limit_us).replace(' ', ""))
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "got {text:?}, need p50, p90, p99, p99.9, p99.99, max or mean, then <= and a time, such as p99<=50ms"
            )
        };
        let (name, limit) = text.split_once("<=").ok_or_else(wrong)?;
        let level = match name.trim() {
            "mean" => None,
            "max" => Some(1.0),
            "p50" => Some(0.5),
            "p90" => Some(0.9),
            "p99" => Some(0.99),
            "p99.9" | "p999" => Some(0.999),
            "p99.99" | "p9999" => Some(0.9999),
            _ => return Err(wrong()),
        };
        let limit = limit.trim();
        let split =
            limit.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).ok_or_else(wrong)?;
        let number: f64 = limit[..split].parse().map_err(|_| wrong())?;
        let unit = match limit[split..].trim() {
            "us" => 1.0,
            "ms" => 1e3,
            "s" => 1e6,
            _ => return Err(wrong()),
        };
        let limit_us = (number * unit).round();
        if !(1.0..=6e8).contains(&limit_us) {
            return Err(format!("{limit} is not between 1 us and 10 minutes"));
        }
        Ok(Self { level, limit_us: limit_us as u64 })
    }
}

/// How a search is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The first rate, messages per second.
    pub start_per_s: f64,
    /// No rate above this is tried.
    pub most_per_s: f64,
    /// The search ends when failing and holding rate are within this factor.
    pub precision: f64,
    /// Trials that must hold at the rate that is reported, beside at most one that does not.
    pub repeats: u32,
    /// Largest scatter of the seconds of a trial's throughput against what was due in them: root mean square over mean.
    pub scatter_max: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { start_per_s: 5_000.0, most_per_s: 10e6, precision: 1.05, repeats: 3, scatter_max: 0.15 }
    }
}

/// One trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Rate wanted, messages per second.
    pub rate_per_s: f64,
    /// Whether it held.
    pub held: bool,
    /// Whether the target, or the generator, was left behind for good: less than 97 % of what was due was acked in its time.
    #[serde(default)]
    pub overwhelmed: bool,
    /// Whether the generator itself was too late for the objective to be met, or for the run to be valid.
    #[serde(default)]
    pub generator_late: bool,
    /// Messages per second acked.
    pub throughput_per_s: f64,
    /// The figure that is judged, microseconds: of the messages acked and those refused that should not have been.
    pub figure_us: u64,
    /// Share of the messages that were refused, but not on purpose.
    #[serde(default)]
    pub refused_share: f64,
    /// How far the seconds of the throughput are from what was due in them: root mean square over mean.
    pub scatter: f64,
    /// Whether the scatter was above the gate, so that the trial was made again, or did not hold if it was the last.
    pub scattered: bool,
    /// Share of the machine's processor time in use; `None` where the system does not tell.
    pub machine_busy: Option<f64>,
    /// Share of the time in which generator threads were at work.
    pub generator_busy: f64,
    /// Why it did not hold.
    pub why: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// What was wanted.
    pub objective: String,
    /// The highest rate that held, messages per second; 0 if none did. The least that was acked in the trials that confirmed it: a profile
    /// whose processes are drawn, or a day's hour, offers more or less than its nominal rate.
    pub rate_per_s: f64,
    /// The rate asked for in these trials, on the scale of the trials' own and of `failed_per_s`.
    #[serde(default)]
    pub nominal_rate_per_s: f64,
    /// The lowest nominal rate that did not, if one did not.
    pub failed_per_s: Option<f64>,
    /// What bounds it.
    pub bound: String,
    /// Every trial, in order.
    pub trials: Vec<Trial>,
}

/// How a trial is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A quarter of the time: enough to find the order of magnitude.
    Short,
    /// All of it.
    Full,
}

/// The trials of a search.
struct Attempts<'a, T, O> {
    options: &'a Options,
    trial: T,
    observer: O,
    made: Vec<Trial>,
}

impl<T, O, E> Attempts<'_, T, O>
where
    T: FnMut(f64, Length) -> Result<Trial, E>,
    O: FnMut(&Trial),
{
    fn are_used_up(&self) -> bool {
        self.made.len() >= TRIALS_MAX
    }

    /// One trial that counts: one that scattered is made again.
    fn once(&mut self, rate: f64, length: Length) -> Result<Trial, E> {
        let mut again = 0;
        loop {
            let mut made = (self.trial)(rate, length)?;
            made.rate_per_s = rate;
            let is_last = again >= AGAIN_MAX || self.made.len() + 1 >= TRIALS_MAX;
            // A trial that failed need not be steady: an overloaded target seldom is.
            made.scattered = made.held && made.scatter > self.options.scatter_max;
            if made.scattered && is_last {
                made.held = false;
                made.why = Some(format!("its seconds scatter by {:.0} %", 100.0 * made.scatter));
            }
            (self.observer)(&made);
            self.made.push(made.clone());
            if !made.scattered || is_last {
                return Ok(made);
            }
            again += 1;
        }
    }

    /// Whether most of three whole trials hold at a rate. One that was overwhelmed decides alone: no chance explains it, but that the
    /// generator itself was away at its end.
    fn vote(&mut self, rate: f64) -> Result<bool, E> {
        let (mut held, mut failed) = (0, 0);
        loop {
            let made = self.once(rate, Length::Full)?;
            if made.held {
                held += 1;
            } else {
                failed += 1;
            }
            if held >= 2 {
                return Ok(true);
            }
            if failed >= 2 || made.overwhelmed && !made.generator_late || self.are_used_up() {
                return Ok(false);
            }
        }
    }
}

/// Searches. `trial` makes a run at a rate; `observer` hears of each trial.
///
/// # Errors
/// The first error of `trial`.
pub fn search<E>(
    objective: &Objective,
    options: &Options,
    trial: impl FnMut(f64, Length) -> Result<Trial, E>,
    observer: impl FnMut(&Trial),
) -> Result<Found, E> {
    let mut attempts = Attempts { options, trial, observer, made: Vec::new() };
    let (mut low, mut high) = (0.0f64, None::<f64>);
    let mut rate = options.start_per_s.min(options.most_per_s);
    while !attempts.are_used_up() {
        // Up to the first failure short trials do; that it was one, whole ones must say.
        let holds = high.is_none() && attempts.once(rate, Length::Short)?.held || attempts.vote(rate)?;
        if holds {
            low = low.max(rate);
        } else {
            high = Some(high.map_or(rate, |high| high.min(rate)));
        }
        rate = match high {
            None if low >= options.most_per_s => break,
            None => (low * 2.0).min(options.most_per_s),
            Some(high) if low == 0.0 && high < options.start_per_s / 1_000.0 => break,
            Some(high) if low == 0.0 => high / 2.0,
            Some(high) if high / low <= options.precision => break,
            Some(high) => (low * high).sqrt(),
        };
    }
    // The rate that is reported held as often as asked for, and failed less than twice.
    let (mut held, mut failed, mut acked) = (0, 0, f64::INFINITY);
    while low > 0.0 && held < options.repeats {
        if attempts.are_used_up() {
            low = 0.0;
            break;
        }
        let made = attempts.once(low, Length::Full)?;
        if made.held {
            held += 1;
            acked = acked.min(made.throughput_per_s);
        } else {
            failed += 1;
        }
        if failed >= 2 {
            high = Some(low);
            low /= options.precision;
            (held, failed, acked) = (0, 0, f64::INFINITY);
        }
    }
    let trials = attempts.made;
    let bound = bound(objective, low, high, &trials);
    Ok(Found {
        objective: objective.to_string(),
        // Without a confirming trial (none asked for, or nothing held) the nominal rate is all there is.
        rate_per_s: if low > 0.0 && acked.is_finite() { acked.round() } else { low.round() },
        nominal_rate_per_s: low.round(),
        failed_per_s: high.map(f64::round),
        bound,
        trials,
    })
}

/// What keeps the rate from being higher than `low`, by the lowest rate above it that failed: a failure at a lower rate was outvoted.
fn bound(objective: &Objective, low: f64, high: Option<f64>, trials: &[Trial]) -> String {
    let failed = trials
        .iter()
        .filter(|trial| !trial.held && trial.rate_per_s > low)
        .min_by(|one, other| one.rate_per_s.total_cmp(&other.rate_per_s));
    let (Some(_), Some(failed)) = (high, failed) else {
        return "nothing up to the highest rate tried".to_owned();
    };
    let rate = group(failed.rate_per_s.round() as u64);
    let why = failed.why.clone().unwrap_or_else(|| format!("{objective} is not met"));
    let resource = match failed.machine_busy {
        // With all processors in use it is late because it had none.
        busy if failed.generator_late
            && busy.is_none_or(|busy| busy <= 0.9)
            && failed.generator_busy <= 0.9 =>
        {
            "the generator, which was late itself: this says nothing of the target".to_owned()
        }
        Some(busy) if busy > 0.9 => {
            format!(
                "processors ({:.0} % of this machine's time in use, generator {:.0} % of its threads)",
                100.0 * busy,
                100.0 * failed.generator_busy
            )
        }
        _ if failed.generator_busy > 0.9 => {
            "the generator's threads (give it more with --generator-threads)".to_owned()
        }
        Some(busy) => {
            format!("the target: this machine's processors are {:.0} % busy, so not they", 100.0 * busy)
        }
        None => "the target".to_owned(),
    };
    format!("{resource}; at {rate} messages/s: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::mix;

    /// A target whose 99th percentile is that of a queue with this capacity, give or take a few percent.
    fn model(capacity: f64, seed: u64) -> impl FnMut(f64, Length) -> Result<Trial, ()> {
        let mut draw = seed;
        move |rate, _| {
            draw = mix(draw);
            let noise = 0.97 + 0.06 * crate::arrival::unit(draw);
            let load = rate / (capacity * noise);
            let figure_us = if load < 1.0 { (2_000.0 / (1.0 - load)) as u64 } else { 10_000_000 };
            let held = figure_us <= 50_000;
            Ok(Trial {
                figure_us,
                held,
                throughput_per_s: rate,
                why: (!held).then(|| "late".to_owned()),
                machine_busy: Some(load.min(1.0)),
                ..Trial::default()
            })
        }
    }

    fn find(capacity: f64, seed: u64) -> Found {
        let objective = "p99<=50ms".parse().unwrap();
        search(&objective, &Options::default(), model(capacity, seed), |_| {}).unwrap()
    }

    #[test]
    fn the_highest_rate_is_found_again_within_a_tenth() {
        for capacity in [300.0, 12_345.0, 777_777.0] {
            let rates: Vec<f64> = (0..20).map(|seed| find(capacity, seed).rate_per_s).collect();
            let (least, most) = rates
                .iter()
                .fold((f64::MAX, 0.0f64), |(least, most), rate| (least.min(*rate), most.max(*rate)));
            // Load 0.96 meets 50 ms; noise takes up to 3 % either way.
            assert!(least > 0.85 * capacity && most < 1.0 * capacity, "{capacity}: {least} .. {most}");
            assert!(most / least < 1.1, "{capacity}: {least} .. {most}");
        }
        let found = find(12_345.0, 1);
        assert!(found.bound.starts_with("processors") && found.bound.contains("late"), "{}", found.bound);
        assert!(found.trials.len() < 30 && found.failed_per_s.unwrap() > found.rate_per_s);
    }

    #[test]
    fn what_bounds_a_rate_is_told_by_a_failure_above_it_and_not_by_one_that_was_outvoted() {
        let trial = |rate_per_s, held: bool, why: &str| Trial {
            rate_per_s,
            held,
            why: (!held).then(|| why.to_owned()),
            machine_busy: Some(0.5),
            ..Trial::default()
        };
        let trials =
            [trial(80.0, false, "a stall"), trial(100.0, true, ""), trial(120.0, false, "the limit")];
        let objective: Objective = "p99<=50ms".parse().unwrap();
        let bound = bound(&objective, 100.0, Some(120.0), &trials);
        assert!(bound.contains("the limit") && bound.contains("at 120"), "{bound}");
    }

    /// One trial in six meets a stall that has nothing to do with the rate.
    #[test]
    fn stalls_that_come_by_chance_do_not_decide_a_search() {
        let objective = "p99<=50ms".parse().unwrap();
        let rates: Vec<f64> = (0..40u64)
            .map(|seed| {
                let mut steady = model(100_000.0, seed);
                let mut draw = mix(seed ^ 0x5354_414C);
                let trial = |rate, length| {
                    draw = mix(draw);
                    let made = steady(rate, length)?;
                    let stalled = crate::arrival::unit(draw) < 1.0 / 6.0;
                    Ok::<_, ()>(Trial { held: made.held && !stalled, ..made })
                };
                search(&objective, &Options::default(), trial, |_| {}).unwrap().rate_per_s
            })
            .collect();
        let good = rates.iter().filter(|rate| (88_000.0..100_000.0).contains(*rate)).count();
        assert!(good >= 30, "{good} of 40: {rates:?}");
    }

    #[test]
    fn a_trial_that_was_overwhelmed_decides_alone_unless_the_generator_was_late() {
        let objective = "p50<=1ms".parse().unwrap();
        let options = Options { start_per_s: 8_000.0, most_per_s: 8_000.0, repeats: 1, ..Options::default() };
        for (generator_late, rate) in [(true, 8_000.0), (false, 7_727.0)] {
            // The short trial and the first whole one.
            let mut left = 2;
            let trial = |rate, _| {
                let held = left == 0;
                left -= i32::from(!held);
                let overwhelmed = !held;
                Ok::<_, ()>(Trial {
                    held,
                    overwhelmed,
                    generator_late,
                    throughput_per_s: rate,
                    ..Trial::default()
                })
            };
            let found = search(&objective, &options, trial, |_| {}).unwrap();
            assert!((found.rate_per_s - rate).abs() < 100.0, "{generator_late}: {}", found.rate_per_s);
        }
    }

    #[test]
    fn a_target_that_never_holds_or_always_holds_ends_the_search() {
        let objective = "max<=1s".parse().unwrap();
        let answer =
            |held| move |rate, _| Ok::<_, ()>(Trial { held, throughput_per_s: rate, ..Trial::default() });
        let never = search(&objective, &Options::default(), answer(false), |_| {}).unwrap();
        assert_eq!(never.rate_per_s, 0.0);
        let always = search(&objective, &Options::default(), answer(true), |_| {}).unwrap();
        assert_eq!((always.rate_per_s, always.failed_per_s), (10e6, None));
        assert!(always.bound.contains("nothing"));
    }

    #[test]
    fn a_trial_that_scatters_is_made_again() {
        let mut calls = 0;
        let objective = "p50<=1ms".parse().unwrap();
        let options = Options { most_per_s: 5_000.0, repeats: 1, ..Options::default() };
        let trial = |rate, _| {
            calls += 1;
            Ok::<_, ()>(Trial {
                held: true,
                throughput_per_s: rate,
                scatter: if calls == 1 { 0.5 } else { 0.01 },
                ..Trial::default()
            })
        };
        let found = search(&objective, &options, trial, |_| {}).unwrap();
        // Again, and once more at the rate that is reported.
        assert_eq!((found.trials.len(), found.rate_per_s), (3, 5_000.0));
        assert!(found.trials[0].scattered && !found.trials[1].scattered);
    }

    #[test]
    fn a_trial_that_scatters_to_the_last_repeat_does_not_hold() {
        let objective = "p50<=1ms".parse().unwrap();
        let options = Options { start_per_s: 8_000.0, most_per_s: 8_000.0, repeats: 1, ..Options::default() };
        // Steady below 3,000 messages per second only.
        let trial = |rate, _| {
            let scatter = if rate > 3_000.0 { 0.5 } else { 0.01 };
            Ok::<_, ()>(Trial { held: true, scatter, throughput_per_s: rate, ..Trial::default() })
        };
        let found = search(&objective, &options, trial, |_| {}).unwrap();
        assert!(found.rate_per_s > 1_900.0 && found.rate_per_s <= 3_000.0, "{}", found.rate_per_s);
        let last = &found.trials[AGAIN_MAX as usize];
        assert!(last.scattered && !last.held);
        assert_eq!(last.why.as_deref(), Some("its seconds scatter by 50 %"));
        assert!(found.trials[0].scattered && found.trials[0].why.is_none(), "it is made again");
    }

    #[test]
    fn the_rate_that_is_reported_is_the_least_that_was_acked_when_it_was_confirmed() {
        let objective = "p99<=50ms".parse().unwrap();
        let options = Options { most_per_s: 5_000.0, ..Options::default() };
        let mut made = 0.0;
        // A profile whose day offers about half of its nominal rate at this hour.
        let trial = |rate: f64, _| {
            made += 1.0;
            Ok::<_, ()>(Trial { held: true, throughput_per_s: rate / 2.0 + 10.0 * made, ..Trial::default() })
        };
        let found = search(&objective, &options, trial, |_| {}).unwrap();
        // One short trial comes before the confirming ones.
        assert_eq!((found.rate_per_s, found.nominal_rate_per_s), (2_520.0, 5_000.0));
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!(json["nominal_rate_per_s"], 5_000.0);
    }

    #[test]
    fn objectives_are_read_as_they_are_written() {
        for text in ["p99<=50.0ms", "p99.9<=1.50s", "max<=900us", "mean<=2.00ms", "p50<=10.0ms"] {
            let objective: Objective = text.parse().unwrap();
            assert_eq!(objective.to_string(), text);
        }
        for text in ["p99", "p98<=1ms", "p99<1ms", "p99<=ms", "p99<=5", "p99<=0us", "p99<=1h"] {
            assert!(text.parse::<Objective>().is_err(), "{text}");
        }
    }
}
