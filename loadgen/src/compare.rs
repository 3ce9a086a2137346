//! Do two reports differ, and by more than chance?
//!
//! Owns the comparison of two reports and its tests. What varies from run to run is not the single message (hundreds of thousands of them
//! make any difference "significant", and neighbours in time are not independent) but the state of machine and target, which changes over
//! seconds. So the samples are the seconds of the measured time, and neighbours are joined into blocks until no figure of either run has a
//! lag-1 correlation that chance would not explain (batch means: Law, Simulation Modeling and Analysis, ch. 9). Blocks are equally long in
//! both runs, and a block's figure is the mean of its seconds' figures, so that a longer run is not taken for a worse one (a maximum of
//! more seconds is larger). On them:
//!
//! * throughput, and the median and 99th percentile of each block: Mann-Whitney U test, two-sided, normal approximation with ties; and the
//!   relative difference with a 95 % interval by bootstrap over blocks (2,000 draws, seeded: the same files give the same answer);
//! * the shape of the two latency distributions: Kolmogorov-Smirnov distance over the encoded histograms, as a size, not as a test.
//!
//! A second without an ack has no latency of its own. While messages wait it counts with the time since the last ack, so that an outage
//! makes a run slower and not faster, and such seconds are named.
//!
//! Three tests are made, so a difference counts as significant below 0.05 / 3 (Bonferroni). Invalid reports are compared and named.

use serde::Serialize;

use crate::faults::Fault;
use crate::hgrm::{Summary, decode};
use crate::mix::{below, mix};
use crate::report::{Moment, Report};

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
    /// Stretches of the timeline (seconds, in runs below a quarter of an hour) in one block.
    pub block_stretches: usize,
    /// Largest distance of the two distributions of latency, 0 to 1; `null` if a report has no histogram.
    pub latency_distance: Option<f64>,
    /// `p` below this is significant.
    pub p_limit: f64,
    /// What to know before believing it.
    pub warnings: Vec<String>,
}

/// A figure by its name, and how it is read off a second or block.
type Figure = (&'static str, fn(&Moment) -> f64);

/// What seconds and blocks are judged by.
const FIGURES: [Figure; 3] = [
    ("throughput, messages/s", |moment| moment.acked_per_s),
    ("latency p50, us", |moment| moment.latency_us.p50 as f64),
    ("latency p99, us", |moment| moment.latency_us.p99 as f64),
];

/// The figures of one run, each over its seconds or blocks.
type Series = [Vec<f64>; 3];

/// Messages due in a second by the models from which on silence is no matter of chance (below 1 in 20,000 if they come independently).
const DUE_MIN: f64 = 10.0;

/// Two figures of a run further apart than this share are different settings rather than different draws.
const SETTING_SLACK: f64 = 0.01;

/// Compares `b` with `a`.
#[must_use]
pub fn compare(a: &Report, b: &Report) -> Comparison {
    let seconds = (measured(a), measured(b));
    let Blocks { a: blocks_a, b: blocks_b, each, correlated } =
        blocks(&series(&seconds.0), &series(&seconds.1));
    let (count_a, count_b) = (blocks_a[0].len(), blocks_b[0].len());
    let enough = count_a >= BLOCKS_MIN && count_b >= BLOCKS_MIN;
    let p_limit = SIGNIFICANCE / TESTS;
    let differences = FIGURES
        .into_iter()
        .zip(blocks_a.iter().zip(&blocks_b))
        .map(|((name, _), (x, y))| {
            let (mid_x, mid_y) = (median(x), median(y));
            let p = enough.then(|| mann_whitney(x, y));
            Difference {
                name: name.to_owned(),
                a: mid_x,
                b: mid_y,
                change: if mid_x > 0.0 { mid_y / mid_x - 1.0 } else { 0.0 },
                interval: enough.then(|| bootstrap(x, y)),
                p,
                significant: p.is_some_and(|p| p < p_limit),
            }
        })
        .collect();
    let latency_distance = decode(&a.histograms.latency)
        .ok()
        .zip(decode(&b.histograms.latency).ok())
        .map(|(x, y)| distance(&x, &y));
    let mut warnings = warnings(a, b, enough);
    for (which, silent) in [("first", silent_s(&seconds.0)), ("second", silent_s(&seconds.1))] {
        if silent > 0.0 {
            warnings.push(format!(
                "{silent:.0} seconds of the {which} report had no ack while messages waited: their latency is taken as the time since the last ack"
            ));
        }
    }
    let length = |seconds: &[Moment]| seconds.first().map_or(0.0, |moment| moment.seconds);
    let (length_a, length_b) = (length(&seconds.0), length(&seconds.1));
    if length_a > 1.5 * length_b || length_b > 1.5 * length_a {
        warnings.push(format!(
            "the reports keep stretches of {length_a:.0} s and of {length_b:.0} s: percentiles of longer ones are higher"
        ));
    }
    if enough && correlated {
        warnings.push(format!(
            "neighbouring blocks of {each} stretches are still correlated: differences look surer than they are; compare longer runs"
        ));
    }
    Comparison {
        differences,
        blocks: (count_a, count_b),
        block_stretches: each,
        latency_distance,
        p_limit,
        warnings,
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
    let window = |report: &Report| report.window.map_or("none".to_owned(), |batches| batches.to_string());
    differ("the window of the closed loop", window(a), window(b));
    differ("the batch", a.batch.to_string(), b.batch.to_string());
    differ("the speedup", a.profile.speedup.to_string(), b.profile.speedup.to_string());
    differ("the seed", a.seed.to_string(), b.seed.to_string());
    let hour = |report: &Report| {
        report.profile.at_hour.map_or("the mean day".to_owned(), |hour| format!("{hour} h"))
    };
    differ("the hour of the day", hour(a), hour(b));
    differ("the warm-up, seconds,", a.warm_up_s.to_string(), b.warm_up_s.to_string());
    let replay = |report: &Report| match &report.replay {
        None => "none".to_owned(),
        Some(trace) => format!("{} of {} messages", trace.file, trace.messages),
    };
    differ("the trace that is replayed", replay(a), replay(b));
    let handshakes = |report: &Report| match &report.handshakes {
        None => "none".to_owned(),
        Some(handshakes) => handshakes.per_s_max.to_string(),
    };
    differ("the limit of handshakes per second", handshakes(a), handshakes(b));
    for (name, x, y) in fault_shares(a, b) {
        differ(&format!("the share of messages that are {name} on purpose"), x, y);
    }
    let rates = (a.rate.intended_per_s.unwrap_or(0.0), b.rate.intended_per_s.unwrap_or(0.0));
    for (what, x, y) in [
        ("the intended rate, messages/s,", rates.0, rates.1),
        ("the payload, bytes,", a.payload_bytes, b.payload_bytes),
    ] {
        // Both are means of what was drawn, so they are never quite equal.
        if (x - y).abs() > SETTING_SLACK * x.max(y) {
            differ(what, x.to_string(), y.to_string());
        }
    }
    warnings
}

/// Shares of messages with a fault on purpose that differ by more than chance: they are drawn, so they are never quite equal. Shares are
/// no settings, but what came of them; the settings are not in the reports.
fn fault_shares(a: &Report, b: &Report) -> Vec<(String, String, String)> {
    let mut names: Vec<&String> = a.faults.keys().chain(b.faults.keys()).collect();
    names.sort_unstable();
    names.dedup();
    // What is missing was not sent, and is counted in the measured time only.
    let due = |report: &Report| -> u64 {
        report.classes.iter().map(|class| class.intended).sum::<u64>() + report.missing_on_purpose
    };
    // Both of a pair of duplicates are counted, and one draw made them.
    let draws = |name: &str| if name == Fault::Duplicate.name() { 2 } else { 1 };
    let sent =
        |report: &Report, name: &String| report.faults.get(name).map_or(0, |fault| fault.sent / draws(name));
    let faults = names
        .into_iter()
        .map(|name| (name.clone(), (sent(a, name), a.sent_total), (sent(b, name), b.sent_total)));
    let missing = ("missing".to_owned(), (a.missing_on_purpose, due(a)), (b.missing_on_purpose, due(b)));
    faults
        .chain([missing])
        .filter(|(_, x, y)| shares_differ(*x, *y))
        .map(|(name, x, y)| (name, share_text(x), share_text(y)))
        .collect()
}

fn share_text((count, of): (u64, u64)) -> String {
    format!("{:.4} %", 100.0 * count as f64 / of.max(1) as f64)
}

/// Whether two shares of messages are further apart than four standard errors of the difference.
fn shares_differ((x, of_x): (u64, u64), (y, of_y): (u64, u64)) -> bool {
    let (n, m) = (of_x.max(1) as f64, of_y.max(1) as f64);
    let (p, q) = (x as f64 / n, y as f64 / m);
    // Pooled, with a count more, so that a single draw is no difference.
    let all = ((x + y + 1) as f64 / (n + m)).min(1.0);
    (p - q).abs() > 4.0 * (all * (1.0 - all) * (1.0 / n + 1.0 / m)).sqrt()
}

/// The stretches of a report's timeline that lie in the measured time.
fn measured(report: &Report) -> Vec<Moment> {
    let (from, to) = (report.warm_up_s, report.warm_up_s + report.duration_s);
    // Give or take the supervisor's own lateness.
    let inside = |moment: &Moment| {
        moment.at_s - moment.seconds >= from - 0.1 && moment.at_s <= to + 0.2 && moment.seconds > 0.5
    };
    with_silence(&report.timeline).into_iter().filter(inside).collect()
}

/// `timeline` with a latency in stretches without an ack. An empty histogram reads as 0 us, which is the opposite of what a message that
/// waits sees.
fn with_silence(timeline: &[Moment]) -> Vec<Moment> {
    let mut waiting_since_s: Option<f64> = None;
    timeline
        .iter()
        .map(|moment| {
            if moment.latency_us.count > 0 {
                waiting_since_s = None;
                return *moment;
            }
            // The closed loop always has something in flight. What once waits goes on waiting until an ack comes.
            let wanted = moment.sent_per_s > 0.0
                || moment.intended_per_s.is_none_or(|rate| rate * moment.seconds >= DUE_MIN);
            if waiting_since_s.is_none() && wanted {
                waiting_since_s = Some(moment.at_s - moment.seconds);
            }
            let Some(since_s) = waiting_since_s else { return *moment };
            let waited_us = ((moment.at_s - since_s) * 1e6) as u64;
            let latency_us = Summary {
                count: 0,
                p50: waited_us,
                p90: waited_us,
                p99: waited_us,
                p999: waited_us,
                p9999: waited_us,
                max: waited_us,
                mean: waited_us as f64,
            };
            Moment { latency_us, ..*moment }
        })
        .collect()
}

/// Seconds that have a latency without an ack.
fn silent_s(seconds: &[Moment]) -> f64 {
    let silent = |moment: &&Moment| moment.latency_us.count == 0 && moment.latency_us.max > 0;
    seconds.iter().filter(silent).map(|moment| moment.seconds).sum()
}

fn series(seconds: &[Moment]) -> Series {
    FIGURES.map(|(_, figure)| seconds.iter().map(figure).collect())
}

/// Both runs in blocks.
struct Blocks {
    a: Series,
    b: Series,
    /// Seconds in each.
    each: usize,
    /// Whether neighbours are correlated all the same.
    correlated: bool,
}

/// Blocks of both runs, as short as they may be.
fn blocks(a: &Series, b: &Series) -> Blocks {
    let (n, m) = (a[0].len(), b[0].len());
    let mut each = n.max(m).div_ceil(BLOCKS_MAX).max(1);
    loop {
        let joined = |series: &Series| series.each_ref().map(|values| means(values, each));
        let (x, y) = (joined(a), joined(b));
        let correlated = x.iter().chain(&y).any(|values| is_correlated(values));
        let next = each + each.div_ceil(2);
        if !correlated || n.min(m) / next < BLOCKS_MIN {
            return Blocks { a: x, b: y, each, correlated };
        }
        each = next;
    }
}

/// Means of `each` neighbours; what is left at the end is left out.
fn means(values: &[f64], each: usize) -> Vec<f64> {
    values.chunks_exact(each).map(|chunk| chunk.iter().sum::<f64>() / each as f64).collect()
}

/// Whether neighbours are alike beyond what 95 % of independent series would show.
fn is_correlated(values: &[f64]) -> bool {
    let n = values.len() as f64;
    if values.len() < BLOCKS_MIN {
        return false;
    }
    let mean = values.iter().sum::<f64>() / n;
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let covariance: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    // The estimate of an independent series scatters by 1 / sqrt(n) around -1 / n.
    variance > 0.0 && covariance / variance > 1.645 / n.sqrt() - 1.0 / n
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
    use crate::hgrm::{encode, new_histogram};

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

    /// A run whose seconds have figures drawn by `draw`.
    fn drawn(seconds: u64, mut draw: impl FnMut() -> f64) -> Report {
        let timeline = (1..=seconds + 2)
            .map(|second| {
                let value = draw();
                Moment {
                    at_s: second as f64,
                    seconds: 1.0,
                    acked_per_s: value,
                    latency_us: Summary {
                        count: 100,
                        p50: value as u64,
                        p99: value as u64,
                        ..Summary::default()
                    },
                    ..Moment::default()
                }
            })
            .collect();
        Report { valid: true, warm_up_s: 2.0, duration_s: seconds as f64, timeline, ..Report::default() }
    }

    fn alarms(pairs: u64, report: impl Fn(u64, bool) -> Report) -> usize {
        let alarm = |pair: &u64| {
            let found = compare(&report(2 * pair, false), &report(2 * pair + 1, true));
            found.differences.iter().any(|figure| figure.significant)
        };
        (0..pairs).filter(alarm).count()
    }

    /// Seconds that hang together, as those of a machine that is slow for a while: each is 0.6 of the one before and something new.
    #[test]
    fn equal_runs_whose_seconds_hang_together_are_rarely_called_different() {
        let report = |seed: u64, _| {
            let (mut state, mut value) = (mix(seed ^ 0x4152), 0.0);
            drawn(240, move || {
                let normal: f64 = (0..12)
                    .map(|_| {
                        state = mix(state);
                        crate::arrival::unit(state)
                    })
                    .sum::<f64>()
                    - 6.0;
                value = 0.6 * value + normal;
                10_000.0 + 500.0 * value
            })
        };
        // Blocks are never quite independent: a tenth is what is promised here, and four standard errors of 300 comparisons.
        let false_alarms = alarms(300, report);
        assert!(false_alarms <= 30 + 21, "{false_alarms} of 300");
    }

    /// A run three times as long meets three times as many bad seconds: it is not worse for that.
    #[test]
    fn a_longer_run_of_the_same_kind_is_not_called_worse() {
        let report = |seed: u64, long| {
            let mut state = mix(seed ^ 0x4C4F_4E47);
            drawn(if long { 180 } else { 60 }, move || {
                state = mix(state);
                // Exponential: the largest of a few is far above the mean.
                10_000.0 - 5_000.0 * crate::arrival::unit(state).ln()
            })
        };
        let false_alarms = alarms(300, report);
        assert!(false_alarms <= 26, "{false_alarms} of 300");
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
    fn an_outage_makes_a_run_slower_and_is_named() {
        let steady = report(1e4, 1_000.0, 1);
        let mut broken = report(1e4, 1_000.0, 2);
        // Two thirds of the measured time, so that the median block has none either.
        for moment in &mut broken.timeline[12..52] {
            *moment =
                Moment { at_s: moment.at_s, seconds: 1.0, intended_per_s: Some(1e4), ..Moment::default() };
        }
        let found = compare(&steady, &broken);
        for figure in &found.differences[1..] {
            assert!(figure.change > 0.0, "{figure:?}");
        }
        let named = "40 seconds of the second report had no ack";
        assert!(found.warnings.iter().any(|warning| warning.starts_with(named)), "{:?}", found.warnings);
        assert!(!found.warnings.iter().any(|warning| warning.contains("first report had")));
    }

    #[test]
    fn silence_counts_from_the_last_ack_and_only_while_messages_wait() {
        let second = |at_s: f64, count: u64, sent_per_s: f64, intended: Option<f64>| Moment {
            at_s,
            seconds: 1.0,
            sent_per_s,
            intended_per_s: intended,
            latency_us: Summary { count, p50: count, ..Summary::default() },
            ..Moment::default()
        };
        let p50 = |timeline: &[Moment]| -> Vec<u64> {
            with_silence(timeline).iter().map(|moment| moment.latency_us.p50).collect()
        };
        // A trickle with nothing due, a message that is sent and not answered, and its ack.
        let trickle = [
            second(1.0, 5, 1.0, Some(0.1)),
            second(2.0, 0, 0.0, Some(0.1)),
            second(3.0, 0, 1.0, Some(0.1)),
            second(4.0, 0, 0.0, Some(0.1)),
            second(5.0, 7, 0.0, Some(0.1)),
            second(6.0, 0, 0.0, Some(0.1)),
        ];
        assert_eq!(p50(&trickle), [5, 0, 1_000_000, 2_000_000, 7, 0]);
        let closed = [second(1.0, 5, 9.0, None), second(2.0, 0, 0.0, None), second(3.0, 0, 0.0, None)];
        assert_eq!(p50(&closed), [5, 1_000_000, 2_000_000]);
    }

    #[test]
    fn settings_that_differ_are_named_and_draws_that_scatter_are_not() {
        let first = Report { window: Some(4), batch: 50, payload_bytes: 100.0, ..report(1e4, 1e3, 1) };
        let mut second = Report { payload_bytes: 100.5, ..first.clone() };
        assert!(compare(&first, &second).warnings.is_empty(), "{:?}", compare(&first, &second).warnings);
        (second.window, second.batch, second.seed, second.payload_bytes) = (Some(8), 60, 9, 200.0);
        (second.profile.speedup, second.rate.intended_per_s) = (2.0, Some(10.0));
        let found = compare(&first, &second).warnings;
        for what in [
            "the window of the closed loop differs: 4 and 8",
            "the batch differs: 50 and 60",
            "the speedup differs: 0 and 2",
            "the seed differs: 0 and 9",
            "the intended rate, messages/s, differs: 0 and 10",
            "the payload, bytes, differs: 100 and 200",
        ] {
            assert!(found.iter().any(|warning| warning == what), "{found:?}");
        }
    }

    #[test]
    fn how_the_day_the_trace_the_handshakes_and_the_faults_differ_is_named() {
        use crate::report::{FaultReport, HandshakeReport, ReplayReport};
        let faulty = |sent: u64| FaultReport { sent, ..FaultReport::default() };
        let mut first = Report { sent_total: 100_000, ..report(1e4, 1e3, 1) };
        first.faults.insert("late".to_owned(), faulty(1_000));
        first.faults.insert("duplicate".to_owned(), faulty(2_000));
        first.classes = vec![crate::report::ClassReport { intended: 100_000, ..Default::default() }];
        let mut second = first.clone();
        // Both are drawn.
        second.faults.insert("late".to_owned(), faulty(1_060));
        assert!(compare(&first, &second).warnings.is_empty(), "{:?}", compare(&first, &second).warnings);
        second.profile.at_hour = Some(19.5);
        second.warm_up_s = 2.5;
        second.faults.insert("duplicate".to_owned(), faulty(3_000));
        second.faults.insert("bad_signature".to_owned(), faulty(100));
        second.missing_on_purpose = 500;
        second.classes[0].intended = 99_500;
        second.replay = Some(ReplayReport { file: "a.csv".to_owned(), messages: 7, length_s: 1.0 });
        second.handshakes = Some(HandshakeReport { per_s_max: 40.0, ..HandshakeReport::default() });
        let found = compare(&first, &second).warnings;
        for what in [
            "the hour of the day differs: the mean day and 19.5 h",
            "the warm-up, seconds, differs: 2 and 2.5",
            "the trace that is replayed differs: none and a.csv of 7 messages",
            "the limit of handshakes per second differs: none and 40",
            "the share of messages that are duplicate on purpose differs: 1.0000 % and 1.5000 %",
            "the share of messages that are bad_signature on purpose differs: 0.0000 % and 0.1000 %",
            "the share of messages that are missing on purpose differs: 0.0000 % and 0.5000 %",
        ] {
            assert!(found.iter().any(|warning| warning == what), "{what}: {found:?}");
        }
        assert!(!found.iter().any(|warning| warning.contains("late")), "{found:?}");
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
