//! Do two reports differ, and by more than chance?
//!
//! Owns the comparison of two reports and its tests. What varies from run to run is not the single message (hundreds of thousands of them
//! make any difference "significant", and neighbours in time are not independent) but the state of machine and target, which changes over
//! seconds. So the samples are the seconds of the measured time, and neighbours are joined into blocks until blocks are nearly independent
//! (batch means: Law, Simulation Modeling and Analysis, ch. 9). On them:
//!
//! * throughput, and the median and 99th percentile of each block: Mann-Whitney U test, two-sided, normal approximation with ties; and the
//!   relative difference with a 95 % interval by bootstrap over blocks (2,000 draws, seeded: the same files give the same answer);
//! * the shape of the two latency distributions: Kolmogorov-Smirnov distance over the encoded histograms, as a size, not as a test.
//!
//! Three tests are made, so a difference counts as significant below 0.05 / 3 (Bonferroni). Invalid reports are compared and named.

use serde::Serialize;

use crate::hgrm::decode;
use crate::mix::{below, mix};
use crate::report::{Moment, Report};
use crate::timeline::merged;

/// Overall chance of calling equal runs different.
pub const SIGNIFICANCE: f64 = 0.05;

/// Figures that are tested.
const TESTS: f64 = 3.0;

/// Blocks that a run is cut into, at most; and at least, or no test is made.
const BLOCKS_MAX: usize = 40;
const BLOCKS_MIN: usize = 8;

/// Draws of the bootstrap.
const DRAWS: usize = 2_000;

/// One figure of both reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// In the first report: median over blocks.
    pub a: f64,
    /// In the second.
    pub b: f64,
    /// `b / a - 1`.
    pub change: f64,
    /// 95 % interval of the change; `null` with too few blocks.
    pub interval: Option<(f64, f64)>,
    /// Chance of a difference like this between equal runs; `null` with too few blocks.
    pub p: Option<f64>,
    /// Whether it is below the limit.
    pub significant: bool,
}

/// What a comparison says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The figures.
    pub differences: Vec<Difference>,
    /// Blocks of both reports.
    pub blocks: (usize, usize),
    /// Largest distance of the two distributions of latency, 0 to 1; `null` if a report has no histogram.
    pub latency_distance: Option<f64>,
    /// `p` below this is significant.
    pub p_limit: f64,
    /// What to know before believing it.
    pub warnings: Vec<String>,
}

/// What a block is judged by.
type Figure = fn(&Moment) -> f64;

/// Compares `b` with `a`.
#[must_use]
pub fn compare(a: &Report, b: &Report) -> Comparison {
    let (blocks_a, blocks_b) = (blocks(a), blocks(b));
    let enough = blocks_a.len() >= BLOCKS_MIN && blocks_b.len() >= BLOCKS_MIN;
    let p_limit = SIGNIFICANCE / TESTS;
    let figures: [(&str, Figure); 3] = [
        ("throughput, messages/s", |block| block.acked_per_s),
        ("latency p50, us", |block| block.latency_us.p50 as f64),
        ("latency p99, us", |block| block.latency_us.p99 as f64),
    ];
    let differences = figures
        .into_iter()
        .map(|(name, figure)| {
            let x: Vec<f64> = blocks_a.iter().map(figure).collect();
            let y: Vec<f64> = blocks_b.iter().map(figure).collect();
            let (mid_x, mid_y) = (median(&x), median(&y));
            let p = enough.then(|| mann_whitney(&x, &y));
            Difference {
                name: name.to_owned(),
                a: mid_x,
                b: mid_y,
                change: if mid_x > 0.0 { mid_y / mid_x - 1.0 } else { 0.0 },
                interval: enough.then(|| bootstrap(&x, &y)),
                p,
                significant: p.is_some_and(|p| p < p_limit),
            }
        })
        .collect();
    let latency_distance = decode(&a.histograms.latency)
        .ok()
        .zip(decode(&b.histograms.latency).ok())
        .map(|(x, y)| distance(&x, &y));
    Comparison {
        differences,
        blocks: (blocks_a.len(), blocks_b.len()),
        latency_distance,
        p_limit,
        warnings: warnings(a, b, enough),
    }
}

fn warnings(a: &Report, b: &Report, enough: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    for (which, report) in [("first", a), ("second", b)] {
        if let Some(reason) = &report.invalid_reason {
            warnings.push(format!("the {which} report is INVALID: {reason}"));
        }
    }
    if !enough {
        warnings.push(format!("no test was made: it takes {BLOCKS_MIN} measured seconds in both reports"));
    }
    let mut differ = |what: &str, x: String, y: String| {
        if x != y {
            warnings.push(format!("{what} differs: {x} and {y}"));
        }
    };
    let machine = |report: &Report| {
        format!("{:?} x {}", report.machine.cores, report.machine.cpu_model.as_deref().unwrap_or("unknown"))
    };
    differ("the machine", machine(a), machine(b));
    differ("the profile", a.profile.name.clone(), b.profile.name.clone());
    differ("the scale", format!("{:e}", a.profile.scale), format!("{:e}", b.profile.scale));
    differ("the shape", a.profile.shape.clone(), b.profile.shape.clone());
    differ("the loop", a.loop_mode.clone(), b.loop_mode.clone());
    differ("the ack level", a.ack_level.clone(), b.ack_level.clone());
    differ("signing", a.signing.clone(), b.signing.clone());
    differ("the topology", a.topology.clone(), b.topology.clone());
    differ("the number of connections", a.connections.to_string(), b.connections.to_string());
    warnings
}

/// The measured seconds of a report, neighbours joined until there are few enough.
fn blocks(report: &Report) -> Vec<Moment> {
    let (from, to) = (report.warm_up_s, report.warm_up_s + report.duration_s);
    let measured: Vec<Moment> = report
        .timeline
        .iter()
        .copied()
        // A stretch that lies inside, give or take the supervisor's own lateness.
        .filter(|moment| {
            moment.at_s - moment.seconds >= from - 0.1 && moment.at_s <= to + 0.2 && moment.seconds > 0.5
        })
        .collect();
    let each = measured.len().div_ceil(BLOCKS_MAX).max(1);
    measured
        .chunks(each)
        .filter(|chunk| chunk.len() == each)
        .filter_map(|chunk| chunk.iter().copied().reduce(|one, other| merged(&one, &other)))
        .collect()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// Two-sided p of the Mann-Whitney U test, normal approximation with correction for ties and continuity.
fn mann_whitney(x: &[f64], y: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> =
        x.iter().map(|value| (*value, true)).chain(y.iter().map(|value| (*value, false))).collect();
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (n, m) = (x.len() as f64, y.len() as f64);
    let (mut ranks_x, mut ties, mut place) = (0.0, 0.0, 0);
    while place < all.len() {
        let same = all[place..].iter().take_while(|value| value.0 == all[place].0).count();
        let rank = place as f64 + (same as f64 + 1.0) / 2.0;
        ranks_x += rank * all[place..place + same].iter().filter(|value| value.1).count() as f64;
        ties += (same as f64).powi(3) - same as f64;
        place += same;
    }
    let u = ranks_x - n * (n + 1.0) / 2.0;
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    (2.0 * upper_tail(z)).min(1.0)
}

/// Chance that a standard normal value is above `z >= 0` (Abramowitz and Stegun 26.2.17, error below 7.5e-8).
fn upper_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * poly
}

/// 95 % interval of the ratio of medians less one.
fn bootstrap(x: &[f64], y: &[f64]) -> (f64, f64) {
    let mut state = 0x424F_4F54u64;
    let mut draw = |values: &[f64]| -> f64 {
        let drawn: Vec<f64> = values
            .iter()
            .map(|_| {
                state = mix(state);
                values[below(state, values.len() as u64) as usize]
            })
            .collect();
        median(&drawn)
    };
    let mut changes: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let (one, other) = (draw(x), draw(y));
            if one > 0.0 { other / one - 1.0 } else { 0.0 }
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    (changes[DRAWS / 40], changes[DRAWS - 1 - DRAWS / 40])
}

/// Largest difference of two distribution functions.
fn distance(x: &hdrhistogram::Histogram<u64>, y: &hdrhistogram::Histogram<u64>) -> f64 {
    let (n, m) = (x.len().max(1) as f64, y.len().max(1) as f64);
    let mut values: Vec<u64> =
        x.iter_recorded().chain(y.iter_recorded()).map(|step| step.value_iterated_to()).collect();
    values.sort_unstable();
    values.dedup();
    let (mut one, mut other) = (x.iter_recorded().peekable(), y.iter_recorded().peekable());
    let (mut below_x, mut below_y, mut largest) = (0u64, 0u64, 0.0f64);
    for value in values {
        while let Some(step) = one.next_if(|step| step.value_iterated_to() <= value) {
            below_x += step.count_at_value();
        }
        while let Some(step) = other.next_if(|step| step.value_iterated_to() <= value) {
            below_y += step.count_at_value();
        }
        largest = largest.max((below_x as f64 / n - below_y as f64 / m).abs());
    }
    (largest * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hgrm::{Summary, encode, new_histogram};

    /// A run of a minute whose seconds scatter by 5 % around a rate and a latency.
    fn report(rate: f64, latency_us: f64, seed: u64) -> Report {
        let mut latency = new_histogram();
        let timeline = (1..=62u64)
            .map(|second| {
                let off = |salt: u64| 0.95 + 0.1 * crate::arrival::unit(mix(seed ^ mix(second ^ salt)));
                let p50 = (latency_us * off(1)) as u64;
                latency.saturating_record(p50);
                Moment {
                    at_s: second as f64,
                    seconds: 1.0,
                    acked_per_s: rate * off(2),
                    latency_us: Summary { count: 100, p50, p99: p50 * 3, ..Summary::default() },
                    ..Moment::default()
                }
            })
            .collect();
        let mut report =
            Report { valid: true, warm_up_s: 2.0, duration_s: 60.0, timeline, ..Report::default() };
        report.histograms.latency = encode(&latency).unwrap();
        report
    }

    #[test]
    fn a_difference_beyond_the_scatter_is_found_and_one_within_is_not() {
        let same = compare(&report(1e4, 1_000.0, 1), &report(1e4, 1_000.0, 2));
        assert!(same.differences.iter().all(|figure| !figure.significant), "{same:?}");
        assert!(same.warnings.is_empty(), "{:?}", same.warnings);
        let slower = compare(&report(1e4, 1_000.0, 1), &report(9.5e3, 1_200.0, 2));
        assert!(slower.differences.iter().all(|figure| figure.significant), "{slower:?}");
        let throughput = &slower.differences[0];
        assert!((throughput.change + 0.05).abs() < 0.03);
        let (least, most) = throughput.interval.unwrap();
        assert!(least < throughput.change && throughput.change < most && most < 0.0);
        assert!(slower.latency_distance.unwrap() > 0.9 && same.latency_distance.unwrap() < 0.4);
    }

    /// Of 300 comparisons of equal runs, few may be called different: 5 % overall, and three standard errors.
    #[test]
    fn equal_runs_are_rarely_called_different() {
        let false_alarms = (0..300u64)
            .filter(|pair| {
                let (a, b) = (report(1e4, 1e3, 1_000 + 2 * pair), report(1e4, 1e3, 1_001 + 2 * pair));
                compare(&a, &b).differences.iter().any(|figure| figure.significant)
            })
            .count();
        assert!(false_alarms <= 26, "{false_alarms} of 300");
    }

    #[test]
    fn p_values_are_those_of_the_tables() {
        assert!((upper_tail(1.959_964) - 0.025).abs() < 1e-6);
        assert!((upper_tail(0.0) - 0.5).abs() < 1e-6);
        // All of one sample below all of the other: U = 0, n = m = 10, z = 3.742.
        let (low, high): (Vec<f64>, Vec<f64>) =
            ((0..10).map(f64::from).collect(), (10..20).map(f64::from).collect());
        assert!((mann_whitney(&low, &high) - 0.000_183).abs() < 2e-5, "{}", mann_whitney(&low, &high));
        assert_eq!(mann_whitney(&[1.0; 9], &[1.0; 9]), 1.0);
    }

    #[test]
    fn short_runs_are_not_tested_and_what_differs_is_named() {
        let mut short = report(1e4, 1e3, 1);
        short.duration_s = 5.0;
        short.invalid_reason = Some("it lagged".to_owned());
        short.ack_level = "written".to_owned();
        let found = compare(&report(1e4, 1e3, 2), &short);
        assert!(found.differences.iter().all(|figure| figure.p.is_none() && !figure.significant));
        for what in ["second report is INVALID: it lagged", "no test was made", "the ack level differs"] {
            assert!(found.warnings.iter().any(|warning| warning.contains(what)), "{:?}", found.warnings);
        }
    }
}
