//! `weft cluster`: several nodes on one machine.
//!
//! Owns the line of figures that `up` prints each second and the order of the end. Directories and processes are
//! [`crate::cluster`]'s.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use weft_net::frame::{NodeState, Status};
use weft_net::{AckLevel, Client, ClientConfig, Session, SessionOptions, Trust};

use super::{EXIT_FOUND, signals, usage};
use crate::cluster::{self, Member, NewCluster};
use crate::config::LOSS_PERCENT_MAX;
use crate::units::grouped;

/// How often `up` looks at its nodes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a node may take to answer a look.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);

/// The commands under `weft cluster`.
#[derive(clap::Subcommand, Debug)]
pub enum ClusterCommand {
    /// Make the directories of a cluster: genesis, keys, settings
    #[command(
        long_about = "Make the directories of a cluster: DIR/genesis.bin, and DIR/node-N with key and settings of each node. \
            Each node can then be run with `weft node --data DIR/node-N`, or all of them with `weft cluster up`.\n\n\
            Example:\n  weft cluster init --nodes 4 --data ./cluster"
    )]
    Init(ClusterInitArgs),
    /// Run a cluster until Ctrl-C: one process a node, one line of figures a second
    #[command(
        long_about = "Run a cluster until SIGINT or SIGTERM: one process a node, logs in DIR/node-N.log, one line of figures a \
            second. Where DIR holds no cluster one is made. A node that ends by itself is reported and not started again.\n\n\
            Examples:\n  \
            weft cluster up --nodes 4\n  \
            weft cluster up --nodes 4 --latency-ms 50 --loss 1 --data ./far-apart"
    )]
    Up(ClusterUpArgs),
}

/// What `init` and a first `up` make.
#[derive(clap::Args, Clone, Debug)]
pub struct ClusterShape {
    /// Nodes, all validators of weight 1: 4 bear one that fails or lies
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    nodes: usize,
    /// Directory of the cluster
    #[arg(long, value_name = "DIR", default_value = "weft-cluster")]
    data: PathBuf,
    /// First port; node N has this + 10 N for clients, the next one for peers, the one after that for HTTP. 0 takes free ones
    #[arg(long, value_name = "PORT", default_value_t = 7300)]
    base_port: u16,
}

/// Arguments of `weft cluster init`.
#[derive(clap::Args, Debug)]
pub struct ClusterInitArgs {
    #[command(flatten)]
    shape: ClusterShape,
    /// What an account begins with
    #[arg(long = "balance", value_name = "KEY=AMOUNT")]
    balances: Vec<String>,
}

/// Arguments of `weft cluster up`.
#[derive(clap::Args, Debug)]
pub struct ClusterUpArgs {
    #[command(flatten)]
    shape: ClusterShape,
    /// Hold back everything that nodes send each other for this long, as on long links
    #[arg(long, value_name = "MS", default_value_t = 0)]
    latency_ms: u64,
    /// Lose this part of the datagrams between nodes, each by itself, as bad links do: 0 to 90
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = loss_percent)]
    loss: f64,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Runs `weft cluster init` or `weft cluster up`.
///
/// # Errors
/// If a cluster cannot be made, or a node does not start.
pub fn run(command: ClusterCommand) -> anyhow::Result<ExitCode> {
    match command {
        ClusterCommand::Init(args) => {
            if cluster::nodes_in(&args.shape.data) > 0 {
                return Err(usage(format!("{} holds a cluster already", args.shape.data.display())));
            }
            let balances = super::genesis::balances(&args.balances)?;
            make(&args.shape, balances)?;
            println!("next: weft cluster up --data {}", args.shape.data.display());
            Ok(ExitCode::SUCCESS)
        }
        ClusterCommand::Up(args) => up(&args),
    }
}

/// Reads `--loss`.
pub(super) fn loss_percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| (0.0..=LOSS_PERCENT_MAX).contains(percent));
    percent.ok_or_else(|| format!("a number from 0 to {LOSS_PERCENT_MAX}"))
}

/// What nodes are told about the links between them.
pub(super) fn link_arguments(latency_ms: u64, loss_percent: f64) -> Vec<String> {
    vec![format!("--peer-latency-ms={latency_ms}ms"), format!("--peer-loss={loss_percent}")]
}

fn make(shape: &ClusterShape, balances: Vec<weft_core::Balance>) -> anyhow::Result<()> {
    if !(1..=cluster::NODES_MAX).contains(&shape.nodes) {
        return Err(usage(format!("--nodes: got {}, need 1 to {}", shape.nodes, cluster::NODES_MAX)));
    }
    let new = NewCluster { base_port: shape.base_port, balances, ..NewCluster::new(shape.nodes) };
    let genesis = cluster::create(&shape.data, &new)?;
    println!(
        "a cluster of {} nodes in {}, network {}",
        shape.nodes,
        shape.data.display(),
        genesis.network()?
    );
    Ok(())
}

fn up(args: &ClusterUpArgs) -> anyhow::Result<ExitCode> {
    let dir = &args.shape.data;
    match cluster::nodes_in(dir) {
        0 => make(&args.shape, Vec::new())?,
        nodes => println!("the cluster of {nodes} nodes in {}", dir.display()),
    }
    let (ask, asked) = channel();
    signals::on_stop(move || {
        let _ = ask.send(());
    })?;
    let binary = std::env::current_exe().context("this program's own path is not known")?;
    let arguments = link_arguments(args.latency_ms, args.loss);
    let mut members = cluster::start_all(&binary, dir, &arguments)?;
    for member in &members {
        println!(
            "  node-{}  process {}  listens on {}  certificate {}",
            member.number,
            member.process_id(),
            member.address,
            member.fingerprint
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut watch = Watch::new(members.len());
    let since = Instant::now();
    let mut all_well = true;
    let mut ended = vec![false; members.len()];
    loop {
        match asked.recv_timeout(LOOK_EVERY) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        for (member, ended) in members.iter_mut().zip(&mut ended) {
            if let Some(status) = member.ended().filter(|_| !*ended) {
                (*ended, all_well) = (true, false);
                eprintln!(
                    "node-{} has ended: {status}; see {}",
                    member.number,
                    cluster::log_file(dir, member.number).display()
                );
            }
        }
        println!("{}", runtime.block_on(watch.line(&members, since.elapsed())));
        if args.seconds.is_some_and(|seconds| since.elapsed() >= Duration::from_secs(seconds)) {
            break;
        }
    }
    eprintln!("stopping");
    runtime.block_on(watch.close());
    let running = ended.iter().zip(members.drain(..)).filter(|(ended, _)| !**ended).map(|(_, member)| member);
    let mut running: Vec<Member> = running.collect();
    cluster::stop_all(&mut running)?;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// A session with each node, to ask how it is.
pub(super) struct Watch {
    sessions: Vec<Option<(Client, Session)>>,
    /// Messages accepted and size final of the own lane, at the look before.
    before: Vec<(u64, u64)>,
    at: Instant,
}

impl Watch {
    pub(super) fn new(nodes: usize) -> Self {
        Self { sessions: (0..nodes).map(|_| None).collect(), before: vec![(0, 0); nodes], at: Instant::now() }
    }

    /// How each node is; `None` for one that does not answer.
    pub(super) async fn look(&mut self, members: &[Member]) -> Vec<Option<Status>> {
        let mut answers = Vec::with_capacity(members.len());
        for (session, member) in self.sessions.iter_mut().zip(members) {
            let ask = async {
                if session.is_none() {
                    *session = open(member).await;
                }
                session.as_ref()?.1.status().await.ok()
            };
            let answer = tokio::time::timeout(ANSWER_WITHIN, ask).await.ok().flatten();
            if answer.is_none() {
                *session = None;
            }
            answers.push(answer);
        }
        answers
    }

    /// Per node the size of its lane and how much of it is not final there; then what all took and made final in a second.
    async fn line(&mut self, members: &[Member], elapsed: Duration) -> String {
        let answers = self.look(members).await;
        let seconds = self.at.elapsed().as_secs_f64().max(1e-3);
        self.at = Instant::now();
        let mut line = format!("{:>5.0} s", elapsed.as_secs_f64());
        let (mut accepted, mut final_positions) = (0, 0);
        for (number, (answer, before)) in answers.iter().zip(&mut self.before).enumerate() {
            let Some(status) = answer else {
                let _ = write!(line, "  {number}: down");
                continue;
            };
            let own = status.lanes.iter().find(|lane| usize::from(lane.lane.0) == number);
            let (durable, final_size) = own.map_or((0, 0), |lane| (lane.durable, lane.final_size));
            // A node that was started again counts from 0.
            accepted += status.accepted_total.saturating_sub(before.0);
            final_positions += final_size.saturating_sub(before.1);
            *before = (status.accepted_total, final_size);
            let _ = write!(
                line,
                "  {number}: {} (+{})",
                grouped(final_size),
                grouped(durable - durable.min(final_size))
            );
            if status.state != NodeState::Live {
                let _ = write!(line, " {}", status.state);
            }
        }
        let rate = |count: u64| grouped((count as f64 / seconds) as u64);
        let _ = write!(line, "  {} accepted/s  {} final/s", rate(accepted), rate(final_positions));
        line
    }

    pub(super) async fn close(&mut self) {
        for (client, _) in self.sessions.iter_mut().filter_map(Option::take) {
            client.close().await;
        }
    }
}

async fn open(member: &Member) -> Option<(Client, Session)> {
    let config = ClientConfig::new(member.address, Trust::Pin(member.fingerprint));
    let client = Client::connect(config).await.ok()?;
    let options = SessionOptions { ack_level: AckLevel::Durable, ..SessionOptions::default() };
    let session = client.open_session(options).await.ok()?;
    Some((client, session))
}
