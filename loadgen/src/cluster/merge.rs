//! Many reports as one.
//!
//! Owns the merge. Counts and histograms are added exactly, and percentiles are read from the sum; rates are added; the generator's lag is
//! that of all messages. A timeline is added second by second (of two percentiles the higher is kept). Anything that is not the same in all
//! parts and cannot be added (machine, connections of one) is taken from the first, and what differs is named.
//!
//! Rates may be added only if all parts measured the same time. A worker that was stopped, measured another time than the others or began
//! late makes the sum a rate that nobody sent, so it is named and the report is invalid.

use std::collections::BTreeMap;
use std::io;

use crate::hgrm::{Summary, decode, encode, new_histogram};
use crate::report::{FaultReport, HandshakeReport, Moment, Report};

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
    for part in &parts[1..] {
        all.problems.extend(part.problems.iter().cloned());
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

/// Seconds of all parts, side by side. Parts began together, so their stretches do too, up to the supervisors' own lateness.
fn timeline(parts: &[Report]) -> Vec<Moment> {
    let longest = parts.iter().map(|part| part.timeline.len()).max().unwrap_or(0);
    (0..longest)
        .filter_map(|number| {
            let moments: Vec<&Moment> = parts.iter().filter_map(|part| part.timeline.get(number)).collect();
            let first = **moments.first()?;
            let count: u64 = moments.iter().map(|moment| moment.latency_us.count).sum();
            let most = |pick: fn(&Summary) -> u64| {
                moments.iter().map(|moment| pick(&moment.latency_us)).max().unwrap_or(0)
            };
            let weighted: f64 =
                moments.iter().map(|moment| moment.latency_us.mean * moment.latency_us.count as f64).sum();
            Some(Moment {
                intended_per_s: moments
                    .iter()
                    .map(|moment| moment.intended_per_s)
                    .try_fold(0.0, |sum, rate| Some(sum + rate?)),
                sent_per_s: moments.iter().map(|moment| moment.sent_per_s).sum(),
                acked_per_s: moments.iter().map(|moment| moment.acked_per_s).sum(),
                rejected_per_s: moments.iter().map(|moment| moment.rejected_per_s).sum(),
                latency_us: Summary {
                    count,
                    p50: most(|summary| summary.p50),
                    p90: most(|summary| summary.p90),
                    p99: most(|summary| summary.p99),
                    p999: most(|summary| summary.p999),
                    p9999: most(|summary| summary.p9999),
                    max: most(|summary| summary.max),
                    mean: weighted / count.max(1) as f64,
                },
                ..first
            })
        })
        .collect()
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
        assert!(merge(&[], &["worker 0".to_owned()]).unwrap_err().to_string().contains("worker 0"));
    }
}
