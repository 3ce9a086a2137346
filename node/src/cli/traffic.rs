//! What `demo` and `loadgen` have in common: the flags that shape traffic, the live line, and the files of a report.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use weft_crypto::Backend;
use weft_loadgen::report::group;
use weft_loadgen::{Outcome, Phase, Progress, RunConfig, Schedule, Target};
use weft_net::AckLevel;

use super::usage;

/// Flags that shape the traffic.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Traffic")]
pub struct TrafficArgs {
    /// Time that is measured, in seconds; warm-up and draining come on top
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    pub seconds: f64,
    /// Time before measuring, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub warm_up: f64,
    /// Open loop: messages per second, sent when they are due whatever the node does; latency counts from the moment a message was
    /// due. Without it the loop is closed: as fast as acks come back
    #[arg(long, value_name = "MSGS_PER_S", conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Closed loop: batches in flight per connection
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    pub window: u32,
    /// Connections: gateways that share the devices
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub connections: u32,
    /// Messages of one submit, at most
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    pub batch: u32,
    /// Devices, each with a key of its own derived from seed and number
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub devices: u64,
    /// Names the population of devices
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Payload of each message, in bytes, its 16-byte tag included
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub payload_bytes: usize,
    /// Threads that build and sign messages
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub generator_threads: u32,
    /// How messages are signed: serial, avx2, avx512, or auto for the fastest here
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub signer: String,
    /// What an ack must mean: received, written or durable
    #[arg(long, value_name = "LEVEL", default_value = "durable", value_parser = super::send::parse_level)]
    pub ack: AckLevel,
    /// Write the latency histogram as an HdrHistogram percentile file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hgrm: Option<PathBuf>,
}

impl TrafficArgs {
    /// The run that the flags describe.
    ///
    /// # Errors
    /// A usage error for values that no run can have.
    pub fn run_config(&self, target: Target, audit: bool) -> anyhow::Result<RunConfig> {
        let mut config = RunConfig::new(target);
        config.schedule = match self.rate {
            Some(rate_per_s) => Schedule::Open { rate_per_s },
            None => Schedule::Closed { window: self.window },
        };
        config.connections = self.connections;
        config.batch_messages = self.batch;
        config.devices = self.devices;
        config.seed = self.seed;
        config.payload_bytes = self.payload_bytes;
        config.generator_threads = self.generator_threads;
        config.duration = seconds("--seconds", self.seconds)?;
        config.warm_up = seconds("--warm-up", self.warm_up)?;
        config.ack_level = self.ack;
        config.signer = signer(&self.signer)?;
        config.audit = audit;
        config.about.command_line = Some(std::env::args().collect::<Vec<_>>().join(" "));
        config.validate().map_err(|error| usage(error.to_string()))?;
        Ok(config)
    }
}

pub(super) fn seconds(flag: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value).map_err(|error| usage(format!("{flag}: got {value}: {error}")))
}

pub(super) fn signer(name: &str) -> anyhow::Result<Backend> {
    if name == "auto" {
        // The last one that this machine has: they are listed from the slowest to the fastest.
        return Ok(Backend::ALL
            .into_iter()
            .rev()
            .find(|backend| backend.signer().is_ok())
            .unwrap_or(Backend::Serial));
    }
    let backend: Backend = name.parse().map_err(|error| usage(format!("--signer: {error}")))?;
    backend.signer().map_err(|error| usage(format!("--signer: {error}")))?;
    Ok(backend)
}

/// One line of progress a second, to stderr: rewritten in place on a terminal, a line each otherwise.
pub fn show(progress: &Progress) {
    let phase = match progress.phase {
        Phase::WarmUp => "warm-up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    };
    let latency = match (progress.p50_us, progress.p99_us) {
        (Some(p50), Some(p99)) => format!("  p50 {:.1} ms  p99 {:.1} ms", p50 as f64 / 1e3, p99 as f64 / 1e3),
        _ => String::new(),
    };
    let line = format!(
        "{:>5.0} s  {phase:<9}  {:>9} sent/s  {:>9} acked/s  {:>11} acked  {} refused{latency}",
        progress.elapsed.as_secs_f64(),
        group(progress.sent_per_s as u64),
        group(progress.acked_per_s as u64),
        group(progress.acked),
        group(progress.rejected),
    );
    line_of_progress(&line);
}

/// Shows a line that the next one replaces, where that can be.
pub fn line_of_progress(line: &str) {
    let mut err = std::io::stderr().lock();
    let _ = if err.is_terminal() { write!(err, "\r\x1b[2K{line}") } else { writeln!(err, "{line}") };
    let _ = err.flush();
}

/// Ends a line of progress, on a terminal.
pub fn end_progress() {
    let mut err = std::io::stderr().lock();
    if err.is_terminal() {
        let _ = writeln!(err);
    }
}

/// Writes the latency histogram where the flag says.
///
/// # Errors
/// If the file cannot be written.
pub fn write_hgrm(path: Option<&Path>, outcome: &Outcome) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut bytes = Vec::new();
    weft_loadgen::write_hgrm(&outcome.meter.latency, &mut bytes)?;
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
