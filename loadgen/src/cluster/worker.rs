//! A worker: takes a job from a coordinator, does it, and says what came of it.
//!
//! Owns the worker's end of the protocol. What to connect to and how to trust it is resolved by the caller.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::wire::{Job, Line, VERSION, hear, say, unix_us};
use crate::arrival::Split;
use crate::config::{At, RunConfig, Target, Topology, World};
use crate::driver::{Progress, Start, Stop, run_together};
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
    let config = match target(&job).and_then(|target| configure(&job, settings(target))) {
        Ok(config) => config,
        Err(why) => {
            say(&mut to, &Line::Failed { why: why.clone() })?;
            return Err(refused(why));
        }
    };
    let mut word = to.try_clone()?;
    let outcome = run_together(
        &config,
        stop,
        &mut || {
            say(&mut word, &Line::Ready)?;
            match hear(&mut from)? {
                Line::Start { unix_us, sequence_base } => Ok(Some(Start { unix_us, sequence_base })),
                Line::Failed { why } => Err(refused(why)),
                other => Err(unexpected(&other)),
            }
        },
        &mut |progress| {
            // A coordinator that is gone is found when the report is sent; the run itself goes on.
            let _ = say(&mut to, &Line::Moment(Box::new(progress.moment)));
            observer(progress);
        },
    );
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
    config.flush = Duration::from_micros(job.flush_us);
    config.ack_level = job.ack_level.parse()?;
    if let Some(handshakes_per_s) = job.handshakes_per_s {
        config.topology = Topology::Direct { handshakes_per_s };
    }
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

#[cfg(test)]
mod tests {
    use weft_net::{AckLevel, Trust};

    use super::*;
    use crate::config::NodeTarget;
    use crate::profile::presets;

    #[test]
    fn a_worker_does_what_its_job_says() {
        let job = Job {
            profile: presets::load("flat").unwrap().to_toml().unwrap(),
            scale: 0.01,
            speedup: 2.0,
            at_hour: Some(3.0),
            shape: "ramp:0.5..1".to_owned(),
            closed: None,
            warm_up_us: 1_000_000,
            duration_us: 3_000_000,
            drain_us: 4_000_000,
            connections: 7,
            batch: 33,
            seed: 5,
            lag_p99_us_max: 9_000,
            ack_level: "written".to_owned(),
            flush_us: 700,
            handshakes_per_s: Some(40.0),
            target: "127.0.0.1:1".to_owned(),
            pin: None,
            worker: 1,
            workers: 3,
        };
        let node = || {
            let addr = "127.0.0.1:1".parse().unwrap();
            RunConfig::new(Target::Node(NodeTarget { addr, trust: Trust::InsecureAny, network: None }))
        };
        let config = configure(&job, node()).unwrap();
        assert_eq!(config.ack_level, AckLevel::Written);
        assert_eq!(config.topology, Topology::Direct { handshakes_per_s: 40.0 });
        assert_eq!((config.connections, config.batch_messages, config.seed), (7, 33, 5));
        assert_eq!(config.flush, Duration::from_micros(700));
        let world = config.world();
        assert_eq!((world.split, world.at, world.speedup), (Split { worker: 1, of: 3 }, At::Hour(3.0), 2.0));
        let wrong = Job { ack_level: "maybe".to_owned(), ..job.clone() };
        assert!(configure(&wrong, node()).unwrap_err().contains("maybe"));
        let closed = Job { closed: Some(4), handshakes_per_s: None, ..job };
        assert_eq!(configure(&closed, node()).unwrap().schedule, Schedule::Closed { window: 4 });
    }
}
