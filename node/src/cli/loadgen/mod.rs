//! `weft loadgen`: signed device traffic against a running node, and what belongs to it.
//!
//! Owns the tree of its commands and the plain form without one (equal devices, closed loop or a constant rate). The commands are in
//! their own files; what they do is in `weft-loadgen`.

pub mod cluster;
pub mod compare;
pub mod find_max;
pub mod live;
pub mod prepare;
pub mod profiles;
pub mod run;
pub mod target;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use weft_loadgen::{
    AuditOptions, AuditReport, NodeTarget, Outcome, Report, Stop, Target, audit, run as drive,
};

use super::traffic::{self, TrafficArgs};
use super::{EXIT_FOUND, Globals, JsonArg, PeerArgs, connect, signals};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Send signed device traffic to a node and report what came back, and when.\n\n\
        With `run` a profile is played: classes of devices with published arrival models, up to 20 billion of them. Without a command \
        the devices are equal: closed loop (default) sends as fast as acks come back and finds the throughput; open loop (--rate) \
        sends when messages are due and finds the latency at that rate, counted from the moment each message was due: a node that \
        stalls is charged for every message that should have been sent meanwhile.\n\n\
        Exits with 1 if the run is marked invalid (the reason is in the report), or if the audit finds a message missing or altered or cannot be finished.\n\n\
        Examples:\n  \
        weft loadgen run world-20b --target 127.0.0.1:7272 --scale 1e-3 --seconds 60 --html report.html\n  \
        weft loadgen profiles list\n  \
        weft loadgen --to 127.0.0.1:7272 --seconds 30 --json run.json\n  \
        weft loadgen --rate 20000 --seconds 30 --hgrm latency.hgrm --audit";

/// Arguments of `weft loadgen`.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LoadgenArgs {
    #[command(subcommand)]
    command: Option<LoadgenCommand>,
    #[command(flatten)]
    plain: PlainArgs,
}

/// The commands.
#[derive(clap::Subcommand, Debug)]
pub enum LoadgenCommand {
    /// Play a profile against a node, or against nothing to measure the generator
    #[command(long_about = run::LONG_ABOUT)]
    Run(Box<run::RunArgs>),
    /// The profiles that come with weft, and those you write
    #[command(subcommand)]
    Profiles(profiles::ProfilesCommand),
    /// Sign the messages of a run before it
    #[command(long_about = prepare::LONG_ABOUT)]
    Prepare(Box<prepare::PrepareArgs>),
    /// Take part in a run that another machine coordinates
    #[command(long_about = cluster::WORKER_LONG_ABOUT)]
    Worker(cluster::WorkerArgs),
    /// Coordinate a run of several machines and write one report
    #[command(long_about = cluster::COORDINATE_LONG_ABOUT)]
    Coordinate(Box<cluster::CoordinateArgs>),
    /// Compare two reports, with a test of whether they differ
    #[command(long_about = compare::LONG_ABOUT)]
    Compare(compare::CompareArgs),
}

/// Equal devices.
#[derive(clap::Args, Debug)]
pub struct PlainArgs {
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Afterwards read every acked message back by its id and verify it again
    #[arg(long)]
    audit: bool,
    /// Write the report as one self-contained HTML file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<std::path::PathBuf>,
    #[command(flatten)]
    json: JsonArg,
}

/// Runs `weft loadgen`.
///
/// # Errors
/// If the node cannot be reached.
pub fn run(args: LoadgenArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    match args.command {
        None => plain(args.plain),
        Some(LoadgenCommand::Run(args)) => run::run(*args, globals),
        Some(LoadgenCommand::Profiles(command)) => profiles::run(command),
        Some(LoadgenCommand::Prepare(args)) => prepare::run(&args),
        Some(LoadgenCommand::Worker(args)) => cluster::worker(&args),
        Some(LoadgenCommand::Coordinate(args)) => cluster::coordinator(&args),
        Some(LoadgenCommand::Compare(args)) => compare::run(&args),
    }
}

fn plain(args: PlainArgs) -> anyhow::Result<ExitCode> {
    let target = NodeTarget { addr: args.peer.to, trust: connect::trust(&args.peer)?, network: None };
    let config = args.traffic.run_config(Target::Node(target.clone()), args.audit)?;
    let stop = stop_signal()?;
    let outcome = drive(&config, &stop, &mut |progress| traffic::show(progress))?;
    traffic::end_progress();
    traffic::write_hgrm(args.traffic.hgrm.as_deref(), &outcome)?;
    let report = audited(outcome, Some(&target), &AuditOptions::default(), &stop, false)?;
    write_html(args.html.as_deref(), &report)?;
    finish(&report, &args.json)
}

/// A stop signal that Ctrl-C and SIGTERM give.
fn stop_signal() -> anyhow::Result<Stop> {
    let stop = Stop::new();
    let asked = stop.clone();
    signals::on_stop(move || asked.request())?;
    Ok(stop)
}

/// The report of a run, with the audit if the run kept what it needs. An audit that fails is part of the report: the run was made, and its
/// figures stand. `stop` is the run's.
fn audited(
    outcome: Outcome,
    target: Option<&NodeTarget>,
    options: &AuditOptions,
    stop: &Stop,
    quiet: bool,
) -> anyhow::Result<Report> {
    let mut report = outcome.report;
    if let (Some(acked), Some(target)) = (&outcome.acked, target) {
        let verifier =
            weft_crypto::backend::by_name("auto", &weft_crypto::backend::Options::default())?.verifier;
        let show = &mut |progress: &weft_loadgen::AuditProgress| {
            if !quiet {
                traffic::line_of_progress(&format!(
                    "audit: {} of {} messages checked",
                    progress.checked, progress.total
                ));
            }
        };
        // A signal that ended the run is not meant for the audit of what was acked until then; any other stops the audit.
        let stop = if report.stopped { Stop::new() } else { stop.clone() };
        let found = audit(target, acked, options, &*verifier, &stop, show);
        report.audit = Some(found.unwrap_or_else(|error| AuditReport::failed(acked.messages(), &error)));
        if !quiet {
            traffic::end_progress();
        }
    }
    Ok(report)
}

/// Writes the report as HTML where the flag says.
fn write_html(path: Option<&Path>, report: &Report) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, report.html()).with_context(|| format!("cannot write {}", path.display()))
}

/// JSON, table and exit code of a report.
fn finish(report: &Report, json: &JsonArg) -> anyhow::Result<ExitCode> {
    json.write(report)?;
    if !json.on_stdout() {
        print!("{}", report.table());
    }
    let clean = report.audit.as_ref().is_none_or(AuditReport::is_clean);
    Ok(if report.valid && clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}
