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
use super::verify::VerifyStage;
use super::{Job, VerifiedBatch};

/// Threads that feed a device: one batch computes while the next one is made ready.
pub const FEEDERS: usize = 2;

/// Batches of the first measurement: two sizes, so that latency and rate can be told apart. Small enough for a software adapter.
const CALIBRATION_ROWS: [usize; 2] = [256, 2048];

/// A device of this node.
pub struct Device {
    found: Found,
    options: Options,
    cpu: Arc<dyn BatchVerifier>,
    opened: OnceLock<Result<Arc<GpuVerifier>, GpuError>>,
    pace: Mutex<Pace>,
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
    /// Signatures given to the device and verified on the CPU, because it failed.
    pub fallback_signatures: u64,
}

impl Device {
    /// A device that is yet to be opened. `cpu` verifies what the guard does not leave to it.
    #[must_use]
    pub fn new(found: Found, options: Options, cpu: Arc<dyn BatchVerifier>) -> Self {
        Self { found, options, cpu, opened: OnceLock::new(), pace: Mutex::default(), ended: OnceLock::new() }
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
        let mut pace = Pace::default();
        for rows in CALIBRATION_ROWS {
            let (rows, time) = selftest::measure(&engine, rows)?;
            pace.learn(rows, time);
        }
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
        let (fixed, row) = pace.line().unwrap_or_default();
        tracing::info!(
            adapter = %self.found.description.name,
            layout = engine.layout().name(),
            layouts_tested = outcomes.len(),
            opened_ms = started.elapsed().as_millis() as u64,
            batch_max = engine.rows_max(),
            latency_us = (fixed * 1e6) as u64,
            signatures_per_s = (1.0 / row.max(1e-9)) as u64,
            "the GPU passed its self-test and takes part"
        );
        Ok(Arc::new(GpuVerifier::new(engine, Arc::clone(&self.cpu))))
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
            fallback_signatures: counts.fallback_rows,
        }
    }

    /// A feeder's life: until the queue is closed, nobody takes its results, or the device can be used no more.
    pub fn feed(&self, stage: &VerifyStage, jobs: &JobQueue<Job>, out: &Sender<VerifiedBatch>) {
        let gpu = match self.open() {
            Ok(gpu) => gpu,
            Err(error) => return self.give_up(&error, stage, jobs),
        };
        let rows_max = gpu.rows_max();
        let ask = |queued: usize| {
            if stage.devices_first {
                return if queued < DEVICE_MESSAGES_MIN { Ask::Nothing } else { Ask::Front(rows_max) };
            }
            let pace = *self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let cpu = *stage.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let least = DEVICE_MESSAGES_MIN;
            match device_share(queued, &cpu, stage.workers, &pace, least, rows_max) {
                0 => Ask::Nothing,
                share => Ask::Back(share),
            }
        };
        while let Some(batch) = jobs.take_for_device(ask) {
            for (number, (group, trust)) in stage.by_trust(batch).into_iter().enumerate() {
                // The second group is the sessions on probation: likely to be refused, which the CPU has to confirm anyhow. The first may
                // be that too, if nobody else is there: the device does no harm to it.
                let done = if number == 0 {
                    stage.verify(group, trust, &*gpu, |rows, time| self.learn(rows, time))
                } else {
                    stage.verify(group, trust, &*self.cpu, |_, _| {})
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

    fn learn(&self, rows: usize, time: Duration) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).learn(rows, time);
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
