//! One trial out of a run's report.
//!
//! Owns the judgement: whether a run held an objective, why not, and how much its seconds scatter. Invariants: a message that was refused,
//! but not on purpose, counts as one over the limit; a generator that was itself too late for the objective is never taken for a target
//! that was. What is made of trials is left to the [search](super).

use super::{Objective, Trial};
use crate::faults::Fault;
use crate::hgrm::decode;
use crate::report::{FaultReport, Moment, Report, group, time};

/// Share of what was due that a trial must have acked in its time, not to be overwhelmed.
const OVERWHELMED: f64 = 0.97;

/// A trial out of a run's report.
#[must_use]
pub fn judge(report: &Report, objective: &Objective, machine_busy: Option<f64>) -> Trial {
    let refused_share = refused_share(report);
    let refused_max = objective.level.map_or(0.0, |level| (1.0 - level).max(0.0));
    let figure_us = figure_us(report, objective, refused_share);
    let met = figure_us <= objective.limit_us && report.latency_us.count > 0;
    let kept = kept(report);
    // A closed loop has no lag, and its latency no part of it.
    let lag_us = objective.figure_us(&report.generator_lag_us);
    let too_late_for_objective = lag_us >= objective.limit_us;
    let too_late_to_be_valid =
        report.lag_p99_us_max > 0 && report.generator_lag_us.p99 > report.lag_p99_us_max;
    let why = match &report.invalid_reason {
        Some(reason) => Some(reason.clone()),
        None if too_late_for_objective => {
            Some(format!("{objective} cannot be met: the generator itself was late by {}", time(lag_us)))
        }
        None if refused_share > refused_max + 1e-9 => Some(format!(
            "{:.2} % of the messages were refused, which {objective} allows of {:.2} %{}",
            100.0 * refused_share,
            100.0 * refused_max,
            reasons(report)
        )),
        None if !met && 2 * lag_us >= objective.limit_us => Some(format!(
            "{objective} is not met: {}, with {} of the generator's own",
            time(figure_us),
            time(lag_us)
        )),
        None if !met => Some(format!("{objective} is not met: {}", time(figure_us))),
        None if kept < OVERWHELMED => {
            Some(format!("only {:.1} % of what was due was acked in time", 100.0 * kept))
        }
        None => None,
    };
    Trial {
        rate_per_s: report.rate.intended_per_s.unwrap_or(0.0),
        held: why.is_none(),
        overwhelmed: kept < OVERWHELMED,
        generator_late: too_late_for_objective || too_late_to_be_valid,
        throughput_per_s: report.throughput_msgs_per_s,
        figure_us,
        refused_share,
        scatter: scatter(report),
        scattered: false,
        machine_busy,
        generator_busy: report.generator.busy_share,
        why,
    }
}

/// Messages that were refused because a fault on purpose asks for it. Of a duplicate one of two is: nothing that was due is missing.
fn refused_on_purpose(report: &Report, duplicates: bool) -> u64 {
    let counts = |(name, _): &(&String, &FaultReport)| duplicates || *name != Fault::Duplicate.name();
    report.faults.iter().filter(counts).map(|(_, fault)| fault.rejected).sum()
}

/// Share of the messages without those that were refused on purpose, that was refused all the same.
fn refused_share(report: &Report) -> f64 {
    let on_purpose = refused_on_purpose(report, true);
    let refused = report.rejected_total.saturating_sub(on_purpose);
    refused as f64 / report.sent_total.saturating_sub(on_purpose).max(1) as f64
}

/// What messages were refused for, as the end of a sentence.
fn reasons(report: &Report) -> String {
    let named: Vec<String> =
        report.rejected.iter().map(|(name, count)| format!("{name}: {}", group(*count))).collect();
    if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) }
}

/// The figure that is judged, with the messages that were refused as the slowest of all.
fn figure_us(report: &Report, objective: &Objective, refused_share: f64) -> u64 {
    let plain = objective.figure_us(&report.latency_us);
    let Some(level) = objective.level.filter(|_| refused_share > 0.0) else { return plain };
    let level = level / (1.0 - refused_share);
    if level >= 1.0 {
        return report.latency_us.max.max(plain);
    }
    // A report without its histogram has the percentile of the messages acked only.
    decode(&report.histograms.latency).map_or(plain, |latency| latency.value_at_quantile(level).max(plain))
}

/// Share of what was due that was acked in the measured time; 1 where nothing was due by a clock.
fn kept(report: &Report) -> f64 {
    // What is wrong on purpose and refused for it is due but never acked, however idle the target.
    let refused = refused_on_purpose(report, false) as f64 / report.sent_total.max(1) as f64;
    match report.rate.intended_per_s.map(|due| due * (1.0 - refused)) {
        Some(due) if due > 0.0 => report.throughput_msgs_per_s / due,
        _ => 1.0,
    }
}

/// Scatter of the measured seconds: how far what was acked is from what had fallen due, so that a profile's own bursts do not count. The
/// root of the mean square of the differences, over the mean: a second in which next to nothing is due weighs no more than any other. What
/// is acked in a second fell due the run's median latency before, and what a run refuses or leaves out throughout does not scatter.
fn scatter(report: &Report) -> f64 {
    let (from, to) = (report.warm_up_s, report.warm_up_s + report.duration_s);
    let is_measured = |moment: &Moment| {
        moment.at_s - moment.seconds >= from - 0.1 && moment.at_s <= to + 0.2 && moment.seconds > 0.5
    };
    // Times and how many messages had fallen due until then.
    let mut until = vec![(0.0, 0.0)];
    let mut total = 0.0;
    for moment in &report.timeline {
        // Reports of an earlier version have the models' mean only.
        let Some(due_per_s) = moment.due_per_s.or(moment.intended_per_s) else { return 0.0 };
        total += due_per_s * moment.seconds;
        until.push((moment.at_s, total));
    }
    let delay_s = report.latency_us.p50 as f64 / 1e6;
    let due_until = |at_s: f64| {
        let place = until.partition_point(|(end_s, _)| *end_s < at_s);
        match (place.checked_sub(1).and_then(|before| until.get(before)), until.get(place)) {
            (Some(one), Some(other)) => one.1 + (other.1 - one.1) * (at_s - one.0) / (other.0 - one.0),
            (Some(last), None) => last.1,
            (None, _) => 0.0,
        }
    };
    let seconds: Vec<(f64, f64)> = report
        .timeline
        .iter()
        .filter(|moment| is_measured(moment))
        .map(|moment| {
            let end_s = moment.at_s - delay_s;
            let due = due_until(end_s) - due_until(end_s - moment.seconds);
            // Per second: not all stretches are equally long.
            (due / moment.seconds, moment.acked_per_s)
        })
        .collect();
    if seconds.len() < 2 {
        return 0.0;
    }
    let (due, acked) = seconds.iter().fold((0.0, 0.0), |sum, second| (sum.0 + second.0, sum.1 + second.1));
    if due <= 0.0 || acked <= 0.0 {
        return 0.0;
    }
    let squares: f64 = seconds.iter().map(|second| (second.1 - second.0 * acked / due).powi(2)).sum();
    let count = seconds.len() as f64;
    (squares / (count - 1.0)).sqrt() / (acked / count)
}

#[cfg(test)]
mod tests {
    use super::super::{Length, Options, bound, search};
    use super::*;
    use crate::hgrm::{Summary, encode, new_histogram};
    use crate::report::Rate;

    /// The report of a trial in which a queue grows for as long as more falls due than the target takes.
    fn growing(capacity: f64, rate: f64, seconds: f64) -> Report {
        let acked_per_s = rate.min(capacity);
        let wait_us = ((rate - acked_per_s) * seconds / capacity * 0.99e6) as u64 + 2_000;
        let moment = |second: u32| Moment {
            at_s: f64::from(second),
            seconds: 1.0,
            intended_per_s: Some(rate),
            acked_per_s,
            ..Default::default()
        };
        Report {
            rate: Rate { intended_per_s: Some(rate), achieved_per_s: rate },
            throughput_msgs_per_s: acked_per_s,
            latency_us: Summary { count: 1, p99: wait_us, ..Summary::default() },
            duration_s: seconds,
            timeline: (1..=seconds as u32).map(moment).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn a_queue_that_grows_within_a_trial_does_not_hold_however_wide_the_objective() {
        let objective: Objective = "p99<=1s".parse().unwrap();
        for capacity in [3_000.0, 100_000.0] {
            let trial = |rate, length| {
                let seconds = if length == Length::Short { 2.0 } else { 8.0 };
                Ok::<_, ()>(judge(&growing(capacity, rate, seconds), &objective, None))
            };
            let found = search(&objective, &Options::default(), trial, |_| {}).unwrap();
            assert!(
                found.rate_per_s <= capacity && found.rate_per_s > 0.9 * capacity,
                "{}",
                found.rate_per_s
            );
            assert!(found.nominal_rate_per_s <= capacity / OVERWHELMED + 1.0, "{}", found.nominal_rate_per_s);
        }
        // Of 10 % more than it takes, a tenth waits less than the objective allows.
        let trial = judge(&growing(100.0, 110.0, 8.0), &objective, None);
        assert!(trial.figure_us < 1_000_000 && trial.overwhelmed && !trial.held);
        assert_eq!(trial.why.as_deref(), Some("only 90.9 % of what was due was acked in time"));
    }

    #[test]
    fn signatures_that_are_wrong_on_purpose_do_not_count_as_left_behind() {
        let objective: Objective = "p99<=1s".parse().unwrap();
        let mut report = growing(100.0, 100.0, 8.0);
        report.sent_total = 1_000;
        report.throughput_msgs_per_s = 95.0;
        assert!(!judge(&report, &objective, None).held);
        let bad = FaultReport { sent: 50, acked: 0, rejected: 50 };
        report.faults.insert("bad_signature".to_owned(), bad);
        assert!(judge(&report, &objective, None).held);
    }

    /// A run at a low rate that meets anything.
    fn easy() -> Report {
        let mut report = growing(1_000.0, 100.0, 8.0);
        report.sent_total = 1_000;
        report
    }

    #[test]
    fn a_pause_of_the_generator_fails_a_trial_with_the_generator_as_the_reason() {
        let mut report = easy();
        report.lag_p99_us_max = 20_000;
        (report.latency_us.max, report.generator_lag_us.max) = (502_000, 500_000);
        let objective: Objective = "max<=50ms".parse().unwrap();
        let trial = judge(&report, &objective, Some(0.3));
        assert!(!trial.held && trial.generator_late);
        let why = trial.why.clone().unwrap();
        assert!(why.contains("the generator itself was late by 500"), "{why}");
        let bound = bound(&objective, 50.0, Some(100.0), &[trial]);
        assert!(bound.starts_with("the generator"), "{bound}");
        // At a level that the pause does not reach it matters as little as the target's.
        let trial = judge(&report, &"p99<=50ms".parse().unwrap(), Some(0.3));
        assert!(trial.held && !trial.generator_late, "{trial:?}");
        // One that made the run invalid is named as well.
        report.generator_lag_us.p99 = 21_000;
        report.invalid_reason = Some("the generator lagged".to_owned());
        assert!(judge(&report, &"p99<=50ms".parse().unwrap(), None).generator_late);
        // And a target that is slow by itself is still the target.
        let mut slow = easy();
        slow.latency_us.max = 502_000;
        let trial = judge(&slow, &objective, Some(0.3));
        assert!(!trial.held && !trial.generator_late, "{trial:?}");
    }

    #[test]
    fn messages_refused_count_as_over_the_limit() {
        let holds = |objective: &str, refused: u64, sent: u64| {
            let mut report = easy();
            (report.sent_total, report.rejected_total) = (sent, refused);
            report.rejected.insert("stale".to_owned(), refused);
            judge(&report, &objective.parse().unwrap(), None)
        };
        let trial = holds("p99<=50ms", 25, 1_000);
        assert!(!trial.held && trial.refused_share == 0.025);
        let why = trial.why.unwrap();
        assert!(why.starts_with("2.50 % of the messages were refused") && why.contains("stale: 25"), "{why}");
        assert!(holds("p99<=50ms", 5, 1_000).held && holds("p99<=50ms", 10, 1_000).held);
        assert!(!holds("p99.9<=50ms", 5, 1_000).held && holds("p50<=50ms", 25, 1_000).held);
        for strict in ["max<=50ms", "mean<=50ms"] {
            assert!(holds(strict, 0, 1_000).held && !holds(strict, 1, 1_000_000).held, "{strict}");
        }
    }

    #[test]
    fn messages_refused_on_purpose_do_not_count_as_over_the_limit() {
        let mut report = easy();
        for name in ["bad_signature", "duplicate", "out_of_order"] {
            let refused = FaultReport { sent: 20, acked: 0, rejected: 20 };
            report.faults.insert(name.to_owned(), refused);
        }
        // Of each duplicate one is acked.
        (report.rejected_total, report.throughput_msgs_per_s) = (60, 96.0);
        let trial = judge(&report, &"max<=50ms".parse().unwrap(), None);
        assert!(trial.held && trial.refused_share == 0.0, "{trial:?}");
    }

    /// 1,000 acked, the slowest 8 of them in 80 ms: p99 is met, but not with 5 that were refused beside them.
    #[test]
    fn messages_refused_move_the_percentile() {
        let mut report = easy();
        let mut latency = new_histogram();
        latency.record_n(2_000, 992).unwrap();
        latency.record_n(80_000, 8).unwrap();
        report.latency_us = Summary::of(&latency);
        report.histograms.latency = encode(&latency).unwrap();
        let objective = "p99<=50ms".parse().unwrap();
        assert!(judge(&report, &objective, None).held);
        (report.sent_total, report.rejected_total) = (1_005, 5);
        let trial = judge(&report, &objective, None);
        assert!(!trial.held && trial.figure_us > 79_000, "{trial:?}");
    }

    /// A run whose seconds have `due` and `acked` messages.
    fn seconds(due: &[f64], acked: &[f64], p50_us: u64) -> Report {
        let mean = due.iter().sum::<f64>() / due.len() as f64;
        let moment = |(number, (due, acked)): (usize, (&f64, &f64))| Moment {
            at_s: (number + 1) as f64,
            seconds: 1.0,
            intended_per_s: Some(mean),
            due_per_s: Some(*due),
            acked_per_s: *acked,
            ..Moment::default()
        };
        Report {
            rate: Rate { intended_per_s: Some(mean), achieved_per_s: mean },
            throughput_msgs_per_s: acked.iter().sum::<f64>() / due.len() as f64,
            latency_us: Summary { count: 1, p50: p50_us, ..Summary::default() },
            duration_s: due.len() as f64,
            timeline: due.iter().zip(acked).enumerate().map(moment).collect(),
            ..Report::default()
        }
    }

    fn scatter_of(due: &[f64], acked: &[f64], p50_us: u64) -> f64 {
        judge(&seconds(due, acked, p50_us), &"p99<=50ms".parse().unwrap(), None).scatter
    }

    const BURSTS: [f64; 8] = [100.0, 1_000.0, 100.0, 100.0, 1_000.0, 1_000.0, 100.0, 1_000.0];

    #[test]
    fn bursts_of_the_profile_do_not_scatter_and_a_target_that_stalls_in_them_does() {
        assert!(scatter_of(&BURSTS, &BURSTS, 0) < 1e-9);
        // What is acked 100 ms after it was due is acked in the next second, in part.
        let late: Vec<f64> = (0..8)
            .map(|second| 0.9 * BURSTS[second] + 0.1 * if second > 0 { BURSTS[second - 1] } else { 0.0 })
            .collect();
        assert!(scatter_of(&BURSTS, &late, 100_000) < 1e-9);
        // A tenth that is refused or left out throughout.
        assert!(scatter_of(&BURSTS, &BURSTS.map(|due| 0.9 * due), 0) < 1e-9);
        let mut stalled = BURSTS;
        (stalled[4], stalled[5]) = (300.0, 1_700.0);
        assert!(scatter_of(&BURSTS, &stalled, 5_000) > 0.3, "{}", scatter_of(&BURSTS, &stalled, 5_000));
    }

    #[test]
    fn a_steady_target_that_stalls_scatters_and_an_empty_second_weighs_no_more_than_others() {
        let due = [100.0; 8];
        let mut stalled = due;
        (stalled[3], stalled[4]) = (0.0, 200.0);
        assert!(scatter_of(&due, &stalled, 5_000) > 0.3);
        // 0.1 due and 3 acked that were late: a ratio of 30, and 2.9 messages.
        let due = [100.0, 100.0, 0.1, 100.0, 100.0, 100.0];
        let mut acked = due;
        (acked[1], acked[2]) = (97.0, 3.1);
        assert!(scatter_of(&due, &acked, 0) < 0.05, "{}", scatter_of(&due, &acked, 0));
        // An older report tells what the models expected, and nothing else.
        let mut old = seconds(&[100.0; 8], &stalled, 5_000);
        old.timeline.iter_mut().for_each(|moment| moment.due_per_s = None);
        assert!(scatter(&old) > 0.3);
        // A closed loop has nothing that is due.
        old.timeline.iter_mut().for_each(|moment| moment.intended_per_s = None);
        assert_eq!(scatter(&old), 0.0);
    }

    /// A real run: a fifth of the seconds of this profile have twenty times as many messages as the others.
    #[test]
    fn a_run_of_a_drawn_profile_against_a_steady_target_does_not_scatter() {
        use crate::config::{NullTarget, RunConfig, Target, World};
        use crate::driver::{Stop, run};
        let text = "name = \"t\"\nabout = \"t\"\n[[class]]\nname = \"bursty\"\ndevices = 10000\n\
                    payload = { kind = \"fixed\", bytes = 32 }\n[[class.stream]]\narrival = \"mmpp\"\nmean_interval_s = 10.0\n\
                    active_factor = 20.0\nquiet_s = 2.0\nactive_s = 0.5\nregions = 1\n";
        let world = World::new(std::sync::Arc::new(crate::profile::Profile::parse(text).unwrap()));
        let config = RunConfig {
            schedule: crate::schedule::Schedule::Open { rate_per_s: world.rate_per_s() },
            world: Some(world),
            warm_up: std::time::Duration::ZERO,
            duration: std::time::Duration::from_secs(5),
            connections: 1,
            lag_p99_max: std::time::Duration::from_secs(1),
            ..RunConfig::new(Target::Null(NullTarget::default()))
        };
        let mut report = run(&config, &Stop::new(), &mut |_| {}).unwrap().report;
        let due: f64 = report.timeline.iter().map(|moment| moment.due_per_s.unwrap() * moment.seconds).sum();
        assert!((due - report.sent_total as f64).abs() < 1.0 + 0.001 * due, "{due} of {}", report.sent_total);
        for (number, moment) in report.timeline.iter().take(5).enumerate() {
            let late_s = moment.at_s - (number + 1) as f64;
            assert!((0.0..0.5).contains(&late_s), "looks are at whole seconds: {moment:?}");
        }
        let scatters = scatter(&report);
        report.timeline.iter_mut().for_each(|moment| moment.due_per_s = None);
        let against_the_mean = scatter(&report);
        // A busy machine may stall the run; the profile's bursts are far more than that.
        assert!(
            scatters < 0.3 * against_the_mean && against_the_mean > 0.5,
            "{scatters}, {against_the_mean}"
        );
    }
}
