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

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use weft_crypto::sign::BatchSigner;
use weft_net::AckLevel;

use crate::acked::AckedLog;
use crate::clock::RunClock;
use crate::config::{RunConfig, Target};
use crate::connection::drive;
use crate::error::LoadError;
use crate::generate::{Batch, Generator, Traffic};
use crate::hgrm::Summary;
use crate::link::{Granted, Links};
use crate::machine::{Machine, commit, rfc3339};
use crate::measure::{Meter, Rules, Window};
use crate::population::Population;
use crate::queue::Queue;
use crate::report::{
    Facts, GeneratorReport, OpenFacts, PROBLEMS_MAX, Rate, Report, SCHEMA, group, invalid_reason, time,
};
use crate::schedule::{Pace, Plan, Planner, Schedule, as_us};
use crate::tips::TipSlot;

/// How often the supervisor looks at stop signal, threads and deadline.
const SUPERVISE_EVERY: Duration = Duration::from_millis(20);

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

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

/// A look at a run that goes on; one comes each second, and one at the end.
#[derive(Clone, Copy, Debug)]
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
    /// Length column of a full batch: all messages are equally long.
    pub(crate) lengths: Box<[u16]>,
    pub(crate) acked: Option<Mutex<AckedLog>>,
    planner: Mutex<Planner>,
    window: Window,
    lag_us_max: u64,
    look_ahead_us: u64,
    meters: Box<[Mutex<Meter>]>,
    problems: Mutex<Vec<String>>,
    connections_lost: AtomicU32,
    /// Tells generator threads to go.
    halt: AtomicBool,
    generators_left: AtomicUsize,
    /// Time that generator threads could not push.
    blocked_us: AtomicU64,
}

impl Shared {
    pub(crate) fn meter(&self, index: usize) -> MutexGuard<'_, Meter> {
        self.meters[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rules(&self) -> Rules<'_> {
        Rules { schedule: self.traffic.schedule, window: &self.window, lag_us_max: self.lag_us_max }
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

    fn planner(&self) -> MutexGuard<'_, Planner> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the sending: nothing more is built, and what waits in the queue is dropped.
    fn halt(&self) {
        self.halt.store(true, Ordering::Relaxed);
        self.window.end_at(self.traffic.clock.now_us());
        self.queue.close(true);
    }

    fn totals(&self) -> Meter {
        let mut total = Meter::new();
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
    config.validate()?;
    // A thread of its own: whatever runtime the caller is in, another one may be entered here.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("loadgen".to_owned())
            .spawn_scoped(scope, || run_here(config, stop, observer))?;
        thread.join().unwrap_or(Err(LoadError::Internal { what: "the supervisor panicked" }))
    })
}

fn run_here(
    config: &RunConfig,
    stop: &Stop,
    observer: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Outcome, LoadError> {
    let signer = config.signer.signer().map_err(|error| LoadError::Config {
        what: "signer",
        got: config.signer.to_string(),
        limit: error.to_string(),
    })?;
    let runtime = runtime(config.connections)?;
    let Links { granted, links } = runtime.block_on(Links::open(config))?;
    let shared = Arc::new(shared(config, &granted));
    let clock = shared.traffic.clock;
    // Whichever way this function is left, no thread stays behind.
    let halt = HaltOnDrop(Arc::clone(&shared));
    let mut threads = Vec::new();
    for index in 0..config.generator_threads {
        let (shared, signer) = (Arc::clone(&shared), Arc::clone(&signer));
        let slots = config.key_cache_slots;
        let thread = std::thread::Builder::new().name(format!("sign-{index}"));
        threads.push(thread.spawn(move || generate(&shared, slots, signer))?);
    }
    let stopped = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (index, link) in links.into_iter().enumerate() {
            tasks.spawn(drive(Arc::clone(&shared), index, link));
        }
        supervise(config, &shared, tasks, stop, observer).await
    });
    let elapsed_us = clock.now_us();
    drop(halt);
    let mut generators = Vec::new();
    for thread in threads {
        let stats = thread.join().map_err(|_| LoadError::Internal { what: "a generator thread panicked" })?;
        generators.push(stats);
    }
    runtime.shutdown_timeout(Duration::from_secs(1));

    let run = Finished {
        config,
        shared: &shared,
        batch_messages: granted.batch_messages,
        generators,
        stopped,
        elapsed_us,
    };
    let (report, meter) = run.report(signer.name());
    // Tasks that were cut off may hold the other references for a moment longer: the record is taken out, not unwrapped.
    let acked = shared.acked.as_ref().map(|log| {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = AckedLog::new(log.population(), 0);
        std::mem::replace(&mut *log, empty)
    });
    Ok(Outcome { report, meter, acked })
}

/// Ends the sending when dropped.
struct HaltOnDrop(Arc<Shared>);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.halt();
    }
}

fn runtime(connections: u32) -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((connections as usize).clamp(1, cores))
        .thread_name("loadgen-io")
        .enable_all()
        .build()
}

fn shared(config: &RunConfig, granted: &Granted) -> Shared {
    let clock = RunClock::start();
    // 0 devices were refused by the configuration's check.
    let devices = NonZeroU64::new(config.devices).unwrap_or(NonZeroU64::MIN);
    let population = Population { seed: config.seed, devices, sequence_base: clock.unix_us(0) };
    let tips = TipSlot::new(granted.roots);
    tips.offer(granted.tips.iter().copied());
    let traffic = Traffic {
        population,
        network: granted.network,
        payload_bytes: config.payload_bytes,
        message_bytes: config.message_bytes(),
        schedule: config.schedule,
        clock,
        tips,
        keep_ids: config.audit,
    };
    let plan = Plan {
        schedule: config.schedule,
        batch_messages: granted.batch_messages,
        duration: config.warm_up + config.duration,
        messages_max: config.messages_max,
        flush: config.flush,
    };
    let (start_us, end_us) = (as_us(config.warm_up), as_us(config.warm_up + config.duration));
    Shared {
        traffic: Arc::new(traffic),
        queue: Queue::new(config.queued_messages_max()),
        ack_level: config.ack_level,
        // The longest message has 16,568 bytes.
        lengths: vec![config.message_bytes() as u16; granted.batch_messages as usize].into(),
        acked: config.audit.then(|| Mutex::new(AckedLog::new(population, config.audit_max))),
        planner: Mutex::new(Planner::new(plan)),
        window: Window::new(start_us, end_us),
        lag_us_max: as_us(config.lag_p99_max),
        look_ahead_us: as_us(config.look_ahead),
        meters: (0..config.connections).map(|_| Mutex::new(Meter::new())).collect(),
        problems: Mutex::new(Vec::new()),
        connections_lost: AtomicU32::new(0),
        halt: AtomicBool::new(false),
        generators_left: AtomicUsize::new(config.generator_threads as usize),
        blocked_us: AtomicU64::new(0),
    }
}

/// What a generator thread did.
#[derive(Clone, Copy, Debug, Default)]
struct ThreadStats {
    messages: u64,
    keys_derived: u64,
    busy: Duration,
    /// Time on a core and time waiting for one.
    scheduled: Option<(Duration, Duration)>,
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

/// Body of a generator thread.
fn generate(shared: &Shared, key_cache_slots: usize, signer: Arc<dyn BatchSigner>) -> ThreadStats {
    let _count_out = CountOut(shared);
    let clock = shared.traffic.clock;
    let mut generator = Generator::new(Arc::clone(&shared.traffic), key_cache_slots, signer);
    let mut stats = ThreadStats::default();
    while !shared.halt.load(Ordering::Relaxed) {
        let Some(work) = shared.planner().next(clock.now_us()) else { break };
        sleep_until(clock.instant(work.release_us.saturating_sub(shared.look_ahead_us)), &shared.halt);
        let begun = Instant::now();
        let batch = match generator.build(&work) {
            Ok(batch) => batch,
            Err(rejection) => {
                shared.problem(format!("generator: {rejection}"));
                break;
            }
        };
        stats.busy += begun.elapsed();
        stats.messages += u64::from(work.count);
        let release = clock.instant(work.release_us);
        match shared.queue.push(work.number, release, u64::from(work.count), batch) {
            Ok(waited) => shared.blocked_us.fetch_add(as_us(waited), Ordering::Relaxed),
            Err(_) => break,
        };
    }
    stats.keys_derived = generator.derived_total();
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
    observer: &mut (dyn FnMut(&Progress) + Send),
) -> bool {
    let clock = shared.traffic.clock;
    let mut deadline: Option<Instant> = None;
    let mut stopped = false;
    let mut look = Look { at: Instant::now(), sent: 0, acked: 0 };
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Err(error)) if error.is_panic() => {
                    shared.connection_lost("a connection task panicked".to_owned());
                }
                Some(_) => {}
            },
            () = tokio::time::sleep(SUPERVISE_EVERY) => {}
        }
        if stop.is_requested() && !stopped {
            stopped = true;
            shared.halt();
        }
        let all_built = shared.generators_left.load(Ordering::Acquire) == 0;
        if all_built && shared.planner().planned() >= config.messages_max && shared.queue.is_empty() {
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
        if look.at.elapsed() >= PROGRESS_EVERY {
            observer(&look.next(shared));
        }
    }
    tasks.shutdown().await;
    observer(&look.next(shared));
    stopped
}

/// The last look at a run.
struct Look {
    at: Instant,
    sent: u64,
    acked: u64,
}

impl Look {
    fn next(&mut self, shared: &Shared) -> Progress {
        let total = shared.totals();
        let now = Instant::now();
        let now_us = shared.traffic.clock.at_us(now);
        let seconds = (now - self.at).as_secs_f64().max(1e-6);
        let percentile =
            |quantile| (!total.latency.is_empty()).then(|| total.latency.value_at_quantile(quantile));
        let progress = Progress {
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
            sent_per_s: total.sent.saturating_sub(self.sent) as f64 / seconds,
            acked_per_s: total.acked.saturating_sub(self.acked) as f64 / seconds,
            p50_us: percentile(0.5),
            p99_us: percentile(0.99),
        };
        *self = Self { at: now, sent: total.sent, acked: total.acked };
        progress
    }
}

/// A run that is over, before it is put into words.
struct Finished<'a> {
    config: &'a RunConfig,
    shared: &'a Shared,
    batch_messages: u32,
    generators: Vec<ThreadStats>,
    stopped: bool,
    elapsed_us: u64,
}

impl Finished<'_> {
    fn report(&self, signer: &str) -> (Report, Meter) {
        let Self { config, shared, .. } = self;
        let total = shared.totals();
        let window = &shared.window;
        let seconds = window.seconds();
        let per_s = |count: u64| if seconds > 0.0 { round(count as f64 / seconds) } else { 0.0 };
        let unacked = total.sent.saturating_sub(total.acked + total.rejected);
        let blocked_s = shared.blocked_us.load(Ordering::Relaxed) as f64 / 1e6;
        let held_back_s = total.held_back_us as f64 / 1e6;
        let (rate_per_s, open) = match config.schedule {
            Schedule::Closed { .. } => (None, None),
            Schedule::Open { rate_per_s } => {
                let pace = Pace::new(rate_per_s);
                let due = |at_us| pace.due_before(at_us).min(config.messages_max);
                let open = OpenFacts {
                    rate_per_s,
                    intended: due(window.end_us()).saturating_sub(due(window.start_us)),
                    sent_in_time: total.sent_in_time,
                    generator_lag_p99_us: total.generator_lag.value_at_quantile(0.99),
                    lag_p99_us_max: shared.lag_us_max,
                    backlog_full_s: round(blocked_s),
                    held_back_s,
                };
                (Some(rate_per_s), Some(open))
            }
        };
        let facts = Facts {
            measured_s: seconds,
            acked: total.acked,
            unacked,
            connections_lost: shared.connections_lost.load(Ordering::Relaxed),
            open,
        };
        let invalid_reason = invalid_reason(&facts);
        let (target, ack_level) = match &config.target {
            Target::Node(node) => (node.addr.to_string(), config.ack_level.name().to_owned()),
            Target::Null(_) => ("null".to_owned(), "none".to_owned()),
        };
        let report = Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: rfc3339(shared.traffic.clock.unix_us(0) / 1_000_000),
            valid: invalid_reason.is_none(),
            invalid_reason,
            stopped: self.stopped,
            loop_mode: if rate_per_s.is_some() { "open" } else { "closed" },
            window: match config.schedule {
                Schedule::Closed { window } => Some(window),
                Schedule::Open { .. } => None,
            },
            rate: Rate { intended_per_s: rate_per_s, achieved_per_s: per_s(total.sent_in_window) },
            target,
            ack_level,
            throughput_msgs_per_s: per_s(total.acked_in_window),
            sent_total: total.sent,
            acked_total: total.acked,
            rejected_total: total.rejected,
            rejected: total.rejected_by.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            unacked,
            latency_us: Summary::of(&total.latency),
            service_time_us: Summary::of(&total.service_time),
            send_lag_us: Summary::of(&total.send_lag),
            generator_lag_us: Summary::of(&total.generator_lag),
            lag_p99_us_max: shared.lag_us_max,
            held_back_s: round(held_back_s),
            duration_s: seconds,
            warm_up_s: config.warm_up.as_secs_f64(),
            elapsed_s: self.elapsed_us as f64 / 1e6,
            connections: config.connections,
            batch: self.batch_messages,
            devices: config.devices,
            seed: config.seed,
            payload_bytes: config.payload_bytes,
            message_bytes: config.message_bytes(),
            generator: self.generator(signer, blocked_s),
            backend: config.about.backend.clone(),
            audit: None,
            problems: shared.problems.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            machine: Machine::read(config.about.data_dir.as_deref()),
            commit: commit(),
            command_line: config.about.command_line.clone(),
        };
        (report, total)
    }

    fn generator(&self, signer: &str, blocked_s: f64) -> GeneratorReport {
        let threads = self.generators.len();
        let busy_s: f64 = self.generators.iter().map(|thread| thread.busy.as_secs_f64()).sum();
        let messages: u64 = self.generators.iter().map(|thread| thread.messages).sum();
        let scheduled: Option<Vec<_>> = self.generators.iter().map(|thread| thread.scheduled).collect();
        let sum = |pick: fn(&(Duration, Duration)) -> Duration| {
            scheduled.as_ref().map(|times| round(times.iter().map(pick).sum::<Duration>().as_secs_f64()))
        };
        let cpu_s = sum(|times| times.0);
        let wall_s = (self.elapsed_us as f64 / 1e6).max(1e-6);
        GeneratorReport {
            threads: threads as u32,
            signer: signer.to_owned(),
            messages,
            keys_derived: self.generators.iter().map(|thread| thread.keys_derived).sum(),
            busy_share: round((busy_s / wall_s / threads.max(1) as f64).min(1.0)),
            cpu_s,
            waited_for_cpu_s: sum(|times| times.1),
            cpu_us_per_message: cpu_s
                .filter(|_| messages > 0)
                .map(|cpu_s| round(cpu_s * 1e6 / messages as f64)),
            blocked_s: round(blocked_s),
        }
    }
}

/// Three decimals are more than any of these figures is good for.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
