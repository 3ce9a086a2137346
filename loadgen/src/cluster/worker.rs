//! A worker: takes a job from a coordinator, does it, and says what came of it.
//!
//! Owns the worker's end of the protocol. What to connect to and how to trust it is resolved by the caller.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::wire::{Job, Line, VERSION, hear, say, unix_us};
use crate::arrival::Split;
use crate::config::{At, RunConfig, Target, World};
use crate::driver::{Progress, Stop, run};
use crate::error::LoadError;
use crate::profile::Profile;
use crate::report::Report;
use crate::schedule::Schedule;

/// How long a worker waits for the coordinator's next line before the run: others may still be on their way.
const PATIENCE: Duration = Duration::from_secs(600);

/// Serves one run of the coordinator at `coordinator`, under `name`. `target` resolves the job's target; `settings` are this machine's own
/// (threads, signer, key cache); `observer` sees the run.
///
/// # Errors
/// If the coordinator is gone, speaks another version, or the run cannot be made (which it is told).
pub fn serve(
    coordinator: SocketAddr,
    name: &str,
    settings: impl Fn(Target) -> RunConfig,
    target: impl Fn(&Job) -> Result<Target, String>,
    stop: &Stop,
    observer: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Report, LoadError> {
    let stream = TcpStream::connect(coordinator)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut from = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    say(&mut to, &Line::Hello { version: VERSION, name: name.to_owned() })?;
    let job = loop {
        match hear(&mut from)? {
            Line::Ping { number } => say(&mut to, &Line::Pong { number, unix_us: unix_us() })?,
            Line::Job(job) => break job,
            Line::Failed { why } => return Err(refused(why)),
            other => return Err(unexpected(&other)),
        }
    };
    let mut config = match target(&job).and_then(|target| configure(&job, settings(target))) {
        Ok(config) => config,
        Err(why) => {
            say(&mut to, &Line::Failed { why: why.clone() })?;
            return Err(refused(why));
        }
    };
    say(&mut to, &Line::Ready)?;
    match hear(&mut from)? {
        Line::Start { unix_us, sequence_base } => {
            config.start_at_unix_us = Some(unix_us);
            config.sequence_base = Some(sequence_base);
        }
        Line::Failed { why } => return Err(refused(why)),
        other => return Err(unexpected(&other)),
    }
    let outcome = run(&config, stop, &mut |progress| {
        // A coordinator that is gone is found when the report is sent; the run itself goes on.
        let _ = say(&mut to, &Line::Moment(Box::new(progress.moment)));
        observer(progress);
    });
    match outcome {
        Ok(outcome) => {
            say(&mut to, &Line::Report(Box::new(outcome.report.clone())))?;
            Ok(outcome.report)
        }
        Err(error) => {
            say(&mut to, &Line::Failed { why: error.to_string() })?;
            Err(error)
        }
    }
}

/// The run that a job describes, on top of this machine's settings.
fn configure(job: &Job, mut config: RunConfig) -> Result<RunConfig, String> {
    let profile = Profile::parse(&job.profile).map_err(|error| error.to_string())?;
    let mut world = World::new(Arc::new(profile));
    (world.scale, world.speedup) = (job.scale, job.speedup);
    world.at = job.at_hour.map_or(At::Mean, At::Hour);
    world.split = Split { worker: job.worker, of: job.workers };
    config.schedule = match job.closed {
        Some(window) => Schedule::Closed { window },
        None => Schedule::Open { rate_per_s: world.rate_per_s() },
    };
    config.world = Some(world);
    config.shape = job.shape.parse()?;
    config.warm_up = Duration::from_micros(job.warm_up_us);
    config.duration = Duration::from_micros(job.duration_us);
    config.drain = Duration::from_micros(job.drain_us);
    config.connections = job.connections;
    config.batch_messages = job.batch;
    config.seed = job.seed;
    config.lag_p99_max = Duration::from_micros(job.lag_p99_us_max);
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

fn refused(why: String) -> LoadError {
    io::Error::other(why).into()
}

fn unexpected(line: &Line) -> LoadError {
    let what: String = format!("{line:?}").chars().take(60).collect();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the coordinator said {what}, which does not belong here"),
    )
    .into()
}
