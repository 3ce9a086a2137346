//! A run from beginning to end: threads that sign, tasks that send, a supervisor that counts the seconds.
//!
//! Owns [`run`]. Generator threads (std threads, so that signing never sits on a task that should receive acks) take work from the
//! planner, build batches and push them into one bounded queue; a task per connection takes them out. Backpressure runs from the target's
//! credit through the queue to the threads. The run has its own small runtime, apart from the caller's, so that a node in the same process
//! does not share its tasks. Invariants: memory is bounded by the configuration ([`RunConfig::worst_case_bytes`]) and time by warm-up +
//! duration + drain; a run that was stopped or lost its connections still reports.
//!
//! | phase | ends when | what counts |
//! |---|---|---|
//! | warm-up | its time is over | totals only |
//! | measuring | its time is over, the messages are used up, or the stop signal comes | everything |
//! | draining | all is answered, or `drain` is over | acks of what was due before; nothing new is due |

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use weft_crypto::sign::BatchSigner;
use weft_net::AckLevel;

use crate::acked::AckedLog;
use crate::arrival::Arrivals;
use crate::clock::RunClock;
use crate::config::{METERS_MAX, RunConfig, Topology, World};
use crate::connection::{Feed, drive};
use crate::direct::{Handshakes, dispatch};
use crate::error::LoadError;
use crate::finish::{Finished, ThreadStats};
use crate::generate::{Batch, Generator, Traffic, Voice};
use crate::hold::Holds;
use crate::link::{Granted, Links};
use crate::measure::{Meter, Rules, Window};
use crate::pool::Pool;
use crate::queue::Queue;
use crate::report::{Moment, PROBLEMS_MAX, Report, group, time};
use crate::schedule::{Plan, Planner, Schedule, as_us};
use crate::timeline::{IntervalLog, Timeline, Totals, next_look_us};
use crate::tips::TipSlot;
use crate::trace::{Recorder, Replay};

/// How often the supervisor looks at stop signal, threads and deadline.
const SUPERVISE_EVERY: Duration = Duration::from_millis(20);

/// A run that begins later than this after the time that it was told says so: it is not at one with the others.
const LATE_START_US: u64 = 50_000;

/// A request to stop, shared by whoever may ask (a Ctrl-C handler) and the run or audit that obeys. Once asked, always asked.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A signal that nobody has given yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the end was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sending, not measuring yet.
    WarmUp,
    /// Sending and measuring.
    Measuring,
    /// Waiting for what is outstanding.
    Draining,
}

/// One class, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassProgress {
    /// Messages sent that were due in the measured time.
    pub sent: u64,
    /// Of these, acked.
    pub acked: u64,
    /// Of these, refused.
    pub rejected: u64,
    /// 99th percentile of its latency, microseconds; 0 before the first ack.
    pub p99_us: u64,
}

/// A look at a run that goes on; one comes each second, and one at the end.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Since the first message.
    pub elapsed: Duration,
    /// Where the run is.
    pub phase: Phase,
    /// Messages sent so far, warm-up included.
    pub sent: u64,
    /// Messages acked so far.
    pub acked: u64,
    /// Messages refused so far.
    pub rejected: u64,
    /// Messages sent and not answered yet.
    pub in_flight: u64,
    /// Messages sent per second since the look before.
    pub sent_per_s: f64,
    /// Messages acked per second since the look before.
    pub acked_per_s: f64,
    /// Median latency measured so far, microseconds; `None` in the warm-up.
    pub p50_us: Option<u64>,
    /// Its 99th percentile.
    pub p99_us: Option<u64>,
    /// The last second.
    pub moment: Moment,
    /// Refused messages by reason.
    pub rejected_by: BTreeMap<String, u64>,
    /// By class of the profile.
    pub classes: Vec<ClassProgress>,
}

/// One line for a terminal.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase {
            Phase::WarmUp => "warm-up",
            Phase::Measuring => "measuring",
            Phase::Draining => "draining",
        };
        write!(
            f,
            "{:>6.1} s  {phase:<9}  {:>9} sent/s  {:>9} acked/s",
            self.elapsed.as_secs_f64(),
            group(self.sent_per_s.round() as u64),
            group(self.acked_per_s.round() as u64)
        )?;
        if let (Some(p50_us), Some(p99_us)) = (self.p50_us, self.p99_us) {
            write!(f, "  p50 {:>7}  p99 {:>7}", time(p50_us), time(p99_us))?;
        }
        if self.rejected > 0 {
            write!(f, "  {} rejected", group(self.rejected))?;
        }
        Ok(())
    }
}

/// What a run leaves.
#[derive(Debug)]
pub struct Outcome {
    /// The report, without an audit.
    pub report: Report,
    /// Histograms and counts behind it.
    pub meter: Meter,
    /// What an audit reads back, if the configuration asked for it.
    pub acked: Option<AckedLog>,
}

/// Everything that threads and tasks of one run share.
pub(crate) struct Shared {
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) queue: Queue<Batch>,
    pub(crate) ack_level: AckLevel,
    pub(crate) acked: Option<Mutex<AckedLog>>,
    /// The events as they were at the start, for generators to tell whose they are.
    arrivals: Arrivals,
    planner: Mutex<Planner>,
    pub(crate) window: Window,
    pub(crate) lag_us_max: u64,
    flush_us: u64,
    look_ahead_us: u64,
    meters: Box<[Mutex<Meter>]>,
    pub(crate) problems: Mutex<Vec<String>>,
    pub(crate) connections_lost: AtomicU32,
    /// Tells generator threads to go.
    halt: AtomicBool,
    generators_left: AtomicUsize,
    /// Time that generator threads could not push.
    pub(crate) blocked_us: AtomicU64,
    /// When that was.
    pub(crate) blocked: Holds,
    /// In the direct topology.
    pub(crate) handshakes: Option<Arc<Handshakes>>,
}

impl Shared {
    pub(crate) fn meter(&self, index: usize) -> MutexGuard<'_, Meter> {
        self.meters[index % self.meters.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rules(&self) -> Rules<'_> {
        Rules {
            schedule: self.traffic.schedule,
            window: &self.window,
            lag_us_max: self.lag_us_max,
            flush_us: self.flush_us,
            blocked: &self.blocked,
        }
    }

    pub(crate) fn problem(&self, what: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < PROBLEMS_MAX && !problems.contains(&what) {
            tracing::warn!("{what}");
            problems.push(what);
        }
    }

    pub(crate) fn connection_lost(&self, what: String) {
        self.connections_lost.fetch_add(1, Ordering::Relaxed);
        self.problem(what);
    }

    pub(crate) fn planner(&self) -> MutexGuard<'_, Planner> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the sending: nothing more is built, and what waits in the queue is dropped.
    fn halt(&self) {
        self.window.end_at(self.traffic.clock.now_us());
        self.close();
    }

    /// Lets threads and tasks go. The measured time ends here only if something was cut off: a profile that is silent until its end is
    /// still measured until then.
    fn close(&self) {
        let cut_off = self.connections_lost.load(Ordering::Relaxed) > 0
            || self.generators_left.load(Ordering::Acquire) > 0
            || self.planner().is_used_up();
        self.halt.store(true, Ordering::Relaxed);
        if cut_off {
            self.window.end_at(self.traffic.clock.now_us());
        }
        self.queue.close(true);
    }

    pub(crate) fn totals(&self) -> Meter {
        let mut total = Meter::new(self.traffic.voices.len());
        (0..self.meters.len()).for_each(|index| total.add(&self.meter(index)));
        total
    }
}

/// Drives `config.target` as `config` says and reports. Blocks until the run is over; call it from a thread that may block
/// (`spawn_blocking` inside a runtime). `observer` gets a look each second.
///
/// # Errors
/// [`LoadError`] if the run could not be made at all. What goes wrong later is in the report.
pub fn run(
    config: &RunConfig,
    stop: &Stop,
    observer: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Outcome, LoadError> {
    run_together(config, stop, &mut || Ok(None), observer)
}

/// When several generators begin one run, and what they number their messages from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Microseconds since the Unix epoch by this machine's clock.
    pub(crate) unix_us: u64,
    /// See [`RunConfig::sequence_base`].
    pub(crate) sequence_base: u64,
}

/// Like [`run`], but asks `begin` for the start once all connections are open and nothing is left to do but to send. `None`: at once.
pub(crate) fn run_together(
    config: &RunConfig,
    stop: &Stop,
    begin: &mut (dyn FnMut() -> Result<Option<Start>, LoadError> + Send),
    observer: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Outcome, LoadError> {
    config.validate()?;
    // A thread of its own: whatever runtime the caller is in, another one may be entered here.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("loadgen".to_owned())
            .spawn_scoped(scope, || run_here(config, stop, begin, observer))?;
        thread.join().unwrap_or(Err(LoadError::Internal { what: "the supervisor panicked" }))
    })
}

fn run_here(
    config: &RunConfig,
    stop: &Stop,
    begin: &mut (dyn FnMut() -> Result<Option<Start>, LoadError> + Send),
    observer: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Outcome, LoadError> {
    let signer = config.signer.signer().map_err(|error| LoadError::Config {
        what: "signer",
        got: config.signer.to_string(),
        limit: error.to_string(),
    })?;
    let runtime = runtime(config.connections)?;
    let Links { granted, links, dialer } = runtime.block_on(Links::open(config))?;
    if let Some(pool) = &config.pool {
        crate::pool::check(pool, config, granted.network, granted.batch_messages)?;
    }
    let world = config.world();
    // Idle connections are kept by the runtime's threads while this one waits.
    let start = begin()?;
    let late_us = start.map_or(0, |start| wait_until(start.unix_us, stop));
    let sequence_base = start.map(|start| start.sequence_base).or(config.sequence_base);
    let shared = Arc::new(shared(config, &world, &granted, sequence_base)?);
    if late_us > LATE_START_US {
        shared.problem(format!("the run began {} after the time that it was told", time(late_us)));
    }
    let clock = shared.traffic.clock;
    // Whichever way this function is left, no thread stays behind.
    let halt = HaltOnDrop(Arc::clone(&shared));
    let mut threads = Vec::new();
    for index in 0..config.generator_threads {
        let (shared, signer) = (Arc::clone(&shared), Arc::clone(&signer));
        let thread = std::thread::Builder::new().name(format!("sign-{index}"));
        let builder = match &config.pool {
            Some(pool) => Builder::Pool(Arc::clone(pool), config.repeats_pool()),
            None => Builder::Live(config.key_cache_slots, signer),
        };
        threads.push(thread.spawn(move || generate(&shared, builder))?);
    }
    let mut log = IntervalLog::create(config, clock)?;
    let (stopped, timeline) = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (index, link) in links.into_iter().enumerate() {
            tasks.spawn(drive(Arc::clone(&shared), index, link, Feed::Queue));
        }
        if let Some(dialer) = dialer {
            tasks.spawn(dispatch(Arc::clone(&shared), dialer, config.connections));
        }
        supervise(config, &shared, tasks, stop, &mut log, observer).await
    });
    if let Some(what) = log.close() {
        shared.problem(what);
    }
    let elapsed_us = clock.now_us();
    drop(halt);
    let mut generators = Vec::new();
    for thread in threads {
        let stats = thread.join().map_err(|_| LoadError::Internal { what: "a generator thread panicked" })?;
        generators.push(stats);
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    let wrong = shared.planner().close_traces();
    wrong.into_iter().for_each(|what| shared.problem(what));

    let run = Finished {
        config,
        world: &world,
        shared: &shared,
        batch_messages: granted.batch_messages,
        generators,
        stopped,
        elapsed_us,
        timeline: timeline.moments(),
    };
    let (report, meter) = run.report(signer.name());
    // Tasks that were cut off may hold the other references for a moment longer: the record is taken out, not unwrapped.
    let acked = shared.acked.as_ref().map(|log| {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = AckedLog::new(log.seed(), 0);
        std::mem::replace(&mut *log, empty)
    });
    Ok(Outcome { report, meter, acked })
}

/// Ends the sending when dropped.
struct HaltOnDrop(Arc<Shared>);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Sleeps until `start_us` (Unix); tells how long ago that was, microseconds.
fn wait_until(start_us: u64, stop: &Stop) -> u64 {
    while !stop.is_requested() {
        let now_us = RunClock::start().unix_us(0);
        if now_us >= start_us {
            return now_us - start_us;
        }
        std::thread::sleep(Duration::from_micros(start_us - now_us).min(SUPERVISE_EVERY));
    }
    0
}

fn runtime(connections: u32) -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((connections as usize).clamp(1, cores))
        .thread_name("loadgen-io")
        .enable_all()
        .build()
}

fn shared(
    config: &RunConfig,
    world: &World,
    granted: &Granted,
    sequence_base: Option<u64>,
) -> std::io::Result<Shared> {
    let clock = RunClock::start();
    let tips = TipSlot::new(granted.roots);
    tips.offer(granted.tips.iter().copied());
    let (start_us, end_us) = (as_us(config.warm_up), as_us(config.warm_up + config.duration));
    let traffic = Traffic {
        seed: config.seed,
        // The clock in microseconds: virtual milliseconds and cycles are far fewer, so a later run on the same ledger begins above
        // everything that an earlier one used, as long as the clock was not set back in between.
        sequence_base: sequence_base.unwrap_or_else(|| clock.unix_us(0)),
        network: granted.network,
        voices: Voice::all(&world.profile),
        schedule: config.schedule,
        clock,
        measured_us: start_us..end_us,
        tips,
        keep_trail: config.audit,
        keep_devices: matches!(config.topology, Topology::Direct { .. }),
    };
    let plan = Plan {
        schedule: config.schedule,
        batch_messages: granted.batch_messages,
        warm_up: config.warm_up,
        duration: config.duration,
        messages_max: config.messages_max,
        flush: config.flush,
        // A pool has its messages in the order of time.
        priority: match &config.pool {
            None => world.profile.classes.iter().map(|class| class.priority).collect(),
            Some(_) => Box::default(),
        },
    };
    let (play, warp) = config.play(world);
    let classes = traffic.voices.len();
    let (arrivals, replay) = match &config.replay {
        None => (Arrivals::new(&world.profile, &play), None),
        Some(trace) => {
            let replay = Replay::new(Arc::clone(trace), world.speedup)?;
            (Arrivals::of_trace(classes, config.seed), Some(replay))
        }
    };
    let recorder = config.record.as_ref().map(|path| Recorder::create(path, &world.profile)).transpose()?;
    let meters = (config.connections as usize).min(METERS_MAX);
    Ok(Shared {
        traffic: Arc::new(traffic),
        queue: Queue::new(config.queued_messages_max()),
        ack_level: config.ack_level,
        acked: config.audit.then(|| Mutex::new(AckedLog::new(config.seed, config.audit_max))),
        planner: Mutex::new(Planner::new(plan, arrivals.clone(), warp).with_traces(replay, recorder)),
        arrivals,
        window: Window::new(start_us, end_us),
        lag_us_max: as_us(config.lag_p99_max),
        flush_us: as_us(config.flush),
        look_ahead_us: as_us(config.look_ahead),
        meters: (0..meters).map(|_| Mutex::new(Meter::new(classes))).collect(),
        problems: Mutex::new(Vec::new()),
        connections_lost: AtomicU32::new(0),
        halt: AtomicBool::new(false),
        generators_left: AtomicUsize::new(config.generator_threads as usize),
        blocked_us: AtomicU64::new(0),
        blocked: Holds::default(),
        handshakes: match config.topology {
            Topology::Gateway => None,
            Topology::Direct { handshakes_per_s } => Some(Arc::new(Handshakes::new(handshakes_per_s))),
        },
    })
}

/// Counts a generator thread out, however it ends; the last one closes the queue.
struct CountOut<'a>(&'a Shared);

impl Drop for CountOut<'_> {
    fn drop(&mut self) {
        if self.0.generators_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // A closed loop sends nothing after its time; what an open loop has built is due and still goes out.
            let closed = matches!(self.0.traffic.schedule, Schedule::Closed { .. });
            let time_up = self.0.traffic.clock.now_us() >= self.0.window.end_us();
            self.0.queue.close(closed && time_up);
        }
    }
}

/// Where a generator thread has its messages from.
enum Builder {
    /// Built and signed as they fall due, with a cache of so many keys.
    Live(usize, Arc<dyn BatchSigner>),
    /// Signed before; over and over if so.
    Pool(Arc<Pool>, bool),
}

/// Body of a generator thread.
fn generate(shared: &Shared, builder: Builder) -> ThreadStats {
    let _count_out = CountOut(shared);
    let clock = shared.traffic.clock;
    let (mut generator, pool) = match builder {
        Builder::Live(slots, signer) => {
            let traffic = Arc::clone(&shared.traffic);
            (Some(Generator::new(traffic, shared.arrivals.clone(), slots, signer)), None)
        }
        Builder::Pool(pool, repeat) => (None, Some((pool, repeat))),
    };
    let mut stats = ThreadStats::default();
    let started = Instant::now();
    while !shared.halt.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let Some(work) = shared.planner().next(clock.now_us()) else { break };
        stats.busy += begun.elapsed();
        sleep_until(clock.instant(work.release_us.saturating_sub(shared.look_ahead_us)), &shared.halt);
        let begun = Instant::now();
        let built = match (&mut generator, &pool) {
            (Some(generator), _) => generator.build(&work),
            (None, Some((pool, repeat))) => {
                let keep = shared.traffic.keep_trail;
                let batch = pool.batch(&work, &shared.arrivals, *repeat, keep, clock);
                if batch.is_none() {
                    shared.problem(format!("the pool has {} messages, and is used up", pool.messages()));
                    break;
                }
                batch
            }
            (None, None) => None,
        };
        stats.busy += begun.elapsed();
        let Some(batch) = built else { continue };
        let count = batch.rows.len() as u64;
        stats.messages += count;
        let release = clock.instant(work.release_us);
        match shared.queue.push(work.number, work.urgent, release, count, batch) {
            Ok(None) => {}
            Ok(Some(held)) => {
                stats.blocked += held.waited;
                shared.blocked_us.fetch_add(as_us(held.waited), Ordering::Relaxed);
                shared.blocked.note(clock.at_us(held.from), clock.at_us(held.until));
            }
            Err(_) => break,
        }
        stats.active = started.elapsed();
    }
    if let Some(generator) = &generator {
        stats.keys_derived = generator.derived_total();
        stats.missing = generator.missing().to_vec();
    }
    stats.scheduled = thread_times();
    stats
}

/// Sleeps until `until`, but never long after `halt` is set.
fn sleep_until(until: Instant, halt: &AtomicBool) {
    while !halt.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(SUPERVISE_EVERY));
    }
}

/// Time that this thread spent on a core, and time that it waited for one (Linux: proc(5), schedstat).
fn thread_times() -> Option<(Duration, Duration)> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut numbers = text.split_whitespace().map(|word| word.parse().map(Duration::from_nanos));
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Watches a run until it is over; tells whether it was stopped.
async fn supervise(
    config: &RunConfig,
    shared: &Shared,
    mut tasks: JoinSet<()>,
    stop: &Stop,
    log: &mut IntervalLog,
    observer: &mut (dyn FnMut(&Progress) + Send),
) -> (bool, Timeline) {
    let clock = shared.traffic.clock;
    let mut deadline: Option<Instant> = None;
    let mut stopped = false;
    let mut look = Look { next_us: next_look_us(0), timeline: Timeline::new() };
    loop {
        let until_look = Duration::from_micros(look.next_us.saturating_sub(clock.now_us()));
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Err(error)) if error.is_panic() => {
                    shared.connection_lost("a connection task panicked".to_owned());
                }
                Some(_) => {}
            },
            () = tokio::time::sleep(SUPERVISE_EVERY.min(until_look)) => {}
        }
        if stop.is_requested() && !stopped {
            stopped = true;
            shared.halt();
        }
        let all_built = shared.generators_left.load(Ordering::Acquire) == 0;
        if all_built && shared.planner().is_used_up() && shared.queue.is_empty() {
            // The messages are used up: the rates are those of the time that they took.
            shared.window.end_at(clock.now_us());
        }
        // An open loop that is behind may still be building: it has the same time to catch up as acks have to come.
        if all_built || clock.now_us() >= shared.window.end_us() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + config.drain);
            if Instant::now() >= deadline {
                break;
            }
        }
        if clock.now_us() >= look.next_us {
            observer(&look.next(shared, log));
        }
    }
    tasks.shutdown().await;
    observer(&look.next(shared, log));
    (stopped, look.timeline)
}

/// Looks at a run, one after the other.
struct Look {
    /// When the next one is due, microseconds since the start.
    next_us: u64,
    timeline: Timeline,
}

impl Look {
    fn next(&mut self, shared: &Shared, log: &mut IntervalLog) -> Progress {
        let mut total = shared.totals();
        // Taken out under the same locks one after the other: an ack between the two belongs to the next interval.
        let mut interval = crate::hgrm::new_histogram();
        let mut logged = crate::hgrm::new_histogram();
        for meter in &shared.meters {
            let mut meter = meter.lock().unwrap_or_else(PoisonError::into_inner);
            // Cannot fail: all histograms of this crate have one range.
            let _ = interval.add(&meter.interval).and_then(|()| logged.add(&meter.logged));
            meter.interval.reset();
            meter.logged.reset();
        }
        let now_us = shared.traffic.clock.now_us();
        self.next_us = next_look_us(now_us);
        let (intended, due) = match shared.traffic.schedule {
            Schedule::Closed { .. } => (None, None),
            Schedule::Open { .. } => {
                let (until_us, mut planner) = (now_us.min(shared.window.end_us()), shared.planner());
                (Some(planner.expected(0, until_us).iter().sum()), Some(planner.due_until(until_us)))
            }
        };
        let totals = Totals { sent: total.sent, acked: total.acked, rejected: total.rejected, intended, due };
        let moment = self.timeline.add(now_us as f64 / 1e6, totals, &interval);
        log.write(&moment, &logged);
        let percentile =
            |quantile| (!total.latency.is_empty()).then(|| total.latency.value_at_quantile(quantile));
        Progress {
            elapsed: Duration::from_micros(now_us),
            phase: if now_us >= shared.window.end_us() {
                Phase::Draining
            } else if now_us >= shared.window.start_us {
                Phase::Measuring
            } else {
                Phase::WarmUp
            },
            sent: total.sent,
            acked: total.acked,
            rejected: total.rejected,
            in_flight: total.sent.saturating_sub(total.acked + total.rejected),
            sent_per_s: moment.sent_per_s,
            acked_per_s: moment.acked_per_s,
            p50_us: percentile(0.5),
            p99_us: percentile(0.99),
            moment,
            rejected_by: std::mem::take(&mut total.rejected_by),
            classes: total
                .classes
                .iter()
                .map(|class| ClassProgress {
                    sent: class.sent,
                    acked: class.acked,
                    rejected: class.rejected,
                    p99_us: class.latency.value_at_quantile(0.99),
                })
                .collect(),
        }
    }
}
