//! Histograms: their bounds, their summary, and the percentile text (`.hgrm`) that HdrHistogram's plotter reads.
//!
//! Owns the range and precision of every histogram of this crate: 1 microsecond to 10 minutes at three significant digits, so a figure is
//! within 0.1 % of what was measured. Longer times are counted as 10 minutes rather than left out.
//!
//! The text format is HdrHistogram's `outputPercentileDistribution`: a header, a line per percentile level (value, level, count up to
//! it, `1 / (1 - level)`; the last line has no fourth column), three comment lines. Values are in milliseconds, as the published tools
//! write them.

use std::io::{self, Write};

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

/// Longest time told apart, in microseconds: 10 minutes.
pub const TIME_US_MAX: u64 = 600_000_000;

/// Significant decimal digits.
const DIGITS: u8 = 3;

/// Percentile levels between one power of two of `1 / (1 - level)` and the next: the usual choice of the published tools.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// An empty histogram of microseconds: about 170 KiB.
///
/// # Panics
/// Never: the bounds are constants that the library takes, which a test holds.
#[must_use]
pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TIME_US_MAX, DIGITS).expect("1 us to 10 min at 3 digits are valid bounds")
}

/// The figures of a histogram that reports print, in microseconds. All 0 when nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Values recorded.
    pub count: u64,
    /// Half of the values are at or below this.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// 99.99 %.
    pub p9999: u64,
    /// The largest one.
    pub max: u64,
    /// The arithmetic mean.
    pub mean: f64,
}

impl Summary {
    /// Sums up `histogram`.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
            mean: (histogram.mean() * 1e3).round() / 1e3,
        }
    }
}

/// Writes the percentile distribution of `histogram` (in microseconds) as text in milliseconds.
///
/// # Errors
/// Those of `out`.
pub fn write_hgrm(histogram: &Histogram<u64>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let value_ms = step.value_iterated_to() as f64 / 1e3;
        let level = step.quantile_iterated_to();
        write!(out, "{value_ms:12.3} {level:2.12} {total:10}")?;
        if level < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - level))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    writeln!(
        out,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        histogram.max() as f64 / 1e3,
        histogram.len()
    )?;
    let sub_buckets = 2 * 10u64.pow(u32::from(DIGITS)).next_power_of_two();
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {sub_buckets:12}]", histogram.buckets())
}

/// A histogram in HdrHistogram's V2 format, compressed (zlib), as base64.
///
/// # Errors
/// If it cannot be serialised.
pub fn encode(histogram: &Histogram<u64>) -> io::Result<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).map_err(io::Error::other)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The histogram that [`encode`] wrote, with the bounds of this crate.
///
/// # Errors
/// If the text is none, or holds values that no histogram of this crate has.
pub fn decode(text: &str) -> io::Result<Histogram<u64>> {
    if text.len() > ENCODED_BYTES_MAX {
        let problem = format!("a histogram of {} characters; at most {ENCODED_BYTES_MAX}", text.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let wrong = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| wrong(error.to_string()))?;
    let read: Histogram<u64> =
        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| wrong(error.to_string()))?;
    let mut histogram = new_histogram();
    histogram.add(&read).map_err(|error| wrong(error.to_string()))?;
    Ok(histogram)
}

/// Characters of an encoded histogram, at most: 45,056 counts of nine bytes, not compressed at all, in base64.
pub const ENCODED_BYTES_MAX: usize = 600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: u64, want: u64) -> bool {
        got.abs_diff(want) <= want / 1_000 + 1
    }

    #[test]
    fn percentiles_of_known_values_are_within_a_thousandth() {
        let mut histogram = new_histogram();
        (1..=100_000).for_each(|value| histogram.saturating_record(value));
        let summary = Summary::of(&histogram);
        assert_eq!(summary.count, 100_000);
        for (got, want) in [
            (summary.p50, 50_000),
            (summary.p90, 90_000),
            (summary.p99, 99_000),
            (summary.p999, 99_900),
            (summary.p9999, 99_990),
            (summary.max, 100_000),
        ] {
            assert!(close(got, want), "got {got}, want {want}");
        }
        assert!((summary.mean - 50_000.5).abs() < 50.0);
    }

    #[test]
    fn one_slow_value_in_a_thousand_moves_p9999_and_max_but_not_p99() {
        let mut histogram = new_histogram();
        histogram.saturating_record_n(1_000, 9_990);
        histogram.saturating_record_n(500_000, 10);
        let summary = Summary::of(&histogram);
        assert!(close(summary.p50, 1_000) && close(summary.p99, 1_000));
        assert!(close(summary.p9999, 500_000) && close(summary.max, 500_000));
    }

    #[test]
    fn times_beyond_ten_minutes_count_as_ten_minutes() {
        let mut histogram = new_histogram();
        histogram.saturating_record(u64::MAX);
        assert_eq!(histogram.len(), 1);
        assert!(close(histogram.max(), TIME_US_MAX));
        assert_eq!(Summary::of(&new_histogram()), Summary::default());
    }

    #[test]
    fn the_percentile_text_has_rising_columns_and_ends_at_the_maximum() {
        let mut histogram = new_histogram();
        (1..=1_000).for_each(|value| histogram.saturating_record(value * 10));
        let mut text = Vec::new();
        write_hgrm(&histogram, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap().split_whitespace().collect::<Vec<_>>()[0], "Value");
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        for (row, next) in rows.iter().zip(&rows[1..]) {
            assert!(row[0] <= next[0] && row[1] < next[1] && row[2] <= next[2], "{row:?} {next:?}");
            assert_eq!(row.len(), 4);
            assert!((row[3] * (1.0 - row[1]) - 1.0).abs() < 0.01, "{row:?}");
        }
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 1_000.0, 3));
        assert!((last[0] - 10.0).abs() < 0.02, "milliseconds: {last:?}");
        assert!(text.contains("#[Mean    =") && text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn an_encoded_histogram_comes_back_count_for_count() {
        let mut histogram = new_histogram();
        (1..=100_000u64).for_each(|value| histogram.saturating_record(value * value % 700_000_001));
        let again = decode(&encode(&histogram).unwrap()).unwrap();
        assert_eq!(again, histogram);
        assert_eq!(decode(&encode(&new_histogram()).unwrap()).unwrap(), new_histogram());
        assert!(decode("not base64").is_err() && decode("AAAA").is_err());
    }
}
