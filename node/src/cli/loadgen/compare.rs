//! `weft loadgen compare A.json B.json`: whether two runs differ by more than chance.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use weft_loadgen::Report;
use weft_loadgen::compare::compare;
use weft_loadgen::report::SCHEMA;

use crate::cli::{EXIT_FOUND, JsonArg, usage};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Compare two reports, with a test of whether they differ.\n\n\
        The seconds of both runs are the samples: throughput, median and 99th percentile are held against each other by a Mann-Whitney \
        test, with an interval of the change by bootstrap. What the two runs did not have in common is named.\n\n\
        Exits with 1 if --fail-on-regression is given and the second run is significantly worse (slower, or later).\n\n\
        Example: weft loadgen compare before.json after.json --fail-on-regression";

/// Largest report that is read: a timeline, and a histogram for each of 64 classes.
const REPORT_BYTES_MAX: u64 = 64 << 20;

/// Arguments of `weft loadgen compare`.
#[derive(clap::Args, Debug)]
pub struct CompareArgs {
    /// The report to compare with
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// The report that is compared
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// Exit with 1 if B is significantly worse than A
    #[arg(long)]
    fail_on_regression: bool,
    #[command(flatten)]
    json: JsonArg,
}

/// Reads a report.
///
/// # Errors
/// If the file cannot be read, or is no report of this version.
pub fn read_report(path: &Path) -> anyhow::Result<Report> {
    let bytes = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if bytes > REPORT_BYTES_MAX {
        return Err(usage(format!(
            "{}: {bytes} bytes; a report has at most {REPORT_BYTES_MAX}",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| usage(format!("{} is no report: {error}", path.display())))?;
    if report.schema != SCHEMA {
        return Err(usage(format!(
            "{} has schema {}, this version reads {SCHEMA}",
            path.display(),
            report.schema
        )));
    }
    Ok(report)
}

/// Runs `weft loadgen compare`.
///
/// # Errors
/// If a report cannot be read.
pub fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let found = compare(&read_report(&args.a)?, &read_report(&args.b)?);
    args.json.write(&found)?;
    if !args.json.on_stdout() {
        println!("{:<24} {:>12} {:>12} {:>9}  {:<22} {:>8}", "", "A", "B", "change", "95 % interval", "p");
        for figure in &found.differences {
            let interval = figure.interval.map_or("-".to_owned(), |(least, most)| {
                format!("{:+.2} % .. {:+.2} %", 100.0 * least, 100.0 * most)
            });
            let p = figure.p.map_or("-".to_owned(), |p| format!("{p:.4}"));
            let verdict = if figure.significant { "  differs" } else { "" };
            println!(
                "{:<24} {:>12.1} {:>12.1} {:>+8.2}%  {interval:<22} {p:>8}{verdict}",
                figure.name,
                figure.a,
                figure.b,
                100.0 * figure.change
            );
        }
        println!(
            "{} and {} blocks; significant below p = {:.4} (0.05 over three tests)",
            found.blocks.0, found.blocks.1, found.p_limit
        );
        if let Some(distance) = found.latency_distance {
            println!("largest distance of the latency distributions: {distance:.4} (0 same, 1 apart)");
        }
        for warning in &found.warnings {
            println!("note: {warning}");
        }
    }
    let worse = |(index, figure): (usize, &weft_loadgen::compare::Difference)| {
        // Throughput is worse when it falls, latencies when they rise.
        figure.significant && if index == 0 { figure.change < 0.0 } else { figure.change > 0.0 }
    };
    let regression = found.differences.iter().enumerate().any(worse);
    Ok(if args.fail_on_regression && regression { ExitCode::from(EXIT_FOUND) } else { ExitCode::SUCCESS })
}
