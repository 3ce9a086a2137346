//! The coordinator: waits for workers, tells each its part and when to begin, and merges what they report.
//!
//! Owns the coordinator's end of the protocol. One thread per worker; a worker that fails, closes its connection or is silent for too long
//! is lost, and the run goes on without it.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::merge::merge;
use super::wire::{Job, Line, VERSION, WORKERS_MAX, hear, say, unix_us};
use crate::error::LoadError;
use crate::report::{Moment, Report, WorkerReport};

/// Round trips from which a worker's clock is estimated; the fastest one counts.
const PINGS: u32 = 16;

/// From the last worker's readiness to the start: time for the word to reach everybody.
const LEAD: Duration = Duration::from_millis(1_500);

/// Silence after which a worker that should report each second is lost.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How long the workers may take to connect to the target, all together: well below the five minutes after which a node ends an idle
/// session, since the first waits for the last with its connections open.
const READY_MAX: Duration = Duration::from_secs(60);

/// How a run is coordinated.
#[derive(Clone, Debug)]
pub struct CoordinateOptions {
    /// Workers that take part.
    pub workers: u32,
    /// How long they are waited for.
    pub wait: Duration,
    /// What each of them does; its number is filled in.
    pub job: Job,
}

/// What happened, for a terminal.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A worker came.
    Joined {
        /// Number, from 0.
        worker: u32,
        /// Name and address.
        name: String,
        /// How far its clock is ahead, microseconds, and by how much this may be wrong.
        offset_us: (i64, u64),
    },
    /// All are ready and will begin together.
    Started,
    /// A worker's last second.
    Moment(u32, Moment),
    /// A worker is done.
    Done(u32),
    /// A worker is lost.
    Lost(String),
}

/// One worker's connection.
struct Worker {
    number: u32,
    name: String,
    from: BufReader<TcpStream>,
    to: TcpStream,
    /// Its clock less this one's.
    offset_us: i64,
    /// By how much that may be wrong.
    error_us: u64,
}

/// What a worker's thread says.
enum News {
    Moment(u32, Box<Moment>),
    Report(u32, Box<Report>),
    Lost(u32, String),
}

/// Runs `options.job` on the workers that connect to `listener`; returns the merged report and those of the workers.
///
/// # Errors
/// If not enough workers come, none is left, or their reports do not fit together.
pub fn coordinate(
    listener: &TcpListener,
    options: &CoordinateOptions,
    observer: &mut dyn FnMut(&Seen),
) -> Result<(Report, Vec<Report>), LoadError> {
    if !(1..=WORKERS_MAX).contains(&options.workers) {
        let limit = format!("between 1 and {WORKERS_MAX}");
        return Err(LoadError::Config { what: "workers", got: options.workers.to_string(), limit });
    }
    let mut lost = Vec::new();
    let mut workers = gather(listener, options, observer)?;
    let clocks = workers
        .iter()
        .map(|worker| WorkerReport {
            name: worker.name.clone(),
            clock_offset_us: worker.offset_us,
            clock_error_us: worker.error_us,
        })
        .collect();
    for worker in &mut workers {
        let mut job = options.job.clone();
        (job.worker, job.workers) = (worker.number, options.workers);
        say(&mut worker.to, &Line::Job(Box::new(job)))?;
    }
    let deadline = Instant::now() + READY_MAX;
    workers.retain_mut(|worker| {
        // What is there already is read even when the time is over: no read waits for less than this.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
        let ready = worker.to.set_read_timeout(Some(left)).and_then(|()| hear(&mut worker.from));
        let why = match ready {
            Ok(Line::Ready) => return true,
            Ok(Line::Failed { why }) => why,
            Ok(_) => "it said something else than that it is ready".to_owned(),
            Err(error) => error.to_string(),
        };
        let worker = format!("{}: {why}", worker.name);
        observer(&Seen::Lost(worker.clone()));
        lost.push(worker);
        false
    });
    let start_us = unix_us() + crate::schedule::as_us(LEAD);
    let (news, heard) = channel();
    let mut names = Vec::new();
    for mut worker in workers {
        let at = start_us.saturating_add_signed(worker.offset_us);
        let started = say(&mut worker.to, &Line::Start { unix_us: at, sequence_base: start_us });
        names.push((worker.number, worker.name.clone()));
        let (news, number) = (news.clone(), worker.number);
        if let Err(error) = started {
            let _ = news.send(News::Lost(number, error.to_string()));
            continue;
        }
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || listen(&mut worker, &news))?;
    }
    drop(news);
    observer(&Seen::Started);
    let reports = collect(&heard, options, &names, &mut lost, observer);
    let mut merged = merge(&reports, &lost)?;
    merged.workers = clocks;
    Ok((merged, reports))
}

/// Waits for all workers and asks their clocks.
fn gather(
    listener: &TcpListener,
    options: &CoordinateOptions,
    observer: &mut dyn FnMut(&Seen),
) -> Result<Vec<Worker>, LoadError> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + options.wait;
    let mut workers = Vec::new();
    while workers.len() < options.workers as usize {
        match listener.accept() {
            Ok((stream, addr)) => match greet(stream, addr, workers.len() as u32) {
                Ok(worker) => {
                    observer(&Seen::Joined {
                        worker: worker.number,
                        name: worker.name.clone(),
                        offset_us: (worker.offset_us, worker.error_us),
                    });
                    workers.push(worker);
                }
                // Somebody else on this port, or a worker of another version: the others are still waited for.
                Err(error) => observer(&Seen::Lost(format!("{addr}: {error}"))),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Err(LoadError::Target {
                        what: "number of workers",
                        got: workers.len().to_string(),
                        limit: format!("{} within {:?}", options.workers, options.wait),
                    });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(workers)
}

/// Hears who it is, and estimates its clock.
fn greet(stream: TcpStream, addr: SocketAddr, number: u32) -> io::Result<Worker> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    let mut from = BufReader::new(stream.try_clone()?);
    let mut to = stream;
    let name = match hear(&mut from)? {
        Line::Hello { version: VERSION, name } => {
            name.chars().filter(|letter| !letter.is_control()).take(64).collect::<String>()
        }
        Line::Hello { version, .. } => {
            let why = format!("it speaks version {version}, and this coordinator {VERSION}");
            say(&mut to, &Line::Failed { why: why.clone() })?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not begin with a hello")),
    };
    let mut best: Option<(u64, i64)> = None;
    for ping in 0..PINGS {
        let (sent, before) = (Instant::now(), unix_us());
        say(&mut to, &Line::Ping { number: ping })?;
        let Line::Pong { number, unix_us: theirs } = hear(&mut from)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it did not answer a ping"));
        };
        if number != ping {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it answered another ping"));
        }
        let trip_us = crate::schedule::as_us(sent.elapsed());
        // Half of the round trip each way: wrong by half of it at most.
        let offset = theirs as i64 - (before + trip_us / 2) as i64;
        if best.is_none_or(|(trip, _)| trip_us < trip) {
            best = Some((trip_us, offset));
        }
    }
    let (trip_us, offset_us) = best.unwrap_or((0, 0));
    let name = format!("worker {number} ({name}, {addr})");
    Ok(Worker { number, name, from, to, offset_us, error_us: trip_us / 2 })
}

/// A worker's thread: passes on what it says until its report, or its end.
fn listen(worker: &mut Worker, news: &Sender<News>) {
    let number = worker.number;
    // Until the start nothing is said.
    let _ = worker.to.set_read_timeout(Some(SILENCE_MAX));
    let end = loop {
        match hear(&mut worker.from) {
            Ok(Line::Moment(moment)) => {
                let _ = news.send(News::Moment(number, moment));
            }
            Ok(Line::Report(report)) => break News::Report(number, report),
            Ok(Line::Failed { why }) => break News::Lost(number, why),
            Ok(_) => break News::Lost(number, "it said something that does not belong there".to_owned()),
            Err(error) => break News::Lost(number, error.to_string()),
        }
    };
    let _ = news.send(end);
}

fn collect(
    heard: &Receiver<News>,
    options: &CoordinateOptions,
    names: &[(u32, String)],
    lost: &mut Vec<String>,
    observer: &mut dyn FnMut(&Seen),
) -> Vec<Report> {
    let job = &options.job;
    let longest = Duration::from_micros(job.warm_up_us + job.duration_us + 2 * job.drain_us);
    let deadline = Instant::now() + LEAD + longest + SILENCE_MAX;
    let name = |number: u32| {
        names
            .iter()
            .find(|(known, _)| *known == number)
            .map_or(format!("worker {number}"), |(_, name)| name.clone())
    };
    let mut reports: Vec<(u32, Report)> = Vec::new();
    let mut gone: Vec<u32> = Vec::new();
    while reports.len() + gone.len() < names.len() {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(News::Moment(number, moment)) => observer(&Seen::Moment(number, *moment)),
            Ok(News::Report(number, report)) => {
                observer(&Seen::Done(number));
                reports.push((number, *report));
            }
            Ok(News::Lost(number, why)) => {
                let worker = format!("{}: {why}", name(number));
                observer(&Seen::Lost(worker.clone()));
                gone.push(number);
                lost.push(worker);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                for (number, worker) in names {
                    let known = gone.contains(number) || reports.iter().any(|(done, _)| done == number);
                    if !known {
                        lost.push(format!("{worker}: no report in time"));
                    }
                }
                break;
            }
        }
    }
    reports.sort_by_key(|(number, _)| *number);
    reports.into_iter().map(|(_, report)| report).collect()
}
