//! What a device does in a second, measured beside this machine's CPU on the same rows.
//!
//! Every figure is the median of several runs after a warm-up, wall time, with everything that a batch costs: upload,
//! kernels, readback, and for `verify` the guard. The rows are honest signatures by many keys, made by the caller.

use std::time::{Duration, Instant};

use weft_crypto::{BatchVerifier, Columns};

use crate::engine::{Engine, Method};
use crate::error::GpuError;
use crate::hasher::MessageHasher;
use crate::verifier::GpuVerifier;

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured: `verify`, `transfer`, `hash`, `cpu` and its backend, or a kernel's name.
    pub what: String,
    /// Rows in a batch.
    pub rows: usize,
    /// Median time of a batch.
    pub time: Duration,
}

impl Row {
    /// Rows a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// Median wall time of `run`, over at least three runs and about `budget`.
pub fn median(budget: Duration, mut run: impl FnMut()) -> Duration {
    run();
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 3 || (start.elapsed() < budget && times.len() < 25) {
        let begin = Instant::now();
        run();
        times.push(begin.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

/// Which keys the device knows before a timed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// None: every key is decoded.
    Cold,
    /// All that fit: their x is on the device.
    Warm,
}

/// Guarded verification of the first `size` rows of `batch`, through [`BatchVerifier::verify`], for every size.
///
/// # Errors
/// What ended the device, or [`GpuError::Quarantined`] if an honest row is refused.
pub fn verify(
    gpu: &GpuVerifier,
    batch: &Columns<'_>,
    sizes: &[usize],
    keys: Keys,
    budget: Duration,
) -> Result<Vec<Row>, GpuError> {
    let mut out = Vec::new();
    for size in sizes.iter().copied().filter(|size| *size <= batch.len()) {
        let part = batch.rows(0, size);
        let mut verdicts = vec![false; size];
        if keys == Keys::Warm {
            // The run that warms up fills their entries.
            gpu.engine().admit(part.keys, usize::MAX);
        }
        let time = median(budget, || {
            if keys == Keys::Cold {
                gpu.engine().forget();
            }
            gpu.verify(&part, &mut verdicts);
        });
        if let Some(error) = gpu.ended() {
            return Err(error);
        }
        if verdicts.contains(&false) {
            return Err(GpuError::Quarantined("an honest row was refused".into()));
        }
        let what = if keys == Keys::Warm { "verify warm" } else { "verify" };
        out.push(Row { what: what.into(), rows: size, time });
    }
    Ok(out)
}

/// Every kernel of one batch by itself, with a wait after each: the split of the work, not its sum.
///
/// # Errors
/// What ended the device.
pub fn kernels(engine: &Engine, method: Method, batch: &Columns<'_>) -> Result<Vec<Row>, GpuError> {
    let mut out: Vec<Row> = Vec::new();
    for run in 0..3 {
        let mut at = 0;
        engine.step(batch, method, false, |stage, time, _| {
            if run == 0 {
                out.push(Row { what: stage.kernel.name().into(), rows: batch.len(), time });
            } else {
                out[at].time = out[at].time.min(time);
            }
            at += 1;
        })?;
    }
    Ok(out)
}

/// The upload of a batch and nothing else, for every size that fits one batch.
///
/// # Errors
/// What ended the device.
pub fn transfer(
    engine: &Engine,
    batch: &Columns<'_>,
    sizes: &[usize],
    budget: Duration,
) -> Result<Vec<Row>, GpuError> {
    let mut out = Vec::new();
    for size in sizes.iter().copied().filter(|size| *size <= batch.len().min(engine.rows_max())) {
        let part = batch.rows(0, size);
        let mut result = Ok(());
        let time = median(budget, || result = engine.transfer(&part));
        result?;
        out.push(Row { what: "transfer".into(), rows: size, time });
    }
    Ok(out)
}

/// Message ids of `messages`, for every size.
///
/// # Errors
/// What ended the device.
pub fn hash(
    hasher: &MessageHasher<'_>,
    messages: &[&[u8]],
    sizes: &[usize],
    budget: Duration,
) -> Result<Vec<Row>, GpuError> {
    let mut out = Vec::new();
    for size in sizes.iter().copied().filter(|size| *size <= messages.len()) {
        let mut result = Ok(Vec::new());
        let time = median(budget, || result = hasher.ids(&messages[..size]));
        result?;
        out.push(Row { what: "hash".into(), rows: size, time });
    }
    Ok(out)
}

/// A CPU verifier on one thread.
pub fn cpu(cpu: &dyn BatchVerifier, batch: &Columns<'_>, budget: Duration) -> Row {
    let mut verdicts = vec![false; batch.len()];
    let time = median(budget, || cpu.verify(batch, &mut verdicts));
    Row { what: format!("cpu {}", cpu.name()), rows: batch.len(), time }
}
