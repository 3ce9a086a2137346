//! A run over time: rates and latencies of each stretch, in bounded memory, and the interval log of HdrHistogram.
//!
//! Owns the series. One stretch is a second long at first; when there are more than [`MOMENTS_MAX`], neighbours are merged in pairs and
//! stretches last twice as long from then on. Counts merge exactly; of two percentiles the higher is kept, so a merged figure is never
//! lower than the truth.
//!
//! The log is HdrHistogram's V1.3 text: comment lines, a legend, and a line per interval: start and length in seconds, largest value in
//! milliseconds, and the histogram (microseconds, V2, compressed, base64).

use std::fs::File;
use std::io::{self, BufWriter, Write};

use hdrhistogram::Histogram;

use crate::clock::RunClock;
use crate::config::RunConfig;
use crate::hgrm::{Summary, encode};
use crate::machine::rfc3339;
use crate::report::Moment;

/// Stretches kept, at most (about 200 bytes each).
pub(crate) const MOMENTS_MAX: usize = 1_024;

/// A stretch shorter than this is joined with the one before, seconds.
const SECONDS_MIN: f64 = 0.5;

/// How often a run is looked at, microseconds.
const LOOK_EVERY_US: u64 = 1_000_000;

/// When the look after one at `now_us` is due: at the next whole second since the start. One that comes late does not put off those after
/// it, so that looks do not drift and those of several machines coincide; those that were missed are left out.
pub(crate) const fn next_look_us(now_us: u64) -> u64 {
    (now_us / LOOK_EVERY_US + 1) * LOOK_EVERY_US
}

/// What happened up to now, as a series of differences is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    pub(crate) rejected: u64,
    /// Messages due by the models; `None` in the closed loop.
    pub(crate) intended: Option<f64>,
    /// Messages that fell due, as drawn; `None` in the closed loop.
    pub(crate) due: Option<f64>,
}

/// The series.
#[derive(Debug)]
pub(crate) struct Timeline {
    moments: Vec<Moment>,
    last_s: f64,
    last: Totals,
    /// Stretches of a second in one of the series.
    per_moment: u32,
    /// Of them, gathered for the one under way.
    gathered: u32,
}

impl Timeline {
    pub(crate) const fn new() -> Self {
        Self {
            moments: Vec::new(),
            last_s: 0.0,
            last: Totals { sent: 0, acked: 0, rejected: 0, intended: None, due: None },
            per_moment: 1,
            gathered: 0,
        }
    }

    /// Adds the stretch that ends now; `latency` is of those acked in it.
    pub(crate) fn add(&mut self, at_s: f64, totals: Totals, latency: &Histogram<u64>) -> Moment {
        let seconds = (at_s - self.last_s).max(1e-6);
        let per_s = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        let moment = Moment {
            at_s,
            seconds,
            intended_per_s: totals.intended.map(|now| (now - self.last.intended.unwrap_or(0.0)) / seconds),
            // What was expected of a generator that is behind may turn out to be less: what is counted once stays counted.
            due_per_s: totals.due.map(|now| (now - self.last.due.unwrap_or(0.0)).max(0.0) / seconds),
            sent_per_s: per_s(totals.sent, self.last.sent),
            acked_per_s: per_s(totals.acked, self.last.acked),
            rejected_per_s: per_s(totals.rejected, self.last.rejected),
            latency_us: Summary::of(latency),
        };
        self.last_s = at_s;
        self.last = Totals { due: totals.due.map(|now| now.max(self.last.due.unwrap_or(0.0))), ..totals };
        // The last stretch of a run may be a few milliseconds long, in which a rate means nothing.
        let short = seconds < SECONDS_MIN;
        match self.moments.last_mut() {
            Some(last) if self.gathered > 0 || short => *last = merged(last, &moment),
            _ => self.moments.push(moment),
        }
        if !short {
            self.gathered = (self.gathered + 1) % self.per_moment;
        }
        if self.moments.len() > MOMENTS_MAX {
            self.moments = self
                .moments
                .chunks(2)
                .map(|pair| match pair {
                    [one, other] => merged(one, other),
                    rest => rest[0],
                })
                .collect();
            self.per_moment *= 2;
            self.gathered = 0;
        }
        moment
    }

    pub(crate) fn moments(self) -> Vec<Moment> {
        self.moments.iter().map(rounded).collect()
    }
}

/// Two neighbours as one.
pub(crate) fn merged(one: &Moment, other: &Moment) -> Moment {
    let seconds = one.seconds + other.seconds;
    let mean = |a: f64, b: f64| (a * one.seconds + b * other.seconds) / seconds;
    let (a, b) = (&one.latency_us, &other.latency_us);
    let count = a.count + b.count;
    let latency_us = Summary {
        count,
        p50: a.p50.max(b.p50),
        p90: a.p90.max(b.p90),
        p99: a.p99.max(b.p99),
        p999: a.p999.max(b.p999),
        p9999: a.p9999.max(b.p9999),
        max: a.max.max(b.max),
        mean: (a.mean * a.count as f64 + b.mean * b.count as f64) / (count.max(1)) as f64,
    };
    Moment {
        at_s: other.at_s,
        seconds,
        intended_per_s: one.intended_per_s.zip(other.intended_per_s).map(|(a, b)| mean(a, b)),
        due_per_s: one.due_per_s.zip(other.due_per_s).map(|(a, b)| mean(a, b)),
        sent_per_s: mean(one.sent_per_s, other.sent_per_s),
        acked_per_s: mean(one.acked_per_s, other.acked_per_s),
        rejected_per_s: mean(one.rejected_per_s, other.rejected_per_s),
        latency_us,
    }
}

fn rounded(moment: &Moment) -> Moment {
    let round = |value: f64| (value * 1e3).round() / 1e3;
    Moment {
        at_s: round(moment.at_s),
        seconds: round(moment.seconds),
        intended_per_s: moment.intended_per_s.map(round),
        due_per_s: moment.due_per_s.map(round),
        sent_per_s: round(moment.sent_per_s),
        acked_per_s: round(moment.acked_per_s),
        rejected_per_s: round(moment.rejected_per_s),
        latency_us: Summary { mean: round(moment.latency_us.mean), ..moment.latency_us },
    }
}

/// Writes the head of an interval log; `started_s` is Unix time.
pub(crate) fn write_log_head(out: &mut dyn Write, started_s: f64, started_at: &str) -> io::Result<()> {
    writeln!(out, "#[Interval log of weft loadgen: latency from due to acked, microseconds]")?;
    writeln!(out, "#[Histogram log format version 1.3]")?;
    writeln!(out, "#[StartTime: {started_s:.3} (seconds since epoch), {started_at}]")?;
    writeln!(out, "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"")
}

/// Writes one interval.
pub(crate) fn write_log_line(
    out: &mut dyn Write,
    moment: &Moment,
    latency: &Histogram<u64>,
) -> io::Result<()> {
    let (start, max_ms) = ((moment.at_s - moment.seconds).max(0.0), latency.max() as f64 / 1e3);
    writeln!(out, "{start:.3},{:.3},{max_ms:.3},{}", moment.seconds, encode(latency)?)
}

/// The interval log, if one was asked for.
pub(crate) struct IntervalLog {
    file: Option<BufWriter<File>>,
    failed: Option<io::Error>,
}

impl IntervalLog {
    /// Begins the file that `config` names, if it names one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn create(config: &RunConfig, clock: RunClock) -> io::Result<Self> {
        let Some(path) = &config.interval_log else { return Ok(Self { file: None, failed: None }) };
        let mut file = BufWriter::new(File::create(path)?);
        let started_us = clock.unix_us(0);
        write_log_head(&mut file, started_us as f64 / 1e6, &rfc3339(started_us / 1_000_000))?;
        Ok(Self { file: Some(file), failed: None })
    }

    /// Adds an interval.
    pub(crate) fn write(&mut self, moment: &Moment, latency: &Histogram<u64>) {
        if let Some(file) = &mut self.file
            && let Err(error) = write_log_line(file, moment, latency)
        {
            self.failed = Some(error);
            self.file = None;
        }
    }

    /// Ends the file; tells what went wrong, if anything did.
    pub(crate) fn close(mut self) -> Option<String> {
        let flushed = self.file.as_mut().map_or(Ok(()), Write::flush);
        self.failed.or(flushed.err()).map(|error| format!("the interval log could not be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::hgrm::new_histogram;

    #[test]
    fn a_long_run_keeps_its_counts_in_bounded_memory() {
        let mut timeline = Timeline::new();
        let mut latency = new_histogram();
        latency.record(1_000).unwrap();
        for second in 1..=5_000u64 {
            latency.reset();
            latency.record(second).unwrap();
            let totals = Totals {
                sent: second * 100,
                acked: second * 99,
                rejected: second,
                intended: Some(second as f64 * 100.0),
                due: Some(second as f64 * 101.0),
            };
            timeline.add(second as f64, totals, &latency);
        }
        let moments = timeline.moments();
        assert!(moments.len() <= MOMENTS_MAX && moments.len() > MOMENTS_MAX / 4, "{}", moments.len());
        let sent: f64 = moments.iter().map(|moment| moment.sent_per_s * moment.seconds).sum();
        assert!((sent - 500_000.0).abs() < 1.0, "{sent}");
        assert!(moments.iter().all(|moment| (moment.sent_per_s - 100.0).abs() < 1e-6));
        assert!(moments.iter().all(|moment| moment.due_per_s.is_some_and(|due| (due - 101.0).abs() < 1e-6)));
        // Three digits.
        assert!(moments.last().unwrap().latency_us.max.abs_diff(5_000) <= 5);
        assert!((moments.last().unwrap().at_s - 5_000.0).abs() < 1e-9);
    }

    #[test]
    fn looks_that_come_late_do_not_drift() {
        let mut at_us = next_look_us(0);
        for look in 1..=3_600u64 {
            assert_eq!(at_us, look * 1_000_000);
            at_us = next_look_us(at_us + look % 20_000);
        }
        assert_eq!(
            next_look_us(4_700_000),
            5_000_000,
            "after a stall the next one is at a whole second again"
        );
    }

    #[test]
    fn a_stretch_too_short_for_a_rate_is_joined_with_the_one_before() {
        let mut timeline = Timeline::new();
        let latency = new_histogram();
        for (at_s, acked) in [(1.0, 100), (2.0, 200), (2.01, 250)] {
            timeline.add(at_s, Totals { acked, ..Totals::default() }, &latency);
        }
        let moments = timeline.moments();
        assert_eq!(moments.len(), 2);
        assert!(
            (moments[1].acked_per_s - 150.0 / 1.01).abs() < 0.01 && moments[1].at_s == 2.01,
            "{moments:?}"
        );
    }

    #[test]
    fn the_log_is_read_by_the_reader_of_the_format() {
        let mut text = Vec::new();
        write_log_head(&mut text, 1.0e9, "2001-09-09T01:46:40Z").unwrap();
        let mut latency = new_histogram();
        for value in [100, 2_000, 30_000] {
            latency.record(value).unwrap();
            let moment = Moment { at_s: 3.0, seconds: 1.0, ..Moment::default() };
            write_log_line(&mut text, &moment, &latency).unwrap();
        }
        let intervals = IntervalLogIterator::new(&text)
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(interval) => Some(interval.max()),
                _ => None,
            })
            .collect::<Vec<f64>>();
        assert_eq!(intervals.len(), 3);
        assert!((intervals[2] - 30.0).abs() < 0.1, "{intervals:?}");
    }
}
