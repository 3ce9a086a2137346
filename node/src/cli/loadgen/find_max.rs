//! `weft loadgen run ... --find-max "p99<=50ms"`: the highest rate that holds an objective.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use weft_loadgen::report::{group, time};
use weft_loadgen::search::{Found, Length, Objective, Options, Trial, judge, search};
use weft_loadgen::{LoadError, Machine, RunConfig, Schedule, Shape, Stop, run as drive};

use crate::cli::{EXIT_FOUND, JsonArg, usage};

/// A short trial has at least this: seconds are what its scatter is made of.
const SHORT_MIN: Duration = Duration::from_secs(2);

/// What is written as JSON.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    found: &'a Found,
    profile: String,
    /// Seconds measured in each trial.
    trial_s: f64,
    target: String,
    machine: Machine,
    command_line: Option<String>,
}

/// Searches with runs of `config`, whose scale is set by the rate of each trial.
///
/// # Errors
/// If the run has a shape, or a run cannot be made.
pub fn run(
    config: &RunConfig,
    objective: &Objective,
    target: &str,
    stop: &Stop,
    quiet: bool,
    json: &JsonArg,
) -> anyhow::Result<ExitCode> {
    refuse_shape(&config.shape)?;
    let world = config.world();
    let whole = world.profile.rate_per_s() * world.speedup;
    let options = Options { most_per_s: whole.min(Options::default().most_per_s), ..Options::default() };
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
            Ok(judge(&outcome.report, objective, busy))
        },
        |trial| {
            if !quiet {
                show(trial);
            }
        },
    )?;
    json.write(&Report {
        found: &found,
        profile: world.profile.name.clone(),
        trial_s: config.duration.as_secs_f64(),
        target: target.to_owned(),
        machine: Machine::read(config.about.data_dir.as_deref()),
        command_line: config.about.command_line.clone(),
    })?;
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
