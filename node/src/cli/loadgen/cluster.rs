//! `weft loadgen worker` and `weft loadgen coordinate`: one profile from several machines.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use weft_loadgen::cluster::{CoordinateOptions, Job, Seen, coordinate, serve};
use weft_loadgen::{At, NodeTarget, NullTarget, RunConfig, Schedule, Target, Topology};
use weft_net::Trust;

use super::run::PlayArgs;
use super::target::TargetArgs;
use super::{finish, stop_signal, write_html};
use crate::cli::traffic::{self, seconds, signer};
use crate::cli::{EXIT_FOUND, JsonArg, usage};

/// What `weft loadgen worker --help` says.
pub const WORKER_LONG_ABOUT: &str = "Take part in a run that another machine coordinates.\n\n\
        Connects to the coordinator, answers its questions about the clock, plays its part of the profile, and sends its report. \
        What is sent, where and for how long is the coordinator's to say; threads, signer and key cache are this machine's.\n\n\
        Example: weft loadgen worker --coordinator 10.0.0.1:7290 --generator-threads 8";

/// What `weft loadgen coordinate --help` says.
pub const COORDINATE_LONG_ABOUT: &str = "Coordinate a run of several machines and write one report.\n\n\
        Waits for the workers, estimates the offset of each clock, starts all at the same moment, and merges their histograms count by \
        count. A worker that is lost is named in the report and makes it invalid.\n\n\
        The protocol between coordinator and workers is not authenticated: use it on a network of your own.\n\n\
        Example:\n  \
        weft loadgen coordinate world-20b --target 10.0.0.9:7272 --pin HEX --workers 2 --scale 1e-3 --seconds 60 --json all.json\n  \
        weft loadgen worker --coordinator 10.0.0.1:7290          on each of two machines";

/// Arguments of `weft loadgen worker`.
#[derive(clap::Args, Debug)]
pub struct WorkerArgs {
    /// Where the coordinator listens
    #[arg(long, value_name = "ADDR:PORT")]
    coordinator: SocketAddr,
    /// What this worker is called in reports
    #[arg(long, value_name = "NAME", default_value = "worker")]
    name: String,
    /// Threads that build and sign messages
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    generator_threads: u32,
    /// Derived keys that each of them keeps (112 bytes each)
    #[arg(long, value_name = "COUNT", default_value_t = 65_536)]
    key_cache: usize,
    /// How messages are signed: serial, avx2, avx512, or auto for the fastest here
    #[arg(long, value_name = "NAME", default_value = "auto")]
    signer: String,
    /// Trust on first use: the file that remembers each address's certificate
    #[arg(long, value_name = "FILE", env = "WEFT_KNOWN_NODES")]
    known_nodes: Option<PathBuf>,
    /// Show nothing while the run goes on
    #[arg(long)]
    quiet: bool,
}

/// Runs `weft loadgen worker`.
///
/// # Errors
/// If the coordinator is gone, or the run cannot be made.
pub fn worker(args: &WorkerArgs) -> anyhow::Result<ExitCode> {
    let backend = signer(&args.signer)?;
    let settings = |target: Target| {
        let mut config = RunConfig::new(target);
        config.generator_threads = args.generator_threads;
        config.key_cache_slots = args.key_cache;
        config.signer = backend;
        config.backlog_messages_max = super::run::BACKLOG_MESSAGES_MAX;
        config.about.command_line = Some(super::run::command_line());
        config
    };
    let target = |job: &Job| -> Result<Target, String> {
        let flags = TargetArgs {
            target: job.target.clone(),
            pin: job.pin.clone(),
            known_nodes: args.known_nodes.clone(),
            backend: None,
            data: None,
        };
        flags.resolve().map(|(target, _)| target).map_err(|error| error.to_string())
    };
    let stop = stop_signal()?;
    let report = serve(args.coordinator, &args.name, settings, target, &stop, &mut |progress| {
        if !args.quiet {
            traffic::show(progress);
        }
    })?;
    if !args.quiet {
        traffic::end_progress();
        print!("{}", report.table());
    }
    Ok(if report.valid { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// Arguments of `weft loadgen coordinate`.
#[derive(clap::Args, Debug)]
pub struct CoordinateArgs {
    #[command(flatten)]
    play: PlayArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Workers that take part
    #[arg(long, value_name = "COUNT", default_value_t = 2, help_heading = "Workers")]
    workers: u32,
    /// Where they connect to
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7290", help_heading = "Workers")]
    listen: SocketAddr,
    /// How long they are waited for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, help_heading = "Workers")]
    wait: f64,
    /// Write each worker's own report as DIR/worker-N.json
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    parts: Option<PathBuf>,
    /// Write the report as one self-contained HTML file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Show nothing while the run goes on
    #[arg(long, help_heading = "Output")]
    quiet: bool,
    #[command(flatten)]
    json: JsonArg,
}

/// Runs `weft loadgen coordinate`.
///
/// # Errors
/// If not enough workers come, or none leaves a report.
pub fn coordinator(args: &CoordinateArgs) -> anyhow::Result<ExitCode> {
    // Checks the flags; the target is the workers' to reach and to trust.
    let target = match args.target.target.parse() {
        Ok(addr) => Target::Node(NodeTarget { addr, trust: Trust::InsecureAny, network: None }),
        Err(_) => Target::Null(NullTarget::default()),
    };
    let config = args.play.run_config(RunConfig::new(target))?;
    let world = config.world();
    let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let job = Job {
        profile: world.profile.to_toml()?,
        scale: world.scale,
        speedup: world.speedup,
        at_hour: match world.at {
            At::Mean => None,
            At::Hour(hour) => Some(hour),
        },
        shape: config.shape.to_string(),
        closed: match config.schedule {
            Schedule::Closed { window } => Some(window),
            Schedule::Open { .. } => None,
        },
        warm_up_us: us(config.warm_up),
        duration_us: us(config.duration),
        drain_us: us(config.drain),
        connections: config.connections,
        batch: config.batch_messages,
        seed: config.seed,
        lag_p99_us_max: us(config.lag_p99_max),
        ack_level: config.ack_level.name().to_owned(),
        flush_us: us(config.flush),
        handshakes_per_s: match config.topology {
            Topology::Gateway => None,
            // Of all workers together, as every figure here.
            Topology::Direct { handshakes_per_s } => Some(handshakes_per_s / f64::from(args.workers.max(1))),
        },
        target: args.target.target.clone(),
        pin: args.target.pin.clone(),
        worker: 0,
        workers: args.workers,
    };
    let options = CoordinateOptions { workers: args.workers, wait: seconds("--wait", args.wait)?, job };
    let listener = TcpListener::bind(args.listen)
        .map_err(|error| usage(format!("--listen {}: {error}", args.listen)))?;
    let (mut report, parts) = coordinate(&listener, &options, &mut |seen| {
        if !args.quiet {
            show(seen);
        }
    })?;
    report.command_line = config.about.command_line;
    if let Some(dir) = &args.parts {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        for part in &parts {
            let path = dir.join(format!("worker-{}.json", part.profile.worker));
            let mut bytes = Vec::new();
            part.write_json(&mut bytes)?;
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    write_html(args.html.as_deref(), &report)?;
    finish(&report, &args.json)
}

fn show(seen: &Seen) {
    match seen {
        Seen::Joined { name, offset_us: (offset, wrong), .. } => {
            eprintln!("{name} has joined; its clock is ahead by {offset} us, give or take {wrong}");
        }
        Seen::Started => eprintln!("all are ready; the run begins"),
        Seen::Moment(worker, moment) => eprintln!(
            "worker {worker}: {:>6.1} s  {:>9.0} sent/s  {:>9.0} acked/s  p99 {:.1} ms",
            moment.at_s,
            moment.sent_per_s,
            moment.acked_per_s,
            moment.latency_us.p99 as f64 / 1e3
        ),
        Seen::Done(worker) => eprintln!("worker {worker} is done"),
        Seen::Lost(what) => eprintln!("LOST {what}"),
    }
}
