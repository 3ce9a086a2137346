//! `weft demo`: the whole pipeline in one command, and proof of what it says.
//!
//! A fresh ledger in a temporary directory, a real node on loopback, devices that sign; then the node is stopped, started again on the
//! same directory, and every acknowledged message is read back over the protocol and verified again from its bytes. Nothing is
//! special about this node: it is the one that `weft node` runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;
use weft_gpu::adapter::Selection;
use weft_loadgen::{AuditOptions, NodeTarget, Phase, Report, Stop, Target, audit, run as drive};
use weft_net::Trust;

use super::cluster::loss_percent;
use super::traffic::{self, TrafficArgs};
use super::{EXIT_FOUND, Globals, JsonArg, signals, usage};
use crate::config::Config;
use crate::node::{RunningNode, init_ledger};
use crate::pipeline::devices::DeviceReport;
use crate::stats::cpu_seconds_by_stage;
use crate::units::grouped;
use crate::verifier;

/// What `--help` says.
pub const LONG_ABOUT: &str = "Start a node and devices, show live progress, stop, restart, audit, report.\n\n\
        Uses loopback and a temporary directory, which is removed at the end (--keep DIR keeps it). Nothing needs to be configured.\n\n\
        Exits with 0 only if the run was valid and the audit found every acknowledged message intact.\n\n\
        Examples:\n  \
        weft demo\n  \
        weft demo --seconds 20 --json demo.json\n  \
        weft demo --rate 20000 --seconds 10          latency at a fixed rate\n  \
        weft demo --verifier gpu                     the node verifies on the GPU\n  \
        weft demo --nodes 4 --latency-ms 50          a committee of four processes, far apart";

/// Arguments of `weft demo`.
#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    #[command(flatten)]
    pub(super) traffic: TrafficArgs,
    /// Nodes: 1 runs in this process; more are a cluster of processes, all of which get traffic
    #[arg(long, value_name = "COUNT", default_value_t = 1, help_heading = "Node")]
    nodes: usize,
    /// With several nodes: hold back everything that they send each other for this long, as on long links
    #[arg(long, value_name = "MS", default_value_t = 0, help_heading = "Node")]
    pub(super) latency_ms: u64,
    /// With several nodes: lose this part of the datagrams between them, each by itself, as bad links do: 0 to 90
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = loss_percent, help_heading = "Node")]
    pub(super) loss: f64,
    /// Which signature verifier the node uses
    #[arg(long, value_name = "NAME", env = "WEFT_VERIFIER", default_value = "auto", help_heading = "Node")]
    pub(super) verifier: String,
    /// Which GPU verifies too: auto (the best one; never software), off, or an adapter as in `weft gpu list`
    #[arg(long, value_name = "ADAPTER", env = "WEFT_GPU", default_value = "auto", help_heading = "Node")]
    pub(super) gpu: Selection,
    /// Threads that verify signatures; default: one per core that the generator leaves
    #[arg(long, value_name = "COUNT", help_heading = "Node")]
    verify_threads: Option<usize>,
    /// Keep the ledger in DIR instead of a temporary directory; it must not exist or be empty
    #[arg(long, value_name = "DIR", help_heading = "Node")]
    pub(super) keep: Option<PathBuf>,
    #[command(flatten)]
    pub(super) json: JsonArg,
}

/// The run's report, and what only somebody inside the node's process can know.
#[derive(Serialize)]
struct DemoReport {
    #[serde(flatten)]
    run: Report,
    /// CPU seconds by stage while measuring.
    stage_cpu_s: BTreeMap<String, f64>,
    /// Processor seconds there were: measured time times cores.
    cpu_available_s: f64,
    /// The node's own figures.
    node: NodeFigures,
}

#[derive(Serialize)]
struct NodeFigures {
    verifier: String,
    messages_per_verify_batch: f64,
    messages_per_lane_batch: f64,
    messages_per_sync: f64,
    sync_ms_mean: f64,
    lane_bytes_per_message: f64,
    recovered_messages: u64,
    /// GPUs that took part, with what the guard counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpu: Vec<DeviceReport>,
}

/// Runs `weft demo`.
///
/// # Errors
/// If the node does not start or the audit cannot be made.
pub fn run(args: DemoArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    if args.nodes > 1 {
        return super::demo_cluster::run(&args, args.nodes);
    }
    let scratch = match &args.keep {
        Some(_) => None,
        None => {
            Some(tempfile::Builder::new().prefix("weft-demo-").tempdir().context("no temporary directory")?)
        }
    };
    let data = match (&args.keep, &scratch) {
        (Some(dir), _) => dir.clone(),
        (None, Some(scratch)) => scratch.path().join("ledger"),
        (None, None) => return Err(usage("no directory")),
    };
    let stop = Stop::new();
    let asked = stop.clone();
    signals::on_stop(move || asked.request())?;

    init_ledger(&data, "demo")?;
    let config = Config {
        data: data.clone(),
        listen: "127.0.0.1:0".parse()?,
        name: "demo".to_owned(),
        verifier: args.verifier.clone(),
        gpu: args.gpu.clone(),
        // The generator shares the machine: fewer verifiers with larger batches beat more that wait for a core.
        verify_threads: args.verify_threads.or_else(|| verify_threads(args.traffic.generator_threads)),
        // A demonstration must run on a laptop's nearly full disk too.
        free_space_watermark_bytes: 64 << 20,
        ..Config::default()
    };
    let node = RunningNode::start(&config)?;
    eprintln!(
        "a node of network {} listens on {} (verifier {})",
        node.network(),
        node.address(),
        node.verifier()
    );
    let target = target_of(&node);
    let mut run_config = args.traffic.run_config(Target::Node(target), true)?;
    run_config.about.backend = Some(node.verifier().to_owned());
    run_config.about.data_dir = Some(data.clone());
    let signer = run_config.signer;
    eprintln!(
        "{} devices sign ({signer}) over {} connections; acks mean {:?}",
        run_config.devices, run_config.connections, run_config.ack_level
    );

    let mut stages = StageClock::default();
    let outcome = drive(&run_config, &stop, &mut |progress| {
        stages.observe(progress.phase);
        traffic::show(progress);
    })?;
    traffic::end_progress();
    traffic::write_hgrm(args.traffic.hgrm.as_deref(), &outcome)?;
    let mut figures = figures(&node);
    let stopped = node.stop();
    stopped.durable_size.map_err(|cause| anyhow::anyhow!("the node could not close its log: {cause}"))?;

    eprintln!("the node has stopped; starting it again on the same directory");
    let node = RunningNode::start(&config)?;
    figures.recovered_messages = node.recovered().messages;
    let mut report = outcome.report;
    let acked = outcome.acked.context("the run kept no list of what was acknowledged")?;
    // By the CPU in any case: an audit of a GPU's verdicts must not ask the same GPU.
    let options = weft_crypto::backend::Options::default();
    let verifier = verifier::choose(&args.verifier, &args.gpu, &options)?.cpu;
    let found = audit(
        &target_of(&node),
        &acked,
        &AuditOptions::default(),
        &*verifier,
        &Stop::new(),
        &mut |progress| {
            traffic::line_of_progress(&format!(
                "audit: {} of {} messages checked",
                progress.checked, progress.total
            ));
        },
    )?;
    traffic::end_progress();
    node.stop();
    report.audit = Some(found);

    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let demo = DemoReport {
        cpu_available_s: stages.seconds() * cores,
        stage_cpu_s: stages.difference(),
        run: report,
        node: figures,
    };
    args.json.write(&demo)?;
    if !args.json.on_stdout() {
        print!("{}", demo.run.table());
        print_stages(&demo);
        if args.keep.is_some() {
            println!("the ledger is kept in {}: weft node --data {}", data.display(), data.display());
        }
    }
    let clean = demo.run.audit.as_ref().is_some_and(weft_loadgen::AuditReport::is_clean);
    Ok(if demo.run.valid && clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// The cores that `generators` busy threads leave, at least one.
fn verify_threads(generators: u32) -> Option<usize> {
    let cores = std::thread::available_parallelism().ok()?.get();
    Some(cores.saturating_sub(generators as usize).max(1))
}

fn target_of(node: &RunningNode) -> NodeTarget {
    NodeTarget { addr: node.address(), trust: Trust::Pin(node.fingerprint()), network: Some(node.network()) }
}

fn figures(node: &RunningNode) -> NodeFigures {
    use std::sync::atomic::Ordering::Relaxed;
    let counters = node.counters();
    let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    let accepted = counters.accepted.load(Relaxed);
    NodeFigures {
        verifier: node.verifier().to_owned(),
        messages_per_verify_batch: ratio(
            counters.signatures.load(Relaxed),
            counters.verify_batches.load(Relaxed),
        ),
        messages_per_lane_batch: ratio(accepted, counters.lane_batches.load(Relaxed)),
        messages_per_sync: ratio(accepted, counters.syncs.load(Relaxed)),
        sync_ms_mean: ratio(counters.sync_us.load(Relaxed), counters.syncs.load(Relaxed)) / 1e3,
        lane_bytes_per_message: ratio(counters.lane_bytes.load(Relaxed), accepted),
        recovered_messages: 0,
        gpu: node.devices(),
    }
}

/// CPU time by stage between the first and the last look of the measured time.
#[derive(Default)]
struct StageClock {
    first: Option<(std::time::Instant, BTreeMap<String, f64>)>,
    last: Option<(std::time::Instant, BTreeMap<String, f64>)>,
}

impl StageClock {
    fn observe(&mut self, phase: Phase) {
        if phase == Phase::Measuring {
            let now = (std::time::Instant::now(), cpu_seconds_by_stage());
            self.first.get_or_insert_with(|| now.clone());
            self.last = Some(now);
        }
    }

    fn seconds(&self) -> f64 {
        match (&self.first, &self.last) {
            (Some((first, _)), Some((last, _))) => last.duration_since(*first).as_secs_f64(),
            _ => 0.0,
        }
    }

    fn difference(&self) -> BTreeMap<String, f64> {
        let (Some((_, first)), Some((_, last))) = (&self.first, &self.last) else { return BTreeMap::new() };
        last.iter()
            .map(|(stage, seconds)| (stage.clone(), seconds - first.get(stage).copied().unwrap_or(0.0)))
            .filter(|(_, seconds)| *seconds >= 0.001)
            .collect()
    }
}

fn print_stages(demo: &DemoReport) {
    println!("\ncpu by stage, while measuring ({:.1} processor seconds in all)", demo.cpu_available_s);
    let mut stages: Vec<_> = demo.stage_cpu_s.iter().collect();
    stages.sort_by(|a, b| b.1.total_cmp(a.1));
    for (stage, seconds) in stages {
        println!(
            "  {stage:<16} {seconds:>8.2} s  {:>5.1} %",
            100.0 * seconds / demo.cpu_available_s.max(1e-9)
        );
    }
    let node = &demo.node;
    println!(
        "batches: {:.0} signatures a verification, {:.0} messages a lane batch, {:.0} a sync of {:.2} ms; {:.0} bytes of log a message",
        node.messages_per_verify_batch,
        node.messages_per_lane_batch,
        node.messages_per_sync,
        node.sync_ms_mean,
        node.lane_bytes_per_message
    );
    for gpu in &node.gpu {
        println!(
            "gpu {}: {}, {} signatures in {} batches, {} checked again on the CPU, {} wrong; {} verified on the CPU in its place{}",
            gpu.adapter,
            gpu.state,
            grouped(gpu.signatures),
            grouped(gpu.batches),
            grouped(gpu.rejections_checked + gpu.sampled),
            gpu.mismatches,
            grouped(gpu.fallback_signatures),
            gpu.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
        );
    }
}
