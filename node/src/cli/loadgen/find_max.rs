//! `weft loadgen run ... --find-max "p99<=50ms"`: the highest rate that holds an objective.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use weft_loadgen::report::{group, time};
use weft_loadgen::search::{Found, Length, Objective, Options, SCHEMA, Trial, judge, search};
use weft_loadgen::{LoadError, Machine, Report, RunConfig, Schedule, Shape, Stop, run as drive};

use crate::cli::{EXIT_FOUND, JsonArg, usage};

/// A short trial has at least this: seconds are what its scatter is made of.
const SHORT_MIN: Duration = Duration::from_secs(2);

/// What is written as JSON (docs, load generator, "Highest rate that holds an objective"): what was found, and all that the trials had in
/// common, under the names and with the meaning that it has in the report of one run.
#[derive(Serialize)]
struct Search<'a> {
    schema: u32,
    version: &'a str,
    /// When the first trial began, UTC.
    started_at: &'a str,
    #[serde(flatten)]
    found: &'a Found,
    profile: &'a str,
    population: u64,
    population_msgs_per_s: f64,
    speedup: f64,
    at_hour: Option<f64>,
    seed: u64,
    target: &'a str,
    backend: Option<&'a str>,
    ack_level: &'a str,
    topology: &'a str,
    handshakes_per_s_max: Option<f64>,
    connections: u32,
    batch: u32,
    /// How often gateways send what is due, microseconds.
    flush_us: u64,
    signing: &'a str,
    signer: &'a str,
    generator_threads: u32,
    lag_p99_us_max: u64,
    warm_up_s: f64,
    /// Seconds measured in each whole trial.
    trial_s: f64,
    /// The scatter above which a trial is made again.
    scatter_max: f64,
    /// Messages sent with a fault on purpose, of the first trial.
    faults: &'a std::collections::BTreeMap<String, weft_loadgen::report::FaultReport>,
    machine: &'a Machine,
    commit: Option<&'a str>,
    command_line: Option<&'a str>,
}

impl<'a> Search<'a> {
    /// `first` is the report of the first trial.
    fn new(found: &'a Found, first: &'a Report, config: &RunConfig, options: &Options) -> Self {
        Self {
            schema: SCHEMA,
            version: &first.version,
            started_at: &first.started_at,
            found,
            profile: &first.profile.name,
            population: first.profile.population,
            population_msgs_per_s: first.profile.population_msgs_per_s,
            speedup: first.profile.speedup,
            at_hour: first.profile.at_hour,
            seed: first.seed,
            target: &first.target,
            backend: first.backend.as_deref(),
            ack_level: &first.ack_level,
            topology: &first.topology,
            handshakes_per_s_max: first.handshakes.as_ref().map(|handshakes| handshakes.per_s_max),
            connections: first.connections,
            batch: first.batch,
            flush_us: u64::try_from(config.flush.as_micros()).unwrap_or(u64::MAX),
            signing: &first.signing,
            signer: &first.generator.signer,
            generator_threads: first.generator.threads,
            lag_p99_us_max: first.lag_p99_us_max,
            warm_up_s: first.warm_up_s,
            trial_s: config.duration.as_secs_f64(),
            scatter_max: options.scatter_max,
            faults: &first.faults,
            machine: &first.machine,
            commit: first.commit.as_deref(),
            command_line: first.command_line.as_deref(),
        }
    }
}

/// Searches with runs of `config`, whose scale is set by the rate of each trial.
///
/// # Errors
/// If the run has a shape, or a run cannot be made.
pub fn run(
    config: &RunConfig,
    objective: &Objective,
    stop: &Stop,
    quiet: bool,
    json: &JsonArg,
) -> anyhow::Result<ExitCode> {
    refuse_shape(&config.shape)?;
    let world = config.world();
    let whole = world.profile.rate_per_s() * world.speedup;
    let options = Options { most_per_s: whole.min(Options::default().most_per_s), ..Options::default() };
    let mut first: Option<Report> = None;
    let found = search(
        objective,
        &options,
        |rate, length| {
            let mut config = config.clone();
            if length == Length::Short {
                config.duration = (config.duration / 4).max(SHORT_MIN).min(config.duration);
            }
            let mut world = world.clone();
            world.scale = (rate / whole).min(1.0);
            config.schedule = Schedule::Open { rate_per_s: world.rate_per_s() };
            config.world = Some(world);
            let before = cpu_times();
            let outcome = drive(&config, stop, &mut |_| {})?;
            let busy = before.zip(cpu_times()).map(|(before, after)| {
                let (busy, all) = (after.0 - before.0, after.1 - before.1);
                if all > 0.0 { busy / all } else { 0.0 }
            });
            if stop.is_requested() {
                return Err(LoadError::Internal { what: "the search was stopped" });
            }
            // A target that was driven beyond what it can do is left to recover.
            std::thread::sleep(Duration::from_millis(300));
            let trial = judge(&outcome.report, objective, busy);
            first.get_or_insert(outcome.report);
            Ok(trial)
        },
        |trial| {
            if !quiet {
                show(trial);
            }
        },
    )?;
    let first = first.context("no trial was made")?;
    json.write(&Search::new(&found, &first, config, &options))?;
    if !json.on_stdout() {
        println!("{} holds up to {} messages/s", found.objective, group(found.rate_per_s as u64));
        println!(
            "this is the least that was acked in the trials that confirmed it, at {} messages/s wanted",
            group(found.nominal_rate_per_s as u64)
        );
        println!("bounded by {}", found.bound);
    }
    Ok(if found.rate_per_s > 0.0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// A trial whose rate changes within it tells of no one rate: which part of it decided, nobody could say.
fn refuse_shape(shape: &Shape) -> anyhow::Result<()> {
    if *shape == Shape::Constant {
        return Ok(());
    }
    Err(usage(format!(
        "--find-max needs one rate for each trial, and --shape {shape} changes it: leave --shape out"
    )))
}

fn show(trial: &Trial) {
    let verdict = match (&trial.why, trial.scattered) {
        (None, false) => "holds".to_owned(),
        (None, true) => format!("scatters by {:.0} %: again", 100.0 * trial.scatter),
        (Some(why), _) => format!("fails: {why}"),
    };
    eprintln!(
        "{:>11} messages/s  {:>11} acked  {:>8}  machine {:>3.0} % busy  {verdict}",
        group(trial.rate_per_s.round() as u64),
        group(trial.throughput_per_s.round() as u64),
        time(trial.figure_us),
        100.0 * trial.machine_busy.unwrap_or(0.0)
    );
}

/// Busy and total processor time of this machine since its start (proc(5), stat), in ticks.
fn cpu_times() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest times are in user already.
    let all: f64 = times.iter().take(8).sum();
    let idle = times.get(3)? + times.get(4)?;
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_other_than_a_constant_rate_is_refused() {
        for shape in ["constant", "soak"] {
            assert!(refuse_shape(&shape.parse().unwrap()).is_ok(), "{shape}");
        }
        for shape in ["ramp:0.1..1", "step:0.5,1,2", "spike:10x2s"] {
            let error = refuse_shape(&shape.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("--find-max") && error.contains(shape), "{error}");
        }
    }
}
