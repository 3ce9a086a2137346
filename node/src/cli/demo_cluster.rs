//! `weft demo --nodes N`: a cluster on this machine, traffic to every node of it, and proof at every node.
//!
//! Owns the order of such a run: directories, processes, load on all nodes at once, two probes that ask for higher levels, stop, restart,
//! and an audit in which every node is asked for what any node has acknowledged. The traffic of each node is a run of the generator of its
//! own; sums and merged histograms are made here, nothing else is.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use weft_core::NetworkId;
use weft_crypto::BatchVerifier;
use weft_loadgen::{
    AuditOptions, AuditReport, Outcome, Phase, Progress, Report, RunConfig, Schedule, Stop, Target, audit,
    run as drive,
};
use weft_net::AckLevel;

use super::cluster::{Watch, link_arguments};
use super::demo::DemoArgs;
use super::{EXIT_FOUND, signals, traffic, usage};
use crate::cluster::{self, Member, NewCluster};
use crate::units::grouped;
use crate::verifier;

/// Messages a second of each probe: enough for a percentile, too few to be felt.
const PROBE_RATE_PER_S: f64 = 20.0;

/// How long a started cluster may take until every node is live, and after a restart until every node holds every lane.
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// What the run found.
#[derive(Serialize)]
struct ClusterReport {
    nodes: usize,
    latency_ms: u64,
    loss_percent: f64,
    valid: bool,
    /// Messages acked per second, over all nodes.
    throughput_msgs_per_s: f64,
    /// Due to acked, over all nodes.
    latency: Latency,
    /// What became certified and final at node 0, over all lanes, while measuring. In positions: messages, and one header a batch.
    confirmed: Confirmed,
    /// One message at a time asked for at a higher level, beside the load, at node 0.
    probes: Vec<Probe>,
    /// The run at each node.
    runs: Vec<Report>,
    /// What each node has of what was acknowledged, after all were stopped and started again.
    audits: Vec<NodeAudit>,
}

#[derive(Serialize)]
struct Latency {
    messages: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Confirmed {
    certified_positions_per_s: f64,
    final_positions_per_s: f64,
    /// Most that was durable at the nodes of the lanes and not yet final at node 0.
    not_final_positions_max: u64,
}

#[derive(Serialize)]
struct Probe {
    level: String,
    #[serde(flatten)]
    latency: Latency,
}

#[derive(Serialize)]
struct NodeAudit {
    /// The node that was asked.
    node: usize,
    /// The node that had acknowledged.
    acked_by: usize,
    found: AuditReport,
}

/// Runs the demonstration of a cluster.
///
/// # Errors
/// If a node does not start, a run cannot be made, or the audit cannot.
pub fn run(args: &DemoArgs, nodes: usize) -> anyhow::Result<ExitCode> {
    if nodes > cluster::NODES_MAX {
        return Err(usage(format!("--nodes: got {nodes}, need 1 to {}", cluster::NODES_MAX)));
    }
    let scratch = match &args.keep {
        Some(_) => None,
        None => {
            Some(tempfile::Builder::new().prefix("weft-demo-").tempdir().context("no temporary directory")?)
        }
    };
    let dir = match (&args.keep, &scratch) {
        (Some(dir), _) => dir.clone(),
        (None, Some(scratch)) => scratch.path().join("cluster"),
        (None, None) => bail!("no directory"),
    };
    let stop = Stop::new();
    let asked = stop.clone();
    signals::on_stop(move || asked.request())?;
    let mut new = NewCluster { base_port: 0, name: "demo".to_owned(), ..NewCluster::new(nodes) };
    new.settings.push(format!("verifier = \"{}\"", args.verifier));
    new.settings.push(format!("gpu = \"{}\"", args.gpu));
    let genesis = cluster::create(&dir, &new)?;
    let network = genesis.network()?;
    let binary = std::env::current_exe().context("this program's own path is not known")?;
    let arguments = link_arguments(args.latency_ms, args.loss);
    let mut members = cluster::start_all(&binary, &dir, &arguments)?;
    eprintln!("{nodes} nodes of network {network} run, {}", link(args.latency_ms, args.loss));
    let mut looker = Looker::new(nodes)?;
    looker.wait_until(&mut members, "every node is live", &stop, |answers| {
        answers.iter().flatten().filter(|status| status.state == weft_net::NodeState::Live).count() == nodes
    })?;
    let Loaded { runs, probes, confirmed } = load(args, &members, network, &stop)?;
    traffic::end_progress();
    looker.close();
    cluster::stop_all(&mut members)?;

    eprintln!("all nodes have stopped; starting them again on the same directories");
    members = cluster::start_all(&binary, &dir, &arguments)?;
    let mut looker = Looker::new(nodes)?;
    looker.wait_until(&mut members, "every node holds every lane", &stop, |answers| {
        holds_all(answers, nodes)
    })?;
    looker.close();
    let options = weft_crypto::backend::Options::default();
    let verifier = verifier::choose(&args.verifier, &args.gpu, &options)?.cpu;
    let audits = audit_all(&members, network, &runs, &*verifier, &stop)?;
    cluster::stop_all(&mut members)?;

    let report = report(args, nodes, Loaded { runs, probes, confirmed }, audits)?;
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        print(&report, args.keep.as_deref());
    }
    let clean = report.audits.iter().all(|audit| audit.found.is_clean());
    Ok(if report.valid && clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// How much of a lane its own node has durably; `None` if that does not answer.
fn own_size(answers: &[Option<weft_net::Status>], lane: usize) -> Option<u64> {
    size_at(answers.get(lane)?.as_ref()?, lane)
}

fn size_at(status: &weft_net::Status, lane: usize) -> Option<u64> {
    status.lanes.iter().find(|found| usize::from(found.lane.0) == lane).map(|found| found.durable)
}

/// Whether every node holds of every lane what its own node has.
fn holds_all(answers: &[Option<weft_net::Status>], nodes: usize) -> bool {
    (0..nodes).all(|lane| {
        let own = own_size(answers, lane);
        let holds = |answer: &Option<weft_net::Status>| {
            answer.as_ref().and_then(|status| size_at(status, lane)) >= own
        };
        own.is_some() && answers.iter().all(holds)
    })
}

/// Asks all nodes how they are.
struct Looker {
    runtime: tokio::runtime::Runtime,
    watch: Watch,
}

impl Looker {
    fn new(nodes: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, watch: Watch::new(nodes) })
    }

    fn wait_until(
        &mut self,
        members: &mut [Member],
        what: &str,
        stop: &Stop,
        holds: impl Fn(&[Option<weft_net::Status>]) -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + SETTLE_WITHIN;
        loop {
            let answers = self.runtime.block_on(self.watch.look(members));
            if holds(&answers) {
                return Ok(());
            }
            if let Some(member) = members.iter_mut().find_map(|member| member.ended().map(|_| member.number))
            {
                bail!("node {member} has ended");
            }
            if stop.is_requested() || Instant::now() > until {
                bail!("waited for: {what}; it is not so after {} s", SETTLE_WITHIN.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn close(&mut self) {
        self.runtime.block_on(self.watch.close());
    }
}

/// What the load left.
struct Loaded {
    /// By node.
    runs: Vec<Outcome>,
    probes: Vec<(AckLevel, Outcome)>,
    confirmed: Confirmed,
}

/// Watermarks of all lanes, summed, at one moment.
#[derive(Clone, Copy, Debug)]
struct Marks {
    at: Instant,
    certified: u64,
    final_size: u64,
}

/// Looks at the watermarks each second until `done`; what they did while the runs were measuring.
fn watch_marks(
    members: &[Member],
    shown: &Mutex<Vec<Option<Shown>>>,
    done: &AtomicBool,
) -> anyhow::Result<Confirmed> {
    let mut looker = Looker::new(members.len())?;
    let (mut first, mut last): (Option<Marks>, Option<Marks>) = (None, None);
    let mut not_final_positions_max = 0;
    while !done.load(Ordering::Acquire) {
        let answers = looker.runtime.block_on(looker.watch.look(members));
        let measuring = {
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.iter().all(|run| run.is_some_and(|run| run.0 == Phase::Measuring))
        };
        if let (true, Some(Some(status))) = (measuring, answers.first()) {
            let sum = |of: fn(&weft_net::LaneStatus) -> u64| status.lanes.iter().map(of).sum::<u64>();
            let marks = Marks {
                at: Instant::now(),
                certified: sum(|lane| lane.certified),
                final_size: sum(|lane| lane.final_size),
            };
            let durable: u64 = (0..members.len()).filter_map(|lane| own_size(&answers, lane)).sum();
            not_final_positions_max = not_final_positions_max.max(durable.saturating_sub(marks.final_size));
            first.get_or_insert(marks);
            last = Some(marks);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    looker.close();
    let (Some(first), Some(last)) = (first, last) else { return Ok(Confirmed::default()) };
    let seconds = last.at.duration_since(first.at).as_secs_f64().max(1e-3);
    Ok(Confirmed {
        certified_positions_per_s: (last.certified - first.certified) as f64 / seconds,
        final_positions_per_s: (last.final_size - first.final_size) as f64 / seconds,
        not_final_positions_max,
    })
}

/// Drives all nodes at once.
fn load(args: &DemoArgs, members: &[Member], network: NetworkId, stop: &Stop) -> anyhow::Result<Loaded> {
    let mut configs = Vec::new();
    for member in members {
        let mut config = args.traffic.run_config(Target::Node(member.target(network)), true)?;
        // Populations of their own: two nodes must not be given one message.
        config.seed += member.number as u64;
        if let Schedule::Open { rate_per_s } = &mut config.schedule {
            *rate_per_s /= members.len() as f64;
        }
        configs.push(config);
    }
    let probes = [AckLevel::Certified, AckLevel::Final].map(|level| (level, probe(&configs[0], level)));
    let shown = Mutex::new(vec![None; configs.len()]);
    let done = AtomicBool::new(false);
    let drive_one = |config: &RunConfig, index: Option<usize>| {
        drive(config, stop, &mut |progress| {
            if let Some(index) = index {
                show(&shown, index, progress);
            }
        })
    };
    std::thread::scope(|scope| -> anyhow::Result<_> {
        let (drive_one, shown, done) = (&drive_one, &shown, &done);
        let marks = scope.spawn(move || watch_marks(members, shown, done));
        let runs: Vec<_> = configs
            .iter()
            .enumerate()
            .map(|(index, config)| scope.spawn(move || drive_one(config, Some(index))))
            .collect();
        let probing: Vec<_> = probes
            .iter()
            .map(|(level, config)| (*level, scope.spawn(move || drive_one(config, None))))
            .collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Result<Outcome, weft_loadgen::LoadError>>| {
            thread.join().unwrap_or(Err(weft_loadgen::LoadError::Internal { what: "a run panicked" }))
        };
        let runs: Vec<_> = runs.into_iter().map(joined).collect();
        let probes: Vec<_> = probing.into_iter().map(|(level, thread)| (level, joined(thread))).collect();
        // Before any error: the scope waits for this thread.
        done.store(true, Ordering::Release);
        let confirmed = marks.join().unwrap_or_else(|_| bail!("the look at the watermarks panicked"))?;
        let mut probed = Vec::new();
        for (level, outcome) in probes {
            probed.push((level, outcome?));
        }
        Ok(Loaded { runs: runs.into_iter().collect::<Result<_, _>>()?, probes: probed, confirmed })
    })
}

/// A few messages at a higher level, beside the load.
fn probe(load: &RunConfig, level: AckLevel) -> RunConfig {
    let mut config = load.clone();
    config.schedule = Schedule::Open { rate_per_s: PROBE_RATE_PER_S };
    (config.connections, config.batch_messages, config.devices) = (1, 1, 100);
    config.seed = load.seed + 1_000 + level as u64;
    config.ack_level = level;
    config.audit = false;
    config
}

/// Of one run: its phase, acked per second, acked and refused so far.
type Shown = (Phase, f64, u64, u64);

/// One line for all runs.
fn show(shown: &Mutex<Vec<Option<Shown>>>, index: usize, progress: &Progress) {
    let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
    shown[index] = Some((progress.phase, progress.acked_per_s, progress.acked, progress.rejected));
    if index > 0 {
        return;
    }
    let sum = |of: fn(&Shown) -> f64| shown.iter().flatten().map(of).sum::<f64>() as u64;
    let phase = match progress.phase {
        Phase::WarmUp => "warm-up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    };
    traffic::line_of_progress(&format!(
        "{:>5.0} s  {phase:<9}  {:>9} acked/s  {:>11} acked  {} refused, over {} nodes",
        progress.elapsed.as_secs_f64(),
        grouped(sum(|run| run.1)),
        grouped(sum(|run| run.2 as f64)),
        grouped(sum(|run| run.3 as f64)),
        shown.len()
    ));
}

fn audit_all(
    members: &[Member],
    network: NetworkId,
    runs: &[Outcome],
    verifier: &dyn BatchVerifier,
    stop: &Stop,
) -> anyhow::Result<Vec<NodeAudit>> {
    let mut audits = Vec::new();
    for member in members {
        for (acked_by, outcome) in runs.iter().enumerate() {
            let acked = outcome.acked.as_ref().context("a run kept no list of what was acknowledged")?;
            let found = audit(
                &member.target(network),
                acked,
                &AuditOptions::default(),
                verifier,
                stop,
                &mut |progress| {
                    traffic::line_of_progress(&format!(
                        "audit at node {} of what node {acked_by} acked: {} of {}",
                        member.number, progress.checked, progress.total
                    ));
                },
            )?;
            audits.push(NodeAudit { node: member.number, acked_by, found });
        }
    }
    traffic::end_progress();
    Ok(audits)
}

fn report(
    args: &DemoArgs,
    nodes: usize,
    loaded: Loaded,
    audits: Vec<NodeAudit>,
) -> anyhow::Result<ClusterReport> {
    let Loaded { runs, probes, confirmed } = loaded;
    let latency = |outcomes: &mut dyn Iterator<Item = &Outcome>| -> anyhow::Result<Latency> {
        let first = outcomes.next().context("no run")?;
        let mut all = first.meter.latency.clone();
        for outcome in outcomes {
            all.add(&outcome.meter.latency).map_err(|error| anyhow::anyhow!("histograms: {error}"))?;
        }
        Ok(Latency {
            messages: all.len(),
            p50_us: all.value_at_quantile(0.5),
            p99_us: all.value_at_quantile(0.99),
            max_us: all.max(),
        })
    };
    let mut probed = Vec::new();
    for (level, outcome) in &probes {
        probed.push(Probe { level: level.to_string(), latency: latency(&mut std::iter::once(outcome))? });
    }
    Ok(ClusterReport {
        nodes,
        latency_ms: args.latency_ms,
        loss_percent: args.loss,
        valid: runs.iter().all(|run| run.report.valid),
        throughput_msgs_per_s: runs.iter().map(|run| run.report.throughput_msgs_per_s).sum(),
        latency: latency(&mut runs.iter())?,
        confirmed,
        probes: probed,
        runs: runs.into_iter().map(|run| run.report).collect(),
        audits,
    })
}

/// The links between nodes, in words.
fn link(latency_ms: u64, loss_percent: f64) -> String {
    let loss = if loss_percent > 0.0 { format!(", {loss_percent} % lost") } else { String::new() };
    format!("{latency_ms} ms apart{loss}")
}

fn print(report: &ClusterReport, kept: Option<&Path>) {
    let ms = |us: u64| us as f64 / 1e3;
    println!("{} nodes, {}", report.nodes, link(report.latency_ms, report.loss_percent));
    for (number, run) in report.runs.iter().enumerate() {
        let valid = run.invalid_reason.as_ref().map_or_else(String::new, |why| format!("  NOT VALID: {why}"));
        println!(
            "  node {number}      {:>9} messages/s acked {}, {} refused{valid}",
            grouped(run.throughput_msgs_per_s as u64),
            run.ack_level,
            grouped(run.rejected_total)
        );
    }
    let latency = &report.latency;
    println!(
        "  together    {:>9} messages/s; p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        grouped(report.throughput_msgs_per_s as u64),
        ms(latency.p50_us),
        ms(latency.p99_us),
        ms(latency.max_us)
    );
    let confirmed = &report.confirmed;
    println!(
        "  confirmed   {:>9} positions/s certified, {} final, at node 0 over all lanes; at most {} not final",
        grouped(confirmed.certified_positions_per_s as u64),
        grouped(confirmed.final_positions_per_s as u64),
        grouped(confirmed.not_final_positions_max)
    );
    for probe in &report.probes {
        let latency = &probe.latency;
        println!(
            "  {:<10}  p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms of {} messages at node 0, beside the load",
            probe.level,
            ms(latency.p50_us),
            ms(latency.p99_us),
            ms(latency.max_us),
            latency.messages
        );
    }
    for node in 0..report.nodes {
        let of_node = || report.audits.iter().filter(|audit| audit.node == node);
        let sum = |of: fn(&AuditReport) -> u64| of_node().map(|audit| of(&audit.found)).sum::<u64>();
        println!(
            "  audit at {node}  {} of {} acked messages of all nodes read back and verified, {} missing, {} invalid",
            grouped(sum(|found| found.checked)),
            grouped(sum(|found| found.total)),
            sum(|found| found.missing),
            sum(|found| found.invalid)
        );
        for failure in of_node().flat_map(|audit| &audit.found.failures) {
            println!("    {failure}");
        }
    }
    if let Some(dir) = kept {
        println!("the cluster is kept in {}: weft cluster up --data {}", dir.display(), dir.display());
    }
}
