//! `weft loadgen`: signed device traffic against a running node.

use std::process::ExitCode;

use weft_loadgen::{AuditOptions, NodeTarget, Stop, Target, audit, run as drive};

use super::traffic::{self, TrafficArgs};
use super::{EXIT_FOUND, Globals, JsonArg, PeerArgs, connect, signals};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Send signed device traffic to a node and report what came back, and when.\n\n\
        Closed loop (default) sends as fast as acks come back and finds the throughput. Open loop (--rate) sends when messages are \
        due and finds the latency at that rate, counted from the moment each message was due: a node that stalls is charged for \
        every message that should have been sent meanwhile.\n\n\
        Exits with 1 if the run is marked invalid (the reason is in the report), or if the audit finds a message missing or altered.\n\n\
        Examples:\n  \
        weft loadgen --to 127.0.0.1:7272 --seconds 30 --json run.json\n  \
        weft loadgen --rate 20000 --seconds 30 --hgrm latency.hgrm --audit";

/// Arguments of `weft loadgen`.
#[derive(clap::Args, Debug)]
pub struct LoadgenArgs {
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Afterwards read every acked message back by its id and verify it again
    #[arg(long)]
    audit: bool,
    #[command(flatten)]
    json: JsonArg,
}

/// Runs `weft loadgen`.
///
/// # Errors
/// If the node cannot be reached, or stops answering during the audit.
pub fn run(args: LoadgenArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let target = NodeTarget { addr: args.peer.to, trust: connect::trust(&args.peer)?, network: None };
    let config = args.traffic.run_config(Target::Node(target.clone()), args.audit)?;
    let stop = Stop::new();
    let asked = stop.clone();
    signals::on_stop(move || asked.request())?;
    let outcome = drive(&config, &stop, &mut |progress| traffic::show(progress))?;
    traffic::end_progress();
    traffic::write_hgrm(args.traffic.hgrm.as_deref(), &outcome)?;
    let mut report = outcome.report;
    if let Some(acked) = &outcome.acked {
        let verifier =
            weft_crypto::backend::by_name("auto", &weft_crypto::backend::Options::default())?.verifier;
        let found =
            audit(&target, acked, &AuditOptions::default(), &*verifier, &Stop::new(), &mut |progress| {
                traffic::line_of_progress(&format!(
                    "audit: {} of {} messages checked",
                    progress.checked, progress.total
                ));
            })?;
        traffic::end_progress();
        report.audit = Some(found);
    }
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        print!("{}", report.table());
    }
    let clean = report.audit.as_ref().is_none_or(weft_loadgen::AuditReport::is_clean);
    Ok(if report.valid && clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}
