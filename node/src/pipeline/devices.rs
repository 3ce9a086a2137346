//! The node's devices: opened, fed from the job queue, watched, and told about.
//!
//! Each device has [`FEEDERS`] threads, as many as batches may be in flight: while one waits for the device, the other checks, copies
//! and uploads the next batch. The first one that gets there opens the device, which takes seconds while its kernels are compiled; the
//! node takes messages meanwhile. Every verdict comes through [`GpuVerifier`]'s guard. When a device has failed or was caught with a
//! wrong verdict, its batches have been verified on the CPU already; its feeders log that, count it, and end: the CPU workers go on with
//! the whole queue.
//!
//! Leaves the share of each device to [`super::share`], who takes what to [`super::queue`], and the messages to [`super::verify`].

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use serde::Serialize;
use weft_crypto::BatchVerifier;
use weft_gpu::adapter::Found;
use weft_gpu::{GpuError, GpuVerifier, Options, selftest};

use super::queue::{Ask, DEVICE_MESSAGES_MIN, JobQueue};
use super::share::{Pace, device_share};
use super::verify::{Trust, VerifyStage};
use super::{Job, VerifiedBatch};

/// Threads that feed a device: one batch computes while the next one is made ready.
pub const FEEDERS: usize = 2;

/// Batches of the first measurement: two sizes, so that latency and rate can be told apart. Small enough for a software adapter.
const CALIBRATION_ROWS: [usize; 2] = [256, 2048];

/// A device that got no share of any backlog for this long is measured again: what made it slow may be over, and only batches could
/// tell. The measurement is of known signatures, so that no message waits for it.
const MEASURE_AGAIN: Duration = Duration::from_secs(30);

/// No batch is to take a device longer than this: systems reset a GPU that is busy for some seconds, and nobody is answered meanwhile.
const BATCH_TIME_MAX: Duration = Duration::from_millis(500);

/// A device of this node.
pub struct Device {
    found: Found,
    options: Options,
    cpu: Arc<dyn BatchVerifier>,
    opened: OnceLock<Result<Arc<GpuVerifier>, GpuError>>,
    pace: Mutex<Pace>,
    /// When `pace` was last learnt from, or begun to be measured again.
    learnt: Mutex<Instant>,
    /// Set by the feeder that found the device ended: what it did is done once.
    ended: OnceLock<GpuError>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("adapter", &self.found.description.name).finish_non_exhaustive()
    }
}

/// A moment's state of a device, for health, metrics and reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceReport {
    /// The adapter's name.
    pub adapter: String,
    /// `opening`, `active`, `failed` (lost, out of memory, no answer) or `quarantined` (caught with a wrong verdict).
    pub state: &'static str,
    /// Why it is used no more, if so.
    pub cause: Option<String>,
    /// The field layout of its kernels, once it is open.
    pub layout: Option<&'static str>,
    /// Batches answered by the device.
    pub batches: u64,
    /// Signatures whose verdicts came from the device.
    pub signatures: u64,
    /// The device's rejections that were verified again on the CPU.
    pub rejections_checked: u64,
    /// Its acceptances that were verified again on the CPU.
    pub sampled: u64,
    /// Wrong verdicts found.
    pub mismatches: u64,
    /// Device keys that are decoded on it.
    pub resident_keys: u64,
    /// Signatures whose keys were decoded already.
    pub warm_signatures: u64,
    /// From how many signatures on a batch is verified by batch equations; none where they gain nothing.
    pub equations_from: Option<usize>,
    /// Batch equations over messages.
    pub equations: u64,
    /// Those that failed: their signatures were verified one by one.
    pub equations_failed: u64,
    /// Signatures given to the device and verified on the CPU, because it failed.
    pub fallback_signatures: u64,
}

impl Device {
    /// A device that is yet to be opened. `cpu` verifies what the guard does not leave to it.
    #[must_use]
    pub fn new(found: Found, options: Options, cpu: Arc<dyn BatchVerifier>) -> Self {
        let (opened, ended) = (OnceLock::new(), OnceLock::new());
        let learnt = Mutex::new(Instant::now());
        Self { found, options, cpu, opened, pace: Mutex::default(), learnt, ended }
    }

    /// Opens, tests and measures the device, unless that was done; whoever comes meanwhile waits.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(&self) -> Result<Arc<GpuVerifier>, GpuError> {
        self.opened.get_or_init(|| self.open_now()).clone()
    }

    fn open_now(&self) -> Result<Arc<GpuVerifier>, GpuError> {
        let started = Instant::now();
        let (engine, outcomes) = selftest::open(&self.found, &self.options)?;
        let gpu = GpuVerifier::new(engine, Arc::clone(&self.cpu));
        let (fixed, row) = self.measure(&gpu)?.line().unwrap_or_default();
        let engine = gpu.engine();
        if let Some(error) = outcomes.iter().find_map(|outcome| outcome.equations.as_ref()) {
            let adapter = &self.found.description.name;
            tracing::warn!(%adapter, %error, "this GPU's batch equations did not pass their self-test and are not used");
        }
        tracing::info!(
            adapter = %self.found.description.name,
            layout = engine.layout().name(),
            layouts_tested = outcomes.len(),
            opened_ms = started.elapsed().as_millis() as u64,
            batch_max = engine.rows_max(),
            latency_us = (fixed * 1e6) as u64,
            signatures_per_s = (1.0 / row.max(1e-9)) as u64,
            equations_from = engine.gain().map(|gain| gain.rows_min),
            equations_cost = engine.gain().map(|gain| gain.cost),
            "the GPU passed its self-test and takes part"
        );
        Ok(Arc::new(gpu))
    }

    /// Learns the pace anew from batches of known signatures.
    fn measure(&self, gpu: &GpuVerifier) -> Result<Pace, GpuError> {
        let mut pace = Pace::default();
        for rows in CALIBRATION_ROWS {
            let (rows, time) = gpu.measure(rows)?;
            pace.learn(rows, time);
        }
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
        *self.learnt.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(pace)
    }

    /// What it did so far.
    #[must_use]
    pub fn report(&self) -> DeviceReport {
        let opened = self.opened.get();
        let gpu = opened.and_then(|opened| opened.as_ref().ok());
        let counts = gpu.map(|gpu| gpu.counts()).unwrap_or_default();
        let residents = gpu.map(|gpu| gpu.engine().residents()).unwrap_or_default();
        let error = match opened {
            Some(Err(error)) => Some(error.clone()),
            _ => gpu.and_then(|gpu| gpu.ended()),
        };
        DeviceReport {
            adapter: self.found.description.name.clone(),
            state: match &error {
                Some(GpuError::Quarantined(_)) => "quarantined",
                Some(_) => "failed",
                None if gpu.is_some() => "active",
                None => "opening",
            },
            cause: error.map(|error| error.to_string()),
            layout: gpu.map(|gpu| gpu.engine().layout().name()),
            batches: counts.batches,
            signatures: counts.rows,
            rejections_checked: counts.rejections_checked,
            sampled: counts.sampled,
            mismatches: counts.mismatches,
            resident_keys: residents.keys,
            warm_signatures: residents.hits,
            equations_from: gpu.and_then(|gpu| gpu.engine().gain()).map(|gain| gain.rows_min),
            equations: counts.equations,
            equations_failed: counts.equations_failed,
            fallback_signatures: counts.fallback_rows,
        }
    }

    /// A feeder's life: until the queue is closed, nobody takes its results, or the device can be used no more.
    pub fn feed(&self, stage: &VerifyStage, jobs: &JobQueue<Job>, out: &Sender<VerifiedBatch>) {
        let gpu = match self.open() {
            Ok(gpu) => gpu,
            Err(error) => return self.give_up(&error, stage, jobs),
        };
        let ask = |queued: usize| {
            let cpu = *stage.pace.lock().unwrap_or_else(PoisonError::into_inner);
            match stage.devices_first {
                true => self.ask_first(queued, gpu.rows_max()),
                false => self.ask(queued, gpu.rows_max(), &cpu, stage.workers),
            }
        };
        while let Some(batch) = jobs.take_for_device(ask) {
            if batch.is_empty() {
                // An error ends the device, which is seen below.
                let _ = self.measure(&gpu);
            }
            for (group, trust) in stage.by_trust(batch) {
                // Sessions on probation are the CPU's: their messages are likely to be refused, which it has to confirm anyhow, and a feeder
                // that waits for that keeps the device from everybody else.
                let done = match trust {
                    Trust::Trusted => stage.verify(group, trust, &*gpu, |rows, time| self.learn(rows, time)),
                    Trust::Suspect => match jobs.give_back(group) {
                        Ok(()) => continue,
                        Err(group) => stage.verify(group, trust, &*self.cpu, |_, _| {}),
                    },
                };
                if out.send(done).is_err() {
                    return jobs.abandon();
                }
            }
            if let Some(error) = gpu.ended() {
                return self.give_up(&error, stage, jobs);
            }
        }
    }

    /// What the device takes of a backlog that it shares with the CPU.
    fn ask(&self, queued: usize, rows_max: usize, cpu: &Pace, workers: usize) -> Ask {
        let (pace, rows_max) = self.limit(rows_max);
        match device_share(queued, cpu, workers, &pace, DEVICE_MESSAGES_MIN, rows_max) {
            0 if queued >= DEVICE_MESSAGES_MIN && self.is_stale() => Ask::Leave,
            0 => Ask::Nothing,
            share => Ask::Back(share),
        }
    }

    /// What it takes while devices come first.
    fn ask_first(&self, queued: usize, rows_max: usize) -> Ask {
        if queued < DEVICE_MESSAGES_MIN { Ask::Nothing } else { Ask::Front(self.limit(rows_max).1) }
    }

    /// The pace, and the largest batch with which the device answers in time.
    fn limit(&self, rows_max: usize) -> (Pace, usize) {
        let pace = *self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = pace.messages_within(BATCH_TIME_MAX).unwrap_or(rows_max);
        (pace, in_time.max(DEVICE_MESSAGES_MIN).min(rows_max))
    }

    fn learn(&self, rows: usize, time: Duration) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).learn(rows, time);
        *self.learnt.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Whether nothing was learnt for long; once for whoever asks first.
    fn is_stale(&self) -> bool {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = learnt.elapsed() >= MEASURE_AGAIN;
        if stale {
            *learnt = Instant::now();
        }
        stale
    }

    /// Ends the device's part in this node; the first feeder that comes here does it.
    fn give_up(&self, error: &GpuError, stage: &VerifyStage, jobs: &JobQueue<Job>) {
        if self.ended.set(error.clone()).is_ok() {
            let quarantined = matches!(error, GpuError::Quarantined(_));
            tracing::error!(
                adapter = %self.found.description.name,
                quarantined,
                %error,
                "this GPU is used no more until the node is restarted; its last batches were verified again on the CPU"
            );
            if stage.devices_first {
                jobs.device_gone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_crypto::SerialBatch;
    use weft_gpu::adapter::{self, Choice};

    use super::*;

    fn device() -> Option<Device> {
        match adapter::choose(&Choice::Auto) {
            Ok(Some(found)) => {
                let options = Options { rows_max: 4096, ..Options::default() };
                Some(Device::new(found, options, Arc::new(SerialBatch::new())))
            }
            other => {
                let required = std::env::var_os("WEFT_GPU_REQUIRED").is_some_and(|value| value == "1");
                assert!(!required, "WEFT_GPU_REQUIRED=1: {:?}", other.err());
                eprintln!("SKIPPED gpu: no adapter");
                None
            }
        }
    }

    #[test]
    fn a_device_that_hesitated_once_is_measured_again_and_gets_its_share_back() {
        let Some(device) = device() else { return };
        let gpu = device.open().expect("the adapter opens");
        // A CPU of 1,000 messages a second: any device is faster.
        let mut cpu = Pace::default();
        cpu.learn(1000, Duration::from_secs(1));
        let ask = || device.ask(10_000, gpu.rows_max(), &cpu, 1);
        assert!(matches!(ask(), Ask::Back(_)), "{:?}", ask());
        device.learn(256, Duration::from_secs(60));
        assert_eq!(ask(), Ask::Nothing, "slow, as far as anybody knows");
        assert_eq!(
            device.ask_first(10_000, 4096),
            Ask::Front(DEVICE_MESSAGES_MIN),
            "and then in small batches"
        );
        let long_ago = Instant::now().checked_sub(MEASURE_AGAIN).expect("a clock that ran for a while");
        *device.learnt.lock().unwrap() = long_ago;
        assert_eq!(device.ask(DEVICE_MESSAGES_MIN - 1, 4096, &cpu, 1), Ask::Nothing, "no backlog, no need");
        assert_eq!((ask(), ask()), (Ask::Leave, Ask::Nothing), "one feeder measures");
        device.measure(&gpu).expect("the device works");
        assert!(matches!(ask(), Ask::Back(_)), "{:?}", ask());
        assert_eq!((gpu.ended(), gpu.counts().rows), (None, 0), "no message was needed for it");
    }
}
