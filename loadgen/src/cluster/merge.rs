//! Many reports as one.
//!
//! Owns the merge. Counts and histograms are added exactly, and percentiles are read from the sum; rates are added; the generator's lag is
//! that of all messages. A timeline is added by its time, second by second (of two percentiles the higher is kept). Anything that is not the same in all
//! parts and cannot be added (machine, connections of one) is taken from the first, and what differs is named.
//!
//! Rates may be added only if all parts measured the same time. A worker that was stopped, measured another time than the others or began
//! late makes the sum a rate that nobody sent, so it is named and the report is invalid.

use std::collections::BTreeMap;
use std::io;

use crate::hgrm::{Summary, decode, encode, new_histogram};
use crate::report::{FaultReport, HandshakeReport, Moment, Report};
use crate::timeline::MOMENTS_MAX;

/// Difference of two measured times that is still the same time: the parts end theirs each by its own clock.
const DURATION_SLACK_S: f64 = 0.05;

/// What a worker that began late says among its problems. A report has no other trace of it.
const BEGAN_LATE: (&str, &str) = ("the run began ", " after the time that it was told");

/// The report of all `parts`; `lost` names the workers that left none, and how.
///
/// # Errors
/// If there is no part, or a histogram cannot be read.
pub fn merge(parts: &[Report], lost: &[String]) -> io::Result<Report> {
    let Some(first) = parts.first() else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no worker left a report: {}", lost.join("; ")),
        ));
    };
    let mut all = first.clone();
    let sum = |pick: fn(&Report) -> u64| parts.iter().map(pick).sum::<u64>();
    let add = |pick: fn(&Report) -> f64| parts.iter().map(pick).sum::<f64>();
    all.sent_total = sum(|part| part.sent_total);
    all.acked_total = sum(|part| part.acked_total);
    all.rejected_total = sum(|part| part.rejected_total);
    all.unacked = sum(|part| part.unacked);
    all.missing_on_purpose = sum(|part| part.missing_on_purpose);
    all.throughput_msgs_per_s = add(|part| part.throughput_msgs_per_s);
    all.device_equivalents = add(|part| part.device_equivalents);
    all.rate.achieved_per_s = add(|part| part.rate.achieved_per_s);
    all.rate.intended_per_s =
        parts.iter().map(|part| part.rate.intended_per_s).try_fold(0.0, |sum, rate| Some(sum + rate?));
    all.held_back_s = add(|part| part.held_back_s);
    all.connections = parts.iter().map(|part| part.connections).sum();
    all.elapsed_s = parts.iter().map(|part| part.elapsed_s).fold(0.0, f64::max);
    all.memory_peak_bytes = parts.iter().filter_map(|part| part.memory_peak_bytes).max();
    all.stopped = parts.iter().any(|part| part.stopped);
    all.profile.worker = 0;

    let mut rejected: BTreeMap<String, u64> = BTreeMap::new();
    let mut faults: BTreeMap<String, FaultReport> = BTreeMap::new();
    for part in parts {
        for (name, count) in &part.rejected {
            *rejected.entry(name.clone()).or_default() += count;
        }
        for (name, count) in &part.faults {
            let fault = faults.entry(name.clone()).or_default();
            fault.sent += count.sent;
            fault.acked += count.acked;
            fault.rejected += count.rejected;
        }
    }
    (all.rejected, all.faults) = (rejected, faults);
    let bytes: f64 = parts.iter().map(|part| part.message_bytes * part.sent_total as f64).sum();
    all.message_bytes = bytes / all.sent_total.max(1) as f64;
    all.payload_bytes = (all.message_bytes - weft_core::MESSAGE_BYTES_MIN as f64).max(0.0);

    (all.histograms.latency, all.latency_us) = histogram(parts, |part| Some(&part.histograms.latency))?;
    (all.histograms.service_time, all.service_time_us) =
        histogram(parts, |part| Some(&part.histograms.service_time))?;
    (all.histograms.send_lag, all.send_lag_us) = histogram(parts, |part| Some(&part.histograms.send_lag))?;
    (all.histograms.generator_lag, all.generator_lag_us) =
        histogram(parts, |part| Some(&part.histograms.generator_lag))?;
    // Parts of an older version have none of it.
    (all.histograms.handshake, all.handshake_us) =
        histogram(parts, |part| Some(&part.histograms.handshake).filter(|text| !text.is_empty()))?;
    all.handshakes = handshakes(parts);
    let sent: u64 = parts.iter().flat_map(|part| &part.classes).map(|class| class.sent).sum();
    let mut texts = Vec::new();
    for (number, class) in all.classes.iter_mut().enumerate() {
        let of = |part: &Report| part.classes.get(number).cloned().unwrap_or_default();
        class.intended = parts.iter().map(|part| of(part).intended).sum();
        class.expected = parts.iter().map(|part| of(part).expected).sum();
        class.sent = parts.iter().map(|part| of(part).sent).sum();
        class.acked = parts.iter().map(|part| of(part).acked).sum();
        class.rejected = parts.iter().map(|part| of(part).rejected).sum();
        class.bytes = parts.iter().map(|part| of(part).bytes).sum();
        class.share = class.sent as f64 / sent.max(1) as f64;
        let (text, summary) = histogram(parts, |part| part.histograms.classes.get(number))?;
        class.latency_us = summary;
        texts.push(text);
    }
    all.histograms.classes = texts;
    all.timeline = timeline(parts);

    let generator = &mut all.generator;
    let messages: u64 = parts.iter().map(|part| part.generator.messages).sum();
    generator.threads = parts.iter().map(|part| part.generator.threads).sum();
    generator.messages = messages;
    generator.keys_derived = parts.iter().map(|part| part.generator.keys_derived).sum();
    generator.busy_share = add(|part| part.generator.busy_share) / parts.len() as f64;
    generator.blocked_s = add(|part| part.generator.blocked_s);
    generator.cpu_s = parts.iter().map(|part| part.generator.cpu_s).sum();
    generator.waited_for_cpu_s = parts.iter().map(|part| part.generator.waited_for_cpu_s).sum();
    generator.cpu_us_per_message =
        generator.cpu_s.filter(|_| messages > 0).map(|cpu_s| cpu_s * 1e6 / messages as f64);
    let full = &mut all.full_population;
    full.generator_cores = generator.cpu_us_per_message.map(|us| full.msgs_per_s * us / 1e6);
    full.targets = (all.throughput_msgs_per_s > 0.0).then(|| full.msgs_per_s / all.throughput_msgs_per_s);

    // What a part says of itself is not true of the sum.
    all.problems.clear();
    let mut reasons: Vec<String> = lost.iter().map(|worker| format!("worker lost: {worker}")).collect();
    let longest_s = parts.iter().map(|part| part.duration_s).fold(0.0, f64::max);
    for (number, part) in parts.iter().enumerate() {
        let worker = format!("worker {} of {}", part.profile.worker, part.profile.workers);
        if let Some(reason) = &part.invalid_reason {
            reasons.push(format!("{worker}: {reason}"));
        }
        if part.stopped {
            reasons.push(format!("{worker} was stopped after {:.3} s of measured time", part.duration_s));
        } else if longest_s - part.duration_s > DURATION_SLACK_S {
            reasons.push(format!(
                "{worker} measured {:.3} s and another one {longest_s:.3} s: their rates cannot be added",
                part.duration_s
            ));
        }
        let late = |problem: &&String| problem.starts_with(BEGAN_LATE.0) && problem.ends_with(BEGAN_LATE.1);
        if let Some(problem) = part.problems.iter().find(late) {
            reasons.push(format!("{worker}: {problem}"));
        }
        if number > 0 && part.machine != first.machine {
            let of =
                |report: &Report| report.machine.cpu_model.clone().unwrap_or_else(|| "unknown".to_owned());
            all.problems.push(format!(
                "worker {number} ran on another machine: {}, not {}",
                of(part),
                of(first)
            ));
        }
    }
    for part in parts {
        let (worker, of) = (part.profile.worker, part.profile.workers);
        all.problems
            .extend(part.problems.iter().map(|problem| format!("worker {worker} of {of}: {problem}")));
    }
    all.problems.extend(lost.iter().map(|worker| format!("worker lost: {worker}")));
    all.problems.dedup();
    all.valid = reasons.is_empty();
    all.invalid_reason = (!all.valid).then(|| reasons.join("; "));
    Ok(all)
}

/// The sum of one histogram over all parts, as text and in figures.
fn histogram<'a>(
    parts: &'a [Report],
    pick: impl Fn(&'a Report) -> Option<&'a String>,
) -> io::Result<(String, Summary)> {
    let mut sum = new_histogram();
    for text in parts.iter().filter_map(pick) {
        sum.add(decode(text)?).map_err(io::Error::other)?;
    }
    Ok((encode(&sum)?, Summary::of(&sum)))
}

/// Handshakes of all parts together, if they made any; the most that were open at once is a bound: parts may have had theirs at different
/// times.
fn handshakes(parts: &[Report]) -> Option<HandshakeReport> {
    let mut all: Option<HandshakeReport> = None;
    for part in parts.iter().filter_map(|part| part.handshakes.as_ref()) {
        let all = all.get_or_insert_with(HandshakeReport::default);
        all.per_s_max += part.per_s_max;
        all.attempted += part.attempted;
        all.succeeded += part.succeeded;
        all.failed += part.failed;
        for (name, count) in &part.failed_by {
            *all.failed_by.entry(name.clone()).or_default() += count;
        }
        all.messages_unsent += part.messages_unsent;
        all.messages_waited += part.messages_waited;
        all.limited_s += part.limited_s;
        all.pool_full_s += part.pool_full_s;
        all.open_max += part.open_max;
    }
    all
}

/// Seconds of all parts, by their time: each stretch gives its counts to the seconds that it lies in, in proportion. Parts began together,
/// but their stretches neither end at quite the same moments nor are all equally long. The sum has seconds as long as the longest of them.
fn timeline(parts: &[Report]) -> Vec<Moment> {
    // Reports come from other machines: times that are none are left out, and the number of seconds is bounded whatever they say.
    let sound = |moment: &&Moment| {
        let (at_s, seconds) = (moment.at_s, moment.seconds);
        at_s.is_finite() && at_s > 0.0 && seconds > 0.0 && seconds <= at_s + 1e-3
    };
    let parts: Vec<Vec<&Moment>> =
        parts.iter().map(|part| part.timeline.iter().filter(sound).collect()).collect();
    let end_s = parts.iter().flatten().map(|moment| moment.at_s).fold(0.0, f64::max);
    let longest_s = parts.iter().map(|part| usual_s(part)).fold(0.0, f64::max);
    let each_s = longest_s.round().max(1.0).max((end_s / MOMENTS_MAX as f64).ceil());
    // A rest that is too short for a rate belongs to the second before it.
    let cells = ((end_s / each_s).round() as usize).max(usize::from(end_s > 0.0));
    let mut sums: Vec<Cell> = (0..cells)
        .map(|number| {
            let is_last = number + 1 == cells;
            Cell::new(number as f64 * each_s, if is_last { end_s } else { (number + 1) as f64 * each_s })
        })
        .collect();
    for moment in parts.iter().flatten() {
        let from_s = (moment.at_s - moment.seconds).max(0.0);
        let first = ((from_s / each_s) as usize).min(cells - 1);
        let last = ((moment.at_s / each_s) as usize).min(cells - 1);
        let overlaps = |cell: &Cell| (moment.at_s.min(cell.to_s) - from_s.max(cell.from_s)).max(0.0);
        let most_s = sums[first..=last].iter().map(overlaps).fold(0.0, f64::max);
        for cell in &mut sums[first..=last] {
            let overlap_s = overlaps(cell);
            cell.add(moment, overlap_s, overlap_s >= most_s || 2.0 * overlap_s >= cell.to_s - cell.from_s);
        }
    }
    sums.into_iter().map(Cell::moment).collect()
}

/// Length of most stretches of a part, seconds.
fn usual_s(timeline: &[&Moment]) -> f64 {
    let mut lengths: Vec<f64> = timeline.iter().map(|moment| moment.seconds).collect();
    lengths.sort_by(f64::total_cmp);
    lengths.get(lengths.len() / 2).copied().unwrap_or(0.0)
}

/// A second of all parts, being summed: counts, not rates.
struct Cell {
    from_s: f64,
    to_s: f64,
    /// `None` once a stretch had none.
    intended: Option<f64>,
    due: Option<f64>,
    sent: f64,
    acked: f64,
    rejected: f64,
    latencies: f64,
    latency_sum_us: f64,
    latency_us: Summary,
}

impl Cell {
    fn new(from_s: f64, to_s: f64) -> Self {
        Self {
            from_s,
            to_s,
            intended: Some(0.0),
            due: Some(0.0),
            sent: 0.0,
            acked: 0.0,
            rejected: 0.0,
            latencies: 0.0,
            latency_sum_us: 0.0,
            latency_us: Summary::default(),
        }
    }

    /// Adds the part of a stretch that lies in here, `overlap_s` long. Percentiles cannot be divided: they count where most of the stretch
    /// is (`is_here`), and a few milliseconds of a neighbour do not spread them.
    fn add(&mut self, moment: &Moment, overlap_s: f64, is_here: bool) {
        if overlap_s <= 0.0 {
            return;
        }
        let add = |sum: Option<f64>, rate: Option<f64>| Some(sum? + rate? * overlap_s);
        self.intended = add(self.intended, moment.intended_per_s);
        self.due = add(self.due, moment.due_per_s);
        self.sent += moment.sent_per_s * overlap_s;
        self.acked += moment.acked_per_s * overlap_s;
        self.rejected += moment.rejected_per_s * overlap_s;
        let theirs = &moment.latency_us;
        let count = theirs.count as f64 * overlap_s / moment.seconds;
        self.latencies += count;
        self.latency_sum_us += theirs.mean * count;
        if is_here {
            let mine = &mut self.latency_us;
            mine.p50 = mine.p50.max(theirs.p50);
            mine.p90 = mine.p90.max(theirs.p90);
            mine.p99 = mine.p99.max(theirs.p99);
            mine.p999 = mine.p999.max(theirs.p999);
            mine.p9999 = mine.p9999.max(theirs.p9999);
            mine.max = mine.max.max(theirs.max);
        }
    }

    fn moment(self) -> Moment {
        let seconds = self.to_s - self.from_s;
        let round = |value: f64| (value * 1e3).round() / 1e3;
        let per_s = |count: f64| round(count / seconds);
        Moment {
            at_s: self.to_s,
            seconds,
            intended_per_s: self.intended.map(per_s),
            due_per_s: self.due.map(per_s),
            sent_per_s: per_s(self.sent),
            acked_per_s: per_s(self.acked),
            rejected_per_s: per_s(self.rejected),
            latency_us: Summary {
                count: self.latencies.round() as u64,
                mean: if self.latencies > 0.0 { round(self.latency_sum_us / self.latencies) } else { 0.0 },
                ..self.latency_us
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ClassReport, Rate};

    fn part(worker: u32, values: impl Iterator<Item = u64>) -> Report {
        let mut latency = new_histogram();
        values.for_each(|value| latency.saturating_record(value));
        let mut report = Report {
            valid: true,
            sent_total: latency.len(),
            acked_total: latency.len(),
            throughput_msgs_per_s: 100.0,
            rate: Rate { intended_per_s: Some(110.0), achieved_per_s: 105.0 },
            latency_us: Summary::of(&latency),
            classes: vec![ClassReport { sent: latency.len(), ..ClassReport::default() }],
            rejected: BTreeMap::from([("bad_signature".to_owned(), 2)]),
            ..Report::default()
        };
        (report.profile.worker, report.profile.workers) = (worker, 2);
        let text = encode(&latency).unwrap();
        report.histograms.classes = vec![text.clone()];
        report.histograms.service_time = text.clone();
        report.histograms.send_lag = text.clone();
        report.histograms.generator_lag = text.clone();
        report.histograms.handshake = text.clone();
        report.handshakes =
            Some(HandshakeReport { attempted: 5, per_s_max: 10.0, ..HandshakeReport::default() });
        report.histograms.latency = text;
        report
    }

    #[test]
    fn the_merged_histogram_is_the_sum_of_the_parts_count_by_count() {
        let parts = [part(0, 1..50_000), part(1, (1..70_000).map(|value| value * 37 % 1_000_000 + 1))];
        let all = merge(&parts, &[]).unwrap();
        let mut sum = new_histogram();
        for report in &parts {
            sum.add(decode(&report.histograms.latency).unwrap()).unwrap();
        }
        assert_eq!(decode(&all.histograms.latency).unwrap(), sum);
        assert_eq!(decode(&all.histograms.classes[0]).unwrap(), sum);
        assert_eq!(decode(&all.histograms.handshake).unwrap(), sum);
        assert_eq!(all.handshakes.as_ref().map(|made| (made.attempted, made.per_s_max)), Some((10, 20.0)));
        assert_eq!(all.latency_us, Summary::of(&sum));
        assert_eq!(
            (all.sent_total, all.rejected["bad_signature"], all.classes[0].sent),
            (119_998, 4, 119_998)
        );
        assert_eq!((all.throughput_msgs_per_s, all.rate.intended_per_s), (200.0, Some(220.0)));
        assert!(all.valid);
    }

    #[test]
    fn a_worker_that_was_stopped_or_measured_another_time_makes_the_sum_invalid_and_is_named() {
        let measured = |worker: u32, duration_s: f64| Report { duration_s, ..part(worker, 1..10) };
        let alike = merge(&[measured(0, 60.0), measured(1, 59.96)], &[]).unwrap();
        assert!(alike.valid, "{:?}", alike.invalid_reason);
        let stopped = Report { stopped: true, ..measured(1, 12.5) };
        let all = merge(&[measured(0, 60.0), stopped], &[]).unwrap();
        assert!(!all.valid);
        let reason = all.invalid_reason.unwrap();
        assert_eq!(reason, "worker 1 of 2 was stopped after 12.500 s of measured time");
        let all = merge(&[measured(0, 59.9), measured(1, 60.0)], &[]).unwrap();
        assert!(!all.valid);
        let reason = all.invalid_reason.unwrap();
        assert!(reason.starts_with("worker 0 of 2 measured 59.900 s and another one 60.000 s"), "{reason}");
    }

    /// A part with `count` stretches of `stride_s`, in each `per_s` messages a second and a `p99` by its number.
    fn over_time(stride_s: f64, count: u32, per_s: f64, p99: impl Fn(u32) -> u64) -> Report {
        let moment = |number: u32| Moment {
            at_s: f64::from(number) * stride_s,
            seconds: stride_s,
            intended_per_s: Some(per_s),
            due_per_s: Some(per_s),
            sent_per_s: per_s,
            acked_per_s: per_s,
            latency_us: Summary {
                count: (per_s * stride_s) as u64,
                p99: p99(number),
                mean: 5.0,
                ..Summary::default()
            },
            ..Moment::default()
        };
        Report { timeline: (1..=count).map(moment).collect(), ..part(0, 1..10) }
    }

    #[test]
    fn seconds_of_parts_are_added_by_their_time_and_not_by_their_number() {
        let parts = [over_time(1.0, 606, 100.0, |_| 7), over_time(1.01, 600, 100.0, |_| 9)];
        let all = merge(&parts, &[]).unwrap().timeline;
        assert_eq!(all.len(), 606);
        for (number, moment) in all.iter().enumerate() {
            assert!((moment.at_s - (number + 1) as f64).abs() < 1e-6 && (moment.seconds - 1.0).abs() < 1e-6);
            for rate in [moment.sent_per_s, moment.acked_per_s, moment.due_per_s.unwrap()] {
                assert!((rate - 200.0).abs() < 0.01, "{moment:?}");
            }
            assert_eq!((moment.latency_us.p99, moment.latency_us.mean), (9, 5.0));
        }
        // A step of the load is in the same second of both, however late the second part's looks are.
        let step = |stride_s: f64, count: u32| {
            let mut part = over_time(stride_s, count, 100.0, |_| 7);
            part.timeline.iter_mut().filter(|moment| moment.at_s > 500.5).for_each(|moment| {
                moment.acked_per_s = 0.0;
            });
            part
        };
        let all = merge(&[step(1.0, 606), step(1.01, 600)], &[]).unwrap().timeline;
        let halves = all.iter().filter(|moment| (1.0..199.0).contains(&moment.acked_per_s)).count();
        assert!(halves <= 2, "{halves} seconds in which only one part stands");
    }

    #[test]
    fn parts_of_different_resolution_are_added_at_the_coarser_one() {
        let second = |number: u32| if number == 100 { 9_000 } else { 10 };
        let parts = [over_time(1.0, 600, 100.0, second), over_time(2.0, 300, 50.0, |_| 20)];
        let all = merge(&parts, &[]).unwrap().timeline;
        assert_eq!(all.len(), 300);
        assert!(all.iter().all(|moment| (moment.sent_per_s - 150.0).abs() < 0.01 && moment.seconds == 2.0));
        let latencies: u64 = all.iter().map(|moment| moment.latency_us.count).sum();
        assert_eq!(latencies, 600 * 100 + 300 * 100);
        let slow: Vec<f64> =
            all.iter().filter(|moment| moment.latency_us.p99 == 9_000).map(|moment| moment.at_s).collect();
        assert_eq!(slow, [100.0], "a slow second is slow in one of the sum, and no other");
    }

    #[test]
    fn a_part_that_looks_late_spreads_its_percentiles_to_no_other_second_and_loses_no_count() {
        let second = |number: u32| if number == 5 { 9_000 } else { 10 };
        let mut late = over_time(1.0, 10, 100.0, second);
        late.timeline.iter_mut().for_each(|moment| moment.at_s += 0.015);
        late.timeline[0].seconds = 1.015;
        let all = merge(&[over_time(1.0, 10, 100.0, |_| 10), late], &[]).unwrap().timeline;
        let slow: Vec<f64> =
            all.iter().filter(|moment| moment.latency_us.p99 == 9_000).map(|moment| moment.at_s).collect();
        assert_eq!((slow, all.len()), (vec![5.0], 10));
        let sent: f64 = all.iter().map(|moment| moment.sent_per_s * moment.seconds).sum();
        assert!((sent - 2_001.5).abs() < 0.1, "{sent}");
        assert!((all[9].at_s - 10.015).abs() < 1e-9, "the rest is no second of its own");
    }

    #[test]
    fn times_that_a_part_makes_up_neither_panic_nor_take_memory() {
        let mut odd = over_time(1.0, 6, 100.0, |_| 7);
        odd.timeline[0].at_s = f64::NAN;
        odd.timeline[1].seconds = f64::INFINITY;
        odd.timeline[2].at_s = -4.0;
        odd.timeline[3].seconds = -1.0;
        odd.timeline[4] = Moment { at_s: 1e300, seconds: 1.0, ..Moment::default() };
        let all = merge(&[over_time(1.0, 6, 100.0, |_| 7), odd], &[]).unwrap().timeline;
        assert!((1..=MOMENTS_MAX).contains(&all.len()), "{}", all.len());
        for seconds in [0.0, 0.0005] {
            let none = Report { timeline: vec![Moment { seconds, ..Moment::default() }], ..part(0, 1..10) };
            assert!(merge(&[none], &[]).unwrap().timeline.is_empty());
        }
    }

    /// The part is made by a real run, so that the words looked for are the driver's.
    #[test]
    fn a_worker_that_began_late_makes_the_sum_invalid_and_is_named() {
        use crate::config::{NullTarget, RunConfig, Target};
        use crate::driver::{Start, Stop, run_together};
        let config = RunConfig {
            warm_up: std::time::Duration::ZERO,
            messages_max: 100,
            ..RunConfig::new(Target::Null(NullTarget::default()))
        };
        let unix_us = super::super::wire::unix_us() - 1_000_000;
        let begin = &mut || Ok(Some(Start { unix_us, sequence_base: unix_us }));
        let late = run_together(&config, &Stop::new(), begin, &mut |_| {}).unwrap().report;
        let mut on_time = part(1, 1..10);
        on_time.duration_s = late.duration_s;
        on_time.histograms.classes = late.histograms.classes.clone();
        let all = merge(&[on_time, late], &[]).unwrap();
        assert!(!all.valid);
        let reason = all.invalid_reason.unwrap();
        assert!(reason.starts_with("worker 0 of 1: the run began 1"), "{reason}");
    }

    #[test]
    fn a_lost_worker_and_an_invalid_part_are_named() {
        let mut bad = part(1, 1..10);
        (bad.valid, bad.invalid_reason) = (false, Some("the generator lagged".to_owned()));
        let all =
            merge(&[part(0, 1..10), bad], &["worker 2 (box, 10.0.0.3): it closed the connection".to_owned()])
                .unwrap();
        assert!(!all.valid);
        let reason = all.invalid_reason.unwrap();
        assert!(reason.contains("worker lost: worker 2 (box, 10.0.0.3)"), "{reason}");
        assert!(reason.contains("worker 1 of 2: the generator lagged"), "{reason}");
        assert!(all.problems.iter().any(|problem| problem.contains("worker 2")));
        // What one part says of itself is said of that part, also of the first.
        let busy = |worker| Report { problems: vec!["this run was bound".to_owned()], ..part(worker, 1..10) };
        let all = merge(&[busy(0), busy(1)], &[]).unwrap();
        assert_eq!(all.problems, ["worker 0 of 2: this run was bound", "worker 1 of 2: this run was bound"]);
        assert!(merge(&[], &["worker 0".to_owned()]).unwrap_err().to_string().contains("worker 0"));
    }
}
