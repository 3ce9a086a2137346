//! `weft loadgen run PROFILE`: plays a profile against a node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use weft_loadgen::pool::Pool;
use weft_loadgen::search::Objective;
use weft_loadgen::{At, AuditOptions, RunConfig, Schedule, Shape, Topology, Trace, World, run as drive};
use weft_net::AckLevel;

use super::live::View;
use super::target::TargetArgs;
use super::{audited, find_max, finish, profiles, stop_signal, write_html};
use crate::cli::traffic::{self, seconds, signer};
use crate::cli::{Globals, JsonArg, usage};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Play a profile against a node, or against nothing to measure the generator.\n\n\
        Events fall due by the profile's arrival models, whatever the node does, and latency counts from the moment each was due. \
        --scale takes a sample of the population and keeps its shape; --speedup lets its time pass faster (a day in ten minutes: \
        --speedup 144 --at 0); without --at rates are those of the mean day.\n\n\
        The run is marked invalid, and the command exits with 1, if the generator fell behind: the reason names what was short.\n\n\
        Examples:\n  \
        weft loadgen run world-20b --target 127.0.0.1:7272 --scale 1e-3 --seconds 60 --json run.json --html run.html\n  \
        weft loadgen run outage-10m-city --target 127.0.0.1:7272 --scale 0.01 --seconds 30\n  \
        weft loadgen run world-20b --target 127.0.0.1:7272 --scale 1e-5 --speedup 144 --at 0 --seconds 600\n  \
        weft loadgen run world-20b --target 127.0.0.1:7272 --find-max 'p99<=50ms' --seconds 5\n  \
        weft loadgen run reconnect-storm --target 127.0.0.1:7272 --rate 200 --topology direct --connections 100 --seconds 30\n  \
        weft loadgen run world-20b --target 127.0.0.1:7272 --scale 1e-4 --record day.csv\n  \
        weft loadgen run world-20b --target 127.0.0.1:7272 --replay day.csv --speedup 2\n  \
        weft loadgen run world-20b --target null --closed 64 --seconds 10       the generator alone, as fast as it can";

/// Flags that say how a profile is played.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Traffic")]
pub struct PlayArgs {
    /// Name of a shipped profile (`weft loadgen profiles list`), or a TOML file
    #[arg(value_name = "PROFILE")]
    pub profile: String,
    /// Share of the population that takes part, above 0 and at most 1; default: what --rate asks for, or one that gives 10,000 messages a
    /// second
    #[arg(long, value_name = "SHARE", conflicts_with = "rate")]
    pub scale: Option<f64>,
    /// Messages per second in the long-run mean: chooses the scale
    #[arg(long, value_name = "MSGS_PER_S")]
    pub rate: Option<f64>,
    /// Seconds of the profile in one second of the run
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub speedup: f64,
    /// Hour of the profile's day at which the run begins, UTC; default: the mean day
    #[arg(long, value_name = "HOUR")]
    pub at: Option<f64>,
    /// How the rate changes over the measured time: constant, soak, ramp:FROM..TO, step:F,F,... or spike:FACTORxSECONDS
    #[arg(long, value_name = "SHAPE", default_value = "constant")]
    pub shape: Shape,
    /// Closed loop instead: batches in flight per connection; events come as fast as acks
    #[arg(long, value_name = "BATCHES")]
    pub closed: Option<u32>,
    /// Time that is measured, in seconds; warm-up and draining come on top. Default 20, and with --replay until the trace ends
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Time before measuring, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub warm_up: f64,
    /// How long outstanding acks are waited for at the end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub drain: f64,
    /// Connections: gateways that share the devices (default 2), or with --topology direct those of devices that are open at once (default
    /// 64; a node takes 128 by default)
    #[arg(long, value_name = "COUNT")]
    pub connections: Option<u32>,
    /// How devices reach the node: gateway (all over a few connections) or direct (a connection and a handshake for each device that speaks)
    #[arg(long, value_name = "NAME", default_value = "gateway", value_parser = ["gateway", "direct"])]
    pub topology: String,
    /// With --topology direct: handshakes begun per second, at most
    #[arg(long, value_name = "PER_S", default_value_t = 500.0)]
    pub handshakes_per_s: f64,
    /// How often gateways send what is due, in milliseconds: up to this, and the millisecond of a timer, is in every latency
    #[arg(long, value_name = "MS", default_value_t = 2.0)]
    pub flush_ms: f64,
    /// Messages of one submit, at most
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    pub batch: u32,
    /// Names the population: keys, numbers and draws come from it
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Threads that build and sign messages
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub generator_threads: u32,
    /// Derived keys that each of them keeps (112 bytes each)
    #[arg(long, value_name = "COUNT", default_value_t = 65_536)]
    pub key_cache: usize,
    /// How messages are signed: serial, avx2, avx512, or auto for the fastest here
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub signer: String,
    /// What an ack must mean: received, written or durable
    #[arg(long, value_name = "LEVEL", default_value = "durable", value_parser = crate::cli::send::parse_level)]
    pub ack: AckLevel,
    /// The run is invalid if 1 % of the messages left the generator later than this after they were due, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20.0)]
    pub lag_p99_max_ms: f64,
    /// Faults on purpose, in place of the profile's: name=share, comma-separated, of missing, late, duplicate, out_of_order, bad_signature
    #[arg(long, value_name = "FAULTS")]
    pub dirty: Option<String>,
}

/// Messages per second of a run that names neither scale nor rate: what any machine keeps up with.
const RATE_PER_S_DEFAULT: f64 = 10_000.0;

/// Time that is measured unless said otherwise, seconds.
const SECONDS_DEFAULT: f64 = 20.0;

/// Connections of devices open at once unless said otherwise: half of what a node takes by default.
const CONNECTIONS_DIRECT_DEFAULT: u32 = 64;

/// Messages that wait for the target before the generator stops, at most: 60 MiB of the world's messages, so that a run stays below 200 MiB.
pub(super) const BACKLOG_MESSAGES_MAX: u32 = 131_072;

/// Acked messages kept for an audit by default, at most: 56 MiB.
const AUDIT_MAX_DEFAULT: u64 = 1_000_000;

impl PlayArgs {
    /// The run that the flags describe.
    ///
    /// # Errors
    /// A usage error for a profile or values that no run can have.
    pub fn run_config(&self, mut config: RunConfig) -> anyhow::Result<RunConfig> {
        let mut profile = profiles::load(&self.profile)?;
        if let Some(text) = &self.dirty {
            profile.dirty = dirty(text)?;
            profile.classes.iter_mut().for_each(|class| class.dirty = None);
        }
        let mut world = World::new(Arc::new(profile));
        world.speedup = self.speedup;
        world.at = self.at.map_or(At::Mean, At::Hour);
        world.scale = match (self.scale, self.rate) {
            (Some(scale), _) => scale,
            (None, rate) => {
                let whole = world.profile.rate_per_s() * self.speedup;
                // A little more than all is all: a rate that was copied from a report is rounded.
                if let Some(rate) = rate.filter(|rate| *rate > whole * 1.001) {
                    return Err(usage(format!(
                        "--rate {rate}: all devices of {} send {whole:.0} messages a second at --speedup {}: ask for less, or for a \
                         higher --speedup",
                        world.profile.name, self.speedup
                    )));
                }
                (rate.unwrap_or(RATE_PER_S_DEFAULT) / whole).min(1.0)
            }
        };
        config.schedule = match self.closed {
            Some(window) => Schedule::Closed { window },
            None => Schedule::Open { rate_per_s: world.rate_per_s() },
        };
        config.world = Some(world);
        config.shape = self.shape.clone();
        let connections_default = if self.topology == "direct" { CONNECTIONS_DIRECT_DEFAULT } else { 2 };
        config.connections = self.connections.unwrap_or(connections_default);
        if self.topology == "direct" {
            config.topology = Topology::Direct { handshakes_per_s: self.handshakes_per_s };
        }
        config.flush = seconds("--flush-ms", self.flush_ms / 1e3)?;
        config.batch_messages = self.batch;
        config.seed = self.seed;
        config.generator_threads = self.generator_threads;
        config.key_cache_slots = self.key_cache;
        config.duration = seconds("--seconds", self.seconds.unwrap_or(SECONDS_DEFAULT))?;
        config.warm_up = seconds("--warm-up", self.warm_up)?;
        config.drain = seconds("--drain", self.drain)?;
        config.lag_p99_max = seconds("--lag-p99-max-ms", self.lag_p99_max_ms / 1e3)?;
        config.ack_level = self.ack;
        config.signer = signer(&self.signer)?;
        config.backlog_messages_max = BACKLOG_MESSAGES_MAX;
        config.about.command_line = Some(command_line());
        config.validate().map_err(|error| usage(error.to_string()))?;
        Ok(config)
    }
}

/// Makes `config` play the trace at `path`, until its end unless `seconds` says otherwise.
fn replay(config: &mut RunConfig, path: &Path, seconds: Option<f64>) -> anyhow::Result<()> {
    let Some(world) = &mut config.world else { return Ok(()) };
    let names = world.profile.classes.iter().map(|class| class.name.clone()).collect();
    let trace = Trace::open(path, names).with_context(|| format!("cannot play {}", path.display()))?;
    world.scale = 1.0;
    // The last message is due just before the end.
    let length = Duration::from_secs_f64((trace.last_us() + 1) as f64 / 1e6 / world.speedup.max(1e-6))
        + Duration::from_micros(1);
    if seconds.is_none() {
        config.duration =
            length.checked_sub(config.warm_up).filter(|left| !left.is_zero()).ok_or_else(|| {
                usage(format!(
                    "the trace is over after {length:?}, within the warm-up of {:?}: see --warm-up",
                    config.warm_up
                ))
            })?;
    }
    config.schedule = Schedule::Open { rate_per_s: trace.rate_per_s() * world.speedup };
    config.replay = Some(Arc::new(trace));
    Ok(())
}

/// The command that runs this again.
pub(super) fn command_line() -> String {
    let quoted = |word: String| {
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,@+".contains(&byte));
        if plain && !word.is_empty() { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    // The first word is wherever the binary lay.
    std::iter::once("weft".to_owned())
        .chain(std::env::args().skip(1).map(quoted))
        .collect::<Vec<_>>()
        .join(" ")
}

fn dirty(text: &str) -> anyhow::Result<weft_loadgen::profile::Dirty> {
    let mut dirty = weft_loadgen::profile::Dirty { late_s_max: 30.0, ..Default::default() };
    for part in text.split(',') {
        let wrong = || {
            usage(format!(
                "--dirty: got {part:?}, need name=share with a name of missing, late, duplicate, out_of_order, bad_signature"
            ))
        };
        let (name, share) = part.split_once('=').ok_or_else(wrong)?;
        let share: f64 = share.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)?;
        *match name.trim() {
            "missing" => &mut dirty.missing,
            "late" => &mut dirty.late,
            "duplicate" => &mut dirty.duplicate,
            "out_of_order" => &mut dirty.out_of_order,
            "bad_signature" => &mut dirty.bad_signature,
            _ => return Err(wrong()),
        } = share;
    }
    Ok(dirty)
}

/// Arguments of `weft loadgen run`.
#[derive(clap::Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    play: PlayArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Search the highest rate that holds this, such as p99<=50ms (p50, p90, p99, p99.9, p99.99, max, mean); --seconds is the length of a
    /// trial then
    #[arg(long, value_name = "OBJECTIVE", conflicts_with_all = ["closed", "scale", "rate", "audit", "html", "hgrm", "hlog"])]
    find_max: Option<Objective>,
    /// Send the messages of this file, which `weft loadgen prepare` signed before, instead of signing live
    #[arg(long, value_name = "FILE", conflicts_with = "find_max")]
    pool: Option<PathBuf>,
    /// Play the messages of this trace (CSV: offset_us,device,payload_bytes,class) in place of the profile's models, at --speedup; classes
    /// are the profile's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["find_max", "pool", "closed", "scale", "rate", "at", "shape"])]
    replay: Option<PathBuf>,
    /// Write which device was due to say how much, and when, as a trace that --replay plays
    #[arg(long, value_name = "FILE", conflicts_with_all = ["find_max", "closed"])]
    record: Option<PathBuf>,
    /// Afterwards read acked messages back by their ids and verify them again
    #[arg(long)]
    audit: bool,
    /// The audit, after the node was restarted: it begins once the node's own uptime says so
    #[arg(long, requires = "audit")]
    audit_restart: bool,
    /// How long the audit waits for a node that is gone or to be restarted, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    audit_wait: f64,
    /// Acked messages kept for the audit, at most; of more a uniform sample of the batches is kept
    #[arg(long, value_name = "COUNT", default_value_t = AUDIT_MAX_DEFAULT)]
    audit_max: u64,
    /// Write the report as one self-contained HTML file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Write the latency histogram as an HdrHistogram percentile file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hgrm: Option<PathBuf>,
    /// Write latencies second by second as an HdrHistogram interval log (V2, compressed)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hlog: Option<PathBuf>,
    /// Show nothing while the run goes on
    #[arg(long, help_heading = "Output")]
    quiet: bool,
    #[command(flatten)]
    json: JsonArg,
}

/// Runs `weft loadgen run`.
///
/// # Errors
/// If the node cannot be reached.
pub fn run(args: RunArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let (target, node) = args.target.resolve()?;
    let mut config = args.play.run_config(RunConfig::new(target))?;
    if let Some(path) = &args.pool {
        let pool = Pool::open(path).with_context(|| format!("cannot use {}", path.display()))?;
        config.pool = Some(Arc::new(pool));
    }
    if let Some(path) = &args.replay {
        replay(&mut config, path, args.play.seconds)?;
    }
    config.record.clone_from(&args.record);
    config.validate().map_err(|error| usage(error.to_string()))?;
    config.audit = args.audit && node.is_some();
    config.audit_max = args.audit_max;
    config.interval_log = args.hlog.clone();
    config.about.backend = args.target.backend.clone();
    config.about.data_dir = args.target.data.clone();
    let stop = stop_signal()?;
    if let Some(objective) = &args.find_max {
        return find_max::run(&config, objective, &stop, args.quiet, &args.json);
    }
    let world = config.world();
    let title = format!("{} at scale {:.3e} against {}", world.profile.name, world.scale, args.target.target);
    let classes = world.profile.classes.iter().map(|class| class.name.clone()).collect();
    let began = Instant::now();
    let mut view = View::new(args.quiet, title, classes, node.as_ref());
    let outcome = drive(&config, &stop, &mut |progress| view.show(progress))?;
    drop(view);
    traffic::write_hgrm(args.hgrm.as_deref(), &outcome)?;
    let options = AuditOptions {
        patience: seconds("--audit-wait", args.audit_wait)?,
        run_began: Some(began),
        await_restart: args.audit_restart,
        ..AuditOptions::default()
    };
    if args.audit_restart && !args.quiet {
        eprintln!("the run is over; restart the node now (the audit waits for {} s)", args.audit_wait);
    }
    let report = audited(outcome, node.as_ref(), &options, &stop, args.quiet)?;
    write_html(args.html.as_deref(), &report)?;
    finish(&report, &args.json)
}
