//! What the CPU benches have in common: their shared arguments, checked once, and the head of their reports.
//!
//! Owns the limits of `--backend`, `--batch`, `--threads` and `--seconds-per-row`, and the fields by which a reader of
//! a report can repeat it. What is measured is left to `verify`, `sign` and `hash`.

use std::time::Duration;

use serde_json::{Value, json};
use weft_crypto::Backend;
use weft_crypto::backend::BackendError;
use weft_loadgen::machine;

use crate::cli::{JsonArg, usage};

/// Largest batch that can be asked for: beyond it no backend gains, and the corpus takes long to sign.
const BATCH_MAX: usize = 65_536;
/// Most threads that can be asked for.
const THREADS_MAX: usize = 1_024;

/// Arguments that every CPU bench takes. Batch sizes and time have defaults of each bench's own.
#[derive(clap::Args, Debug)]
pub struct CommonArgs {
    /// Backends to measure, by name [default: all that this machine has]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub backend: Vec<String>,
    /// Threads, each with batches of its own; `all` for one per core
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1")]
    pub threads: Vec<String>,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// The arguments, checked.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) backends: Vec<Backend>,
    pub(super) batches: Vec<usize>,
    pub(super) threads: Vec<usize>,
    pub(super) per_row: Duration,
}

impl Settings {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// A usage error with what was got and the limits.
    pub(super) fn new(common: &CommonArgs, batches: &[usize], seconds_per_row: f64) -> anyhow::Result<Self> {
        Ok(Self {
            backends: backends(&common.backend)?,
            batches: check_batches(batches)?.to_vec(),
            threads: threads(&common.threads)?,
            per_row: per_row(seconds_per_row)?,
        })
    }

    /// [`report`] with the time given to each row.
    pub(super) fn report(&self, name: &str, fields: Value) -> Value {
        let mut report = report(name, fields);
        report["seconds_per_row"] = json!(self.per_row.as_secs_f64());
        report
    }
}

/// The report named `name`: when, where and how it was had, and `fields`, an object.
pub(super) fn report(name: &str, fields: Value) -> Value {
    let mut report = json!({
        "report": name,
        "at": now(),
        "machine": machine::Machine::read(None),
        "commit": machine::commit(),
        "command": command_line(),
        "build": { "release": !cfg!(debug_assertions), "version": env!("CARGO_PKG_VERSION") },
    });
    if let (Some(report), Value::Object(fields)) = (report.as_object_mut(), fields) {
        report.extend(fields);
    }
    report
}

/// The command as it was given.
fn command_line() -> String {
    let parts: Vec<String> = std::env::args_os().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join(" ")
}

/// The time by this machine's clock, for reports.
fn now() -> String {
    let now_s =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    machine::rfc3339(now_s)
}

/// `--backend`: those named, or all that this machine has.
fn backends(names: &[String]) -> anyhow::Result<Vec<Backend>> {
    if names.is_empty() {
        let available = weft_crypto::backend::available(&Default::default());
        return Ok(available.into_iter().map(|(backend, _)| backend).collect());
    }
    names.iter().map(|name| name.parse().map_err(|error: BackendError| usage(error.to_string()))).collect()
}

/// `--batch`.
fn check_batches(batches: &[usize]) -> anyhow::Result<&[usize]> {
    match batches.iter().find(|batch| !(1..=BATCH_MAX).contains(*batch)) {
        Some(bad) => Err(usage(format!("--batch: got {bad}, the limits are 1 to {BATCH_MAX}"))),
        None => Ok(batches),
    }
}

/// `--threads`.
fn threads(list: &[String]) -> anyhow::Result<Vec<usize>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = list.iter().map(|text| match text.as_str() {
        "all" => Ok(cores),
        text => match text.parse() {
            Ok(threads) if (1..=THREADS_MAX).contains(&threads) => Ok(threads),
            _ => Err(usage(format!("--threads: got {text:?}, need 1 to {THREADS_MAX}, or all"))),
        },
    });
    let mut threads = threads.collect::<anyhow::Result<Vec<usize>>>()?;
    // `1,all` on one core is one measurement, not two.
    threads.dedup();
    Ok(threads)
}

/// `--seconds-per-row`.
fn per_row(seconds: f64) -> anyhow::Result<Duration> {
    if !(0.01..=600.0).contains(&seconds) {
        return Err(usage(format!("--seconds-per-row: got {seconds}, the limits are 0.01 to 600")));
    }
    Ok(Duration::from_secs_f64(seconds))
}
