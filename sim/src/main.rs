//! `weft-sim`: runs seeds of the simulation and says what they broke.
//!
//! Owns the command line and its progress. Exit status: 0 when every seed passed (with `--expect-violation`: when some
//! seed broke an invariant), 1 otherwise.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use weft_core::confirm::Rule;
use weft_sim::{Options, Stats, run};

/// Simulate a whole cluster with faults and liars, one run a seed.
///
/// Every seed gives the same run every time: `--seeds 17..18` replays seed 17.
#[derive(Parser, Debug)]
#[command(version, about)]
struct Arguments {
    /// Seeds, first to one past the last.
    #[arg(long, default_value = "0..200", value_parser = parse_range)]
    seeds: (u64, u64),
    /// Replay one seed twice and compare the two runs.
    #[arg(long, conflicts_with = "seeds")]
    replay: Option<u64>,
    /// With --replay: run once and print every effect, with virtual time and node, to standard error.
    #[arg(long, requires = "replay")]
    trace: bool,
    /// Validators. An honest ingest node and a lying one come on top.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    nodes: u64,
    /// Validators that lie; the bound, (nodes - 1) / 3, by default.
    #[arg(long)]
    liars: Option<usize>,
    /// Draw weights by chance, and how many validators lie: as much weight as the bound allows.
    #[arg(long, conflicts_with = "liars")]
    weights: bool,
    /// Weaken one rule, by its name (for example NoSwitch): a canary.
    #[arg(long)]
    weaken: Option<String>,
    /// Succeed only if some seed breaks an invariant.
    #[arg(long)]
    expect_violation: bool,
}

fn parse_range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("write FIRST..END")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let (from, to) = (number(from)?, number(to)?);
    if from < to { Ok((from, to)) } else { Err(format!("no seed in {text}")) }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut options = Options::bound(arguments.nodes as usize);
    options.weights = arguments.weights;
    if let Some(liars) = arguments.liars {
        anyhow::ensure!(liars < options.validators, "{liars} liars among {} validators", options.validators);
        options.liars = liars;
    }
    if let Some(name) = &arguments.weaken {
        let found = Rule::ALL.into_iter().find(|rule| format!("{rule:?}") == *name);
        let names: Vec<String> = Rule::ALL.iter().map(|rule| format!("{rule:?}")).collect();
        options.weaken =
            Some(found.ok_or_else(|| anyhow::anyhow!("no rule {name}; there are {}", names.join(", ")))?);
    }
    if let Some(seed) = arguments.replay {
        if arguments.trace {
            options.trace = true;
            println!("seed {seed}: {:?}", run(seed, options));
            return Ok(ExitCode::SUCCESS);
        }
        let (first, second) = (run(seed, options), run(seed, options));
        println!("seed {seed}: {first:?}");
        anyhow::ensure!(first == second, "the second run differs: {second:?}");
        return Ok(if first.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let (from, to) = arguments.seeds;
    let began = Instant::now();
    let mut shown = began;
    let mut total = Stats::default();
    let mut broken: BTreeMap<&'static str, (u64, u64, String)> = BTreeMap::new();
    for seed in from..to {
        match run(seed, options) {
            Ok(stats) => total.add(&stats),
            Err(violation) => {
                let entry = broken.entry(violation.invariant).or_insert((0, seed, violation.what));
                entry.0 += 1;
            }
        }
        if shown.elapsed().as_secs() >= 10 {
            shown = Instant::now();
            let (done, violations) = (seed + 1 - from, broken.values().map(|entry| entry.0).sum::<u64>());
            eprintln!(
                "{done} of {} seeds, {violations} violations, {:.0} s",
                to - from,
                began.elapsed().as_secs_f64()
            );
        }
    }
    let violations: u64 = broken.values().map(|entry| entry.0).sum();
    println!(
        "n {}, {} weakened {} seeds {from}..{to}: {violations} violations, {:.1} s",
        options.validators,
        if options.weights {
            "weights and liars by chance,".to_owned()
        } else {
            format!("liars {}", options.liars)
        },
        options.weaken.map_or_else(|| "nothing".to_owned(), |rule| format!("{rule:?}")),
        began.elapsed().as_secs_f64()
    );
    for (invariant, (count, seed, what)) in &broken {
        println!("  {invariant}: {count}, first at seed {seed}: {what}");
    }
    println!("  not vacuous: {total:?}");
    let passed = (violations > 0) == arguments.expect_violation;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
